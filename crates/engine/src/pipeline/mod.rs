//! The loaded networks and the one way through them: encode, denoise, decode, merge.
//!
//! The reference is diffusers' `StableDiffusionInpaintPipeline` and `StableDiffusionXLInpaintPipeline`: the order of
//! operations and of random draws is theirs.

mod adapter_blocks;
mod additions;
mod check;
mod concepts;
mod decode;
mod denoise;
mod embeddings;
mod encode;
mod fit;
mod image_prompt;
mod load;
pub mod merge;
mod noise_source;
mod observer;
mod preview;
mod seam;
mod words;

use std::sync::Arc;
use std::time::Instant;

use concepts::Merged;
use denoise::Run;
use image::RgbImage;
use image_prompt::LoadedAdapter;
use infill_models::Family;
use infill_networks::clip::text::ClipTextModel;
use infill_networks::prompt::AddedWord;
use infill_networks::tokenizer::ClipTokenizer;
use infill_networks::unet::UNet2DConditionModel;
use infill_networks::vae::AutoencoderKl;
use infill_networks::{DType, Device, Tensor};

use crate::device::{device_name, dtype_name};
use crate::guidance::Guidance;
use crate::image::Picture;
use crate::image_prompt::BlockMap;
use crate::request::{InpaintParams, InpaintRequest};
use crate::scheduler::{Scheduler, SchedulerConfig, StepOptions};
use crate::{Error, Result};

pub use check::{check_run, place_timesteps, scheduler_kind};
pub use concepts::{CONCEPT_SCALE, check_concepts};
pub use load::LoadOptions;
pub use observer::{Observer, Progress};
pub use preview::{MOST_PREVIEWS, Preview};

/// One text encoder with the tokenizer that feeds it.
struct TextEncoder {
    /// Its folder: `text_encoder` or `text_encoder_2`.
    component: &'static str,
    /// The name of its taps: `te1` or `te2`.
    tap: &'static str,
    tokenizer: ClipTokenizer,
    model: ClipTextModel,
    /// The embeddings that prompts may name, as tokens of this encoder.
    added_words: Vec<AddedWord>,
}

/// The networks of one checkpoint on one device.
pub struct Pipeline {
    family: Family,
    default_guidance_scale: f64,
    text_encoders: Vec<TextEncoder>,
    /// How the embeddings are named, in the order of each encoder's `added_words`.
    embedding_names: Vec<String>,
    /// Absent only after it could not be read again.
    unet: Option<UNet2DConditionModel>,
    is_inpaint_model: bool,
    /// The concepts in the weights of each network.
    merged: Merged,
    vae: AutoencoderKl,
    ip_adapters: Vec<Arc<LoadedAdapter>>,
    /// The blocks that carry style, where the checkpoint names its own.
    style_blocks: Option<BlockMap>,
    scheduler_config: SchedulerConfig,
    force_zeros_for_empty_prompt: bool,
    requires_aesthetics_score: bool,
    device: Device,
    dtype: DType,
    vae_dtype: DType,
    /// The format that noise for a draw from the VAE's posterior is drawn in. diffusers' pipelines of SDXL widen the VAE
    /// where it says `force_upcast`, and its noise with it; those of Stable Diffusion 1 and 2 leave it in the format of
    /// the rest.
    posterior_noise_dtype: DType,
}

/// One finished picture.
#[derive(Debug, Clone)]
pub struct Painted {
    /// Its number within the request, from 0.
    pub index: usize,
    /// The seed that makes it again.
    pub seed: u64,
    /// At the input's own size and depth where merged or cropped; else the work picture.
    pub picture: Picture,
    /// Seconds from the first draw to the finished picture.
    pub seconds: f64,
    /// The device that it was painted on, as [`device_name`] has it.
    pub device: &'static str,
    /// The number format of the networks, as [`dtype_name`] has it.
    pub dtype: &'static str,
}

/// What the networks are told about the picture, besides the picture: the unconditioned half first where guidance
/// is on.
struct Conditioning {
    /// `(2B,N,D)`, N a multiple of 77.
    encoder_hidden_states: Tensor,
    /// `(2B,P)`, SDXL only.
    text_embeds: Option<Tensor>,
    /// `(2B,6)`, or 5 for the refiner; SDXL only.
    time_ids: Option<Tensor>,
}

