//! The UNet that predicts the noise in a latent picture.

mod blocks;
mod config;
pub(crate) mod resnet;
mod transformer;

use candle_core::{DType, Tensor};

use crate::embeddings::{TimestepEmbedding, sinusoids};
use crate::layers::{Conv2d, GroupNorm};
use crate::weights::Weights;
use crate::{Error, Result};
use blocks::{DownBlock, MidBlock, UpBlock};
pub use config::{PerBlock, UNet2DConditionConfig};

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
            time_embedding: TimestepEmbedding::new(top.channels, time_embed_dim, &w.sub("time_embedding"))?,
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

    /// Predicts the noise (or velocity) in `sample`.
    ///
    /// `sample` (B, in_channels, h, w); `timestep` in 0..1000, which may be fractional; `encoder_hidden_states`
    /// (B, N, D); `added` for SDXL. Returns (B, out_channels, h, w) in the sample's number format.
    ///
    /// # Errors
    ///
    /// [`Error::Tensor`] when shapes do not fit, or SDXL's `added` is missing.
    pub fn forward(
        &self,
        sample: &Tensor,
        timestep: f64,
        encoder_hidden_states: &Tensor,
        added: Option<&AddedConditions>,
    ) -> Result<Tensor> {
        self.forward_tapped(sample, timestep, encoder_hidden_states, added, &mut |_, _| {})
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
        encoder_hidden_states: &Tensor,
        added: Option<&AddedConditions>,
        tap: Tap<'_>,
    ) -> Result<Tensor> {
        let time = self.embed_time(sample, timestep, added, tap)?;
        let time = infill_kernels::silu(&time)?;
        let context = encoder_hidden_states.to_dtype(self.dtype)?;

        let mut x = sample.to_dtype(self.dtype)?;
        if self.config.center_input_sample {
            x = ((x * 2.0)? - 1.0)?;
        }
        let mut x = self.conv_in.forward(&x)?;
        tap("conv_in", &x);

        let mut skips = vec![x.clone()];
        for block in &self.down_blocks {
            x = block.forward(x, &time, &context, &mut skips, tap)?;
        }
        if let Some(block) = &self.mid_block {
            x = block.forward(x, &time, &context, tap)?;
        }
        let exact_size = self.has_odd_level(sample)?;
        for block in &self.up_blocks {
            x = block.forward(x, &time, &context, &mut skips, exact_size, tap)?;
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
        added: Option<&AddedConditions>,
        tap: Tap<'_>,
    ) -> Result<Tensor> {
        let config = &self.config;
        // Rounded to the network's format on the host too: every device can take every format.
        let sinusoids = |values: &[f32], dim| -> Result<Tensor> {
            let waves = sinusoids(values, dim, config.flip_sin_to_cos, config.freq_shift)?;
            Ok(waves.to_dtype(self.dtype)?.to_device(sample.device())?)
        };
        let time =
            self.time_embedding.forward(&sinusoids(&[timestep as f32], config.block_out_channels[0])?)?;
        tap("time_embedding", &time);
        let (Some(add_embedding), Some(dim)) = (&self.add_embedding, config.addition_time_embed_dim) else {
            return Ok(time);
        };
        let Some(AddedConditions { text_embeds, time_ids }) = added else {
            let reason = "addition_embed_type text_time needs text_embeds and time_ids";
            return Err(candle_core::Error::msg(reason).into());
        };
        let batch = time_ids.dim(0)?;
        let time_ids = time_ids.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
        let sizes = sinusoids(&time_ids, dim)?.reshape((batch, ()))?;
        let added = add_embedding.forward(&Tensor::cat(&[text_embeds.to_dtype(self.dtype)?, sizes], 1)?)?;
        tap("add_embedding", &added);
        Ok(added.broadcast_add(&time)?)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use candle_core::{Device, safetensors};
    use serde_json::json;
    use std::collections::HashMap;

    /// A small SDXL-shaped network, its weights all zero, with the names of the tensors it asked for.
    fn network() -> (UNet2DConditionModel, String) {
        let json = json!({
            "block_out_channels": [8, 16, 16], "norm_num_groups": 4, "layers_per_block": 1,
            "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
            "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
            "attention_head_dim": [1, 2, 4], "transformer_layers_per_block": [1, 1, 2],
            "cross_attention_dim": 12, "use_linear_projection": true, "upcast_attention": null,
            "addition_embed_type": "text_time", "addition_time_embed_dim": 4,
            "projection_class_embeddings_input_dim": 34,
        });
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("empty.safetensors");
        safetensors::save(&HashMap::<String, Tensor>::new(), &file).unwrap();
        let w = Weights::open("unet", &[file], str::to_owned, DType::F32, &Device::Cpu).unwrap();
        let config = UNet2DConditionConfig::from_json("unet", &json).unwrap();
        let unet = UNet2DConditionModel::new(config, &w).unwrap();
        (unet, w.finish().unwrap_err().to_string())
    }

    fn ones(shape: &[usize]) -> Tensor {
        Tensor::ones(shape, DType::F32, &Device::Cpu).unwrap()
    }

    #[test]
    fn an_empty_checkpoint_lacks_every_tensor_by_name() {
        let (_, error) = network();
        for name in [
            "add_embedding.linear_1.weight",
            "down_blocks.0.downsamplers.0.conv.bias",
            "down_blocks.2.attentions.0.transformer_blocks.1.attn2.to_out.0.bias",
            "mid_block.resnets.1.time_emb_proj.weight",
            "up_blocks.1.resnets.0.conv_shortcut.weight",
            "up_blocks.0.attentions.1.transformer_blocks.0.ff.net.0.proj.weight",
            "conv_norm_out.weight",
        ] {
            assert!(error.contains(name), "{name}");
        }
        assert!(!error.contains("down_blocks.0.attentions") && !error.contains("down_blocks.2.downsamplers"));
    }

    #[test]
    fn odd_sides_come_back_and_every_layer_is_reported_once() {
        let (unet, _) = network();
        let added = AddedConditions { text_embeds: ones(&[2, 10]), time_ids: ones(&[2, 6]) };
        let mut names = Vec::new();
        let out = unet
            .forward_tapped(&ones(&[2, 4, 9, 13]), 500.5, &ones(&[2, 7, 12]), Some(&added), &mut |name, _| {
                names.push(name.to_owned());
            })
            .unwrap();
        assert_eq!(out.dims(), [2, 4, 9, 13]);
        assert_eq!(names.first().unwrap(), "time_embedding");
        assert_eq!(names.last().unwrap(), "conv_out");
        assert!(names.contains(&"up_blocks.1.upsamplers.0".to_owned()));
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn sdxl_without_its_added_conditions_is_an_error() {
        let (unet, _) = network();
        let error = unet.forward(&ones(&[1, 4, 8, 8]), 1.0, &ones(&[1, 7, 12]), None).unwrap_err();
        assert!(error.to_string().contains("text_embeds and time_ids"), "{error}");
    }
}
