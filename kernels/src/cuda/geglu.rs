//! `cuda/elementwise.cu`: the gated linear unit.

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::cudarc::driver::{DeviceRepr, PushKernelArg};
use candle_core::cuda_backend::{CudaDType, CudaStorage, WrapErr};
use candle_core::{DType, Layout, Result, Shape, Tensor, WithDType, bail};
use half::{bf16, f16};

use super::launch::{Source, function, grid};
use super::{range, suffix, takes, wide};

const THREADS: u32 = 256;

/// Whether the kernel takes `x`.
pub(crate) fn fits(x: &Tensor) -> bool {
    takes(x) && (1..=u32::MAX as usize).contains(&x.elem_count())
}

/// `x` (.., 2D), contiguous, to (.., D).
pub(crate) fn forward(x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
    match x.dtype() {
        DType::F32 => run::<f32>(x, layout),
        DType::F16 => run::<f16>(x, layout),
        DType::BF16 => run::<bf16>(x, layout),
        other => bail!("geglu: f32, f16 or bf16 is needed, not {other:?}"),
    }
}

fn run<T: WithDType + CudaDType + DeviceRepr>(
    x: &CudaStorage,
    layout: &Layout,
) -> Result<(CudaStorage, Shape)> {
    let device = x.device();
    let mut dims = layout.dims().to_vec();
    let Some(last) = dims.last_mut() else { bail!("geglu: x has no dimension") };
    *last /= 2;
    let width = *last;
    let shape = Shape::from(dims);
    let range = range(layout)?;
    let wide = wide(size_of::<T>(), &[range.start, width]);
    let name = format!("geglu_{}_{}", if wide { "wide" } else { "any" }, suffix(T::DTYPE)?);
    let kernel = function(device, Source::Elementwise, name, 0)?;
    let x = x.as_cuda_slice::<T>()?.slice(range);
    let run = if wide { 16 / size_of::<T>() } else { 1 };
    let (count, width) = (shape.elem_count() / run, width as u32);
    // SAFETY: the kernel writes every element before anyone reads one.
    #[allow(unsafe_code)]
    let mut out = unsafe { device.alloc::<T>(shape.elem_count())? };
    let config = grid(count.div_ceil(THREADS as usize), THREADS)?;
    let count = count as u32;
    let stream = device.cuda_stream();
    let mut builder = stream.launch_builder(&kernel);
    builder.arg(&x).arg(&mut out).arg(&count).arg(&width);
    // SAFETY: the arguments are those of `geglu` in `cuda/elementwise.cu`; it reads 2 count run elements of x and writes
    // count run of out, which is what they hold.
    #[allow(unsafe_code)]
    unsafe {
        builder.launch(config).w()?;
    }
    Ok((CudaStorage::wrap_cuda_slice(out, device.clone()), shape))
}
