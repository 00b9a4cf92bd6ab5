//! How a number, such as a timestep, becomes a vector.

use candle_core::{Device, Tensor};

use crate::layers::Linear;
use crate::weights::Weights;
use crate::{Error, Result};

/// The longest wavelength of the sinusoids, over 2 pi.
const MAX_PERIOD: f32 = 10_000.0;

/// Sinusoids of each of N values: (N, `dim`), in `f32`, computed on the host.
///
/// In a half format the product of a timestep with the first frequency would already be off by a whole radian; and a
/// device's own sine may be good for small angles only, as Metal's fast one is, where the angles here go to thousands.
/// The mathematics is that of "Attention is all you need" (arXiv 1706.03762), section 3.5, as diffusers arranges it
/// (`embeddings.py`, `get_timestep_embedding`): all sines, then all cosines, or the other way round if
/// `flip_sin_to_cos`; an odd `dim` ends in a zero.
pub fn sinusoids(values: &[f32], dim: usize, flip_sin_to_cos: bool, freq_shift: f64) -> Result<Tensor> {
    let half = dim / 2;
    let steps = half as f32 - freq_shift as f32;
    let frequencies: Vec<f32> = (0..half).map(|i| (-MAX_PERIOD.ln() * i as f32 / steps).exp()).collect();
    waves(values, &frequencies, dim, flip_sin_to_cos)
}

/// The rows of [`sinusoids`], for `dim` / 2 frequencies.
fn waves(values: &[f32], frequencies: &[f32], dim: usize, flip_sin_to_cos: bool) -> Result<Tensor> {
    let half = frequencies.len();
    let mut out = vec![0f32; values.len() * dim];
    if dim > 0 {
        for (row, value) in out.chunks_exact_mut(dim).zip(values) {
            for (i, frequency) in frequencies.iter().enumerate() {
                let (sin, cos) = (value * frequency).sin_cos();
                (row[i], row[half + i]) = if flip_sin_to_cos { (cos, sin) } else { (sin, cos) };
            }
        }
    }
    Ok(Tensor::from_vec(out, (values.len(), dim), &Device::Cpu)?)
}

/// The guidance scale as a network that was distilled for it reads it: (1, `dim`), in `f32`, computed on the host.
///
/// Sinusoids of a thousand times `scale` - 1 (Meng et al. 2023, arXiv 2210.03142; diffusers:
/// `get_guidance_scale_embedding` of its pipelines).
pub fn guidance_scale_embedding(scale: f64, dim: usize) -> Result<Tensor> {
    let half = dim / 2;
    // In diffusers' order of operations: at angles of thousands the last bit of a frequency is seen in the fourth digit.
    let step = MAX_PERIOD.ln() / (half as f32 - 1.0);
    let frequencies: Vec<f32> = (0..half).map(|i| (i as f32 * -step).exp()).collect();
    waves(&[(scale - 1.0) as f32 * 1000.0], &frequencies, dim, false)
}

/// Two fully connected layers with SiLU between (diffusers: `embeddings.py`, `TimestepEmbedding`).
pub struct TimestepEmbedding {
    cond_proj: Option<Linear>,
    linear_1: Linear,
    linear_2: Linear,
}

impl TimestepEmbedding {
    /// Reads `linear_1` (`width`, `inputs`) and `linear_2` (`width`, `width`).
    pub fn new(inputs: usize, width: usize, w: &Weights) -> Result<Self> {
        Ok(Self {
            cond_proj: None,
            linear_1: Linear::new(inputs, width, true, &w.sub("linear_1"))?,
            linear_2: Linear::new(width, width, true, &w.sub("linear_2"))?,
        })
    }

    /// Reads `cond_proj` (`inputs`, `conditions`) as well.
    pub fn with_condition(inputs: usize, width: usize, conditions: usize, w: &Weights) -> Result<Self> {
        let cond_proj = Some(Linear::new(conditions, inputs, false, &w.sub("cond_proj"))?);
        Ok(Self { cond_proj, ..Self::new(inputs, width, w)? })
    }

    /// `x` (B, inputs) to (B, width).
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.linear_2.forward(&infill_kernels::silu(&self.linear_1.forward(x)?)?)
    }

    /// `x` (B, inputs) to (B, width), with the projected `condition` (B, conditions) added to `x`.
    ///
    /// # Errors
    ///
    /// [`Error::Tensor`] where the layer has no such projection.
    pub fn forward_with(&self, x: &Tensor, condition: &Tensor) -> Result<Tensor> {
        let Some(cond_proj) = &self.cond_proj else {
            return Err(Error::Tensor(candle_core::Error::msg(
                "there is no cond_proj to read timestep_cond",
            )));
        };
        self.forward(&(x + cond_proj.forward(condition)?)?)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn row(dim: usize, flip: bool, shift: f64) -> Vec<f32> {
        sinusoids(&[981.0], dim, flip, shift).unwrap().flatten_all().unwrap().to_vec1().unwrap()
    }

    fn assert_near(actual: &[f32], expected: &[f64]) {
        assert_eq!(actual.len(), expected.len());
        for (a, e) in actual.iter().zip(expected) {
            assert!((f64::from(*a) - e).abs() < 1e-4, "{actual:?}, expected {expected:?}");
        }
    }

    #[test]
    fn every_value_has_its_row_and_large_angles_their_digits() {
        let rows = sinusoids(&[1024.0, 4096.0, 0.0], 2, true, 0.0).unwrap().to_vec2::<f32>().unwrap();
        for (row, angle) in rows.iter().zip([1024f64, 4096.0, 0.0]) {
            assert!(
                (f64::from(row[0]) - angle.cos()).abs() < 1e-6
                    && (f64::from(row[1]) - angle.sin()).abs() < 1e-6
            );
        }
    }

    /// diffusers' `get_guidance_scale_embedding(torch.tensor([7.5 - 1]), 6)`.
    #[test]
    fn the_guidance_scale_is_read_as_diffusers_reads_it() {
        let row = guidance_scale_embedding(7.5, 6).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_near(&row, &[-0.0448, 0.8268, 0.6052, -0.9990, -0.5625, 0.7961]);
    }

    #[test]
    fn the_order_the_shift_and_the_odd_end() {
        let (first, second) = (981f64, 981f64 * 1e-2);
        assert_near(&row(4, false, 0.0), &[first.sin(), second.sin(), first.cos(), second.cos()]);
        assert_near(&row(4, true, 0.0), &[first.cos(), second.cos(), first.sin(), second.sin()]);
        assert_near(&row(5, true, 1.0), &[first.cos(), 0.0981f64.cos(), first.sin(), 0.0981f64.sin(), 0.0]);
    }
}
