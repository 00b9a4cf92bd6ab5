//! DPM-Solver and DPM-Solver++, multistep (Lu et al. 2022, arXiv 2206.00927 and 2211.01095); diffusers'
//! `scheduling_dpmsolver_multistep.py`.

use candle_core::Tensor;

use super::arith::scaled;
use super::bounds::Bounds;
use super::dpmsolver::{Algorithm, Solver};
use super::history::History;
use super::lambdas::{End, Lambdas, timesteps_above_lambda_min};
use super::prediction::Prediction;
use super::schedule::alphas_cumprod_above_zero;
use super::timesteps::solver_timesteps;
use super::{Draw, Sampler, SchedulerConfig};
use crate::Result;

/// `DPMSolverMultistepScheduler`.
#[derive(Debug, Clone)]
pub(super) struct DpmSolverMultistep {
    lambdas: Lambdas,
    prediction: Prediction,
    bounds: Bounds,
    algorithm: Algorithm,
    solver: Solver,
    /// Whether the very last step is of first order.
    first_order_final: bool,
    /// Whether the last but one is of second order at most.
    second_order_before: bool,
    history: History,
}

impl DpmSolverMultistep {
    /// Plans `steps` steps.
    pub(super) fn new(config: &SchedulerConfig, steps: usize) -> Result<Self> {
        let alphas_cumprod = alphas_cumprod_above_zero(config)?;
        let count = timesteps_above_lambda_min(config, &alphas_cumprod)?;
        let end = End::read(config, End::Training)?;
        let timesteps = solver_timesteps(config, count, steps)?;
        let lambdas = Lambdas::new(config, &alphas_cumprod, timesteps, steps, end)?;
        let algorithm = Algorithm::read(config)?;
        algorithm.check_end(end)?;
        let lower_order_final = config.flag("lower_order_final")? && lambdas.timesteps().len() < 15;
        Ok(Self {
            prediction: Prediction::read(config)?,
            bounds: Bounds::read_threshold(config)?,
            algorithm,
            solver: Solver::read(config)?,
            first_order_final: end == End::Zero || lower_order_final || config.flag("euler_at_final")?,
            second_order_before: lower_order_final,
            history: History::read(config, algorithm.highest_order())?,
            lambdas,
        })
    }
}

impl Sampler for DpmSolverMultistep {
    fn timesteps(&self) -> &[f64] {
        self.lambdas.timesteps()
    }

    fn sigmas(&self) -> &[f32] {
        self.lambdas.sigmas()
    }

    fn draws_float32(&self) -> bool {
        true
    }

    fn add_noise(&self, original: &Tensor, noise: &Tensor, i: usize) -> Result<Tensor> {
        self.lambdas.add_noise(original, noise, i)
    }

    /// One step from `timesteps[i]`. The stochastic algorithms draw noise once, in the last step too.
    fn step(&mut self, i: usize, output: &Tensor, sample: &Tensor, draw: &mut Draw<'_>) -> Result<Tensor> {
        let level = self.lambdas.at(i);
        self.history.push(self.algorithm.convert((self.prediction, self.bounds), output, sample, level)?);
        let noise = if self.algorithm.is_stochastic() { Some(draw(sample.dims())?) } else { None };

        let d = self.differences(i)?;
        let solver = if d.len() == 3 { Solver::Heun } else { self.solver };
        self.algorithm.update(solver, (level, self.lambdas.at(i + 1)), sample, &d, noise.as_ref())
    }
}

impl DpmSolverMultistep {
    /// The newest output and its divided differences over λ, as many as the order of this step.
    fn differences(&self, i: usize) -> Result<Vec<Tensor>> {
        let order = match self.lambdas.left(i) {
            1 if self.first_order_final => 1,
            2 if self.second_order_before => self.history.len().min(2),
            _ => self.history.len(),
        };
        let m = self.history.newest_first();
        if order == 1 {
            return Ok(vec![m[0].clone()]);
        }
        let lambda = |back: usize| self.lambdas.at(i - back).lambda;
        let h = self.lambdas.at(i + 1).lambda - lambda(0);
        let r0 = (lambda(0) - lambda(1)) / h;
        let d1_0 = scaled(&(m[0] - m[1])?, 1.0 / r0)?;
        if order == 2 {
            return Ok(vec![m[0].clone(), d1_0]);
        }
        let r1 = (lambda(1) - lambda(2)) / h;
        let d1_1 = scaled(&(m[1] - m[2])?, 1.0 / r1)?;
        let bend = (&d1_0 - &d1_1)?;
        let d1 = (d1_0 + scaled(&bend, r0 / (r0 + r1))?)?;
        let d2 = scaled(&bend, 1.0 / (r0 + r1))?;
        Ok(vec![m[0].clone(), d1, d2])
    }
}
