//! The weights of one network: memory-mapped safetensors, read by canonical name and shape.
//!
//! A network takes its tensors through a [`Weights`] view, one `sub("...")` per segment of the name. Nothing fails
//! while it does: a missing or misshapen tensor is noted and stands in as zeros, so that [`Weights::finish`] can name
//! every fault of the checkpoint at once, surplus tensors among them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::safetensors::Load;
use candle_core::{CpuStorage, DType, Device, Storage, Tensor};
use safetensors::tensor::TensorView;

use crate::lora::{self, Changes};
use crate::tensor_file::{TensorFile, cause};
use crate::{Error, Interrupt, Result};

/// Missing tensors after which no more are asked for: no checkpoint of the network has so few of its own.
const MOST_MISSING: usize = 8192;

/// A view of a network's weights below a prefix; cheap to clone.
#[derive(Clone)]
pub struct Weights {
    root: Arc<Root>,
    /// Ends in a dot unless it is empty.
    prefix: String,
    finite: bool,
}

struct Root {
    component: String,
    dtype: DType,
    device: Device,
    files: Vec<TensorFile>,
    /// Canonical name to where the tensor lies.
    entries: BTreeMap<String, Entry>,
    changes: Changes,
    interrupt: Interrupt,
    ledger: Mutex<Ledger>,
}

struct Entry {
    file: usize,
    stored_name: String,
}

/// What has been asked for so far.
#[derive(Default)]
struct Ledger {
    used: BTreeSet<String>,
    missing: BTreeSet<String>,
    misshapen: BTreeMap<String, String>,
}

impl Weights {
    /// Maps `files` (all shards of one network) into memory.
    ///
    /// `component` names the network in errors. `rename` takes a stored name to diffusers' present name. Tensors are
    /// converted to `dtype` and moved to `device` as they are read.
    ///
    /// # Errors
    ///
    /// [`Error::File`] when a file can't be read, is cut short or damaged, or when two stored tensors have the same
    /// canonical name.
    pub fn open(
        component: &str,
        files: &[PathBuf],
        rename: fn(&str) -> String,
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        let files = files.iter().map(|path| TensorFile::map(path)).collect::<Result<Vec<_>>>()?;
        let mut entries = BTreeMap::<String, Entry>::new();
        for (index, file) in files.iter().enumerate() {
            for stored_name in file.names() {
                let name = rename(&stored_name);
                if let Some(other) = entries.get(&name) {
                    let first = files[other.file].path();
                    return Err(file.error(format!(
                        "tensor {stored_name} is {name}, which is already there as {} in {}",
                        other.stored_name,
                        first.display()
                    )));
                }
                entries.insert(name, Entry { file: index, stored_name });
            }
        }
        let root = Root {
            component: component.to_owned(),
            dtype,
            device: device.clone(),
            files,
            entries,
            changes: Changes::default(),
            interrupt: Interrupt::default(),
            ledger: Mutex::default(),
        };
        Ok(Self { root: Arc::new(root), prefix: String::new(), finite: false })
    }

    /// The same weights with `changes` made to them as they are read: in f32, before the conversion.
    ///
    /// # Errors
    ///
    /// [`Error::Weights`] if another view of these weights is alive, which would go on without the changes.
    pub fn with_changes(mut self, changes: Changes) -> Result<Self> {
        self.root_mut()?.changes = changes;
        Ok(self)
    }

    /// The same weights, which `interrupt` may stop at each tensor that is read.
    ///
    /// # Errors
    ///
    /// [`Error::Weights`] if another view of these weights is alive.
    pub fn with_interrupt(mut self, interrupt: Interrupt) -> Result<Self> {
        self.root_mut()?.interrupt = interrupt;
        Ok(self)
    }

    fn root_mut(&mut self) -> Result<&mut Root> {
        let component = self.root.component.clone();
        let faults = "they are being read already".to_owned();
        Arc::get_mut(&mut self.root).ok_or(Error::Weights { component, faults })
    }

