//! Ctrl-C: the first stops the run, the second ends the process, and neither leaves a half-written file.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use infill_engine::Interrupt;
use infill_engine::pipeline::{Observer, Progress};

use crate::failure::{Failure, Result};

static REQUESTED: AtomicBool = AtomicBool::new(false);
static UNFINISHED: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Takes over SIGINT, SIGTERM and SIGHUP. `on_first` runs once, on a thread of its own.
pub(crate) fn install(on_first: impl Fn() + Send + 'static) -> Result<()> {
    let handler = move || {
        if REQUESTED.swap(true, Ordering::SeqCst) {
            abandon();
            std::process::exit(i32::from(Failure::Cancelled.code()));
        }
        on_first();
    };
    ctrlc::set_handler(handler).map_err(|e| Failure::Failed(format!("Ctrl-C can't be taken over: {e}")))
}

/// True once the user has asked to stop.
pub(crate) fn requested() -> bool {
    REQUESTED.load(Ordering::SeqCst)
}

/// Shows `progress` each stage of a run, which ends once the user has asked to stop.
pub(crate) fn observer(progress: &mut dyn FnMut(Progress) -> ControlFlow<()>) -> Observer<'_> {
    Observer::new(progress).with_interrupt(Interrupt::new(requested))
}

/// `Err(Cancelled)` once the user has asked to stop.
pub(crate) fn check() -> Result<()> {
    if requested() { Err(Failure::Cancelled) } else { Ok(()) }
}

/// Removes every unfinished file, and lets no other be begun: for the last moment of a process whose threads still
/// run.
pub(crate) fn abandon() {
    let unfinished = lock();
    for path in unfinished.iter() {
        // Nobody is left to be told of a failure.
        let _ = std::fs::remove_file(path);
    }
    std::mem::forget(unfinished);
}

/// A file under a passing name; removed with this value unless it was given its own name before.
#[derive(Debug)]
pub(crate) struct Unfinished {
    path: PathBuf,
}

impl Unfinished {
    /// Creates the file, which must not exist.
    pub(crate) fn create(path: &Path) -> io::Result<(Self, File)> {
        // Created under the lock: a file is never there without being noted.
        let mut unfinished = lock();
        let file = OpenOptions::new().write(true).create_new(true).open(path)?;
        unfinished.push(path.to_owned());
        Ok((Self { path: path.to_owned() }, file))
    }

    /// Gives the file its own name, replacing what is there.
    pub(crate) fn rename(self, target: &Path) -> io::Result<()> {
        fs::rename(&self.path, target)
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // Gone already after a rename.
        let _ = fs::remove_file(&self.path);
        lock().retain(|path| *path != self.path);
    }
}

fn lock() -> MutexGuard<'static, Vec<PathBuf>> {
    UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner)
}
