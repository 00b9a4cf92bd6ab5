//! DPM-Solver and DPM-Solver++, singlestep (Lu et al. 2022, arXiv 2206.00927 and 2211.01095); diffusers'
//! `scheduling_dpmsolver_singlestep.py`.

use candle_core::Tensor;

use super::arith::{divided, scaled, weighted};
use super::bounds::Bounds;
use super::dpmsolver::{Algorithm, Solver};
use super::history::History;
use super::lambdas::{End, Lambdas, timesteps_above_lambda_min};
use super::prediction::Prediction;
use super::schedule::alphas_cumprod;
use super::timesteps::solver_linspace;
use super::{Draw, Sampler, SchedulerConfig};
use crate::Result;

/// `DPMSolverSinglestepScheduler`: steps of rising order, each group of them from one and the same sample.
#[derive(Debug, Clone)]
pub(super) struct DpmSolverSinglestep {
    lambdas: Lambdas,
    prediction: Prediction,
    bounds: Bounds,
    algorithm: Algorithm,
    solver: Solver,
    /// The order of every step.
    orders: Vec<usize>,
    history: History,
    /// The sample at the last step of first order.
    begin: Option<Tensor>,
}

impl DpmSolverSinglestep {
    /// Plans `steps` steps.
    pub(super) fn new(config: &SchedulerConfig, steps: usize) -> Result<Self> {
        let alphas_cumprod = alphas_cumprod(config)?;
        let count = timesteps_above_lambda_min(config, &alphas_cumprod)?;
        let end = End::read(config, End::Training)?;
        let timesteps = solver_linspace(count, steps);
        let algorithm = Algorithm::read(config)?;
        algorithm.check_end(end)?;
        if algorithm == Algorithm::DpmSolver {
            // diffusers looks up the threshold's α by a timestep that it no longer has, and fails.
            config.only("thresholding", false)?;
        }
        let history = History::read(config, algorithm.highest_order())?;
        let order = history.order();
        let lower_order_final =
            config.flag("lower_order_final")? || end == End::Zero || !steps.is_multiple_of(order);
        Ok(Self {
            lambdas: Lambdas::new(config, &alphas_cumprod, timesteps, steps, end)?,
            prediction: Prediction::read(config)?,
            bounds: Bounds::read_threshold(config)?,
            algorithm,
            solver: Solver::read(config)?,
            orders: orders(steps, order, lower_order_final, end == End::Zero),
            history,
            begin: None,
        })
    }
}

impl Sampler for DpmSolverSinglestep {
    fn timesteps(&self) -> &[f64] {
        self.lambdas.timesteps()
    }

    fn sigmas(&self) -> &[f32] {
        self.lambdas.sigmas()
    }

    fn add_noise(&self, original: &Tensor, noise: &Tensor, i: usize) -> Result<Tensor> {
        self.lambdas.add_noise(original, noise, i)
    }

    /// One step from `timesteps[i]`. The stochastic algorithm draws noise once, in the last step too.
    fn step(&mut self, i: usize, output: &Tensor, sample: &Tensor, draw: &mut Draw<'_>) -> Result<Tensor> {
        let level = self.lambdas.at(i);
        self.history.push(self.algorithm.convert((self.prediction, self.bounds), output, sample, level)?);
        let noise = if self.algorithm.is_stochastic() { Some(draw(sample.dims())?) } else { None };

        let order = self.orders[i].min(self.history.len());
        if order == 1 {
            self.begin = Some(sample.clone());
        }
        let from = self.lambdas.at(i + 1 - order);
        let to = self.lambdas.at(i + 1);
        let d = self.differences(i, order)?;
        let solver = if order == 3 { Solver::Heun } else { self.solver };
        self.algorithm.update(solver, (from, to), self.begin.as_ref().unwrap_or(sample), &d, noise.as_ref())
    }
}

impl DpmSolverSinglestep {
    /// The oldest output of this group and its divided differences over λ, as many as `order`. The midpoint rule of
    /// third order needs but the first, over the whole group.
    fn differences(&self, i: usize, order: usize) -> Result<Vec<Tensor>> {
        let m = self.history.newest_first();
        let lambda = |back: usize| self.lambdas.at(i - back).lambda;
        let oldest = m[order - 1].clone();
        if order == 1 {
            return Ok(vec![oldest]);
        }
        let h = self.lambdas.at(i + 1).lambda - lambda(order - 1);
        let r0 = (lambda(0) - lambda(order - 1)) / h;
        let whole = scaled(&(m[0] - &oldest)?, 1.0 / r0)?;
        if order == 2 || self.solver == Solver::Midpoint {
            return Ok(vec![oldest, whole]);
        }
        let r1 = (lambda(1) - lambda(2)) / h;
        let half = scaled(&(m[1] - &oldest)?, 1.0 / r1)?;
        let d1 = divided(&weighted((r0, &half), &[(-r1, &whole)])?, r0 - r1)?;
        let d2 = divided(&scaled(&(whole - half)?, 2.0)?, r0 - r1)?;
        Ok(vec![oldest, d1, d2])
    }
}

/// The order of each of `steps` steps: groups of 1, 2, ... up to `order`. With `lower_order_final` the last group has no
/// step of full order; `to_zero` makes the very last step one of first order.
fn orders(steps: usize, order: usize, lower_order_final: bool, to_zero: bool) -> Vec<usize> {
    let mut orders: Vec<usize> = (0..steps).map(|i| i % order + 1).collect();
    if let Some(last) = orders.last_mut()
        && (to_zero || (lower_order_final && *last == order))
    {
        *last = 1;
    }
    orders
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against `get_order_list`.
    #[test]
    fn orders_come_in_groups() {
        assert_eq!(orders(4, 2, false, false), [1, 2, 1, 2]);
        assert_eq!(orders(4, 2, true, false), [1, 2, 1, 1]);
        assert_eq!(orders(5, 2, true, true), [1, 2, 1, 2, 1]);
        assert_eq!(orders(6, 3, true, false), [1, 2, 3, 1, 2, 1]);
        assert_eq!(orders(5, 3, true, false), [1, 2, 3, 1, 2]);
        assert_eq!(orders(5, 3, true, true), [1, 2, 3, 1, 1]);
    }
}
