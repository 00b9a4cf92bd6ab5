//! UniPC, a unified predictor and corrector (Zhao et al. 2023, arXiv 2302.04867); diffusers'
//! `scheduling_unipc_multistep.py`.

use candle_core::Tensor;
use serde_json::Value;

use super::arith::{divided, exp_m1, weighted};
use super::bounds::Bounds;
use super::history::History;
use super::lambdas::{End, Lambdas};
use super::prediction::Prediction;
use super::schedule::{alphas_cumprod_above_zero, train_timesteps};
use super::timesteps::solver_timesteps;
use super::{Draw, Sampler, SchedulerConfig};
use crate::Result;

/// diffusers sets no limit to `solver_order`; but above this the system of [`weights`] is singular in float32.
const HIGHEST_ORDER: usize = 6;

/// B(h) of the paper (`solver_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Basis {
    /// h.
    Bh1,
    /// eʰ − 1.
    Bh2,
}

/// `UniPCMultistepScheduler`.
#[derive(Debug, Clone)]
pub(super) struct UniPcMultistep {
    lambdas: Lambdas,
    prediction: Prediction,
    bounds: Bounds,
    /// Whether the equation is integrated in x₀, or in ε.
    predict_x0: bool,
    basis: Basis,
    lower_order_final: bool,
    /// The steps whose result is not corrected.
    disable_corrector: Vec<f64>,
    history: History,
    /// The sample that the last step began from, and the order of that step.
    last: Option<(Tensor, usize)>,
}

impl UniPcMultistep {
    /// Plans `steps` steps.
    pub(super) fn new(config: &SchedulerConfig, steps: usize) -> Result<Self> {
        config.only("solver_p", Value::Null)?;
        config.only("shift_terminal", Value::Null)?;
        config.only("use_dynamic_shifting", false)?;
        let alphas_cumprod = alphas_cumprod_above_zero(config)?;
        let end = End::read(config, End::Run)?;
        let timesteps = solver_timesteps(config, train_timesteps(config)?, steps)?;
        let (bh1, bh2) = (Basis::Bh1, Basis::Bh2);
        // The names that other solvers leave in a configuration mean the second basis.
        let bases = [("bh1", bh1), ("bh2", bh2), ("midpoint", bh2), ("heun", bh2), ("logrho", bh2)];
        let this = Self {
            lambdas: Lambdas::new(config, &alphas_cumprod, timesteps, steps, end)?,
            prediction: Prediction::read(config)?,
            bounds: Bounds::read_threshold(config)?,
            predict_x0: config.flag("predict_x0")?,
            basis: config.choice("solver_type", &bases)?,
            lower_order_final: config.flag("lower_order_final")?,
            disable_corrector: config.optional_numbers("disable_corrector")?.unwrap_or_default(),
            history: History::read(config, HIGHEST_ORDER)?,
            last: None,
        };
        if !this.predict_x0 || this.basis == Basis::Bh1 {
            end.refuse_zero("predict_x0 false or solver_type \"bh1\"")?;
        } else if !this.lower_order_final && this.history.order() > 1 {
            end.refuse_zero("lower_order_final false")?;
        }
        Ok(this)
    }

    /// x₀ or ε, whichever is integrated. Thresholding concerns x₀ alone.
    fn convert(&self, i: usize, output: &Tensor, sample: &Tensor) -> Result<Tensor> {
        let level = self.lambdas.at(i);
        if self.predict_x0 {
            self.bounds.apply(&self.prediction.original(output, sample, level.alpha, level.sigma)?)
        } else {
            self.prediction.noise(output, sample, level.alpha, level.sigma)
        }
    }

