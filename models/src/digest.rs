//! A checkpoint's identity: one hash over everything that decides on its pictures.
//!
//! A recipe that names a model must notice when the model is another one, so the digest is over contents in full: no
//! sample of a weight file could see that a single number was changed by fine tuning or by damage. Reading 7 GB takes
//! seconds, which is why the hash of each large file is remembered in a small file of the user's cache folder, under
//! the file's full path, size and time of last change. A file changed without a change of size or time keeps its old
//! hash there; deleting the cache cures it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use sha2::{Digest, Sha256};

use crate::json::{self, MAX_INDEX_BYTES};
use crate::{Checkpoint, Component, Error, Result, places, whole_file};

/// From this size on a file's hash is worth remembering.
const REMEMBERED_FROM: u64 = 16 << 20;

/// More remembered hashes than this are forgotten together: the cache must not grow without end.
const MAX_REMEMBERED: usize = 1000;

impl Checkpoint {
    /// SHA-256 over the model's contents, as 64 hexadecimal digits: configurations, tokenizers and all weights.
    ///
    /// It does not depend on where the folder lies or how its files are named, but does on which variant was opened.
    /// Hashes of large files are remembered in the user's cache folder, see [the module](self).
    ///
    /// # Errors
    /// [`Error::File`] when a file of the checkpoint can't be read.
    pub fn digest(&self) -> Result<String> {
        self.digest_with_cache(places::cache_dir().map(|dir| dir.join("digests.json")).as_deref())
    }

    /// As [`Checkpoint::digest`], with hashes remembered in `cache`, or nowhere.
    ///
    /// # Errors
    /// [`Error::File`] when a file of the checkpoint can't be read. A cache that can't be read or written is no error.
    pub fn digest_with_cache(&self, cache: Option<&Path>) -> Result<String> {
        let mut memory = Memory::open(cache);
        let mut total = Sha256::new();
        for (role, path) in self.contents()? {
            total.update(format!("{role} {}\n", memory.hash(&path)?));
        }
        memory.save();
        Ok(hex(&total.finalize()))
    }

    /// Every file that decides on a picture, under a name that does not depend on how it was stored.
    fn contents(&self) -> Result<Vec<(String, PathBuf)>> {
        let mut files = vec![
            ("model_index".to_owned(), self.dir().join("model_index.json")),
            ("scheduler".to_owned(), self.dir().join("scheduler/scheduler_config.json")),
        ];
        for (name, component) in self.components() {
            files.push((format!("{name} config"), component.config_path.clone()));
            let weights = component.weight_files.iter().enumerate();
            files.extend(weights.map(|(i, path)| (format!("{name} weights {i}"), path.clone())));
        }
        for name in ["tokenizer", "tokenizer_2"] {
            let Ok(folder) = self.folder(name) else { continue };
            for file in [
                "vocab.json",
                "merges.txt",
                "tokenizer.json",
                "tokenizer_config.json",
                "special_tokens_map.json",
                "added_tokens.json",
            ] {
                let path = folder.join(file);
                if path.is_file() {
                    files.push((format!("{name} {file}"), path));
                }
            }
        }
        Ok(files)
    }
}

/// The remembered hashes.
struct Memory<'a> {
    file: Option<&'a Path>,
    known: BTreeMap<String, String>,
    changed: bool,
}

impl<'a> Memory<'a> {
    fn open(file: Option<&'a Path>) -> Self {
        let known = file
            .and_then(|file| json::read_bytes(file, MAX_INDEX_BYTES).ok())
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default();
        Self { file, known, changed: false }
    }

    fn hash(&mut self, path: &Path) -> Result<String> {
        let unreadable = |e: std::io::Error| Error::file(path, format!("can't be read: {e}"));
        let about = path.metadata().map_err(unreadable)?;
        let changed = about.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let (true, Some(changed), Ok(full)) = (about.len() >= REMEMBERED_FROM, changed, path.canonicalize())
        else {
            return hash_file(path);
        };
        let key = format!("{} {} {}", about.len(), changed.as_nanos(), full.display());
        if let Some(hash) = self.known.get(&key) {
            return Ok(hash.clone());
        }
        let hash = hash_file(path)?;
        if self.known.len() >= MAX_REMEMBERED {
            self.known.clear();
        }
        self.known.insert(key, hash.clone());
        self.changed = true;
        Ok(hash)
    }

    /// Writes what was learnt, whole or not at all. A full disk costs time on the next run and nothing else.
    fn save(&self) {
        let (true, Some(file)) = (self.changed, self.file) else { return };
        let Ok(text) = serde_json::to_vec(&self.known) else { return };
        let Some(folder) = file.parent() else { return };
        std::fs::create_dir_all(folder).and_then(|()| whole_file::write(file, &text, folder)).ok();
    }
}

/// SHA-256 over the configuration and weights of one network, as 64 hexadecimal digits; hashes of large files are
/// remembered in the user's cache folder.
pub(crate) fn of_component(component: &Component) -> Result<String> {
    let cache = places::cache_dir().map(|dir| dir.join("digests.json"));
    let mut memory = Memory::open(cache.as_deref());
    let mut total = Sha256::new();
    for path in std::iter::once(&component.config_path).chain(&component.weight_files) {
        total.update(format!("{}\n", memory.hash(path)?));
    }
    memory.save();
    Ok(hex(&total.finalize()))
}

/// SHA-256 of a whole file, as 64 hexadecimal digits, remembered in `cache` where it is large.
pub(crate) fn of_file(path: &Path, cache: Option<&Path>) -> Result<String> {
    let mut memory = Memory::open(cache);
    let hash = memory.hash(path)?;
    memory.save();
    Ok(hash)
}

/// SHA-256 of a whole file, as 64 hexadecimal digits.
pub(crate) fn hash_file(path: &Path) -> Result<String> {
    let unreadable = |e: std::io::Error| Error::file(path, format!("can't be read: {e}"));
    let mut file = File::open(path).map_err(unreadable)?;
    let mut hash = Sha256::new();
    let mut block = vec![0; 1 << 20];
    loop {
        match file.read(&mut block).map_err(unreadable)? {
            0 => return Ok(hex(&hash.finalize())),
            n => hash.update(&block[..n]),
        }
    }
}

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a string can't fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn known_hash() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("abc");
        std::fs::write(&path, "abc").unwrap();
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hash_file(&path).unwrap(), expected);
    }

    #[test]
    fn large_files_are_remembered_until_they_change() {
        let dir = tempfile::tempdir().unwrap();
        let (cache, path) = (dir.path().join("deep/digests.json"), dir.path().join("weights"));
        let mut bytes = vec![1; usize::try_from(REMEMBERED_FROM).unwrap()];
        std::fs::write(&path, &bytes).unwrap();
        let hash = || {
            let mut memory = Memory::open(Some(&cache));
            let hash = memory.hash(&path).unwrap();
            let learnt = memory.changed;
            memory.save();
            (hash, learnt)
        };
        let (first, learnt) = hash();
        assert!(learnt && cache.is_file());
        assert_eq!(hash(), (first.clone(), false));
        bytes.push(0);
        std::fs::write(&path, &bytes).unwrap();
        let (second, learnt) = hash();
        assert!(learnt && second != first);
        std::fs::write(&cache, "damaged").unwrap();
        assert_eq!(hash(), (second, true));
    }
}
