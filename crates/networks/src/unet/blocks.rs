//! The levels of the UNet: down, middle, up.

use candle_core::Tensor;

use super::Tap;
use super::config::{Level, PerBlock, UNet2DConditionConfig};
use super::resnet::{Downsample2D, ResnetBlock2D, ResnetConfig, Upsample2D};
use super::transformer::{Context, Transformer2DModel, TransformerConfig};
use crate::weights::Weights;
use crate::{Error, Result};

fn resnet_config(config: &UNet2DConditionConfig, output_scale_factor: f64) -> ResnetConfig {
    ResnetConfig {
        groups: config.groups(),
        eps: config.norm_eps,
        time_embed_dim: Some(config.time_embed_dim()),
        output_scale_factor,
    }
}

fn transformer_config(config: &UNet2DConditionConfig, level: &Level) -> TransformerConfig {
    TransformerConfig {
        heads: level.heads,
        context_width: level.context_width,
        groups: config.groups(),
        use_linear_projection: config.use_linear_projection,
        upcast_attention: config.upcast_attention.unwrap_or(false),
    }
}

/// The transformers of a level, one behind each of its `layers` residual blocks.
fn attentions(
    config: &UNet2DConditionConfig,
    level: &Level,
    depth: &PerBlock<usize>,
    layers: usize,
    w: &Weights,
) -> Result<Vec<Transformer2DModel>> {
    let depths = depth.expand(layers).unwrap_or_default();
    let transformer = transformer_config(config, level);
    let attentions = w.sub("attentions");
    depths
        .iter()
        .enumerate()
        .map(|(i, &depth)| Transformer2DModel::new(level.channels, depth, transformer, &attentions.sub(i)))
        .collect()
}

/// A level of the way down: `DownBlock2D`, or `CrossAttnDownBlock2D` where it has transformers
/// (diffusers: `unets/unet_2d_blocks.py`).
pub(crate) struct DownBlock {
    name: String,
    resnets: Vec<ResnetBlock2D>,
    attentions: Vec<Transformer2DModel>,
    downsampler: Option<Downsample2D>,
}

impl DownBlock {
    /// Block `index`, whose input has `inputs` channels.
    pub(crate) fn new(
        config: &UNet2DConditionConfig,
        level: &Level,
        index: usize,
        inputs: usize,
        w: &Weights,
    ) -> Result<Self> {
        let resnet = resnet_config(config, 1.0);
        let resnets = (0..level.layers)
            .map(|i| {
                let inputs = if i == 0 { inputs } else { level.channels };
                ResnetBlock2D::new(inputs, level.channels, resnet, &w.sub("resnets").sub(i))
            })
            .collect::<Result<_>>()?;
        let attentions = match &*config.down_block_types[index] {
            "CrossAttnDownBlock2D" => attentions(config, level, &level.depth, level.layers, w)?,
            _ => Vec::new(),
        };
        let is_last = index + 1 == config.block_out_channels.len();
        let downsampler = (!is_last)
            .then(|| {
                Downsample2D::new(level.channels, config.downsample_padding, &w.sub("downsamplers").sub(0))
            })
            .transpose()?;
        Ok(Self { name: format!("down_blocks.{index}"), resnets, attentions, downsampler })
    }

    /// Its transformers, in order.
    pub(super) fn attentions(&self) -> &[Transformer2DModel] {
        &self.attentions
    }

    /// Every intermediate state is kept in `skips` for the way up.
    pub(crate) fn forward(
        &self,
        x: Tensor,
        time: &Tensor,
        context: Context<'_>,
        skips: &mut Vec<Tensor>,
        tap: Tap<'_>,
    ) -> Result<Tensor> {
        let name = &self.name;
        let mut x = x;
        for (i, resnet) in self.resnets.iter().enumerate() {
            x = resnet.forward(&x, Some(time))?;
            tap(&format!("{name}.resnets.{i}"), &x);
            if let Some(attention) = self.attentions.get(i) {
                x = attention.forward(&x, context)?;
                tap(&format!("{name}.attentions.{i}"), &x);
            }
            skips.push(x.clone());
        }
        if let Some(downsampler) = &self.downsampler {
            x = downsampler.forward(&x)?;
            tap(&format!("{name}.downsamplers.0"), &x);
            skips.push(x.clone());
        }
        Ok(x)
    }
}

/// The lowest level: `UNetMidBlock2DCrossAttn`, or `UNetMidBlock2D`, which diffusers builds with one residual block
/// and nothing else.
pub(crate) struct MidBlock {
    resnets: Vec<ResnetBlock2D>,
    attention: Option<Transformer2DModel>,
}

