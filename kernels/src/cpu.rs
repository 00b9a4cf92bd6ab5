//! What the CPU loops share: reading a contiguous tensor, mapping its elements, the moments of a row.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, WithDType, bail};
use half::{bf16, f16};
use rayon::prelude::*;

pub(crate) mod attention;
pub(crate) mod conv2d;
pub(crate) mod linear;
mod microkernel;
mod product;
mod softmax;
mod winograd;

/// Elements one thread takes at least; below it the hand-over costs more than the work.
const MIN_ELEMENTS: usize = 8 * 1024;

/// The elements of a contiguous tensor.
pub(crate) fn slice<'a, T: WithDType>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [T]> {
    let Some((start, end)) = layout.contiguous_offsets() else { bail!("a contiguous tensor is needed") };
    Ok(&storage.as_slice::<T>()?[start..end])
}

/// `f` of every element of `x`, computed in `f32`, on the CPU.
pub(crate) fn map(x: &Tensor, name: &'static str, f: fn(f32) -> f32) -> Result<Tensor> {
    x.contiguous()?.apply_op1_no_bwd(&Map { name, f })
}

struct Map {
    name: &'static str,
    f: fn(f32) -> f32,
}

impl CustomOp1 for Map {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let f = self.f;
        let out = match storage {
            CpuStorage::F32(_) => CpuStorage::F32(par_map(slice(storage, layout)?, f)),
            CpuStorage::F16(_) => {
                CpuStorage::F16(par_map(slice(storage, layout)?, |x: f16| f16::from_f32(f(x.to_f32()))))
            }
            CpuStorage::BF16(_) => {
                CpuStorage::BF16(par_map(slice(storage, layout)?, |x: bf16| bf16::from_f32(f(x.to_f32()))))
            }
            _ => bail!("{}: f32, f16 or bf16 is needed", self.name),
        };
        Ok((out, layout.shape().clone()))
    }
}

fn par_map<T: Copy + Send + Sync>(x: &[T], f: impl Fn(T) -> T + Send + Sync) -> Vec<T> {
    x.par_iter().with_min_len(MIN_ELEMENTS).map(|&x| f(x)).collect()
}

/// Mean and biased variance of a row.
///
/// Two passes with `f64` sums in eight lanes: a group of a VAE's last level has millions of elements, where one
/// running `f32` sum would lose the digits that the reference keeps.
pub(crate) fn moments(row: &[f32]) -> (f64, f64) {
    let n = row.len() as f64;
    let mean = sum(row, |x| x) / n;
    let variance = sum(row, |x| (x - mean) * (x - mean)) / n;
    (mean, variance)
}

fn sum(row: &[f32], term: impl Fn(f64) -> f64) -> f64 {
    let mut lanes = [0f64; 8];
    let chunks = row.chunks_exact(lanes.len());
    let rest: f64 = chunks.remainder().iter().map(|&x| term(f64::from(x))).sum();
    for chunk in chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane += term(f64::from(x));
        }
    }
    lanes.iter().sum::<f64>() + rest
}
