//! Denoising diffusion implicit models (Song, Meng and Ermon 2020, arXiv 2010.02502); diffusers'
//! `scheduling_ddim.py`.

use candle_core::Tensor;

use super::alphas::AlphasCumprod;
use super::arith::{scaled, weighted};
use super::bounds::Bounds;
use super::prediction::Prediction;
use super::schedule::train_timesteps;
use super::timesteps::alpha_timesteps;
use super::{Draw, Sampler, SchedulerConfig};
use crate::Result;

/// `DDIMScheduler`: a deterministic step, or with `eta` above 0 one with noise of that share of DDPM's.
#[derive(Debug, Clone)]
pub(super) struct Ddim {
    alphas: AlphasCumprod,
    prediction: Prediction,
    bounds: Bounds,
    timesteps: Vec<f64>,
    /// How far a step goes in training timesteps, whatever the spacing.
    stride: i64,
    eta: f32,
}

impl Ddim {
    /// Plans `steps` steps.
    pub(super) fn new(config: &SchedulerConfig, steps: usize, eta: f64) -> Result<Self> {
        let train = train_timesteps(config)?;
        let timesteps = alpha_timesteps(config, steps)?;
        Ok(Self {
            alphas: AlphasCumprod::read(config)?,
            prediction: Prediction::read(config)?,
            bounds: Bounds::read(config)?,
            timesteps,
            stride: (train / steps) as i64,
            eta: eta as f32,
        })
    }
}

impl Sampler for Ddim {
    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn add_noise(&self, original: &Tensor, noise: &Tensor, i: usize) -> Result<Tensor> {
        self.alphas.add_noise(original, noise, self.timesteps[i] as i64)
    }

    /// One step from `timesteps[i]`. Draws noise once if `eta` is above 0.
    fn step(&mut self, i: usize, output: &Tensor, sample: &Tensor, draw: &mut Draw<'_>) -> Result<Tensor> {
        let t = self.timesteps[i] as i64;
        let alpha_t = self.alphas.at(t)?;
        let alpha_prev = self.alphas.before(t - self.stride)?;
        let (beta_t, beta_prev) = (1.0 - alpha_t, 1.0 - alpha_prev);

        // Formula (12): x₀ as predicted, the direction pointing to x_t, and noise of variance σ² (formula (16)).
        let (a, s) = (alpha_t.sqrt(), beta_t.sqrt());
        let x0 = self.bounds.apply(&self.prediction.original(output, sample, a, s)?)?;
        let epsilon = self.prediction.noise(output, sample, a, s)?;
        let variance = (beta_prev / beta_t) * (1.0 - alpha_t / alpha_prev);
        let std_dev = self.eta * variance.sqrt();
        let direction = scaled(&epsilon, (1.0 - alpha_prev - std_dev * std_dev).sqrt())?;
        let prev = weighted((alpha_prev.sqrt(), &x0), &[(1.0, &direction)])?;
        if self.eta > 0.0 { weighted((1.0, &prev), &[(std_dev, &draw(sample.dims())?)]) } else { Ok(prev) }
    }
}