impl MidBlock {
    pub(crate) fn new(config: &UNet2DConditionConfig, level: &Level, w: &Weights) -> Result<Self> {
        let resnet = resnet_config(config, config.mid_block_scale_factor);
        let resnet =
            |i: usize| ResnetBlock2D::new(level.channels, level.channels, resnet, &w.sub("resnets").sub(i));
        if config.mid_block_type.as_deref() != Some("UNetMidBlock2DCrossAttn") {
            return Ok(Self { resnets: vec![resnet(0)?], attention: None });
        }
        let depth = match &level.depth {
            PerBlock::All(depth) => *depth,
            PerBlock::Each(depths) => depths.first().copied().unwrap_or(1),
        };
        let w = w.sub("attentions").sub(0);
        let attention =
            Transformer2DModel::new(level.channels, depth, transformer_config(config, level), &w)?;
        Ok(Self { resnets: vec![resnet(0)?, resnet(1)?], attention: Some(attention) })
    }

    /// Its transformer, if it has one.
    pub(super) fn attention(&self) -> Option<&Transformer2DModel> {
        self.attention.as_ref()
    }

    pub(crate) fn forward(
        &self,
        x: Tensor,
        time: &Tensor,
        context: Context<'_>,
        tap: Tap<'_>,
    ) -> Result<Tensor> {
        let mut x = x;
        for (i, resnet) in self.resnets.iter().enumerate() {
            if let (1, Some(attention)) = (i, &self.attention) {
                x = attention.forward(&x, context)?;
                tap("mid_block.attentions.0", &x);
            }
            x = resnet.forward(&x, Some(time))?;
            tap(&format!("mid_block.resnets.{i}"), &x);
        }
        Ok(x)
    }
}

/// A level of the way up: `UpBlock2D`, or `CrossAttnUpBlock2D` where it has transformers.
pub(crate) struct UpBlock {
    name: String,
    resnets: Vec<ResnetBlock2D>,
    attentions: Vec<Transformer2DModel>,
    upsampler: Option<Upsample2D>,
}

impl UpBlock {
    /// Block `index` of the way up. `levels` from the top down.
    pub(crate) fn new(
        config: &UNet2DConditionConfig,
        levels: &[Level],
        index: usize,
        w: &Weights,
    ) -> Result<Self> {
        let depth = levels.len() - 1 - index;
        let level = &levels[depth];
        let layers = level.layers + 1;
        let from_below = levels.get(depth + 1).unwrap_or(level).channels;
        let from_above = levels[depth.saturating_sub(1)].channels;
        let resnet = resnet_config(config, 1.0);
        let resnets = (0..layers)
            .map(|i| {
                let hidden = if i == 0 { from_below } else { level.channels };
                // The last state to come back is the one that entered this level on the way down.
                let skip = if i + 1 == layers { from_above } else { level.channels };
                ResnetBlock2D::new(hidden + skip, level.channels, resnet, &w.sub("resnets").sub(i))
            })
            .collect::<Result<_>>()?;
        let attentions = match &*config.up_block_types[index] {
            "CrossAttnUpBlock2D" => attentions(config, level, &level.depth_up, layers, w)?,
            _ => Vec::new(),
        };
        let upsampler =
            (depth != 0).then(|| Upsample2D::new(level.channels, &w.sub("upsamplers").sub(0))).transpose()?;
        Ok(Self { name: format!("up_blocks.{index}"), resnets, attentions, upsampler })
    }

    /// Its transformers, in order.
    pub(super) fn attentions(&self) -> &[Transformer2DModel] {
        &self.attentions
    }

    /// Takes its states back from the end of `skips`. With `exact_size` the enlarged output has the size of the next
    /// state to come, which is not the double where a side was odd on the way down.
    pub(crate) fn forward(
        &self,
        x: Tensor,
        time: &Tensor,
        context: Context<'_>,
        skips: &mut Vec<Tensor>,
        exact_size: bool,
        tap: Tap<'_>,
    ) -> Result<Tensor> {
        let name = &self.name;
        let mut x = x;
        for (i, resnet) in self.resnets.iter().enumerate() {
            let skip = skips.pop().ok_or_else(|| no_skip(name))?;
            x = resnet.forward(&Tensor::cat(&[x, skip], 1)?, Some(time))?;
            tap(&format!("{name}.resnets.{i}"), &x);
            if let Some(attention) = self.attentions.get(i) {
                x = attention.forward(&x, context)?;
                tap(&format!("{name}.attentions.{i}"), &x);
            }
        }
        if let Some(upsampler) = &self.upsampler {
            let size = match skips.last() {
                Some(next) if exact_size => Some((next.dim(2)?, next.dim(3)?)),
                _ => None,
            };
            x = upsampler.forward(&x, size)?;
            tap(&format!("{name}.upsamplers.0"), &x);
        }
        Ok(x)
    }
}

fn no_skip(name: &str) -> Error {
    Error::Tensor(candle_core::Error::msg(format!("{name}: no state of the way down is left")))
}
