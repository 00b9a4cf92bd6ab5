//! Ctrl-C: the first stops the run, the second ends the process, and neither leaves a half-written file.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use infill_engine::Interrupt;
use infill_engine::pipeline::{Observer, Progress};

use crate::failure::{Failure, Result};

/// Passing names beside one target that may be taken, by files that killed processes have left.
const MOST_LEFT: u32 = 1000;

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
    /// Creates a hidden file beside `target`, so that the rename stays within one file system. What an earlier process
    /// of this number left there, killed at its work, stays and is passed over.
    pub(crate) fn create(target: &Path) -> io::Result<(Self, File)> {
        // Created under the lock: a file is never there without being noted.
        let mut unfinished = lock();
        let mut number = 0;
        loop {
            let path = passing_name(target, number);
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists && number < MOST_LEFT => number += 1,
                Err(error) => return Err(error),
                Ok(file) => {
                    unfinished.push(path.clone());
                    return Ok((Self { path }, file));
                }
            }
        }
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

fn passing_name(target: &Path, number: u32) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(target.file_name().unwrap_or_default());
    name.push(format!(".{}-{number}.part", std::process::id()));
    target.with_file_name(name)
}

fn lock() -> MutexGuard<'static, Vec<PathBuf>> {
    UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner)
}