    /// The same weights, of which a tensor is refused that does not hold finite numbers in the network's format: for
    /// small files of whatever origin, whose fault would else show as a picture of nothing.
    pub fn finite(self) -> Self {
        Self { finite: true, ..self }
    }

    /// The canonical name and the stored shape of every tensor.
    pub fn shapes(&self) -> BTreeMap<String, Vec<usize>> {
        let shape = |entry: &Entry| self.root.files[entry.file].shape(&entry.stored_name);
        let entries = self.root.entries.iter();
        entries.map(|(name, entry)| (name.clone(), shape(entry).unwrap_or_default())).collect()
    }

    /// The view below `segment`: `w.sub("down_blocks").sub(0)`.
    pub fn sub(&self, segment: impl Display) -> Self {
        Self { root: self.root.clone(), prefix: format!("{}{segment}.", self.prefix), finite: self.finite }
    }

    /// The tensor `name` of exactly `shape`, in the network's number format and on its device.
    ///
    /// A missing or misshapen tensor is recorded for [`Weights::finish`] and zeros are returned. One reshape is made:
    /// a matrix (O, I) may be stored as a 1 x 1 convolution (O, I, 1, 1), as old VAEs store their attention.
    ///
    /// # Errors
    ///
    /// [`Error::File`] when the stored numbers can't be read or converted, or are not [finite](Self::finite) though asked to;
    /// [`Error::Interrupted`].
    pub fn get(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let root = &*self.root;
        root.interrupt.check()?;
        let name = format!("{}{name}", self.prefix);
        let zeros = || stand_in(shape, root.dtype, &root.device);
        let mut ledger = self.ledger();
        let Some(entry) = root.entries.get(&name) else {
            ledger.missing.insert(name);
            if ledger.missing.len() >= MOST_MISSING {
                drop(ledger);
                self.finish()?;
            }
            return zeros();
        };
        ledger.used.insert(name.clone());
        let file = &root.files[entry.file];
        let read = |e: candle_core::Error| {
            file.error(format!("tensor {} can't be read: {}", entry.stored_name, cause(&e)))
        };
        let stored = file.get(&entry.stored_name).map_err(read)?;
        if stored.shape() != shape && !is_pointwise_convolution(stored.shape(), shape) {
            ledger.misshapen.insert(name, format!("{:?}, needs {shape:?}", stored.shape()));
            return zeros();
        }
        drop(ledger);
        // Converted on the host: every device can take every format, not every device can convert between all.
        let tensor = match root.changes.of(&name) {
            [] => stored.view().and_then(|view| converted(&view, shape, root.dtype)).map_err(read)?,
            changes => {
                let stored = stored.load().and_then(|t| t.reshape(shape)).map_err(read)?;
                merged(&name, &stored, changes, root.dtype)?
            }
        };
        if self.finite && !is_finite(&tensor) {
            let (name, dtype) = (&entry.stored_name, root.dtype.as_str());
            let reason = format!("tensor {name} holds what is no number or too large for the format {dtype}");
            return Err(file.error(reason));
        }
        Ok(tensor.to_device(&root.device)?)
    }

    /// Whether the checkpoint has `name` (below this view). Asking does not count as use.
    pub fn contains(&self, name: &str) -> bool {
        self.root.entries.contains_key(&format!("{}{name}", self.prefix))
    }

    /// The stored shape of `name` (below this view), for networks whose sizes stand in no configuration. Asking does not
    /// count as use.
    pub fn shape(&self, name: &str) -> Option<Vec<usize>> {
        let entry = self.root.entries.get(&format!("{}{name}", self.prefix))?;
        self.root.files[entry.file].shape(&entry.stored_name)
    }

