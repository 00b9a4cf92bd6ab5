//! A checkpoint's networks, loaded onto a device.

use infill_models::{Checkpoint, Family, dialect};
use infill_networks::clip::text::{ClipTextConfig, ClipTextModel};
use infill_networks::lora::Changes;
use infill_networks::tokenizer::ClipTokenizer;
use infill_networks::unet::{UNet2DConditionConfig, UNet2DConditionModel};
use infill_networks::vae::{AutoencoderKl, AutoencoderKlConfig};
use infill_networks::weights::Weights;
use infill_networks::{DType, Device, Interrupt};
use serde_json::Value;

use super::check::own_scheduler_config;
use super::concepts::Merged;
use super::fit::{self, Words};
use super::{Observer, Pipeline, Progress, TextEncoder};
use crate::Result;
use crate::device::{DTypeChoice, DeviceChoice};
use crate::guidance::default_guidance_scale;
use crate::image_prompt::BlockMap;

/// How a checkpoint is loaded.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// Where the networks run.
    pub device: Device,
    /// The number format of the UNet and the text encoders. The VAE runs in f32 where its configuration says
    /// `force_upcast`, since SDXL's own overflows in half precision.
    pub dtype: DType,
}

impl LoadOptions {
    /// What these choices come to on this machine: the one way from what was asked for to what a run is planned for and
    /// done on.
    ///
    /// # Errors
    /// A device that this build or this machine does not have.
    pub fn choose(device: DeviceChoice, dtype: DTypeChoice) -> Result<Self> {
        let device = device.open()?;
        Ok(Self { dtype: dtype.on(&device), device })
    }
}

impl Pipeline {
    /// Loads all networks of a checkpoint.
    ///
    /// # Errors
    /// A configuration value that is not implemented, or tensors that are missing, surplus or misshapen: by name.
    /// [`crate::Error::Refused`] for components that don't fit together. [`crate::Error::Cancelled`] if the observer breaks between two components or
    /// its interrupt in the middle of one.
    pub fn load(checkpoint: &Checkpoint, options: &LoadOptions, observer: &mut Observer<'_>) -> Result<Self> {
        let LoadOptions { device, dtype } = options;
        let loader = Loader { checkpoint, device, dtype: *dtype, interrupt: observer.interrupt().clone() };
        let scheduler_config = own_scheduler_config(checkpoint)?;

        let mut text_encoders = Vec::new();
        let mut words = Words::new(checkpoint.family(), checkpoint.requires_aesthetics_score());
        for (component, tokenizer, tap) in TEXT_ENCODERS {
            if checkpoint.component(component).is_none() {
                continue;
            }
            observer.report(Progress::Loading { component })?;
            let tokenizer = ClipTokenizer::open(&checkpoint.folder(tokenizer)?)?;
            let (config, with_projection) = loader.text_config(component)?;
            fit::check_tokenizer(component, &tokenizer, &config)?;
            words.add(&config, with_projection);
            let model = loader.text_model(component, Changes::default())?;
            text_encoders.push(TextEncoder { component, tap, tokenizer, model, added_words: Vec::new() });
        }

        observer.report(Progress::Loading { component: "unet" })?;
        let config = UNet2DConditionConfig::from_json("unet", loader.config("unet")?)?;
        fit::check_unet(&config, &words)?;
        let unet = loader.unet(Changes::default())?;

        observer.report(Progress::Loading { component: "vae" })?;
        let config = AutoencoderKlConfig::from_json("vae", loader.config("vae")?)?;
        fit::check_vae(&config)?;
        let vae_dtype = if config.force_upcast { DType::F32 } else { *dtype };
        let weights = loader.weights("vae", dialect::vae_key, vae_dtype)?;
        let vae = AutoencoderKl::new(config, &weights)?;
        weights.finish()?;

        Ok(Self {
            family: checkpoint.family(),
            default_guidance_scale: default_guidance_scale(checkpoint),
            text_encoders,
            embedding_names: Vec::new(),
            is_inpaint_model: unet.config().in_channels == 9,
            unet: Some(unet),
            merged: Merged::default(),
            vae,
            ip_adapters: Vec::new(),
            style_blocks: checkpoint.style_blocks().map(BlockMap::from_json).transpose()?,
            scheduler_config,
            force_zeros_for_empty_prompt: checkpoint.force_zeros_for_empty_prompt(),
            requires_aesthetics_score: checkpoint.requires_aesthetics_score(),
            device: device.clone(),
            dtype: *dtype,
            vae_dtype,
            posterior_noise_dtype: match checkpoint.family() {
                Family::StableDiffusion => *dtype,
                Family::StableDiffusionXl | Family::StableDiffusionXlRefiner => vae_dtype,
            },
        })
    }
}

