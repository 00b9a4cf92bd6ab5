//! Small helpers of this crate's tests.
#![allow(clippy::unwrap_used)]

use candle_core::{DType, Device, Tensor};

pub(crate) fn tensor(values: &[f32], shape: &[usize]) -> Tensor {
    Tensor::from_slice(values, shape, &Device::Cpu).unwrap()
}

/// Values in -1..1 from a small multiplicative generator; the same for the same seed.
pub(crate) fn noise(shape: &[usize], seed: u64) -> Tensor {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let count = shape.iter().product();
    let values: Vec<f32> = (0..count)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> 40) as f32) / ((1u64 << 23) as f32) - 1.0
        })
        .collect();
    tensor(&values, shape)
}

pub(crate) fn values(x: &Tensor) -> Vec<f32> {
    x.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// Largest difference, relative to the largest expected magnitude (at least 1), is within `tolerance`.
pub(crate) fn assert_close(actual: &Tensor, expected: &Tensor, tolerance: f32) {
    assert_eq!(actual.dims(), expected.dims());
    let (actual, expected) = (values(actual), values(expected));
    let scale = expected.iter().fold(1f32, |m, x| m.max(x.abs()));
    for (i, (a, e)) in actual.iter().zip(&expected).enumerate() {
        let close = (a - e).abs() <= tolerance * scale;
        assert!(close, "element {i}: {a}, expected {e}");
    }
}

/// Runs `f` on one thread and on three; both must give the same bytes.
pub(crate) fn assert_same_for_any_thread_count(f: impl Fn() -> Tensor + Send + Sync) {
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| values(&f()).iter().map(|x| x.to_bits()).collect::<Vec<u32>>())
    };
    assert_eq!(run(1), run(3));
}
