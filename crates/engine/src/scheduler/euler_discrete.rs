//! Euler's method on the probability-flow equation: Karras et al. 2022 (arXiv 2206.00364), algorithm 2 without noise;
//! diffusers' `scheduling_euler_discrete.py`.

use candle_core::Tensor;

use super::arith::{exp, ln, weighted};
use super::k_diffusion::{Levels, add_noise, derivative, init_noise_sigma, scale_model_input};
use super::prediction::Prediction;
use super::schedule::linspace_f32;
use super::{Draw, Sampler, SchedulerConfig};
use crate::Result;

/// `EulerDiscreteScheduler`. diffusers' pipelines leave its `s_churn` at 0, so it draws no noise.
#[derive(Debug, Clone)]
pub(super) struct EulerDiscrete {
    prediction: Prediction,
    timesteps: Vec<f64>,
    sigmas: Vec<f32>,
    init_noise_sigma: f64,
}

/// `timestep_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TimestepType {
    Discrete,
    /// ¼ log σ, for networks with `v_prediction`; for the others the same as `Discrete`.
    Continuous,
}

impl EulerDiscrete {
    pub(super) fn new(config: &SchedulerConfig, steps: usize) -> Result<Self> {
        let prediction = Prediction::read_with_original_sample(config)?;
        let mut levels = Levels::new(config, steps)?;
        let log_linear = config.choice("interpolation_type", &[("linear", false), ("log_linear", true)])?;
        if log_linear {
            // One σ more than there are timesteps, which Karras and the others space anew.
            let (low, high) = (levels.log_sigmas[0], levels.log_sigmas[levels.log_sigmas.len() - 1]);
            levels.sigmas =
                linspace_f32(high, low, steps + 1).into_iter().map(|log| f64::from(exp(log))).collect();
            levels.respace(config, steps)?;
        }
        let last = config.choice("final_sigmas_type", &[("zero", 0.0), ("sigma_min", levels.lowest)])?;
        let sigmas = levels.sigmas_to(last);
        let continuous = config.choice(
            "timestep_type",
            &[("discrete", TimestepType::Discrete), ("continuous", TimestepType::Continuous)],
        )? == TimestepType::Continuous;
        let timesteps = if continuous && prediction == Prediction::Velocity {
            sigmas.iter().take(sigmas.len() - 1).map(|&sigma| f64::from(0.25 * ln(sigma))).collect()
        } else {
            levels.timesteps.iter().map(|&t| f64::from(t as f32)).collect()
        };
        Ok(Self { prediction, timesteps, init_noise_sigma: init_noise_sigma(config, &sigmas)?, sigmas })
    }
}

impl Sampler for EulerDiscrete {
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
        let (sigma, next) = (self.sigmas[i], self.sigmas[i + 1]);
        let original = self.prediction.original_at(output, sample, sigma)?;
        let slope = derivative(sample, &original, sigma)?;
        weighted((1.0, sample), &[(next - sigma, &slope)])
    }
}
