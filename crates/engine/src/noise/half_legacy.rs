//! The half-precision noise of PyTorch up to 2.11, where every operation of the Box-Muller transform was rounded to the
//! output format. (`normal_fill` in ATen/native/cpu/DistributionTemplates.h of those versions)
//!
//! A uniform has as many bits as the format's significand: 11 or 8. Elementary functions are taken in `f64` before the
//! rounding to `f32` and then to the format: with so few arguments there are, the tests cover them all.

use super::mt19937::Mt19937;
use super::{BLOCK, HalfType};

/// `count >= 16` values, from the same number of words as the `f32` noise takes: one for each value, and 16 more if
/// `count` isn't a multiple of 16.
pub(super) fn fill(bits: &mut Mt19937, count: usize, kind: HalfType) -> Vec<f32> {
    let mut data: Vec<f32> = (0..count).map(|_| uniform(bits, kind)).collect();
    let (blocks, tail) = data.as_chunks_mut::<BLOCK>();
    for block in blocks {
        box_muller(block, kind);
    }
    if !tail.is_empty() {
        let mut block = std::array::from_fn(|_| uniform(bits, kind));
        box_muller(&mut block, kind);
        data[count - BLOCK..].copy_from_slice(&block);
    }
    data
}

fn uniform(bits: &mut Mt19937, kind: HalfType) -> f32 {
    let digits = match kind {
        HalfType::F16 => 11,
        HalfType::BF16 => 8,
    };
    let range = 1_u32 << digits;
    (bits.next_u32() & (range - 1)) as f32 / range as f32
}

fn box_muller(block: &mut [f32; BLOCK], kind: HalfType) {
    let round = |value: f64| kind.round(value as f32);
    for j in 0..BLOCK / 2 {
        let log = round(f64::from(kind.round(1.0 - block[j])).ln());
        let radius = kind.round(kind.round(-2.0 * log).sqrt());
        let theta = f64::from(round(std::f64::consts::TAU * f64::from(block[j + 8])));
        // Adding zero turns -0 into +0, as adding the mean does in PyTorch.
        block[j] = kind.round(radius * round(theta.cos())) + 0.0;
        block[j + 8] = kind.round(radius * round(theta.sin())) + 0.0;
    }
}
