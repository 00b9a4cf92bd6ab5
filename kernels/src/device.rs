//! What a device is told once, when it is opened.

use candle_core::{Device, Result};

/// Readies a CUDA device that this program alone works with; nothing on any other device, or built without `cuda`.
///
/// To be called once, right after the device is opened and before its first tensor. Memory that is freed stays with the
/// process (CUDA gives it back to the system at every synchronisation otherwise, and asks for it anew), and tensors
/// carry no events (two per allocation otherwise): each device of candle has one stream, on which everything is in the
/// order of the calls.
///
/// # Errors
/// What the driver says against it.
pub fn prepare_cuda_device(device: &Device) -> Result<()> {
    #[cfg(feature = "cuda")]
    crate::cuda::device::prepare(device)?;
    #[cfg(not(feature = "cuda"))]
    let _ = device;
    Ok(())
}
