//! The projections that are one or two fully connected layers (diffusers: `models/embeddings.py`).

use candle_core::Tensor;

use super::{matrix, unfit};
use crate::Result;
use crate::layers::{LayerNorm, Linear};
use crate::weights::Weights;

/// torch's own default, which the projections keep.
pub(super) const NORM_EPS: f64 = 1e-5;

/// The plain adapter's projection: one embedding to a few tokens.
pub struct ImageProjection {
    proj: Linear,
    norm: LayerNorm,
    tokens: usize,
    input: usize,
    width: usize,
}

impl ImageProjection {
    /// Reads `proj` (tokens x width, input) and `norm` (width).
    ///
    /// # Errors
    /// [`crate::Error::Weights`] when the rows are no whole number of tokens.
    pub fn new(w: &Weights) -> Result<Self> {
        let (rows, input) = matrix(w, "proj.weight")?;
        let width = w.shape("norm.weight").and_then(|shape| shape.first().copied()).unwrap_or(0);
        if width == 0 || rows % width != 0 {
            let faults = format!("image_proj.proj.weight has {rows} rows for tokens of {width} numbers");
            return Err(unfit(w, faults));
        }
        Ok(Self {
            proj: Linear::new(input, rows, true, &w.sub("proj"))?,
            norm: LayerNorm::new(width, NORM_EPS, &w.sub("norm"))?,
            tokens: rows / width,
            input,
            width,
        })
    }

    /// The encoder's `projection_dim`.
    pub fn input_width(&self) -> usize {
        self.input
    }

    /// The width of a token.
    pub fn output_width(&self) -> usize {
        self.width
    }

    /// `image_embeds` (B,P) to (B,N,D).
    pub fn forward(&self, image_embeds: &Tensor) -> Result<Tensor> {
        let batch = image_embeds.dim(0)?;
        let x = self.proj.forward(image_embeds)?.reshape((batch, self.tokens, self.width))?;
        self.norm.forward(&x)
    }
}

/// The Full-Face adapter's projection: every patch to a token of its own.
pub struct IpAdapterFullImageProjection {
    linear_1: Linear,
    linear_2: Linear,
    norm: LayerNorm,
    input: usize,
    width: usize,
}

impl IpAdapterFullImageProjection {
    /// Reads `proj.0` (inner, input), `proj.2` (width, inner) and the norm `proj.3` (width).
    ///
    /// # Errors
    /// [`crate::Error::Weights`] when a matrix is missing.
    pub fn new(w: &Weights) -> Result<Self> {
        let (inner, input) = matrix(w, "proj.0.weight")?;
        let (width, _) = matrix(w, "proj.2.weight")?;
        let proj = w.sub("proj");
        Ok(Self {
            linear_1: Linear::new(input, inner, true, &proj.sub(0))?,
            linear_2: Linear::new(inner, width, true, &proj.sub(2))?,
            norm: LayerNorm::new(width, NORM_EPS, &proj.sub(3))?,
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

    /// `hidden_states` (B,N,D) to (B,N,width).
    pub fn forward(&self, hidden_states: &Tensor) -> Result<Tensor> {
        let x = infill_kernels::gelu_erf(&self.linear_1.forward(hidden_states)?)?;
        self.norm.forward(&self.linear_2.forward(&x)?)
    }
}
