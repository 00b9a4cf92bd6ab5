//! A concept from anywhere: any names, any shapes, any numbers. It is refused by name or merged.
#![no_main]

use std::collections::{BTreeMap, HashMap};

use candle_core::{DType, Device, Tensor};
use infill_networks::lora::{Lora, ModelLayout, Network};
use infill_networks::weights::Weights;
use libfuzzer_sys::fuzz_target;
use safetensors::Dtype;
use safetensors::tensor::{TensorView, serialize_to_file};

const MODULE: &str = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k";

/// Name, dimensions of up to 15 each, and the byte that its numbers are made of.
type Entry = (String, Vec<u8>, u8);

fuzz_target!(|input: (Vec<Entry>, BTreeMap<String, String>, f64)| {
    let (entries, texts, scale) = input;
    let folder = tempfile::tempdir().unwrap();
    let base = folder.path().join("base.safetensors");
    let ones = Tensor::ones((4, 3), DType::F32, &Device::Cpu).unwrap();
    candle_core::safetensors::save(&HashMap::from([(format!("{MODULE}.weight"), ones)]), &base).unwrap();
    let open = || {
        Weights::open("unet", std::slice::from_ref(&base), str::to_owned, DType::F32, &Device::Cpu).unwrap()
    };
    let mut layout = ModelLayout::default();
    layout.add(Network::Unet, &open());

    let path = folder.path().join("concept.safetensors");
    let tensors: BTreeMap<String, (Vec<usize>, Vec<u8>)> = entries
        .into_iter()
        .map(|(name, dims, byte)| {
            let shape: Vec<usize> = dims.iter().take(4).map(|side| usize::from(side % 16)).collect();
            let bytes = vec![byte; 4 * shape.iter().product::<usize>()];
            (name.replace("MODULE", MODULE), (shape, bytes))
        })
        .collect();
    let views = tensors.iter().map(|(name, (shape, bytes))| {
        (name.clone(), TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap())
    });
    if serialize_to_file(views, None, &path).is_err() {
        return;
    }
    let Ok(mut changes) = Lora::open(&path, &texts).and_then(|lora| lora.changes(&layout, scale)) else {
        return;
    };
    let changes = changes.remove(&Network::Unet).unwrap_or_default();
    if let Ok(weight) = open().with_changes(changes).unwrap().get(&format!("{MODULE}.weight"), &[4, 3]) {
        let values: Vec<f32> = weight.flatten_all().unwrap().to_vec1().unwrap();
        assert!(values.iter().all(|value| value.is_finite()));
    }
});
