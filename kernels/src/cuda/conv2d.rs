//! Convolutions through cuDNN, summed in f32 whatever the format.
//!
//! candle's own path sums f16 in f16 and asks cuDNN for an algorithm and clears a workspace at every call. Here the
//! algorithm is always the same one, the implicit matrix product: it is deterministic, does not transform its operands
//! as Winograd's and Fourier's do at the cost of digits, and is the one made for tensor cores. f32 is computed in f32,
//! never in TF32.

use std::collections::HashMap;
use std::ffi::{c_int, c_void};
use std::ptr::null_mut;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::cudarc::cudnn::{CudnnDataType, CudnnError, result, sys};
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, CudaStream, DevicePtr, DevicePtrMut, DeviceRepr};
use candle_core::cuda_backend::{CudaDType, CudaDevice, CudaStorage, DeviceId, WrapErr};
use candle_core::{CpuStorage, CustomOp2, CustomOp3, DType, Layout, Result, Shape, Tensor, WithDType, bail};
use half::{bf16, f16};

use super::bias::add_plane;
use super::{range, takes};

/// cuDNN counts the elements of a tensor in 32 bits.
const MAX_ELEMENTS: usize = i32::MAX as usize;
/// A larger workspace is given back after the call.
const MAX_KEPT: usize = 1 << 30;

/// `x` (B, C, H, W), `weight` (O, C, kh, kw), `bias` (O), of one format and device, to (B, O, H', W'), or `None` where
/// cuDNN has nothing for them.
pub(crate) fn forward(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    stride: usize,
    padding: usize,
) -> Result<Option<Tensor>> {
    let same = |t: &Tensor| t.device().is_cuda() && t.dtype() == x.dtype();
    let outputs = weight.dim(0)?;
    if !takes(x) || !same(weight) || !bias.is_none_or(|bias| same(bias) && bias.dims() == [outputs]) {
        return Ok(None);
    }
    let Some(shape) = Convolution::new(x.dims4()?, weight.dims4()?, x.dtype(), stride, padding) else {
        return Ok(None);
    };
    let candle_core::Device::Cuda(device) = x.device() else { return Ok(None) };
    if library(device, |library| library.plan(&shape))?.is_none() {
        return Ok(None);
    }
    let (x, weight) = (x.contiguous()?, weight.contiguous()?);
    let out = match bias {
        Some(bias) => x.apply_op3_no_bwd(&weight, &bias.contiguous()?, &shape),
        None => x.apply_op2_no_bwd(&weight, &shape),
    };
    match out {
        Ok(out) => Ok(Some(out)),
        // The plan turned out to be none: cuDNN has said so only when asked to run it.
        Err(_) if library(device, |library| library.plan(&shape))?.is_none() => Ok(None),
        Err(error) => Err(error),
    }
}

/// What a plan is kept under.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Convolution {
    x: [usize; 4],
    weight: [usize; 4],
    y: [usize; 4],
    dtype: DType,
    stride: usize,
    padding: usize,
}

type Four = (usize, usize, usize, usize);

impl Convolution {
    /// `None` where the shapes do not fit each other or a tensor is empty or too large.
    fn new(x: Four, weight: Four, dtype: DType, stride: usize, padding: usize) -> Option<Self> {
        let (batch, channels, height, width) = x;
        let (outputs, inputs, kh, kw) = weight;
        let side = |input: usize, kernel: usize| {
            (input + 2 * padding).checked_sub(kernel)?.checked_div(stride).map(|steps| steps + 1)
        };
        let (x, weight) = ([batch, channels, height, width], [outputs, inputs, kh, kw]);
        let y = [batch, outputs, side(height, kh)?, side(width, kw)?];
        let countable = |dims: &[usize; 4]| (1..=MAX_ELEMENTS).contains(&dims.iter().product::<usize>());
        let fits = inputs == channels && [&x, &weight, &y].into_iter().all(countable);
        fits.then_some(Self { x, weight, y, dtype, stride, padding })
    }
}

