//! Prompts in a whole pipeline: weights of one change nothing, embeddings come and go, and their writer is told.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use image::{GrayImage, Luma, RgbImage};
use infill_engine::image::Picture;
use infill_engine::mask::Mask;
use infill_engine::pipeline::{LoadOptions, Observer, Pipeline, Progress};
use infill_engine::{Additions, Error, InpaintParams, InpaintRequest, PromptSyntax};
use infill_models::Checkpoint;
use infill_models::embedding::EmbeddingFile;
use infill_networks::{DType, Device, Tensor};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(name)
}

fn embedding(name: &str) -> EmbeddingFile {
    EmbeddingFile::open(&fixture("prompts/embeddings").join(name)).unwrap()
}

/// A loaded model.
struct Model {
    checkpoint: Checkpoint,
    pipeline: Pipeline,
}

impl Model {
    fn load(name: &str) -> Self {
        let checkpoint = Checkpoint::open(&fixture("models").join(name)).unwrap();
        let options = LoadOptions { device: Device::Cpu, dtype: DType::F32 };
        let pipeline = Pipeline::load(&checkpoint, &options, &mut Observer::silent()).unwrap();
        Self { checkpoint, pipeline }
    }

    fn apply(&mut self, embeddings: Vec<EmbeddingFile>) -> infill_engine::Result<()> {
        let additions = Additions { embeddings, ..Additions::default() };
        self.pipeline.apply(&self.checkpoint, &additions, &mut Observer::silent())
    }

    /// The bits of all that the UNet is told.
    fn told(&self, request: &InpaintRequest) -> Vec<Vec<u32>> {
        let mut seen = Vec::new();
        let mut see = |name: &str, tensor: &Tensor| {
            if name.starts_with("cond/") {
                let values: Vec<f32> = tensor.flatten_all().unwrap().to_vec1().unwrap();
                seen.push(values.into_iter().map(f32::to_bits).collect());
            }
        };
        let mut stop = |progress: Progress| match progress {
            Progress::Step { .. } => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        };
        let mut observer = Observer::new(&mut stop).with_tensors(&mut see);
        let outcome = self.pipeline.inpaint(request, &mut observer, &mut |_| panic!("painted"));
        assert!(matches!(outcome, Err(Error::Cancelled)), "{outcome:?}");
        seen
    }

    fn warnings(&self, request: &InpaintRequest) -> Vec<String> {
        self.pipeline.warnings(request).unwrap()
    }
}

fn asked(prompt: &str, change: impl Fn(&mut InpaintParams)) -> InpaintRequest {
    let image = Picture::from_rgb8(RgbImage::new(64, 64));
    let mask = Mask::from_luma8(GrayImage::from_pixel(64, 64, Luma([255])));
    let mut params = InpaintParams::new(image, mask, prompt);
    params.negative_prompt = Some("blurry".into());
    change(&mut params);
    InpaintRequest::new(params).unwrap()
}

fn prompt(text: &str) -> InpaintRequest {
    asked(text, |_| ())
}

#[test]
fn weights_of_one_change_no_bit() {
    for name in ["tiny-sd15-inpaint", "tiny-sdxl-inpaint"] {
        let model = Model::load(name);
        let plain = asked("a red cat, on a mat", |p| {
            (p.prompt_syntax, p.prompt_limit) = (PromptSyntax::Plain, Some(77));
        });
        let plain = model.told(&plain);
        assert_eq!(model.told(&prompt("a red cat, on a mat")), plain, "{name}");
        assert_eq!(model.told(&prompt("a (red:1.0) cat, on a mat")), plain, "{name}");
        assert_ne!(model.told(&prompt("a (red:1.1) cat, on a mat")), plain, "{name}");
    }
}

