//! The forward process: β at every training timestep, ᾱ from it, and which of the timesteps a run visits.

use std::f64::consts::PI;

use super::{SchedulerConfig, SchedulerKind};
use crate::{Error, Result};

/// `num_train_timesteps`: how many noise levels the network was trained on.
pub(super) fn train_timesteps(config: &SchedulerConfig) -> Result<usize> {
    let key = "num_train_timesteps";
    match config.count(key)? {
        count @ 2..=1_000_000 => Ok(count),
        count => Err(Error::Refused { field: key, value: count.to_string(), allowed: "2 to 1000000".into() }),
    }
}

/// `beta_schedule`.
#[derive(Debug, Clone, Copy)]
enum BetaSchedule {
    Linear,
    ScaledLinear,
    Cosine,
    Exponential,
    Laplace,
    Sigmoid,
}

impl BetaSchedule {
    fn read(config: &SchedulerConfig) -> Result<Self> {
        let mut choices = vec![
            ("linear", Self::Linear),
            ("scaled_linear", Self::ScaledLinear),
            ("squaredcos_cap_v2", Self::Cosine),
        ];
        match config.kind() {
            SchedulerKind::HeunDiscrete => choices.push(("exp", Self::Exponential)),
            SchedulerKind::Ddpm => choices.extend([("laplace", Self::Laplace), ("sigmoid", Self::Sigmoid)]),
            _ => {}
        }
        config.choice("beta_schedule", &choices)
    }
}

/// β(t), the share of noise that the forward process adds at every training timestep.
fn betas(config: &SchedulerConfig) -> Result<Vec<f32>> {
    if let Some(betas) = config.optional_numbers("trained_betas")? {
        if betas.len() < 2 {
            return Err(Error::Refused {
                field: "trained_betas",
                value: format!("a list of {}", betas.len()),
                allowed: "2 numbers and more".into(),
            });
        }
        return Ok(betas.into_iter().map(|beta| beta as f32).collect());
    }
    let count = train_timesteps(config)?;
    let (start, end) = (config.number("beta_start")?, config.number("beta_end")?);
    Ok(match BetaSchedule::read(config)? {
        BetaSchedule::Linear => linspace_f32(start as f32, end as f32, count),
        BetaSchedule::ScaledLinear => {
            let roots = linspace_f32(start.sqrt() as f32, end.sqrt() as f32, count);
            roots.into_iter().map(|root| root * root).collect()
        }
        BetaSchedule::Cosine => {
            betas_for_alpha_bar(count, |t| ((t + 0.008) / 1.008 * PI / 2.0).cos().powi(2))
        }
        BetaSchedule::Exponential => betas_for_alpha_bar(count, |t| (-12.0 * t).exp()),
        BetaSchedule::Laplace => betas_for_alpha_bar(count, |t| {
            let side = 1f64.copysign(0.5 - t);
            let snr = (-0.5 * side * (1.0 - 2.0 * (0.5 - t).abs() + 1e-6).ln()).exp();
            (snr / (1.0 + snr)).sqrt()
        }),
        BetaSchedule::Sigmoid => {
            let sigmoid = |x: f32| (1.0 / (1.0 + (-f64::from(x)).exp())) as f32;
            let (range, start) = ((end - start) as f32, start as f32);
            linspace_f32(-6.0, 6.0, count).into_iter().map(|x| sigmoid(x) * range + start).collect()
        }
    })
}

/// The β that lead to a given ᾱ over t in 0 to 1, none above 0.999.
fn betas_for_alpha_bar(count: usize, alpha_bar: impl Fn(f64) -> f64) -> Vec<f32> {
    let at = |i: usize| alpha_bar(i as f64 / count as f64);
    (0..count).map(|i| (1.0 - at(i + 1) / at(i)).min(0.999) as f32).collect()
}

/// ᾱ(t), the share of signal left at every training timestep; with `rescale_betas_zero_snr` none at the last.
pub(super) fn alphas_cumprod(config: &SchedulerConfig) -> Result<Vec<f32>> {
    let mut betas = betas(config)?;
    let rescale = super::signature::default(config.kind(), "rescale_betas_zero_snr").is_some()
        && config.flag("rescale_betas_zero_snr")?;
    if rescale {
        betas = rescale_zero_terminal_snr(&betas);
    }
    Ok(cumulative_product(&betas))
}

/// As [`alphas_cumprod`], but of the schedulers that divide by ᾱ: where the last is rescaled to 0 it becomes 2⁻²⁴, so
/// that no σ is infinite.
pub(super) fn alphas_cumprod_above_zero(config: &SchedulerConfig) -> Result<Vec<f32>> {
    let mut alphas = alphas_cumprod(config)?;
    let rescaled = super::signature::default(config.kind(), "rescale_betas_zero_snr").is_some()
        && config.flag("rescale_betas_zero_snr")?;
    if let (true, Some(last)) = (rescaled, alphas.last_mut()) {
        *last = 2f32.powi(-24);
    }
    Ok(alphas)
}

