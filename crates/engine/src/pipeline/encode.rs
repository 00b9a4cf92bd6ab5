//! Words to conditioning, pixels to latents.

use image::RgbImage;
use infill_networks::clip::text::{ClipTextOutput, TextEnd};
use infill_networks::prompt::{Chunk, Chunks, emphasize};
use infill_networks::vae::{DiagonalGaussian, Passage};
use infill_networks::{DType, Device, Tensor};

use super::check::{check_clip_skip, counted_from};
use super::noise_source::NoiseSource;
use super::{Conditioning, Observer, Pipeline, Progress, TextEncoder, words};
use crate::Result;
use crate::guidance::Guidance;
use crate::image::{normalized, to_work};
use crate::request::{InpaintRequest, PromptSyntax};

/// The picture and the mask as the networks read them: what does not depend on the seed.
pub(super) struct PixelInputs {
    /// The picture at the work size.
    pub work: RgbImage,
    /// The picture's posterior, where the run begins from the picture or puts it back.
    pub image: Option<DiagonalGaussian>,
    /// The posterior of the picture with the hole blanked.
    pub masked_image: DiagonalGaussian,
    /// `(1,1,h,w)`, 1 where to paint.
    pub mask: Tensor,
}

/// What one side (prompt or negative prompt) becomes.
struct Side {
    /// `(1,N,D)`; N is a multiple of the text encoders' length.
    hidden_states: Tensor,
    /// `(1,P)` of the last encoder's first chunk, if it has a projection.
    pooled: Option<Tensor>,
}

/// How a side is encoded.
struct Manner {
    clip_skip: Option<usize>,
    /// As many chunks for every encoder and for either side: whoever has fewer gets those of an empty prompt.
    chunks: usize,
    end: TextEnd,
    /// 0 for the prompt, 1 for the negative prompt.
    call: usize,
}

impl Pipeline {
    /// The prompts, encoded and repeated for the batch.
    pub(super) fn encode_words(
        &self,
        request: &InpaintRequest,
        guidance: Guidance,
        observer: &mut Observer<'_>,
    ) -> Result<Conditioning> {
        let params = request.params();
        let positive = self.tokenize(params, &words::positive(params))?;
        let zeroed = params.negative_prompt.is_none() && self.force_zeros_for_empty_prompt;
        let negative = match guidance.is_on() && !zeroed {
            true => Some(self.tokenize(params, &words::negative(params))?),
            false => None,
        };
        let all = positive.iter().chain(negative.iter().flatten());
        let manner = |call, clip_skip| Manner {
            clip_skip,
            chunks: all.clone().map(|c| c.chunks.len()).max().unwrap_or(1),
            end: match params.prompt_syntax {
                PromptSyntax::Weighted => TextEnd::OfTable,
                PromptSyntax::Plain => TextEnd::OfAll,
            },
            call,
        };
        let positive = self.encode_side(&positive, &manner(0, params.clip_skip), observer)?;
        let batch = params.num_images_per_prompt;

        let negative = match &negative {
            // The negative side never skips layers, as in diffusers.
            Some(negative) => Some(self.encode_side(negative, &manner(1, None), observer)?),
            None if guidance.is_on() => Some(Side {
                hidden_states: positive.hidden_states.zeros_like()?,
                pooled: positive.pooled.as_ref().map(Tensor::zeros_like).transpose()?,
            }),
            None => None,
        };

        let halves = |negative: Option<&Tensor>, positive: &Tensor| -> Result<Tensor> {
            let repeat = |x: &Tensor| {
                x.repeat(vec![batch; 1].into_iter().chain(vec![1; x.rank() - 1]).collect::<Vec<_>>())
            };
            Ok(match negative {
                Some(negative) => Tensor::cat(&[repeat(negative)?, repeat(positive)?], 0)?,
                None => repeat(positive)?,
            })
        };
        let encoder_hidden_states =
            halves(negative.as_ref().map(|s| &s.hidden_states), &positive.hidden_states)?;
        observer.tap("cond/encoder_hidden_states", &encoder_hidden_states);

        let (mut text_embeds, mut time_ids) = (None, None);
        if let Some(pooled) = &positive.pooled {
            let embeds = halves(negative.as_ref().and_then(|s| s.pooled.as_ref()), pooled)?;
            let (ids, negative_ids) = self.time_ids(request)?;
            let ids = halves(guidance.is_on().then_some(&negative_ids), &ids)?;
            observer.tap("cond/text_embeds", &embeds);
            observer.tap("cond/time_ids", &ids);
            (text_embeds, time_ids) = (Some(embeds), Some(ids));
        }
        Ok(Conditioning { encoder_hidden_states, text_embeds, time_ids })
    }

