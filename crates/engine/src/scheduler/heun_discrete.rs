//! Heun's method on the probability-flow equation: Karras et al. 2022 (arXiv 2206.00364), algorithm 1; diffusers'
//! `scheduling_heun_discrete.py`.

use candle_core::Tensor;

use super::arith::weighted;
use super::k_diffusion::{
    Levels, add_noise, derivative, doubled, init_noise_sigma, inner_doubled, scale_model_input,
};
use super::prediction::Prediction;
use super::{Draw, Sampler, SchedulerConfig};
use crate::Result;

/// `HeunDiscreteScheduler`: an Euler step to the next σ, then one from where it began with the mean of the slopes at
/// both ends. The last step, to σ = 0, is an Euler step.
#[derive(Debug, Clone)]
pub(super) struct HeunDiscrete {
    prediction: Prediction,
    /// `clip_sample_range` if `clip_sample`.
    clip: Option<f64>,
    timesteps: Vec<f64>,
    sigmas: Vec<f32>,
    init_noise_sigma: f64,
    /// Between the two halves of a step.
    begun: Option<Begun>,
}

/// The first half of a step.
#[derive(Debug, Clone)]
struct Begun {
    sample: Tensor,
    slope: Tensor,
    dt: f32,
}

impl HeunDiscrete {
    pub(super) fn new(config: &SchedulerConfig, steps: usize) -> Result<Self> {
        let prediction = Prediction::read(config)?;
        let clip = config.flag("clip_sample")?.then(|| config.number("clip_sample_range")).transpose()?;
        let levels = Levels::new(config, steps)?;
        let sigmas = inner_doubled(&levels.sigmas_to(0.0));
        let timesteps = doubled(&levels.timesteps).into_iter().map(|t| f64::from(t as f32)).collect();
        let init_noise_sigma = init_noise_sigma(config, &sigmas)?;
        Ok(Self { prediction, clip, timesteps, sigmas, init_noise_sigma, begun: None })
    }
}

impl Sampler for HeunDiscrete {
    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn sigmas(&self) -> &[f32] {
        &self.sigmas
    }

    fn order(&self) -> usize {
        2
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

    fn step(&mut self, i: usize, output: &Tensor, sample: &Tensor, _draw: &mut Draw<'_>) -> Result<Tensor> {
        // The two halves meet at the same σ: the table has it twice.
        let sigma = self.sigmas[i];
        let mut original = self.prediction.original_at(output, sample, sigma)?;
        if let Some(range) = self.clip {
            original = original.clamp(-range, range)?;
        }
        let slope = derivative(sample, &original, sigma)?;
        match self.begun.take() {
            None => {
                let dt = self.sigmas[i + 1] - sigma;
                let prev = weighted((1.0, sample), &[(dt, &slope)])?;
                self.begun = Some(Begun { sample: sample.clone(), slope, dt });
                Ok(prev)
            }
            Some(begun) => {
                let mean = ((begun.slope + slope)? * 0.5)?;
                weighted((1.0, &begun.sample), &[(begun.dt, &mean)])
            }
        }
    }
}
