//! Which models there are, where their files lie, and what is in them.
mod error;

pub use error::{Error, Result};
