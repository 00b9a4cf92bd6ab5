//! The heavy operations of the networks, each behind one plain function.
//!
//! A network calls `conv2d`, `attention` or `group_norm_silu` on candle tensors and never asks which device they
//! lie on. Beside each operation stands its *composed reference*: the same mathematics written in generic candle
//! operations. It is the oracle of the tests, and it runs wherever no kernel exists for the device or the number
//! format. On the CPU the elementwise operations and the norms have a loop of their own, parallel over rows; on CUDA
//! the norms, the gated unit, attention in half formats and convolutions have kernels (`cuda`).
//!
//! # Architecture invariant
//!
//! This crate is the only place for nvcc and for its `build.rs`, and nearly the only one for `unsafe` (the register
//! tile of `cpu::microkernel`, the launches of `cuda`). It names candle and rayon, and none of the other crates of this workspace. Every
//! operation gives the same bytes whatever the number of threads: work is cut by the shape of the tensors, never by
//! the thread count.
//!
//! Number formats: `f32`, `f16` and `bf16`. Norms, softmax and activations are computed in `f32` and rounded once.

mod activation;
mod add_delta;
mod attention;
mod conv2d;
mod convert;
mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
mod device;
mod geglu;
mod group_norm;
mod layer_norm;
mod linear;
mod upsample;

pub use activation::{gelu_erf, quick_gelu, silu};
pub use add_delta::add_delta;
pub use attention::attention;
pub use conv2d::conv2d;
pub use convert::convert;
pub use device::cuda_device;
pub use geglu::geglu;
pub use group_norm::{group_norm, group_norm_silu};
pub use layer_norm::layer_norm;
pub use linear::linear;
pub use upsample::{upsample_nearest, upsample_nearest2x};

#[cfg(test)]
mod testing;
