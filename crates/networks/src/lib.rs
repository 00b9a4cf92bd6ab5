//! The networks of Stable Diffusion, loaded from diffusers folders: tensors in, tensors out.
//!
//! The module tree mirrors the checkpoint: one `sub("...")` per segment of a weight's name, no renaming here.
//!
//! # Architecture invariant
//!
//! No network sees a device, a path of a picture or a random number. Every heavy operation goes through
//! `infill-kernels`. A configuration value that changes the mathematics and is not implemented is an error at load.

mod bounds;
pub mod clip;
mod config_json;
pub mod embeddings;
mod error;
mod interrupt;
pub mod ip_adapter;
pub mod layers;
pub mod lora;
pub mod prompt;
mod tensor_file;
pub mod tokenizer;
pub mod unet;
pub mod vae;
pub mod weights;

pub use candle_core::utils::{cuda_is_available as cuda_is_built, metal_is_available as metal_is_built};
pub use candle_core::{DType, Device, Tensor};
pub use error::{Error, Result};
pub use infill_kernels::cuda_device;
pub use interrupt::Interrupt;