impl Pipeline {
    /// The checkpoint's family.
    pub fn family(&self) -> Family {
        self.family
    }

    /// The number format of the UNet and the text encoders.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The device that the networks are on.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// True for a UNet that sees the mask and the masked picture (9 channels); false for one that only knows
    /// latents (4 channels) and has the known region put back after each step.
    pub fn is_inpaint_model(&self) -> bool {
        self.is_inpaint_model
    }

    /// The UNet.
    ///
    /// # Errors
    /// It was dropped to make room for itself with other concepts and could not be read.
    fn unet(&self) -> Result<&UNet2DConditionModel> {
        self.unet.as_ref().ok_or_else(|| {
            let (component, faults) = ("unet".to_owned(), "the network is not loaded".to_owned());
            Error::Networks(infill_networks::Error::Weights { component, faults })
        })
    }

    /// Guidance where the request names none.
    pub fn default_guidance_scale(&self) -> f64 {
        self.default_guidance_scale
    }

    /// How this model follows the prompts at what the request says.
    fn guidance(&self, params: &InpaintParams) -> Result<Guidance> {
        let scale = params.guidance_scale.unwrap_or_else(|| self.default_guidance_scale());
        Ok(match self.unet()?.config().time_cond_proj_dim {
            Some(_) => Guidance::Embedded { scale },
            None => Guidance::new(scale, params.guidance_rescale),
        })
    }

    /// Runs a request; `each` gets every picture as soon as it is finished.
    ///
    /// The work picture has `request.plan()`'s size. Sample i is drawn from a generator seeded with `seed + i`, and
    /// equals, bit for bit, the only picture of a run with that seed.
    ///
    /// # Errors
    /// [`crate::Error::Cancelled`] if the observer breaks or its interrupt says so; else what the networks or the scheduler say.
    pub fn inpaint(
        &self,
        request: &InpaintRequest,
        observer: &mut Observer<'_>,
        each: &mut dyn FnMut(Painted) -> Result<()>,
    ) -> Result<()> {
        let params = request.params();
        let guidance = self.guidance(params)?;
        let config = self.scheduler_config(request)?;
        let options = |seed| StepOptions { eta: params.eta, seed };
        // Refused values are refused before any work.
        Scheduler::new(&config, params.num_inference_steps, options(params.seed))?;
        let listening = self.listening(request)?;

        observer.report(Progress::Encoding)?;
        let conditioning = self.encode_words(request, guidance, observer)?;
        let image_prompts = self.encode_image_prompts(request, listening, guidance, observer)?;
        let inputs = self.encode_pixels(request, observer)?;
        let previewer = match observer.wants_previews() {
            true => Some(self.previewer(request, &inputs)?),
            false => None,
        };

        for index in 0..params.samples {
            let started = Instant::now();
            let seed = request.seed_of(index);
            let scheduler = Scheduler::new(&config, params.num_inference_steps, options(seed))?;
            let run = Run {
                request,
                guidance,
                conditioning: &conditioning,
                image_prompts: image_prompts.as_ref(),
                inputs: &inputs,
                previewer: previewer.as_ref(),
                index,
                seed,
                train_timesteps: config.num_train_timesteps()?,
            };
            let latents = self.denoise(&run, scheduler, observer)?;
            observer.report(Progress::Decoding { sample: index, samples: params.samples })?;
            let batch = self.decode_latents(request, &latents, observer)?;
            for (position, work) in batch.into_iter().enumerate() {
                let picture = finish(request, &work)?;
                each(Painted {
                    index: index * params.num_images_per_prompt + position,
                    seed,
                    picture,
                    seconds: started.elapsed().as_secs_f64(),
                    device: device_name(&self.device),
                    dtype: dtype_name(self.dtype),
                })?;
            }
        }
        Ok(())
    }
}

/// The work picture to the picture that is handed out.
fn finish(request: &InpaintRequest, work: &RgbImage) -> Result<Picture> {
    let params = request.params();
    if params.merge {
        let (feather, matched) = (params.feather, params.match_colours);
        merge::merge(&params.image, work, &params.mask, request.plan(), feather, matched)
    } else if params.padding_mask_crop.is_some() {
        merge::overlay(&params.image, work, &params.mask, request.plan())
    } else {
        Ok(params.image.with_pixels(work.clone().into()))
    }
}
