//! Where the picture reads the words: the transformer between the residual blocks.

use candle_core::{DType, Tensor};

use super::image_prompt::{ImagePrompts, Term};
use crate::Result;
use crate::layers::{Conv2d, GroupNorm, LayerNorm, Linear};
use crate::weights::Weights;

/// Of the norm before the first projection; fixed in diffusers, whatever `norm_eps` says.
const NORM_EPS: f64 = 1e-6;
/// Of the norms inside the blocks: torch's default.
const LAYER_NORM_EPS: f64 = 1e-5;

/// What all transformers of one level share.
#[derive(Clone, Copy)]
pub(crate) struct TransformerConfig {
    pub(crate) heads: usize,
    pub(crate) context_width: usize,
    pub(crate) groups: usize,
    pub(crate) use_linear_projection: bool,
    pub(crate) upcast_attention: bool,
}

/// What the picture attends to: the words, and apart from them the tokens of reference pictures.
#[derive(Clone, Copy)]
pub(crate) struct Context<'a> {
    /// (B, N, D)
    pub(crate) words: &'a Tensor,
    pub(crate) images: Option<&'a ImagePrompts>,
}

/// Pixels as tokens through a few transformer blocks (diffusers: `transformers/transformer_2d.py`).
pub(crate) struct Transformer2DModel {
    norm: GroupNorm,
    proj_in: Projection,
    transformer_blocks: Vec<BasicTransformerBlock>,
    proj_out: Projection,
}

impl Transformer2DModel {
    pub(crate) fn new(channels: usize, depth: usize, config: TransformerConfig, w: &Weights) -> Result<Self> {
        let inner = config.heads * (channels / config.heads);
        let linear = config.use_linear_projection;
        Ok(Self {
            norm: GroupNorm::new(config.groups, channels, NORM_EPS, &w.sub("norm"))?,
            proj_in: Projection::new(channels, inner, linear, &w.sub("proj_in"))?,
            transformer_blocks: (0..depth)
                .map(|i| BasicTransformerBlock::new(inner, config, &w.sub("transformer_blocks").sub(i)))
                .collect::<Result<_>>()?,
            proj_out: Projection::new(inner, channels, linear, &w.sub("proj_out"))?,
        })
    }

    /// The attentions that read the context.
    pub(super) fn cross_attentions(&self) -> impl Iterator<Item = &Attention> {
        self.transformer_blocks.iter().map(|block| &block.attn2)
    }

    /// `x` (B, C, H, W) to (B, C, H, W).
    pub(crate) fn forward(&self, x: &Tensor, context: Context<'_>) -> Result<Tensor> {
        let (_, _, height, width) = x.dims4()?;
        let mut tokens = self.proj_in.pixels_to_tokens(&self.norm.forward(x)?)?;
        for block in &self.transformer_blocks {
            tokens = block.forward(&tokens, context)?;
        }
        Ok((self.proj_out.tokens_to_pixels(&tokens, height, width)? + x)?)
    }
}

/// The same matrix at every pixel, stored as a 1 x 1 convolution or as a linear layer (`use_linear_projection`).
enum Projection {
    Conv(Conv2d),
    Linear(Linear),
}

impl Projection {
    fn new(inputs: usize, outputs: usize, linear: bool, w: &Weights) -> Result<Self> {
        if linear {
            Ok(Self::Linear(Linear::new(inputs, outputs, true, w)?))
        } else {
            Ok(Self::Conv(Conv2d::new(inputs, outputs, 1, 1, 0, w)?))
        }
    }

    /// (B, inputs, H, W) to (B, HW, outputs).
    fn pixels_to_tokens(&self, x: &Tensor) -> Result<Tensor> {
        let tokens = |x: &Tensor| x.flatten_from(2)?.transpose(1, 2)?.contiguous();
        match self {
            Self::Conv(conv) => Ok(tokens(&conv.forward(x)?)?),
            Self::Linear(linear) => linear.forward(&tokens(x)?),
        }
    }

    /// (B, HW, inputs) to (B, outputs, H, W).
    fn tokens_to_pixels(&self, x: &Tensor, height: usize, width: usize) -> Result<Tensor> {
        let pixels = |x: &Tensor| {
            let (batch, _, channels) = x.dims3()?;
            x.transpose(1, 2)?.contiguous()?.reshape((batch, channels, height, width))
        };
        match self {
            Self::Conv(conv) => conv.forward(&pixels(x)?),
            Self::Linear(linear) => Ok(pixels(&linear.forward(x)?)?),
        }
    }
}

