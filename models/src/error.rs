//! The one error type of the models.

use std::path::PathBuf;

/// What can go wrong while a model is found or opened.
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
}

/// The result of a call into the models.
pub type Result<T> = std::result::Result<T, Error>;
