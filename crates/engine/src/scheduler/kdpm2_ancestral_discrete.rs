//! DPM-Solver-2 with noise put back after every step ("ancestral" sampling), from k-diffusion; diffusers'
//! `scheduling_k_dpm_2_ancestral_discrete.py`.

use candle_core::Tensor;

use super::arith::{exp, ln, weighted};
use super::k_diffusion::{
    Ancestral, Levels, add_noise, derivative, init_noise_sigma, interleaved, scale_model_input, tail_doubled,
};
use super::prediction::Prediction;
use super::sigmas::midpoint_to_t;
use super::{Draw, Sampler, SchedulerConfig};
use crate::Result;

/// `KDPM2AncestralDiscreteScheduler`: a step goes halfway in log σ first, then with the slope found there down to below
/// the next σ, and noise brings it up again. The last step, to σ = 0, is an Euler step. Noise is drawn once in every
/// second half.
#[derive(Debug, Clone)]
pub(super) struct Kdpm2AncestralDiscrete {
    prediction: Prediction,
    timesteps: Vec<f64>,
    sigmas: Vec<f32>,
    /// For every inference step, where it turns: halfway to where it goes down to, 0 in the last.
    midpoints: Vec<f32>,
    init_noise_sigma: f64,
    /// Where the step under way began.
    begun: Option<Tensor>,
}

impl Kdpm2AncestralDiscrete {
    pub(super) fn new(config: &SchedulerConfig, steps: usize) -> Result<Self> {
        let prediction = Prediction::read_without_sample(config)?;
        let levels = Levels::new(config, steps)?;
        let sigmas = levels.sigmas_to(0.0);
        let midpoint = |pair: &[f32]| {
            let (from, to) = (ln(pair[0]), ln(Ancestral::between(pair[0], pair[1]).down));
            exp(to - (to - from) * 0.5)
        };
        let mut midpoints: Vec<f32> = sigmas.windows(2).take(levels.sigmas.len() - 1).map(midpoint).collect();
        let between: Vec<f64> =
            midpoints.iter().map(|&sigma| midpoint_to_t(sigma, &levels.log_sigmas)).collect();
        midpoints.push(0.0);
        Ok(Self {
            prediction,
            timesteps: interleaved(&levels.rounded_timesteps(config)?, &between),
            init_noise_sigma: init_noise_sigma(config, &sigmas)?,
            sigmas: tail_doubled(&sigmas),
            midpoints,
            begun: None,
        })
    }
}

impl Sampler for Kdpm2AncestralDiscrete {
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
        scale_model_input(sample, if self.begun.is_none() { self.sigmas[i] } else { self.midpoints[i / 2] })
    }

    fn add_noise(&self, original: &Tensor, noise: &Tensor, i: usize) -> Result<Tensor> {
        add_noise(original, noise, self.sigmas[i])
    }

    fn step(&mut self, i: usize, output: &Tensor, sample: &Tensor, draw: &mut Draw<'_>) -> Result<Tensor> {
        let midpoint = self.midpoints[i / 2];
        match self.begun.take() {
            None => {
                let sigma = self.sigmas[i];
                let original = self.prediction.original_at(output, sample, sigma)?;
                let slope = derivative(sample, &original, sigma)?;
                self.begun = Some(sample.clone());
                weighted((1.0, sample), &[(midpoint - sigma, &slope)])
            }
            Some(begun) => {
                let sigma = self.sigmas[i - 1];
                let Ancestral { down, up } = Ancestral::between(sigma, self.sigmas[i]);
                let original = self.prediction.original_at(output, sample, midpoint)?;
                let slope = derivative(sample, &original, midpoint)?;
                weighted((1.0, &begun), &[(down - sigma, &slope), (up, &draw(sample.dims())?)])
            }
        }
    }
}
