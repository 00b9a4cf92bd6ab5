//! Noise schedulers: which noise levels a run visits, and how it gets from one to the next.
//!
//! One file per algorithm of diffusers 0.42.1, under diffusers' class names. A [`SchedulerConfig`] is what
//! `scheduler_config.json` says; a [`Scheduler`] is one made for one request, with the history that multistep
//! algorithms keep.
//!
//! # Numbers
//!
//! diffusers holds its tables (ᾱ, σ) and most coefficients as float32, and so does this module, in the same order of
//! operations; what diffusers computes in double precision is computed in double precision here. Samples are carried
//! in float32 and returned in the dtype they came in.
//!
//! # To add one
//!
//! One file with a struct that implements [`Sampler`], a variant in [`SchedulerKind`] with its keys in `signature.rs`,
//! one line in [`Scheduler::new`] and one in the fixture generator.

mod alphas;
mod arith;
mod bounds;
mod config;
mod ddim;
mod ddpm;
mod deis_multistep;
mod dpmsolver;
mod dpmsolver_multistep;
mod dpmsolver_sde;
mod dpmsolver_singlestep;
mod euler_ancestral_discrete;
mod euler_discrete;
mod heun_discrete;
mod history;
mod k_diffusion;
mod kdpm2_ancestral_discrete;
mod kdpm2_discrete;
mod kind;
mod lambdas;
mod lcm;
mod lms_discrete;
mod pndm;
mod prediction;
mod schedule;
mod sigmas;
mod signature;
mod tcd;
mod timesteps;
mod unipc_multistep;

use candle_core::{DType, Device, Tensor};

pub use config::SchedulerConfig;
use ddim::Ddim;
use ddpm::Ddpm;
use deis_multistep::DeisMultistep;
use dpmsolver_multistep::DpmSolverMultistep;
use dpmsolver_sde::DpmSolverSde;
use dpmsolver_singlestep::DpmSolverSinglestep;
use euler_ancestral_discrete::EulerAncestralDiscrete;
use euler_discrete::EulerDiscrete;
use heun_discrete::HeunDiscrete;
use kdpm2_ancestral_discrete::Kdpm2AncestralDiscrete;
use kdpm2_discrete::Kdpm2Discrete;
pub use kind::SchedulerKind;
use lcm::Lcm;
use lms_discrete::LmsDiscrete;
use pndm::Pndm;
use prediction::Prediction;
pub use schedule::TimestepSpacing;
use tcd::Tcd;
use unipc_multistep::UniPcMultistep;

use crate::{Error, Result};

/// What a run asks of its scheduler beyond the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct StepOptions {
    /// η of DDIM and γ of TCD: the share of DDPM's noise that every step adds, 0 to 1. diffusers' inpainting pipelines
    /// pass theirs, 0 unless told otherwise, to every scheduler that takes one. The others don't look at it.
    pub eta: f64,
    /// Where `DPMSolverSDEScheduler` starts its Brownian path when the configuration has no `noise_sampler_seed`.
    /// diffusers then takes the seed from torch's global generator, which no request can repeat.
    pub seed: u64,
}

/// Draws standard normal noise of a shape, on the host, from the request's generator.
pub type Draw<'a> = dyn FnMut(&[usize]) -> Result<Tensor> + 'a;

/// What every algorithm offers. `i` is an index into [`Sampler::timesteps`]; tensors are float32 inside.
pub(crate) trait Sampler {
    /// diffusers' `timesteps` after `set_timesteps`.
    fn timesteps(&self) -> &[f64];

    /// diffusers' `sigmas`, for the algorithms that have them.
    fn sigmas(&self) -> &[f32] {
        &[]
    }

    /// How many of the timesteps make up one inference step.
    fn order(&self) -> usize {
        1
    }

    /// The standard deviation of the noise that a run from pure noise starts with.
    fn init_noise_sigma(&self) -> f64 {
        1.0
    }

    /// Whether diffusers draws this algorithm's noise in float32 whatever the dtype of the network.
    fn draws_float32(&self) -> bool {
        false
    }

