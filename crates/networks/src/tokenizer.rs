//! CLIP's tokenizer: the interface, until the vocabulary is read.

use std::path::Path;

use crate::{Error, Result};

/// Text to token ids.
pub struct ClipTokenizer;

/// A padded text.
pub struct Encoded {
    /// `model_max_length` ids.
    pub ids: Vec<u32>,
    /// How many tokens did not fit.
    pub cut: usize,
}

impl ClipTokenizer {
    /// Opens a tokenizer folder.
    ///
    /// # Errors
    /// Always, for now.
    pub fn open(_dir: &Path) -> Result<Self> {
        Err(Error::Tokenizer("not built in yet".into()))
    }

    /// The ids of `text`, padded or cut to `model_max_length`.
    ///
    /// # Errors
    /// Always, for now.
    pub fn encode_padded(&self, _text: &str) -> Result<Encoded> {
        Err(Error::Tokenizer("not built in yet".into()))
    }
}
