//! How far the predicted x₀ may go: clipping and dynamic thresholding.

use candle_core::Tensor;

use super::SchedulerConfig;
use crate::Result;

/// How far the predicted x₀ may go.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Bounds {
    /// Anywhere.
    None,
    /// `clip_sample`: into ±`clip_sample_range`.
    Clip(f64),
    /// Dynamic thresholding (Saharia et al. 2022, arXiv 2205.11487): each image into ± its own quantile of |x₀|,
    /// then divided by it.
    Threshold {
        /// `dynamic_thresholding_ratio`, the quantile.
        ratio: f64,
        /// `sample_max_value`, the highest threshold.
        max: f64,
    },
}

impl Bounds {
    /// Of a scheduler that may threshold or, if it does not, clip.
    pub(super) fn read(config: &SchedulerConfig) -> Result<Self> {
        match Self::read_threshold(config)? {
            Bounds::None if config.flag("clip_sample")? => {
                Ok(Bounds::Clip(config.number("clip_sample_range")?))
            }
            bounds => Ok(bounds),
        }
    }

    /// Of a scheduler that may threshold and never clips.
    pub(super) fn read_threshold(config: &SchedulerConfig) -> Result<Self> {
        if !config.flag("thresholding")? {
            return Ok(Bounds::None);
        }
        Ok(Bounds::Threshold {
            ratio: config.number("dynamic_thresholding_ratio")?,
            max: config.number("sample_max_value")?,
        })
    }

    /// `x0` (B,C,h,w) within these bounds.
    pub(super) fn apply(self, x0: &Tensor) -> Result<Tensor> {
        match self {
            Bounds::None => Ok(x0.clone()),
            Bounds::Clip(range) => Ok(x0.clamp(-range, range)?),
            Bounds::Threshold { ratio, max } => {
                let thresholds: Vec<f32> = x0
                    .flatten_from(1)?
                    .abs()?
                    .to_vec2::<f32>()?
                    .into_iter()
                    .map(|image| quantile(image, ratio as f32).max(1.0).min(max as f32))
                    .collect();
                let mut shape = vec![1; x0.rank()];
                shape[0] = thresholds.len();
                let s = Tensor::from_vec(thresholds, shape, x0.device())?;
                Ok(x0.broadcast_maximum(&s.neg()?)?.broadcast_minimum(&s)?.broadcast_div(&s)?)
            }
        }
    }
}

/// The `q`-quantile with linear interpolation, as `torch.quantile`.
fn quantile(mut values: Vec<f32>, q: f32) -> f32 {
    values.sort_by(f32::total_cmp);
    let last = values.len().saturating_sub(1);
    let rank = q * last as f32;
    let below = values.get((rank.floor() as usize).min(last)).copied().unwrap_or(0.0);
    let above = values.get((rank.ceil() as usize).min(last)).copied().unwrap_or(0.0);
    let weight = rank - rank.floor();
    if weight < 0.5 { below + weight * (above - below) } else { above - (above - below) * (1.0 - weight) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against `torch.quantile`.
    #[test]
    fn quantiles_are_torchs() {
        for (q, expected) in [(0.0, 0.5), (0.8, 3.8), (0.995, 6.92), (1.0, 7.0)] {
            let got = quantile(vec![3.0, 1.0, 0.5, 2.0, 7.0], q);
            assert!((got - expected).abs() < 1e-6, "q = {q}: {got} against {expected}");
        }
    }
}
