//! Bad input: one sentence, a non-zero exit code, no panic, no output file.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensors, serialize};
use serde_json::Value;

use crate::folder::copy;
use crate::harness::{Place, Run, fixture, model};

/// The arguments of a run that would succeed, with some of them replaced or added.
fn refuse(place: &Place, changes: &[(&str, &str)]) -> Run {
    let mut args = BTreeMap::from([
        ("IMAGE", fixture("images/init.png")),
        ("--mask", fixture("images/mask.png")),
        ("--prompt", "x".to_owned()),
        ("--model", model("tiny-sd15-inpaint")),
        ("--device", "cpu".to_owned()),
        ("--steps", "2".to_owned()),
        ("--out", "out.png".to_owned()),
    ]);
    args.extend(changes.iter().map(|&(name, value)| (name, value.to_owned())));
    let mut command = place.command();
    command.arg("inpaint").arg(args.remove("IMAGE").unwrap());
    for (name, value) in args {
        command.args([name, &value]);
    }
    let before = place.names();
    let run = Run::of(&command.output().unwrap());
    assert_eq!(place.names(), before, "something was written");
    run
}

#[test]
fn values_out_of_range() {
    let place = Place::new();
    for (flag, value, allowed) in [
        ("--steps", "0", "1"),
        ("--steps", "151", "150"),
        ("--steps", "-1", "a whole number from 1 to 150"),
        ("--steps", "3.5", "whole number"),
        ("--strength", "0", "above 0"),
        ("--strength", "2", "1"),
        ("--strength", "-0.5", "above 0"),
        ("--strength", "nan", "number"),
        ("--strength", "0.01", "steps"),
        ("--guidance", "-1", "0"),
        ("--guidance", "1000", "0"),
        ("--guidance-rescale", "1.5", "0"),
        ("--eta", "2", "1"),
        ("--width", "68", "8"),
        ("--width", "56", "64"),
        ("--height", "4104", "4096"),
        ("--height", "0", "64"),
        ("--samples", "0", "1"),
        ("--samples", "129", "128"),
        ("--feather", "100000", "0"),
        ("--feather", "-1", "a whole number from 0 to 512"),
        ("--samples", "many", "a whole number from 1 to 128"),
        ("--width", "wide", "multiples of 8 from 64 to 4096"),
        ("--strength", "half", "above 0, up to 1"),
        ("--guidance", "x", "0 to 100"),
        ("--prompt-limit", "x", "77"),
        ("--clip-skip", "99", "0"),
        ("--crop-padding", "-4", "whole number"),
        ("--seed", "18446744073709551616", "whole number"),
        ("--device", "gpu", "cuda:N"),
        ("--dtype", "f64", "bf16"),
        ("--vae-tile-size", "500", "multiples of 32"),
        ("--noise-rule", "numpy", "torch-2.11"),
    ] {
        refuse(&place, &[(flag, value)]).refused(2, &[&format!("{flag} is "), value, "allowed: ", allowed]);
    }
}

#[test]
fn how_long_a_call_waits_is_refused_with_the_range() {
    for value in ["x", "-1", "604801", "99999999999"] {
        let run = Place::new().infill(&["serve", "--wait-seconds", value]);
        let allowed = "allowed: a whole number of seconds from 0 to 604800";
        run.refused(2, &[&format!("--wait-seconds is \"{value}\"; "), allowed]);
    }
}

#[test]
fn an_unknown_scheduler_is_refused_with_the_known_ones() {
    let run = refuse(&Place::new(), &[("--scheduler", "EulerScheduler")]);
    run.refused(2, &["--scheduler", "EulerScheduler", "EulerDiscreteScheduler", "UniPCMultistepScheduler"]);
}

#[test]
fn a_device_that_is_not_here() {
    if !cfg!(feature = "cuda") {
        let place = Place::new();
        refuse(&place, &[("--device", "cuda:7")])
            .refused(2, &["--device is cuda:7 (this build has no CUDA", "cpu"]);
    }
    if !cfg!(feature = "metal") {
        refuse(&Place::new(), &[("--device", "metal")])
            .refused(2, &["--device is metal (this build has no Metal"]);
    }
}

#[test]
fn missing_and_unreadable_pictures() {
    let place = Place::new();
    place.write("text.png", "this is no picture");
    place.write("empty.png", "");
    let whole = fs::read(fixture("images/init.png")).unwrap();
    place.write("truncated.png", &whole[..whole.len() / 2]);
    let jpeg = fs::read(fixture("images/rocket.jpg")).unwrap();
    place.write("truncated.jpg", &jpeg[..jpeg.len() / 3]);
    fs::create_dir(place.path("folder.png")).unwrap();
    for name in ["none.png", "text.png", "empty.png", "truncated.png", "truncated.jpg", "folder.png"] {
        refuse(&place, &[("IMAGE", name)]).refused(2, &["the picture", name, "can't be read"]);
        refuse(&place, &[("--mask", name)]).refused(2, &["the mask", name, "can't be read"]);
    }
}

#[test]
fn a_decompression_bomb_is_refused_by_its_header() {
    let place = Place::new();
    let mut encoded = Vec::new();
    {
        let mut encoder = png::Encoder::new(&mut encoded, 60_000, 60_000);
        encoder.set_color(png::ColorType::Rgba);
        encoder.set_depth(png::BitDepth::Sixteen);
        let mut writer = encoder.write_header().unwrap();
        writer.write_chunk(png::chunk::IDAT, &[0x78, 0x9c]).unwrap();
    }
    place.write("bomb.png", encoded);
    refuse(&place, &[("IMAGE", "bomb.png")]).refused(2, &["60000", "allowed"]);
    refuse(&place, &[("--mask", "bomb.png")]).refused(2, &["60000", "allowed"]);
}

