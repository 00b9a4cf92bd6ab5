//! The one error type of the engine.

/// What can go wrong between a request and its picture.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A value that the request, the picture, the mask or the scheduler configuration may not have.
    #[error("{field} is {value}; allowed: {allowed}")]
    Refused {
        /// The parameter or configuration key, as the user writes it.
        field: &'static str,
        /// The value that was given.
        value: String,
        /// What is allowed instead.
        allowed: String,
    },
    /// A picture that can't be read.
    #[error("the {what} can't be read: {reason}")]
    Unreadable {
        /// "picture" or "mask".
        what: &'static str,
        /// Why, in words.
        reason: String,
    },
    /// A picture that can't be written.
    #[error("the picture can't be encoded: {0}")]
    Encode(String),
    /// A network could not be built or run.
    #[error(transparent)]
    Networks(infill_networks::Error),
    /// A checkpoint could not be opened.
    #[error(transparent)]
    Models(#[from] infill_models::Error),
    /// A tensor operation failed.
    #[error("tensor operation failed: {0}")]
    Tensor(#[from] candle_core::Error),
    /// What came out of the networks is no picture.
    #[error(
        "the painted picture holds what is no number: the number format {dtype} is too small for this model, the scheduler's configuration leads nowhere, or the weights are damaged"
    )]
    NoNumbers {
        /// The number format of the run.
        dtype: &'static str,
    },
    /// The job panicked; the worker goes on.
    #[error("the job failed inside: {0}")]
    Panicked(String),
    /// The queue is full.
    #[error("busy: {waiting} jobs are waiting already")]
    Busy {
        /// How many wait.
        waiting: usize,
    },
    /// The observer or its interrupt asked to stop.
    #[error("cancelled")]
    Cancelled,
}

impl From<infill_networks::Error> for Error {
    fn from(error: infill_networks::Error) -> Self {
        match error {
            infill_networks::Error::Interrupted => Self::Cancelled,
            other => Self::Networks(other),
        }
    }
}

/// The result of an engine call.
pub type Result<T> = std::result::Result<T, Error>;
