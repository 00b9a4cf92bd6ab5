//! What a network's output means, and how the x₀ that it implies is kept within bounds.

use super::SchedulerConfig;
use crate::Result;

/// What the network was trained to predict (`prediction_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Prediction {
    /// The noise ε.
    Epsilon,
    /// The clean sample x₀.
    Sample,
    /// The velocity v = α·ε − σ·x₀ (Salimans and Ho 2022, arXiv 2202.00512).
    VPrediction,
}

impl Prediction {
    /// Any of the three.
    pub(super) fn read(config: &SchedulerConfig) -> Result<Self> {
        config.choice(
            "prediction_type",
            &[("epsilon", Self::Epsilon), ("sample", Self::Sample), ("v_prediction", Self::VPrediction)],
        )
    }

    /// For the schedulers that diffusers gives no `sample` prediction.
    pub(super) fn read_without_sample(config: &SchedulerConfig) -> Result<Self> {
        config.choice("prediction_type", &[("epsilon", Self::Epsilon), ("v_prediction", Self::VPrediction)])
    }
}
