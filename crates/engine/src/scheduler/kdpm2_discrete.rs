//! DPM-Solver-2 in the form of k-diffusion: Karras et al. 2022 (arXiv 2206.00364), algorithm 2 with the midpoint in
//! log σ and without noise; diffusers' `scheduling_k_dpm_2_discrete.py`.

use candle_core::Tensor;

use super::arith::{exp, ln, weighted};
use super::k_diffusion::{
    Levels, add_noise, derivative, init_noise_sigma, interleaved, scale_model_input, tail_doubled,
};
use super::prediction::Prediction;
use super::sigmas::midpoint_to_t;
use super::{Draw, Sampler, SchedulerConfig};
use crate::Result;

/// `KDPM2DiscreteScheduler`: a step goes halfway in log σ first, then the whole way with the slope found there. The last
/// step, to σ = 0, is an Euler step.
#[derive(Debug, Clone)]
pub(super) struct Kdpm2Discrete {
    prediction: Prediction,
    timesteps: Vec<f64>,
    sigmas: Vec<f32>,
    /// Between `sigmas[i − 1]` and `sigmas[i]` of the undoubled table, doubled like it.
    midpoints: Vec<f32>,
    init_noise_sigma: f64,
    /// Where the step under way began.
    begun: Option<Tensor>,
}

impl Kdpm2Discrete {
    pub(super) fn new(config: &SchedulerConfig, steps: usize) -> Result<Self> {
        let prediction = Prediction::read_without_sample(config)?;
        let levels = Levels::new(config, steps)?;
        let sigmas = levels.sigmas_to(0.0);
        let midpoint = |pair: &[f32]| {
            let (before, after) = (ln(pair[0]), ln(pair[1]));
            exp(before - (before - after) * 0.5)
        };
        let midpoints: Vec<f32> = std::iter::once(f32::NAN).chain(sigmas.windows(2).map(midpoint)).collect();
        let between: Vec<f64> = midpoints[1..levels.sigmas.len()]
            .iter()
            .map(|&sigma| midpoint_to_t(sigma, &levels.log_sigmas))
            .collect();
        Ok(Self {
            prediction,
            timesteps: interleaved(&levels.rounded_timesteps(config)?, &between),
            init_noise_sigma: init_noise_sigma(config, &sigmas)?,
            sigmas: tail_doubled(&sigmas),
            midpoints: tail_doubled(&midpoints),
            begun: None,
        })
    }
}

impl Sampler for Kdpm2Discrete {
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
        scale_model_input(sample, if self.begun.is_none() { self.sigmas[i] } else { self.midpoints[i] })
    }

    fn add_noise(&self, original: &Tensor, noise: &Tensor, i: usize) -> Result<Tensor> {
        add_noise(original, noise, self.sigmas[i])
    }

    fn step(&mut self, i: usize, output: &Tensor, sample: &Tensor, _draw: &mut Draw<'_>) -> Result<Tensor> {
        match self.begun.take() {
            None => {
                let sigma = self.sigmas[i];
                let original = self.prediction.original_at(output, sample, sigma)?;
                let slope = derivative(sample, &original, sigma)?;
                self.begun = Some(sample.clone());
                weighted((1.0, sample), &[(self.midpoints[i + 1] - sigma, &slope)])
            }
            Some(begun) => {
                let midpoint = self.midpoints[i];
                let original = self.prediction.original_at(output, sample, midpoint)?;
                let slope = derivative(sample, &original, midpoint)?;
                weighted((1.0, &begun), &[(self.sigmas[i] - self.sigmas[i - 1], &slope)])
            }
        }
    }
}
