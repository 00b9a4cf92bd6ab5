//! Pictures and masks from files.

use std::fs;
use std::path::Path;

use infill_engine::image::Limits;

use crate::failure::{Failure, Result};

/// A picture's file, encoded; refusals name the file.
pub(crate) fn bytes(path: &Path, what: &str, limits: &Limits) -> Result<Vec<u8>> {
    let about = fs::metadata(path).map_err(|e| unreadable(path, what, &e.to_string()))?;
    if !about.is_file() {
        return Err(unreadable(path, what, "it is not a file"));
    }
    // Not even read into memory where it is too large.
    if about.len() > limits.bytes as u64 {
        return Err(Failure::value(
            &name(path, what),
            format!("{} bytes long", about.len()),
            format!("at most {} bytes", limits.bytes),
        ));
    }
    fs::read(path).map_err(|e| unreadable(path, what, &e.to_string()))
}

/// A picture out of the bytes of its file; refusals name the file.
pub(crate) fn decode<T>(
    bytes: &[u8],
    path: &Path,
    what: &str,
    limits: &Limits,
    decode: impl Fn(&[u8], &Limits) -> infill_engine::Result<T>,
) -> Result<T> {
    decode(bytes, limits).map_err(|error| match error {
        infill_engine::Error::Unreadable { reason, .. } => unreadable(path, what, &reason),
        infill_engine::Error::Refused { value, allowed, .. } => {
            Failure::value(&name(path, what), value, allowed)
        }
        other => other.into(),
    })
}

/// A picture's file, decoded; refusals name the file.
pub(crate) fn read<T>(
    path: &Path,
    what: &str,
    limits: &Limits,
    by: impl Fn(&[u8], &Limits) -> infill_engine::Result<T>,
) -> Result<T> {
    decode(&bytes(path, what, limits)?, path, what, limits, by)
}

fn name(path: &Path, what: &str) -> String {
    format!("the {what} {}", path.display())
}

fn unreadable(path: &Path, what: &str, reason: &str) -> Failure {
    Failure::Refused(format!("{} can't be read: {reason}", name(path, what)))
}
