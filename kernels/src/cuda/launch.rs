//! Loading the kernels and launching them.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use candle_core::cuda_backend::cudarc::driver::sys::CUfunction_attribute_enum;
use candle_core::cuda_backend::cudarc::driver::{CudaFunction, CudaModule, LaunchConfig};
use candle_core::cuda_backend::cudarc::nvrtc::Ptx;
use candle_core::cuda_backend::{CudaDevice, DeviceId, WrapErr};
use candle_core::{Result, bail};

/// A file of `cuda/`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Source {
    Attention,
    Elementwise,
    GroupNorm,
    LayerNorm,
}

impl Source {
    fn image(self) -> &'static [u8] {
        match self {
            Self::Attention => include_bytes!(concat!(env!("OUT_DIR"), "/attention.fatbin")),
            Self::Elementwise => include_bytes!(concat!(env!("OUT_DIR"), "/elementwise.fatbin")),
            Self::GroupNorm => include_bytes!(concat!(env!("OUT_DIR"), "/group_norm.fatbin")),
            Self::LayerNorm => include_bytes!(concat!(env!("OUT_DIR"), "/layer_norm.fatbin")),
        }
    }
}

/// What has been loaded, for as long as the process runs.
#[derive(Default)]
struct Loaded {
    modules: HashMap<(DeviceId, Source), Arc<CudaModule>>,
    functions: HashMap<(DeviceId, String), CudaFunction>,
}

static LOADED: LazyLock<Mutex<Loaded>> = LazyLock::new(Mutex::default);

/// The kernel `name` of `source`, allowed `shared` bytes of dynamic shared memory.
pub(super) fn function(
    device: &CudaDevice,
    source: Source,
    name: String,
    shared: u32,
) -> Result<CudaFunction> {
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    let key = (device.id(), name);
    if let Some(function) = loaded.functions.get(&key) {
        return Ok(function.clone());
    }
    let module = match loaded.modules.get(&(key.0, source)) {
        Some(module) => module.clone(),
        None => {
            let stream = device.cuda_stream();
            let module = stream.context().load_module(Ptx::from_binary(source.image().to_vec())).w()?;
            loaded.modules.insert((key.0, source), module.clone());
            module
        }
    };
    let function = module.load_function(&key.1).w()?;
    if shared > 0 {
        // Above 48 KiB a kernel has to ask.
        let attribute = CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        function.set_attribute(attribute, shared as i32).w()?;
    }
    loaded.functions.insert(key, function.clone());
    Ok(function)
}

/// `blocks` blocks of `threads` threads, without dynamic shared memory.
pub(super) fn grid(blocks: usize, threads: u32) -> Result<LaunchConfig> {
    if blocks > i32::MAX as usize {
        bail!("{blocks} blocks of a kernel are more than a launch can have");
    }
    Ok(LaunchConfig { grid_dim: (blocks as u32, 1, 1), block_dim: (threads, 1, 1), shared_mem_bytes: 0 })
}
