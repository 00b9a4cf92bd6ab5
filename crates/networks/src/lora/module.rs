//! The tensors of one module put together to its change, with every shape checked against the weight's.
//!
//! Only names, shapes and the single numbers called alpha are looked at here.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::change::{Change, Convention, Delta, Magnitude, Pair, Side};
use super::key::Part;
use crate::tensor_file::TensorFile;

/// A module of the file: its parts by the names of their tensors.
pub(super) type Parts = BTreeMap<Part, String>;

/// What becomes of a module's two tensors.
#[derive(Default)]
pub(super) struct ModuleChange {
    pub(super) weight: Option<Change>,
    pub(super) bias: Option<Change>,
}

/// What is wrong with a module, in words.
type Checked<T> = std::result::Result<T, String>;

/// Reads shapes and alphas of one module.
pub(super) struct Builder<'a> {
    pub(super) file: &'a Arc<TensorFile>,
    pub(super) parts: &'a Parts,
    /// The user's scale.
    pub(super) scale: f64,
    /// What stands for `alpha / rank` where the file's metadata say it, by the rank.
    pub(super) factor: &'a dyn Fn(usize) -> Option<f64>,
    /// How many of the weight's inputs may be changed alone: the latents', of the first convolution of a UNet that was
    /// trained to inpaint. The mask's and the picture's, which it has besides, then stay as they are.
    pub(super) first_inputs: Option<usize>,
}

/// A weight's shape as a matrix of kernels: (O, I, k * k).
#[derive(Clone, Copy, PartialEq, Eq)]
struct Matrix {
    outputs: usize,
    inputs: usize,
    kernel: usize,
}

impl Matrix {
    /// `None` for a shape without two dimensions, with a zero, or beyond what can be counted.
    fn of(dims: &[usize]) -> Option<Self> {
        let [outputs, inputs, kernel @ ..] = dims else { return None };
        let kernel = kernel.iter().try_fold(1usize, |all, side| all.checked_mul(*side))?;
        let all = outputs.checked_mul(*inputs)?.checked_mul(kernel)?;
        (all > 0).then_some(Self { outputs: *outputs, inputs: *inputs, kernel })
    }
}

