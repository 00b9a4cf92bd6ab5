//! `cuda/group_norm.cu`: moments of every chunk of a group, then the normalisation.

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::cudarc::driver::{DeviceRepr, PushKernelArg};
use candle_core::cuda_backend::{CudaDType, CudaStorage, WrapErr};
use candle_core::{DType, Layout, Result, Shape, Tensor, WithDType, bail};
use half::{bf16, f16};

use super::launch::{Source, function, grid};
use super::{converts, range, suffix, takes, wide};

const THREADS: u32 = 256;
/// Elements that a block holds at once.
const TILE: usize = 32 * THREADS as usize;
/// The second launch reads one chunk's moments with each thread.
const MAX_CHUNKS: usize = THREADS as usize;

/// How a group of `length` elements is cut: chunks, and tiles of each.
fn cut(length: usize) -> (usize, usize) {
    let tiles = length.div_ceil(TILE);
    let each = tiles.div_ceil(MAX_CHUNKS);
    (tiles.div_ceil(each), each)
}

/// Whether the kernels take `x` with these parameters, once they are in its format. The channels divide by `groups`.
pub(crate) fn fits(x: &Tensor, weight: &Tensor, bias: &Tensor, groups: usize) -> bool {
    let rows = x.dims()[0] * groups;
    if !takes(x) || x.elem_count() == 0 {
        return false;
    }
    let length = x.elem_count() / rows;
    [weight, bias].iter().all(|p| p.device().is_cuda() && converts(p, x))
        && length <= i32::MAX as usize
        && rows * cut(length).0 <= i32::MAX as usize
}

/// A tensor's storage and where it lies in it.
type Operand<'a> = (&'a CudaStorage, &'a Layout);

/// What is done besides the shapes.
#[derive(Clone, Copy)]
pub(crate) struct Options {
    pub(crate) groups: usize,
    pub(crate) eps: f64,
    pub(crate) silu: bool,
}

/// `x` (B, C, ..), `weight` and `bias` (C), all contiguous and of one format.
pub(crate) fn forward(
    x: Operand<'_>,
    weight: Operand<'_>,
    bias: Operand<'_>,
    options: Options,
) -> Result<(CudaStorage, Shape)> {
    match x.0.dtype() {
        DType::F32 => run::<f32>(x, weight, bias, options),
        DType::F16 => run::<f16>(x, weight, bias, options),
        DType::BF16 => run::<bf16>(x, weight, bias, options),
        other => bail!("group_norm: f32, f16 or bf16 is needed, not {other:?}"),
    }
}

fn run<T: WithDType + CudaDType + DeviceRepr>(
    (x, x_at): Operand<'_>,
    (weight, weight_at): Operand<'_>,
    (bias, bias_at): Operand<'_>,
    Options { groups, eps, silu }: Options,
) -> Result<(CudaStorage, Shape)> {
    let device = x.device();
    let shape = x_at.shape();
    let (batch, channels) = (shape.dims()[0], shape.dims()[1]);
    let plane = shape.elem_count() / (batch * channels);
    let length = channels / groups * plane;
    let (chunks, tiles) = cut(length);
    let x_range = range(x_at)?;
    let wide = wide(size_of::<T>(), &[x_range.start, length]);
    let name = |kernel: &str| -> Result<String> {
        Ok(format!("{kernel}_{}_{}", if wide { "wide" } else { "any" }, suffix(T::DTYPE)?))
    };
    let moments = function(device, Source::GroupNorm, name("moments")?, 0)?;
    let normalise = name(if silu { "normalise_silu" } else { "normalise" })?;
    let normalise = function(device, Source::GroupNorm, normalise, 0)?;
    let x = x.as_cuda_slice::<T>()?.slice(x_range);
    let weight = weight.as_cuda_slice::<T>()?.slice(range(weight_at)?);
    let bias = bias.as_cuda_slice::<T>()?.slice(range(bias_at)?);
    let blocks = batch * groups * chunks;
    let config = grid(blocks, THREADS)?;
    // SAFETY: the first kernel writes every pair of `partial`, the second every element of `out`, before they are read.
    #[allow(unsafe_code)]
    let (mut partial, mut out) =
        unsafe { (device.alloc::<f32>(2 * blocks)?, device.alloc::<T>(shape.elem_count())?) };
    let (length, chunks, tiles) = (length as u32, chunks as u32, tiles as u32);
    let (groups, plane, eps) = (groups as u32, plane as u32, eps as f32);
    let stream = device.cuda_stream();
    let mut builder = stream.launch_builder(&moments);
    builder.arg(&x).arg(&mut partial).arg(&length).arg(&chunks).arg(&tiles);
    // SAFETY: the arguments are those of `moments` in `cuda/group_norm.cu`; it reads length elements of each of the
    // batch x groups rows of x and writes one pair a block.
    #[allow(unsafe_code)]
    unsafe {
        builder.launch(config).w()?;
    }
    let mut builder = stream.launch_builder(&normalise);
    builder.arg(&x).arg(&weight).arg(&bias).arg(&partial).arg(&mut out);
    builder.arg(&length).arg(&chunks).arg(&tiles).arg(&groups).arg(&plane).arg(&eps);
    // SAFETY: as above, with `normalise`; out is as large as x, and the parameters hold an element for each channel.
    #[allow(unsafe_code)]
    unsafe {
        builder.launch(config).w()?;
    }
    Ok((CudaStorage::wrap_cuda_slice(out, device.clone()), shape.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chunks_cover_a_group_and_none_is_empty() {
        for length in [1, TILE, TILE + 1, 100 * TILE, 256 * TILE, 256 * TILE + 1, 1000 * TILE - 5, 1 << 30] {
            let (chunks, tiles) = cut(length);
            assert!(chunks <= MAX_CHUNKS && chunks * tiles * TILE >= length, "{length}");
            assert!((chunks - 1) * tiles * TILE < length, "{length}");
        }
    }
}
