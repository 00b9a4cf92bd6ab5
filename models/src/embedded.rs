//! The model that is part of the program: its files, and the folder that they are opened from.
//!
//! The folder `infill-mini/` beside this crate's `src/` is built in, file by file, as its `SHA256SUMS` lists them; without
//! that list, while the model is in training, nothing is. A checkpoint is opened from files, since weights are mapped into
//! memory; so the files are written once to the user's cache folder and compared with their hashes once in every process.
//! No network is involved.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::whole_file::{self, PASSING};
use crate::{Error, Result, digest, places};

/// The embedded model's id.
pub const ID: &str = "infill-mini";

/// A file under a passing name that is this old is nobody's any more.
const LEFTOVER: Duration = Duration::from_secs(60 * 60);

/// A file of the embedded model.
#[derive(Debug, Clone, Copy)]
pub struct EmbeddedFile {
    /// Where it lies in the model's folder, with forward slashes.
    pub path: &'static str,
    /// SHA-256 of its contents, as 64 hexadecimal digits.
    pub sha256: &'static str,
    /// Its contents.
    pub bytes: &'static [u8],
}

/// Every file of the embedded model; none in a build without it.
pub const FILES: &[EmbeddedFile] = include!(concat!(env!("OUT_DIR"), "/embedded_files.rs"));

/// Whether this build has the model.
pub fn is_there() -> bool {
    !FILES.is_empty()
}

/// The contents of one file.
pub fn file(path: &str) -> Option<&'static [u8]> {
    FILES.iter().find(|file| file.path == path).map(|file| file.bytes)
}

/// The names of the safetensors files in one folder of the model: its adapters, its concepts.
pub fn brings(folder: &str) -> impl Iterator<Item = &'static str> {
    FILES.iter().filter_map(move |file| {
        let name = file.path.strip_prefix(folder)?.strip_prefix('/')?;
        name.strip_suffix(".safetensors")
    })
}

/// The model's folder, complete and equal to what is built in.
///
/// It is `infill/embedded/<id>-<digest>` in the user's cache folder, or in a private folder for passing files where that
/// can't be written. What is missing or different there is written anew, each file under a passing name first, so that
/// any number of processes may do this at once; what does not belong there is removed.
///
/// # Errors
/// [`Error::NotFound`] in a build without the model; [`Error::File`] naming the folders that can't be written.
pub fn unpack() -> Result<PathBuf> {
    static DONE: Mutex<Option<PathBuf>> = Mutex::new(None);
    if FILES.is_empty() {
        let reason = "this build has no model of its own".to_owned();
        return Err(Error::NotFound { what: "model", id: ID.to_owned(), reason });
    }
    let mut done = DONE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(folder) = done.as_ref().filter(|folder| folder.join("model_index.json").is_file()) {
        return Ok(folder.clone());
    }
    let folder = unpack_files(FILES, places::cache_dir().as_deref(), &std::env::temp_dir())?;
    *done = Some(folder.clone());
    Ok(folder)
}

fn unpack_files(files: &[EmbeddedFile], cache: Option<&Path>, passing: &Path) -> Result<PathBuf> {
    let name = folder_name(files);
    let mut why = "there is no cache folder".to_owned();
    if let Some(cache) = cache {
        let parent = cache.join("embedded");
        match complete(files, &parent, &name) {
            Ok(folder) => return Ok(folder),
            Err(error) => why = format!("{} can't be used: {error}", parent.display()),
        }
    }
    private_folder(passing).and_then(|parent| complete(files, &parent, &name)).map_err(|error| {
        let reason = format!(
            "can't hold the built-in model {ID} either: {error}; {why}; XDG_CACHE_HOME names another"
        );
        Error::file(passing, reason)
    })
}

/// The id and a digest of all paths and contents, so that builds with different models do not meet.
fn folder_name(files: &[EmbeddedFile]) -> String {
    let mut hash = Sha256::new();
    for file in files {
        hash.update(format!("{}  {}\n", file.sha256, file.path));
    }
    let digest = digest::hex(&hash.finalize());
    format!("{ID}-{}", &digest[..16])
}

/// Makes `parent/name` hold exactly `files`.
fn complete(files: &[EmbeddedFile], parent: &Path, name: &str) -> io::Result<PathBuf> {
    let folder = parent.join(name);
    remove_leftovers(parent);
    for file in files {
        let path = folder.join(file.path);
        if !is_right(file, &path) {
            fs::create_dir_all(path.parent().unwrap_or(&folder))?;
            whole_file::write(&path, file.bytes, parent)?;
        }
    }
    let known: BTreeSet<PathBuf> = files.iter().map(|file| folder.join(file.path)).collect();
    remove_others(&folder, &known)?;
    Ok(folder)
}

