//! The projection of the Plus and Plus-Face adapters: a few learned queries that read all patches, a perceiver
//! resampler (Alayrac et al. 2022, arXiv 2204.14198; diffusers: `IPAdapterPlusImageProjection`).

use candle_core::{D, Tensor};

use super::projection::NORM_EPS;
use super::{matrix, unfit};
use crate::layers::{LayerNorm, Linear};
use crate::weights::Weights;
use crate::{Result, bounds};

/// The width of each head, in all published adapters and in diffusers.
const HEAD_DIM: usize = 64;

/// The Plus adapters' projection: all patches of a picture to as many tokens as there are queries.
pub struct IpAdapterPlusImageProjection {
    latents: Tensor,
    proj_in: Linear,
    layers: Vec<Layer>,
    proj_out: Linear,
    norm_out: LayerNorm,
    input: usize,
    width: usize,
}

impl IpAdapterPlusImageProjection {
    /// Reads `latents` (1,N,D), `proj_in`, `layers.*`, `proj_out` and `norm_out`; there are as many layers as the file
    /// has.
    ///
    /// # Errors
    /// [`crate::Error::Weights`] when a matrix that sizes are read from is missing, or is no whole number of heads.
    pub fn new(w: &Weights) -> Result<Self> {
        let latents = w.shape("latents").unwrap_or_default();
        let &[1, queries, dim] = latents.as_slice() else {
            return Err(unfit(w, format!("image_proj.latents is {latents:?}, needs [1, queries, width]")));
        };
        let (_, input) = matrix(w, "proj_in.weight")?;
        let (width, _) = matrix(w, "proj_out.weight")?;
        let layers = w.sub("layers");
        let depth = (0..*bounds::LAYERS.end()).take_while(|i| layers.sub(i).names().next().is_some()).count();
        Ok(Self {
            latents: w.get("latents", &[1, queries, dim])?,
            proj_in: Linear::new(input, dim, true, &w.sub("proj_in"))?,
            layers: (0..depth).map(|i| Layer::new(dim, &layers.sub(i))).collect::<Result<_>>()?,
            proj_out: Linear::new(dim, width, true, &w.sub("proj_out"))?,
            norm_out: LayerNorm::new(width, NORM_EPS, &w.sub("norm_out"))?,
            input,
            width,
        })
    }

    /// The encoder's `hidden_size`.
    pub fn input_width(&self) -> usize {
        self.input
    }

    /// The width of a token.
    pub fn output_width(&self) -> usize {
        self.width
    }

    /// `hidden_states` (B,M,input), the encoder's penultimate ones, to (B,N,width).
    pub fn forward(&self, hidden_states: &Tensor) -> Result<Tensor> {
        let (_, queries, dim) = self.latents.dims3()?;
        let x = self.proj_in.forward(hidden_states)?; // (B,M,D)
        let mut latents = self.latents.expand((x.dim(0)?, queries, dim))?.contiguous()?;
        for layer in &self.layers {
            latents = layer.forward(&x, &latents)?; // (B,N,D)
        }
        self.norm_out.forward(&self.proj_out.forward(&latents)?)
    }
}

/// The queries attend to the patches and to themselves, then pass through a feed-forward layer.
struct Layer {
    norm1: LayerNorm,
    norm2: LayerNorm,
    to_q: Linear,
    to_kv: Linear,
    to_out: Linear,
    heads: usize,
    norm: LayerNorm,
    linear_1: Linear,
    linear_2: Linear,
}

impl Layer {
    fn new(dim: usize, w: &Weights) -> Result<Self> {
        let (attention, feed_forward) = (w.sub(0), w.sub(1));
        let (inner, _) = matrix(&attention, "to_q.weight")?;
        if inner == 0 || inner % HEAD_DIM != 0 {
            return Err(unfit(w, format!("to_q.weight has {inner} rows, needs a multiple of {HEAD_DIM}")));
        }
        let (hidden, _) = matrix(&feed_forward, "1.weight")?;
        Ok(Self {
            norm1: LayerNorm::new(dim, NORM_EPS, &attention.sub("norm1"))?,
            norm2: LayerNorm::new(dim, NORM_EPS, &attention.sub("norm2"))?,
            to_q: Linear::new(dim, inner, false, &attention.sub("to_q"))?,
            to_kv: Linear::new(dim, 2 * inner, false, &attention.sub("to_kv"))?,
            to_out: Linear::new(inner, dim, false, &attention.sub("to_out"))?,
            heads: inner / HEAD_DIM,
            norm: LayerNorm::new(dim, NORM_EPS, &feed_forward.sub(0))?,
            linear_1: Linear::new(dim, hidden, false, &feed_forward.sub(1))?,
            linear_2: Linear::new(hidden, dim, false, &feed_forward.sub(3))?,
        })
    }

    /// `x` (B,M,D) and `latents` (B,N,D) to (B,N,D).
    fn forward(&self, x: &Tensor, latents: &Tensor) -> Result<Tensor> {
        let latents = (self.attend(x, latents)? + latents)?;
        let y = infill_kernels::gelu_erf(&self.linear_1.forward(&self.norm.forward(&latents)?)?)?;
        Ok((self.linear_2.forward(&y)? + latents)?)
    }

    fn attend(&self, x: &Tensor, latents: &Tensor) -> Result<Tensor> {
        let latents = self.norm2.forward(latents)?;
        let context = Tensor::cat(&[&self.norm1.forward(x)?, &latents], 1)?; // (B,M+N,D)
        let kv = self.to_kv.forward(&context)?.chunk(2, D::Minus1)?;
        let q = self.split_heads(&self.to_q.forward(&latents)?)?;
        let (k, v) = (self.split_heads(&kv[0])?, self.split_heads(&kv[1])?);
        let y = infill_kernels::attention(&q, &k, &v, (HEAD_DIM as f32).sqrt().recip(), None)?;
        self.to_out.forward(&y.transpose(1, 2)?.contiguous()?.flatten_from(D::Minus2)?)
    }

    /// (B,N,inner) to (B,heads,N,head width).
    fn split_heads(&self, x: &Tensor) -> Result<Tensor> {
        let (batch, count, _) = x.dims3()?;
        Ok(x.reshape((batch, count, self.heads, HEAD_DIM))?.transpose(1, 2)?)
    }
}