    /// Carries `x` from the level before `target` to `target`. The predictor (UniP) extrapolates from the history;
    /// the corrector (UniC) also has the output `reached` at the target.
    fn update(&self, target: usize, order: usize, x: &Tensor, reached: Option<&Tensor>) -> Result<Tensor> {
        let (from, to) = (self.lambdas.at(target - 1), self.lambdas.at(target));
        let h = to.lambda - from.lambda;
        let hh = if self.predict_x0 { -h } else { h };
        let h_phi_1 = exp_m1(hh);
        let b_h = match self.basis {
            Basis::Bh1 => hh,
            Basis::Bh2 => h_phi_1,
        };

        // Where the outputs lie, in units of h, and their divided differences to the newest one.
        let m = self.history.newest_first();
        let mut rks = Vec::with_capacity(order);
        let mut d1s = Vec::with_capacity(order);
        for k in 1..order {
            let rk = (self.lambdas.at(target - 1 - k).lambda - from.lambda) / h;
            d1s.push(divided(&(m[k] - m[0])?, rk)?);
            rks.push(rk);
        }
        if let Some(reached) = reached {
            rks.push(1.0);
            d1s.push((reached - m[0])?);
        }
        let rhos = weights(&rks, hh, h_phi_1, b_h);

        let (scale, drift) = if self.predict_x0 {
            (to.sigma / from.sigma, to.alpha)
        } else {
            (to.alpha / from.alpha, to.sigma)
        };
        let base = weighted((scale, x), &[(-(drift * h_phi_1), m[0])])?;
        let terms: Vec<(f32, &Tensor)> = rhos.into_iter().zip(&d1s).collect();
        let [first, rest @ ..] = terms.as_slice() else { return Ok(base) };
        weighted((1.0, &base), &[(-(drift * b_h), &weighted(*first, rest)?)])
    }
}

impl Sampler for UniPcMultistep {
    fn timesteps(&self) -> &[f64] {
        self.lambdas.timesteps()
    }

    fn sigmas(&self) -> &[f32] {
        self.lambdas.sigmas()
    }

    fn add_noise(&self, original: &Tensor, noise: &Tensor, i: usize) -> Result<Tensor> {
        self.lambdas.add_noise(original, noise, i)
    }

    /// One step from `timesteps[i]`: corrects the sample with what the network says of it, then predicts the next.
    /// Draws no noise.
    fn step(&mut self, i: usize, output: &Tensor, sample: &Tensor, _: &mut Draw<'_>) -> Result<Tensor> {
        let converted = self.convert(i, output, sample)?;
        let sample = match self.last.take() {
            Some((last, order)) if i > 0 && !self.disable_corrector.contains(&((i - 1) as f64)) => {
                self.update(i, order, &last, Some(&converted))?
            }
            _ => sample.clone(),
        };
        self.history.push(converted);
        let order = self.history.len();
        let order = if self.lower_order_final { order.min(self.lambdas.left(i)) } else { order };
        let prev = self.update(i + 1, order, &sample, None)?;
        self.last = Some((sample, order));
        Ok(prev)
    }
}

/// The weights of the differences at `rks`, so that the update is exact for polynomials (the paper's R·ρ = b; the
/// case of one is fixed at a half, as in the authors' code).
fn weights(rks: &[f32], hh: f32, h_phi_1: f32, b_h: f32) -> Vec<f32> {
    match rks {
        [] => Vec::new(),
        [_] => vec![0.5],
        _ => {
            let mut h_phi_k = h_phi_1 / hh - 1.0;
            let mut factorial = 1.0;
            let mut rows = Vec::with_capacity(rks.len());
            let mut powers = vec![1.0; rks.len()];
            for i in 1..=rks.len() {
                let mut row = powers.clone();
                row.push(h_phi_k * factorial / b_h);
                rows.push(row);
                powers.iter_mut().zip(rks).for_each(|(power, rk)| *power *= rk);
                factorial *= (i + 1) as f32;
                h_phi_k = h_phi_k / hh - 1.0 / factorial;
            }
            solve(rows)
        }
    }
}

/// Solves a small linear system, each row with its right-hand side last, by elimination with pivoting.
fn solve(mut rows: Vec<Vec<f32>>) -> Vec<f32> {
    let n = rows.len();
    for column in 0..n {
        let pivot = (column..n).max_by(|&a, &b| rows[a][column].abs().total_cmp(&rows[b][column].abs()));
        rows.swap(column, pivot.unwrap_or(column));
        let (above, below) = rows.split_at_mut(column + 1);
        let top = &above[column];
        for row in below {
            let factor = row[column] / top[column];
            row.iter_mut().zip(top).skip(column).for_each(|(x, t)| *x -= factor * t);
        }
    }
    let mut solution = vec![0.0; n];
    for i in (0..n).rev() {
        let known: f32 = (i + 1..n).map(|j| rows[i][j] * solution[j]).sum();
        solution[i] = (rows[i][n] - known) / rows[i][i];
    }
    solution
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systems_are_solved_with_pivoting() {
        let solution = solve(vec![vec![0.0, 2.0, 4.0], vec![3.0, 1.0, 8.0]]);
        assert_eq!(solution, [2.0, 2.0]);
    }
}