/// Every text encoder that a checkpoint may have, in the order in which their features are joined: its folder, its
/// tokenizer's folder, the name of its taps.
const TEXT_ENCODERS: [(&str, &str, &str); 2] =
    [("text_encoder", "tokenizer", "te1"), ("text_encoder_2", "tokenizer_2", "te2")];

/// How many layers each text encoder of a checkpoint has.
pub(super) fn text_layers(checkpoint: &Checkpoint) -> Result<Vec<usize>> {
    let here = TEXT_ENCODERS.iter().filter_map(|(name, ..)| Some((*name, checkpoint.component(name)?)));
    here.map(|(name, component)| Ok(ClipTextConfig::from_json(name, &component.config)?.num_hidden_layers))
        .collect()
}

/// Builds one network at a time from a checkpoint.
pub(super) struct Loader<'a> {
    pub(super) checkpoint: &'a Checkpoint,
    pub(super) device: &'a Device,
    /// The number format of the UNet and the text encoders.
    pub(super) dtype: DType,
    /// Asked at every tensor.
    pub(super) interrupt: Interrupt,
}

impl Loader<'_> {
    /// The UNet, with these changes made to its weights.
    pub(super) fn unet(&self, changes: Changes) -> Result<UNet2DConditionModel> {
        let config = UNet2DConditionConfig::from_json("unet", self.config("unet")?)?;
        let weights = self.mapped("unet")?.with_changes(changes)?;
        let unet = UNet2DConditionModel::new(config, &weights)?;
        weights.finish()?;
        Ok(unet)
    }

    /// The network of the text encoder in the folder `component`, with these changes made to its weights.
    pub(super) fn text_model(&self, component: &str, changes: Changes) -> Result<ClipTextModel> {
        let (config, with_projection) = self.text_config(component)?;
        let weights = self.mapped(component)?.with_changes(changes)?;
        let model = ClipTextModel::new(component, &config, &weights, with_projection)?;
        weights.finish()?;
        Ok(model)
    }

    /// The weights of the UNet or a text encoder, not read yet.
    pub(super) fn mapped(&self, component: &str) -> Result<Weights> {
        let rename = if component == "unet" { dialect::unet_key } else { dialect::text_encoder_key };
        self.weights(component, rename, self.dtype)
    }

    /// The configuration of a text encoder, and whether it has a projection: SDXL reads the second encoder's, and its
    /// class name says whether there is one.
    fn text_config(&self, component: &str) -> Result<(ClipTextConfig, bool)> {
        let config = ClipTextConfig::from_json(component, self.config(component)?)?;
        let with_projection = self.checkpoint.class_of(component) == Some("CLIPTextModelWithProjection");
        Ok((config, with_projection))
    }

    fn config(&self, component: &str) -> Result<&Value> {
        Ok(&self.checkpoint.required(component)?.config)
    }

    fn weights(&self, component: &str, rename: fn(&str) -> String, dtype: DType) -> Result<Weights> {
        let files = &self.checkpoint.required(component)?.weight_files;
        let weights = Weights::open(component, files, rename, dtype, self.device)?;
        Ok(weights.with_interrupt(self.interrupt.clone())?)
    }
}
