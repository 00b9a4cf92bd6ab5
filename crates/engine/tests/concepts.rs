//! Concepts come and go: what is merged, what is read again, and that nothing stays behind.
#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "../../../tests/shared/folder.rs"]
mod folder;

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use image::{GrayImage, Luma, RgbImage};
use infill_engine::additions::{Additions, Concept};
use infill_engine::image::Picture;
use infill_engine::mask::Mask;
use infill_engine::pipeline::{LoadOptions, Observer, Progress};
use infill_engine::{Error, InpaintParams, InpaintRequest, Interrupt, Pipeline, Result};
use infill_models::Checkpoint;
use infill_models::lora::LoraFile;
use infill_networks::{DType, Device, Tensor};

use folder::copy;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/models").join(name)
}

fn concept(path: &Path, scale: f64) -> Concept {
    Concept { file: LoraFile::open(path).unwrap(), scale }
}

fn lora(name: &str, scale: f64) -> Concept {
    concept(&fixture("lora").join(format!("{name}.safetensors")), scale)
}

struct Loaded {
    checkpoint: Checkpoint,
    pipeline: Pipeline,
}

impl Loaded {
    fn new(model: &str, dtype: DType) -> Self {
        Self::open(&fixture(model), dtype)
    }

    fn open(dir: &Path, dtype: DType) -> Self {
        let checkpoint = Checkpoint::open(dir).unwrap();
        let options = LoadOptions { device: Device::Cpu, dtype };
        let pipeline = Pipeline::load(&checkpoint, &options, &mut Observer::silent()).unwrap();
        Self { checkpoint, pipeline }
    }

    /// Applies concepts; the networks that were read for them, in order.
    fn apply(&mut self, concepts: Vec<Concept>) -> Result<Vec<&'static str>> {
        let mut read = Vec::new();
        let mut hear = |progress| {
            if let Progress::Loading { component } = progress
                && component != "concepts"
            {
                read.push(component);
            }
            ControlFlow::Continue(())
        };
        let additions = Additions { concepts, ..Additions::default() };
        self.pipeline.apply(&self.checkpoint, &additions, &mut Observer::new(&mut hear))?;
        Ok(read)
    }

    fn paint(&self) -> Vec<u8> {
        let image = Picture::from_rgb8(RgbImage::from_fn(64, 64, |x, y| {
            image::Rgb([(x * 4) as u8, (y * 4) as u8, (x ^ y) as u8])
        }));
        let mask = Mask::from_luma8(GrayImage::from_fn(64, 64, |x, _| Luma([if x < 40 { 255 } else { 0 }])));
        let mut params = InpaintParams::new(image, mask, "a tiger on a bench");
        (params.num_inference_steps, params.seed, params.merge) = (2, 7, false);
        let request = InpaintRequest::new(params).unwrap();
        let mut bytes = Vec::new();
        let mut keep = |painted: infill_engine::pipeline::Painted| {
            bytes = painted.picture.to_rgb8().into_raw();
            Ok(())
        };
        self.pipeline.inpaint(&request, &mut Observer::silent(), &mut keep).unwrap();
        bytes
    }
}

#[test]
fn a_concept_leaves_nothing_behind() {
    for dtype in [DType::F32, DType::BF16] {
        let mut it = Loaded::new("tiny-sdxl-inpaint", dtype);
        let all = ["text_encoder", "text_encoder_2", "unet"];
        let plain = it.paint();
        assert_eq!(it.apply(vec![]).unwrap(), [""; 0]);
        assert_eq!(it.apply(vec![lora("sdxl_kohya", 1.0)]).unwrap(), all);
        let changed = it.paint();
        assert_ne!(changed, plain);
        assert_eq!(it.apply(vec![lora("sdxl_kohya", 1.0)]).unwrap(), [""; 0], "the same again is free");
        assert_eq!(it.paint(), changed);
        assert_eq!(it.apply(vec![]).unwrap(), all);
        assert_eq!(it.paint(), plain);
        assert_eq!(it.apply(vec![lora("sdxl_kohya", 0.0), lora("sdxl_peft", -0.0)]).unwrap(), [""; 0]);
        assert_eq!(it.paint(), plain, "scale 0 is no concept");
        // From one concept to another without a run in between, and by way of another scale.
        it.apply(vec![lora("sdxl_peft", 0.5)]).unwrap();
        assert_eq!(it.apply(vec![lora("sdxl_kohya", 0.5)]).unwrap(), all);
        assert_ne!(it.paint(), changed, "another scale is another state");
        it.apply(vec![lora("sdxl_kohya", 1.0)]).unwrap();
        assert_eq!(it.paint(), changed);
    }
}

