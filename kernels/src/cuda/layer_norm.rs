//! `cuda/layer_norm.cu`.

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::cudarc::driver::{DeviceRepr, PushKernelArg};
use candle_core::cuda_backend::{CudaDType, CudaStorage, WrapErr};
use candle_core::{DType, Layout, Result, Shape, Tensor, WithDType, bail};
use half::{bf16, f16};

use super::launch::{Source, function, grid};
use super::{converts, range, suffix, takes, wide};

/// Rows of a block: one a warp.
const ROWS: usize = 4;
const THREADS: u32 = 32 * ROWS as u32;

/// Whether the kernel takes `x` with these parameters, once they are in its format.
pub(crate) fn fits(x: &Tensor, weight: &Tensor, bias: &Tensor) -> bool {
    let Some(&width) = x.dims().last() else { return false };
    let limits = (1..=i32::MAX as usize).contains(&width)
        && (1..=i32::MAX as usize).contains(&(x.elem_count() / width));
    takes(x)
        && [weight, bias].iter().all(|p| p.dims() == [width] && p.device().is_cuda() && converts(p, x))
        && limits
}

/// A tensor's storage and where it lies in it.
type Operand<'a> = (&'a CudaStorage, &'a Layout);

/// `x` (.., D), `weight` and `bias` (D), all contiguous and of one format.
pub(crate) fn forward(
    x: Operand<'_>,
    weight: Operand<'_>,
    bias: Operand<'_>,
    eps: f64,
) -> Result<(CudaStorage, Shape)> {
    match x.0.dtype() {
        DType::F32 => run::<f32>(x, weight, bias, eps),
        DType::F16 => run::<f16>(x, weight, bias, eps),
        DType::BF16 => run::<bf16>(x, weight, bias, eps),
        other => bail!("layer_norm: f32, f16 or bf16 is needed, not {other:?}"),
    }
}

fn run<T: WithDType + CudaDType + DeviceRepr>(
    (x, x_at): Operand<'_>,
    (weight, weight_at): Operand<'_>,
    (bias, bias_at): Operand<'_>,
    eps: f64,
) -> Result<(CudaStorage, Shape)> {
    let device = x.device();
    let shape = x_at.shape();
    let width = weight_at.shape().elem_count();
    let rows = shape.elem_count() / width;
    let ranges = [range(x_at)?, range(weight_at)?, range(bias_at)?];
    let wide = wide(size_of::<T>(), &[ranges[0].start, ranges[1].start, ranges[2].start, width]);
    let name = format!("layer_norm_{}_{}", if wide { "wide" } else { "any" }, suffix(T::DTYPE)?);
    let kernel = function(device, Source::LayerNorm, name, 0)?;
    let [x_range, weight_range, bias_range] = ranges;
    let x = x.as_cuda_slice::<T>()?.slice(x_range);
    let weight = weight.as_cuda_slice::<T>()?.slice(weight_range);
    let bias = bias.as_cuda_slice::<T>()?.slice(bias_range);
    // SAFETY: the kernel writes every element before anyone reads one.
    #[allow(unsafe_code)]
    let mut out = unsafe { device.alloc::<T>(shape.elem_count())? };
    let config = grid(rows.div_ceil(ROWS), THREADS)?;
    let (rows, width, eps) = (rows as u32, width as u32, eps as f32);
    let stream = device.cuda_stream();
    let mut builder = stream.launch_builder(&kernel);
    builder.arg(&x).arg(&weight).arg(&bias).arg(&mut out).arg(&rows).arg(&width).arg(&eps);
    // SAFETY: the arguments are those of `cuda/layer_norm.cu`; it touches rows x width elements of x and out and width of
    // the parameters, which is what they hold.
    #[allow(unsafe_code)]
    unsafe {
        builder.launch(config).w()?;
    }
    Ok((CudaStorage::wrap_cuda_slice(out, device.clone()), shape.clone()))
}