    /// One side through every encoder: chunks joined along the tokens, encoders along the features.
    fn encode_side(&self, texts: &[Chunks], manner: &Manner, observer: &mut Observer<'_>) -> Result<Side> {
        let mut hidden_states = Vec::new();
        let mut pooled = None;
        for (encoder, text) in self.text_encoders.iter().zip(texts) {
            let mut chunks = text.chunks.clone();
            chunks.resize(manner.chunks, Chunk::empty(&encoder.tokenizer));
            let outputs = encoder.run(&chunks, manner, &self.device, observer)?;
            let states = chunks.iter().zip(&outputs).map(|(chunk, output)| {
                let states = self.states(encoder, output, manner.clip_skip)?;
                Ok(match &chunk.weights {
                    Some(weights) => emphasize(&states, weights)?,
                    None => states,
                })
            });
            hidden_states.push(Tensor::cat(&states.collect::<Result<Vec<_>>>()?, 1)?);
            pooled = outputs.into_iter().next().and_then(|output| output.text_embeds);
        }
        Ok(Side { hidden_states: Tensor::cat(&hidden_states, 2)?, pooled })
    }

    /// The hidden states that the UNet reads, `(1,N,D)`.
    fn states(
        &self,
        encoder: &TextEncoder,
        output: &ClipTextOutput,
        clip_skip: Option<usize>,
    ) -> Result<Tensor> {
        check_clip_skip(clip_skip, output.hidden_states.len().saturating_sub(1), self.is_xl())?;
        let state = |skip| output.hidden_state_from_end(skip + counted_from(self.is_xl()));
        Ok(match clip_skip {
            _ if self.is_xl() => state(clip_skip.unwrap_or(0))?,
            None => output.last_hidden_state.clone(),
            Some(skip) => encoder.model.final_layer_norm(&state(skip)?)?,
        })
    }

    /// SDXL's size conditioning, `(1,6)` each, or `(1,5)` with an aesthetic score: for the prompt, for the negative.
    fn time_ids(&self, request: &InpaintRequest) -> Result<(Tensor, Tensor)> {
        let micro = &request.params().micro_conditioning;
        let work = request.plan().work;
        let work = (work.height, work.width);
        let original = micro.original_size.unwrap_or(work);
        let target = micro.target_size.unwrap_or(work);
        let negative_original = micro.negative_original_size.unwrap_or(original);
        let negative_target = micro.negative_target_size.unwrap_or(target);
        let crop = micro.crops_coords_top_left;
        let pairs = |list: &[(u32, u32)]| {
            list.iter().flat_map(|&(a, b)| [f64::from(a), f64::from(b)]).collect::<Vec<_>>()
        };
        let (ids, negative_ids) = if self.requires_aesthetics_score {
            let mut ids = pairs(&[original, crop]);
            ids.push(micro.aesthetic_score);
            let mut negative = pairs(&[negative_original, micro.negative_crops_coords_top_left]);
            negative.push(micro.negative_aesthetic_score);
            (ids, negative)
        } else {
            // The negative half takes the positive crop coordinates: diffusers' own choice, kept for equal pictures.
            (pairs(&[original, crop, target]), pairs(&[negative_original, crop, negative_target]))
        };
        let tensor = |values: Vec<f64>| -> Result<Tensor> {
            let count = values.len();
            // Rounded on the host: Metal has no f64.
            let ids = Tensor::from_vec(values, (1, count), &Device::Cpu)?.to_dtype(self.dtype)?;
            Ok(ids.to_device(&self.device)?)
        };
        Ok((tensor(ids)?, tensor(negative_ids)?))
    }

