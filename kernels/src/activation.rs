//! Activations, element by element.

use candle_core::{Result, Tensor, cpu::erf::erf_f32};

use crate::cpu;

/// Sigmoid-weighted linear unit, `x * sigmoid(x)` (Hendrycks and Gimpel, arXiv 1606.08415), any shape.
pub fn silu(x: &Tensor) -> Result<Tensor> {
    if x.device().is_cpu() { cpu::map(x, "silu", silu_f32) } else { x.silu() }
}

/// Gaussian error linear unit with the exact error function, `x * Phi(x)` (arXiv 1606.08415), any shape.
pub fn gelu_erf(x: &Tensor) -> Result<Tensor> {
    if x.device().is_cpu() { cpu::map(x, "gelu_erf", gelu_erf_f32) } else { x.gelu_erf() }
}

/// CLIP's approximation of GELU, `x * sigmoid(1.702 x)`, any shape (transformers: `activations.py`, `quick_gelu`).
pub fn quick_gelu(x: &Tensor) -> Result<Tensor> {
    if x.device().is_cpu() { cpu::map(x, "quick_gelu", quick_gelu_f32) } else { composed_quick_gelu(x) }
}

fn composed_quick_gelu(x: &Tensor) -> Result<Tensor> {
    // sigmoid(y) = 1 / (1 + exp(-y))
    let gate = ((x * -1.702)?.exp()? + 1.0)?.recip()?;
    x * gate
}

pub(crate) fn silu_f32(x: f32) -> f32 {
    x / (1.0 + (-x).exp())
}

pub(crate) fn gelu_erf_f32(x: f32) -> f32 {
    0.5 * x * (1.0 + erf_f32(x * std::f32::consts::FRAC_1_SQRT_2))
}

fn quick_gelu_f32(x: f32) -> f32 {
    x / (1.0 + (-1.702 * x).exp())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::{assert_close, tensor, values};
    use candle_core::DType;
    use proptest::prelude::*;

    type Op = fn(&Tensor) -> Result<Tensor>;

    proptest! {
        #[test]
        fn the_loops_match_the_composed_references(x in prop::collection::vec(-30f32..30.0, 1..200)) {
            let x = tensor(&x, &[x.len()]);
            let pairs: [(Op, Op); 3] =
                [(silu, Tensor::silu), (gelu_erf, Tensor::gelu_erf), (quick_gelu, composed_quick_gelu)];
            for (op, composed) in pairs {
                assert_close(&op(&x).unwrap(), &composed(&x).unwrap(), 4e-6);
            }
        }
    }

    #[test]
    fn known_values() {
        let x = tensor(&[-1.0, 0.0, 1.0], &[3]);
        assert_close(&silu(&x).unwrap(), &tensor(&[-0.268_941_42, 0.0, 0.731_058_6], &[3]), 1e-7);
        assert_close(&gelu_erf(&x).unwrap(), &tensor(&[-0.158_655_26, 0.0, 0.841_344_7], &[3]), 1e-7);
        assert_close(&quick_gelu(&x).unwrap(), &tensor(&[-0.154_204_23, 0.0, 0.845_795_8], &[3]), 1e-7);
    }

    #[test]
    fn half_formats_are_rounded_once() {
        let x = tensor(&[-3.0, -0.5, 0.25, 2.0], &[4]);
        for dtype in [DType::F16, DType::BF16] {
            let half = x.to_dtype(dtype).unwrap();
            let expected = gelu_erf(&half.to_dtype(DType::F32).unwrap()).unwrap().to_dtype(dtype).unwrap();
            assert_eq!(values(&gelu_erf(&half).unwrap()), values(&expected));
        }
    }

    #[test]
    fn a_strided_tensor_is_read_in_its_own_order() {
        let x = tensor(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0], &[2, 3]).t().unwrap();
        assert_close(&silu(&x).unwrap(), &x.silu().unwrap(), 1e-6);
    }
}
