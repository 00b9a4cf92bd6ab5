//! Image tokens beside the words: decoupled cross-attention (IP-Adapter, Ye et al. 2023, arXiv 2308.06721, section 3.2.2).
//!
//! Every cross-attention layer attends to the words as ever, and with the same queries to the tokens of each adapter
//! through that adapter's own `to_k_ip` and `to_v_ip`; the results are added. (diffusers: `attention_processor.py`,
//! `IPAdapterAttnProcessor2_0`)

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};

use super::region::RegionMask;
use super::transformer::Attention;
use crate::layers::Linear;
use crate::{Error, Result};

/// Where a transformer stands in the UNet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// `down_blocks.{level}.attentions.{transformer}`
    Down {
        /// From the top.
        level: usize,
        /// Within its level.
        transformer: usize,
    },
    /// `mid_block.attentions.0`
    Mid,
    /// `up_blocks.{level}.attentions.{transformer}`
    Up {
        /// From the bottom.
        level: usize,
        /// Within its level.
        transformer: usize,
    },
}

/// One cross-attention layer of a UNet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CrossAttention {
    /// Its diffusers module name: `down_blocks.1.attentions.0.transformer_blocks.0.attn2`.
    pub name: String,
    /// The transformer that it belongs to.
    pub place: Place,
    /// How many numbers a pixel has here: the rows of `to_k_ip` and `to_v_ip`.
    pub width: usize,
    /// How many numbers a word has here: their columns.
    pub context_width: usize,
}

/// A layer with its depth: how often height and width have been halved.
pub(super) struct Layer<'a> {
    pub(super) place: Place,
    pub(super) depth: usize,
    pub(super) attention: &'a Attention,
}

/// An adapter's weights in one cross-attention layer.
pub struct ImageAttention {
    /// (width, context width), without bias.
    pub to_k_ip: Linear,
    /// (width, context width), without bias.
    pub to_v_ip: Linear,
}

/// What one adapter adds to a run.
pub struct AdapterTokens<'a> {
    /// One for each of [`super::UNet2DConditionModel::cross_attentions`], in that order.
    pub layers: &'a [ImageAttention],
    /// The adapter's tokens of each picture: (B, pictures, N, D), B being the UNet's batch.
    pub tokens: Tensor,
    /// How strongly each picture works.
    pub scales: Vec<f64>,
    /// A factor for each layer; 0 leaves the layer as it is.
    pub weights: Vec<f64>,
    /// Where each picture works. Without any mask the pictures are attended to jointly, in one softmax; with one, each
    /// by itself.
    pub masks: Vec<Option<RegionMask>>,
}

/// Keys and values of image tokens for every layer that listens. They do not depend on the timestep: made once for a run,
/// by [`super::UNet2DConditionModel::image_prompts`].
pub struct ImagePrompts {
    layers: BTreeMap<String, Vec<Term>>,
}

/// One more attention of a layer, whose result is added to that of the words.
pub(super) struct Term {
    /// (B, heads, M, head width)
    pub(super) k: Tensor,
    /// (B, heads, M, head width), scale and layer's weight multiplied in.
    pub(super) v: Tensor,
    /// (1, 1, pixels, 1), multiplied with the result.
    pub(super) mask: Option<Tensor>,
}

impl ImagePrompts {
    /// `sizes` holds height and width of the pixels at each depth.
    pub(super) fn new(
        layers: &[Layer<'_>],
        adapters: &[AdapterTokens<'_>],
        sizes: &[(usize, usize)],
    ) -> Result<Self> {
        for adapter in adapters {
            adapter.check(layers.len())?;
        }
        let mut prompts = BTreeMap::new();
        for (number, layer) in layers.iter().enumerate() {
            let (height, width) = sizes[layer.depth];
            let mut terms = Vec::new();
            for adapter in adapters.iter().filter(|adapter| adapter.weights[number] != 0.0) {
                terms.extend(adapter.terms(number, layer.attention, height * width)?);
            }
            if !terms.is_empty() {
                prompts.insert(layer.attention.name().to_owned(), terms);
            }
        }
        Ok(Self { layers: prompts })
    }

    /// Whether no layer listens.
    pub fn is_empty(&self) -> bool {
        self.layers.is_empty()
    }

    pub(super) fn of(&self, layer: &str) -> &[Term] {
        self.layers.get(layer).map_or(&[], Vec::as_slice)
    }
}

impl AdapterTokens<'_> {
    fn check(&self, layers: usize) -> Result<()> {
        let (_, pictures, _, _) = self.tokens.dims4()?;
        let counts = [
            ("layers of the adapter", self.layers.len(), layers),
            ("weights of layers", self.weights.len(), layers),
            ("scales of pictures", self.scales.len(), pictures),
            ("masks of pictures", self.masks.len(), pictures),
        ];
        match counts.into_iter().find(|(_, given, needed)| given != needed) {
            None => Ok(()),
            Some((what, given, needed)) => Err(Error::Tensor(candle_core::Error::msg(format!(
                "{given} {what}, the UNet needs {needed}"
            )))),
        }
    }

    /// What layer `number`, at which the picture has `pixels` pixels, adds.
    fn terms(&self, number: usize, attention: &Attention, pixels: usize) -> Result<Vec<Term>> {
        let ImageAttention { to_k_ip, to_v_ip } = &self.layers[number];
        let (batch, pictures, count, _) = self.tokens.dims4()?;
        // (B, pictures, N, width)
        let (k, v) = (to_k_ip.forward(&self.tokens)?, to_v_ip.forward(&self.tokens)?);
        let factors: Vec<f32> =
            self.scales.iter().map(|scale| (scale * self.weights[number]) as f32).collect();
        let factors = Tensor::from_vec(factors, (1, pictures, 1, 1), &Device::Cpu)?;
        let v = v.broadcast_mul(&factors.to_dtype(v.dtype())?.to_device(v.device())?)?;
        if self.masks.iter().all(Option::is_none) {
            let joint = |x: &Tensor| attention.split_heads(&x.reshape((batch, pictures * count, ()))?);
            return Ok(vec![Term { k: joint(&k)?.contiguous()?, v: joint(&v)?.contiguous()?, mask: None }]);
        }
        let alone = |x: &Tensor, picture| {
            Ok::<_, Error>(attention.split_heads(&x.narrow(1, picture, 1)?.squeeze(1)?)?.contiguous()?)
        };
        let mask = |mask: &RegionMask| -> Result<Tensor> {
            let values = Tensor::from_vec(mask.at(pixels), (1, 1, pixels, 1), &Device::Cpu)?;
            Ok(values.to_dtype(attention.dtype(&v))?.to_device(v.device())?)
        };
        self.masks
            .iter()
            .enumerate()
            .map(|(picture, region)| {
                Ok(Term {
                    k: alone(&k, picture)?,
                    v: alone(&v, picture)?,
                    mask: region.as_ref().map(mask).transpose()?,
                })
            })
            .collect()
    }
}
