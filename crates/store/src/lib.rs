//! Assets and jobs that survive a crash: one embedded database and a folder of blobs.
//!
//! A picture is a blob named by the BLAKE3 of its bytes, written to a temporary file, synced and renamed, so that a
//! blob under its final name is whole. Its row is written after it: what is listed can be read. A job is a row before
//! it is work: what a crash interrupts is queued again when the store is next opened, with the pictures that it has.
//!
//! # Architecture invariant
//!
//! A leaf: this crate knows nothing of pictures, models or protocols. Several processes may share one store.

mod assets;
mod blobs;
mod clock;
mod database;
mod error;
mod id;
mod instance;
mod jobs;
mod retention;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::Connection;

pub use assets::{Asset, AssetMeta, Moment};
pub use clock::iso;
pub use error::{Error, Result};
pub use id::{AssetId, JobId};
pub use jobs::{Cancel, Job, JobStatus, NewJob, Runner, Statistics, Timing, Work};
pub use retention::{Limits, Pruned};

use blobs::Blobs;
use instance::Instance;

/// The database's file within the folder.
const DATABASE: &str = "infill.db";

/// The database and the blobs of one folder. Shared by reference: every call locks for itself.
#[derive(Debug)]
pub struct Store {
    database: PathBuf,
    connection: Mutex<Connection>,
    blobs: Blobs,
    instance: Instance,
}

impl Store {
    /// Opens the store in this folder, making both if absent. Leftovers of a crash are cleared away: half-written
    /// blobs go, and unfinished jobs of processes that are gone are queued again.
    ///
    /// # Errors
    /// A folder that can't be written, a damaged database, or one that a newer version wrote.
    pub fn open(dir: &Path) -> Result<Self> {
        std::fs::create_dir_all(dir).map_err(|e| Error::file(dir, &e))?;
        let dir = dir.canonicalize().map_err(|e| Error::file(dir, &e))?;
        let database = dir.join(DATABASE);
        let store = Self {
            connection: Mutex::new(database::open(&database)?),
            blobs: Blobs::open(dir.join("blobs"))?,
            instance: Instance::start(dir.join("instances"))?,
            database: database.canonicalize().map_err(|e| Error::file(&database, &e))?,
        };
        store.release_abandoned()?;
        Ok(store)
    }

    /// As [`Store::open`], where there is a store already.
    ///
    /// # Errors
    /// As there; [`Error::NoStore`] if the folder holds none.
    pub fn open_existing(dir: &Path) -> Result<Self> {
        if dir.join(DATABASE).is_file() { Self::open(dir) } else { Err(Error::NoStore(dir.to_owned())) }
    }

    /// Where the database lies, with every link resolved. A process that opens and closes this file, or one whose name
    /// begins as its does, gives up the locks that it has on it.
    pub fn database(&self) -> &Path {
        &self.database
    }

    /// The folder under which the bytes of all assets lie.
    pub fn blobs_dir(&self) -> &Path {
        self.blobs.dir()
    }

    /// Where the bytes of an asset lie, as an absolute path.
    pub fn path(&self, asset: &Asset) -> PathBuf {
        self.blobs.path(&asset.file)
    }

    /// A thread that panicked while it held the lock left a transaction that was rolled back: the connection is fine.
    fn connection(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Milliseconds since 1970, the time of the rows.
fn now() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX)
}

/// A file that another process is just making looks like one that a crash left: only older ones are leftovers.
const LEFTOVER: Duration = Duration::from_secs(60 * 60);

fn is_leftover(path: &Path, now: SystemTime) -> bool {
    let modified = path.metadata().and_then(|m| m.modified());
    modified.is_ok_and(|at| now.duration_since(at).is_ok_and(|age| age > LEFTOVER))
}