#[test]
fn only_what_changes_is_read() {
    let mut it = Loaded::new("tiny-sd15-inpaint", DType::F32);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("unet-only.safetensors");
    let to_k = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k";
    write(
        &path,
        &[(format!("{to_k}.lora_A.weight"), &[2, 32], 0.5), (format!("{to_k}.lora_B.weight"), &[24, 2], 0.5)],
    );
    assert_eq!(it.apply(vec![lora("sd15_old", 1.0)]).unwrap(), ["text_encoder", "unet"]);
    assert_eq!(it.apply(vec![lora("sd15_old", 1.0), concept(&path, 1.0)]).unwrap(), ["unet"]);
    assert_eq!(
        it.apply(vec![concept(&path, 1.0), lora("sd15_old", 1.0)]).unwrap(),
        ["unet"],
        "the order counts"
    );
    assert_eq!(it.apply(vec![concept(&path, 2.0)]).unwrap(), ["text_encoder", "unet"]);
    assert_eq!(it.apply(vec![]).unwrap(), ["unet"]);
}

fn write(path: &Path, tensors: &[(String, &[usize], f32)]) {
    let full = |shape: &[usize], value| Tensor::full(value, shape, &Device::Cpu).unwrap();
    let tensors: HashMap<&str, Tensor> =
        tensors.iter().map(|(name, shape, value)| (name.as_str(), full(shape, *value))).collect();
    candle_core::safetensors::save(&tensors, path).unwrap();
}

/// A file that fails while it is merged, after the network before it was read.
#[test]
fn a_failure_leaves_the_checkpoint_itself() {
    let mut it = Loaded::new("tiny-sdxl-inpaint", DType::F32);
    let plain = it.paint();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("huge.safetensors");
    let (q, k) = (
        "text_encoder.text_model.encoder.layers.0.self_attn.q_proj",
        "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k",
    );
    write(
        &path,
        &[
            (format!("{q}.lora_A.weight"), &[1, 32], 0.5),
            (format!("{q}.lora_B.weight"), &[32, 1], 0.5),
            (format!("{k}.lora_A.weight"), &[1, 72], 1e30),
            (format!("{k}.lora_B.weight"), &[24, 1], 1e30),
        ],
    );
    let error = it.apply(vec![concept(&path, 1.0)]).unwrap_err().to_string();
    assert!(error.contains("huge.safetensors: makes mid_block") && error.contains("too large"), "{error}");
    assert_eq!(it.paint(), plain);
    assert_eq!(it.apply(vec![lora("sdxl_peft", 1.0)]).unwrap().len(), 3);
    assert!(it.apply(vec![lora("sdxl_peft", 1.0), concept(&path, 1.0)]).is_err());
    assert_eq!(it.paint(), plain);
}

/// Where even the checkpoint's own weights can't be read back, the next run reads them and does not keep the concept.
#[test]
fn a_failed_way_back_is_made_up_for() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (fixture("tiny-sdxl-inpaint"), dir.path().join("model"));
    copy(&from, &to);
    let mut it = Loaded::open(&to, DType::F32);
    let plain = it.paint();
    it.apply(vec![lora("sdxl_peft", 1.0)]).unwrap();
    let (weights, away) = (to.join("text_encoder/model.safetensors"), dir.path().join("away"));
    std::fs::rename(&weights, &away).unwrap();
    assert!(it.apply(Vec::new()).is_err());
    std::fs::rename(&away, &weights).unwrap();
    assert_eq!(it.apply(Vec::new()).unwrap(), ["text_encoder", "text_encoder_2", "unet"]);
    assert_eq!(it.paint(), plain);
}