/// cuDNN's descriptors of one convolution. They live as long as the process.
#[derive(Clone, Copy)]
struct Plan {
    x: sys::cudnnTensorDescriptor_t,
    weight: sys::cudnnFilterDescriptor_t,
    bias: sys::cudnnTensorDescriptor_t,
    y: sys::cudnnTensorDescriptor_t,
    convolution: sys::cudnnConvolutionDescriptor_t,
    identity: sys::cudnnActivationDescriptor_t,
    algorithm: sys::cudnnConvolutionFwdAlgo_t,
    /// Bytes.
    workspace: usize,
    /// Whether cuDNN adds the bias itself; false from the first time that it says it can't.
    fused: bool,
}

/// cuDNN on one device.
struct Library {
    handle: sys::cudnnHandle_t,
    plans: HashMap<Convolution, Option<Plan>>,
    workspace: Option<CudaSlice<u8>>,
    /// The handle works on it: it must not be destroyed before.
    stream: Arc<CudaStream>,
}

// SAFETY: handle and descriptors may be used from any thread, by one at a time (cuDNN's guide, "Thread Safety"): the
// mutex around it sees to that.
#[allow(unsafe_code)]
unsafe impl Send for Library {}

static LIBRARIES: LazyLock<Mutex<HashMap<DeviceId, Library>>> = LazyLock::new(Mutex::default);

/// Runs `work` with the library of `device`, which is opened at first use.
fn library<R>(device: &CudaDevice, work: impl FnOnce(&mut Library) -> Result<R>) -> Result<R> {
    let mut libraries = LIBRARIES.lock().unwrap_or_else(PoisonError::into_inner);
    let stream = device.cuda_stream();
    stream.context().bind_to_thread().w()?;
    let library = match libraries.entry(device.id()) {
        std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
        std::collections::hash_map::Entry::Vacant(entry) => entry.insert(Library::open(&stream)?),
    };
    work(library)
}

fn wrapped(error: CudnnError) -> candle_core::Error {
    candle_core::Error::wrap(error)
}

/// Whether cuDNN does not do this, for whatever reason: `CUDNN_STATUS_NOT_SUPPORTED` and those that say more closely why.
fn is_unsupported(error: CudnnError) -> bool {
    (3000..4000).contains(&(error.0 as u32))
}

impl Library {
    fn open(stream: &Arc<CudaStream>) -> Result<Self> {
        let handle = result::create_handle().map_err(wrapped)?;
        // SAFETY: the handle is new, and the stream is kept beside it.
        #[allow(unsafe_code)]
        unsafe {
            result::set_stream(handle, stream.cu_stream().cast()).map_err(wrapped)?;
        }
        Ok(Self { handle, plans: HashMap::new(), workspace: None, stream: stream.clone() })
    }

    /// The plan of a convolution, made once; `None` where cuDNN has none. Any other error is of this call alone: what came
    /// before must not change how the next one is computed.
    fn plan(&mut self, shape: &Convolution) -> Result<Option<Plan>> {
        if let Some(plan) = self.plans.get(shape) {
            return Ok(*plan);
        }
        let plan = match Plan::new(self.handle, shape) {
            Ok(plan) => Some(plan),
            Err(error) if is_unsupported(error) => None,
            Err(error) => return Err(wrapped(error)),
        };
        self.plans.insert(shape.clone(), plan);
        Ok(plan)
    }

    /// At least `bytes` of memory, kept for the next call.
    fn workspace(&mut self, bytes: usize) -> Result<&mut CudaSlice<u8>> {
        let kept = self.workspace.take().filter(|kept| kept.num_bytes() >= bytes);
        let memory = match kept {
            Some(kept) => kept,
            // SAFETY: cuDNN writes a workspace before it reads it.
            #[allow(unsafe_code)]
            None => unsafe { self.stream.alloc::<u8>(bytes.max(1)).w()? },
        };
        Ok(self.workspace.insert(memory))
    }
}

