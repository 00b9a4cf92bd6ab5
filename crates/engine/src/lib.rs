//! The diffusion mathematics of infill: pixels in, pixels out.
//!
//! A request is checked once, in [`InpaintRequest::new`], and is total from then on. A [`Pipeline`] holds the loaded
//! networks and runs requests one after another; an [`Engine`] is a clonable handle to the thread that owns one.
//!
//! # Architecture invariant
//!
//! This crate never sees a path of a picture, an asset id, a protocol message or a future. It is synchronous. All
//! randomness comes from [`noise`], drawn on the host, so that a seed means the same on every device.

pub mod additions;
pub mod cost;
pub mod device;
mod error;
pub mod geometry;
pub mod guidance;
pub mod image;
pub mod image_prompt;
pub mod mask;
pub mod memory;
pub mod noise;
pub mod pipeline;
pub mod request;
pub mod scheduler;
pub mod tile_size;
pub mod worker;

pub use additions::Additions;
pub use error::{Error, Result};
pub use infill_networks::Interrupt;
pub use pipeline::Pipeline;
pub use request::{InpaintParams, InpaintRequest, PromptSyntax};
pub use tile_size::VaeTileSize;
pub use worker::Engine;
