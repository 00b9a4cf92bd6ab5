//! Latent consistency models (Luo et al. 2023, arXiv 2310.04378); diffusers' `scheduling_lcm.py`.

use candle_core::Tensor;

use super::alphas::AlphasCumprod;
use super::arith::weighted;
use super::bounds::Bounds;
use super::prediction::Prediction;
use super::timesteps::distilled_timesteps;
use super::{Draw, Sampler, SchedulerConfig};
use crate::Result;

/// The spread of the data that the boundary condition assumes.
const SIGMA_DATA: f32 = 0.5;

/// `LCMScheduler`: predicts x₀ in every step and noises it to the next timestep.
#[derive(Debug, Clone)]
pub(super) struct Lcm {
    alphas: AlphasCumprod,
    prediction: Prediction,
    bounds: Bounds,
    timesteps: Vec<f64>,
    timestep_scaling: f32,
}

impl Lcm {
    /// Plans `steps` steps.
    pub(super) fn new(config: &SchedulerConfig, steps: usize) -> Result<Self> {
        Ok(Self {
            alphas: AlphasCumprod::read(config)?,
            prediction: Prediction::read(config)?,
            bounds: Bounds::read(config)?,
            timesteps: distilled_timesteps(config, steps)?,
            timestep_scaling: config.number("timestep_scaling")? as f32,
        })
    }
}

impl Sampler for Lcm {
    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn add_noise(&self, original: &Tensor, noise: &Tensor, i: usize) -> Result<Tensor> {
        self.alphas.add_noise(original, noise, self.timesteps[i] as i64)
    }

    /// One step from `timesteps[i]`. Draws noise once, but none in the last step.
    fn step(&mut self, i: usize, output: &Tensor, sample: &Tensor, draw: &mut Draw<'_>) -> Result<Tensor> {
        let t = self.timesteps[i];
        let alpha_t = self.alphas.at(t as i64)?;
        let x0 = self.prediction.original(output, sample, alpha_t.sqrt(), (1.0 - alpha_t).sqrt())?;
        let x0 = self.bounds.apply(&x0)?;

        // The boundary condition f(x, 0) = x: c_skip and c_out of the paper's appendix C.
        let scaled_t = t as f32 * self.timestep_scaling;
        let spread = scaled_t * scaled_t + SIGMA_DATA * SIGMA_DATA;
        let (c_skip, c_out) = (SIGMA_DATA * SIGMA_DATA / spread, scaled_t / spread.sqrt());
        let denoised = weighted((c_out, &x0), &[(c_skip, sample)])?;

        let Some(&next) = self.timesteps.get(i + 1) else { return Ok(denoised) };
        let alpha_next = self.alphas.before(next as i64)?;
        weighted((alpha_next.sqrt(), &denoised), &[((1.0 - alpha_next).sqrt(), &draw(sample.dims())?)])
    }
}
