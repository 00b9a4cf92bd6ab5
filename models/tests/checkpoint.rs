//! Checkpoints of the fixtures opened whole, and every way in which one can be refused.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use infill_models::{Checkpoint, Error, Family, Variant, inspect, parse_model_index};
use serde_json::{Value, json};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(name)
}

/// A copy of a tiny checkpoint that a test may spoil.
fn copy(name: &str) -> tempfile::TempDir {
    fn walk(from: &Path, to: &Path) {
        std::fs::create_dir_all(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let target = to.join(entry.file_name());
            if entry.path().is_dir() {
                walk(&entry.path(), &target);
            } else {
                std::fs::copy(entry.path(), target).unwrap();
            }
        }
    }
    let dir = tempfile::tempdir().unwrap();
    walk(&fixture("models").join(name), dir.path());
    dir
}

fn edit(path: &Path, key: &str, value: Value) {
    let mut json: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    json[key] = value;
    std::fs::write(path, json.to_string()).unwrap();
}

fn refusal(dir: &Path) -> String {
    Checkpoint::open(dir).unwrap_err().to_string()
}

#[test]
fn the_tiny_checkpoints_open() {
    let expected = [
        ("tiny-sd15-base", Family::StableDiffusion, false),
        ("tiny-sd15-inpaint", Family::StableDiffusion, true),
        ("tiny-sdxl-base", Family::StableDiffusionXl, false),
        ("tiny-sdxl-inpaint", Family::StableDiffusionXl, true),
        ("tiny-sdxl-refiner", Family::StableDiffusionXlRefiner, false),
    ];
    for (name, family, is_inpaint) in expected {
        let checkpoint = Checkpoint::open(&fixture("models").join(name)).unwrap();
        assert_eq!((checkpoint.family(), checkpoint.is_inpaint()), (family, is_inpaint), "{name}");
        assert!(checkpoint.scheduler_config().unwrap()["_class_name"].is_string());
        let has_first = family != Family::StableDiffusionXlRefiner;
        assert_eq!(checkpoint.component("text_encoder").is_some(), has_first, "{name}");
        assert_eq!(checkpoint.folder("tokenizer").is_ok(), has_first, "{name}");
        assert_eq!(checkpoint.requires_aesthetics_score(), !has_first, "{name}");
        for summary in inspect(&checkpoint).unwrap() {
            assert!(
                summary.tensors > 10 && summary.total_bytes() > summary.parameters,
                "{name}: {summary:?}"
            );
        }
    }
}

#[test]
fn published_model_indices_are_accepted() {
    for (name, family) in [
        ("sd-1.5", Family::StableDiffusion),
        ("sd-1.5-inpainting", Family::StableDiffusion),
        ("sdxl-base-1.0", Family::StableDiffusionXl),
        ("sdxl-inpainting-0.1", Family::StableDiffusionXl),
    ] {
        let path = fixture("configs").join(name).join("model_index.json");
        assert_eq!(parse_model_index(&std::fs::read(&path).unwrap(), &path).unwrap(), family, "{name}");
    }
}

#[test]
fn flags_have_the_defaults_of_diffusers() {
    let dir = copy("tiny-sdxl-inpaint");
    let index = dir.path().join("model_index.json");
    let mut json: Value = serde_json::from_slice(&std::fs::read(&index).unwrap()).unwrap();
    json.as_object_mut().unwrap().shift_remove("force_zeros_for_empty_prompt");
    std::fs::write(&index, json.to_string()).unwrap();
    assert!(Checkpoint::open(dir.path()).unwrap().force_zeros_for_empty_prompt());
    edit(&index, "force_zeros_for_empty_prompt", json!(false));
    assert!(!Checkpoint::open(dir.path()).unwrap().force_zeros_for_empty_prompt());
    edit(&index, "force_zeros_for_empty_prompt", json!("no"));
    assert!(refusal(dir.path()).contains("needed: true or false"));
    assert!(!Checkpoint::open(&fixture("models/tiny-sd15-base")).unwrap().force_zeros_for_empty_prompt());
}

#[test]
fn a_guidance_scale_of_its_own_is_a_number_in_range() {
    let dir = copy("tiny-sdxl-inpaint");
    let index = dir.path().join("model_index.json");
    assert_eq!(Checkpoint::open(dir.path()).unwrap().guidance_scale(), None);
    edit(&index, "_guidance_scale", json!(3));
    assert_eq!(Checkpoint::open(dir.path()).unwrap().guidance_scale(), Some(3.0));
    for wrong in [json!("3"), json!(-1), json!(21)] {
        edit(&index, "_guidance_scale", wrong);
        let message = refusal(dir.path());
        assert!(message.contains("_guidance_scale") && message.contains("0 to 20"), "{message}");
    }
}

