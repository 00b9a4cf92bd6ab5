//! The only writer of standard output.

use std::io::{self, ErrorKind, Write};

use serde::Serialize;

use crate::failure::{Failure, Result};

/// Writes a line.
pub(crate) fn line(text: &str) -> Result<()> {
    bytes(format!("{text}\n").as_bytes())
}

/// Writes a value as one line of JSON.
pub(crate) fn json(value: &impl Serialize) -> Result<()> {
    let text =
        serde_json::to_string(value).map_err(|e| Failure::Failed(format!("the report is no JSON: {e}")))?;
    line(&text)
}

/// Writes bytes as they are. A reader that has gone away, as in `| head`, is not an error.
pub(crate) fn bytes(bytes: &[u8]) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::Failed(format!("standard output can't be written: {e}")))
        }
        _ => Ok(()),
    }
}
