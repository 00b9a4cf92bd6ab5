//! The layers that every network is built of, with torch's names and defaults.

use candle_core::Tensor;

use crate::Result;
use crate::weights::Weights;

/// A fully connected layer (torch: `nn.Linear`).
pub struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Linear {
    /// Reads `weight` (outputs, inputs) and, if `bias`, `bias` (outputs).
    pub fn new(inputs: usize, outputs: usize, bias: bool, w: &Weights) -> Result<Self> {
        let weight = w.get("weight", &[outputs, inputs])?;
        let bias = bias.then(|| w.get("bias", &[outputs])).transpose()?;
        Ok(Self { weight, bias })
    }

    /// `x` (.., inputs) to (.., outputs).
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(infill_kernels::linear(x, &self.weight, self.bias.as_ref())?)
    }
}

/// A square two-dimensional convolution with bias (torch: `nn.Conv2d`).
pub struct Conv2d {
    weight: Tensor,
    bias: Option<Tensor>,
    stride: usize,
    padding: usize,
}

impl Conv2d {
    /// Reads `weight` (outputs, inputs, kernel, kernel) and `bias` (outputs).
    pub fn new(
        inputs: usize,
        outputs: usize,
        kernel: usize,
        stride: usize,
        padding: usize,
        w: &Weights,
    ) -> Result<Self> {
        let bias = Some(w.get("bias", &[outputs])?);
        Ok(Self { bias, ..Self::without_bias(inputs, outputs, kernel, stride, padding, w)? })
    }

    /// Reads `weight` (outputs, inputs, kernel, kernel) only.
    pub fn without_bias(
        inputs: usize,
        outputs: usize,
        kernel: usize,
        stride: usize,
        padding: usize,
        w: &Weights,
    ) -> Result<Self> {
        let weight = w.get("weight", &[outputs, inputs, kernel, kernel])?;
        Ok(Self { weight, bias: None, stride, padding })
    }

    /// `x` (B, inputs, H, W) to (B, outputs, H', W').
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(infill_kernels::conv2d(x, &self.weight, self.bias.as_ref(), self.stride, self.padding)?)
    }
}

/// Normalisation over groups of channels (torch: `nn.GroupNorm`).
pub struct GroupNorm {
    weight: Tensor,
    bias: Tensor,
    groups: usize,
    eps: f64,
}

impl GroupNorm {
    /// Reads `weight` and `bias` (channels).
    pub fn new(groups: usize, channels: usize, eps: f64, w: &Weights) -> Result<Self> {
        let (weight, bias) = (w.get("weight", &[channels])?, w.get("bias", &[channels])?);
        Ok(Self { weight, bias, groups, eps })
    }

    /// `x` (B, channels, ..) to the same shape.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(infill_kernels::group_norm(x, &self.weight, &self.bias, self.groups, self.eps)?)
    }

    /// `x` (B, channels, ..) to the same shape: the norm and then SiLU, in one pass where a kernel has it.
    pub fn forward_silu(&self, x: &Tensor) -> Result<Tensor> {
        Ok(infill_kernels::group_norm_silu(x, &self.weight, &self.bias, self.groups, self.eps)?)
    }
}

/// Normalisation over the last dimension (torch: `nn.LayerNorm`).
pub struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    eps: f64,
}

impl LayerNorm {
    /// Reads `weight` and `bias` (width).
    pub fn new(width: usize, eps: f64, w: &Weights) -> Result<Self> {
        let (weight, bias) = (w.get("weight", &[width])?, w.get("bias", &[width])?);
        Ok(Self { weight, bias, eps })
    }

    /// `x` (.., width) to the same shape.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(infill_kernels::layer_norm(x, &self.weight, &self.bias, self.eps)?)
    }
}

/// A table of vectors looked up by index (torch: `nn.Embedding`).
pub struct Embedding {
    weight: Tensor,
}

impl Embedding {
    /// Reads `weight` (entries, width).
    pub fn new(entries: usize, width: usize, w: &Weights) -> Result<Self> {
        Ok(Self { weight: w.get("weight", &[entries, width])? })
    }

    /// `ids` (..) of `u32` to (.., width).
    pub fn forward(&self, ids: &Tensor) -> Result<Tensor> {
        let mut shape = ids.dims().to_vec();
        shape.push(self.weight.dim(1)?);
        Ok(self.weight.index_select(&ids.flatten_all()?, 0)?.reshape(shape)?)
    }

    /// The table itself (entries, width).
    pub fn weight(&self) -> &Tensor {
        &self.weight
    }
}