impl Plan {
    fn new(handle: sys::cudnnHandle_t, shape: &Convolution) -> std::result::Result<Self, CudnnError> {
        use sys::cudnnConvolutionFwdAlgo_t as Algorithm;
        let (format, math) = match shape.dtype {
            DType::F16 => (sys::cudnnDataType_t::CUDNN_DATA_HALF, sys::cudnnMathType_t::CUDNN_TENSOR_OP_MATH),
            DType::BF16 => {
                (sys::cudnnDataType_t::CUDNN_DATA_BFLOAT16, sys::cudnnMathType_t::CUDNN_TENSOR_OP_MATH)
            }
            _ => (sys::cudnnDataType_t::CUDNN_DATA_FLOAT, sys::cudnnMathType_t::CUDNN_FMA_MATH),
        };
        let order = sys::cudnnTensorFormat_t::CUDNN_TENSOR_NCHW;
        let dims = |dims: [usize; 4]| dims.map(|n| n as c_int);
        let (stride, padding) = (shape.stride as c_int, shape.padding as c_int);
        let mut plan = Self {
            x: result::create_tensor_descriptor()?,
            weight: result::create_filter_descriptor()?,
            bias: result::create_tensor_descriptor()?,
            y: result::create_tensor_descriptor()?,
            convolution: result::create_convolution_descriptor()?,
            identity: result::create_activation_descriptor()?,
            algorithm: Algorithm::CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM,
            workspace: 0,
            fused: true,
        };
        // SAFETY: all descriptors were made above and none is freed.
        #[allow(unsafe_code)]
        unsafe {
            result::set_tensor4d_descriptor(plan.x, order, format, dims(shape.x))?;
            result::set_filter4d_descriptor(plan.weight, format, order, dims(shape.weight))?;
            result::set_tensor4d_descriptor(plan.bias, order, format, dims([1, shape.weight[0], 1, 1]))?;
            result::set_tensor4d_descriptor(plan.y, order, format, dims(shape.y))?;
            result::set_convolution2d_descriptor(
                plan.convolution,
                padding,
                padding,
                stride,
                stride,
                1,
                1,
                sys::cudnnConvolutionMode_t::CUDNN_CROSS_CORRELATION,
                sys::cudnnDataType_t::CUDNN_DATA_FLOAT,
            )?;
            result::set_convolution_math_type(plan.convolution, math)?;
            result::set_activation_descriptor(
                plan.identity,
                sys::cudnnActivationMode_t::CUDNN_ACTIVATION_IDENTITY,
                sys::cudnnNanPropagation_t::CUDNN_PROPAGATE_NAN,
                0.0,
            )?;
            let bytes = |algorithm| {
                result::get_convolution_forward_workspace_size(
                    handle,
                    plan.x,
                    plan.weight,
                    plan.convolution,
                    plan.y,
                    algorithm,
                )
            };
            (plan.algorithm, plan.workspace) = match bytes(plan.algorithm) {
                Ok(workspace) => (plan.algorithm, workspace),
                Err(_) => {
                    let plain = Algorithm::CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_GEMM;
                    (plain, bytes(plain)?)
                }
            };
        }
        // Only this algorithm can end in an addition alone (cuDNN's manual, `cudnnConvolutionBiasActivationForward`).
        plan.fused = plan.algorithm == Algorithm::CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM;
        Ok(plan)
    }
}

/// A tensor's storage and where it lies in it.
type Operand<'a> = (&'a CudaStorage, &'a Layout);

impl Convolution {
    fn dispatch(
        &self,
        x: Operand<'_>,
        weight: Operand<'_>,
        bias: Option<Operand<'_>>,
    ) -> Result<(CudaStorage, Shape)> {
        match self.dtype {
            DType::F32 => self.run::<f32>(x, weight, bias),
            DType::F16 => self.run::<f16>(x, weight, bias),
            DType::BF16 => self.run::<bf16>(x, weight, bias),
            other => bail!("conv2d: f32, f16 or bf16 is needed, not {other:?}"),
        }
    }

