//! The UNet that predicts the noise in a latent picture.

mod blocks;
mod config;
mod image_prompt;
mod region;
pub(crate) mod resnet;
#[cfg(test)]
mod tests;
mod transformer;

use candle_core::{DType, Tensor};

use crate::embeddings::{TimestepEmbedding, sinusoids};
use crate::layers::{Conv2d, GroupNorm};
use crate::weights::Weights;
use crate::{Error, Interrupt, Result};
use blocks::{DownBlock, MidBlock, UpBlock};
pub use config::{PerBlock, UNet2DConditionConfig};
use image_prompt::Layer;
pub use image_prompt::{AdapterTokens, CrossAttention, ImageAttention, ImagePrompts, Place};
pub use region::RegionMask;
use transformer::{Attention, Context, Transformer2DModel};

/// Hears each layer's output by its diffusers module name.
pub type Tap<'a> = &'a mut dyn FnMut(&str, &Tensor);

/// What SDXL adds to the timestep: diffusers' `added_cond_kwargs`.
#[derive(Clone, Debug)]
pub struct AddedConditions {
    /// Pooled text embedding (B, P).
    pub text_embeds: Tensor,
    /// Sizes and crop, or sizes and aesthetic score (B, 6 or 5).
    pub time_ids: Tensor,
}

/// What a prediction takes besides the latents and the timestep.
#[derive(Clone, Copy)]
pub struct Conditions<'a> {
    /// The words (B, N, D).
    pub encoder_hidden_states: &'a Tensor,
    /// Needed by SDXL.
    pub added: Option<&'a AddedConditions>,
    /// Reference pictures.
    pub image_prompts: Option<&'a ImagePrompts>,
    /// The guidance scale's embedding (1 or B, `time_cond_proj_dim`), needed by networks distilled for it:
    /// [`crate::embeddings::guidance_scale_embedding`].
    pub timestep_cond: Option<&'a Tensor>,
    /// Asked before every block.
    pub interrupt: Option<&'a Interrupt>,
}

impl<'a> Conditions<'a> {
    /// The words alone.
    pub fn new(encoder_hidden_states: &'a Tensor) -> Self {
        Self { encoder_hidden_states, added: None, image_prompts: None, timestep_cond: None, interrupt: None }
    }

    fn check_interrupt(&self) -> Result<()> {
        self.interrupt.map_or(Ok(()), Interrupt::check)
    }
}

/// The noise predictor of Stable Diffusion 1.5, SDXL and its refiner (diffusers: `unets/unet_2d_condition.py`;
/// arXiv 2112.10752, 2307.01952).
pub struct UNet2DConditionModel {
    config: UNet2DConditionConfig,
    dtype: DType,
    conv_in: Conv2d,
    time_embedding: TimestepEmbedding,
    add_embedding: Option<TimestepEmbedding>,
    down_blocks: Vec<DownBlock>,
    mid_block: Option<MidBlock>,
    up_blocks: Vec<UpBlock>,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
}

impl UNet2DConditionModel {
    /// Builds the network; call [`Weights::finish`] afterwards.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] or [`Error::Config`] for a configuration that can't be run.
    pub fn new(config: UNet2DConditionConfig, w: &Weights) -> Result<Self> {
        config.check(w.component())?;
        let levels = config.levels();
        let (Some(top), Some(lowest)) = (levels.first(), levels.last()) else {
            return Err(Error::Config {
                component: w.component().to_owned(),
                reason: "no blocks".to_owned(),
            });
        };
        let time_embed_dim = config.time_embed_dim();
        let down_blocks = levels.iter().enumerate().map(|(i, level)| {
            let inputs = levels[i.saturating_sub(1)].channels;
            DownBlock::new(&config, level, i, inputs, &w.sub("down_blocks").sub(i))
        });
        let up_blocks =
            (0..levels.len()).map(|i| UpBlock::new(&config, &levels, i, &w.sub("up_blocks").sub(i)));
        let conv = |inputs, outputs, kernel, name: &str| {
            Conv2d::new(inputs, outputs, kernel, 1, (kernel - 1) / 2, &w.sub(name))
        };
        Ok(Self {
            dtype: w.dtype(),
            conv_in: conv(config.in_channels, top.channels, config.conv_in_kernel, "conv_in")?,
            time_embedding: {
                let (inputs, w) = (top.channels, w.sub("time_embedding"));
                match config.time_cond_proj_dim {
                    Some(dim) => TimestepEmbedding::with_condition(inputs, time_embed_dim, dim, &w)?,
                    None => TimestepEmbedding::new(inputs, time_embed_dim, &w)?,
                }
            },
            add_embedding: match (&config.addition_embed_type, config.projection_class_embeddings_input_dim) {
                (Some(_), Some(inputs)) => {
                    Some(TimestepEmbedding::new(inputs, time_embed_dim, &w.sub("add_embedding"))?)
                }
                _ => None,
            },
            down_blocks: down_blocks.collect::<Result<_>>()?,
            mid_block: match config.mid_block_type {
                Some(_) => Some(MidBlock::new(&config, lowest, &w.sub("mid_block"))?),
                None => None,
            },
            up_blocks: up_blocks.collect::<Result<_>>()?,
            conv_norm_out: GroupNorm::new(
                config.groups(),
                top.channels,
                config.norm_eps,
                &w.sub("conv_norm_out"),
            )?,
            conv_out: conv(top.channels, config.out_channels, config.conv_out_kernel, "conv_out")?,
            config,
        })
    }

