//! The stochastic DPM-Solver++ (Lu et al. 2022, arXiv 2211.01095) with the noise of a Brownian path, from k-diffusion;
//! diffusers' `scheduling_dpmsolver_sde.py`.

use candle_core::Tensor;

use super::arith::{exp, exp_m1, ln, weighted};
use super::k_diffusion::{
    Ancestral, Levels, add_noise, derivative, doubled, init_noise_sigma, inner_doubled, scale_model_input,
};
use super::prediction::Prediction;
use super::sigmas::sigma_to_t;
use super::{Draw, Sampler, SchedulerConfig};
use crate::Result;
use crate::noise::brownian::BrownianTree;

/// `DPMSolverSDEScheduler`: a step goes halfway in log σ first, then the whole way with the x₀ found there. Its noise is
/// the increments of one Brownian path over σ, so that it does not depend on the steps taken, and nothing of it comes
/// from the request's generator.
pub(super) struct DpmSolverSde {
    prediction: Prediction,
    timesteps: Vec<f64>,
    sigmas: Vec<f32>,
    init_noise_sigma: f64,
    seed: u64,
    /// Made for the shape of the first sample.
    path: Option<BrownianTree>,
    /// Where the step under way began.
    begun: Option<Tensor>,
}

impl DpmSolverSde {
    /// `seed` stands in where `noise_sampler_seed` is null.
    pub(super) fn new(config: &SchedulerConfig, steps: usize, seed: u64) -> Result<Self> {
        let prediction = Prediction::read_without_sample(config)?;
        let levels = Levels::new(config, steps)?;
        let sigmas = inner_doubled(&levels.sigmas_to(0.0));
        let mut timesteps = doubled(&levels.timesteps);
        for (pair, t) in levels.sigmas.windows(2).zip(timesteps.iter_mut().skip(1).step_by(2)) {
            let (from, to) = (-pair[0].ln(), -pair[1].ln());
            *t = sigma_to_t((-(from + (to - from) * 0.5)).exp(), &levels.log_sigmas);
        }
        let init_noise_sigma = init_noise_sigma(config, &sigmas)?;
        let seed = config.optional_count("noise_sampler_seed")?.unwrap_or(seed);
        Ok(Self { prediction, timesteps, sigmas, init_noise_sigma, seed, path: None, begun: None })
    }

    /// Standard normal noise for the way from one σ to another.
    fn noise(&mut self, sample: &Tensor, from: f32, to: f32) -> Result<Tensor> {
        let positive = self.sigmas.iter().copied().filter(|&sigma| sigma > 0.0);
        let (lowest, highest) =
            positive.fold((f32::INFINITY, 0.0f32), |(low, high), sigma| (low.min(sigma), high.max(sigma)));
        let seed = self.seed;
        let path = self.path.get_or_insert_with(|| BrownianTree::new(sample.dims(), lowest, highest, seed));
        Ok(Tensor::from_vec(path.sample(from, to), sample.dims(), sample.device())?)
    }
}

/// Halfway between two σ in log σ.
fn midpoint(from: f32, to: f32) -> f32 {
    let (t, next) = (-ln(from), -ln(to));
    exp(-(t + (next - t) * 0.5))
}

impl Sampler for DpmSolverSde {
    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn sigmas(&self) -> &[f32] {
        &self.sigmas
    }

    fn order(&self) -> usize {
        2
    }

    fn init_noise_sigma(&self) -> f64 {
        self.init_noise_sigma
    }

    fn scale_model_input(&self, sample: &Tensor, i: usize) -> Result<Tensor> {
        let sigma = match self.begun {
            None => self.sigmas[i],
            Some(_) => midpoint(self.sigmas[i - 1], self.sigmas[i]),
        };
        scale_model_input(sample, sigma)
    }

    fn add_noise(&self, original: &Tensor, noise: &Tensor, i: usize) -> Result<Tensor> {
        add_noise(original, noise, self.sigmas[i])
    }

    fn step(&mut self, i: usize, output: &Tensor, sample: &Tensor, _draw: &mut Draw<'_>) -> Result<Tensor> {
        let begun = self.begun.take();
        let first = begun.is_none();
        let (sigma, next) =
            if first { (self.sigmas[i], self.sigmas[i + 1]) } else { (self.sigmas[i - 1], self.sigmas[i]) };
        if next == 0.0 {
            let original = self.prediction.original_at(output, sample, sigma)?;
            return weighted((1.0, sample), &[(next - sigma, &derivative(sample, &original, sigma)?)]);
        }
        let turn = midpoint(sigma, next);
        let original = self.prediction.original_at(output, sample, if first { sigma } else { turn })?;
        let start = begun.unwrap_or_else(|| sample.clone());

        // σ is rounded on its way through t = −log σ, as diffusers takes it.
        let t = -ln(sigma);
        let (from, to) = (exp(-t), if first { turn } else { exp(ln(next)) });
        let Ancestral { down, up } = Ancestral::between(from, to);
        let t_down = -ln(down);
        let noise = self.noise(sample, from, to)?;
        let terms = [(-exp_m1(t - t_down), &original), (up, &noise)];
        let prev = weighted((exp(-t_down) / from, &start), &terms)?;
        if first {
            self.begun = Some(start);
        }
        Ok(prev)
    }
}
