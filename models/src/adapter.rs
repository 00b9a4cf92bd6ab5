//! An image prompt adapter (IP-Adapter, Ye et al. 2023, arXiv 2308.06721) and the image encoder that it reads through.

use std::path::Path;

use crate::tensor_file::TensorFile;
use crate::weight_files::{Library, Variant};
use crate::{Component, Result, TensorInfo};

/// An opened adapter.
#[derive(Debug, Clone)]
pub struct AdapterFile(TensorFile);

impl AdapterFile {
    /// Opens a `.safetensors` file.
    ///
    /// # Errors
    /// [`crate::Error::File`] when it is a pickle or can't be read.
    pub fn open(path: &Path) -> Result<Self> {
        Ok(Self(TensorFile::open(path, "adapter")?))
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

/// An opened folder of a `CLIPVisionModelWithProjection`.
#[derive(Debug, Clone)]
pub struct ImageEncoderFolder(Component);

impl ImageEncoderFolder {
    /// Opens a folder with a `config.json` and weights.
    ///
    /// # Errors
    /// [`crate::Error::File`] naming what is missing or unreadable.
    pub fn open(dir: &Path) -> Result<Self> {
        let class = "CLIPVisionModelWithProjection";
        Ok(Self(Component::open(dir, class, Library::Transformers, Variant::Default)?))
    }

    /// Its configuration and weight files.
    pub fn component(&self) -> &Component {
        &self.0
    }
}
