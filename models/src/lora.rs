//! A concept's file: the changes that a LoRA makes to a model.

use std::collections::BTreeMap;
use std::path::Path;

use crate::header::read_texts;
use crate::tensor_file::TensorFile;
use crate::{Result, TensorInfo};

/// An opened LoRA; what its tensors mean is the networks' business.
#[derive(Debug, Clone)]
pub struct LoraFile {
    file: TensorFile,
    texts: BTreeMap<String, String>,
}

impl LoraFile {
    /// Opens a `.safetensors` file.
    ///
    /// # Errors
    /// [`crate::Error::File`] when it is a pickle or can't be read.
    pub fn open(path: &Path) -> Result<Self> {
        let file = TensorFile::open(path, "LoRA")?;
        Ok(Self { texts: read_texts(path)?, file })
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// What it holds, by name.
    pub fn tensors(&self) -> &BTreeMap<String, TensorInfo> {
        self.file.tensors()
    }

    /// The texts of its header: what a trainer noted, and PEFT's configuration where diffusers wrote it.
    pub fn texts(&self) -> &BTreeMap<String, String> {
        &self.texts
    }

    /// SHA-256 of its contents.
    ///
    /// # Errors
    /// [`crate::Error::File`] when it can't be read.
    pub fn digest(&self) -> Result<String> {
        self.file.digest()
    }
}
