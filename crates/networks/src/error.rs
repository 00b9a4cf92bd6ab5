//! The one error type of the networks.

use std::path::PathBuf;

/// What can go wrong while a network is built or run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A `config.json` that can't be read as the network's configuration.
    #[error("{component}: config.json can't be read: {reason}")]
    Config {
        /// `unet`, `vae`, `text_encoder`, ...
        component: String,
        /// What the parser said.
        reason: String,
    },
    /// A configuration value that changes the mathematics and is not implemented.
    #[error("{component}: {key} is {value}; implemented: {implemented}")]
    Unsupported {
        /// `unet`, `vae`, `text_encoder`, ...
        component: String,
        /// The key in `config.json`.
        key: String,
        /// Its value there.
        value: String,
        /// What can be run.
        implemented: String,
    },
    /// Tensors that a checkpoint lacks, has too many of, or has in the wrong shape: all of them, named.
    #[error("{component}: the weights do not fit: {faults}")]
    Weights {
        /// `unet`, `vae`, `text_encoder`, ...
        component: String,
        /// Every missing, surplus and misshapen tensor by name.
        faults: String,
    },
    /// A file of the checkpoint that can't be read.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why, in words.
        reason: String,
    },
    /// A tokenizer that can't be built or a text that it refuses.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    /// A prompt that can't be encoded as it is weighed.
    #[error("prompt: {0}")]
    Prompt(String),
    /// The work is no longer wanted.
    #[error("interrupted")]
    Interrupted,
    /// A tensor operation failed.
    #[error("tensor operation failed: {0}")]
    Tensor(#[from] candle_core::Error),
}

/// The result of a call into the networks.
pub type Result<T> = std::result::Result<T, Error>;