/// Π (1 − β), multiplied in double precision.
fn cumulative_product(betas: &[f32]) -> Vec<f32> {
    let multiply = |product: &mut f64, &beta: &f32| {
        *product *= f64::from(1.0 - beta);
        Some(*product as f32)
    };
    betas.iter().scan(1.0, multiply).collect()
}

/// The β with √ᾱ shifted and stretched so that the last is 0 and the first is what it was: Lin et al. 2023
/// (arXiv 2305.08891), algorithm 1.
fn rescale_zero_terminal_snr(betas: &[f32]) -> Vec<f32> {
    let roots: Vec<f32> = cumulative_product(betas).into_iter().map(f32::sqrt).collect();
    let (Some(&first), Some(&last)) = (roots.first(), roots.last()) else {
        return Vec::new();
    };
    let stretch = first / (first - last);
    let bars: Vec<f32> =
        roots.into_iter().map(|root| (root - last) * stretch).map(|root| root * root).collect();
    let ratios = bars.windows(2).map(|pair| pair[1] / pair[0]);
    bars.iter().copied().take(1).chain(ratios).map(|alpha| 1.0 - alpha).collect()
}

/// `timestep_spacing`: Lin et al. 2023 (arXiv 2305.08891), table 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimestepSpacing {
    /// Evenly from the first to the last training timestep.
    Linspace,
    /// Multiples of a whole stride, shifted by `steps_offset`.
    Leading,
    /// From the last training timestep down by an even stride: for Lightning, Turbo and Hyper models and LoRAs.
    Trailing,
}

impl TimestepSpacing {
    /// Its key in a scheduler's configuration.
    pub const KEY: &str = "timestep_spacing";
    /// All of them, by their names there.
    pub const ALL: [(&str, Self); 3] =
        [("leading", Self::Leading), ("trailing", Self::Trailing), ("linspace", Self::Linspace)];

    /// The one of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, spacing)| *spacing)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Leading => "leading",
            Self::Trailing => "trailing",
            Self::Linspace => "linspace",
        }
    }

    /// The one that a configuration names.
    pub(super) fn read(config: &SchedulerConfig) -> Result<Self> {
        config.choice(Self::KEY, &Self::ALL)
    }
}

/// `count` numbers evenly from `start` to `stop`, as `numpy.linspace`; a single one is `start`.
pub(super) fn linspace(start: f64, stop: f64, count: usize) -> Vec<f64> {
    let step = (stop - start) / count.saturating_sub(1).max(1) as f64;
    (0..count).map(|i| if i > 0 && i + 1 == count { stop } else { i as f64 * step + start }).collect()
}

/// As `torch.linspace` in float32: counted from whichever end is nearer, each number rounded once.
pub(super) fn linspace_f32(start: f32, stop: f32, count: usize) -> Vec<f32> {
    let step = (stop - start) / count.saturating_sub(1).max(1) as f32;
    let at = |i: usize| {
        if i < count / 2 || count == 1 {
            step.mul_add(i as f32, start)
        } else {
            (-step).mul_add((count - 1 - i) as f32, stop)
        }
    };
    (0..count).map(at).collect()
}

/// The descending training timesteps of "trailing" spacing: from `end` down by `train / steps`, rounded to even, less
/// 1. Counted as `numpy.arange` does, whose rounding may give one more than `steps`.
pub(super) fn trailing(train: usize, end: usize, steps: usize) -> Vec<f64> {
    let stride = train as f64 / steps as f64;
    let start = end as f64;
    let count = (start / stride).ceil() as usize;
    let delta = (start - stride) - start;
    (0..count).map(|i| (start + i as f64 * delta).round_ties_even() - 1.0).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn rescaled_betas_leave_no_signal_at_the_end() {
        let mut config = SchedulerConfig::new(SchedulerKind::Ddim);
        let plain = alphas_cumprod(&config).unwrap();
        config.set("rescale_betas_zero_snr", json!(true)).unwrap();
        let rescaled = alphas_cumprod(&config).unwrap();
        assert_eq!((rescaled[0], rescaled[999]), (plain[0], 0.0));
    }

    #[test]
    fn trailing_ends_on_a_surplus_timestep_where_rounding_does() {
        assert_eq!(trailing(1000, 1000, 4), [999.0, 749.0, 499.0, 249.0]);
        assert_eq!(trailing(1000, 1000, 61).len(), 62);
    }

    #[test]
    fn beta_schedules_belong_to_their_classes() {
        let mut config = SchedulerConfig::new(SchedulerKind::EulerDiscrete);
        config.set("beta_schedule", json!("sigmoid")).unwrap();
        let message = alphas_cumprod(&config).unwrap_err().to_string();
        assert_eq!(
            message,
            "beta_schedule is \"sigmoid\"; allowed: linear, scaled_linear, squaredcos_cap_v2"
        );
    }
}
