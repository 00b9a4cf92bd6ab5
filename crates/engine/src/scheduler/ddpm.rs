//! Denoising diffusion probabilistic models (Ho, Jain and Abbeel 2020, arXiv 2006.11239); diffusers'
//! `scheduling_ddpm.py`.

use candle_core::Tensor;

use super::alphas::AlphasCumprod;
use super::arith::{exp, ln, scaled, weighted};
use super::bounds::Bounds;
use super::prediction::Prediction;
use super::timesteps::alpha_timesteps;
use super::{Draw, Sampler, SchedulerConfig};
use crate::{Error, Result};

/// The noise that a step adds (`variance_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Variance {
    /// β̃, the posterior's variance.
    FixedSmall,
    /// The same by way of its logarithm.
    FixedSmallLog,
    /// β.
    FixedLarge,
    /// Predicted by the network, in channels of its own.
    Learned,
    /// Predicted by the network as a place between log β̃ and log β.
    LearnedRange,
}

/// `DDPMScheduler`: samples the posterior of every step.
#[derive(Debug, Clone)]
pub(super) struct Ddpm {
    alphas: AlphasCumprod,
    prediction: Prediction,
    bounds: Bounds,
    variance: Variance,
    timesteps: Vec<f64>,
}

impl Ddpm {
    /// Plans `steps` steps.
    pub(super) fn new(config: &SchedulerConfig, steps: usize) -> Result<Self> {
        Ok(Self {
            alphas: AlphasCumprod::to_one(config)?,
            prediction: Prediction::read(config)?,
            bounds: Bounds::read(config)?,
            // diffusers also lists "fixed_large_log", and then takes the square root of a negative number.
            // A configuration of another class may say null, which diffusers takes for the first.
            variance: config.choice_or(
                "variance_type",
                Variance::FixedSmall,
                &[
                    ("fixed_small", Variance::FixedSmall),
                    ("fixed_small_log", Variance::FixedSmallLog),
                    ("fixed_large", Variance::FixedLarge),
                    ("learned", Variance::Learned),
                    ("learned_range", Variance::LearnedRange),
                ],
            )?,
            timesteps: alpha_timesteps(config, steps)?,
        })
    }

    /// Takes a learned variance off the network's output: its second half of channels.
    fn split(&self, output: &Tensor, sample: &Tensor) -> Result<(Tensor, Option<Tensor>)> {
        if !matches!(self.variance, Variance::Learned | Variance::LearnedRange) {
            return Ok((output.clone(), None));
        }
        let channels = sample.dim(1)?;
        if output.dim(1)? != 2 * channels {
            return Err(Error::Refused {
                field: "variance_type",
                value: "learned".into(),
                allowed: format!("a fixed one: the network has no variance beside its {channels} channels"),
            });
        }
        Ok((output.narrow(1, 0, channels)?, Some(output.narrow(1, channels, channels)?)))
    }
}

impl Sampler for Ddpm {
    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn add_noise(&self, original: &Tensor, noise: &Tensor, i: usize) -> Result<Tensor> {
        self.alphas.add_noise(original, noise, self.timesteps[i] as i64)
    }

    /// One step from `timesteps[i]`. Draws noise once, unless the timestep is 0.
    fn step(&mut self, i: usize, output: &Tensor, sample: &Tensor, draw: &mut Draw<'_>) -> Result<Tensor> {
        let t = self.timesteps[i] as i64;
        let alpha_t = self.alphas.at(t)?;
        let alpha_prev = self.alphas.before(self.timesteps.get(i + 1).map_or(-1, |&t| t as i64))?;
        let (beta_t, beta_prev) = (1.0 - alpha_t, 1.0 - alpha_prev);
        let current_alpha = alpha_t / alpha_prev;
        let current_beta = 1.0 - current_alpha;

        let (output, predicted_variance) = self.split(output, sample)?;
        let x0 = self.prediction.original(&output, sample, alpha_t.sqrt(), beta_t.sqrt())?;
        let x0 = self.bounds.apply(&x0)?;
        // Formula (7): the posterior's mean.
        let mean = weighted(
            ((alpha_prev.sqrt() * current_beta) / beta_t, &x0),
            &[(current_alpha.sqrt() * beta_prev / beta_t, sample)],
        )?;
        if t <= 0 {
            return Ok(mean);
        }
        let noise = draw(sample.dims())?;
        let small = (beta_prev / beta_t * current_beta).max(1e-20);
        let noise = match (self.variance, predicted_variance) {
            (Variance::FixedSmallLog, _) => scaled(&noise, exp(0.5 * ln(small)))?,
            (Variance::FixedLarge, _) => scaled(&noise, current_beta.sqrt())?,
            (Variance::Learned, Some(variance)) => (variance.sqrt()? * noise)?,
            (Variance::LearnedRange, Some(place)) => {
                let place = ((place + 1.0)? / 2.0)?;
                let (low, high) =
                    (scaled(&place.affine(-1.0, 1.0)?, ln(small))?, scaled(&place, ln(current_beta))?);
                (scaled(&(high + low)?, 0.5)?.exp()? * noise)?
            }
            _ => scaled(&noise, small.sqrt())?,
        };
        Ok((mean + noise)?)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use candle_core::Device;
    use serde_json::json;

    use super::*;

    /// A step from timestep 500 of 750, 500, 250, 0, with the noise 0.5 and -1.25.
    fn step(variance_type: impl Into<serde_json::Value>, output: &[f32]) -> Result<Vec<f32>> {
        let config = json!({
            "_class_name": "DDPMScheduler", "beta_start": 0.00085, "beta_end": 0.012,
            "beta_schedule": "scaled_linear", "clip_sample": false, "variance_type": variance_type.into(),
        });
        let mut ddpm = Ddpm::new(&SchedulerConfig::from_json(&config)?, 4)?;
        let tensor = |values: &[f32]| Tensor::from_slice(values, (1, values.len() / 2, 1, 2), &Device::Cpu);
        let mut draw = |_: &[usize]| Ok(tensor(&[0.5, -1.25])?);
        let prev = ddpm.step(1, &tensor(output)?, &tensor(&[1.0, -2.0])?, &mut draw)?;
        Ok(prev.flatten_all()?.to_vec1()?)
    }

    #[test]
    fn null_is_a_fixed_small_variance() {
        let output = [0.3, -0.7];
        assert_eq!(step(serde_json::Value::Null, &output).unwrap(), step("fixed_small", &output).unwrap());
        assert_ne!(step("fixed_large", &output).unwrap(), step("fixed_small", &output).unwrap());
    }

    /// Against diffusers, on an output with a learned variance in its second channel.
    #[test]
    fn learned_variances_are_read_off_the_output() {
        let near = |got: Vec<f32>, want: [f32; 2]| got.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-6);
        assert!(near(step("learned", &[0.3, -0.7, 0.04, 0.09]).unwrap(), [1.336_680_9, -2.740_082_5]));
        assert!(near(step("learned_range", &[0.3, -0.7, -0.5, 0.75]).unwrap(), [1.521_511_6, -3.278_492_5]));
        let message = step("learned", &[0.3, -0.7]).unwrap_err().to_string();
        assert!(message.starts_with("variance_type is learned; allowed: a fixed one"), "{message}");
    }
}
