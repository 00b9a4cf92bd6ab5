//! The paths for NVIDIA cards: kernels of `cuda/*.cu`, and convolutions through cuDNN.
//!
//! Each operation has a `fits` that looks at shapes and formats only; where it says no, the composed reference runs.

use candle_core::{DType, Layout, Result, Tensor, bail};

pub(crate) mod attention;
pub(crate) mod bias;
#[cfg(feature = "cudnn")]
pub(crate) mod conv2d;
pub(crate) mod device;
pub(crate) mod geglu;
pub(crate) mod group_norm;
pub(crate) mod launch;
pub(crate) mod layer_norm;

/// Whether `x` lies on a CUDA device in one of the three formats that the kernels are made for.
fn takes(x: &Tensor) -> bool {
    x.device().is_cuda() && matches!(x.dtype(), DType::F32 | DType::F16 | DType::BF16)
}

/// Whether a parameter in the format `parameter` can be brought to that of `x` without loss.
fn converts(parameter: &Tensor, x: &Tensor) -> bool {
    parameter.dtype() == x.dtype() || x.dtype() == DType::F32
}

/// How the kernels of this format are named.
fn suffix(dtype: DType) -> Result<&'static str> {
    match dtype {
        DType::F32 => Ok("f32"),
        DType::F16 => Ok("f16"),
        DType::BF16 => Ok("bf16"),
        other => bail!("f32, f16 or bf16 is needed, not {other:?}"),
    }
}

/// First and last element of a contiguous tensor in its storage.
fn range(layout: &Layout) -> Result<std::ops::Range<usize>> {
    let Some((start, end)) = layout.contiguous_offsets() else { bail!("a contiguous tensor is needed") };
    Ok(start..end)
}

/// Whether loads of 16 bytes may be used: every one of `elements`, counted from an address that is a multiple of 16
/// (as every allocation's is), is such a multiple too. `size` is an element's bytes.
fn wide(size: usize, elements: &[usize]) -> bool {
    elements.iter().all(|count| (count * size).is_multiple_of(16))
}
