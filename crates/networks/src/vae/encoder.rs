//! From a picture to its latents.

use candle_core::Tensor;

use super::blocks::{MidBlock, NORM_EPS, resnet_config};
use super::config::AutoencoderKlConfig;
use crate::layers::{Conv2d, GroupNorm};
use crate::unet::resnet::{Downsample2D, ResnetBlock2D};
use crate::weights::Weights;
use crate::{Interrupt, Result};

/// diffusers: `autoencoders/vae.py`, `Encoder`.
pub(super) struct Encoder {
    conv_in: Conv2d,
    down_blocks: Vec<DownEncoderBlock2D>,
    mid_block: MidBlock,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
}

impl Encoder {
    pub(super) fn new(config: &AutoencoderKlConfig, w: &Weights) -> Result<Self> {
        let channels = &config.block_out_channels;
        let (first, last) = (channels[0], channels[channels.len() - 1]);
        let down_blocks = channels.iter().enumerate().map(|(i, &outputs)| {
            let inputs = channels[i.saturating_sub(1)];
            let is_last = i + 1 == channels.len();
            DownEncoderBlock2D::new(inputs, outputs, is_last, config, &w.sub("down_blocks").sub(i))
        });
        Ok(Self {
            conv_in: Conv2d::new(config.in_channels, first, 3, 1, 1, &w.sub("conv_in"))?,
            down_blocks: down_blocks.collect::<Result<_>>()?,
            mid_block: MidBlock::new(last, config, &w.sub("mid_block"))?,
            conv_norm_out: GroupNorm::new(config.norm_num_groups, last, NORM_EPS, &w.sub("conv_norm_out"))?,
            // Mean and logarithm of the variance.
            conv_out: Conv2d::new(last, 2 * config.latent_channels, 3, 1, 1, &w.sub("conv_out"))?,
        })
    }

    /// `x` (B, 3, H, W) to (B, 2 latent channels, H/8, W/8).
    pub(super) fn forward(&self, x: &Tensor, interrupt: &Interrupt) -> Result<Tensor> {
        interrupt.check()?;
        let mut x = self.conv_in.forward(x)?;
        for block in &self.down_blocks {
            interrupt.check()?;
            x = block.forward(x)?;
        }
        interrupt.check()?;
        let x = self.mid_block.forward(&x)?;
        self.conv_out.forward(&self.conv_norm_out.forward_silu(&x)?)
    }
}

struct DownEncoderBlock2D {
    resnets: Vec<ResnetBlock2D>,
    downsampler: Option<Downsample2D>,
}

impl DownEncoderBlock2D {
    fn new(
        inputs: usize,
        outputs: usize,
        is_last: bool,
        config: &AutoencoderKlConfig,
        w: &Weights,
    ) -> Result<Self> {
        let resnets = (0..config.layers_per_block).map(|i| {
            let inputs = if i == 0 { inputs } else { outputs };
            ResnetBlock2D::new(inputs, outputs, resnet_config(config), &w.sub("resnets").sub(i))
        });
        Ok(Self {
            resnets: resnets.collect::<Result<_>>()?,
            downsampler: (!is_last)
                .then(|| Downsample2D::new(outputs, 0, &w.sub("downsamplers").sub(0)))
                .transpose()?,
        })
    }

    fn forward(&self, x: Tensor) -> Result<Tensor> {
        let mut x = x;
        for resnet in &self.resnets {
            x = resnet.forward(&x, None)?;
        }
        match &self.downsampler {
            Some(downsampler) => downsampler.forward(&x),
            None => Ok(x),
        }
    }
}
