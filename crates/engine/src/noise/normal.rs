//! Normal noise in `f32`, 16 values at a time, as PyTorch's AVX2 and AVX-512 builds compute it.
//!
//! `normal_fill` in ATen/native/cpu/DistributionTemplates.h applies the Box-Muller transform to blocks of 16 uniforms,
//! with the logarithm, sine and cosine of Cephes in their AVX form (ATen/native/cpu/avx_mathfun.h). Where a product and a
//! sum were contracted to one rounding is a property of the shipped binaries, not of that source; the placement of
//! [`f32::mul_add`] below was found by comparing bits, and the fixtures hold it.

use super::mt19937::Mt19937;
use super::{BLOCK, HalfType};

/// `count >= 16` values: all uniforms are drawn first, then transformed in place. If `count` isn't a multiple of 16 the
/// last 16 values are made anew from 16 more uniforms.
pub(super) fn fill(bits: &mut Mt19937, count: usize) -> Vec<f32> {
    let mut data: Vec<f32> = (0..count).map(|_| bits.uniform_f32()).collect();
    let (blocks, tail) = data.as_chunks_mut::<BLOCK>();
    blocks.iter_mut().for_each(box_muller);
    if !tail.is_empty() {
        data[count - BLOCK..].copy_from_slice(&fresh_block(bits));
    }
    data
}

/// `count >= 16` values rounded to half precision. Unlike in [`fill`] no uniform is drawn for an incomplete block before
/// the 16 that replace it, so beyond the last whole block the two draws part.
pub(super) fn fill_half(bits: &mut Mt19937, count: usize, kind: HalfType) -> Vec<f32> {
    let mut data = vec![0.0; count];
    let (blocks, tail) = data.as_chunks_mut::<BLOCK>();
    for block in blocks {
        *block = fresh_block(bits).map(|value| kind.round(value));
    }
    if !tail.is_empty() {
        data[count - BLOCK..].copy_from_slice(&fresh_block(bits).map(|value| kind.round(value)));
    }
    data
}

fn fresh_block(bits: &mut Mt19937) -> [f32; BLOCK] {
    let mut block = std::array::from_fn(|_| bits.uniform_f32());
    box_muller(&mut block);
    block
}

/// Turns 16 uniforms in [0, 1) into 16 normal values: the first eight give the radii, the last eight the angles.
fn box_muller(block: &mut [f32; BLOCK]) {
    const TWO_PI: f32 = std::f32::consts::TAU;
    for j in 0..BLOCK / 2 {
        let radius = (-2.0 * log(1.0 - block[j])).sqrt();
        let (sin, cos) = sin_cos(TWO_PI * block[j + 8]);
        // Adding zero turns -0 into +0, as adding the mean does in PyTorch.
        block[j] = radius * cos + 0.0;
        block[j + 8] = radius * sin + 0.0;
    }
}

/// The natural logarithm of `x` in (0, 1], by the polynomial of Cephes' `logf`.
#[allow(clippy::excessive_precision)]
fn log(x: f32) -> f32 {
    const P: [f32; 9] = [
        7.0376836292e-2,
        -1.1514610310e-1,
        1.1676998740e-1,
        -1.2420140846e-1,
        1.4249322787e-1,
        -1.6668057665e-1,
        2.0000714765e-1,
        -2.4999993993e-1,
        3.3333331174e-1,
    ];
    const LN_2_LOW: f32 = -2.12194440e-4;
    const LN_2_HIGH: f32 = 0.693359375;

    let bits = x.max(f32::MIN_POSITIVE).to_bits();
    let mut exponent = ((bits >> 23) as i32 - 126) as f32;
    // The mantissa in [0.5, 1), then x - 1 with x in [sqrt(1/2), sqrt(2)).
    let mantissa = f32::from_bits((bits & 0x007f_ffff) | 0x3f00_0000);
    let mut x = mantissa - 1.0;
    if mantissa < std::f32::consts::FRAC_1_SQRT_2 {
        exponent -= 1.0;
        x += mantissa;
    }
    let z = x * x;
    let mut y = P[0];
    for p in &P[1..] {
        y = y.mul_add(x, *p);
    }
    y *= x;
    y = y.mul_add(z, exponent * LN_2_LOW);
    y -= 0.5 * z;
    x += y;
    x + exponent * LN_2_HIGH
}

/// The sine and cosine of `x` in [0, 2 pi], by the polynomials of Cephes' `sinf` and `cosf` after reduction to an eighth
/// of a turn.
#[allow(clippy::excessive_precision)]
fn sin_cos(x: f32) -> (f32, f32) {
    const FOUR_OVER_PI: f32 = 1.27323954473516;
    const MINUS_QUARTER_PI: [f32; 3] = [-0.78515625, -2.4187564849853515625e-4, -3.77489497744594108e-8];
    const COS: [f32; 3] = [2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2];
    const SIN: [f32; 3] = [-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1];

    let octant = ((x * FOUR_OVER_PI) as i32 + 1) & !1;
    let turns = octant as f32;
    let x = MINUS_QUARTER_PI.iter().fold(x, |x, part| turns.mul_add(*part, x));
    let z = x * x;

    let mut c = COS[0].mul_add(z, COS[1]).mul_add(z, COS[2]);
    c *= z;
    c = c.mul_add(z, -(0.5 * z)) + 1.0;

    let mut s = SIN[0].mul_add(z, SIN[1]).mul_add(z, SIN[2]);
    s *= z;
    s = s.mul_add(x, x);

    let (sin, cos) = if octant & 2 == 0 { (s, c) } else { (c, s) };
    let flip = |value: f32, sign: i32| f32::from_bits(value.to_bits() ^ ((sign as u32 & 4) << 29));
    (flip(sin, octant), flip(cos, !(octant - 2)))
}
