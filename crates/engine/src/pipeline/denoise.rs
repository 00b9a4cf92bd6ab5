//! Noise to latents: the denoising loop.

use infill_networks::embeddings::guidance_scale_embedding;
use infill_networks::unet::{AddedConditions, Conditions, ImagePrompts};
use infill_networks::{DType, Tensor};

use super::encode::PixelInputs;
use super::noise_source::NoiseSource;
use super::preview::{Moment, Previewer};
use super::{Conditioning, Observer, Pipeline, Progress};
use crate::guidance::Guidance;
use crate::request::InpaintRequest;
use crate::scheduler::Scheduler;
use crate::{Error, Result};

/// One run through the schedule.
#[derive(Clone, Copy)]
pub(super) struct Run<'a> {
    pub request: &'a InpaintRequest,
    pub guidance: Guidance,
    pub conditioning: &'a Conditioning,
    pub image_prompts: Option<&'a ImagePrompts>,
    pub inputs: &'a PixelInputs,
    pub previewer: Option<&'a Previewer>,
    /// The sample's number, from 0.
    pub index: usize,
    pub seed: u64,
    /// How many noise levels the network was trained on.
    pub train_timesteps: usize,
}

/// Which entries of the scheduler's timesteps are run.
struct Span {
    first: usize,
    end: usize,
}

impl Pipeline {
    /// Runs the schedule for one generator and returns scaled latents `(B,4,h,w)` in f32.
    ///
    /// Draws, in diffusers' order: the picture's posterior (4 channels, or a start from the picture), the initial
    /// noise, the masked picture's posterior (for 4 channels too, where it goes unused), the scheduler's own.
    pub(super) fn denoise(
        &self,
        run: &Run<'_>,
        mut scheduler: Scheduler,
        observer: &mut Observer<'_>,
    ) -> Result<Tensor> {
        let Run { request, guidance, conditioning, inputs, .. } = *run;
        let params = request.params();
        let batch = params.num_images_per_prompt;
        let span = span(request, &scheduler, run.train_timesteps)?;
        let (_, _, h, w) = inputs.mask.dims4()?;
        let mut noise_source = NoiseSource::new(run.seed, params.noise_era);

        // 1. The random inputs.
        let image_latents = match &inputs.image {
            Some(posterior) => {
                Some(repeat(&self.sample_posterior(posterior, &mut noise_source, observer)?, batch)?)
            }
            None => None,
        };
        let noise = noise_source.draw(&[batch, 4, h, w], self.dtype, &self.device, observer)?;
        let masked_latents =
            repeat(&self.sample_posterior(&inputs.masked_image, &mut noise_source, observer)?, batch)?;

        // 2. Where the run begins.
        let mut latents = match &image_latents {
            Some(clean) if params.denoising_start.is_some() => clean.clone(),
            Some(clean) if params.strength < 1.0 => scheduler.add_noise(clean, &noise, span.first)?,
            _ => (&noise * scheduler.init_noise_sigma())?,
        };
        observer.tap("lat/init", &latents);

        // 3. What stays the same at every step.
        let halves = if guidance.is_on() { 2 } else { 1 };
        let mask = repeat(&inputs.mask, batch * halves)?;
        let masked_latents = repeat(&masked_latents, halves)?;
        observer.tap("lat/mask", &mask);
        observer.tap("lat/masked_image_latents", &masked_latents);
        let known = match self.is_inpaint_model() {
            true => Some(Tensor::cat(&[&mask, &masked_latents], 1)?),
            false => None,
        };
        let added = match (&conditioning.text_embeds, &conditioning.time_ids) {
            (Some(text_embeds), Some(time_ids)) => {
                Some(AddedConditions { text_embeds: text_embeds.clone(), time_ids: time_ids.clone() })
            }
            _ => None,
        };
        let timestep_cond = match (guidance, self.unet()?.config().time_cond_proj_dim) {
            (Guidance::Embedded { scale }, Some(dim)) => Some(guidance_scale_embedding(scale, dim)?),
            _ => None,
        };
        if let Some(embedding) = &timestep_cond {
            observer.tap("cond/timestep_cond", embedding);
        }
        let interrupt = observer.interrupt().clone();
        let conditions = Conditions {
            added: added.as_ref(),
            image_prompts: run.image_prompts,
            timestep_cond: timestep_cond.as_ref(),
            interrupt: Some(&interrupt),
            ..Conditions::new(&conditioning.encoder_hidden_states)
        };

        // 4. The loop.
        let timesteps = scheduler.timesteps().to_vec();
        let noise_dtype = scheduler.noise_dtype(self.dtype);
        let steps = span.end - span.first;
        for (step, i) in (span.first..span.end).enumerate() {
            observer.report(Progress::Step { sample: run.index, samples: params.samples, step, steps })?;
            let scaled = scheduler.scale_model_input(&repeat(&latents, halves)?, i)?;
            let input = match &known {
                Some(known) => Tensor::cat(&[&scaled, known], 1)?,
                None => scaled,
            };
            observer.tap_at("step", step, "unet_in", &input);
            let output = self
                .unet()?
                .forward(&input.to_dtype(self.dtype)?, timesteps[i], &conditions)?
                .to_dtype(DType::F32)?;
            observer.tap_at("step", step, "unet_out", &output);
            let prediction = guidance.combine(&output)?;
            observer.tap_at("step", step, "noise_pred", &prediction);
            if let Some(previewer) = run.previewer {
                let moment = Moment {
                    scheduler: &scheduler,
                    i,
                    step,
                    steps,
                    prediction: &prediction,
                    latents: &latents,
                };
                previewer.show(&moment, run.index * batch, observer)?;
            }
            latents = scheduler.step(i, &prediction, &latents, &mut |shape| {
                noise_source.draw(shape, noise_dtype, &self.device, observer)
            })?;
            observer.tap_at("step", step, "prev", &latents);
            if let (None, Some(clean)) = (&known, &image_latents) {
                let kept =
                    if i + 1 < span.end { scheduler.add_noise(clean, &noise, i + 1)? } else { clean.clone() };
                latents = put_back(&kept, &latents, &inputs.mask)?;
            }
            observer.tap_at("step", step, "latents", &latents);
        }
        Ok(latents)
    }
}

