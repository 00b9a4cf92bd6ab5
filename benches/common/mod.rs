//! What the benches of networks share: a checkpoint's components by themselves.
//!
//! `INFILL_BENCH_MODEL` is the checkpoint, by default a tiny one of the fixtures; `INFILL_BENCH_SIDE` the side of the
//! picture in pixels, 512.
#![allow(dead_code, unreachable_pub)] // each bench uses a part

use std::path::PathBuf;

use candle_core::{DType, Device, Tensor};
use infill_models::Checkpoint;
use infill_networks::weights::Weights;

/// The checkpoint under measurement.
pub fn checkpoint() -> Checkpoint {
    let tiny = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/models/tiny-sdxl-inpaint");
    let folder = std::env::var_os("INFILL_BENCH_MODEL").map_or_else(|| PathBuf::from(tiny), PathBuf::from);
    Checkpoint::open(&folder).unwrap()
}

/// The side of the picture, in pixels.
pub fn side() -> usize {
    std::env::var("INFILL_BENCH_SIDE").map_or(512, |side| side.parse().unwrap())
}

/// The weights of one component in f32 on the CPU.
pub fn weights(checkpoint: &Checkpoint, component: &str, rename: fn(&str) -> String) -> Weights {
    let files = &checkpoint.component(component).unwrap().weight_files;
    Weights::open(component, files, rename, DType::F32, &Device::Cpu).unwrap()
}

/// Values of about unit spread, the same at every run.
pub fn noise(shape: &[usize]) -> Tensor {
    let count: usize = shape.iter().product();
    let values: Vec<f32> = (0..count).map(|i| ((i * 7919) % 2003) as f32 / 578.0 - 1.73).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}