#[test]
fn zeroed_negatives_are_as_long_as_the_prompt() {
    let model = Model::load("tiny-sdxl-inpaint");
    let told = model.told(&asked("a cat BREAK a mat BREAK a hat", |p| p.negative_prompt = None));
    let width = told[0].len() / (2 * 3 * 77);
    assert_eq!(told[0].len(), 2 * 3 * 77 * width);
    assert!(told[0][..3 * 77 * width].iter().all(|&bits| bits == 0));
}

#[test]
fn embeddings_come_and_go() {
    let mut model = Model::load("tiny-sd15-inpaint");
    let request = prompt("a cat in tiny-style");
    let without = model.told(&request);
    model.apply(vec![embedding("tiny-style.safetensors")]).unwrap();
    let with = model.told(&request);
    assert_ne!(with, without);
    assert_eq!(model.told(&prompt("a cat in <Tiny-Style>")), with);
    assert_ne!(model.told(&prompt("a cat in tiny-styles")), with);
    model.apply(vec![]).unwrap();
    assert_eq!(model.told(&request), without);
}

#[test]
fn embeddings_of_other_models_are_refused_by_name() {
    let refusal = |model: &str, files: Vec<EmbeddingFile>, parts: &[&str]| {
        let message = Model::load(model).apply(files).unwrap_err().to_string();
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    };
    let only = "made for a single text encoder; allowed: vectors for clip_l, which this model has";
    refusal(
        "tiny-sdxl-inpaint",
        vec![embedding("tiny-style.safetensors")],
        &["tiny-style.safetensors", only],
    );
    let both = "made for clip_l and clip_g; allowed: vectors for a single text encoder";
    refusal("tiny-sd15-inpaint", vec![embedding("xl-style.safetensors")], &[both]);

    let dir = tempfile::tempdir().unwrap();
    let made = |name: &str, tensors: &[(&str, (usize, usize))]| {
        let zeros = |shape| Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
        let tensors = tensors.iter().map(|&(key, shape)| (key.to_owned(), zeros(shape)));
        let path = dir.path().join(name);
        candle_core::safetensors::save(&tensors.collect::<std::collections::HashMap<_, _>>(), &path).unwrap();
        EmbeddingFile::open(&path).unwrap()
    };
    let wide = made("wide.safetensors", &[("emb_params", (1, 768))]);
    let width = "the width of the embedding's vectors for a single text encoder is 768; allowed: 32";
    refusal("tiny-sd15-inpaint", vec![wide], &["wide.safetensors", width]);
    let many = made("many.safetensors", &[("emb_params", (76, 32))]);
    refusal(
        "tiny-sd15-inpaint",
        vec![many],
        &["the number of the embedding's vectors is 76; allowed: up to 75"],
    );
    let half = made("half.safetensors", &[("clip_l", (1, 32))]);
    refusal("tiny-sdxl-inpaint", vec![half], &["made for clip_l; allowed: vectors for clip_g"]);
    let again = made("TINY-style.safetensors", &[("emb_params", (1, 32))]);
    refusal(
        "tiny-sd15-inpaint",
        vec![embedding("tiny-style.safetensors"), again],
        &["the embedding's name is TINY-style; allowed: a name that"],
    );
}

#[test]
fn embeddings_that_are_no_numbers_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("odd.safetensors");
    let mut model = Model::load("tiny-sd15-inpaint");
    for (value, refused) in [(f32::NAN, true), (f32::INFINITY, true), (1e6, false)] {
        let vectors = Tensor::full(value, (1, 32), &Device::Cpu).unwrap();
        candle_core::safetensors::save(&[("emb_params", vectors)].into(), &path).unwrap();
        let outcome = model.apply(vec![EmbeddingFile::open(&path).unwrap()]);
        assert_eq!(outcome.is_err(), refused, "{value}: {outcome:?}");
        if let Err(error) = outcome {
            let error = error.to_string();
            assert!(error.contains("odd.safetensors") && error.contains("tensor emb_params"), "{error}");
        }
    }
    // Half precision ends at 65504.
    let options = LoadOptions { device: Device::Cpu, dtype: DType::F16 };
    model.pipeline = Pipeline::load(&model.checkpoint, &options, &mut Observer::silent()).unwrap();
    let error = model.apply(vec![EmbeddingFile::open(&path).unwrap()]).unwrap_err().to_string();
    assert!(error.contains("odd.safetensors") && error.contains("too large for the format f16"), "{error}");
}

