//! What is done to one weight: computed in f32 on the host, when the weight is read.

use std::sync::Arc;

use candle_core::{Device, Shape, Tensor};

use crate::Result;
use crate::tensor_file::TensorFile;

/// A change to one weight.
#[derive(Clone)]
pub(crate) struct Change {
    pub(super) file: Arc<TensorFile>,
    /// How strongly the user wants it.
    pub(super) scale: f64,
    pub(super) delta: Delta,
    /// The difference's shape (O, I ..) where the weight has more inputs, to which nothing is added.
    pub(super) own_shape: Option<Vec<usize>>,
    pub(super) magnitude: Option<Magnitude>,
}

/// What is added to a weight, by the names of the file's tensors.
#[derive(Clone, Debug)]
pub(super) enum Delta {
    /// `factor * a b`: LoRA, LoCon (arXiv 2106.09685, 2309.14859).
    Product { pair: Pair, factor: f64 },
    /// `factor * (a1 b1) . (a2 b2)`, element by element: LoHa (arXiv 2108.06098, 2309.14859).
    Hadamard { first: Pair, second: Pair, factor: f64 },
    /// `factor * w1 (x) w2`, the Kronecker product: LoKr (arXiv 2309.14859).
    Kronecker { first: Side, second: Side, factor: f64 },
    /// A difference of the weight's own size.
    Full { name: String, factor: f64 },
}

/// One side of a Kronecker product.
#[derive(Clone, Debug)]
pub(super) enum Side {
    Full(String),
    Product(Pair),
}

/// Two factors with an optional core between them.
#[derive(Clone, Debug)]
pub(super) struct Pair {
    /// (O, r), or (r, O) where `transposed`; a convolution's is (O, r, 1, 1).
    pub(super) left: String,
    /// (r, I ..).
    pub(super) right: String,
    /// (r, r, k, k): Tucker's, which LyCORIS' older releases call CP decomposition.
    pub(super) core: Option<String>,
    pub(super) transposed: bool,
}

/// DoRA (arXiv 2402.09353): the direction is the changed weight's, the length is learnt.
#[derive(Clone, Debug)]
pub(super) struct Magnitude {
    pub(super) name: String,
    /// The length of what: an output's row, or an input's column.
    pub(super) per_output: bool,
    pub(super) convention: Convention,
}

/// What the user's scale means where the length is learnt; at 1 both agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Convention {
    /// It scales the difference before the length is taken (PEFT's `scale_layer` and `merge`).
    Peft,
    /// It leads from the model's weight to the trained one in a straight line (ComfyUI's `weight_decompose`; LyCORIS
    /// itself would keep the whole difference at scale 0).
    Straight,
}

impl Change {
    /// `current` (O, I ..), what earlier changes have made of `base`, with this change: both f32 on the host.
    pub(crate) fn apply(&self, base: &Tensor, current: &Tensor) -> Result<Tensor> {
        let Some(magnitude) = &self.magnitude else {
            return Ok((current + self.difference(current.shape(), self.scale)?)?);
        };
        let scale = match magnitude.convention {
            Convention::Peft => self.scale,
            Convention::Straight => 1.0,
        };
        let delta = self.difference(base.shape(), scale)?;
        let changed = (base + &delta)?;
        let factors = magnitude.factors(&self.file, &changed)?;
        match magnitude.convention {
            Convention::Peft => Ok((current + delta)?.broadcast_mul(&factors)?),
            Convention::Straight => {
                let difference = (changed.broadcast_mul(&factors)? - base)?;
                Ok((current + (difference * self.scale)?)?)
            }
        }
    }

    /// What is added to the weight of this shape, unless it depends on the weight.
    pub(crate) fn plain_delta(&self, shape: &Shape) -> Result<Option<Tensor>> {
        match self.magnitude {
            None => Ok(Some(self.difference(shape, self.scale)?)),
            Some(_) => Ok(None),
        }
    }

    /// `scale` times the difference, in the weight's `shape`.
    fn difference(&self, shape: &Shape, scale: f64) -> Result<Tensor> {
        let values = self.delta.values(&self.file, scale)?;
        let Some(own) = &self.own_shape else { return Ok(values.reshape(shape)?) };
        Ok(values.reshape(own.as_slice())?.pad_with_zeros(1, 0, shape.dims()[1] - own[1])?)
    }

    /// The file that it comes from, for errors.
    pub(crate) fn file(&self) -> &TensorFile {
        &self.file
    }
}

