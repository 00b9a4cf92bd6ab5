//! A textual inversion: vectors that stand for a word in the prompt.

use std::path::Path;

use crate::tensor_file::TensorFile;
use crate::{Result, TensorInfo};

/// An opened embedding; what its tensors mean is the networks' business.
#[derive(Debug, Clone)]
pub struct EmbeddingFile(TensorFile);

impl EmbeddingFile {
    /// Opens a `.safetensors` file.
    ///
    /// # Errors
    /// [`crate::Error::File`] when it is a pickle or can't be read.
    pub fn open(path: &Path) -> Result<Self> {
        Ok(Self(TensorFile::open(path, "embedding")?))
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// What it holds, by name.
    pub fn tensors(&self) -> &std::collections::BTreeMap<String, TensorInfo> {
        self.0.tensors()
    }

    /// SHA-256 of its contents.
    ///
    /// # Errors
    /// [`crate::Error::File`] when it can't be read.
    pub fn digest(&self) -> Result<String> {
        self.0.digest()
    }
}
