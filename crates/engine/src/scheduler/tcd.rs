//! Trajectory consistency distillation (Zheng et al. 2024, arXiv 2402.19159); diffusers' `scheduling_tcd.py`.

use candle_core::Tensor;

use super::alphas::AlphasCumprod;
use super::arith::weighted;
use super::prediction::Prediction;
use super::timesteps::distilled_timesteps;
use super::{Draw, Sampler, SchedulerConfig};
use crate::Result;

/// `TCDScheduler`: strategic stochastic sampling, which goes down to an earlier timestep s and noises back up.
#[derive(Debug, Clone)]
pub(super) struct Tcd {
    alphas: AlphasCumprod,
    prediction: Prediction,
    timesteps: Vec<f64>,
    /// The paper's γ: 0 is deterministic, 1 fully stochastic.
    eta: f64,
}

impl Tcd {
    /// Plans `steps` steps with γ = `eta`. Clipping and thresholding are keys of the class, but no step uses them.
    pub(super) fn new(config: &SchedulerConfig, steps: usize, eta: f64) -> Result<Self> {
        Ok(Self {
            alphas: AlphasCumprod::read(config)?,
            prediction: Prediction::read(config)?,
            timesteps: distilled_timesteps(config, steps)?,
            eta,
        })
    }
}

impl Sampler for Tcd {
    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn add_noise(&self, original: &Tensor, noise: &Tensor, i: usize) -> Result<Tensor> {
        self.alphas.add_noise(original, noise, self.timesteps[i] as i64)
    }

    /// One step from `timesteps[i]`. Draws noise once if `eta` is above 0, but none in the last step.
    fn step(&mut self, i: usize, output: &Tensor, sample: &Tensor, draw: &mut Draw<'_>) -> Result<Tensor> {
        let alpha_t = self.alphas.at(self.timesteps[i] as i64)?;
        let next = self.timesteps.get(i + 1).copied();
        let s = ((1.0 - self.eta) as f32 * next.unwrap_or(0.0) as f32).floor() as i64;
        let alpha_s = self.alphas.at(s)?;

        let (a, b) = (alpha_t.sqrt(), (1.0 - alpha_t).sqrt());
        let x0 = self.prediction.original(output, sample, a, b)?;
        let epsilon = self.prediction.noise(output, sample, a, b)?;
        let noised = weighted((alpha_s.sqrt(), &x0), &[((1.0 - alpha_s).sqrt(), &epsilon)])?;
        let Some(next) = next.filter(|_| self.eta > 0.0) else { return Ok(noised) };

        let ratio = self.alphas.before(next as i64)? / alpha_s;
        weighted((ratio.sqrt(), &noised), &[((1.0 - ratio).sqrt(), &draw(sample.dims())?)])
    }
}
