//! Which training timesteps a run visits, for the schedulers that take whole ones.

use super::SchedulerConfig;
use super::schedule::{TimestepSpacing, linspace, trailing, train_timesteps};
use crate::{Error, Result};

/// The descending timesteps of DDIM, DDPM and PNDM.
pub(super) fn alpha_timesteps(config: &SchedulerConfig, steps: usize) -> Result<Vec<f64>> {
    let train = train_timesteps(config)?;
    if steps > train {
        return Err(too_many(steps, "num_train_timesteps", train));
    }
    Ok(match TimestepSpacing::read(config)? {
        TimestepSpacing::Linspace => rounded(linspace(0.0, train as f64 - 1.0, steps)).rev().collect(),
        TimestepSpacing::Leading => {
            let (stride, offset) = (train / steps, config.number("steps_offset")?);
            (0..steps).rev().map(|i| (i * stride) as f64 + offset).collect()
        }
        TimestepSpacing::Trailing => trailing(train, train, steps),
    })
}

/// The descending timesteps of the multistep solvers, which leave out the lowest of `steps + 1`. They begin below
/// `end`: lower than the number of training timesteps where `lambda_min_clipped` cuts some off.
pub(super) fn solver_timesteps(config: &SchedulerConfig, end: usize, steps: usize) -> Result<Vec<f64>> {
    Ok(match TimestepSpacing::read(config)? {
        TimestepSpacing::Linspace => solver_linspace(end, steps),
        TimestepSpacing::Leading => {
            let (stride, offset) = (end / (steps + 1), config.number("steps_offset")?);
            (1..=steps).rev().map(|i| (i * stride) as f64 + offset).collect()
        }
        TimestepSpacing::Trailing => trailing(train_timesteps(config)?, end, steps),
    })
}

/// The evenly spaced ones of them.
pub(super) fn solver_linspace(end: usize, steps: usize) -> Vec<f64> {
    rounded(linspace(0.0, end as f64 - 1.0, steps + 1)).skip(1).rev().collect()
}

/// The descending timesteps of LCM and TCD: `steps` of the `original_inference_steps` that the network was distilled
/// on.
pub(super) fn distilled_timesteps(config: &SchedulerConfig, steps: usize) -> Result<Vec<f64>> {
    let (train, original) = (train_timesteps(config)?, config.count("original_inference_steps")?);
    if original == 0 || original > train {
        return Err(Error::Refused {
            field: "original_inference_steps",
            value: original.to_string(),
            allowed: format!("1 to num_train_timesteps, {train}"),
        });
    }
    if steps > original {
        return Err(too_many(steps, "original_inference_steps", original));
    }
    let (stride, gap) = ((train / original) as f64, original as f64 / steps as f64);
    Ok((0..steps).map(|i| (original as f64 - (i as f64 * gap).floor()) * stride - 1.0).collect())
}

fn rounded(timesteps: Vec<f64>) -> impl DoubleEndedIterator<Item = f64> + ExactSizeIterator {
    timesteps.into_iter().map(f64::round_ties_even)
}

fn too_many(steps: usize, key: &str, most: usize) -> Error {
    let allowed = format!("1 to {most}, the scheduler's {key}");
    Error::Refused { field: "steps", value: steps.to_string(), allowed }
}
