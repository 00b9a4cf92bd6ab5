//! Euler's method with noise put back after every step ("ancestral" sampling), from k-diffusion; diffusers'
//! `scheduling_euler_ancestral_discrete.py`.

use candle_core::Tensor;

use super::arith::weighted;
use super::k_diffusion::{Ancestral, Levels, add_noise, derivative, init_noise_sigma, scale_model_input};
use super::prediction::Prediction;
use super::{Draw, Sampler, SchedulerConfig};
use crate::Result;

/// `EulerAncestralDiscreteScheduler`. Draws noise once in every step, also in the last, which adds none of it.
#[derive(Debug, Clone)]
pub(super) struct EulerAncestralDiscrete {
    prediction: Prediction,
    timesteps: Vec<f64>,
    sigmas: Vec<f32>,
    init_noise_sigma: f64,
}

impl EulerAncestralDiscrete {
    pub(super) fn new(config: &SchedulerConfig, steps: usize) -> Result<Self> {
        let prediction = Prediction::read_without_sample(config)?;
        let levels = Levels::new(config, steps)?;
        let sigmas = levels.sigmas_to(0.0);
        let init_noise_sigma = init_noise_sigma(config, &sigmas)?;
        Ok(Self { prediction, timesteps: levels.timesteps, sigmas, init_noise_sigma })
    }
}

impl Sampler for EulerAncestralDiscrete {
    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn sigmas(&self) -> &[f32] {
        &self.sigmas
    }

    fn init_noise_sigma(&self) -> f64 {
        self.init_noise_sigma
    }

    fn scale_model_input(&self, sample: &Tensor, i: usize) -> Result<Tensor> {
        scale_model_input(sample, self.sigmas[i])
    }

    fn add_noise(&self, original: &Tensor, noise: &Tensor, i: usize) -> Result<Tensor> {
        add_noise(original, noise, self.sigmas[i])
    }

    fn step(&mut self, i: usize, output: &Tensor, sample: &Tensor, draw: &mut Draw<'_>) -> Result<Tensor> {
        let sigma = self.sigmas[i];
        let Ancestral { down, up } = Ancestral::between(sigma, self.sigmas[i + 1]);
        let original = self.prediction.original_at(output, sample, sigma)?;
        let slope = derivative(sample, &original, sigma)?;
        weighted((1.0, sample), &[(down - sigma, &slope), (up, &draw(sample.dims())?)])
    }
}