    /// The configuration that the network was built from.
    pub fn config(&self) -> &UNet2DConditionConfig {
        &self.config
    }

    /// The cross-attention layers in the order in which adapters number them: down, up, middle.
    pub fn cross_attentions(&self) -> Vec<CrossAttention> {
        let describe = |layer: &Layer<'_>| {
            let (width, context_width) = layer.attention.widths();
            let name = layer.attention.name().to_owned();
            CrossAttention { name, place: layer.place, width, context_width }
        };
        self.layers().iter().map(describe).collect()
    }

    fn layers(&self) -> Vec<Layer<'_>> {
        fn layers(
            transformer: &Transformer2DModel,
            place: Place,
            depth: usize,
        ) -> impl Iterator<Item = Layer<'_>> {
            transformer.cross_attentions().map(move |attention: &Attention| Layer { place, depth, attention })
        }
        let lowest = self.down_blocks.len() - 1;
        let down = self.down_blocks.iter().enumerate().flat_map(|(level, block)| {
            block.attentions().iter().enumerate().flat_map(move |(transformer, attention)| {
                layers(attention, Place::Down { level, transformer }, level)
            })
        });
        let up = self.up_blocks.iter().enumerate().flat_map(|(level, block)| {
            block.attentions().iter().enumerate().flat_map(move |(transformer, attention)| {
                layers(attention, Place::Up { level, transformer }, lowest - level)
            })
        });
        let mid = self.mid_block.iter().filter_map(MidBlock::attention);
        down.chain(up).chain(mid.flat_map(|attention| layers(attention, Place::Mid, lowest))).collect()
    }

    /// Keys and values of the adapters' tokens for every layer that listens, for latents of `height` x `width`.
    ///
    /// # Errors
    ///
    /// [`Error::Tensor`] when numbers or shapes do not fit.
    pub fn image_prompts(
        &self,
        adapters: &[AdapterTokens<'_>],
        height: usize,
        width: usize,
    ) -> Result<ImagePrompts> {
        // As the convolutions between two levels leave them.
        let halved =
            |side: usize| if self.config.downsample_padding == 0 { side / 2 } else { side.div_ceil(2) };
        let mut sizes = vec![(height, width)];
        for level in 1..self.down_blocks.len() {
            let (height, width) = sizes[level - 1];
            sizes.push((halved(height), halved(width)));
        }
        ImagePrompts::new(&self.layers(), adapters, &sizes)
    }

    /// Predicts the noise (or velocity) in `sample`.
    ///
    /// `sample` (B, in_channels, h, w); `timestep` in 0..1000, which may be fractional. Returns (B, out_channels, h, w)
    /// in the sample's number format.
    ///
    /// # Errors
    ///
    /// [`Error::Tensor`] when shapes do not fit, or a condition that this network needs is missing.
    pub fn forward(&self, sample: &Tensor, timestep: f64, conditions: &Conditions<'_>) -> Result<Tensor> {
        self.forward_tapped(sample, timestep, conditions, &mut |_, _| {})
    }

    /// [`Self::forward`], (B, in_channels, h, w) to (B, out_channels, h, w), reporting each layer's output to `tap` by
    /// its diffusers module name.
    ///
    /// # Errors
    ///
    /// As [`Self::forward`].
    pub fn forward_tapped(
        &self,
        sample: &Tensor,
        timestep: f64,
        conditions: &Conditions<'_>,
        tap: Tap<'_>,
    ) -> Result<Tensor> {
        let time = self.embed_time(sample, timestep, conditions, tap)?;
        let time = infill_kernels::silu(&time)?;
        let words = conditions.encoder_hidden_states.to_dtype(self.dtype)?;
        let context = Context { words: &words, images: conditions.image_prompts };

        let mut x = sample.to_dtype(self.dtype)?;
        if self.config.center_input_sample {
            x = ((x * 2.0)? - 1.0)?;
        }
        let mut x = self.conv_in.forward(&x)?;
        tap("conv_in", &x);

        let mut skips = vec![x.clone()];
        for block in &self.down_blocks {
            conditions.check_interrupt()?;
            x = block.forward(x, &time, context, &mut skips, tap)?;
        }
        conditions.check_interrupt()?;
        if let Some(block) = &self.mid_block {
            x = block.forward(x, &time, context, tap)?;
        }
        let exact_size = self.has_odd_level(sample)?;
        for block in &self.up_blocks {
            conditions.check_interrupt()?;
            x = block.forward(x, &time, context, &mut skips, exact_size, tap)?;
        }
        let out = self.conv_out.forward(&self.conv_norm_out.forward_silu(&x)?)?;
        tap("conv_out", &out);
        Ok(out.to_dtype(sample.dtype())?)
    }

    /// Whether a side of `sample` can't be halved evenly all the way down.
    fn has_odd_level(&self, sample: &Tensor) -> Result<bool> {
        let factor = 1 << (self.up_blocks.len() - 1);
        let (_, _, height, width) = sample.dims4()?;
        Ok(height % factor != 0 || width % factor != 0)
    }

    /// Timestep, and for SDXL pooled text and sizes, as one vector (B or 1, width).
    fn embed_time(
        &self,
        sample: &Tensor,
        timestep: f64,
        conditions: &Conditions<'_>,
        tap: Tap<'_>,
    ) -> Result<Tensor> {
        let config = &self.config;
        // Rounded to the network's format on the host too: every device can take every format.
        let sinusoids = |values: &[f32], dim| -> Result<Tensor> {
            let waves = sinusoids(values, dim, config.flip_sin_to_cos, config.freq_shift)?;
            Ok(waves.to_dtype(self.dtype)?.to_device(sample.device())?)
        };
        let time = sinusoids(&[timestep as f32], config.block_out_channels[0])?;
        let time = match (config.time_cond_proj_dim, conditions.timestep_cond) {
            (None, None) => self.time_embedding.forward(&time)?,
            (Some(_), Some(condition)) => {
                // Rounded on the host as well.
                let condition = condition.to_dtype(self.dtype)?.to_device(sample.device())?;
                self.time_embedding
                    .forward_with(&time.broadcast_as((condition.dim(0)?, time.dim(1)?))?, &condition)?
            }
            (Some(_), None) => return Err(missing("time_cond_proj_dim needs timestep_cond")),
            (None, Some(_)) => return Err(missing("timestep_cond needs time_cond_proj_dim")),
        };
        tap("time_embedding", &time);
        let (Some(add_embedding), Some(dim)) = (&self.add_embedding, config.addition_time_embed_dim) else {
            return Ok(time);
        };
        let Some(AddedConditions { text_embeds, time_ids }) = conditions.added else {
            return Err(missing("addition_embed_type text_time needs text_embeds and time_ids"));
        };
        let batch = time_ids.dim(0)?;
        let time_ids = time_ids.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
        let sizes = sinusoids(&time_ids, dim)?.reshape((batch, ()))?;
        let added = add_embedding.forward(&Tensor::cat(&[text_embeds.to_dtype(self.dtype)?, sizes], 1)?)?;
        tap("add_embedding", &added);
        Ok(added.broadcast_add(&time)?)
    }
}

fn missing(reason: &'static str) -> Error {
    Error::Tensor(candle_core::Error::msg(reason))
}
