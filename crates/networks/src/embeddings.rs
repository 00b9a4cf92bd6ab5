//! How a number, such as a timestep, becomes a vector.

use candle_core::{D, DType, Tensor};

use crate::Result;
use crate::layers::Linear;
use crate::weights::Weights;

/// The longest wavelength of the sinusoids, over 2 pi.
const MAX_PERIOD: f32 = 10_000.0;

/// Sinusoids of each value: `values` (N) to (N, `dim`), always in `f32`.
///
/// In a half format the product of a timestep with the first frequency would already be off by a whole radian. The
/// mathematics is that of "Attention is all you need" (arXiv 1706.03762), section 3.5, as diffusers arranges it
/// (`embeddings.py`, `get_timestep_embedding`): all sines, then all cosines, or the other way round if
/// `flip_sin_to_cos`; an odd `dim` ends in a zero.
pub fn sinusoids(values: &Tensor, dim: usize, flip_sin_to_cos: bool, freq_shift: f64) -> Result<Tensor> {
    let half = dim / 2;
    let steps = half as f32 - freq_shift as f32;
    let frequencies: Vec<f32> = (0..half).map(|i| (-MAX_PERIOD.ln() * i as f32 / steps).exp()).collect();
    let frequencies = Tensor::from_vec(frequencies, (1, half), values.device())?;
    let angles = values.to_dtype(DType::F32)?.reshape(((), 1))?.broadcast_mul(&frequencies)?;
    let (sin, cos) = (angles.sin()?, angles.cos()?);
    let out = if flip_sin_to_cos { Tensor::cat(&[cos, sin], 1)? } else { Tensor::cat(&[sin, cos], 1)? };
    Ok(out.pad_with_zeros(D::Minus1, 0, dim % 2)?)
}

/// Two fully connected layers with SiLU between (diffusers: `embeddings.py`, `TimestepEmbedding`).
pub struct TimestepEmbedding {
    linear_1: Linear,
    linear_2: Linear,
}

impl TimestepEmbedding {
    /// Reads `linear_1` (`width`, `inputs`) and `linear_2` (`width`, `width`).
    pub fn new(inputs: usize, width: usize, w: &Weights) -> Result<Self> {
        Ok(Self {
            linear_1: Linear::new(inputs, width, true, &w.sub("linear_1"))?,
            linear_2: Linear::new(width, width, true, &w.sub("linear_2"))?,
        })
    }

    /// `x` (B, inputs) to (B, width).
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.linear_2.forward(&infill_kernels::silu(&self.linear_1.forward(x)?)?)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use candle_core::Device;

    fn row(dim: usize, flip: bool, shift: f64) -> Vec<f32> {
        let t = Tensor::new(&[981f32], &Device::Cpu).unwrap();
        sinusoids(&t, dim, flip, shift).unwrap().flatten_all().unwrap().to_vec1().unwrap()
    }

    fn assert_near(actual: &[f32], expected: &[f64]) {
        assert_eq!(actual.len(), expected.len());
        for (a, e) in actual.iter().zip(expected) {
            assert!((f64::from(*a) - e).abs() < 1e-4, "{actual:?}, expected {expected:?}");
        }
    }

    #[test]
    fn the_order_the_shift_and_the_odd_end() {
        let (first, second) = (981f64, 981f64 * 1e-2);
        assert_near(&row(4, false, 0.0), &[first.sin(), second.sin(), first.cos(), second.cos()]);
        assert_near(&row(4, true, 0.0), &[first.cos(), second.cos(), first.sin(), second.sin()]);
        assert_near(&row(5, true, 1.0), &[first.cos(), 0.0981f64.cos(), first.sin(), 0.0981f64.sin(), 0.0]);
    }
}