#[test]
fn what_is_cut_or_does_nothing_is_told() {
    let mut model = Model::load("tiny-sdxl-inpaint");
    let long = format!("{}a (lake:1.2) far away", "tiger, ".repeat(60));
    assert_eq!(model.warnings(&prompt(&long)), [""; 0]);
    let cut = asked(&long, |p| p.prompt_limit = Some(77));
    let [warning] = &model.warnings(&cut)[..] else { panic!("{:?}", model.warnings(&cut)) };
    assert!(
        warning.starts_with("the prompt is ") && warning.contains("longer than its limit of 77"),
        "{warning}"
    );
    assert!(warning.ends_with("a (lake:1.2) far away\""), "{warning}");
    // A text ends where its last word does.
    assert_eq!(model.warnings(&asked("a cat", |p| p.prompt_limit = Some(77))), [""; 0]);

    let told =
        model.warnings(&asked("a [cat:dog:0.5] :(", |p| p.negative_prompt = Some("<lora:x:1>".into())));
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(told[0].starts_with("the prompt has \"[cat:dog:0.5]\": words do not change"), "{told:?}");
    assert!(told[1].contains("a bracket that is never closed"), "{told:?}");
    assert!(told[2].starts_with("the negative prompt has \"<lora:x:1>\""), "{told:?}");

    let open: String = (0..500).map(|n| format!("{}w{n} ", if n % 2 == 0 { '(' } else { '[' })).collect();
    let told = model.warnings(&prompt(&open));
    assert_eq!(told.len(), 11, "{told:?}");
    assert_eq!(told[10], "of the prompt there are 490 more notes of the kind");

    model.apply(vec![embedding("xl-style.safetensors")]).unwrap();
    assert_eq!(
        model.warnings(&prompt("a cat")),
        ["the embedding xl-style does nothing, since no prompt names it"]
    );
    assert_eq!(model.warnings(&prompt("a cat, xl-style")), [""; 0]);
    assert_eq!(model.warnings(&asked("a cat", |p| p.negative_prompt = Some("(XL-style)".into()))), [""; 0]);
}

#[test]
fn what_only_guidance_reads_is_told_where_there_is_none() {
    let at = |scale: Option<f64>, negative: Option<&str>, rescale: f64| {
        asked("a cat", |p| {
            p.guidance_scale = scale;
            p.negative_prompt = negative.map(Into::into);
            p.guidance_rescale = rescale;
        })
    };
    let model = Model::load("tiny-sd15-inpaint");
    assert_eq!(model.warnings(&at(None, Some("fog"), 0.5)), [""; 0]);
    assert_eq!(model.warnings(&at(Some(1.0), None, 0.0)), [""; 0]);
    assert_eq!(model.warnings(&at(Some(1.0), Some(""), 0.0)), [""; 0]);
    assert_eq!(
        model.warnings(&at(Some(1.0), Some("fog"), 0.0)),
        ["the negative prompt does nothing at a guidance of 1, only above 1"]
    );
    assert_eq!(
        model.warnings(&at(Some(0.5), None, 0.5)),
        ["the guidance rescale does nothing at a guidance of 0.5, only above 1"]
    );
    let distilled = Model::load("tiny-sd15-lcm");
    assert_eq!(distilled.warnings(&at(None, None, 0.0)), [""; 0]);
    assert_eq!(
        distilled.warnings(&at(Some(8.0), Some("fog"), 0.5)),
        [
            "the negative prompt and the guidance rescale do nothing with this model, whose UNet reads the guidance as a number"
        ]
    );
}
