//! A checkpoint's networks, loaded onto a device.

use infill_models::{Checkpoint, Family, dialect};
use infill_networks::clip::text::{ClipTextConfig, ClipTextModel};
use infill_networks::tokenizer::ClipTokenizer;
use infill_networks::unet::{UNet2DConditionConfig, UNet2DConditionModel};
use infill_networks::vae::{AutoencoderKl, AutoencoderKlConfig};
use infill_networks::weights::Weights;
use infill_networks::{DType, Device};
use serde_json::Value;

use super::fit::{self, Words};
use super::{Observer, Pipeline, Progress, TextEncoder};
use crate::Result;
use crate::scheduler::SchedulerConfig;

/// How a checkpoint is loaded.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// Where the networks run.
    pub device: Device,
    /// The number format of the UNet and the text encoders. The VAE runs in f32 where its configuration says
    /// `force_upcast`, since SDXL's own overflows in half precision.
    pub dtype: DType,
}

impl Pipeline {
    /// Loads all networks of a checkpoint.
    ///
    /// # Errors
    /// A configuration value that is not implemented, or tensors that are missing, surplus or misshapen: by name.
    /// [`crate::Error::Refused`] for components that don't fit together. [`crate::Error::Cancelled`] if the observer breaks between two components.
    pub fn load(checkpoint: &Checkpoint, options: &LoadOptions, observer: &mut Observer<'_>) -> Result<Self> {
        let loader = Loader { checkpoint, options };
        let scheduler_config = SchedulerConfig::from_json(checkpoint.scheduler_config()?)?;
        let scheduler_config = match checkpoint.family() {
            Family::StableDiffusion => scheduler_config.for_stable_diffusion(),
            Family::StableDiffusionXl | Family::StableDiffusionXlRefiner => scheduler_config,
        };

        let mut text_encoders = Vec::new();
        let mut words = Words::new(checkpoint.family(), checkpoint.requires_aesthetics_score());
        for (component, tokenizer, tap) in
            [("text_encoder", "tokenizer", "te1"), ("text_encoder_2", "tokenizer_2", "te2")]
        {
            if checkpoint.component(component).is_none() {
                continue;
            }
            observer.report(Progress::Loading { component })?;
            let tokenizer = ClipTokenizer::open(&checkpoint.folder(tokenizer)?)?;
            // SDXL reads the second encoder's projection; its class name says whether there is one.
            let with_projection = checkpoint.class_of(component) == Some("CLIPTextModelWithProjection");
            let config = ClipTextConfig::from_json(component, loader.config(component)?)?;
            fit::check_tokenizer(component, &tokenizer, &config)?;
            words.add(&config, with_projection);
            let weights = loader.weights(component, dialect::text_encoder_key, options.dtype)?;
            let model = ClipTextModel::new(component, &config, &weights, with_projection)?;
            weights.finish()?;
            text_encoders.push(TextEncoder { tap, tokenizer, model });
        }

        observer.report(Progress::Loading { component: "unet" })?;
        let config = UNet2DConditionConfig::from_json("unet", loader.config("unet")?)?;
        fit::check_unet(&config, &words)?;
        let weights = loader.weights("unet", dialect::unet_key, options.dtype)?;
        let unet = UNet2DConditionModel::new(config, &weights)?;
        weights.finish()?;

        observer.report(Progress::Loading { component: "vae" })?;
        let config = AutoencoderKlConfig::from_json("vae", loader.config("vae")?)?;
        fit::check_vae(&config)?;
        let vae_dtype = if config.force_upcast { DType::F32 } else { options.dtype };
        let weights = loader.weights("vae", dialect::vae_key, vae_dtype)?;
        let vae = AutoencoderKl::new(config, &weights)?;
        weights.finish()?;

        Ok(Self {
            family: checkpoint.family(),
            text_encoders,
            unet,
            vae,
            scheduler_config,
            force_zeros_for_empty_prompt: checkpoint.force_zeros_for_empty_prompt(),
            requires_aesthetics_score: checkpoint.requires_aesthetics_score(),
            device: options.device.clone(),
            dtype: options.dtype,
            vae_dtype,
            posterior_noise_dtype: match checkpoint.family() {
                Family::StableDiffusion => options.dtype,
                Family::StableDiffusionXl | Family::StableDiffusionXlRefiner => vae_dtype,
            },
        })
    }
}

struct Loader<'a> {
    checkpoint: &'a Checkpoint,
    options: &'a LoadOptions,
}

impl Loader<'_> {
    fn config(&self, component: &str) -> Result<&Value> {
        Ok(&self.checkpoint.required(component)?.config)
    }

    fn weights(&self, component: &str, rename: fn(&str) -> String, dtype: DType) -> Result<Weights> {
        let files = &self.checkpoint.required(component)?.weight_files;
        Ok(Weights::open(component, files, rename, dtype, &self.options.device)?)
    }
}
