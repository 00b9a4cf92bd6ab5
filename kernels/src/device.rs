//! Opening CUDA devices.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use candle_core::{Device, Result};

/// The CUDA device of this number, opened once per process: the same one, with its one stream, at every call.
///
/// Memory that is freed stays with the process (CUDA gives it back to the system at every synchronisation otherwise, and
/// asks for it anew), and tensors carry no events (two per allocation otherwise): on one stream everything is in the
/// order of the calls. With a stream for each call, one could read what another has still to write.
///
/// # Errors
/// What the driver says against it, a card that is older than the build is for, or a build without `cuda`.
pub fn cuda_device(number: usize) -> Result<Device> {
    static OPENED: Mutex<BTreeMap<usize, Device>> = Mutex::new(BTreeMap::new());
    let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(device) = opened.get(&number) {
        return Ok(device.clone());
    }
    let device = Device::new_cuda_with_stream(number)?;
    #[cfg(feature = "cuda")]
    crate::cuda::device::prepare(&device)?;
    opened.insert(number, device.clone());
    Ok(device)
}