    /// The picture and the mask, resized and encoded.
    pub(super) fn encode_pixels(
        &self,
        request: &InpaintRequest,
        observer: &mut Observer<'_>,
    ) -> Result<PixelInputs> {
        let params = request.params();
        let plan = request.plan();
        let (w, h) = (plan.work.width as usize, plan.work.height as usize);

        let work_image = to_work(&params.image.to_rgb8(), plan);
        let image = Tensor::from_vec(normalized(&work_image), (1, 3, h, w), &Device::Cpu)?;
        observer.tap("pre/image", &image);

        let work_mask = params.mask.to_work(plan);
        let mask = Tensor::from_vec(work_mask.values(), (1, 1, h, w), &Device::Cpu)?;
        observer.tap("pre/mask", &mask);
        let masked_image = image.broadcast_mul(&mask.lt(0.5)?.to_dtype(DType::F32)?)?;
        observer.tap("pre/masked_image", &masked_image);

        let begins_from_image = params.strength < 1.0 || params.denoising_start.is_some();
        let mut call = 0;
        let passage = passage(request, observer);
        let mut encode = |pixels: &Tensor| -> Result<DiagonalGaussian> {
            let pixels = pixels.to_device(&self.device)?.to_dtype(self.vae_dtype)?;
            let posterior = self.vae.encode(&pixels, &passage)?;
            observer.tap_at("vae_enc", call, "image", &pixels);
            observer.tap_at(
                "vae_enc",
                call,
                "moments",
                &Tensor::cat(&[&posterior.mean, &posterior.logvar], 1)?,
            );
            call += 1;
            Ok(posterior)
        };
        let image_posterior = match begins_from_image || !self.is_inpaint_model() {
            true => Some(encode(&image)?),
            false => None,
        };
        let masked_posterior = encode(&masked_image)?;

        let factor = self.vae.config().scale();
        let (latent_h, latent_w) = (h / factor, w / factor);
        let latent_mask = work_mask.to_latents(latent_h as u32, latent_w as u32);
        let mask = Tensor::from_vec(latent_mask, (1, 1, latent_h, latent_w), &self.device)?;
        Ok(PixelInputs { work: work_image, image: image_posterior, masked_image: masked_posterior, mask })
    }

    /// Draws from a posterior and scales the latents: `(1,4,h,w)` in f32. Where every image has a generator of its
    /// own, one draw each: `(B,4,h,w)`.
    pub(super) fn sample_posterior(
        &self,
        posterior: &DiagonalGaussian,
        noise: &mut NoiseSource,
        observer: &mut Observer<'_>,
    ) -> Result<Tensor> {
        let draw = noise.draw(posterior.mean.dims(), self.posterior_noise_dtype, &self.device, observer)?;
        let mean = posterior.mean.to_dtype(DType::F32)?;
        let std = posterior.std()?.to_dtype(DType::F32)?;
        Ok(((mean + (std * draw)?)? * self.vae.config().scaling_factor)?)
    }

    fn is_xl(&self) -> bool {
        self.family != infill_models::Family::StableDiffusion
    }
}

/// How this request's pictures go through the autoencoder.
pub(super) fn passage(request: &InpaintRequest, observer: &Observer<'_>) -> Passage {
    let tile_size = request.params().vae_tile_size.map(|size| size.pixels() as usize);
    Passage { tile_size, interrupt: observer.interrupt().clone() }
}

impl TextEncoder {
    /// Every chunk by itself.
    fn run(
        &self,
        chunks: &[Chunk],
        manner: &Manner,
        device: &Device,
        observer: &mut Observer<'_>,
    ) -> Result<Vec<ClipTextOutput>> {
        let mut outputs: Vec<ClipTextOutput> = Vec::new();
        for (i, chunk) in chunks.iter().enumerate() {
            // The chunks of an empty prompt, which fill a side up, are alike.
            if let Some(last) = outputs.last().filter(|_| chunks[i - 1].ids == chunk.ids).cloned() {
                outputs.push(last);
                continue;
            }
            if i > 0 {
                observer.report(Progress::Encoding)?;
            }
            let ids = Tensor::from_slice(&chunk.ids, (1, chunk.ids.len()), device)?;
            outputs.push(self.model.forward(&ids, manner.end)?);
        }
        let joined = |states: &dyn Fn(&ClipTextOutput) -> Result<Tensor>| -> Result<Tensor> {
            Ok(Tensor::cat(&outputs.iter().map(states).collect::<Result<Vec<_>>>()?, 1)?)
        };
        let ids: Vec<u32> = chunks.iter().flat_map(|chunk| chunk.ids.iter().copied()).collect();
        let ids = Tensor::from_slice(&ids, (1, ids.len()), device)?;
        let mut tap = |name, tensor: &Tensor| observer.tap_at(self.tap, manner.call, name, tensor);
        tap("input_ids", &ids);
        tap("last_hidden_state", &joined(&|output| Ok(output.last_hidden_state.clone()))?);
        tap("penultimate", &joined(&|output| Ok(output.hidden_state_from_end(2)?))?);
        if let Some(first) = outputs.first() {
            tap("pooled", first.text_embeds.as_ref().unwrap_or(&first.pooled));
        }
        Ok(outputs)
    }
}
