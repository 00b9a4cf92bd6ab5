//! The one error type of the models.

use std::path::{Path, PathBuf};

/// What can go wrong while a model is found, opened or fetched.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file that can't be read or does not hold what it should.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// Why, in words.
        reason: String,
    },
    /// A model that is well formed and can't be run.
    #[error("{}: {what} is {value}; allowed: {allowed}", path.display())]
    Unsupported {
        /// The file that says so.
        path: PathBuf,
        /// The key, or the component's name.
        what: String,
        /// Its value there.
        value: String,
        /// What can be run.
        allowed: String,
    },
    /// Something that is asked for by name and is not on this machine.
    #[error("{what} {id} is not here: {reason}")]
    NotFound {
        /// What it is: a model, an adapter, a LoRA.
        what: &'static str,
        /// What was asked for.
        id: String,
        /// Where it was looked for and what could be asked for instead.
        reason: String,
    },
    /// A download that failed.
    #[error("{repository} could not be fetched: {reason}")]
    Hub {
        /// The repository on the hub.
        repository: String,
        /// What the hub's client said.
        reason: String,
    },
}

/// The result of a call into the models.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn file(path: &Path, reason: impl Into<String>) -> Self {
        Self::File { path: path.to_owned(), reason: reason.into() }
    }
}
