//! From latents to a picture.

use candle_core::Tensor;

use super::blocks::{MidBlock, NORM_EPS, resnet_config};
use super::config::AutoencoderKlConfig;
use crate::layers::{Conv2d, GroupNorm};
use crate::unet::resnet::{ResnetBlock2D, Upsample2D};
use crate::weights::Weights;
use crate::{Interrupt, Result};

/// diffusers: `autoencoders/vae.py`, `Decoder`.
pub(super) struct Decoder {
    conv_in: Conv2d,
    mid_block: MidBlock,
    up_blocks: Vec<UpDecoderBlock2D>,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
}

impl Decoder {
    pub(super) fn new(config: &AutoencoderKlConfig, w: &Weights) -> Result<Self> {
        let channels: Vec<usize> = config.block_out_channels.iter().rev().copied().collect();
        let (first, last) = (channels[0], channels[channels.len() - 1]);
        let up_blocks = channels.iter().enumerate().map(|(i, &outputs)| {
            let inputs = channels[i.saturating_sub(1)];
            let is_last = i + 1 == channels.len();
            UpDecoderBlock2D::new(inputs, outputs, is_last, config, &w.sub("up_blocks").sub(i))
        });
        Ok(Self {
            conv_in: Conv2d::new(config.latent_channels, first, 3, 1, 1, &w.sub("conv_in"))?,
            mid_block: MidBlock::new(first, config, &w.sub("mid_block"))?,
            up_blocks: up_blocks.collect::<Result<_>>()?,
            conv_norm_out: GroupNorm::new(config.norm_num_groups, last, NORM_EPS, &w.sub("conv_norm_out"))?,
            conv_out: Conv2d::new(last, config.out_channels, 3, 1, 1, &w.sub("conv_out"))?,
        })
    }

    /// `z` (B, latent channels, h, w) to (B, 3, 8h, 8w).
    pub(super) fn forward(&self, z: &Tensor, interrupt: &Interrupt) -> Result<Tensor> {
        interrupt.check()?;
        let mut x = self.mid_block.forward(&self.conv_in.forward(z)?)?;
        for block in &self.up_blocks {
            interrupt.check()?;
            x = block.forward(x)?;
        }
        self.conv_out.forward(&self.conv_norm_out.forward_silu(&x)?)
    }
}

struct UpDecoderBlock2D {
    resnets: Vec<ResnetBlock2D>,
    upsampler: Option<Upsample2D>,
}

impl UpDecoderBlock2D {
    fn new(
        inputs: usize,
        outputs: usize,
        is_last: bool,
        config: &AutoencoderKlConfig,
        w: &Weights,
    ) -> Result<Self> {
        let resnets = (0..=config.layers_per_block).map(|i| {
            let inputs = if i == 0 { inputs } else { outputs };
            ResnetBlock2D::new(inputs, outputs, resnet_config(config), &w.sub("resnets").sub(i))
        });
        Ok(Self {
            resnets: resnets.collect::<Result<_>>()?,
            upsampler: (!is_last)
                .then(|| Upsample2D::new(outputs, &w.sub("upsamplers").sub(0)))
                .transpose()?,
        })
    }

    fn forward(&self, x: Tensor) -> Result<Tensor> {
        let mut x = x;
        for resnet in &self.resnets {
            x = resnet.forward(&x, None)?;
        }
        match &self.upsampler {
            Some(upsampler) => upsampler.forward(&x, None),
            None => Ok(x),
        }
    }
}
