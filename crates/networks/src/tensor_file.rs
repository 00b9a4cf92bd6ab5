//! A safetensors file: mapped, read whole, or known by its header alone.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use candle_core::safetensors::{BufferedSafetensors, Load, MmapedSafetensors};
use candle_core::{DType, Device, Tensor};
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorView};

use crate::{Error, Result};

/// The longest header that is read: as the format's own library has it.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// A safetensors file.
pub(crate) struct TensorFile {
    path: PathBuf,
    held: Held,
}

/// How a file is held.
enum Held {
    /// By its map: large files, which are written once.
    Mapped(MmapedSafetensors),
    /// Whole: files that their users may write anew at any time, which would end a process that has mapped them.
    Read(BufferedSafetensors),
    /// Open, with each tensor read when it is asked for: such files where shapes are nearly all that is wanted.
    Glanced { file: Mutex<File>, start: u64, metadata: Metadata },
}

/// A tensor as it is stored.
pub(crate) struct Stored<'a> {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Cow<'a, [u8]>,
}

impl Stored<'_> {
    pub(crate) fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// For what reads such tensors.
    pub(crate) fn view(&self) -> candle_core::Result<TensorView<'_>> {
        TensorView::new(self.dtype, self.shape.clone(), &self.bytes).map_err(candle_core::Error::wrap)
    }

    pub(crate) fn load(&self) -> candle_core::Result<Tensor> {
        self.view()?.load(&Device::Cpu)
    }
}

impl<'a> From<TensorView<'a>> for Stored<'a> {
    fn from(view: TensorView<'a>) -> Self {
        Self { dtype: view.dtype(), shape: view.shape().to_vec(), bytes: Cow::Borrowed(view.data()) }
    }
}

impl TensorFile {
    /// Maps a file that is written once.
    pub(crate) fn map(path: &Path) -> Result<Self> {
        // SAFETY: the map is only read. As with every memory map, the file must not be changed by another process
        // while it is open: checkpoints are written once, to a temporary name, and renamed into place.
        #[allow(unsafe_code)]
        let tensors = unsafe { MmapedSafetensors::new(path) };
        Self::held(path, tensors.map(Held::Mapped))
    }

    /// Reads a whole file.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|e| unreadable(path, &e))?;
        Self::held(path, BufferedSafetensors::new(bytes).map(Held::Read))
    }

    /// Reads a file's header.
    pub(crate) fn glance(path: &Path) -> Result<Self> {
        let mut file = File::open(path).map_err(|e| unreadable(path, &e))?;
        let (start, metadata) = header(&mut file).map_err(|e| unreadable(path, &e))?;
        Ok(Self { path: path.to_owned(), held: Held::Glanced { file: Mutex::new(file), start, metadata } })
    }

    fn held(path: &Path, held: candle_core::Result<Held>) -> Result<Self> {
        match held {
            Ok(held) => Ok(Self { path: path.to_owned(), held }),
            Err(e) => Err(Error::File {
                path: path.to_owned(),
                reason: format!("can't be read as safetensors: {}", cause(&e)),
            }),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn error(&self, reason: String) -> Error {
        Error::File { path: self.path.clone(), reason }
    }

    /// The names of its tensors, sorted.
    pub(crate) fn names(&self) -> Vec<String> {
        let of = |tensors: Vec<(String, TensorView<'_>)>| tensors.into_iter().map(|(name, _)| name).collect();
        let mut names: Vec<String> = match &self.held {
            Held::Mapped(file) => of(file.tensors()),
            Held::Read(file) => of(file.tensors()),
            Held::Glanced { metadata, .. } => metadata.tensors().into_keys().collect(),
        };
        names.sort_unstable();
        names
    }

    /// How many tensors it has.
    pub(crate) fn len(&self) -> usize {
        self.names().len()
    }

    pub(crate) fn shape(&self, name: &str) -> Option<Vec<usize>> {
        match &self.held {
            Held::Mapped(file) => Some(file.get(name).ok()?.shape().to_vec()),
            Held::Read(file) => Some(file.get(name).ok()?.shape().to_vec()),
            Held::Glanced { metadata, .. } => Some(metadata.info(name)?.shape.clone()),
        }
    }

    /// A tensor as it is stored.
    pub(crate) fn get(&self, name: &str) -> candle_core::Result<Stored<'_>> {
        match &self.held {
            Held::Mapped(file) => Ok(file.get(name)?.into()),
            Held::Read(file) => Ok(file.get(name)?.into()),
            Held::Glanced { file, start, metadata } => {
                let missing = || candle_core::Error::Msg("it is not there".to_owned());
                let info = metadata.info(name).ok_or_else(missing)?;
                let (from, to) = info.data_offsets;
                let mut bytes = Vec::new();
                // A file with holes claims any size without taking it.
                bytes.try_reserve_exact(to - from).map_err(candle_core::Error::wrap)?;
                bytes.resize(to - from, 0);
                let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
                file.seek(SeekFrom::Start(start + from as u64))?;
                file.read_exact(&mut bytes)?;
                Ok(Stored { dtype: info.dtype, shape: info.shape.clone(), bytes: Cow::Owned(bytes) })
            }
        }
    }

    /// A tensor's bytes as they are stored.
    pub(crate) fn bytes(&self, name: &str) -> Result<Cow<'_, [u8]>> {
        Ok(self.get(name).map_err(|e| self.unreadable(name, &e))?.bytes)
    }

    /// A tensor in f32 on the host.
    ///
    /// # Errors
    /// [`Error::File`] for one that is no floating-point tensor or holds what is no number.
    pub(crate) fn read_f32(&self, name: &str) -> Result<Tensor> {
        let tensor = self.load(name)?;
        if !tensor.dtype().is_float() {
            return Err(self.error(format!("tensor {name} is {}, no fractions", tensor.dtype().as_str())));
        }
        let tensor = tensor.to_dtype(DType::F32).map_err(|e| self.unreadable(name, &e))?;
        let values: Vec<f32> = tensor.flatten_all()?.to_vec1()?;
        match values.iter().all(|value| value.is_finite()) {
            true => Ok(tensor),
            false => Err(self.error(format!("tensor {name} holds infinities or what is no number"))),
        }
    }

    /// A tensor of a single number, of whatever format.
    pub(crate) fn scalar(&self, name: &str) -> Result<f64> {
        if let Some(shape) = self.shape(name).filter(|shape| shape.iter().product::<usize>() != 1) {
            return Err(self.error(format!("tensor {name} is {shape:?}; needed: one number")));
        }
        Ok(self.load(name)?.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?[0])
    }

    fn load(&self, name: &str) -> Result<Tensor> {
        self.get(name).and_then(|stored| stored.load()).map_err(|e| self.unreadable(name, &e))
    }

    fn unreadable(&self, name: &str, error: &candle_core::Error) -> Error {
        self.error(format!("tensor {name} can't be read: {}", cause(error)))
    }
}

