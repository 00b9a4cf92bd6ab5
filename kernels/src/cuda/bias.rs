//! `cuda/elementwise.cu`: the biases of linear layers and convolutions, added in place.
//!
//! candle's broadcast addition would write a second tensor, through a kernel that is sent the strides at every call.

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::cudarc::driver::{CudaView, CudaViewMut, DeviceRepr, PushKernelArg};
use candle_core::cuda_backend::{CudaDType, CudaDevice, CudaStorage, WrapErr};
use candle_core::{CpuStorage, DType, InplaceOp2, Layout, Result, Tensor, WithDType, bail};
use half::{bf16, f16};

use super::launch::{Source, function, grid};
use super::{range, suffix, takes, wide};

const THREADS: u32 = 256;

/// Which dimension of the output a bias belongs to.
#[derive(Clone, Copy)]
pub(crate) enum AddBias {
    /// The last one: `out` (.., D), bias (D).
    Last,
    /// The second one: `out` (B, C, ..), bias (C).
    Channel,
}

impl AddBias {
    /// Whether the kernel adds `bias` to `out`.
    pub(crate) fn fits(self, out: &Tensor, bias: &Tensor) -> bool {
        let width = match self {
            Self::Last => out.dims().last(),
            Self::Channel => out.dims().get(1),
        };
        takes(out)
            && out.is_contiguous()
            && (1..=u32::MAX as usize).contains(&out.elem_count())
            && bias.device().is_cuda()
            && bias.dtype() == out.dtype()
            && width.is_some_and(|width| bias.dims() == [*width])
    }
}

impl InplaceOp2 for AddBias {
    fn name(&self) -> &'static str {
        "add_bias"
    }

    fn cpu_fwd(&self, _: &mut CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<()> {
        bail!("add_bias: this is the path of CUDA devices")
    }

    fn cuda_fwd(
        &self,
        out: &mut CudaStorage,
        out_at: &Layout,
        bias: &CudaStorage,
        bias_at: &Layout,
    ) -> Result<()> {
        match out.dtype() {
            DType::F32 => self.run::<f32>(out, out_at, bias, bias_at),
            DType::F16 => self.run::<f16>(out, out_at, bias, bias_at),
            DType::BF16 => self.run::<bf16>(out, out_at, bias, bias_at),
            other => bail!("add_bias: f32, f16 or bf16 is needed, not {other:?}"),
        }
    }
}

impl AddBias {
    fn run<T: WithDType + CudaDType + DeviceRepr>(
        self,
        out: &mut CudaStorage,
        out_at: &Layout,
        bias: &CudaStorage,
        bias_at: &Layout,
    ) -> Result<()> {
        let device = out.device().clone();
        let range_of_out = range(out_at)?;
        let aligned = wide(size_of::<T>(), &[range_of_out.start]);
        let mut out = out.as_cuda_slice_mut::<T>()?.slice_mut(range_of_out);
        let bias_range = range(bias_at)?;
        match self {
            Self::Last => {
                let aligned = aligned && wide(size_of::<T>(), &[bias_range.start]);
                add_row(&device, &mut out, &bias.as_cuda_slice::<T>()?.slice(bias_range), aligned)
            }
            Self::Channel => {
                let plane = out_at.dims()[2..].iter().product();
                let bias = bias.as_cuda_slice::<T>()?.slice(bias_range);
                add_plane(&device, &mut out, &bias, plane, aligned)
            }
        }
    }
}

/// `out` (.., D) plus `bias` (D); `aligned` where both begin at a multiple of 16 bytes.
fn add_row<T: WithDType + DeviceRepr>(
    device: &CudaDevice,
    out: &mut CudaViewMut<'_, T>,
    bias: &CudaView<'_, T>,
    aligned: bool,
) -> Result<()> {
    let wide = aligned && wide(size_of::<T>(), &[bias.len()]);
    let name = format!("add_row_{}_{}", if wide { "wide" } else { "any" }, suffix(T::DTYPE)?);
    let kernel = function(device, Source::Elementwise, name, 0)?;
    let count = out.len() / if wide { 16 / size_of::<T>() } else { 1 };
    let config = grid(count.div_ceil(THREADS as usize), THREADS)?;
    let (count, width) = (count as u32, bias.len() as u32);
    let stream = device.cuda_stream();
    let mut builder = stream.launch_builder(&kernel);
    builder.arg(out).arg(bias).arg(&count).arg(&width);
    // SAFETY: the arguments are those of `add_row` in `cuda/elementwise.cu`; out holds what is counted, in rows of as many
    // elements as the bias holds.
    #[allow(unsafe_code)]
    unsafe {
        builder.launch(config).w()?;
    }
    Ok(())
}

/// `out` (B, C, plane) plus `bias` (C); `aligned` where `out` begins at a multiple of 16 bytes.
pub(super) fn add_plane<T: WithDType + DeviceRepr>(
    device: &CudaDevice,
    out: &mut CudaViewMut<'_, T>,
    bias: &CudaView<'_, T>,
    plane: usize,
    aligned: bool,
) -> Result<()> {
    let wide = aligned && wide(size_of::<T>(), &[plane]);
    let name = format!("add_bias_{}_{}", if wide { "wide" } else { "any" }, suffix(T::DTYPE)?);
    let kernel = function(device, Source::Elementwise, name, 0)?;
    let count = out.len() / if wide { 16 / size_of::<T>() } else { 1 };
    let config = grid(count.div_ceil(THREADS as usize), THREADS)?;
    let (count, channels, plane) = (count as u32, bias.len() as u32, plane as u32);
    let stream = device.cuda_stream();
    let mut builder = stream.launch_builder(&kernel);
    builder.arg(out).arg(bias).arg(&count).arg(&channels).arg(&plane);
    // SAFETY: the arguments are those of `add_bias` in `cuda/elementwise.cu`; out holds what is counted, and the bias an
    // element for each channel.
    #[allow(unsafe_code)]
    unsafe {
        builder.launch(config).w()?;
    }
    Ok(())
}