/// Attention among the tokens, attention to the words, feed-forward; each past a norm and added to its input
/// (diffusers: `attention.py`, `BasicTransformerBlock`).
struct BasicTransformerBlock {
    norm1: LayerNorm,
    attn1: Attention,
    norm2: LayerNorm,
    attn2: Attention,
    norm3: LayerNorm,
    ff: FeedForward,
}

impl BasicTransformerBlock {
    fn new(width: usize, config: TransformerConfig, w: &Weights) -> Result<Self> {
        let norm = |name: &str| LayerNorm::new(width, LAYER_NORM_EPS, &w.sub(name));
        Ok(Self {
            norm1: norm("norm1")?,
            attn1: Attention::new(width, width, config, &w.sub("attn1"))?,
            norm2: norm("norm2")?,
            attn2: Attention::new(width, config.context_width, config, &w.sub("attn2"))?,
            norm3: norm("norm3")?,
            ff: FeedForward::new(width, &w.sub("ff"))?,
        })
    }

    /// `x` (B, HW, width) to the same shape.
    fn forward(&self, x: &Tensor, context: Context<'_>) -> Result<Tensor> {
        let images = context.images.map_or(&[][..], |images| images.of(self.attn2.name()));
        let normed = self.norm1.forward(x)?;
        let x = (self.attn1.forward(&normed, &normed, &[])? + x)?;
        let x = (self.attn2.forward(&self.norm2.forward(&x)?, context.words, images)? + x)?;
        Ok((self.ff.forward(&self.norm3.forward(&x)?)? + x)?)
    }
}

/// Multi-head attention of `x` to `context` (diffusers: `attention_processor.py`, `Attention`).
pub(super) struct Attention {
    name: String,
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
    width: usize,
    context_width: usize,
    heads: usize,
    upcast: bool,
}

impl Attention {
    fn new(width: usize, context_width: usize, config: TransformerConfig, w: &Weights) -> Result<Self> {
        Ok(Self {
            name: w.path().to_owned(),
            to_q: Linear::new(width, width, false, &w.sub("to_q"))?,
            to_k: Linear::new(context_width, width, false, &w.sub("to_k"))?,
            to_v: Linear::new(context_width, width, false, &w.sub("to_v"))?,
            to_out: Linear::new(width, width, true, &w.sub("to_out").sub(0))?,
            width,
            context_width,
            heads: config.heads,
            upcast: config.upcast_attention,
        })
    }

    /// Its diffusers module name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The width of queries, keys and values, and that of the context.
    pub(super) fn widths(&self) -> (usize, usize) {
        (self.width, self.context_width)
    }

    /// The number format that `x` is attended in.
    pub(super) fn dtype(&self, x: &Tensor) -> DType {
        if self.upcast { DType::F32 } else { x.dtype() }
    }

    /// (B, N, width) to (B, heads, N, head width), in the format that it is attended in.
    pub(super) fn split_heads(&self, x: &Tensor) -> Result<Tensor> {
        let (batch, tokens, width) = x.dims3()?;
        let x = x.to_dtype(self.dtype(x))?;
        Ok(x.reshape((batch, tokens, self.heads, width / self.heads))?.transpose(1, 2)?)
    }

    /// `x` (B, N, width) and `context` (B, M, context width) to (B, N, width); `images` is attended to beside `context`.
    fn forward(&self, x: &Tensor, context: &Tensor, images: &[Term]) -> Result<Tensor> {
        let q = self.split_heads(&self.to_q.forward(x)?)?;
        let k = self.split_heads(&self.to_k.forward(context)?)?;
        let v = self.split_heads(&self.to_v.forward(context)?)?;
        let scale = ((self.width / self.heads) as f32).sqrt().recip();
        let mut out = infill_kernels::attention(&q, &k, &v, scale, None)?;
        for Term { k, v, mask } in images {
            let image = infill_kernels::attention(&q, k, v, scale, None)?;
            out = match mask {
                Some(mask) => (out + image.broadcast_mul(mask)?)?,
                None => (out + image)?,
            };
        }
        let (batch, _, tokens, _) = out.dims4()?;
        let out = out.transpose(1, 2)?.reshape((batch, tokens, self.width))?.to_dtype(x.dtype())?;
        self.to_out.forward(&out)
    }
}

/// Four times as wide inside, gated (diffusers: `attention.py`, `FeedForward` with `geglu`).
struct FeedForward {
    proj: Linear,
    out: Linear,
}

impl FeedForward {
    fn new(width: usize, w: &Weights) -> Result<Self> {
        let net = w.sub("net");
        Ok(Self {
            proj: Linear::new(width, 8 * width, true, &net.sub(0).sub("proj"))?,
            out: Linear::new(4 * width, width, true, &net.sub(2))?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.out.forward(&infill_kernels::geglu(&self.proj.forward(x)?)?)
    }
}
