//! The folder of blobs: files named by the hash of their content, each whole or absent.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::{Error, Result, is_leftover};

/// The folder, with `incoming` for files that are being written.
#[derive(Debug)]
pub(crate) struct Blobs {
    dir: PathBuf,
    incoming: PathBuf,
}

impl Blobs {
    pub(crate) fn open(dir: PathBuf) -> Result<Self> {
        let incoming = dir.join("incoming");
        fs::create_dir_all(&incoming).map_err(|e| Error::file(&incoming, &e))?;
        let blobs = Self { dir, incoming };
        blobs.sweep(SystemTime::now())?;
        Ok(blobs)
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.dir.join(file)
    }

    /// The file name for a content: two characters of its hash as a folder, then the whole hash.
    pub(crate) fn file_name(hash: &blake3::Hash, media_type: &str) -> String {
        let hex = hash.to_hex();
        let extension = match media_type {
            "image/png" => "png",
            "image/jpeg" => "jpg",
            "image/webp" => "webp",
            _ => "bin",
        };
        format!("{}/{hex}.{extension}", &hex[..2])
    }

    /// Writes a blob unless it is there, whole, already.
    pub(crate) fn write(&self, file: &str, bytes: &[u8], hash: &blake3::Hash) -> Result<()> {
        let path = self.path(file);
        if self.read(file)?.is_some_and(|found| blake3::hash(&found) == *hash) {
            return Ok(());
        }
        let folder = path.parent().unwrap_or(&self.dir);
        let failed = |e| in_store(file, &e);
        fs::create_dir_all(folder).map_err(failed)?;
        let mut temporary = tempfile::NamedTempFile::new_in(&self.incoming).map_err(failed)?;
        temporary.write_all(bytes).map_err(failed)?;
        temporary.as_file().sync_all().map_err(failed)?;
        temporary.persist(&path).map_err(|e| failed(e.error))?;
        sync_folder(folder).and_then(|()| sync_folder(&self.dir)).map_err(failed)
    }

    /// The bytes of a blob; `None` where there is no such file.
    pub(crate) fn read(&self, file: &str) -> Result<Option<Vec<u8>>> {
        match fs::read(self.path(file)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(in_store(file, &e)),
        }
    }

    /// Whether there is a file of this length.
    pub(crate) fn has(&self, file: &str, length: u64) -> bool {
        self.path(file).metadata().is_ok_and(|about| about.len() == length)
    }

    /// The blobs that were not written lately, by their file names. What else lies in the folder is not the store's.
    pub(crate) fn leftovers(&self) -> Result<Vec<String>> {
        let now = SystemTime::now();
        let mut found = Vec::new();
        let folders = entries(&self.dir)?;
        for folder in folders.iter().filter(|folder| folder.is_dir() && is_hex(&last(folder), 2)) {
            for path in entries(folder)? {
                let (start, name) = (last(folder), last(&path));
                let hash = name.split_once('.').map_or("", |(hash, _)| hash);
                if is_hex(hash, 64) && hash.starts_with(&start) && path.is_file() && is_leftover(&path, now) {
                    found.push(format!("{start}/{name}"));
                }
            }
        }
        Ok(found)
    }

    pub(crate) fn remove(&self, file: &str) -> Result<()> {
        match fs::remove_file(self.path(file)) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(in_store(file, &e)),
            _ => Ok(()),
        }
    }

    /// Removes what a crash left half written.
    fn sweep(&self, now: SystemTime) -> Result<()> {
        for path in entries(&self.incoming)? {
            if is_leftover(&path, now) {
                // Another process may have been quicker.
                let _ = fs::remove_file(&path);
            }
        }
        Ok(())
    }
}

/// What a blob failed at, by its place in the store: clients elsewhere are told of it, and not of this machine's folders.
fn in_store(file: &str, error: &std::io::Error) -> Error {
    Error::file(&Path::new("blobs").join(file), error)
}

/// The last part of a path; empty where it is no text.
fn last(path: &Path) -> String {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned()
}

fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// What is in a folder.
fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let failed = |e: std::io::Error| Error::file(folder, &e);
    fs::read_dir(folder).map_err(failed)?.map(|entry| Ok(entry.map_err(failed)?.path())).collect()
}

/// Makes a rename in this folder last. Windows opens no folders and needs no such call.
fn sync_folder(folder: &Path) -> std::io::Result<()> {
    if cfg!(windows) {
        return Ok(());
    }
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::LEFTOVER;

    #[test]
    fn old_leftovers_are_swept_and_fresh_ones_stay() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(dir.path().join("blobs")).unwrap();
        let half = blobs.incoming.join("half");
        fs::write(&half, b"torn").unwrap();
        blobs.sweep(SystemTime::now()).unwrap();
        assert!(half.exists());
        blobs.sweep(SystemTime::now() + 2 * LEFTOVER).unwrap();
        assert!(!half.exists());
    }

    #[test]
    fn what_fails_is_named_by_its_place_in_the_store() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(dir.path().join("blobs")).unwrap();
        // A folder stands where the file belongs.
        let hash = blake3::hash(b"picture");
        let file = Blobs::file_name(&hash, "image/png");
        fs::create_dir_all(blobs.path(&file)).unwrap();
        for failed in [
            blobs.write(&file, b"picture", &hash).unwrap_err(),
            blobs.read(&file).unwrap_err(),
            blobs.remove(&file).unwrap_err(),
        ] {
            assert!(failed.to_string().starts_with(&format!("blobs/{file}: ")), "{failed}");
        }
    }

    #[test]
    fn only_files_named_as_blobs_are_taken_for_leftovers() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(dir.path().join("blobs")).unwrap();
        let hash = "ab".repeat(32);
        let old = SystemTime::now() - 2 * LEFTOVER;
        for name in [
            format!("ab/{hash}.png"),
            format!("cd/{hash}.png"),
            "ab/photograph.png".to_owned(),
            format!("backup/{hash}.png"),
        ] {
            let path = blobs.path(&name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, b"whole").unwrap();
            File::options().write(true).open(&path).unwrap().set_modified(old).unwrap();
        }
        fs::create_dir(blobs.path("ab").join(format!("{hash}.d"))).unwrap();
        assert_eq!(blobs.leftovers().unwrap(), [format!("ab/{hash}.png")]);
    }
}