/// Stopped at any tensor, the next call makes what it is asked for, and reads no network that has it already.
#[test]
fn an_interrupt_in_the_middle_leaves_nothing_behind() {
    let mut it = Loaded::new("tiny-sdxl-inpaint", DType::F32);
    let plain = it.paint();
    it.apply(vec![lora("sdxl_kohya", 1.0)]).unwrap();
    let changed = it.paint();
    let stopped = |it: &mut Loaded, last: usize| {
        let calls = AtomicUsize::new(0);
        let interrupt = Interrupt::new(move || calls.fetch_add(1, Ordering::SeqCst) >= last);
        let mut observer = Observer::silent().with_interrupt(interrupt);
        let outcome = it.pipeline.apply(&it.checkpoint, &Additions::default(), &mut observer);
        outcome.inspect_err(|error| assert!(matches!(error, Error::Cancelled), "{error:?}")).is_err()
    };
    let mut last = 0;
    while stopped(&mut it, last) {
        it.apply(Vec::new()).unwrap();
        assert_eq!(it.paint(), plain, "stopped at {last}");
        it.apply(vec![lora("sdxl_kohya", 1.0)]).unwrap();
        assert_eq!(it.paint(), changed, "stopped at {last}");
        last = if last == 0 { 1 } else { last * 3 };
    }
    assert!(last > 100, "{last}");
    // The UNet, which is read last, is still the one with the concept.
    it.apply(vec![lora("sdxl_kohya", 1.0)]).unwrap();
    assert!(stopped(&mut it, 1));
    assert_eq!(it.apply(vec![lora("sdxl_kohya", 1.0)]).unwrap(), [""; 0]);
    assert_eq!(it.paint(), changed);
}

#[test]
fn a_break_is_heard_between_networks() {
    let mut it = Loaded::new("tiny-sdxl-inpaint", DType::F32);
    let plain = it.paint();
    for stop in ["concepts", "text_encoder_2", "unet"] {
        let mut hear = |progress| match progress {
            Progress::Loading { component } if component == stop => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        };
        let additions = Additions { concepts: vec![lora("sdxl_kohya", 1.0)], ..Additions::default() };
        let outcome = it.pipeline.apply(&it.checkpoint, &additions, &mut Observer::new(&mut hear));
        assert!(matches!(outcome, Err(Error::Cancelled)), "{stop}: {outcome:?}");
        it.apply(Vec::new()).unwrap();
        assert_eq!(it.paint(), plain, "{stop}");
    }
    it.apply(vec![lora("sdxl_kohya", 1.0)]).unwrap();
    assert_ne!(it.paint(), plain);
}