/// Whether the file is there, as it should be. What can't be read is not.
fn is_right(file: &EmbeddedFile, path: &Path) -> bool {
    let size = path.symlink_metadata().ok().filter(fs::Metadata::is_file).map(|about| about.len());
    size == Some(file.bytes.len() as u64) && digest::hash_file(path).is_ok_and(|hash| hash == file.sha256)
}

/// Removes what processes have left half written that were killed at it. What can't be removed does no harm.
fn remove_leftovers(parent: &Path) {
    let is_old = |about: &fs::Metadata| {
        about.is_file() && about.modified().is_ok_and(|time| time.elapsed().is_ok_and(|age| age > LEFTOVER))
    };
    for path in parent.read_dir().into_iter().flatten().flatten().map(|entry| entry.path()) {
        let is_part = path.extension().is_some_and(|extension| extension == PASSING);
        if is_part && path.symlink_metadata().is_ok_and(|about| is_old(&about)) {
            let _ = fs::remove_file(&path);
        }
    }
}

/// A checkpoint's folder is looked through by name: a file too many could be opened in place of the right one.
fn remove_others(folder: &Path, known: &BTreeSet<PathBuf>) -> io::Result<()> {
    for entry in folder.read_dir()? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            remove_others(&path, known)?;
        } else if !known.contains(&path) {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

/// A folder of this user alone within `passing`, which others can write to.
#[cfg(unix)]
fn private_folder(passing: &Path) -> io::Result<PathBuf> {
    use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};

    // Who this user is, as the file system sees it.
    let probe = passing.join(format!(".infill-{}.probe", std::process::id()));
    // A process of the same number may have been killed here.
    let created = match fs::File::create_new(&probe) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_file(&probe).and_then(|()| fs::File::create_new(&probe))
        }
        created => created,
    };
    let user = created.and_then(|file| file.metadata()).map(|about| about.uid());
    let removed = fs::remove_file(&probe);
    let user = user?;
    removed?;
    let folder = passing.join(format!("infill-{user}"));
    match fs::DirBuilder::new().mode(0o700).create(&folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let about = folder.symlink_metadata()?;
    if about.is_dir() && about.uid() == user && about.permissions().mode() & 0o077 == 0 {
        Ok(folder)
    } else {
        Err(io::Error::other(format!("{} is open to others", folder.display())))
    }
}