/// Which timesteps are run, by strength or by the denoising range.
fn span(request: &InpaintRequest, scheduler: &Scheduler, train_timesteps: usize) -> Result<Span> {
    let params = request.params();
    let timesteps = scheduler.timesteps();
    let train = train_timesteps as f64;
    let cutoff = |share: f64| (train - share * train).round_ties_even();
    let first = match params.denoising_start {
        None => {
            let left = request.steps_after_strength();
            ((params.num_inference_steps - left) * scheduler.order()).min(timesteps.len())
        }
        Some(start) => {
            let below = timesteps.iter().filter(|&&t| t < cutoff(start)).count();
            // A second-order scheduler repeats every timestep but the first: never begin between a pair.
            let below = if scheduler.order() == 2 && below % 2 == 0 { below + 1 } else { below };
            timesteps.len().saturating_sub(below)
        }
    };
    let end = match params.denoising_end {
        None => timesteps.len(),
        Some(end) => first + timesteps[first..].iter().filter(|&&t| t >= cutoff(end)).count(),
    };
    if first >= end {
        return Err(Error::Refused {
            field: "denoising_start",
            value: format!("{:?} to {:?}", params.denoising_start, params.denoising_end),
            allowed: format!("a range that holds at least one of the {} steps", params.num_inference_steps),
        });
    }
    Ok(Span { first, end })
}

/// The known region from `kept`, the painted one from `latents`.
fn put_back(kept: &Tensor, latents: &Tensor, mask: &Tensor) -> Result<Tensor> {
    let known = mask.affine(-1.0, 1.0)?;
    Ok((kept.broadcast_mul(&known)? + latents.broadcast_mul(mask)?)?)
}

/// The batch `x`, `count` times in a row, as torch's `repeat` lays it out.
fn repeat(x: &Tensor, count: usize) -> Result<Tensor> {
    if count == 1 { Ok(x.clone()) } else { Ok(x.repeat((count, 1, 1, 1))?) }
}
