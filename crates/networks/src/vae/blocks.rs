//! What encoder and decoder share: the middle block with its attention.

use candle_core::Tensor;

use super::config::AutoencoderKlConfig;
use crate::Result;
use crate::layers::{GroupNorm, Linear};
use crate::unet::resnet::{ResnetBlock2D, ResnetConfig};
use crate::weights::Weights;

/// Of every norm in the autoencoder; fixed in diffusers.
pub(super) const NORM_EPS: f64 = 1e-6;

pub(super) fn resnet_config(config: &AutoencoderKlConfig) -> ResnetConfig {
    ResnetConfig {
        groups: config.norm_num_groups,
        eps: NORM_EPS,
        time_embed_dim: None,
        output_scale_factor: 1.0,
    }
}

/// Residual block, attention, residual block (diffusers: `unets/unet_2d_blocks.py`, `UNetMidBlock2D`).
pub(super) struct MidBlock {
    first: ResnetBlock2D,
    attention: Option<Attention>,
    second: ResnetBlock2D,
}

impl MidBlock {
    pub(super) fn new(channels: usize, config: &AutoencoderKlConfig, w: &Weights) -> Result<Self> {
        let resnet = |i: usize| {
            ResnetBlock2D::new(channels, channels, resnet_config(config), &w.sub("resnets").sub(i))
        };
        Ok(Self {
            first: resnet(0)?,
            attention: config
                .mid_block_add_attention
                .then(|| Attention::new(channels, config.norm_num_groups, &w.sub("attentions").sub(0)))
                .transpose()?,
            second: resnet(1)?,
        })
    }

    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut x = self.first.forward(x, None)?;
        if let Some(attention) = &self.attention {
            x = attention.forward(&x)?;
        }
        self.second.forward(&x, None)
    }
}

/// One head over all pixels, as wide as the channels (diffusers: `attention_processor.py`, `Attention`).
struct Attention {
    group_norm: GroupNorm,
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
}

impl Attention {
    fn new(channels: usize, groups: usize, w: &Weights) -> Result<Self> {
        let linear = |w: &Weights| Linear::new(channels, channels, true, w);
        Ok(Self {
            group_norm: GroupNorm::new(groups, channels, NORM_EPS, &w.sub("group_norm"))?,
            to_q: linear(&w.sub("to_q"))?,
            to_k: linear(&w.sub("to_k"))?,
            to_v: linear(&w.sub("to_v"))?,
            to_out: linear(&w.sub("to_out").sub(0))?,
        })
    }

    /// `x` (B, C, H, W) to the same shape.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (_, channels, _, _) = x.dims4()?;
        let tokens = self.group_norm.forward(x)?.flatten_from(2)?.transpose(1, 2)?.contiguous()?;
        let head = |linear: &Linear| Ok::<_, crate::Error>(linear.forward(&tokens)?.unsqueeze(1)?);
        let scale = (channels as f32).sqrt().recip();
        let (q, k, v) = (head(&self.to_q)?, head(&self.to_k)?, head(&self.to_v)?);
        let out = infill_kernels::attention(&q, &k, &v, scale, None)?.squeeze(1)?;
        let out = self.to_out.forward(&out)?.transpose(1, 2)?.contiguous()?.reshape(x.shape())?;
        Ok((out + x)?)
    }
}
