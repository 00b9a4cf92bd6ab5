//! The one error type of the store.

use std::path::{Path, PathBuf};

use crate::{AssetId, JobId};

/// What can go wrong in the store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A text that is no id.
    #[error("{value:?} is no {what} id; allowed: {prefix} followed by 22 letters, digits, - or _")]
    Id {
        /// "asset" or "job".
        what: &'static str,
        /// What such an id begins with.
        prefix: &'static str,
        /// The text, cut where it is long.
        value: String,
    },
    /// No asset has this id.
    #[error("there is no asset {0}")]
    UnknownAsset(AssetId),
    /// An asset is still in use.
    #[error("asset {id} is needed by {job}, which is not over")]
    Needed {
        /// The asset.
        id: AssetId,
        /// The job.
        job: JobId,
    },
    /// The bytes of an asset are gone or are not those that were put.
    #[error("asset {id} is damaged: {reason}")]
    Damaged {
        /// The asset.
        id: AssetId,
        /// What is wrong with its bytes.
        reason: String,
    },
    /// No job has this id.
    #[error("there is no job {0}")]
    UnknownJob(JobId),
    /// A finished job stays as it is.
    #[error("job {id} is over, with the status {status}; allowed: one that waits or is at work")]
    Finished {
        /// The job.
        id: JobId,
        /// How it finished.
        status: &'static str,
    },
    /// There is nothing to read.
    #[error("there is no store in {}; the server and `infill assets add` make one", .0.display())]
    NoStore(PathBuf),
    /// A file or folder of the store can't be used.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// Why, in words.
        reason: String,
    },
    /// The database was written by a newer version.
    #[error("the store's database has version {found}; this build reads up to version {known}")]
    Newer {
        /// The version in the file.
        found: i64,
        /// The newest version of this build.
        known: i64,
    },
    /// The database refused.
    #[error("the store's database: {0}")]
    Database(#[from] rusqlite::Error),
}

impl Error {
    pub(crate) fn file(path: &Path, error: &std::io::Error) -> Self {
        Self::File { path: path.to_owned(), reason: error.to_string() }
    }
}

/// The result of a call into the store.
pub type Result<T> = std::result::Result<T, Error>;