    /// The network's input for the sample at `timesteps[i]`.
    fn scale_model_input(&self, sample: &Tensor, _i: usize) -> Result<Tensor> {
        Ok(sample.clone())
    }

    /// `original` with `noise`, at the noise level of `timesteps[i]`.
    fn add_noise(&self, original: &Tensor, noise: &Tensor, i: usize) -> Result<Tensor>;

    /// The sample after `timesteps[i]`.
    fn step(&mut self, i: usize, output: &Tensor, sample: &Tensor, draw: &mut Draw<'_>) -> Result<Tensor>;
}

/// The least share of the clean sample from which [`Scheduler::clean_estimate`] can tell it.
const LEAST_ALPHA: f32 = 1e-3;

/// A scheduler made for one run: its timesteps, and the history of the steps taken.
pub struct Scheduler {
    sampler: Box<dyn Sampler>,
    prediction: Prediction,
}

impl Scheduler {
    /// Plans a run of `steps` inference steps.
    ///
    /// # Errors
    /// A value of the configuration that is out of range, or that changes the mathematics in a way not implemented
    /// here, by name; no steps at all.
    pub fn new(config: &SchedulerConfig, steps: usize, options: StepOptions) -> Result<Self> {
        if steps == 0 {
            return Err(Error::Refused { field: "steps", value: "0".into(), allowed: "1 and above".into() });
        }
        if !(0.0..=1.0).contains(&options.eta) {
            return Err(Error::Refused {
                field: "eta",
                value: options.eta.to_string(),
                allowed: "0 to 1".into(),
            });
        }
        let sampler: Box<dyn Sampler> = match config.kind() {
            SchedulerKind::Ddim => Box::new(Ddim::new(config, steps, options.eta)?),
            SchedulerKind::Ddpm => Box::new(Ddpm::new(config, steps)?),
            SchedulerKind::DeisMultistep => Box::new(DeisMultistep::new(config, steps)?),
            SchedulerKind::DpmSolverMultistep => Box::new(DpmSolverMultistep::new(config, steps)?),
            SchedulerKind::DpmSolverSde => Box::new(DpmSolverSde::new(config, steps, options.seed)?),
            SchedulerKind::DpmSolverSinglestep => Box::new(DpmSolverSinglestep::new(config, steps)?),
            SchedulerKind::EulerAncestralDiscrete => Box::new(EulerAncestralDiscrete::new(config, steps)?),
            SchedulerKind::EulerDiscrete => Box::new(EulerDiscrete::new(config, steps)?),
            SchedulerKind::HeunDiscrete => Box::new(HeunDiscrete::new(config, steps)?),
            SchedulerKind::Kdpm2AncestralDiscrete => Box::new(Kdpm2AncestralDiscrete::new(config, steps)?),
            SchedulerKind::Kdpm2Discrete => Box::new(Kdpm2Discrete::new(config, steps)?),
            SchedulerKind::Lcm => Box::new(Lcm::new(config, steps)?),
            SchedulerKind::LmsDiscrete => Box::new(LmsDiscrete::new(config, steps)?),
            SchedulerKind::Pndm => Box::new(Pndm::new(config, steps)?),
            SchedulerKind::Tcd => Box::new(Tcd::new(config, steps, options.eta)?),
            SchedulerKind::UniPcMultistep => Box::new(UniPcMultistep::new(config, steps)?),
        };
        // Each sampler has refused what it does not know.
        let prediction = Prediction::read_with_original_sample(config)?;
        Ok(Self { sampler, prediction })
    }

    /// Every timestep of the run, from the noisiest: diffusers' `scheduler.timesteps`. Second-order algorithms have
    /// two for every inference step but one.
    pub fn timesteps(&self) -> &[f64] {
        self.sampler.timesteps()
    }

    /// diffusers' `scheduler.sigmas`: one more than the timesteps, or none where the algorithm has no such table.
    pub fn sigmas(&self) -> &[f32] {
        self.sampler.sigmas()
    }

    /// How many of the timesteps make up one inference step: 1 or 2.
    pub fn order(&self) -> usize {
        self.sampler.order()
    }