impl Builder<'_> {
    /// The changes of a module whose `weight` and `bias` have these shapes.
    ///
    /// # Errors
    /// Which tensor is missing, too many, or does not fit, in words.
    pub(super) fn build(&self, weight: Option<&[usize]>, bias: Option<&[usize]>) -> Checked<ModuleChange> {
        let (delta, rank) = match self.delta()? {
            Some((delta, rank)) => (Some(delta), rank),
            None => (None, None),
        };
        self.check_alone(delta.as_ref())?;
        let factor = self.factor_of(delta.as_ref(), rank)?;
        let weight = match (delta, weight) {
            (None, _) => None,
            (Some(_), None) => return Err("the model's module has no weight".to_owned()),
            (Some(delta), Some(shape)) => {
                let own_shape = match self.check_shape(&delta, shape) {
                    Ok(()) => None,
                    Err(reason) => Some(self.shape_of_first_inputs(&delta, shape).ok_or(reason)?),
                };
                let magnitude = self.magnitude(shape)?;
                if own_shape.is_some() && magnitude.is_some() {
                    return Err("has learnt lengths (dora_scale) of a weight with fewer inputs".to_owned());
                }
                Some(Change { own_shape, ..self.change(delta.with_factor(factor), magnitude) })
            }
        };
        let bias = match (self.bias(factor)?, bias) {
            (None, _) => None,
            (Some(_), None) => return Err("the model's module has no bias".to_owned()),
            (Some(delta), Some(shape)) => {
                self.check_shape(&delta, shape)?;
                Some(self.change(delta, None))
            }
        };
        Ok(ModuleChange { weight, bias })
    }

    /// What the module's factors multiply to, wherever it is put: (O, I), without a kernel's size.
    pub(super) fn inputs(&self) -> Option<usize> {
        let (delta, _) = self.delta().ok()??;
        Some(self.matrix(&delta).ok()?.inputs)
    }

    fn change(&self, delta: Delta, magnitude: Option<Magnitude>) -> Change {
        Change { file: self.file.clone(), scale: self.scale, delta, own_shape: None, magnitude }
    }

    /// The difference's shape, if it is one for the first inputs of the weight alone.
    fn shape_of_first_inputs(&self, delta: &Delta, shape: &[usize]) -> Option<Vec<usize>> {
        let (first, [outputs, inputs, kernel @ ..]) = (self.first_inputs?, shape) else { return None };
        let own: Vec<usize> = [*outputs, first].into_iter().chain(kernel.iter().copied()).collect();
        (*inputs > first && self.check_shape(delta, &own).is_ok()).then_some(own)
    }

    fn get(&self, part: Part) -> Option<String> {
        self.parts.get(&part).cloned()
    }

    fn dims(&self, name: &str) -> Vec<usize> {
        self.file.shape(name).unwrap_or_default()
    }

    /// The difference of the weight and its rank, if it has one.
    fn delta(&self) -> Checked<Option<(Delta, Option<usize>)>> {
        use Part::{
            Diff, Down, HadaT1, HadaT2, HadaW1A, HadaW1B, HadaW2A, HadaW2B, LokrT2, LokrW1, LokrW1A, LokrW1B,
            LokrW2, LokrW2A, LokrW2B, Mid, Up,
        };
        let any = |parts: &[Part]| parts.iter().any(|part| self.parts.contains_key(part));
        let kinds = [
            any(&[Down, Up, Mid]),
            any(&[HadaW1A, HadaW1B, HadaW2A, HadaW2B, HadaT1, HadaT2]),
            any(&[LokrW1, LokrW1A, LokrW1B, LokrW2, LokrW2A, LokrW2B, LokrT2]),
            any(&[Diff]),
        ];
        match kinds {
            [false, false, false, false] => Ok(None),
            [true, false, false, false] => {
                let (down, up) = (self.required(Down)?, self.required(Up)?);
                let pair = Pair { left: up, right: down, core: self.get(Mid), transposed: false };
                let rank = self.rank(&pair)?;
                Ok(Some((Delta::Product { pair, factor: 1.0 }, Some(rank))))
            }
            [false, true, false, false] => {
                let cores = (self.get(HadaT1), self.get(HadaT2));
                if cores.0.is_some() != cores.1.is_some() {
                    return Err("has one of hada_t1 and hada_t2 only".to_owned());
                }
                let pair = |left, right, core: Option<String>| -> Checked<Pair> {
                    let transposed = core.is_some();
                    Ok(Pair { left: self.required(left)?, right: self.required(right)?, core, transposed })
                };
                let (first, second) = (pair(HadaW1A, HadaW1B, cores.0)?, pair(HadaW2A, HadaW2B, cores.1)?);
                let rank = self.rank(&first)?;
                if self.rank(&second)? != rank {
                    return Err(format!("has ranks {rank} and {}", self.rank(&second)?));
                }
                Ok(Some((Delta::Hadamard { first, second, factor: 1.0 }, Some(rank))))
            }
            [false, false, true, false] => {
                let first = self.side(LokrW1, LokrW1A, LokrW1B, None)?;
                let second = self.side(LokrW2, LokrW2A, LokrW2B, self.get(LokrT2))?;
                // LyCORIS divides by the rank of whatever is decomposed; two full sides have none and no alpha.
                let rank = match (&second, &first) {
                    (Side::Product(pair), _) | (Side::Full(_), Side::Product(pair)) => Some(self.rank(pair)?),
                    (Side::Full(_), Side::Full(_)) => None,
                };
                Ok(Some((Delta::Kronecker { first, second, factor: 1.0 }, rank)))
            }
            [false, false, false, true] => {
                Ok(Some((Delta::Full { name: self.required(Diff)?, factor: 1.0 }, None)))
            }
            _ => Err("mixes LoRA, LoHa, LoKr or a full difference".to_owned()),
        }
    }

    fn required(&self, part: Part) -> Checked<String> {
        self.get(part).ok_or_else(|| format!("has no {}", part.name()))
    }

    fn side(&self, full: Part, left: Part, right: Part, core: Option<String>) -> Checked<Side> {
        match (self.get(full), self.get(left).is_some() || self.get(right).is_some() || core.is_some()) {
            (Some(name), false) => Ok(Side::Full(name)),
            (Some(_), true) => Err(format!("has {} both whole and in parts", full.name())),
            (None, _) => {
                let transposed = core.is_some();
                Ok(Side::Product(Pair {
                    left: self.required(left)?,
                    right: self.required(right)?,
                    core,
                    transposed,
                }))
            }
        }
    }

    /// Parts that say nothing without others.
    fn check_alone(&self, delta: Option<&Delta>) -> Checked<()> {
        let low_rank = !matches!(delta, None | Some(Delta::Full { .. }));
        let needs = |part: Part, fits: bool| match self.parts.contains_key(&part) && !fits {
            true => Err(format!("has {} without what it belongs to", part.name())),
            false => Ok(()),
        };
        needs(Part::Alpha, low_rank)?;
        needs(Part::DoraScale, low_rank)?;
        needs(Part::Magnitude, matches!(delta, Some(Delta::Product { .. })))?;
        needs(Part::UpBias, matches!(delta, Some(Delta::Product { .. })))?;
        if self.parts.contains_key(&Part::DoraScale) && self.parts.contains_key(&Part::Magnitude) {
            return Err("has both dora_scale and lora_magnitude_vector".to_owned());
        }
        Ok(())
    }

    /// `alpha / rank`, or 1 where the file has no alpha.
    fn factor_of(&self, delta: Option<&Delta>, rank: Option<usize>) -> Checked<f64> {
        let alpha = self.get(Part::Alpha).map(|name| self.file.scalar(&name).map_err(|e| e.to_string()));
        let factor = match (alpha.transpose()?, rank) {
            (Some(alpha), Some(rank)) => alpha / rank as f64,
            (None, Some(rank)) => (self.factor)(rank).unwrap_or(1.0),
            // LyCORIS writes an alpha for a Kronecker product of two whole sides and does not use it.
            (_, None) => 1.0,
        };
        match delta {
            _ if factor.is_finite() => Ok(factor),
            _ => Err(format!("has an alpha / rank of {factor}")),
        }
    }

    fn bias(&self, factor: f64) -> Checked<Option<Delta>> {
        match (self.get(Part::UpBias), self.get(Part::DiffBias)) {
            (None, None) => Ok(None),
            (Some(name), None) => Ok(Some(Delta::Full { name, factor })),
            (None, Some(name)) => Ok(Some(Delta::Full { name, factor: 1.0 })),
            (Some(_), Some(_)) => Err("has two changes of its bias".to_owned()),
        }
    }

    fn magnitude(&self, weight: &[usize]) -> Checked<Option<Magnitude>> {
        let (name, convention) = match (self.get(Part::Magnitude), self.get(Part::DoraScale)) {
            (Some(name), _) => (name, Convention::Peft),
            (None, Some(name)) => (name, Convention::Straight),
            (None, None) => return Ok(None),
        };
        let dims = self.dims(&name);
        let count: Option<usize> = dims.iter().try_fold(1usize, |all, side| all.checked_mul(*side));
        let (outputs, inputs) = match weight {
            [outputs, inputs, ..] => (*outputs, *inputs),
            _ => return Err(format!("has {name} for a weight of {weight:?}")),
        };
        // LyCORIS keeps the dimension that it took the lengths along: (O, 1) or (1, I). PEFT's are the outputs'.
        let per_output = match (convention, dims.as_slice()) {
            (Convention::Peft, _) => count == Some(outputs),
            (Convention::Straight, [first, ..]) => *first == outputs && count == Some(outputs),
            (Convention::Straight, []) => false,
        };
        let per_input = convention == Convention::Straight
            && dims.first() == Some(&1)
            && dims.get(1) == Some(&inputs)
            && count == Some(inputs);
        match per_output || per_input {
            true => Ok(Some(Magnitude { name, per_output, convention })),
            false => Err(format!("has {name} of {dims:?} for a weight of {weight:?}")),
        }
    }

    fn check_shape(&self, delta: &Delta, shape: &[usize]) -> Checked<()> {
        if let Delta::Full { name, .. } = delta {
            let dims = self.dims(name);
            // A matrix may be stored as a 1 x 1 convolution and the other way round.
            let plain = |dims: &[usize]| match dims {
                [outputs, inputs, 1, 1] => vec![*outputs, *inputs],
                other => other.to_vec(),
            };
            return match plain(&dims) == plain(shape) && !dims.contains(&0) {
                true => Ok(()),
                false => Err(format!("{name} is {dims:?}, the model's is {shape:?}")),
            };
        }
        let (own, wanted) = (self.matrix(delta)?, Matrix::of(shape));
        let fits = wanted.is_some_and(|wanted| match own.kernel {
            // Flat factors say nothing of a kernel's size.
            0 => {
                Some(own.inputs) == wanted.inputs.checked_mul(wanted.kernel) && own.outputs == wanted.outputs
            }
            _ => own == wanted,
        });
        match fits {
            true => Ok(()),
            false => {
                let (o, i, k) = (own.outputs, own.inputs, own.kernel);
                let size = if k > 1 { format!("{o} x {i} with {k} pixels") } else { format!("{o} x {i}") };
                Err(format!("makes a change of {size}, the model's weight is {shape:?}"))
            }
        }
    }

    /// The size of what factors multiply to; a kernel of 0 where it is flat in the inputs.
    fn matrix(&self, delta: &Delta) -> Checked<Matrix> {
        match delta {
            Delta::Product { pair, .. } => self.pair(pair),
            Delta::Hadamard { first, second, .. } => {
                let size = self.pair(first)?;
                match self.pair(second)? == size {
                    true => Ok(size),
                    false => Err("has two products of unequal size".to_owned()),
                }
            }
            Delta::Kronecker { first, second, .. } => {
                let (first, second) = (self.side_size(first)?, self.side_size(second)?);
                let both = || {
                    let outputs = first.outputs.checked_mul(second.outputs)?;
                    let inputs = first.inputs.checked_mul(second.inputs)?;
                    outputs.checked_mul(inputs)?.checked_mul(second.kernel.max(1))?;
                    Some(Matrix { outputs, inputs, kernel: second.kernel })
                };
                match (first.kernel, both()) {
                    (0 | 1, Some(size)) => Ok(size),
                    _ => Err("has a first side that is no matrix".to_owned()),
                }
            }
            Delta::Full { name, .. } => {
                Matrix::of(&self.dims(name)).ok_or_else(|| format!("{name} is {:?}", self.dims(name)))
            }
        }
    }

    fn side_size(&self, side: &Side) -> Checked<Matrix> {
        match side {
            Side::Full(name) => {
                let size =
                    Matrix::of(&self.dims(name)).ok_or_else(|| format!("{name} is {:?}", self.dims(name)))?;
                // Two dimensions may be a matrix or a flat kernel.
                Ok(if self.dims(name).len() == 2 { Matrix { kernel: 0, ..size } } else { size })
            }
            Side::Product(pair) => self.pair(pair),
        }
    }

    /// The rank that alpha is divided by: the first dimension of the right factor.
    fn rank(&self, pair: &Pair) -> Checked<usize> {
        let dims = self.dims(&pair.right);
        match dims.first() {
            Some(rank) if *rank > 0 => Ok(*rank),
            _ => Err(format!("has {} of {dims:?}, which has no rank", pair.right)),
        }
    }

    /// The size of a product whose factors and core fit each other.
    fn pair(&self, pair: &Pair) -> Checked<Matrix> {
        let (left_dims, right_dims) = (self.dims(&pair.left), self.dims(&pair.right));
        let unequal = || format!("{} is {left_dims:?} and {} is {right_dims:?}", pair.left, pair.right);
        let (Some(left), Some(right)) = (Matrix::of(&left_dims), Matrix::of(&right_dims)) else {
            return Err(unequal());
        };
        let (outputs, rank) =
            if pair.transposed { (left.inputs, left.outputs) } else { (left.outputs, left.inputs) };
        if rank != right.outputs || left.kernel != 1 {
            return Err(unequal());
        }
        let Some(core) = &pair.core else {
            // A flat right factor carries the kernel in its second dimension.
            let kernel = if right_dims.len() == 2 { 0 } else { right.kernel };
            return Ok(Matrix { outputs, inputs: right.inputs, kernel });
        };
        let dims = self.dims(core);
        match Matrix::of(&dims) {
            Some(core) if core.outputs == rank && core.inputs == rank && right.kernel == 1 => {
                Ok(Matrix { outputs, inputs: right.inputs, kernel: core.kernel })
            }
            _ => Err(format!("{core} is {dims:?} for a rank of {rank}")),
        }
    }
}

impl Delta {
    fn with_factor(self, by: f64) -> Self {
        match self {
            Self::Product { pair, .. } => Self::Product { pair, factor: by },
            Self::Hadamard { first, second, .. } => Self::Hadamard { first, second, factor: by },
            Self::Kronecker { first, second, .. } => Self::Kronecker { first, second, factor: by },
            Self::Full { name, .. } => Self::Full { name, factor: by },
        }
    }
}
