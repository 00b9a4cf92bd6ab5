//! What the schedulers share that carry a sample as `x₀ + σ·ε`, as k-diffusion does.

use candle_core::Tensor;

use super::arith::{divided, scaled, weighted};
use super::prediction::Prediction;
use super::schedule::{TimestepSpacing, alphas_cumprod_above_zero, linspace, trailing, train_timesteps};
use super::sigmas::{SigmaSpacing, interpolate, log_sigmas, sigma_to_t, training_sigmas};
use super::{SchedulerConfig, SchedulerKind};
use crate::Result;

/// The noise levels of a run before an algorithm doubles or interleaves them.
#[derive(Debug, Clone)]
pub(super) struct Levels {
    /// Descending; fractional where the σ are spaced by themselves.
    pub(super) timesteps: Vec<f64>,
    /// σ at each of `timesteps`.
    pub(super) sigmas: Vec<f64>,
    /// log σ at every training timestep.
    pub(super) log_sigmas: Vec<f32>,
    /// σ at the first training timestep, the least noisy.
    pub(super) lowest: f32,
}

impl Levels {
    /// The levels for `steps` inference steps.
    pub(super) fn new(config: &SchedulerConfig, steps: usize) -> Result<Self> {
        let training = training_sigmas(&alphas_cumprod_above_zero(config)?);
        let timesteps = timesteps(config, steps)?;
        let sigmas = timesteps.iter().map(|&t| interpolate(&training, t)).collect();
        let mut levels = Self { timesteps, sigmas, log_sigmas: log_sigmas(&training), lowest: training[0] };
        if config.kind() != SchedulerKind::EulerAncestralDiscrete {
            levels.respace(config, steps)?;
        }
        Ok(levels)
    }

    /// Spaces the σ as the configuration says, and puts the timesteps where they then lie.
    pub(super) fn respace(&mut self, config: &SchedulerConfig, steps: usize) -> Result<()> {
        let first = self.sigmas.first().copied().unwrap_or(0.0);
        let last = self.sigmas.last().copied().unwrap_or(0.0);
        let spacing = SigmaSpacing::read(config)?;
        // LMS and the SDE solver space by Karras between the run's own σ, whatever range is given.
        let fixed = matches!(config.kind(), SchedulerKind::LmsDiscrete | SchedulerKind::DpmSolverSde);
        let (highest, lowest) = if spacing == SigmaSpacing::Karras && fixed {
            (first, last)
        } else {
            let highest = config.optional_number("sigma_max")?.unwrap_or(first);
            (highest, config.optional_number("sigma_min")?.unwrap_or(last))
        };
        if let Some(sigmas) = spacing.between(highest, lowest, steps) {
            self.timesteps = sigmas.iter().map(|&sigma| sigma_to_t(sigma, &self.log_sigmas)).collect();
            self.sigmas = sigmas;
        }
        Ok(())
    }

    /// The σ as float32, followed by `last`, where the run ends.
    pub(super) fn sigmas_to(&self, last: f32) -> Vec<f32> {
        self.sigmas.iter().map(|&sigma| sigma as f32).chain([last]).collect()
    }

    /// The timesteps as KDPM2 has them: whole where the σ are Karras's.
    pub(super) fn rounded_timesteps(&self, config: &SchedulerConfig) -> Result<Vec<f64>> {
        let whole = SigmaSpacing::read(config)? == SigmaSpacing::Karras;
        let round = |t: f64| if whole { t.round_ties_even() } else { t };
        Ok(self.timesteps.iter().copied().map(round).collect())
    }
}

