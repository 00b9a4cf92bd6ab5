//! What a CUDA device is told once, when it is opened.

use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::result::{device, mem_pool};
use candle_core::cuda_backend::cudarc::driver::sys::CUmemPool_attribute_enum;
use candle_core::{Device, Result, bail};

/// Checks the card and readies the device, which [`crate::cuda_device`] has just opened.
pub(crate) fn prepare(device: &Device) -> Result<()> {
    let Device::Cuda(cuda) = device else { return Ok(()) };
    let stream = cuda.cuda_stream();
    let context = stream.context();
    context.bind_to_thread().w()?;
    let (major, minor) = context.compute_capability().w()?;
    let built_for: i32 = env!("INFILL_CUDA_COMPUTE_CAP").parse().unwrap_or(0);
    if 10 * major + minor < built_for {
        bail!(
            "the card's compute capability is {major}.{minor}; this build needs {}.{} or newer, its CUDA_COMPUTE_CAP",
            built_for / 10,
            built_for % 10
        );
    }
    if context.has_async_alloc() {
        let mut kept = u64::MAX;
        // SAFETY: the device is the context's own, its default pool lives as long as the process, and this attribute
        // is read as a u64.
        #[allow(unsafe_code)]
        unsafe {
            let pool = device::get_default_mem_pool(context.cu_device()).w()?;
            let attribute = CUmemPool_attribute_enum::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
            mem_pool::set_attribute(pool, attribute, (&raw mut kept).cast()).w()?;
        }
    }
    // SAFETY: `crate::cuda_device` opens each device once, so all of its tensors are allocated, used and freed on one
    // stream, in the order of the calls; candle makes no second one for it, nor do the kernels of this crate.
    #[allow(unsafe_code)]
    unsafe {
        cuda.disable_event_tracking();
    }
    Ok(())
}
