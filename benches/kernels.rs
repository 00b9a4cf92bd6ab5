//! The kernels on the shapes that SDXL and SD 1.5 run them on, one picture of 1024 x 1024 and 512 x 512 each.
//!
//! `cargo bench --bench kernels -- conv2d` runs those whose name begins so. Throughput is in floating-point
//! operations (matrix work) or in elements (the rest).
#![allow(missing_docs, clippy::unwrap_used)]

use std::hint::black_box;

use candle_core::{DType, Device, Tensor};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use infill_kernels as kernels;

fn noise(shape: &[usize]) -> Tensor {
    let count = shape.iter().product::<usize>();
    let values: Vec<f32> = (0..count).map(|i| ((i * 7919 % 2003) as f32) / 1001.0 - 1.0).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

fn conv2d(c: &mut Criterion) {
    let mut group = c.benchmark_group("conv2d");
    group.sample_size(10);
    // Name, input channels, output channels, side, kernel.
    for (name, inputs, outputs, side, kernel) in [
        ("sdxl_down_0_resnet", 320, 320, 128, 3),
        ("sdxl_down_1_resnet", 640, 640, 64, 3),
        ("sdxl_mid_resnet", 1280, 1280, 32, 3),
        ("sdxl_up_0_shortcut", 2560, 1280, 32, 1),
        ("sd15_down_0_resnet", 320, 320, 64, 3),
        ("vae_512_last_resnet", 128, 128, 512, 3),
    ] {
        let (x, w) = (noise(&[1, inputs, side, side]), noise(&[outputs, inputs, kernel, kernel]));
        let bias = noise(&[outputs]);
        let flops = 2 * inputs * outputs * side * side * kernel * kernel;
        group.throughput(Throughput::Elements(flops as u64));
        group.bench_function(BenchmarkId::from_parameter(name), |b| {
            b.iter(|| kernels::conv2d(black_box(&x), &w, Some(&bias), 1, kernel / 2).unwrap());
        });
    }
    group.finish();
}

fn linear(c: &mut Criterion) {
    let mut group = c.benchmark_group("linear");
    group.sample_size(10);
    // Name, rows, inputs, outputs.
    for (name, rows, inputs, outputs) in [
        ("sdxl_640_to_q", 4096, 640, 640),
        ("sdxl_640_ff_in", 4096, 640, 5120),
        ("sdxl_1280_ff_out", 1024, 5120, 1280),
        ("sdxl_text_to_k", 77, 2048, 1280),
    ] {
        let (x, w, bias) = (noise(&[1, rows, inputs]), noise(&[outputs, inputs]), noise(&[outputs]));
        group.throughput(Throughput::Elements((2 * rows * inputs * outputs) as u64));
        group.bench_function(BenchmarkId::from_parameter(name), |b| {
            b.iter(|| kernels::linear(black_box(&x), &w, Some(&bias)).unwrap());
        });
    }
    group.finish();
}

fn attention(c: &mut Criterion) {
    let mut group = c.benchmark_group("attention");
    group.sample_size(10);
    // Name, heads, queries, keys, head size.
    for (name, heads, queries, keys, size) in [
        ("sdxl_640_self", 10, 4096, 4096, 64),
        ("sdxl_640_text", 10, 4096, 77, 64),
        ("sdxl_1280_self", 20, 1024, 1024, 64),
        ("sd15_320_self", 8, 4096, 4096, 40),
        ("vae_512_mid", 1, 4096, 4096, 512),
    ] {
        let (q, k, v) = (
            noise(&[1, heads, queries, size]),
            noise(&[1, heads, keys, size]),
            noise(&[1, heads, keys, size]),
        );
        let scale = (size as f32).sqrt().recip();
        group.throughput(Throughput::Elements((4 * heads * queries * keys * size) as u64));
        group.bench_function(BenchmarkId::from_parameter(name), |b| {
            b.iter(|| kernels::attention(black_box(&q), &k, &v, scale, None).unwrap());
        });
    }
    group.finish();
}

fn elementwise(c: &mut Criterion) {
    let mut group = c.benchmark_group("elementwise");
    group.sample_size(10);
    let picture = noise(&[1, 320, 128, 128]);
    let (scale, shift) = (noise(&[320]), noise(&[320]));
    group.throughput(Throughput::Elements(picture.elem_count() as u64));
    group.bench_function("group_norm_silu/sdxl_down_0", |b| {
        b.iter(|| kernels::group_norm_silu(black_box(&picture), &scale, &shift, 32, 1e-5).unwrap());
    });
    group.bench_function("upsample_nearest2x/sdxl_up_1", |b| {
        b.iter(|| kernels::upsample_nearest2x(black_box(&picture)).unwrap());
    });
    let tokens = noise(&[1, 4096, 640]);
    let (scale, shift) = (noise(&[640]), noise(&[640]));
    group.throughput(Throughput::Elements(tokens.elem_count() as u64));
    group.bench_function("layer_norm/sdxl_640", |b| {
        b.iter(|| kernels::layer_norm(black_box(&tokens), &scale, &shift, 1e-5).unwrap());
    });
    let gated = noise(&[1, 4096, 5120]);
    group.throughput(Throughput::Elements(gated.elem_count() as u64));
    group.bench_function("geglu/sdxl_640", |b| b.iter(|| kernels::geglu(black_box(&gated)).unwrap()));
    // A concept merged into SDXL's widest linear layer.
    let (weight, delta) = (noise(&[10240, 1280]).to_dtype(DType::F16).unwrap(), noise(&[10240, 1280]));
    group.throughput(Throughput::Elements(10240 * 1280));
    group.bench_function("add_delta_sdxl_1280_ff_in", |b| {
        b.iter(|| kernels::add_delta(black_box(&weight), &delta, DType::F16).unwrap());
    });
    group.finish();
}

criterion_group!(benches, conv2d, linear, attention, elementwise);
criterion_main!(benches);
