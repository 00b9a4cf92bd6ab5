//! What a network's output means.

use candle_core::Tensor;

use super::SchedulerConfig;
use super::arith::{divided, weighted};
use crate::Result;

/// What the network was trained to predict (`prediction_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Prediction {
    /// The noise ε.
    Epsilon,
    /// The clean sample x₀.
    Sample,
    /// The velocity v = α·ε − σ·x₀ (Salimans and Ho 2022, arXiv 2202.00512).
    Velocity,
}

impl Prediction {
    /// Any of the three.
    pub(super) fn read(config: &SchedulerConfig) -> Result<Self> {
        config.choice(
            "prediction_type",
            &[("epsilon", Self::Epsilon), ("sample", Self::Sample), ("v_prediction", Self::Velocity)],
        )
    }

    /// As Euler's, to which diffusers gives `sample` a second name.
    pub(super) fn read_with_original_sample(config: &SchedulerConfig) -> Result<Self> {
        config.choice(
            "prediction_type",
            &[
                ("epsilon", Self::Epsilon),
                ("sample", Self::Sample),
                ("original_sample", Self::Sample),
                ("v_prediction", Self::Velocity),
            ],
        )
    }

    /// For the schedulers that diffusers gives no `sample` prediction.
    pub(super) fn read_without_sample(config: &SchedulerConfig) -> Result<Self> {
        config.choice("prediction_type", &[("epsilon", Self::Epsilon), ("v_prediction", Self::Velocity)])
    }

    /// x₀ from the network's output at `sample = α·x₀ + σ·ε`.
    pub(super) fn original(self, output: &Tensor, sample: &Tensor, alpha: f32, sigma: f32) -> Result<Tensor> {
        match self {
            Prediction::Epsilon => divided(&weighted((1.0, sample), &[(-sigma, output)])?, alpha),
            Prediction::Sample => Ok(output.clone()),
            Prediction::Velocity => weighted((alpha, sample), &[(-sigma, output)]),
        }
    }

    /// ε from the network's output at `sample = α·x₀ + σ·ε`.
    pub(super) fn noise(self, output: &Tensor, sample: &Tensor, alpha: f32, sigma: f32) -> Result<Tensor> {
        match self {
            Prediction::Epsilon => Ok(output.clone()),
            Prediction::Sample => noise_beside(output, sample, alpha, sigma),
            Prediction::Velocity => weighted((alpha, output), &[(sigma, sample)]),
        }
    }
}

/// The ε that goes with x₀: `sample = α·x₀ + σ·ε`.
pub(super) fn noise_beside(x0: &Tensor, sample: &Tensor, alpha: f32, sigma: f32) -> Result<Tensor> {
    divided(&weighted((1.0, sample), &[(-alpha, x0)])?, sigma)
}
