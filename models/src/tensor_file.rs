//! One safetensors file that is given by itself: a concept, an adapter, an embedding.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::header::{TensorInfo, read_header};
use crate::{Error, Result, digest, places};

/// An opened file: its header is read, its numbers are not.
#[derive(Debug, Clone)]
pub(crate) struct TensorFile {
    path: PathBuf,
    tensors: BTreeMap<String, TensorInfo>,
}

impl TensorFile {
    /// Opens a file; `what` names it in errors: `LoRA`, `adapter`.
    ///
    /// # Errors
    /// [`Error::File`] when it is a pickle, with the way to convert it, or no safetensors file with at least one tensor.
    pub(crate) fn open(path: &Path, what: &str) -> Result<Self> {
        let article = if what.starts_with(['a', 'e']) { "an" } else { "a" };
        let pickled = path.extension().and_then(|e| e.to_str()).is_some_and(|extension| {
            ["bin", "ckpt", "pt", "pth"].iter().any(|pickle| extension.eq_ignore_ascii_case(pickle))
        });
        if pickled {
            return Err(Error::file(
                path,
                format!(
                    "is a pickle, a format that can run code when opened and is not read; convert the {what}: load it \
                     with torch.load(file, weights_only=True) and write its tensors with safetensors.torch.save_file"
                ),
            ));
        }
        if !path.try_exists().map_err(|error| Error::file(path, format!("can't be read: {error}")))? {
            return Err(Error::file(path, format!("is not there; needed: {article} {what}")));
        }
        // Opening a pipe would wait for its writer.
        if !path.is_file() {
            return Err(Error::file(path, format!("is not a file; needed: {article} {what}")));
        }
        let tensors = read_header(path)?;
        if tensors.is_empty() {
            return Err(Error::file(path, format!("holds no tensors; needed: {article} {what}")));
        }
        Ok(Self { path: path.to_owned(), tensors })
    }

    /// Where it lies.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What it holds, by name.
    pub(crate) fn tensors(&self) -> &BTreeMap<String, TensorInfo> {
        &self.tensors
    }

    /// SHA-256 of its contents, as 64 hexadecimal digits; remembered as a checkpoint's are.
    ///
    /// # Errors
    /// [`Error::File`] when it can't be read.
    pub(crate) fn digest(&self) -> Result<String> {
        digest::of_file(&self.path, places::cache_dir().map(|dir| dir.join("digests.json")).as_deref())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn pickles_are_refused_with_the_way_out() {
        for name in ["x.bin", "x.PT", "x.ckpt"] {
            let error = TensorFile::open(Path::new(name), "LoRA").unwrap_err().to_string();
            assert!(error.contains("convert the LoRA") && error.contains("save_file"), "{error}");
        }
    }

    #[test]
    fn what_is_no_file_is_never_opened() {
        let dir = tempfile::tempdir().unwrap();
        let error = TensorFile::open(dir.path(), "LoRA").unwrap_err().to_string();
        assert!(error.contains("is not a file; needed: a LoRA"), "{error}");
    }

    #[test]
    fn an_empty_file_of_tensors_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.safetensors");
        std::fs::write(&path, b"\x02\0\0\0\0\0\0\0{}").unwrap();
        let error = TensorFile::open(&path, "LoRA").unwrap_err().to_string();
        assert!(error.contains("holds no tensors; needed: a LoRA"), "{error}");
    }
}
