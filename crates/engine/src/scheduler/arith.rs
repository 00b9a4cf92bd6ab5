//! Arithmetic as torch does it on float32 tensors, so that results agree to the last bits.
//!
//! diffusers computes its coefficients as float32 numbers, not as doubles. Where a coefficient is a small difference
//! of large terms, that rounding shows in the picture; so the coefficients here are `f32` too, in the same order of
//! operations. Logarithms and exponentials are rounded from double precision: the same on every platform.

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

/// e to the power of x.
pub(super) fn exp(x: f32) -> f32 {
    f64::from(x).exp() as f32
}

/// e to the power of x, less 1.
pub(super) fn exp_m1(x: f32) -> f32 {
    f64::from(x).exp_m1() as f32
}
