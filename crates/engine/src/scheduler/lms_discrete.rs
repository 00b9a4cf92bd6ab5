//! The linear multistep method of Adams and Bashforth on the probability-flow equation, from k-diffusion; diffusers'
//! `scheduling_lms_discrete.py`.

use std::collections::VecDeque;

use candle_core::Tensor;

use super::arith::weighted;
use super::k_diffusion::{Levels, add_noise, derivative, init_noise_sigma, scale_model_input};
use super::prediction::Prediction;
use super::{Draw, Sampler, SchedulerConfig};
use crate::Result;

/// How many slopes a step looks back on, its own included.
const ORDER: usize = 4;

/// `LMSDiscreteScheduler`: integrates the polynomial through the latest slopes.
#[derive(Debug, Clone)]
pub(super) struct LmsDiscrete {
    prediction: Prediction,
    timesteps: Vec<f64>,
    sigmas: Vec<f32>,
    init_noise_sigma: f64,
    /// The latest first.
    slopes: VecDeque<Tensor>,
}

impl LmsDiscrete {
    pub(super) fn new(config: &SchedulerConfig, steps: usize) -> Result<Self> {
        let prediction = Prediction::read(config)?;
        let levels = Levels::new(config, steps)?;
        let sigmas = levels.sigmas_to(0.0);
        let timesteps = levels.timesteps.iter().map(|&t| f64::from(t as f32)).collect();
        let init_noise_sigma = init_noise_sigma(config, &sigmas)?;
        Ok(Self { prediction, timesteps, sigmas, init_noise_sigma, slopes: VecDeque::new() })
    }

    /// The weight of the slope of step `i − back` in step `i` of order `order`: the integral, over the step, of the
    /// Lagrange polynomial that is 1 at its σ and 0 at those of the others.
    fn weight(&self, order: usize, i: usize, back: usize) -> f32 {
        let own = f64::from(self.sigmas[i - back]);
        let others: Vec<f64> =
            (0..order).filter(|&k| k != back).map(|k| f64::from(self.sigmas[i - k])).collect();
        let polynomial = |x: f64| others.iter().map(|other| (x - other) / (own - other)).product::<f64>();
        // Simpson's rule is exact for cubics.
        let (from, to) = (f64::from(self.sigmas[i]), f64::from(self.sigmas[i + 1]));
        let sum = polynomial(from) + 4.0 * polynomial((from + to) / 2.0) + polynomial(to);
        ((to - from) / 6.0 * sum) as f32
    }
}

impl Sampler for LmsDiscrete {
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

    fn step(&mut self, i: usize, output: &Tensor, sample: &Tensor, _draw: &mut Draw<'_>) -> Result<Tensor> {
        let sigma = self.sigmas[i];
        let original = self.prediction.original_at(output, sample, sigma)?;
        self.slopes.truncate(ORDER - 1);
        self.slopes.push_front(derivative(sample, &original, sigma)?);
        // In a run that starts in the middle diffusers takes the full order from the first step on, and leaves out the
        // terms whose slopes are missing.
        let order = ORDER.min(i + 1);
        let terms: Vec<(f32, &Tensor)> =
            self.slopes.iter().take(order).enumerate().map(|(k, d)| (self.weight(order, i, k), d)).collect();
        let move_by = weighted(terms[0], &terms[1..])?;
        Ok((sample + move_by)?)
    }
}