#[test]
fn what_cannot_run_is_refused_by_name() {
    let dir = copy("tiny-sdxl-inpaint");
    let (index, unet) = (dir.path().join("model_index.json"), dir.path().join("unet/config.json"));
    edit(&unet, "in_channels", json!(8));
    assert!(refusal(dir.path()).contains("in_channels is 8; allowed: 4 (a base model), 9"));
    edit(&unet, "in_channels", json!(9));
    edit(&index, "unet", json!(["diffusers", "UNetMotionModel"]));
    assert!(
        refusal(dir.path()).contains("the class of unet is UNetMotionModel; allowed: UNet2DConditionModel")
    );
    edit(&index, "unet", json!(["diffusers", "UNet2DConditionModel"]));
    edit(&index, "controlnet", json!(["diffusers", "ControlNetModel"]));
    assert!(refusal(dir.path()).contains("component is controlnet (ControlNetModel); allowed: unet, vae"));
    edit(&index, "controlnet", json!([null, null]));
    Checkpoint::open(dir.path()).unwrap();
    edit(&index, "vae", json!([null, null]));
    assert!(refusal(dir.path()).contains("names no vae, which Stable Diffusion XL needs"));
    edit(&index, "vae", json!("AutoencoderKL"));
    assert!(refusal(dir.path()).contains("names no vae"));
    edit(&index, "vae", json!(["AutoencoderKL"]));
    assert!(refusal(dir.path()).contains("needed: [library, class]"));
    edit(&index, "_class_name", json!("FluxPipeline"));
    edit(&index, "vae", json!(["diffusers", "AutoencoderKL"]));
    assert!(
        refusal(dir.path()).contains(r#"_class_name is "FluxPipeline"; allowed: StableDiffusionPipeline"#)
    );
}

#[test]
fn a_missing_or_damaged_file_is_named() {
    for file in ["model_index.json", "vae/config.json", "scheduler/scheduler_config.json", "unet/config.json"]
    {
        let dir = copy("tiny-sdxl-inpaint");
        for (text, part) in [("{", "is not valid JSON"), ("[]", "not an object"), (&"[".repeat(9999), "JSON")]
        {
            std::fs::write(dir.path().join(file), text).unwrap();
            let refused = refusal(dir.path());
            assert!(refused.contains(file) && refused.contains(part), "{refused}");
        }
        std::fs::write(dir.path().join(file), " ".repeat(2 << 20)).unwrap();
        assert!(refusal(dir.path()).contains("is larger than 1048576 bytes"));
        std::fs::remove_file(dir.path().join(file)).unwrap();
        assert!(refusal(dir.path()).contains(file));
    }
    let dir = copy("tiny-sdxl-inpaint");
    std::fs::remove_dir_all(dir.path().join("tokenizer_2")).unwrap();
    assert!(refusal(dir.path()).contains("tokenizer_2: is missing"));
    assert!(matches!(Checkpoint::open(Path::new("no-such-folder")), Err(Error::File { .. })));
}

#[test]
fn the_digest_follows_the_contents_alone() {
    let digest = |dir: &Path| Checkpoint::open(dir).unwrap().digest_with_cache(None).unwrap();
    let dir = copy("tiny-sdxl-inpaint");
    let first = digest(dir.path());
    assert_eq!(first.len(), 64);
    assert_eq!(first, digest(&fixture("models/tiny-sdxl-inpaint")), "another place, the same model");

    let text_encoder = dir.path().join("text_encoder");
    let weights = text_encoder.join("model.safetensors");
    std::fs::rename(&weights, text_encoder.join("model.fp16.safetensors")).unwrap();
    assert_eq!(first, digest(dir.path()), "another name, the same numbers");

    let mut bytes = std::fs::read(text_encoder.join("model.fp16.safetensors")).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&weights, bytes).unwrap();
    let changed = digest(dir.path());
    assert_ne!(first, changed, "one bit of the last weight");
    let other = Checkpoint::open_variant(dir.path(), Variant::Fp16).unwrap();
    assert_eq!(first, other.digest_with_cache(None).unwrap(), "the untouched variant");

    std::fs::remove_file(&weights).unwrap();
    edit(&dir.path().join("tokenizer_2/special_tokens_map.json"), "pad_token", json!("a"));
    assert_ne!(first, digest(dir.path()), "another pad token");

    let before = digest(dir.path());
    std::fs::write(dir.path().join("tokenizer/added_tokens.json"), r#"{"<new>": 3}"#).unwrap();
    assert_ne!(before, digest(dir.path()), "another token");
}