#[test]
fn masks_that_do_not_fit() {
    let place = Place::new();
    let other = fixture("images/astronaut-mask.png");
    refuse(&place, &[("--mask", &other)]).refused(2, &["--mask is ", "512x512", "allowed: ", "150x106"]);
    let black = fixture("images/mask_none.png");
    refuse(&place, &[("--mask", &black)]).refused(2, &["--mask is ", "black", "allowed: ", "white"]);
}

#[test]
fn outputs_that_can_not_be_written() {
    let place = Place::new();
    refuse(&place, &[("--out", "out.jpg")]).refused(2, &["--out is out.jpg", "not a PNG", ".png"]);
    refuse(&place, &[("--out", "out")]).refused(2, &["--out is out ", ".png"]);
    refuse(&place, &[("--out", "none/out.png")]).refused(2, &["--out is none/out.png", "folder"]);
    fs::create_dir(place.path("a.png")).unwrap();
    refuse(&place, &[("--out", "a.png")]).refused(2, &["--out is a.png", "not a file"]);
}

#[test]
fn missing_and_unknown_arguments() {
    let place = Place::new();
    place.infill(&["inpaint", "a.png"]).refused(2, &["missing", "--mask", "--prompt", "--out"]);
    place.infill(&["inpaint", "a.png", "--stesp", "3"]).refused(2, &["--stesp", "--steps"]);
    place.infill(&["paint"]).refused(2, &["paint", "infill --help"]);
    place.infill(&["inpaint", "a.png", "--steps"]).refused(2, &["--steps", "no value"]);
}

/// A copy of the tiny model in the place.
fn copy_of_the_model(place: &Place) {
    copy(Path::new(&model("tiny-sd15-inpaint")), &place.path("model"));
}

type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

/// Rewrites the UNet's weights.
fn change_weights(place: &Place, change: impl Fn(&mut Tensors)) {
    let name = "model/unet/diffusion_pytorch_model.safetensors";
    let bytes = place.read(name);
    let stored = SafeTensors::deserialize(&bytes).unwrap();
    let mut tensors: Tensors = stored
        .iter()
        .map(|(name, view)| (name.to_owned(), (view.dtype(), view.shape().to_vec(), view.data().to_vec())))
        .collect();
    change(&mut tensors);
    let views = tensors.iter().map(|(name, (dtype, shape, data))| {
        (name.clone(), TensorView::new(*dtype, shape.clone(), data).unwrap())
    });
    place.write(name, serialize(views, None).unwrap());
}

/// Rewrites one value of a JSON file.
fn change_config(place: &Place, name: &str, key: &str, value: Value) {
    let mut config: Value = serde_json::from_slice(&place.read(name)).unwrap();
    config[key] = value;
    place.write(name, config.to_string());
}

#[test]
fn a_model_without_a_tensor() {
    let place = Place::new();
    copy_of_the_model(&place);
    change_weights(&place, |tensors| drop(tensors.remove("conv_in.weight").unwrap()));
    refuse(&place, &[("--model", "model")]).refused(2, &["unet", "conv_in.weight"]);
}

#[test]
fn a_model_with_a_wrong_shape() {
    let place = Place::new();
    copy_of_the_model(&place);
    change_weights(&place, |tensors| tensors.get_mut("conv_out.weight").unwrap().1.swap(0, 1));
    refuse(&place, &[("--model", "model")])
        .refused(2, &["unet", "conv_out.weight", "[4, 8, 3, 3]", "[8, 4, 3, 3]"]);
}

#[test]
fn a_model_with_a_surplus_tensor() {
    let place = Place::new();
    copy_of_the_model(&place);
    change_weights(&place, |tensors| {
        let copy = tensors["conv_out.bias"].clone();
        tensors.insert("controlnet.bias".to_owned(), copy);
    });
    refuse(&place, &[("--model", "model")]).refused(2, &["unet", "controlnet.bias"]);
}

#[test]
fn models_with_unknown_configuration_values() {
    for (file, key, value) in [
        ("model/unet/config.json", "act_fn", "mish-mash"),
        ("model/unet/config.json", "time_embedding_type", "fourier"),
        ("model/text_encoder/config.json", "hidden_act", "swish-swash"),
        ("model/scheduler/scheduler_config.json", "beta_schedule", "cubic"),
        ("model/scheduler/scheduler_config.json", "_class_name", "NewScheduler"),
    ] {
        let place = Place::new();
        copy_of_the_model(&place);
        change_config(&place, file, key, value.into());
        refuse(&place, &[("--model", "model")]).refused(2, &[key, value]);
    }
}

#[test]
fn folders_that_are_no_model() {
    let place = Place::new();
    refuse(&place, &[("--model", "no-such-model")]).refused(2, &["no-such-model"]);
    fs::create_dir(place.path("hollow")).unwrap();
    refuse(&place, &[("--model", "./hollow")])
        .refused(2, &["hollow", "model_index.json", "needed: a diffusers folder"]);
    copy_of_the_model(&place);
    place.write("model/model_index.json", "{ this is no JSON");
    refuse(&place, &[("--model", "model")]).refused(2, &["model_index.json"]);
}

#[test]
fn weights_that_are_cut_short() {
    let place = Place::new();
    copy_of_the_model(&place);
    let name = "model/vae/diffusion_pytorch_model.safetensors";
    let bytes = place.read(name);
    place.write(name, &bytes[..bytes.len() - 100]);
    refuse(&place, &[("--model", "model")]).refused(2, &["diffusion_pytorch_model.safetensors"]);
}
