//! Files of the user's cache folder, there whole or not at all.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

/// The extension of passing names.
pub(crate) const PASSING: &str = "part";

/// Writes a file under a passing name in `folder`, on the same file system, and gives it its own name once it is whole.
/// Any number of threads and processes may do so at once.
///
/// # Errors
/// What kept it from being written; nothing is left then.
pub(crate) fn write(path: &Path, bytes: &[u8], folder: &Path) -> io::Result<()> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let part = folder.join(format!(".{}-{number}.{PASSING}", std::process::id()));
    let written = fs::File::create(&part)
        .and_then(|mut new| new.write_all(bytes).and_then(|()| new.sync_all()))
        .and_then(|()| fs::rename(&part, path));
    if written.is_err() {
        // The first failure is the one to tell.
        let _ = fs::remove_file(&part);
    }
    written
}
