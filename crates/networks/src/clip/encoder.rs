//! The transformer layer that both of CLIP's encoders are stacks of (transformers: `CLIPEncoderLayer`), and the checks
//! that their configurations share.

use std::collections::BTreeMap;

use candle_core::{D, Tensor};
use serde_json::Value;

use crate::layers::{LayerNorm, Linear};
use crate::weights::Weights;
use crate::{Error, Result};

/// Keys that change nothing when the network runs.
const HARMLESS: [&str; 23] = [
    "architectures",
    "attention_dropout",
    "attn_implementation",
    "bos_token_id",
    "chunk_size_feed_forward",
    "do_sample",
    "dropout",
    "dtype",
    "id2label",
    "initializer_factor",
    "initializer_range",
    "is_decoder",
    "label2id",
    "model_type",
    "name_or_path",
    "output_attentions",
    "output_hidden_states",
    "pad_token_id",
    "return_dict",
    "torch_dtype",
    "torchscript",
    "transformers_version",
    "use_cache",
];

/// Refuses the first key that is neither bookkeeping nor known to `class`.
pub(super) fn check_other(component: &str, other: &BTreeMap<String, Value>, class: &str) -> Result<()> {
    match other.iter().find(|(key, _)| !key.starts_with('_') && !HARMLESS.contains(&key.as_str())) {
        None => Ok(()),
        Some((key, value)) => Err(Error::Unsupported {
            component: component.into(),
            key: key.clone(),
            value: value.to_string(),
            implemented: format!("the keys of transformers' {class}"),
        }),
    }
}

/// Refuses a width that does not divide into the heads.
pub(super) fn check_heads(component: &str, width: usize, heads: usize) -> Result<()> {
    if heads != 0 && width.is_multiple_of(heads) {
        return Ok(());
    }
    let reason = format!("hidden_size {width} is no multiple of num_attention_heads {heads}");
    Err(Error::Config { component: component.into(), reason })
}

/// `hidden_act`.
#[derive(Debug, Clone, Copy)]
pub(super) enum Activation {
    QuickGelu,
    Gelu,
}

impl Activation {
    pub(super) fn read(component: &str, hidden_act: &str) -> Result<Self> {
        match hidden_act {
            "quick_gelu" => Ok(Self::QuickGelu),
            "gelu" => Ok(Self::Gelu),
            other => Err(Error::Unsupported {
                component: component.into(),
                key: "hidden_act".into(),
                value: other.into(),
                implemented: "quick_gelu, gelu".into(),
            }),
        }
    }
}

/// What every layer of an encoder has in common.
#[derive(Debug, Clone, Copy)]
pub(super) struct LayerShape {
    pub(super) width: usize,
    pub(super) inner: usize,
    pub(super) heads: usize,
    pub(super) eps: f64,
    pub(super) activation: Activation,
}

pub(super) struct EncoderLayer {
    layer_norm1: LayerNorm,
    self_attn: Attention,
    layer_norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    activation: Activation,
}

impl EncoderLayer {
    pub(super) fn new(shape: LayerShape, w: &Weights) -> Result<Self> {
        let LayerShape { width, inner, heads, eps, activation } = shape;
        let mlp = w.sub("mlp");
        Ok(Self {
            layer_norm1: LayerNorm::new(width, eps, &w.sub("layer_norm1"))?,
            self_attn: Attention::new(width, heads, &w.sub("self_attn"))?,
            layer_norm2: LayerNorm::new(width, eps, &w.sub("layer_norm2"))?,
            fc1: Linear::new(width, inner, true, &mlp.sub("fc1"))?,
            fc2: Linear::new(inner, width, true, &mlp.sub("fc2"))?,
            activation,
        })
    }

    /// `x` (B,N,D) to the same shape; `mask` (1,1,N,N) is added to the scores.
    pub(super) fn forward(&self, x: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
        let x = (x + self.self_attn.forward(&self.layer_norm1.forward(x)?, mask)?)?;
        let y = self.fc1.forward(&self.layer_norm2.forward(&x)?)?;
        let y = match self.activation {
            Activation::QuickGelu => infill_kernels::quick_gelu(&y)?,
            Activation::Gelu => infill_kernels::gelu_erf(&y)?,
        };
        Ok((x + self.fc2.forward(&y)?)?)
    }
}

struct Attention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    out_proj: Linear,
    heads: usize,
}

impl Attention {
    fn new(width: usize, heads: usize, w: &Weights) -> Result<Self> {
        let linear = |name: &str| Linear::new(width, width, true, &w.sub(name));
        Ok(Self {
            q_proj: linear("q_proj")?,
            k_proj: linear("k_proj")?,
            v_proj: linear("v_proj")?,
            out_proj: linear("out_proj")?,
            heads,
        })
    }

    fn forward(&self, x: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
        let (batch, count, width) = x.dims3()?;
        let head_dim = width / self.heads;
        let split = |x: Tensor| x.reshape((batch, count, self.heads, head_dim))?.transpose(1, 2); // (B,heads,N,d)
        let q = split(self.q_proj.forward(x)?)?;
        let k = split(self.k_proj.forward(x)?)?;
        let v = split(self.v_proj.forward(x)?)?;
        let scale = 1.0 / (head_dim as f32).sqrt();
        let y = infill_kernels::attention(&q, &k, &v, scale, mask)?;
        let y = y.transpose(1, 2)?.contiguous()?.flatten_from(D::Minus2)?; // (B,N,D)
        self.out_proj.forward(&y)
    }
}
