//! Fetching a known model from the Hugging Face hub: the only network code of the workspace.
//!
//! Files land in the hub's own cache (`HF_HOME`, `HF_HUB_CACHE`), where [`crate::catalogue::locate`] and every other
//! program that uses the hub find them. Each is compared with the size and, for large files, the SHA-256 that the hub
//! lists for the manifest's commit.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use hf_hub::HFClientSync;
use hf_hub::progress::{DownloadEvent, ProgressEvent, ProgressHandler};
use hf_hub::repository::RepoTreeEntry;

use crate::catalogue::{self, Manifest};
use crate::weight_files::{Layout, Library, Variant};
use crate::{Checkpoint, Error, Result, digest, parse_shard_index};

/// How far a download is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PullProgress {
    /// Bytes of the files that were not there yet.
    Downloading {
        /// So far.
        done: u64,
        /// Of so many.
        total: u64,
    },
    /// A file is compared with what the hub lists.
    Verifying {
        /// Its path in the repository.
        file: String,
    },
}

/// What the hub lists for one file.
struct Listed {
    size: u64,
    sha256: Option<String>,
}

/// Fetches a known model, preferring the weight files of one variant, and returns its folder. What is already in the
/// cache is not fetched again, but is compared.
///
/// `progress` is called from another thread.
///
/// # Errors
/// [`Error::NotFound`] for an unknown id; [`Error::Hub`] when the hub can't be reached or lacks a file;
/// [`Error::File`] when a file is not what the hub lists.
pub fn pull(
    id: &str,
    variant: Variant,
    progress: impl Fn(PullProgress) + Send + Sync + 'static,
) -> Result<PathBuf> {
    let manifest = catalogue::to_fetch(id)?;
    let failed = |e: hf_hub::HFError| hub_error(&manifest, e.to_string());
    let Some((repository, revision)) = manifest.hub() else {
        return Err(hub_error(&manifest, "it lies on no hub".into()));
    };
    let (owner, name) = repository
        .split_once('/')
        .ok_or_else(|| hub_error(&manifest, "its name is not owner/name".into()))?;
    let repository = HFClientSync::new().map_err(failed)?.model(owner, name);
    let entries = repository.list_tree().revision(revision).recursive(true).send().map_err(failed)?;
    let listing: BTreeMap<String, Listed> = entries.into_iter().filter_map(listed).collect();

    let read_index = |index: &str| {
        let path = repository.download_file().filename(index).revision(revision).send().map_err(failed)?;
        let bytes = crate::json::read_bytes(&path, crate::json::MAX_INDEX_BYTES)?;
        parse_shard_index(&bytes).map_err(|reason| Error::file(&path, reason))
    };
    let files = choose(&manifest, variant, &listing.keys().map(String::as_str).collect(), read_index)?;

    let progress = Arc::new(progress);
    let watcher = Watcher { report: progress.clone(), state: Mutex::default() };
    let folder = repository
        .snapshot_download()
        .revision(revision)
        .allow_patterns(files.iter().cloned().collect())
        .progress(watcher)
        .send()
        .map_err(failed)?;
    for file in &files {
        progress(PullProgress::Verifying { file: file.clone() });
        verify(&folder.join(file), &listing[file])?;
    }
    Checkpoint::open_variant(&folder, variant)?;
    Ok(folder)
}

fn hub_error(manifest: &Manifest, reason: String) -> Error {
    Error::Hub { repository: manifest.repository.clone().unwrap_or_else(|| manifest.id.clone()), reason }
}

fn listed(entry: RepoTreeEntry) -> Option<(String, Listed)> {
    match entry {
        RepoTreeEntry::File { path, size, lfs, .. } => {
            Some((path, Listed { size, sha256: lfs.and_then(|lfs| lfs.sha256) }))
        }
        RepoTreeEntry::Directory { .. } => None,
    }
}

/// The files of a repository that a model is run from: small ones of each component, and its weights in one variant.
fn choose(
    manifest: &Manifest,
    variant: Variant,
    there: &BTreeSet<&str>,
    read_index: impl Fn(&str) -> Result<BTreeSet<String>>,
) -> Result<BTreeSet<String>> {
    let mut files = BTreeSet::from(["model_index.json".to_owned()]);
    for component in &manifest.components {
        let in_component = |name: &str| format!("{component}/{name}");
        let library = match component.as_str() {
            "unet" | "vae" => Some(Library::Diffusers),
            "text_encoder" | "text_encoder_2" => Some(Library::Transformers),
            _ => None,
        };
        let Some(library) = library else {
            let folder = in_component("");
            let small = |path: &&&str| {
                path.starts_with(&folder) && (path.ends_with(".json") || path.ends_with(".txt"))
            };
            files.extend(there.iter().filter(small).map(|path| (*path).to_owned()));
            continue;
        };
        files.insert(in_component("config.json"));
        match library.choose(variant, |name| there.contains(in_component(name).as_str())) {
            Some(Layout::Single(name)) => {
                files.insert(in_component(&name));
            }
            Some(Layout::Sharded(name)) => {
                let index = in_component(&name);
                files.extend(read_index(&index)?.iter().map(|shard| in_component(shard)));
                files.insert(index);
            }
            None => return Err(hub_error(manifest, format!("it has no safetensors weights in {component}"))),
        }
    }
    match files.iter().find(|file| !there.contains(file.as_str())) {
        Some(missing) => Err(hub_error(
            manifest,
            format!("it has no {missing} at {}", manifest.revision.as_deref().unwrap_or("any commit")),
        )),
        None => Ok(files),
    }
}

