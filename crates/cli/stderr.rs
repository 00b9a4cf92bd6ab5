//! Notes and errors on standard error.

use std::io::{self, Write};

/// Writes a line. There is nowhere left to tell of a failure.
pub(crate) fn line(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}