    /// What the checkpoint has below this view, in the order of the alphabet. Asking does not count as use.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.root.entries.keys().filter_map(|name| name.strip_prefix(self.prefix.as_str()))
    }

    /// Declares that a stored tensor `name` (below this view), if there is one, is rightly not read.
    pub fn ignore(&self, name: &str) {
        self.ledger().used.insert(format!("{}{name}", self.prefix));
    }

    /// The name of this view's module: `down_blocks.0`, empty at the root.
    pub fn path(&self) -> &str {
        self.prefix.strip_suffix('.').unwrap_or(&self.prefix)
    }

    /// The network's name, as it stands in errors.
    pub fn component(&self) -> &str {
        &self.root.component
    }

    /// The number format that tensors are read in.
    pub fn dtype(&self) -> DType {
        self.root.dtype
    }

    /// The device that tensors are read to.
    pub fn device(&self) -> &Device {
        &self.root.device
    }

    /// Checks that the checkpoint and the network fit, once the network is built.
    ///
    /// # Errors
    ///
    /// [`Error::Weights`] naming every missing, misshapen and surplus tensor of the whole checkpoint.
    pub fn finish(&self) -> Result<()> {
        let ledger = self.ledger();
        let missing: Vec<String> = ledger.missing.iter().cloned().collect();
        let misshapen: Vec<String> =
            ledger.misshapen.iter().map(|(n, shapes)| format!("{n} is {shapes}")).collect();
        let surplus: Vec<String> =
            self.root.entries.keys().filter(|name| !ledger.used.contains(*name)).cloned().collect();
        let unmade: Vec<String> = self
            .root
            .changes
            .names()
            .filter(|name| !ledger.used.contains(*name))
            .map(str::to_owned)
            .collect();
        let kinds = [
            ("missing", missing),
            ("wrong shape", misshapen),
            ("surplus", surplus),
            ("changed but not read", unmade),
        ];
        let faults: Vec<String> = kinds
            .into_iter()
            .filter(|(_, names)| !names.is_empty())
            .map(|(kind, names)| format!("{kind}: {}", names.join(", ")))
            .collect();
        if faults.is_empty() {
            return Ok(());
        }
        Err(Error::Weights { component: self.root.component.clone(), faults: faults.join("; ") })
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        // A ledger is whole after every insertion, so a panic elsewhere can't have left it half written.
        self.root.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Zeros; a large tensor is one of them, however large the shape that is asked for.
fn stand_in(shape: &[usize], dtype: DType, device: &Device) -> Result<Tensor> {
    const SMALL: usize = 1 << 14;
    let numbers = shape.iter().fold(1, |numbers: usize, side| numbers.saturating_mul(*side));
    if numbers <= SMALL {
        return Ok(Tensor::zeros(shape, dtype, device)?);
    }
    Ok(Tensor::zeros((), dtype, device)?.broadcast_as(shape)?)
}

/// The numbers of a stored tensor in the format `dtype`, on the host.
fn converted(view: &TensorView<'_>, shape: &[usize], dtype: DType) -> candle_core::Result<Tensor> {
    let is_plain = |format: &DType| matches!(format, DType::F32 | DType::F16 | DType::BF16);
    if let Ok(from) = DType::try_from(view.dtype())
        && [from, dtype].iter().all(is_plain)
    {
        return infill_kernels::convert(view.data(), from, shape, dtype);
    }
    view.load(&Device::Cpu)?.reshape(shape)?.to_dtype(dtype)
}

/// `stored` (on the host) with all changes made to it, computed in f32, in the format `dtype`.
fn merged(name: &str, stored: &Tensor, changes: &[lora::Change], dtype: DType) -> Result<Tensor> {
    let too_large = |change: &lora::Change| {
        let message = format!("makes {name} too large for the format {}", dtype.as_str());
        change.file().error(message)
    };
    // What is stored in another format is brought to f32 first.
    let stored = match stored.dtype() {
        DType::F32 | DType::F16 | DType::BF16 => stored.clone(),
        _ => stored.to_dtype(DType::F32)?,
    };
    // Mostly there is one plain change: it is added and converted in one pass.
    if let [change] = changes
        && let Some(delta) = change.plain_delta(stored.shape())?
    {
        return infill_kernels::add_delta(&stored, &delta, dtype)?.ok_or_else(|| too_large(change));
    }
    let base = stored.to_dtype(DType::F32)?;
    let mut current = base.clone();
    let mut converted = None;
    for change in changes {
        current = change.apply(&base, &current)?;
        converted = infill_kernels::add_delta(&current, &current.zeros_like()?, dtype)?;
        if converted.is_none() {
            return Err(too_large(change));
        }
    }
    converted.map_or_else(|| Ok(base.to_dtype(dtype)?), Ok)
}

/// Whether a tensor on the host holds neither infinities nor what is no number.
fn is_finite(tensor: &Tensor) -> bool {
    match &*tensor.storage_and_layout().0 {
        Storage::Cpu(CpuStorage::F16(values)) => values.iter().all(|value| value.is_finite()),
        Storage::Cpu(CpuStorage::BF16(values)) => values.iter().all(|value| value.is_finite()),
        Storage::Cpu(CpuStorage::F32(values)) => values.iter().all(|value| value.is_finite()),
        Storage::Cpu(CpuStorage::F64(values)) => values.iter().all(|value| value.is_finite()),
        _ => true, // Whole numbers.
    }
}

fn is_pointwise_convolution(stored: &[usize], wanted: &[usize]) -> bool {
    matches!((stored, wanted), ([o, i, 1, 1], [wanted_o, wanted_i]) if o == wanted_o && i == wanted_i)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use std::path::Path;

    use super::*;
    use std::collections::HashMap;

    fn write(dir: &Path, name: &str, tensors: &[(&str, Tensor)]) -> PathBuf {
        let path = dir.join(name);
        let tensors: HashMap<&str, Tensor> = tensors.iter().cloned().collect();
        candle_core::safetensors::save(&tensors, &path).unwrap();
        path
    }

    fn ones(shape: &[usize], dtype: DType) -> Tensor {
        Tensor::ones(shape, dtype, &Device::Cpu).unwrap()
    }

    fn open(files: &[PathBuf], rename: fn(&str) -> String) -> Result<Weights> {
        Weights::open("unet", files, rename, DType::F32, &Device::Cpu)
    }

    #[test]
    fn a_network_of_endless_missing_tensors_is_given_up() {
        let dir = tempfile::tempdir().unwrap();
        let file = write(dir.path(), "a.safetensors", &[("a", ones(&[1], DType::F32))]);
        let weights = open(&[file], str::to_owned).unwrap();
        let large = weights.get("large", &[1 << 20, 1 << 20]).unwrap();
        assert_eq!(large.dims(), [1 << 20, 1 << 20]);
        let found = (0..2 * MOST_MISSING).find_map(|n| weights.get(&n.to_string(), &[1]).err());
        assert!(found.unwrap().to_string().contains("missing: "));
    }

    #[test]
    fn shards_renames_and_formats() {
        let dir = tempfile::tempdir().unwrap();
        let files = [
            write(dir.path(), "1.safetensors", &[("mid.query.weight", ones(&[2, 3], DType::F16))]),
            write(dir.path(), "2.safetensors", &[("mid.norm.bias", ones(&[4], DType::BF16))]),
        ];
        let w = open(&files, |name| name.replace(".query.", ".to_q.")).unwrap();
        let mid = w.sub("mid");
        assert_eq!(mid.names().collect::<Vec<_>>(), ["norm.bias", "to_q.weight"]);
        let q = mid.sub("to_q").get("weight", &[2, 3]).unwrap();
        assert_eq!((q.dtype(), q.to_vec2::<f32>().unwrap()), (DType::F32, vec![vec![1.0; 3]; 2]));
        assert!(w.finish().unwrap_err().to_string().contains("surplus: mid.norm.bias"));
        assert_eq!(mid.sub("norm").get("bias", &[4]).unwrap().to_vec1::<f32>().unwrap(), [1.0; 4]);
        w.finish().unwrap();
    }

    #[test]
    fn every_fault_is_named_in_one_error() {
        let dir = tempfile::tempdir().unwrap();
        let tensors = [
            ("a.weight", ones(&[2, 3], DType::F32)),
            ("left", ones(&[1], DType::F32)),
            ("over", ones(&[1], DType::F32)),
            ("known.ids", ones(&[1], DType::I64)),
        ];
        let w = open(&[write(dir.path(), "w.safetensors", &tensors)], str::to_owned).unwrap();
        w.sub("known").ignore("ids");
        assert_eq!(w.sub("a").get("weight", &[3, 2]).unwrap().dims(), [3, 2]);
        w.sub("b").sub(0).get("weight", &[5]).unwrap();
        w.sub("b").sub(1).get("bias", &[5]).unwrap();
        assert_eq!(
            w.finish().unwrap_err().to_string(),
            "unet: the weights do not fit: missing: b.0.weight, b.1.bias; \
             wrong shape: a.weight is [2, 3], needs [3, 2]; surplus: left, over"
        );
    }

    #[test]
    fn a_pointwise_convolution_is_read_as_a_matrix() {
        let dir = tempfile::tempdir().unwrap();
        let file = write(dir.path(), "w.safetensors", &[("q", ones(&[4, 2, 1, 1], DType::F32))]);
        let w = open(&[file], str::to_owned).unwrap();
        assert_eq!((w.shape("q"), w.shape("k")), (Some(vec![4, 2, 1, 1]), None));
        assert_eq!(w.get("q", &[4, 2]).unwrap().dims(), [4, 2]);
        w.finish().unwrap();
        w.get("q", &[2, 4]).unwrap();
        assert!(w.finish().unwrap_err().to_string().contains("q is [4, 2, 1, 1], needs [2, 4]"));
    }

    #[test]
    fn a_damaged_file_is_named_with_its_reason() {
        let dir = tempfile::tempdir().unwrap();
        let path = write(dir.path(), "w.safetensors", &[("q", ones(&[64], DType::F32))]);
        let whole = std::fs::read(&path).unwrap();
        for length in [0, 4, 40, whole.len() - 1] {
            std::fs::write(&path, &whole[..length]).unwrap();
            match open(std::slice::from_ref(&path), str::to_owned).map(|_| ()) {
                Err(Error::File { path: named, reason }) => {
                    assert_eq!(named, path);
                    assert!(reason.starts_with("can't be read as safetensors: "), "{reason}");
                    assert!(!reason.contains("w.safetensors"), "{reason}");
                }
                other => panic!("{length} bytes: {other:?}"),
            }
        }
        assert!(matches!(open(&[dir.path().join("none")], str::to_owned), Err(Error::File { .. })));
    }

    #[test]
    fn what_is_no_number_in_the_format_is_named_where_asked() {
        let dir = tempfile::tempdir().unwrap();
        for (value, half, bfloat, single) in
            [(6e4, true, true, true), (-1e6, false, true, true), (f32::NAN, false, false, false)]
        {
            let values = Tensor::new(&[0.0, value], &Device::Cpu).unwrap();
            let files = [write(dir.path(), "w.safetensors", &[("a.q", values)])];
            for (dtype, fits) in [(DType::F16, half), (DType::BF16, bfloat), (DType::F32, single)] {
                let w = Weights::open("adapter", &files, str::to_owned, dtype, &Device::Cpu).unwrap();
                w.sub("a").get("q", &[2]).unwrap();
                match w.finite().sub("a").get("q", &[2]) {
                    Ok(_) => assert!(fits, "{value} in {dtype:?}"),
                    Err(error) => {
                        let error = error.to_string();
                        assert!(!fits, "{value} in {dtype:?}: {error}");
                        assert!(error.contains("w.safetensors") && error.contains("tensor a.q"), "{error}");
                        assert!(error.contains(dtype.as_str()), "{error}");
                    }
                }
            }
        }
    }

    #[test]
    fn two_tensors_of_one_name_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let tensors = [("query", ones(&[1], DType::F32)), ("to_q", ones(&[1], DType::F32))];
        let file = write(dir.path(), "w.safetensors", &tensors);
        let Err(error) = open(&[file], |_| "to_q".to_owned()) else { panic!("accepted") };
        assert!(error.to_string().contains("already there"), "{error}");
    }
}
