//! What the multistep and the singlestep DPM-Solver share: the exponential integrator's update from one noise level
//! to another (Lu et al. 2022, arXiv 2206.00927 and 2211.01095).

use candle_core::Tensor;

use super::arith::{exp, weighted};
use super::bounds::Bounds;
use super::lambdas::{End, Level};
use super::prediction::{Prediction, noise_beside};
use super::{SchedulerConfig, SchedulerKind};
use crate::Result;

/// `algorithm_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Algorithm {
    /// The probability-flow equation, integrated in ε.
    DpmSolver,
    /// The probability-flow equation, integrated in x₀.
    DpmSolverPlusPlus,
    /// The stochastic equation, integrated in ε.
    SdeDpmSolver,
    /// The stochastic equation, integrated in x₀.
    SdeDpmSolverPlusPlus,
}

impl Algorithm {
    /// One of the class's own. "deis" is what a DEIS scheduler leaves in a configuration.
    pub(super) fn read(config: &SchedulerConfig) -> Result<Self> {
        let mut choices = vec![
            ("dpmsolver", Self::DpmSolver),
            ("dpmsolver++", Self::DpmSolverPlusPlus),
            ("sde-dpmsolver++", Self::SdeDpmSolverPlusPlus),
            ("deis", Self::DpmSolverPlusPlus),
        ];
        if config.kind() == SchedulerKind::DpmSolverMultistep {
            choices.push(("sde-dpmsolver", Self::SdeDpmSolver));
        }
        // A learned variance would be channels to leave out; diffusers then keeps three, which no latents have. Any other
        // is of a configuration that another class has written, and means nothing here.
        config.choice_or(
            "variance_type",
            (),
            &["fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log"].map(|name| (name, ())),
        )?;
        config.choice("algorithm_type", &choices)
    }

    /// The highest order that there is a formula for.
    pub(super) fn highest_order(self) -> usize {
        if self == Algorithm::SdeDpmSolver { 2 } else { 3 }
    }

    /// Refuses the end that a step in ε can't reach.
    pub(super) fn check_end(self, end: End) -> Result<()> {
        if self.predicts_x0() { Ok(()) } else { end.refuse_zero("an algorithm_type without \"++\"") }
    }

    fn predicts_x0(self) -> bool {
        matches!(self, Algorithm::DpmSolverPlusPlus | Algorithm::SdeDpmSolverPlusPlus)
    }

    /// Whether every step draws noise.
    pub(super) fn is_stochastic(self) -> bool {
        matches!(self, Algorithm::SdeDpmSolver | Algorithm::SdeDpmSolverPlusPlus)
    }

    /// What the solver integrates, from the network's output: x₀ for the "++" algorithms, otherwise ε.
    pub(super) fn convert(
        self,
        (prediction, bounds): (Prediction, Bounds),
        output: &Tensor,
        sample: &Tensor,
        level: Level,
    ) -> Result<Tensor> {
        let Level { alpha, sigma, .. } = level;
        if self.predicts_x0() {
            return bounds.apply(&prediction.original(output, sample, alpha, sigma)?);
        }
        let epsilon = prediction.noise(output, sample, alpha, sigma)?;
        if bounds == Bounds::None {
            return Ok(epsilon);
        }
        let x0 = bounds.apply(&Prediction::Epsilon.original(&epsilon, sample, alpha, sigma)?)?;
        noise_beside(&x0, sample, alpha, sigma)
    }

    /// Carries `sample` from one level to another along `d`, the integrated quantity and its first and second
    /// divided differences, as many as the order of the step.
    pub(super) fn update(
        self,
        solver: Solver,
        (from, to): (Level, Level),
        sample: &Tensor,
        d: &[Tensor],
        noise: Option<&Tensor>,
    ) -> Result<Tensor> {
        let h = to.lambda - from.lambda;
        let (scale, weights, spread) = match self {
            Algorithm::DpmSolverPlusPlus => {
                let e = exp(-h) - 1.0;
                let first = match solver {
                    Solver::Midpoint => -(0.5 * (to.alpha * e)),
                    Solver::Heun => to.alpha * (e / h + 1.0),
                };
                let second = -(to.alpha * ((e + h) / (h * h) - 0.5));
                (to.sigma / from.sigma, [-(to.alpha * e), first, second], 0.0)
            }
            Algorithm::DpmSolver => {
                let e = exp(h) - 1.0;
                let first = match solver {
                    Solver::Midpoint => -(0.5 * (to.sigma * e)),
                    Solver::Heun => -(to.sigma * (e / h - 1.0)),
                };
                let second = -(to.sigma * ((e - h) / (h * h) - 0.5));
                (to.alpha / from.alpha, [-(to.sigma * e), first, second], 0.0)
            }
            Algorithm::SdeDpmSolverPlusPlus => {
                let g = 1.0 - exp(-2.0 * h);
                let first = match solver {
                    Solver::Midpoint => 0.5 * (to.alpha * g),
                    Solver::Heun => to.alpha * (g / (-2.0 * h) + 1.0),
                };
                let second = to.alpha * ((g - 2.0 * h) / ((2.0 * h) * (2.0 * h)) - 0.5);
                let scale = to.sigma / from.sigma * exp(-h);
                (scale, [to.alpha * g, first, second], to.sigma * g.sqrt())
            }
            Algorithm::SdeDpmSolver => {
                let e = exp(h) - 1.0;
                let first = match solver {
                    Solver::Midpoint => -(to.sigma * e),
                    Solver::Heun => -(2.0 * (to.sigma * (e / h - 1.0))),
                };
                let spread = to.sigma * (exp(2.0 * h) - 1.0).sqrt();
                (to.alpha / from.alpha, [-(2.0 * (to.sigma * e)), first, 0.0], spread)
            }
        };
        let mut terms: Vec<(f32, &Tensor)> = weights.into_iter().zip(d).collect();
        terms.extend(noise.map(|noise| (spread, noise)));
        weighted((scale, sample), &terms)
    }
}

/// `solver_type`: how a step of second order takes the difference into account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Solver {
    /// By the value at the middle.
    Midpoint,
    /// By the exact integral of the slope.
    Heun,
}

impl Solver {
    /// Either. The names that other solvers leave in a configuration mean the midpoint rule.
    pub(super) fn read(config: &SchedulerConfig) -> Result<Self> {
        config.choice(
            "solver_type",
            &[
                ("midpoint", Self::Midpoint),
                ("heun", Self::Heun),
                ("logrho", Self::Midpoint),
                ("bh1", Self::Midpoint),
                ("bh2", Self::Midpoint),
            ],
        )
    }
}
