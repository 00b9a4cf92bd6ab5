//! What prompts become, against the language stated in Python and against diffusers' own textual inversion.

use std::ops::ControlFlow;

use candle_core::{DType, Device, Tensor};
use image::{GrayImage, Luma, RgbImage};
use infill_engine::image::Picture;
use infill_engine::mask::Mask;
use infill_engine::pipeline::{LoadOptions, Observer, Pipeline, Progress};
use infill_engine::request::{InpaintParams, InpaintRequest, PROMPT_LIMIT, PromptSyntax};
use infill_engine::{Additions, Error};
use infill_models::embedding::EmbeddingFile;
use serde_json::Value;

use crate::case::{Folders, device_and_dtype};
use crate::compare::values;

/// How many times the noise floor a value may be away, and the least that a floor is: one rounding of the largest value.
const FLOORS: f64 = 10.0;
const ROUNDING: f64 = 1.0 / 16_777_216.0;
/// Of the features of the hidden states every eighth is kept.
const KEPT: usize = 8;

fn params(case: &Value) -> InpaintParams {
    let text = |key: &str| case[key].as_str().map(str::to_owned);
    let image = Picture::from_rgb8(RgbImage::new(64, 64));
    let mask = Mask::from_luma8(GrayImage::from_pixel(64, 64, Luma([255])));
    let mut params = InpaintParams::new(image, mask, text("prompt").unwrap());
    params.prompt_2 = text("prompt_2");
    params.negative_prompt = text("negative_prompt");
    params.negative_prompt_2 = text("negative_prompt_2");
    params.strength = 1.0;
    params.num_inference_steps = 1;
    if case["syntax"] == "plain" {
        params.prompt_syntax = PromptSyntax::Plain;
    }
    params.prompt_limit = case["limit"].is_u64().then_some(PROMPT_LIMIT);
    params
}

/// What the UNet is told: the tensors `cond/...`; the run ends before its first step.
fn conditioning(pipeline: &Pipeline, params: InpaintParams) -> Vec<(String, Tensor)> {
    let request = InpaintRequest::new(params).unwrap();
    let mut seen = Vec::new();
    let mut see = |name: &str, tensor: &Tensor| {
        if let Some(name) = name.strip_prefix("cond/") {
            seen.push((name.to_owned(), tensor.clone()));
        }
    };
    let mut stop = |progress: Progress| match progress {
        Progress::Step { .. } => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    };
    let mut observer = Observer::new(&mut stop).with_tensors(&mut see);
    let outcome = pipeline.inpaint(&request, &mut observer, &mut |_| unreachable!());
    assert!(matches!(outcome, Err(Error::Cancelled)), "{outcome:?}");
    seen
}

fn kept(name: &str, tensor: &Tensor) -> Tensor {
    if name != "encoder_hidden_states" {
        return tensor.clone();
    }
    let width = tensor.dim(2).unwrap();
    let features: Vec<u32> = (0..width as u32).step_by(KEPT).collect();
    let features = Tensor::new(features, tensor.device()).unwrap();
    tensor.contiguous().unwrap().index_select(&features, 2).unwrap()
}

#[test]
fn prompts_become_the_references_states() {
    let (device, dtype) = device_and_dtype();
    if dtype != DType::F32 {
        println!("the floors of the prompts are those of f32");
        return;
    }
    let folders = Folders::committed();
    let fixtures = folders.models.with_file_name("prompts");
    let cases: Vec<Value> =
        serde_json::from_slice(&std::fs::read(fixtures.join("words.json")).unwrap()).unwrap();
    let tensors = candle_core::safetensors::load(fixtures.join("words.safetensors"), &Device::Cpu).unwrap();
    assert!(cases.len() >= 30);
    let mut failures = Vec::new();
    for model in ["tiny-sd15-inpaint", "tiny-sdxl-inpaint"] {
        let checkpoint = folders.checkpoint(model);
        let options = LoadOptions { device: device.clone(), dtype };
        let mut pipeline = Pipeline::load(&checkpoint, &options, &mut Observer::silent()).unwrap();
        for case in cases.iter().filter(|case| case["model"] == model) {
            let open = |file: &Value| {
                EmbeddingFile::open(&fixtures.join("embeddings").join(file.as_str().unwrap())).unwrap()
            };
            let embeddings = case["embeddings"].as_array().into_iter().flatten().map(open).collect();
            let additions = Additions { embeddings, ..Additions::default() };
            pipeline.apply(&checkpoint, &additions, &mut Observer::silent()).unwrap();
            let name = case["name"].as_str().unwrap();
            let seen = conditioning(&pipeline, params(case));
            for (key, floor) in case["floor"].as_object().unwrap() {
                let ours = &seen.iter().find(|(name, _)| name == key).unwrap().1;
                let theirs = &tensors[&format!("{name}/{key}")];
                let ours = kept(key, ours);
                assert_eq!(ours.dims(), theirs.dims(), "{name} {key}");
                let floor = floor["max_abs_diff"]
                    .as_f64()
                    .unwrap()
                    .max(floor["max_abs"].as_f64().unwrap() * ROUNDING);
                let worst = values(&ours)
                    .iter()
                    .zip(values(theirs))
                    .map(|(a, b)| (a - b).abs())
                    .fold(0.0, |worst: f64, d| if d.is_nan() { f64::INFINITY } else { worst.max(d) });
                println!("{name:28} {key:22} {:.2} floors", worst / floor);
                if worst > FLOORS * floor {
                    failures
                        .push(format!("{name}: {key} is {worst:.2e} away, {:.2e} allowed", FLOORS * floor));
                }
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
