//! Diffusion exponential integrator sampler, multistep in log ρ (Zhang and Chen 2022, arXiv 2204.13902); diffusers'
//! `scheduling_deis_multistep.py`.

use candle_core::Tensor;

use super::arith::{divided, exp, numpy_ln, scaled, weighted};
use super::bounds::Bounds;
use super::history::History;
use super::lambdas::{End, Lambdas, Level};
use super::prediction::{Prediction, noise_beside};
use super::schedule::{alphas_cumprod, train_timesteps};
use super::timesteps::solver_timesteps;
use super::{Draw, Sampler, SchedulerConfig};
use crate::Result;

/// `DEISMultistepScheduler`: integrates the polynomial through the last predictions of ε, over log ρ.
#[derive(Debug, Clone)]
pub(super) struct DeisMultistep {
    lambdas: Lambdas,
    prediction: Prediction,
    bounds: Bounds,
    /// Whether the last two steps are of lower order.
    lower_order_final: bool,
    history: History,
}

impl DeisMultistep {
    /// Plans `steps` steps.
    pub(super) fn new(config: &SchedulerConfig, steps: usize) -> Result<Self> {
        let alphas_cumprod = alphas_cumprod(config)?;
        let timesteps = solver_timesteps(config, train_timesteps(config)?, steps)?;
        let lambdas = Lambdas::new(config, &alphas_cumprod, timesteps, steps, End::Run)?;
        // One algorithm and one basis; the other names are those that other solvers leave in a configuration.
        config.choice("algorithm_type", &["deis", "dpmsolver", "dpmsolver++"].map(|name| (name, ())))?;
        config.choice("solver_type", &["logrho", "midpoint", "heun", "bh1", "bh2"].map(|name| (name, ())))?;
        Ok(Self {
            prediction: Prediction::read(config)?,
            bounds: Bounds::read_threshold(config)?,
            lower_order_final: config.flag("lower_order_final")? && lambdas.timesteps().len() < 15,
            history: History::read(config, 3)?,
            lambdas,
        })
    }
}

impl Sampler for DeisMultistep {
    fn timesteps(&self) -> &[f64] {
        self.lambdas.timesteps()
    }

    fn sigmas(&self) -> &[f32] {
        self.lambdas.sigmas()
    }

    fn add_noise(&self, original: &Tensor, noise: &Tensor, i: usize) -> Result<Tensor> {
        self.lambdas.add_noise(original, noise, i)
    }

    /// One step from `timesteps[i]`. Draws no noise.
    fn step(&mut self, i: usize, output: &Tensor, sample: &Tensor, _: &mut Draw<'_>) -> Result<Tensor> {
        let (from, to) = (self.lambdas.at(i), self.lambdas.at(i + 1));
        let x0 = self.bounds.apply(&self.prediction.original(output, sample, from.alpha, from.sigma)?)?;
        self.history.push(noise_beside(&x0, sample, from.alpha, from.sigma)?);

        let left = self.lambdas.left(i);
        let order = if self.lower_order_final { self.history.len().min(left) } else { self.history.len() };
        let m = self.history.newest_first();
        if order == 1 {
            let h = to.lambda - from.lambda;
            return weighted((to.alpha / from.alpha, sample), &[(-(to.sigma * (exp(h) - 1.0)), m[0])]);
        }
        let rho = |level: Level| level.sigma / level.alpha;
        let nodes: Vec<f32> = (0..order).map(|back| rho(self.lambdas.at(i - back))).collect();
        let coefficients = coefficients(rho(to), &nodes);
        let terms: Vec<(f32, &Tensor)> = coefficients.into_iter().zip(m).collect();
        scaled(&weighted((1.0, &divided(sample, from.alpha)?), &terms)?, to.alpha)
    }
}

/// The integrals, from the newest node to `end`, of the Lagrange polynomials over log ρ through `nodes`, two or three,
/// newest first.
fn coefficients(end: f32, nodes: &[f32]) -> Vec<f32> {
    let from = nodes[0];
    if let [a, b, c] = *nodes {
        return vec![
            quadratic(end, a, b, c) - quadratic(from, a, b, c),
            quadratic(end, b, c, a) - quadratic(from, b, c, a),
            quadratic(end, c, a, b) - quadratic(from, c, a, b),
        ];
    }
    let (a, b) = (from, nodes[1]);
    vec![linear(end, a, b) - linear(from, a, b), linear(end, b, a) - linear(from, b, a)]
}

/// The antiderivative at `t` of (log t − log c) / (log b − log c).
fn linear(t: f32, b: f32, c: f32) -> f32 {
    t * (-numpy_ln(c) + numpy_ln(t) - 1.0) / (numpy_ln(b) - numpy_ln(c))
}

/// The antiderivative at `t` of (log t − log c)(log t − log d) / ((log b − log c)(log b − log d)).
fn quadratic(t: f32, b: f32, c: f32, d: f32) -> f32 {
    let (lt, lb, lc, ld) = (numpy_ln(t), numpy_ln(b), numpy_ln(c), numpy_ln(d));
    let numerator = t * (lc * (ld - lt + 1.0) - ld * lt + ld + lt * lt - 2.0 * lt + 2.0);
    numerator / ((lb - lc) * (lb - ld))
}
