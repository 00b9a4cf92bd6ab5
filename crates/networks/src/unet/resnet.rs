//! The residual block and the changes of size between blocks; the VAE is built of the same ones.

use candle_core::{D, Tensor};

use crate::Result;
use crate::layers::{Conv2d, GroupNorm, Linear};
use crate::weights::Weights;

/// What all residual blocks of a network share.
#[derive(Clone, Copy)]
pub(crate) struct ResnetConfig {
    pub(crate) groups: usize,
    pub(crate) eps: f64,
    /// Width of the time embedding; a VAE has none.
    pub(crate) time_embed_dim: Option<usize>,
    /// The block's output is divided by it.
    pub(crate) output_scale_factor: f64,
}

/// Two convolutions around the time embedding, and a way past them (diffusers: `resnet.py`, `ResnetBlock2D`).
pub(crate) struct ResnetBlock2D {
    norm1: GroupNorm,
    conv1: Conv2d,
    time_emb_proj: Option<Linear>,
    norm2: GroupNorm,
    conv2: Conv2d,
    conv_shortcut: Option<Conv2d>,
    output_scale_factor: f64,
}

impl ResnetBlock2D {
    pub(crate) fn new(inputs: usize, outputs: usize, config: ResnetConfig, w: &Weights) -> Result<Self> {
        let ResnetConfig { groups, eps, time_embed_dim, output_scale_factor } = config;
        Ok(Self {
            norm1: GroupNorm::new(groups, inputs, eps, &w.sub("norm1"))?,
            conv1: Conv2d::new(inputs, outputs, 3, 1, 1, &w.sub("conv1"))?,
            time_emb_proj: time_embed_dim
                .map(|width| Linear::new(width, outputs, true, &w.sub("time_emb_proj")))
                .transpose()?,
            norm2: GroupNorm::new(groups, outputs, eps, &w.sub("norm2"))?,
            conv2: Conv2d::new(outputs, outputs, 3, 1, 1, &w.sub("conv2"))?,
            conv_shortcut: (inputs != outputs)
                .then(|| Conv2d::new(inputs, outputs, 1, 1, 0, &w.sub("conv_shortcut")))
                .transpose()?,
            output_scale_factor,
        })
    }

    /// `x` (B, inputs, H, W) to (B, outputs, H, W). `time` (B or 1, width) has been through its SiLU already, which is
    /// the same for all blocks.
    pub(crate) fn forward(&self, x: &Tensor, time: Option<&Tensor>) -> Result<Tensor> {
        let mut hidden = self.conv1.forward(&self.norm1.forward_silu(x)?)?;
        if let (Some(proj), Some(time)) = (&self.time_emb_proj, time) {
            let time = proj.forward(time)?.unsqueeze(D::Minus1)?.unsqueeze(D::Minus1)?;
            hidden = hidden.broadcast_add(&time)?;
        }
        let hidden = self.conv2.forward(&self.norm2.forward_silu(&hidden)?)?;
        let sum = match &self.conv_shortcut {
            Some(conv) => (conv.forward(x)? + hidden)?,
            None => (x + hidden)?,
        };
        if self.output_scale_factor == 1.0 { Ok(sum) } else { Ok((sum / self.output_scale_factor)?) }
    }
}

/// Halves height and width by a convolution (diffusers: `downsampling.py`, `Downsample2D`).
pub(crate) struct Downsample2D {
    conv: Conv2d,
    padding: usize,
}

impl Downsample2D {
    pub(crate) fn new(channels: usize, padding: usize, w: &Weights) -> Result<Self> {
        Ok(Self { conv: Conv2d::new(channels, channels, 3, 2, padding, &w.sub("conv"))?, padding })
    }

    /// `x` (B, C, H, W) to (B, C, H', W'). Without padding on all sides, one row below and one column to the right are.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        if self.padding != 0 {
            return self.conv.forward(x);
        }
        self.conv.forward(&x.pad_with_zeros(D::Minus2, 0, 1)?.pad_with_zeros(D::Minus1, 0, 1)?)
    }
}

/// Repeats pixels, then convolves (diffusers: `upsampling.py`, `Upsample2D`).
pub(crate) struct Upsample2D {
    conv: Conv2d,
}

impl Upsample2D {
    pub(crate) fn new(channels: usize, w: &Weights) -> Result<Self> {
        Ok(Self { conv: Conv2d::new(channels, channels, 3, 1, 1, &w.sub("conv"))? })
    }

    /// `x` (B, C, H, W) to (B, C, 2H, 2W), or to the given height and width.
    pub(crate) fn forward(&self, x: &Tensor, size: Option<(usize, usize)>) -> Result<Tensor> {
        let large = match size {
            Some((height, width)) => infill_kernels::upsample_nearest(x, height, width)?,
            None => infill_kernels::upsample_nearest2x(x)?,
        };
        self.conv.forward(&large)
    }
}
