//! The noise levels that an exponential solver visits, and the timesteps that go with them.

use candle_core::Tensor;

use super::arith::{ln, weighted};
use super::schedule::linspace;
use super::sigmas::{SigmaSpacing, interpolate, log_sigmas, sigma_to_t, training_sigmas};
use super::{SchedulerConfig, SchedulerKind};
use crate::{Error, Result};

/// One noise level: `x = α·x₀ + σ·ε` with α² + σ² = 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Level {
    pub(super) alpha: f32,
    pub(super) sigma: f32,
    /// log(α/σ), half the logarithm of the signal-to-noise ratio; infinite where σ is 0.
    pub(super) lambda: f32,
}

impl Level {
    /// From σ/α, which is what the sigma tables hold.
    fn new(ratio: f32) -> Self {
        let alpha = 1.0 / (ratio * ratio + 1.0).sqrt();
        let sigma = ratio * alpha;
        Self { alpha, sigma, lambda: ln(alpha) - ln(sigma) }
    }
}

/// The level that a run ends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// No noise at all.
    Zero,
    /// The lowest level of training.
    Training,
    /// The run's own lowest level once more, where σ is spaced by itself; otherwise the lowest of training.
    Run,
}

impl End {
    /// From `final_sigmas_type`; `lowest` is what "sigma_min" means to this class.
    pub(super) fn read(config: &SchedulerConfig, lowest: Self) -> Result<Self> {
        config.choice("final_sigmas_type", &[("zero", Self::Zero), ("sigma_min", lowest)])
    }

    /// Refuses to end without noise, for solvers `whose` formulas have no limit there: diffusers refuses it too, or
    /// gives no numbers.
    pub(super) fn refuse_zero(self, whose: &str) -> Result<()> {
        if self != End::Zero {
            return Ok(());
        }
        Err(Error::Refused {
            field: "final_sigmas_type",
            value: "\"zero\"".into(),
            allowed: format!("\"sigma_min\" with {whose}"),
        })
    }
}

/// The timesteps of a run, and the noise levels at and after them.
#[derive(Debug, Clone)]
pub(super) struct Lambdas {
    timesteps: Vec<f64>,
    /// σ/α, one more than there are timesteps.
    sigmas: Vec<f32>,
    levels: Vec<Level>,
}

impl Lambdas {
    /// The levels of `steps` steps over the training process `alphas_cumprod`, at `timesteps` unless the
    /// configuration spaces σ by itself.
    pub(super) fn new(
        config: &SchedulerConfig,
        alphas_cumprod: &[f32],
        timesteps: Vec<f64>,
        steps: usize,
        end: End,
    ) -> Result<Self> {
        config.only("use_flow_sigmas", false)?;
        let training = training_sigmas(alphas_cumprod);
        let spaced = spaced_sigmas(config, &training, steps)?;
        let last = match (end, &spaced) {
            (End::Zero, _) => 0.0,
            (End::Run, Some(sigmas)) => sigmas[sigmas.len() - 1] as f32,
            (End::Training | End::Run, _) => training[0],
        };
        let (timesteps, sigmas) = match spaced {
            None => {
                let sigmas = timesteps.iter().map(|&t| interpolate(&training, t)).collect();
                (timesteps, sigmas)
            }
            Some(sigmas) => (timesteps_of(config, &sigmas, &training)?, sigmas),
        };
        let sigmas: Vec<f32> = sigmas.into_iter().map(|sigma: f64| sigma as f32).chain([last]).collect();
        let levels = sigmas.iter().copied().map(Level::new).collect();
        Ok(Self { timesteps, sigmas, levels })
    }

    /// The timesteps, from the noisiest.
    pub(super) fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    /// σ/α at every timestep, and where the run ends.
    pub(super) fn sigmas(&self) -> &[f32] {
        &self.sigmas
    }

    /// The level at `timesteps[i]`, or past the last the one that the run ends on.
    pub(super) fn at(&self, i: usize) -> Level {
        self.levels[i]
    }

    /// How many timesteps are left at `timesteps[i]`, itself included.
    pub(super) fn left(&self, i: usize) -> usize {
        self.timesteps.len() - i
    }

    /// `α · original + σ · noise` at `timesteps[i]`.
    pub(super) fn add_noise(&self, original: &Tensor, noise: &Tensor, i: usize) -> Result<Tensor> {
        let Level { alpha, sigma, .. } = self.at(i);
        weighted((alpha, original), &[(sigma, noise)])
    }
}

/// How many training timesteps are left when `lambda_min_clipped` has cut off the noisiest.
pub(super) fn timesteps_above_lambda_min(config: &SchedulerConfig, alphas_cumprod: &[f32]) -> Result<usize> {
    let lowest = config.number("lambda_min_clipped")? as f32;
    let lambda = |alpha: f32| ln(alpha.sqrt()) - ln((1.0 - alpha).sqrt());
    match alphas_cumprod.iter().filter(|&&alpha| lambda(alpha) >= lowest).count() {
        0 => Err(Error::Refused {
            field: "lambda_min_clipped",
            value: lowest.to_string(),
            allowed: "low enough that timesteps are left".into(),
        }),
        count => Ok(count),
    }
}

/// The σ of a run that don't follow its timesteps, if the configuration asks for such.
fn spaced_sigmas(config: &SchedulerConfig, training: &[f32], steps: usize) -> Result<Option<Vec<f64>>> {
    let spacing = SigmaSpacing::read(config)?;
    let (first, last) = (f64::from(training[training.len() - 1]), f64::from(training[0]));
    if spacing != SigmaSpacing::Karras && follows_lu(config)? {
        let logs = log_sigmas(&[training[training.len() - 1], training[0]]);
        let (high, low) = (f64::from(logs[0]), f64::from(logs[1]));
        // Evenly in λ (Lu et al. 2022, arXiv 2206.00927).
        return Ok(Some(
            linspace(0.0, 1.0, steps).into_iter().map(|r| (high + r * (low - high)).exp()).collect(),
        ));
    }
    let highest = config.optional_number("sigma_max")?.unwrap_or(first);
    let lowest = config.optional_number("sigma_min")?.unwrap_or(last);
    Ok(spacing.between(highest, lowest, steps))
}

/// The whole timesteps next to `sigmas`, or where the class doesn't round them, below.
fn timesteps_of(config: &SchedulerConfig, sigmas: &[f64], training: &[f32]) -> Result<Vec<f64>> {
    let multistep = config.kind() == SchedulerKind::DpmSolverMultistep;
    let rounds = SigmaSpacing::read(config)? == SigmaSpacing::Karras || follows_lu(config)?;
    let cosine = multistep
        && config.choice(
            "beta_schedule",
            &[("linear", false), ("scaled_linear", false), ("squaredcos_cap_v2", true)],
        )?;
    let logs = log_sigmas(training);
    let whole = |t: f64| if rounds && !cosine { t.round_ties_even() } else { t.trunc() };
    Ok(sigmas.iter().map(|&sigma| whole(sigma_to_t(sigma, &logs))).collect())
}

/// `use_lu_lambdas`, which only one class has.
fn follows_lu(config: &SchedulerConfig) -> Result<bool> {
    Ok(config.kind() == SchedulerKind::DpmSolverMultistep && config.flag("use_lu_lambdas")?)
}