impl Delta {
    /// `scale` times the difference; as many elements as the weight, in its order.
    fn values(&self, file: &TensorFile, scale: f64) -> Result<Tensor> {
        match self {
            Self::Product { pair, factor } => pair.values(file, factor * scale),
            Self::Hadamard { first, second, factor } => {
                Ok((first.values(file, factor * scale)? * second.values(file, 1.0)?)?)
            }
            Self::Kronecker { first, second, factor } => {
                kronecker(&first.values(file, factor * scale)?, &second.values(file, 1.0)?)
            }
            Self::Full { name, factor } => Ok((file.read_f32(name)? * (factor * scale))?),
        }
    }
}

impl Side {
    /// A matrix (O, I); a convolution's is (O, I, k * k).
    fn values(&self, file: &TensorFile, scale: f64) -> Result<Tensor> {
        match self {
            Self::Full(name) => Ok((file.read_f32(name)? * scale)?),
            Self::Product(pair) => pair.values(file, scale),
        }
    }
}

impl Pair {
    /// `scale * left right` (O, I * k * k), or with the core (O, I, k * k).
    fn values(&self, file: &TensorFile, scale: f64) -> Result<Tensor> {
        let left = file.read_f32(&self.left)?.flatten_from(1)?;
        let left = if self.transposed { left.t()?.contiguous()? } else { left };
        // The smaller matrix takes the factor: the product needs no second pass.
        let left = (left * scale)?; // (O, r)
        let right = file.read_f32(&self.right)?.flatten_from(1)?; // (r, I ..)
        let Some(core) = &self.core else { return product(&left, &right) };
        let core = file.read_f32(core)?.flatten_from(2)?; // (r, r, k * k)
        let (rows, inner, kernel) = core.dims3()?;
        let (outputs, inputs) = (left.dim(0)?, right.dim(1)?);
        let left = product(&left, &core.reshape((rows, inner * kernel))?)?; // (O, r * k * k)
        let left = left.reshape((outputs, inner, kernel))?.transpose(1, 2)?.contiguous()?;
        let both = product(&left.reshape((outputs * kernel, inner))?, &right)?; // (O * k * k, I)
        Ok(both.reshape((outputs, kernel, inputs))?.transpose(1, 2)?.contiguous()?)
    }
}

impl Magnitude {
    /// What each row or column of `changed` (O, I ..) is multiplied by to get its learnt length: (O, 1 ..) or (1, I ..).
    fn factors(&self, file: &TensorFile, changed: &Tensor) -> Result<Tensor> {
        let dims = changed.dims();
        let matrix = changed.reshape((dims[0], dims.get(1).copied().unwrap_or(1), ()))?;
        let kept = usize::from(!self.per_output);
        let norm = matrix.sqr()?.sum_keepdim((1 - kept, 2))?.sqrt()?; // (O, 1, 1) or (1, I, 1)
        let norm: Vec<f32> = norm.flatten_all()?.to_vec1()?;
        let learnt: Vec<f32> = file.read_f32(&self.name)?.flatten_all()?.to_vec1()?;
        let factors: Vec<f32> = learnt
            .iter()
            .zip(&norm)
            .map(|(learnt, norm)| match self.convention {
                // A row of zeros has no direction.
                Convention::Peft if *norm == 0.0 => 0.0,
                Convention::Peft => learnt / norm,
                Convention::Straight => learnt / (norm + f32::EPSILON),
            })
            .collect();
        let mut shape = vec![1; dims.len()];
        shape[kept] = factors.len();
        Ok(Tensor::from_vec(factors, shape, &Device::Cpu)?)
    }
}

/// (M, K) times (K, N), the same bytes whatever the number of threads.
fn product(left: &Tensor, right: &Tensor) -> Result<Tensor> {
    Ok(infill_kernels::linear(left, &right.t()?.contiguous()?, None)?)
}

/// (A, B) (x) (C, D ..) to (A * C, B * D ..): the second, a kernel's pixels included, as often as the first has numbers.
fn kronecker(first: &Tensor, second: &Tensor) -> Result<Tensor> {
    let (a, b) = first.flatten_from(1)?.dims2()?;
    let (c, d) = second.flatten_from(1)?.dims2()?;
    let first: Vec<f32> = first.flatten_all()?.to_vec1()?;
    let second: Vec<f32> = second.flatten_all()?.to_vec1()?;
    let mut out = Vec::with_capacity(first.len() * second.len());
    for row in first.chunks_exact(b) {
        for block in second.chunks_exact(d) {
            for scale in row {
                out.extend(block.iter().map(|value| scale * value));
            }
        }
    }
    Ok(Tensor::from_vec(out, (a * c, b * d), &Device::Cpu)?)
}