    /// The standard deviation of the noise that a run from pure noise starts with.
    pub fn init_noise_sigma(&self) -> f64 {
        self.sampler.init_noise_sigma()
    }

    /// The dtype that the noise of [`Scheduler::step`] is drawn in, for a network of dtype `network`: torch's generator
    /// gives other values for each.
    pub fn noise_dtype(&self, network: DType) -> DType {
        if self.sampler.draws_float32() { DType::F32 } else { network }
    }

    /// The network's input for the sample at `timesteps()[i]`, in the sample's shape and dtype.
    ///
    /// # Errors
    /// `i` is past the last timestep.
    pub fn scale_model_input(&self, sample: &Tensor, i: usize) -> Result<Tensor> {
        self.check(i)?;
        let scaled = self.sampler.scale_model_input(&sample.to_dtype(DType::F32)?, i)?;
        Ok(scaled.to_dtype(sample.dtype())?)
    }

    /// `original` with standard normal `noise` at the noise level of `timesteps()[i]`, both of the same shape; in the
    /// dtype of `original`. It is what diffusers' `add_noise` gives its pipelines, which set a begin index: the level
    /// goes by `i`, not by the timestep.
    ///
    /// # Errors
    /// `i` is past the last timestep.
    pub fn add_noise(&self, original: &Tensor, noise: &Tensor, i: usize) -> Result<Tensor> {
        self.check(i)?;
        let noisy =
            self.sampler.add_noise(&original.to_dtype(DType::F32)?, &noise.to_dtype(DType::F32)?, i)?;
        Ok(noisy.to_dtype(original.dtype())?)
    }

    /// The clean sample that a network's output at `timesteps()[i]` points to, from that output alone: neither history
    /// nor clipping counts. `None` where the sample holds next to nothing of it and the output is the noise: what would
    /// be left is no estimate.
    ///
    /// # Errors
    /// `i` is past the last timestep.
    pub fn clean_estimate(&self, i: usize, output: &Tensor, sample: &Tensor) -> Result<Option<Tensor>> {
        // What `add_noise` makes of a 1 and a 0 is how much it takes of either.
        let [one, zero] = [1_f32, 0.0].map(|value| Tensor::full(value, (1,), &Device::Cpu));
        let (one, zero) = (one?, zero?);
        let share =
            |original, noise| Ok::<_, Error>(self.add_noise(original, noise, i)?.to_vec1::<f32>()?[0]);
        let (original, noise) = (share(&one, &zero)?, share(&zero, &one)?);
        let norm = original.hypot(noise);
        let (alpha, sigma) = (original / norm, noise / norm);
        if self.prediction == Prediction::Epsilon && alpha < LEAST_ALPHA {
            return Ok(None);
        }
        let sample = arith::divided(&sample.to_dtype(DType::F32)?, norm)?;
        Ok(Some(self.prediction.original(&output.to_dtype(DType::F32)?, &sample, alpha, sigma)?))
    }

    /// The sample after `timesteps()[i]`, in the sample's shape and dtype. A run takes the indices in order, from
    /// whichever it starts at: history is empty there. `draw` is called as often, and in the same order, as diffusers
    /// draws from its generator.
    ///
    /// # Errors
    /// `i` is past the last timestep, or noise can't be drawn.
    pub fn step(
        &mut self,
        i: usize,
        model_output: &Tensor,
        sample: &Tensor,
        draw: &mut Draw<'_>,
    ) -> Result<Tensor> {
        self.check(i)?;
        let (output, x) = (model_output.to_dtype(DType::F32)?, sample.to_dtype(DType::F32)?);
        let mut draw = |shape: &[usize]| Ok(draw(shape)?.to_dtype(DType::F32)?.to_device(x.device())?);
        let prev = self.sampler.step(i, &output, &x, &mut draw)?;
        Ok(prev.to_dtype(sample.dtype())?)
    }

    fn check(&self, i: usize) -> Result<()> {
        let count = self.timesteps().len();
        if i < count {
            return Ok(());
        }
        Err(Error::Refused { field: "step index", value: i.to_string(), allowed: format!("below {count}") })
    }
}
