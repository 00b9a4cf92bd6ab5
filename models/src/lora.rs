//! A concept's file: the changes that a LoRA makes to a model.

use std::path::Path;

use crate::tensor_file::TensorFile;
use crate::{Result, TensorInfo};

/// An opened LoRA; what its tensors mean is the networks' business.
#[derive(Debug, Clone)]
pub struct LoraFile(TensorFile);

impl LoraFile {
    /// Opens a `.safetensors` file.
    ///
    /// # Errors
    /// [`crate::Error::File`] when it is a pickle or can't be read.
    pub fn open(path: &Path) -> Result<Self> {
        Ok(Self(TensorFile::open(path, "LoRA")?))
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
