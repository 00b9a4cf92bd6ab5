//! What only a loaded model can refuse: one sentence that names the value, before anything is painted.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "../../../tests/shared/folder.rs"]
mod folder;

use std::path::{Path, PathBuf};

use image::{GrayImage, Luma, RgbImage};
use infill_engine::image::Picture;
use infill_engine::mask::Mask;
use infill_engine::pipeline::{LoadOptions, Observer, check_run, place_timesteps};
use infill_engine::request::SchedulerChoice;
use infill_engine::scheduler::{SchedulerKind, TimestepSpacing};
use infill_engine::{InpaintParams, InpaintRequest, Pipeline, Result};
use infill_models::Checkpoint;
use infill_networks::{DType, Device};
use serde_json::{Value, json};

use folder::copy;

fn fixture(model: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/models").join(model)
}

fn load(dir: &Path) -> Result<Pipeline> {
    let options = LoadOptions { device: Device::Cpu, dtype: DType::F32 };
    Pipeline::load(&Checkpoint::open(dir).unwrap(), &options, &mut Observer::silent())
}

fn request(change: impl Fn(&mut InpaintParams)) -> InpaintRequest {
    let image = Picture::from_rgb8(RgbImage::new(64, 64));
    let mask = Mask::from_luma8(GrayImage::from_pixel(64, 64, Luma([255])));
    let mut params = InpaintParams::new(image, mask, "a cat");
    change(&mut params);
    InpaintRequest::new(params).unwrap()
}

/// The words with which a run of `model` is refused.
fn refusal(model: &str, change: impl Fn(&mut InpaintParams)) -> String {
    let pipeline = load(&fixture(model)).unwrap();
    let painted = pipeline.inpaint(&request(change), &mut Observer::silent(), &mut |_| panic!("painted"));
    painted.unwrap_err().to_string()
}

/// The words with which it is refused before the model is loaded, which are the same.
fn early_refusal(model: &str, change: impl Fn(&mut InpaintParams) + Copy) -> String {
    let early = check_run(&Checkpoint::open(&fixture(model)).unwrap(), &request(change));
    let early = early.unwrap_err().to_string();
    assert_eq!(early, refusal(model, change));
    early
}

/// The words with which a copy of `model` is refused whose `component/config.json` has another value.
fn load_refusal(model: &str, component: &str, key: &str, value: Value) -> String {
    let dir = tempfile::tempdir().unwrap();
    copy(&fixture(model), dir.path());
    let path = dir.path().join(component).join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    config[key] = value;
    std::fs::write(&path, config.to_string()).unwrap();
    load(dir.path()).map(|_| ()).unwrap_err().to_string()
}

#[test]
fn more_layers_than_the_text_encoder_has_are_not_left_out() {
    for model in ["tiny-sd15-inpaint", "tiny-sdxl-inpaint"] {
        let message = early_refusal(model, |params| params.clip_skip = Some(31));
        assert!(message.starts_with("clip_skip is 31; allowed: 0 to "), "{message}");
    }
}

/// Numbers that are none would be black pixels, and nobody told.
#[test]
fn a_picture_of_what_is_no_number_is_an_error() {
    for model in ["tiny-sd15-inpaint", "tiny-sdxl-inpaint"] {
        let message = refusal(model, |params| {
            params.num_inference_steps = 2;
            params.scheduler.overrides = vec![("beta_start".into(), json!(-5.0))];
        });
        assert!(message.starts_with("the painted picture holds what is no number: "), "{message}");
        assert!(message.contains("f32"), "{message}");
    }
}

#[test]
fn steps_that_a_scheduler_can_not_take_are_named_as_the_request_names_them() {
    let message = early_refusal("tiny-sdxl-inpaint", |params| {
        params.num_inference_steps = 60;
        params.scheduler.kind = Some(SchedulerKind::Lcm);
    });
    assert_eq!(message, "steps is 60; allowed: 1 to 50, the scheduler's original_inference_steps");
    let message = early_refusal("tiny-sdxl-inpaint", |params| {
        params.num_inference_steps = 3;
        params.scheduler.kind = Some(SchedulerKind::Pndm);
        params.scheduler.overrides = vec![("skip_prk_steps".into(), json!(false))];
    });
    assert_eq!(message, "steps is 3; allowed: 4 or more with PNDMScheduler where skip_prk_steps is false");
}

#[test]
fn components_that_do_not_fit_together_are_refused_before_their_weights_are_read() {
    let cases = [
        ("unet", "cross_attention_dim", json!(48), "unet cross_attention_dim is 48; allowed: "),
        ("unet", "out_channels", json!(8), "unet out_channels is 8; allowed: 4"),
        ("vae", "latent_channels", json!(16), "vae latent_channels is 16; allowed: 4"),
        (
            "text_encoder",
            "max_position_embeddings",
            json!(20),
            "the tokenizer's model_max_length is 77; allowed: up to",
        ),
        ("text_encoder", "vocab_size", json!(3), "a special token's id is "),
    ];
    for (component, key, value, expected) in cases {
        let message = load_refusal("tiny-sd15-inpaint", component, key, value);
        assert!(message.starts_with(expected), "{key}: {message}");
    }
    let message = load_refusal("tiny-sdxl-inpaint", "unet", "addition_time_embed_dim", json!(2));
    assert!(message.starts_with("unet projection_class_embeddings_input_dim is "), "{message}");
}

/// A server's spacing is not put into the recipe of a class that does not read it.
#[test]
fn time_steps_are_placed_where_the_class_reads_where() {
    let checkpoint = Checkpoint::open(&fixture("tiny-sdxl-inpaint")).unwrap();
    for kind in SchedulerKind::ALL {
        let mut choice = SchedulerChoice { kind: Some(kind), ..SchedulerChoice::default() };
        place_timesteps(&checkpoint, TimestepSpacing::Trailing, &mut choice).unwrap();
        assert_eq!(choice.overrides.is_empty(), !kind.spaces_timesteps(), "{kind}");
    }
}
