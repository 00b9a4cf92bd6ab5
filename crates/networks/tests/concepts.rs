//! Concepts of every kind against what their trainers' own libraries make of them (`tests/fixtures/make_loras.py`).
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use infill_networks::lora::{Changes, Lora, ModelLayout, Network};
use infill_networks::weights::Weights;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/loras")
}

fn base() -> Weights {
    let files = [fixtures().join("base.safetensors")];
    Weights::open("unet", &files, str::to_owned, DType::F32, &Device::Cpu).unwrap()
}

/// The texts of a file's header.
fn texts(path: &Path) -> BTreeMap<String, String> {
    let bytes = std::fs::read(path).unwrap();
    let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    metadata.metadata().clone().unwrap_or_default().into_iter().collect()
}

fn changes(path: &Path, scale: f64) -> infill_networks::Result<Changes> {
    let mut layout = ModelLayout::default();
    layout.add(Network::Unet, &base());
    let mut all = Lora::open(path, &texts(path))?.changes(&layout, scale)?;
    Ok(all.remove(&Network::Unet).unwrap_or_default())
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn every_kind_is_merged_as_by_its_own_library() {
    let mut names: Vec<String> = std::fs::read_dir(fixtures())
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().into_string().ok())
        .filter_map(|name| Some(name.strip_suffix(".merged.safetensors")?.to_owned()))
        .collect();
    names.sort();
    assert!(names.len() >= 24, "{names:?}");
    let mut failed = Vec::new();
    for name in names {
        let expected = fixtures().join(format!("{name}.merged.safetensors"));
        let about = texts(&expected);
        let (scale, floor): (f64, f64) = (about["scale"].parse().unwrap(), about["floor"].parse().unwrap());
        let changes = changes(&fixtures().join(format!("{name}.safetensors")), scale).unwrap();
        let weights = base().with_changes(changes).unwrap();
        let mut worst = 0f64;
        for (tensor, expected) in candle_core::safetensors::load(&expected, &Device::Cpu).unwrap() {
            let ours = values(&weights.get(&tensor, expected.dims()).unwrap());
            for (a, b) in ours.iter().zip(values(&expected)) {
                worst = worst.max((f64::from(*a) - f64::from(b)).abs());
            }
        }
        println!("{name:18} {worst:.1e} of {:.1e}", 10.0 * floor);
        // Written so that what is not a number fails too.
        if !(0.0..=10.0 * floor).contains(&worst) {
            failed.push(format!("{name}: {worst:.1e}, allowed {:.1e}", 10.0 * floor));
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

/// What is not changed is read to the last bit as without a concept, in every format.
#[test]
fn other_weights_stay_as_they_are() {
    let changes = changes(&fixtures().join("norms.safetensors"), 0.7).unwrap();
    let (plain, changed) = (base(), base().with_changes(changes).unwrap());
    for (name, shape) in plain.shapes() {
        let (a, b) = (plain.get(&name, &shape).unwrap(), changed.get(&name, &shape).unwrap());
        assert_eq!(values(&a) == values(&b), !name.contains("norm1"), "{name}");
    }
    changed.finish().unwrap();
}

/// Two concepts, one after the other: plain differences add up, whatever their order.
#[test]
fn several_concepts_are_merged_in_order() {
    let one = |name: &str, scale| changes(&fixtures().join(format!("{name}.safetensors")), scale).unwrap();
    let read = |changes: Changes| {
        let weights = base().with_changes(changes).unwrap();
        let shapes = weights.shapes();
        shapes
            .iter()
            .flat_map(|(name, shape)| values(&weights.get(name, shape).unwrap()))
            .collect::<Vec<f32>>()
    };
    let (none, first, second) = (read(Changes::default()), read(one("locon", 0.7)), read(one("loha", -1.0)));
    let mut both = one("locon", 0.7);
    both.append(one("loha", -1.0));
    for (i, value) in read(both).iter().enumerate() {
        let expected = first[i] + second[i] - none[i];
        assert!((value - expected).abs() < 1e-5, "{value}, expected {expected}");
    }
}

#[test]
fn a_change_too_large_for_the_format_is_refused_by_name() {
    let path = fixtures().join("locon.safetensors");
    for (scale, dtype) in
        [(1e39, DType::F32), (1e6, DType::F16), (f64::NAN, DType::F32), (1e300, DType::BF16)]
    {
        let files = [fixtures().join("base.safetensors")];
        let weights = Weights::open("unet", &files, str::to_owned, dtype, &Device::Cpu).unwrap();
        let weights = weights.with_changes(changes(&path, scale).unwrap()).unwrap();
        let error =
            weights.get("down_blocks.1.resnets.0.conv1.weight", &[12, 8, 3, 3]).unwrap_err().to_string();
        assert!(
            error.contains("locon.safetensors: makes down_blocks.1.resnets.0.conv1.weight too large"),
            "{error}"
        );
    }
}
