//! Pseudo numerical methods for diffusion models (Liu et al. 2022, arXiv 2202.09778); diffusers'
//! `scheduling_pndm.py`.

use candle_core::Tensor;

use super::alphas::AlphasCumprod;
use super::arith::{divided, scaled, weighted};
use super::history::History;
use super::prediction::Prediction;
use super::schedule::train_timesteps;
use super::timesteps::alpha_timesteps;
use super::{Draw, Sampler, SchedulerConfig};
use crate::{Error, Result};

/// How many past outputs the linear multistep formula looks at.
const ORDER: usize = 4;

/// `PNDMScheduler`: a linear multistep method, started by Runge-Kutta steps unless `skip_prk_steps` is set.
///
/// What a step does depends on how many came before it in this run, not on its place in the schedule: a run that
/// begins late because of its strength starts the method anew, just as in diffusers.
#[derive(Debug, Clone)]
pub(super) struct Pndm {
    alphas: AlphasCumprod,
    prediction: Prediction,
    /// The Runge-Kutta timesteps, four evaluations to a step; empty with `skip_prk_steps`.
    prk: Vec<f64>,
    timesteps: Vec<f64>,
    stride: i64,
    /// The steps taken so far.
    counter: usize,
    /// The outputs at the last whole steps.
    ets: History,
    /// The weighted sum of a Runge-Kutta step's outputs so far.
    sum: Option<Tensor>,
    /// The sample that a Runge-Kutta step, or the first multistep one, began from.
    begin: Option<Tensor>,
}

impl Pndm {
    /// Plans `steps` steps.
    pub(super) fn new(config: &SchedulerConfig, steps: usize) -> Result<Self> {
        let train = train_timesteps(config)?;
        let stride = (train / steps) as i64;
        let spaced = alpha_timesteps(config, steps)?;
        let prk = if config.flag("skip_prk_steps")? { Vec::new() } else { prk_timesteps(&spaced, stride)? };
        // The multistep method repeats its second timestep, unless the Runge-Kutta steps have been there.
        let plms = if prk.is_empty() {
            let second = spaced.len().min(2);
            spaced[..second].iter().chain(&spaced[1..]).copied().collect()
        } else {
            spaced[3..].to_vec()
        };
        Ok(Self {
            alphas: AlphasCumprod::read(config)?,
            prediction: Prediction::read_without_sample(config)?,
            timesteps: prk.iter().chain(&plms).copied().collect(),
            prk,
            stride,
            counter: 0,
            ets: History::new(ORDER),
            sum: None,
            begin: None,
        })
    }
}

impl Sampler for Pndm {
    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn add_noise(&self, original: &Tensor, noise: &Tensor, i: usize) -> Result<Tensor> {
        self.alphas.add_noise(original, noise, self.timesteps[i] as i64)
    }

    /// One step from `timesteps[i]`. Draws no noise.
    fn step(&mut self, i: usize, output: &Tensor, sample: &Tensor, _: &mut Draw<'_>) -> Result<Tensor> {
        let t = self.timesteps[i] as i64;
        let prev = if self.counter < self.prk.len() {
            self.step_prk(t, output, sample)?
        } else {
            self.step_plms(t, output, sample)?
        };
        self.counter += 1;
        Ok(prev)
    }
}

impl Pndm {
    /// A quarter of a Runge-Kutta step (formula (13) of the paper).
    fn step_prk(&mut self, t: i64, output: &Tensor, sample: &Tensor) -> Result<Tensor> {
        let quarter = self.counter % 4;
        let prev_t = if quarter.is_multiple_of(2) { t - self.stride / 2 } else { t };
        let from_t = self.prk[self.counter - quarter] as i64;
        let weight = if quarter == 0 || quarter == 3 { 1.0 / 6.0 } else { 1.0 / 3.0 };
        let share = scaled(output, weight)?;
        let sum = match self.sum.take() {
            Some(sum) => (sum + share)?,
            None => share,
        };
        if quarter == 0 {
            self.ets.push(output.clone());
            self.begin = Some(sample.clone());
        }
        let begin = self.begin.as_ref().unwrap_or(sample);
        if quarter == 3 {
            return self.transfer(begin, from_t, prev_t, &sum);
        }
        let prev = self.transfer(begin, from_t, prev_t, output)?;
        self.sum = Some(sum);
        Ok(prev)
    }

    /// A linear multistep step (formula (9)). The second step repeats the first with the mean of the outputs at its
    /// two ends.
    fn step_plms(&mut self, t: i64, output: &Tensor, sample: &Tensor) -> Result<Tensor> {
        if self.counter == 1 && self.prk.is_empty() {
            let e = self.ets.newest_first();
            let mean = divided(&(output + e[0])?, 2.0)?;
            let begin = self.begin.take();
            return self.transfer(begin.as_ref().unwrap_or(sample), t + self.stride, t, &mean);
        }
        self.ets.push(output.clone());
        let e = self.ets.newest_first();
        let slope = match *e.as_slice() {
            [e1, e2] => divided(&weighted((3.0, e1), &[(-1.0, e2)])?, 2.0)?,
            [e1, e2, e3] => divided(&weighted((23.0, e1), &[(-16.0, e2), (5.0, e3)])?, 12.0)?,
            [e1, e2, e3, e4] => {
                scaled(&weighted((55.0, e1), &[(-59.0, e2), (37.0, e3), (-9.0, e4)])?, 1.0 / 24.0)?
            }
            _ => output.clone(),
        };
        if self.counter == 0 {
            self.begin = Some(sample.clone());
        }
        self.transfer(sample, t, t - self.stride, &slope)
    }

    /// The transfer from one timestep to another (formula (11)).
    fn transfer(&self, sample: &Tensor, t: i64, prev_t: i64, output: &Tensor) -> Result<Tensor> {
        let alpha_t = self.alphas.at(t)?;
        let alpha_prev = self.alphas.before(prev_t)?;
        let (beta_t, beta_prev) = (1.0 - alpha_t, 1.0 - alpha_prev);
        let epsilon = self.prediction.noise(output, sample, alpha_t.sqrt(), beta_t.sqrt())?;
        let scale = (alpha_prev / alpha_t).sqrt();
        let denominator = alpha_t * beta_prev.sqrt() + (alpha_t * beta_t * alpha_prev).sqrt();
        let change = divided(&scaled(&epsilon, alpha_prev - alpha_t)?, denominator)?;
        weighted((scale, sample), &[(-1.0, &change)])
    }
}

/// The timesteps of the three Runge-Kutta steps from the four noisiest of `spaced`, each of four evaluations: at its
/// beginning, twice half a stride on, and at its end.
fn prk_timesteps(spaced: &[f64], stride: i64) -> Result<Vec<f64>> {
    let Some(noisiest) = spaced.get(..ORDER) else {
        return Err(Error::Refused {
            field: "steps",
            value: spaced.len().to_string(),
            allowed: format!("{ORDER} or more with PNDMScheduler where skip_prk_steps is false"),
        });
    };
    let half = (stride / 2) as f64;
    Ok(noisiest.windows(2).flat_map(|ends| [ends[0], ends[1] + half, ends[1] + half, ends[1]]).collect())
}
