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

/// The natural logarithm as torch has it: to the nearest float32, but for rare cases.
pub(super) fn ln(x: f32) -> f32 {
    f64::from(x).ln() as f32
}

/// The natural logarithm of a positive number as numpy has it for float32 on x86: a quotient of two polynomials, off by
/// up to four units in the last place. It shows in the timesteps that lie between two of the table, and in whatever
/// divides by a difference of two logarithms. Method and coefficients: numpy's `loops_exponent_log.dispatch.c.src` and
/// `npy_simd_data.h`.
pub(super) fn numpy_ln(x: f32) -> f32 {
    const NUMERATOR: [f32; 6] = [0.025_899_79, 0.380_883_77, 1.480_000_6, 2.112_677_6, 1.0, 0.0];
    const DENOMINATOR: [f32; 6] = [0.005_875_095_4, 0.154_647_64, 0.986_494_3, 2.453_006, 2.612_677_6, 1.0];
    if !x.is_normal() || x < 0.0 {
        return ln(x);
    }
    // x = m · 2^exponent with m from √½ to √2.
    let bits = x.to_bits();
    let mut exponent = ((bits >> 23) as i32 - 126) as f32;
    let mut m = f32::from_bits((bits & 0x007f_ffff) | 0x3f00_0000);
    if m <= std::f32::consts::FRAC_1_SQRT_2 {
        m += m;
        exponent -= 1.0;
    }
    let y = m - 1.0;
    let polynomial =
        |coefficients: [f32; 6]| coefficients.into_iter().fold(0.0, |sum: f32, c| sum.mul_add(y, c));
    exponent.mul_add(std::f32::consts::LN_2, polynomial(NUMERATOR) / polynomial(DENOMINATOR))
}

/// e to the power of x.
pub(super) fn exp(x: f32) -> f32 {
    f64::from(x).exp() as f32
}

/// e to the power of x, less 1.
pub(super) fn exp_m1(x: f32) -> f32 {
    f64::from(x).exp_m1() as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numpy_ln_is_numpys() {
        // Bits of numpy.log, one in three of them not the nearest float32.
        let expected = [
            (f32::from_bits(0x2edbe6ff), 0xc1b834f1_u32),
            (f32::from_bits(0x3cef34d7), 0xc0622648_u32),
            (f32::from_bits(0x3d292a30), 0xc04bf60d_u32),
            (f32::from_bits(0x3eb33333), 0xbf866092_u32),
            (f32::from_bits(0x3f000000), 0xbf317218_u32),
            (f32::from_bits(0x3f350481), 0xbeb1735b_u32),
            (f32::from_bits(0x3f350529), 0xbeb17181_u32),
            (f32::from_bits(0x3f47ae14), 0xbe7e6caa_u32),
            (f32::from_bits(0x3f7d70a4), 0xbc24aa1f_u32),
            (f32::from_bits(0x3f800000), 0x00000000_u32),
            (f32::from_bits(0x3f8147ae), 0x3c2306ad_u32),
            (f32::from_bits(0x3fa66666), 0x3e86549a_u32),
            (f32::from_bits(0x3fd9999a), 0x3f07d741_u32),
            (f32::from_bits(0x40066666), 0x3f3def9a_u32),
            (f32::from_bits(0x40533333), 0x3f98d274_u32),
            (f32::from_bits(0x40d66666), 0x3ff37842_u32),
            (f32::from_bits(0x4169999a), 0x402b95db_u32),
            (f32::from_bits(0x431d6666), 0x40a1e19c_u32),
            (f32::from_bits(0x45800000), 0x41051592_u32),
        ];
        for (x, bits) in expected {
            assert_eq!(numpy_ln(x).to_bits(), bits, "log {x}");
        }
    }
}
