//! The image encoder and the adapters' projections by themselves, from a photograph to tokens; and an encoder of full
//! size where there is one.

use std::collections::HashMap;
use std::path::Path;
use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use infill_engine::image::{Limits, Picture, clip_pixel_values};
use infill_models::adapter::{AdapterFile, ImageEncoderFolder};
use infill_models::dialect;
use infill_networks::clip::vision::{ClipVisionConfig, ClipVisionModel};
use infill_networks::ip_adapter::IpAdapter;
use infill_networks::unet::{CrossAttention, UNet2DConditionConfig, UNet2DConditionModel};
use infill_networks::weights::Weights;
use serde_json::Value;

use crate::case::{Folders, device_and_dtype};
use crate::compare::values;

/// The tensors of a reference with their noise floors.
struct Reference(HashMap<String, Tensor>);

impl Reference {
    fn read(file: &Path) -> Self {
        Self(candle_core::safetensors::load(file, &Device::Cpu).unwrap())
    }

    /// How many noise floors `ours` is away from the tensor `name`. The floor is at least one rounding of the largest
    /// value, as in the other comparisons.
    fn floors(&self, name: &str, ours: &Tensor) -> f64 {
        let theirs = &self.0[name];
        assert_eq!(ours.dims(), theirs.dims(), "{name}");
        let theirs = values(theirs);
        let largest = theirs.iter().fold(0.0, |largest: f64, value| largest.max(value.abs()));
        let floor = values(&self.0[&format!("floor.{name}")])[0].max(largest / 16_777_216.0);
        let distances = values(ours).into_iter().zip(theirs).map(|(a, b)| (a - b).abs());
        distances.map(|d| if d.is_nan() { f64::INFINITY } else { d }).fold(0.0, f64::max) / floor
    }
}

/// An encoder whose configuration is that of the folder after `change`.
fn encoder(folder: &ImageEncoderFolder, change: impl FnOnce(&mut Value)) -> ClipVisionModel {
    let (device, dtype) = device_and_dtype();
    let part = folder.component();
    let mut config = part.config.clone();
    change(&mut config);
    let config = ClipVisionConfig::from_json("image_encoder", &config).unwrap();
    let w = Weights::open("image_encoder", &part.weight_files, str::to_owned, dtype, &device).unwrap();
    let model = ClipVisionModel::new(config, &w).unwrap();
    w.finish().unwrap();
    model
}

/// A photograph as an encoder takes it, (1,3,S,S).
fn pixel_values(folders: &Folders, photo: &str, side: usize) -> Tensor {
    let (device, _) = device_and_dtype();
    let bytes = std::fs::read(folders.images.join(photo)).unwrap();
    let picture = Picture::decode(&bytes, &Limits::default()).unwrap();
    let values = clip_pixel_values(&picture, side as u32);
    Tensor::from_vec(values, (1, 3, side, side), &device).unwrap()
}

/// The cross-attention layers of a checkpoint's UNet.
fn layers(folders: &Folders, model: &str) -> Vec<CrossAttention> {
    let (device, dtype) = device_and_dtype();
    let checkpoint = folders.checkpoint(model);
    let part = checkpoint.component("unet").unwrap();
    let w = Weights::open("unet", &part.weight_files, dialect::unet_key, dtype, &device).unwrap();
    let config = UNet2DConditionConfig::from_json("unet", &part.config).unwrap();
    UNet2DConditionModel::new(config, &w).unwrap().cross_attentions()
}

