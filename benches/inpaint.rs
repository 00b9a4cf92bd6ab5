//! A whole request, from the decoded photograph to the merged picture.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use std::path::Path;

use candle_core::{DType, Device};
use common::{checkpoint, side};
use criterion::{Criterion, criterion_group, criterion_main};
use infill_engine::image::{Limits, Picture};
use infill_engine::mask::Mask;
use infill_engine::pipeline::{LoadOptions, Observer, Pipeline};
use infill_engine::request::{InpaintParams, InpaintRequest};

fn inpaint(c: &mut Criterion) {
    let options = LoadOptions { device: Device::Cpu, dtype: DType::F32 };
    let pipeline = Pipeline::load(&checkpoint(), &options, &mut Observer::silent()).unwrap();
    let images = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/images");
    let read = |name: &str| std::fs::read(images.join(name)).unwrap();
    let image = Picture::decode(&read("chelsea.png"), &Limits::default()).unwrap();
    let mask = Mask::decode(&read("chelsea-mask.png"), &Limits::default()).unwrap();
    let mut params = InpaintParams::new(image, mask, "a cat with a red bow tie");
    let side = u32::try_from(side()).unwrap();
    (params.width, params.height, params.num_inference_steps) = (Some(side), Some(side), 4);
    let request = InpaintRequest::new(params).unwrap();

    let mut group = c.benchmark_group("inpaint");
    group.sample_size(10);
    group.bench_function(format!("4 steps, strength 0.75, {side}x{side}"), |b| {
        b.iter(|| pipeline.inpaint(&request, &mut Observer::silent(), &mut |_| Ok(())).unwrap());
    });
    group.finish();
}

criterion_group!(benches, inpaint);
criterion_main!(benches);