/// The length of what stands before the tensors, and which they are.
fn header(file: &mut File) -> io::Result<(u64, Metadata)> {
    let invalid = |reason: String| io::Error::new(io::ErrorKind::InvalidData, reason);
    let size = file.metadata()?.len();
    let mut length = [0; 8];
    file.read_exact(&mut length)?;
    let length = u64::from_le_bytes(length);
    if length > MAX_HEADER_BYTES.min(size) {
        return Err(invalid("it has no safetensors header".to_owned()));
    }
    let mut text = Vec::new();
    file.take(length).read_to_end(&mut text)?;
    let metadata: Metadata = serde_json::from_slice(&text)?;
    let start = 8 + length;
    // Saturating: a hostile header may claim more than can be counted.
    let wanted = start.saturating_add(metadata.data_len() as u64);
    if wanted != size {
        return Err(invalid(format!("it has {size} bytes where its header says {wanted}")));
    }
    Ok((start, metadata))
}

fn unreadable(path: &Path, error: &io::Error) -> Error {
    Error::File { path: path.to_owned(), reason: format!("can't be read: {error}") }
}

/// What went wrong, without the path and backtrace that candle wraps around it.
pub(crate) fn cause(error: &candle_core::Error) -> String {
    match error {
        candle_core::Error::WithPath { inner, .. }
        | candle_core::Error::WithBacktrace { inner, .. }
        | candle_core::Error::Context { inner, .. } => cause(inner),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn however_a_file_is_held_it_says_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.safetensors");
        let tensors = HashMap::from([
            ("b", Tensor::new(&[[1f32, 2.0], [3.0, f32::MAX]], &Device::Cpu).unwrap()),
            ("a", Tensor::new(7i64, &Device::Cpu).unwrap()),
        ]);
        candle_core::safetensors::save(&tensors, &path).unwrap();
        let opened = [TensorFile::map(&path), TensorFile::read(&path), TensorFile::glance(&path)];
        for file in opened.map(Result::unwrap) {
            assert_eq!((file.names(), file.len()), (vec!["a".to_owned(), "b".to_owned()], 2));
            assert_eq!((file.shape("b"), file.shape("c")), (Some(vec![2, 2]), None));
            let values = file.read_f32("b").unwrap().to_vec2::<f32>().unwrap();
            assert_eq!(values, [[1.0, 2.0], [3.0, f32::MAX]]);
            assert_eq!(file.bytes("a").unwrap().as_ref(), 7i64.to_le_bytes());
            assert_eq!(file.scalar("a").unwrap(), 7.0);
            assert!(file.scalar("b").unwrap_err().to_string().contains("[2, 2]; needed: one number"));
            for error in [file.scalar("c").unwrap_err(), file.read_f32("c").unwrap_err()] {
                assert!(error.to_string().contains("tensor c can't be read: "), "{error}");
            }
        }
    }

    #[test]
    fn a_glance_refuses_what_is_cut_short_or_no_such_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.safetensors");
        let tensors = HashMap::from([("a", Tensor::zeros(8, DType::F32, &Device::Cpu).unwrap())]);
        candle_core::safetensors::save(&tensors, &path).unwrap();
        let whole = std::fs::read(&path).unwrap();
        // So many bytes that they can't be counted together with the header's.
        let side = (1u64 << 61) - 1;
        let huge = (0..8).map(|i| {
            let from = i * side;
            format!(
                "\"{i}\":{{\"dtype\":\"U8\",\"shape\":[{side}],\"data_offsets\":[{from},{}]}}",
                from + side
            )
        });
        let huge = format!("{{{}}}", huge.collect::<Vec<_>>().join(","));
        let huge = [&(huge.len() as u64).to_le_bytes()[..], huge.as_bytes()].concat();
        for bytes in [
            &whole[..whole.len() - 1],
            &whole[..20],
            &whole[..4],
            b"",
            b"<!doctype html><html></html>",
            &huge,
        ] {
            std::fs::write(&path, bytes).unwrap();
            let error = TensorFile::glance(&path).err().unwrap().to_string();
            assert!(error.contains("can't be read: "), "{error}");
        }
    }
}
