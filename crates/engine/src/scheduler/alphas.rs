//! The table of ᾱ over the training timesteps, for the schedulers that step on it directly.

use candle_core::Tensor;

use super::SchedulerConfig;
use super::arith::weighted;
use super::schedule::alphas_cumprod;
use crate::{Error, Result};

/// `alphas_cumprod`: the share of signal, ᾱ(t), at every training timestep.
#[derive(Debug, Clone)]
pub(super) struct AlphasCumprod {
    table: Vec<f32>,
    /// ᾱ before the first timestep (`final_alpha_cumprod`).
    last: f32,
}

impl AlphasCumprod {
    /// Of a scheduler with `set_alpha_to_one`: whether its last step goes to a clean sample, or only to ᾱ(0).
    pub(super) fn read(config: &SchedulerConfig) -> Result<Self> {
        let to_one = config.flag("set_alpha_to_one")?;
        let mut this = Self::to_one(config)?;
        if let (false, Some(&first)) = (to_one, this.table.first()) {
            this.last = first;
        }
        Ok(this)
    }

    /// Of a scheduler whose last step always goes to a clean sample.
    pub(super) fn to_one(config: &SchedulerConfig) -> Result<Self> {
        Ok(Self { table: alphas_cumprod(config)?, last: 1.0 })
    }

    /// ᾱ(t). Negative timesteps count from the end, as Python's indices do: with "trailing" spacing rounding makes
    /// diffusers end some schedules (61 steps of 1000, for example) on a surplus timestep −1.
    pub(super) fn at(&self, t: i64) -> Result<f32> {
        let index = if t < 0 { t + self.table.len() as i64 } else { t };
        usize::try_from(index).ok().and_then(|i| self.table.get(i)).copied().ok_or_else(|| Error::Refused {
            field: "timestep",
            value: t.to_string(),
            allowed: format!("below num_train_timesteps, {}", self.table.len()),
        })
    }

    /// ᾱ at the timestep that a step goes to, which may lie before the first.
    pub(super) fn before(&self, t: i64) -> Result<f32> {
        if t >= 0 { self.at(t) } else { Ok(self.last) }
    }

    /// `√ᾱ(t) · original + √(1 − ᾱ(t)) · noise`.
    pub(super) fn add_noise(&self, original: &Tensor, noise: &Tensor, t: i64) -> Result<Tensor> {
        let alpha = self.at(t)?;
        weighted((alpha.sqrt(), original), &[((1.0 - alpha).sqrt(), noise)])
    }
}
