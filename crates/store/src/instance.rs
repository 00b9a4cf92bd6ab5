//! Which processes are alive: each holds a locked file as long as it has the store open.

use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::id::random_letters;
use crate::{Error, Result, is_leftover};

/// This process's mark. The system drops the lock when the process ends, however it ends.
#[derive(Debug)]
pub(crate) struct Instance {
    dir: PathBuf,
    name: String,
    _lock: File,
}

impl Instance {
    pub(crate) fn start(dir: PathBuf) -> Result<Self> {
        fs::create_dir_all(&dir).map_err(|e| Error::file(&dir, &e))?;
        let name = random_letters();
        let path = dir.join(&name);
        let lock = File::create(&path).map_err(|e| Error::file(&path, &e))?;
        lock.lock().map_err(|e| Error::file(&path, &e))?;
        Ok(Self { dir, name, _lock: lock })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// True while the process of that name has the store open.
    pub(crate) fn is_alive(&self, name: &str) -> bool {
        name == self.name || is_locked(&self.dir.join(name))
    }

    /// Removes the files of processes that are gone.
    pub(crate) fn sweep(&self) -> Result<()> {
        for entry in fs::read_dir(&self.dir).map_err(|e| Error::file(&self.dir, &e))? {
            let entry = entry.map_err(|e| Error::file(&self.dir, &e))?;
            let alive = entry.file_name().to_str().is_some_and(|name| self.is_alive(name));
            // A process that is just starting has made its file and not locked it yet.
            if !alive && is_leftover(&entry.path(), SystemTime::now()) {
                // Another process may have been quicker.
                let _ = fs::remove_file(entry.path());
            }
        }
        Ok(())
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // The lock goes with the file handle; a file that stays is swept by the next one.
        let _ = fs::remove_file(self.dir.join(&self.name));
    }
}

/// Two that look at once do not take each other for the owner: they only share. What can't be looked at may be locked.
fn is_locked(path: &Path) -> bool {
    match File::open(path) {
        Ok(file) => matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)),
        Err(error) => error.kind() != ErrorKind::NotFound,
    }
}
