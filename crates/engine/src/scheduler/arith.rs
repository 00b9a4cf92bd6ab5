//! Arithmetic as torch does it on float32 tensors, so that results agree to the last bits.
//!
//! diffusers computes its coefficients as float32 numbers, not as doubles. Where a coefficient is a small difference
//! of large terms, that rounding shows in the picture; so the coefficients here are `f32` too, in the same order of
//! operations. Logarithms and exponentials are rounded from double precision: the same on every platform.

use std::f32::consts::{LN_2, SQRT_2};

use candle_core::Tensor;

use crate::Result;

/// `c · x`.
pub(super) fn scaled(x: &Tensor, c: f32) -> Result<Tensor> {
    Ok(x.affine(f64::from(c), 0.0)?)
}

/// `x / c`: a true division, which a product with 1/c is not.
pub(super) fn divided(x: &Tensor, c: f32) -> Result<Tensor> {
    Ok(x.broadcast_div(&Tensor::new(c, x.device())?)?)
}

/// `c · x + Σ cᵢ · xᵢ`, added from left to right.
pub(super) fn weighted((c, x): (f32, &Tensor), more: &[(f32, &Tensor)]) -> Result<Tensor> {
    let mut sum = scaled(x, c)?;
    for &(c, x) in more {
        sum = (sum + scaled(x, c)?)?;
    }
    Ok(sum)
}

/// The natural logarithm.
pub(super) fn ln(x: f32) -> f32 {
    f64::from(x).ln() as f32
}

/// The natural logarithm as numpy takes it of float32 on x86 (its `loops_exponent_log`): now and then a last bit off the
/// rounded one. Where nearly equal terms of it cancel, that bit is in diffusers' result. For positive normal numbers.
pub(super) fn ln_numpy(x: f32) -> f32 {
    // log(1 + y) ≈ p(y) / q(y) for 1 + y from √½ to √2.
    const P: [f32; 6] = [0.0, 1.0, 2.112_677_5, 1.480_000_6, 0.380_883_77, 0.025_899_792];
    const Q: [f32; 6] = [1.0, 2.612_677_5, 2.453_006, 0.986_494_3, 0.154_647_63, 0.005_875_095_4];
    let mantissa = f32::from_bits((x.to_bits() & 0x007f_ffff) | 0x3f80_0000);
    let exponent = (x.to_bits() >> 23) as f32 - 127.0;
    let (mantissa, exponent) =
        if mantissa > SQRT_2 { (mantissa / 2.0, exponent + 1.0) } else { (mantissa, exponent) };
    let y = mantissa - 1.0;
    let polynomial = |c: &[f32]| c.iter().rev().fold(0.0f32, |sum, &c| sum.mul_add(y, c));
    exponent.mul_add(LN_2, polynomial(&P) / polynomial(&Q))
}

/// e to the power of x.
pub(super) fn exp(x: f32) -> f32 {
    f64::from(x).exp() as f32
}

/// e to the power of x, less 1.
pub(super) fn exp_m1(x: f32) -> f32 {
    f64::from(x).exp_m1() as f32
}
