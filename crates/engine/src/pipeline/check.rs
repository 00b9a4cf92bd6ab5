//! What can be told of a run before anything of a model's weights is read.

use infill_models::{Checkpoint, Family};

use super::Pipeline;
use super::load::text_layers;
use crate::request::{InpaintRequest, SchedulerChoice};
use crate::scheduler::{Scheduler, SchedulerConfig, SchedulerKind, StepOptions, TimestepSpacing};
use crate::{Error, Result};

/// Whether a checkpoint's scheduler takes the steps and the options of a request, and whether its text encoders have
/// the layers that are to be left out.
///
/// # Errors
/// [`Error::Refused`] by the name of the field or of the scheduler's key; a configuration that can't be read.
pub fn check_run(checkpoint: &Checkpoint, request: &InpaintRequest) -> Result<()> {
    let params = request.params();
    let config = chosen(&own_scheduler_config(checkpoint)?, &params.scheduler)?;
    Scheduler::new(&config, params.num_inference_steps, StepOptions { eta: params.eta, seed: params.seed })?;
    let is_xl = checkpoint.family() != Family::StableDiffusion;
    match text_layers(checkpoint)?.into_iter().min() {
        Some(layers) => check_clip_skip(params.clip_skip, layers, is_xl),
        None => Ok(()),
    }
}

/// Puts where the steps lie into the choice of a scheduler, unless the one that a run on this checkpoint has places them
/// by a rule of its own.
///
/// # Errors
/// A configuration that can't be read.
pub fn place_timesteps(
    checkpoint: &Checkpoint,
    spacing: TimestepSpacing,
    choice: &mut SchedulerChoice,
) -> Result<()> {
    if scheduler_kind(checkpoint, choice)?.spaces_timesteps() {
        choice.overrides.push((TimestepSpacing::KEY.to_owned(), spacing.name().into()));
    }
    Ok(())
}

/// The class of the scheduler that a run on this checkpoint has.
///
/// # Errors
/// A configuration that can't be read.
pub fn scheduler_kind(checkpoint: &Checkpoint, choice: &SchedulerChoice) -> Result<SchedulerKind> {
    Ok(chosen(&own_scheduler_config(checkpoint)?, choice)?.kind())
}

/// The scheduler that a checkpoint brings, as diffusers' pipeline of its family amends it.
pub(super) fn own_scheduler_config(checkpoint: &Checkpoint) -> Result<SchedulerConfig> {
    let config = SchedulerConfig::from_json(checkpoint.scheduler_config()?)?;
    Ok(match checkpoint.family() {
        Family::StableDiffusion => config.for_stable_diffusion(),
        Family::StableDiffusionXl | Family::StableDiffusionXlRefiner => config,
    })
}

/// A model's own scheduler with what a request says of it.
fn chosen(own: &SchedulerConfig, choice: &SchedulerChoice) -> Result<SchedulerConfig> {
    let mut config = match choice.kind {
        Some(kind) => own.with_class(kind),
        None => own.clone(),
    };
    for (key, value) in &choice.overrides {
        config.set(key, value.clone())?;
    }
    Ok(config)
}

/// How many layers from its last state a UNet's words are read: SDXL's from the penultimate one, without the final norm.
pub(super) fn counted_from(is_xl: bool) -> usize {
    if is_xl { 2 } else { 1 }
}

/// Whether a text encoder of `layers` layers has one left where so many are skipped.
pub(super) fn check_clip_skip(skip: Option<usize>, layers: usize, is_xl: bool) -> Result<()> {
    // One state more than layers: the embedded words.
    let most = (layers + 1).saturating_sub(counted_from(is_xl));
    match skip.filter(|skip| *skip > most) {
        None => Ok(()),
        Some(skip) => Err(Error::Refused {
            field: "clip_skip",
            value: skip.to_string(),
            allowed: format!("0 to {most} with this model's text encoders"),
        }),
    }
}

impl Pipeline {
    /// The scheduler of this request, with its class.
    ///
    /// # Errors
    /// A configuration value that the class does not implement, by name.
    pub fn scheduler_config(&self, request: &InpaintRequest) -> Result<SchedulerConfig> {
        chosen(&self.scheduler_config, &request.params().scheduler)
    }
}