/// The training timesteps that a run of `steps` visits, descending, by `timestep_spacing` and `steps_offset`.
fn timesteps(config: &SchedulerConfig, steps: usize) -> Result<Vec<f64>> {
    let train = train_timesteps(config)?;
    Ok(match TimestepSpacing::read(config)? {
        TimestepSpacing::Linspace => {
            // The SDE solver keeps the fractions in double precision.
            let double = config.kind() == SchedulerKind::DpmSolverSde;
            let round = |t: f64| if double { t } else { f64::from(t as f32) };
            linspace(0.0, train as f64 - 1.0, steps).into_iter().rev().map(round).collect()
        }
        TimestepSpacing::Leading => {
            let offset = config.number("steps_offset")?;
            (0..steps).rev().map(|i| (i * (train / steps)) as f64 + offset).collect()
        }
        TimestepSpacing::Trailing => trailing(train, train, steps),
    })
}

/// The standard deviation of a run's first noise: the highest σ, or with "leading" spacing, which leaves out the noisiest
/// timesteps, √(σ² + 1).
pub(super) fn init_noise_sigma(config: &SchedulerConfig, sigmas: &[f32]) -> Result<f64> {
    let highest = sigmas.iter().copied().fold(0.0, f32::max);
    Ok(f64::from(match TimestepSpacing::read(config)? {
        TimestepSpacing::Linspace | TimestepSpacing::Trailing => highest,
        TimestepSpacing::Leading => (highest * highest + 1.0).sqrt(),
    }))
}

/// The network's input for `sample`: of unit variance.
pub(super) fn scale_model_input(sample: &Tensor, sigma: f32) -> Result<Tensor> {
    divided(sample, (sigma * sigma + 1.0).sqrt())
}

/// `original + σ · noise`.
pub(super) fn add_noise(original: &Tensor, noise: &Tensor, sigma: f32) -> Result<Tensor> {
    weighted((1.0, original), &[(sigma, noise)])
}

impl Prediction {
    /// x₀ from the network's output at `sample = x₀ + σ·ε`.
    pub(super) fn original_at(self, output: &Tensor, sample: &Tensor, sigma: f32) -> Result<Tensor> {
        match self {
            Prediction::Epsilon => weighted((1.0, sample), &[(-sigma, output)]),
            Prediction::Sample => Ok(output.clone()),
            Prediction::Velocity => {
                let variance = sigma * sigma + 1.0;
                Ok((scaled(output, -sigma / variance.sqrt())? + divided(sample, variance)?)?)
            }
        }
    }
}

/// dx/dσ at `sample`, towards `original`: Karras et al. 2022 (arXiv 2206.00364), equation 3.
pub(super) fn derivative(sample: &Tensor, original: &Tensor, sigma: f32) -> Result<Tensor> {
    divided(&(sample - original)?, sigma)
}

/// An ancestral step: down to a σ below the next, and as much noise as brings it up there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ancestral {
    pub(super) down: f32,
    pub(super) up: f32,
}

impl Ancestral {
    /// Of a step from one σ to another, so that the variance comes out right.
    pub(super) fn between(from: f32, to: f32) -> Self {
        let (from2, to2) = (from * from, to * to);
        let up = to.min((to2 * (from2 - to2) / from2).sqrt());
        Self { down: (to2 - up * up).sqrt(), up }
    }
}

/// The first once, and the others twice: the timesteps of a method with two halves to a step, of which the last has one.
pub(super) fn doubled(values: &[f64]) -> Vec<f64> {
    values.iter().flat_map(|&value| [value, value]).skip(1).collect()
}

/// The first and the last once, and the others twice.
pub(super) fn inner_doubled(values: &[f32]) -> Vec<f32> {
    let mut doubled = tail_doubled(values);
    doubled.truncate(2 * (values.len() - 1));
    doubled
}

/// The first once, the others twice, and the last once more.
pub(super) fn tail_doubled(values: &[f32]) -> Vec<f32> {
    let twice = values.iter().flat_map(|&value| [value, value]).skip(1);
    twice.chain(values.last().copied()).collect()
}

/// The first of `values`, then by turns `between` and the rest of `values`.
pub(super) fn interleaved(values: &[f64], between: &[f64]) -> Vec<f64> {
    let pairs = between.iter().zip(&values[1..]).flat_map(|(&a, &b)| [a, b]);
    std::iter::once(values[0]).chain(pairs).collect()
}