/// Compares a fetched file with what the hub lists.
fn verify(path: &Path, listed: &Listed) -> Result<()> {
    let again = "delete it and fetch the model again";
    let size = path.metadata().map_err(|e| Error::file(path, format!("can't be read: {e}")))?.len();
    if size != listed.size {
        return Err(Error::file(
            path,
            format!("has {size} bytes where the hub lists {}; {again}", listed.size),
        ));
    }
    if let Some(expected) = &listed.sha256 {
        let hash = digest::hash_file(path)?;
        if !hash.eq_ignore_ascii_case(expected) {
            return Err(Error::file(
                path,
                format!("has SHA-256 {hash} where the hub lists {expected}; {again}"),
            ));
        }
    }
    Ok(())
}

/// Sums up the client's events. It reports some files one by one and others only as one sum, so the greater of the two
/// sums is shown: it may lag, and never runs ahead.
struct Watcher<F> {
    report: Arc<F>,
    state: Mutex<Sums>,
}

#[derive(Default)]
struct Sums {
    total: u64,
    files: BTreeMap<String, u64>,
    batch: u64,
}

impl<F: Fn(PullProgress) + Send + Sync> ProgressHandler for Watcher<F> {
    fn on_progress(&self, event: &ProgressEvent) {
        let ProgressEvent::Download(event) = event else { return };
        let mut sums = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            DownloadEvent::Start { total_bytes, .. } => sums.total = *total_bytes,
            DownloadEvent::Progress { files } => {
                for file in files {
                    sums.files.insert(file.filename.clone(), file.bytes_completed);
                }
            }
            DownloadEvent::AggregateProgress { bytes_completed, .. } => sums.batch = *bytes_completed,
            DownloadEvent::Complete => sums.batch = sums.total,
        }
        let done = sums.files.values().sum::<u64>().max(sums.batch).min(sums.total);
        let total = sums.total;
        drop(sums);
        (self.report)(PullProgress::Downloading { done, total });
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn one_variant_of_each_network_is_chosen() {
        let manifest = catalogue::manifest("sd15").unwrap().unwrap();
        let mut there = BTreeSet::from([
            "README.md",
            "model_index.json",
            "v1-5-pruned.safetensors",
            "scheduler/scheduler_config.json",
            "tokenizer/vocab.json",
            "tokenizer/merges.txt",
            "tokenizer/tokenizer_config.json",
            "safety_checker/model.safetensors",
            "unet/config.json",
            "unet/diffusion_pytorch_model.bin",
            "unet/diffusion_pytorch_model.safetensors",
            "unet/diffusion_pytorch_model.fp16.safetensors",
            "vae/config.json",
            "vae/diffusion_pytorch_model.fp16.safetensors",
            "text_encoder/config.json",
            "text_encoder/model.safetensors.index.json",
            "text_encoder/model-00001-of-00001.safetensors",
        ]);
        let read_index = |index: &str| {
            assert_eq!(index, "text_encoder/model.safetensors.index.json");
            Ok(BTreeSet::from(["model-00001-of-00001.safetensors".to_owned()]))
        };
        let files = choose(&manifest, Variant::Default, &there, read_index).unwrap();
        let weights: Vec<&String> = files.iter().filter(|file| file.ends_with(".safetensors")).collect();
        assert_eq!(
            weights,
            [
                "text_encoder/model-00001-of-00001.safetensors",
                "unet/diffusion_pytorch_model.safetensors",
                "vae/diffusion_pytorch_model.fp16.safetensors",
            ]
        );
        assert!(files.contains("tokenizer/merges.txt") && !files.contains("README.md"));
        there.remove("vae/diffusion_pytorch_model.fp16.safetensors");
        let error = choose(&manifest, Variant::Default, &there, read_index).unwrap_err().to_string();
        assert!(error.contains("no safetensors weights in vae"), "{error}");
    }

    #[test]
    fn a_file_that_is_not_what_the_hub_lists_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("abc");
        std::fs::write(&path, "abc").unwrap();
        let sha256 = Some("BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD".to_owned());
        verify(&path, &Listed { size: 3, sha256 }).unwrap();
        let wrong = |size, sha256: Option<&str>| {
            verify(&path, &Listed { size, sha256: sha256.map(str::to_owned) }).unwrap_err().to_string()
        };
        assert!(wrong(4, None).contains("has 3 bytes where the hub lists 4"));
        assert!(wrong(3, Some("00")).contains("where the hub lists 00"));
    }
}