#[test]
fn a_photograph_becomes_tokens_as_in_diffusers() {
    let (device, dtype) = device_and_dtype();
    if dtype != DType::F32 {
        println!("the reference is in f32; the cases of the pipelines cover {dtype:?}");
        return;
    }
    let folders = Folders::committed();
    let root = folders.models.join("ip_adapter");
    let reference = Reference::read(&folders.models.join("../image-encoder/reference.safetensors"));
    let folder = ImageEncoderFolder::open(&root.join("models/image_encoder")).unwrap();
    let mut rows: Vec<(String, f64)> = Vec::new();

    let own = encoder(&folder, |_| ());
    let pixels = pixel_values(&folders, "chelsea.png", own.config().image_size);
    for activation in ["gelu", "quick_gelu"] {
        let output =
            encoder(&folder, |config| config["hidden_act"] = activation.into()).forward(&pixels).unwrap();
        for (tap, ours) in [("image_embeds", &output.image_embeds), ("penultimate", &output.penultimate)] {
            let name = format!("{activation}/{tap}");
            rows.push((name.clone(), reference.floors(&name, ours)));
        }
    }
    let models = [("models", "tiny-sd15-base"), ("sdxl_models", "tiny-sdxl-base")];
    for (kind, model) in models {
        let layers = layers(&folders, model);
        let names =
            reference.0.keys().filter(|name| name.ends_with("/tokens") && !name.starts_with("floor."));
        for name in names.filter(|name| name.starts_with(&format!("{kind}/"))) {
            let name = name.trim_end_matches("/tokens");
            let file = AdapterFile::open(&root.join(format!("{name}.safetensors"))).unwrap();
            file.check_model(&folders.checkpoint(model)).unwrap();
            file.check_encoder(&folder).unwrap();
            let files = [file.path().to_owned()];
            let w = Weights::open("ip_adapter", &files, str::to_owned, dtype, &device).unwrap();
            let adapter = IpAdapter::new(&w, &layers).unwrap();
            w.finish().unwrap();
            adapter.check_encoder(own.config()).unwrap();
            let features = adapter.features(&own, &pixels).unwrap();
            let negative = adapter.negative_features(&own).unwrap();
            for (tap, features) in [("tokens", features), ("negative_tokens", negative)] {
                let name = format!("{name}/{tap}");
                rows.push((name.clone(), reference.floors(&name, &adapter.project(&features).unwrap())));
            }
        }
    }
    assert_eq!(rows.len(), 4 + 2 * 6, "{rows:?}");
    for (name, floors) in &rows {
        println!("{name}: {floors:.1} floors");
    }
    let wrong: Vec<_> = rows.iter().filter(|(_, floors)| *floors > 10.0).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

/// An encoder of full size, from a folder that `scripts/full-size-encoders` makes.
#[test]
fn an_encoder_of_full_size() {
    let Some(dir) = std::env::var_os("INFILL_PARITY_IMAGE_ENCODER") else {
        println!("INFILL_PARITY_IMAGE_ENCODER is not set: only the tiny encoder was compared");
        return;
    };
    let dir = Path::new(&dir);
    let (_, dtype) = device_and_dtype();
    let reference = Reference::read(&dir.join("reference.safetensors"));

    let started = Instant::now();
    let encoder = encoder(&ImageEncoderFolder::open(dir).unwrap(), |_| ());
    let load = started.elapsed().as_secs_f64();
    let pixels = pixel_values(&Folders::committed(), "astronaut.png", encoder.config().image_size);
    assert_eq!(values(&pixels), values(&reference.0["pixel_values"]));
    let started = Instant::now();
    let output = encoder.forward(&pixels).unwrap();
    let embeds = reference.floors("image_embeds", &output.image_embeds);
    let encode = started.elapsed().as_secs_f64();
    let floors = [embeds, reference.floors("penultimate", &output.penultimate)];
    let report = serde_json::json!({
        "program": "infill", "load_s": load, "encode_s": encode, "peak_gb": peak_gigabytes(), "floors": floors,
    });
    println!("{report}");
    assert!(dtype != DType::F32 || floors.iter().all(|floors| *floors <= 10.0), "{floors:?}");
}

/// The largest resident set so far in GB; zero where the system does not say.
fn peak_gigabytes() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|kb| kb.parse::<f64>().ok()).unwrap_or_default() / 1e6
}