    fn run<T: WithDType + CudaDType + DeviceRepr + CudnnDataType>(
        &self,
        (x, x_at): Operand<'_>,
        (weight, weight_at): Operand<'_>,
        bias: Option<Operand<'_>>,
    ) -> Result<(CudaStorage, Shape)> {
        let device = x.device();
        let stream = device.cuda_stream();
        let x = x.as_cuda_slice::<T>()?.slice(range(x_at)?);
        let weight = weight.as_cuda_slice::<T>()?.slice(range(weight_at)?);
        let bias = match bias {
            Some((bias, at)) => Some(bias.as_cuda_slice::<T>()?.slice(range(at)?)),
            None => None,
        };
        let shape = Shape::from(self.y.to_vec());
        // SAFETY: cuDNN writes every element before anyone reads one.
        #[allow(unsafe_code)]
        let mut out = unsafe { device.alloc::<T>(shape.elem_count())? };
        let added = library(device, |library| {
            let Some(plan) = library.plan(self)? else {
                bail!("conv2d: cuDNN has no algorithm for {:?}", self.x)
            };
            let handle = library.handle;
            let workspace = library.workspace(plan.workspace)?;
            let (scratch, scratch_guard) = workspace.device_ptr_mut(&stream);
            let (x, _x_guard) = x.device_ptr(&stream);
            let (weight, _weight_guard) = weight.device_ptr(&stream);
            let (y, _y_guard) = out.device_ptr_mut(&stream);
            let (one, zero) = (1f32, 0f32);
            let (one, zero) = ((&raw const one).cast::<c_void>(), (&raw const zero).cast::<c_void>());
            let scratch = if plan.workspace == 0 { null_mut() } else { scratch as *mut c_void };
            let (mut added, mut fused, mut status) = (false, plan.fused, Ok(()));
            if let (Some(bias), true) = (&bias, plan.fused) {
                let (bias, _bias_guard) = bias.device_ptr(&stream);
                // SAFETY: handle and descriptors are alive, the pointers are of tensors as these describe them. The third
                // operand is the output itself, as the manual allows, times zero.
                #[allow(unsafe_code)]
                let done = unsafe {
                    result::convolution_bias_activation_forward(
                        handle,
                        one,
                        plan.x,
                        x as *const c_void,
                        plan.weight,
                        weight as *const c_void,
                        plan.convolution,
                        plan.algorithm,
                        scratch,
                        plan.workspace,
                        zero,
                        plan.y,
                        y as *const c_void,
                        plan.bias,
                        bias as *const c_void,
                        plan.identity,
                        plan.y,
                        y as *mut c_void,
                    )
                };
                match done {
                    Ok(()) => added = true,
                    Err(error) if is_unsupported(error) => fused = false,
                    Err(error) => status = Err(error),
                }
            }
            if !added && status.is_ok() {
                // SAFETY: as above.
                #[allow(unsafe_code)]
                unsafe {
                    status = result::convolution_forward(
                        handle,
                        one,
                        plan.x,
                        x as *const c_void,
                        plan.weight,
                        weight as *const c_void,
                        plan.convolution,
                        plan.algorithm,
                        scratch,
                        plan.workspace,
                        zero,
                        plan.y,
                        y as *mut c_void,
                    );
                }
            }
            drop(scratch_guard);
            if plan.workspace > MAX_KEPT {
                library.workspace = None;
            }
            if status.is_err_and(is_unsupported) {
                library.plans.insert(self.clone(), None);
            } else if fused != plan.fused {
                library.plans.insert(self.clone(), Some(Plan { fused, ..plan }));
            }
            status.map_err(wrapped)?;
            Ok(added)
        })?;
        if let (Some(bias), false) = (&bias, added) {
            // An allocation begins at a multiple of 16 bytes.
            add_plane(device, &mut out.slice_mut(..), bias, self.y[2] * self.y[3], true)?;
        }
        Ok((CudaStorage::wrap_cuda_slice(out, device.clone()), shape))
    }
}

impl CustomOp2 for Convolution {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        bail!("conv2d: this is the path of CUDA devices")
    }

    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        x_at: &Layout,
        weight: &CudaStorage,
        weight_at: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        self.dispatch((x, x_at), (weight, weight_at), None)
    }
}

impl CustomOp3 for Convolution {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        bail!("conv2d: this is the path of CUDA devices")
    }

    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        x_at: &Layout,
        weight: &CudaStorage,
        weight_at: &Layout,
        bias: &CudaStorage,
        bias_at: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        self.dispatch((x, x_at), (weight, weight_at), Some((bias, bias_at)))
    }
}