/// The folder for passing files is the user's own already.
#[cfg(not(unix))]
fn private_folder(passing: &Path) -> io::Result<PathBuf> {
    let folder = passing.join("infill");
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn small() -> [EmbeddedFile; 2] {
        let file = |path, bytes: &'static [u8]| EmbeddedFile {
            path,
            sha256: Box::leak(digest::hex(&Sha256::digest(bytes)).into_boxed_str()),
            bytes,
        };
        [file("model_index.json", b"{}"), file("unet/weights.safetensors", b"weights")]
    }

    /// Every file below `folder`, by its path from there.
    fn listing(folder: &Path) -> Vec<String> {
        fn walk(folder: &Path, from: &Path, found: &mut Vec<String>) {
            for entry in from.read_dir().unwrap() {
                let entry = entry.unwrap();
                let path = entry.path();
                if entry.file_type().unwrap().is_dir() {
                    walk(folder, &path, found);
                } else {
                    found.push(path.strip_prefix(folder).unwrap().to_str().unwrap().replace('\\', "/"));
                }
            }
        }
        let mut found = Vec::new();
        walk(folder, folder, &mut found);
        found.sort();
        found
    }

    #[test]
    fn the_table_is_the_folder() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("infill-mini");
        if FILES.is_empty() {
            // Weights that are not good enough yet lie there unsealed and are not built in.
            assert!(!folder.join("SHA256SUMS").exists(), "the table is empty");
            return;
        }
        let ours = |path: &String| {
            !path.starts_with("train/") && !["README.md", "SHA256SUMS"].contains(&path.as_str())
        };
        let there: Vec<String> = listing(&folder).into_iter().filter(ours).collect();
        assert_eq!(
            there,
            FILES.iter().map(|file| file.path.to_owned()).collect::<Vec<_>>(),
            "scripts/seal-model"
        );
        for file in FILES {
            assert_eq!(
                digest::hex(&Sha256::digest(file.bytes)),
                file.sha256,
                "{}: scripts/seal-model",
                file.path
            );
            assert!(is_right(file, &folder.join(file.path)), "{}", file.path);
        }
    }

    #[test]
    fn the_embedded_model_opens() {
        if FILES.is_empty() {
            assert!(unpack().unwrap_err().to_string().contains("no model of its own"));
            return;
        }
        let cache = tempfile::tempdir().unwrap();
        let folder = unpack_files(FILES, Some(cache.path()), Path::new("nowhere")).unwrap();
        let checkpoint = crate::Checkpoint::open(&folder).unwrap();
        assert!(checkpoint.is_inpaint());
        let manifest = crate::catalogue::manifest(ID).unwrap().unwrap();
        assert_eq!((manifest.model_type.as_str(), manifest.inpainting), ("sd-xl", true));
        assert_eq!(checkpoint.family(), crate::Family::StableDiffusionXl);
    }

    #[test]
    fn what_is_missing_damaged_or_too_much_is_put_right() {
        let (cache, files) = (tempfile::tempdir().unwrap(), small());
        let unpack = || unpack_files(&files, Some(cache.path()), Path::new("nowhere")).unwrap();
        let folder = unpack();
        let whole = ["model_index.json", "unet/weights.safetensors"];
        assert_eq!(listing(&folder), whole);
        let changed = || folder.join("unet/weights.safetensors").metadata().unwrap().modified().unwrap();
        let first = changed();
        assert_eq!(unpack(), folder);
        assert_eq!(changed(), first, "written again for nothing");
        fs::write(folder.join("unet/weights.safetensors"), "weighed").unwrap();
        fs::write(folder.join("unet/weights.fp16.safetensors"), "other").unwrap();
        fs::remove_file(folder.join("model_index.json")).unwrap();
        unpack();
        assert_eq!(listing(cache.path()).len(), 2, "{:?}", listing(cache.path()));
        assert_eq!(fs::read(folder.join("unet/weights.safetensors")).unwrap(), b"weights");
        assert_eq!(fs::read(folder.join("model_index.json")).unwrap(), b"{}");
    }

    #[test]
    fn what_killed_processes_left_is_removed_or_passed_over() {
        let (cache, files) = (tempfile::tempdir().unwrap(), small());
        let parent = cache.path().join("embedded");
        fs::create_dir_all(&parent).unwrap();
        for name in [".1-0.part", ".2-0.part", ".2-0.note"] {
            fs::write(parent.join(name), "half").unwrap();
        }
        for name in [".1-0.part", ".2-0.note"] {
            let old = std::time::SystemTime::now() - 2 * LEFTOVER;
            fs::File::options().write(true).open(parent.join(name)).unwrap().set_modified(old).unwrap();
        }
        unpack_files(&files, Some(cache.path()), Path::new("nowhere")).unwrap();
        let left = listing(&parent).into_iter().filter(|path| path.starts_with('.')).collect::<Vec<_>>();
        assert_eq!(left, [".2-0.note", ".2-0.part"]);
        let passing = tempfile::tempdir().unwrap();
        fs::write(passing.path().join(format!(".infill-{}.probe", std::process::id())), "").unwrap();
        unpack_files(&files, None, passing.path()).unwrap();
        assert!(listing(passing.path()).iter().all(|path| !path.ends_with(".probe")));
    }

    #[test]
    fn any_number_may_start_at_once() {
        let (cache, files) = (tempfile::tempdir().unwrap(), small());
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let folder = unpack_files(&files, Some(cache.path()), Path::new("nowhere")).unwrap();
                    for file in &files {
                        assert!(is_right(file, &folder.join(file.path)), "{}", file.path);
                    }
                });
            }
        });
        assert_eq!(listing(cache.path()).len(), 2);
    }

    #[test]
    fn where_there_is_no_cache_a_private_folder_serves() {
        let (passing, files) = (tempfile::tempdir().unwrap(), small());
        let blocked = passing.path().join("a file");
        fs::write(&blocked, "").unwrap();
        for cache in [None, Some(blocked.as_path())] {
            let folder = unpack_files(&files, cache, passing.path()).unwrap();
            assert!(folder.starts_with(passing.path()) && is_right(&files[1], &folder.join(files[1].path)));
        }
        let error = unpack_files(&files, Some(&blocked), &blocked).unwrap_err().to_string();
        assert!(
            error.contains("infill-mini") && error.contains("XDG_CACHE_HOME") && error.contains("embedded"),
            "{error}"
        );
    }

    #[cfg(unix)]
    #[test]
    fn a_folder_that_others_can_write_to_is_not_trusted() {
        use std::os::unix::fs::PermissionsExt;
        let passing = tempfile::tempdir().unwrap();
        let folder = private_folder(passing.path()).unwrap();
        assert_eq!(folder.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
        let error = private_folder(passing.path()).unwrap_err().to_string();
        assert!(error.contains("open to others"), "{error}");
    }
}