#[test]
fn what_does_not_fit_is_refused_in_a_sentence() {
    let mut xl = Loaded::new("tiny-sdxl-inpaint", DType::F32);
    let mut sd = Loaded::new("tiny-sd15-inpaint", DType::F32);
    let refusal = |it: &mut Loaded, concept| it.apply(vec![concept]).unwrap_err().to_string();
    for (message, words) in [
        (
            refusal(&mut xl, lora("sd15_kohya", 1.0)),
            "words of width 32, and this model has words of width 72",
        ),
        (refusal(&mut sd, lora("sdxl_peft", 1.0)), "words of width 72, and this model has words of width 32"),
        (refusal(&mut xl, lora("sdxl_peft", 2.5)), "the scale of a concept is 2.5; allowed: -2 to 2"),
        (refusal(&mut xl, lora("sdxl_peft", f64::NAN)), "the scale of a concept is NaN"),
    ] {
        assert!(message.contains(words), "{message}");
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("second.safetensors");
    let name = "lora_te2_text_model_encoder_layers_0_mlp_fc1";
    write(
        &path,
        &[
            (format!("{name}.lora_down.weight"), &[1, 40], 0.5),
            (format!("{name}.lora_up.weight"), &[160, 1], 0.5),
        ],
    );
    let message = refusal(&mut sd, concept(&path, 1.0));
    assert!(
        message.contains("changes 1 modules of a text_encoder_2, which this model does not have"),
        "{message}"
    );
}

/// A file of the first trainer: its modules are numbered, and it has an embedding beside them.
#[test]
fn numbered_modules_and_words_of_their_own() {
    let mut it = Loaded::new("tiny-sd15-inpaint", DType::F32);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("first.safetensors");
    // Three levels of two and three transformers, and the middle's; down, up, middle. Widths as in the fixture.
    let widths = [8, 8, 16, 16, 24, 24, 24, 24, 24, 16, 16, 16, 8, 8, 8, 24];
    let mut shapes = Vec::new();
    for width in widths {
        let square = (width, width);
        let words = (width, 32);
        shapes.extend([square, square, square, square, (8 * width, width), square, words, words, square]);
    }
    let write_first = |classes: &str, count: usize| {
        let mut tensors = Vec::new();
        for (i, (rows, columns)) in shapes.iter().take(count).enumerate() {
            tensors.push((format!("unet:{i}:up"), Tensor::full(0.01f32, (*rows, 1), &Device::Cpu).unwrap()));
            tensors.push((
                format!("unet:{i}:down"),
                Tensor::full(0.01f32, (1, *columns), &Device::Cpu).unwrap(),
            ));
        }
        tensors.push(("<s1>".into(), Tensor::full(0.5f32, 32, &Device::Cpu).unwrap()));
        let texts = HashMap::from([
            ("unet".to_owned(), classes.to_owned()),
            ("<s1>".to_owned(), "<embed>".to_owned()),
        ]);
        let tensors: Vec<(String, Vec<usize>, Vec<u8>)> = tensors
            .into_iter()
            .map(|(name, tensor)| {
                let values: Vec<f32> = tensor.flatten_all().unwrap().to_vec1().unwrap();
                (name, tensor.dims().to_vec(), values.iter().flat_map(|v| v.to_le_bytes()).collect())
            })
            .collect();
        let views = tensors.iter().map(|(name, shape, bytes)| {
            let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.clone(), bytes);
            (name.clone(), view.unwrap())
        });
        safetensors::serialize_to_file(views, Some(texts), &path).unwrap();
    };
    write_first(r#"["GEGLU", "CrossAttention", "Attention"]"#, shapes.len());
    let plain = it.paint();
    assert_eq!(it.apply(vec![concept(&path, 1.0)]).unwrap(), ["unet"]);
    assert_ne!(it.paint(), plain);
    let params = InpaintParams::new(
        Picture::from_rgb8(RgbImage::new(64, 64)),
        Mask::from_luma8(GrayImage::from_pixel(64, 64, Luma([255]))),
        "a cat",
    );
    let warnings = it.pipeline.warnings(&InpaintRequest::new(params).unwrap()).unwrap();
    assert!(
        warnings.iter().any(|w| w.contains("embeddings of its own") && w.contains("<s1>")),
        "{warnings:?}"
    );

    write_first(r#"["CrossAttention"]"#, shapes.len());
    let message = it.apply(vec![concept(&path, 1.0)]).unwrap_err().to_string();
    assert!(message.contains("numbers its modules of unet by the classes"), "{message}");
    write_first(r#"["GEGLU", "CrossAttention", "Attention"]"#, shapes.len() - 9);
    let message = it.apply(vec![concept(&path, 1.0)]).unwrap_err().to_string();
    assert!(message.contains("numbers 135 modules of unet, the model has 144"), "{message}");
}
