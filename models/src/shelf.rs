//! Single files that are looked up by name: concepts in `<models folder>/loras/`, embeddings in
//! `<models folder>/embeddings/`, in folders of the user's own there too. A checkpoint's own folder may hold concepts that
//! were made for it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::{Error, Result, places};

/// How many folders deep files are looked for: a link may lead back to where it lies.
const DEPTH: usize = 3;

/// A folder of the models folder that holds safetensors files, one for each thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shelf {
    /// `loras/`.
    Loras,
    /// `embeddings/`.
    Embeddings,
}

/// One file of a shelf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shelved {
    /// Its name without the extension, after those of the folders that it lies in: `ink`, `styles/ink`.
    pub id: String,
    /// Where it lies.
    pub path: PathBuf,
}

impl Shelved {
    /// Its name alone.
    pub fn name(&self) -> &str {
        self.id.rsplit('/').next().unwrap_or(&self.id)
    }
}

impl Shelf {
    /// Its name within the models folder.
    pub fn folder(self) -> &'static str {
        match self {
            Self::Loras => "loras",
            Self::Embeddings => "embeddings",
        }
    }

    /// The folder itself. `models_dir` stands in for the folder of [`places::models_dir`].
    pub fn dir(self, models_dir: Option<&Path>) -> Option<PathBuf> {
        Some(models_dir.map(Path::to_owned).or_else(places::models_dir)?.join(self.folder()))
    }

    /// What is on it, by name; a folder that is not there holds nothing.
    pub fn list(self, models_dir: Option<&Path>) -> Vec<Shelved> {
        self.dir(models_dir).map(|dir| within(&dir)).unwrap_or_default()
    }

    /// What a checkpoint's own folder holds of it, by name.
    pub fn brought_by(self, checkpoint: &Path) -> Vec<Shelved> {
        within(&checkpoint.join(self.folder()))
    }

    /// The file with this name, with or without its extension: the checkpoint's own, else one of the models folder. The
    /// name alone will do for a file in a folder there that shares it with no other.
    ///
    /// # Errors
    /// [`Error::NotFound`] naming what is there.
    pub fn locate(self, id: &str, checkpoint: Option<&Path>, models_dir: Option<&Path>) -> Result<PathBuf> {
        let own = checkpoint.map(|dir| self.brought_by(dir)).unwrap_or_default();
        let shelf = self.list(models_dir);
        let bare = id.strip_suffix(".safetensors").unwrap_or(id);
        if let Some(found) = own.iter().chain(&shelf).find(|shelved| shelved.id == id || shelved.id == bare) {
            return Ok(found.path.clone());
        }
        let namesakes = own.iter().chain(&shelf).filter(|shelved| [id, bare].contains(&shelved.name()));
        if let [only] = namesakes.collect::<Vec<_>>().as_slice() {
            return Ok(only.path.clone());
        }
        let dir =
            self.dir(models_dir).map_or_else(|| self.folder().to_owned(), |dir| dir.display().to_string());
        let ids =
            |all: &[Shelved]| all.iter().map(|shelved| shelved.id.as_str()).collect::<Vec<_>>().join(", ");
        let brought =
            if own.is_empty() { String::new() } else { format!("the model brings {}, and ", ids(&own)) };
        let reason = if shelf.is_empty() {
            format!("{brought}{dir} holds none; put its .safetensors file there or give its path")
        } else {
            format!("{brought}{dir} holds {}", ids(&shelf))
        };
        Err(Error::NotFound { what: self.what(), id: id.to_owned(), reason })
    }

    fn what(self) -> &'static str {
        match self {
            Self::Loras => "LoRA",
            Self::Embeddings => "embedding",
        }
    }
}

/// The safetensors files of a folder and of the folders in it, by name.
fn within(dir: &Path) -> Vec<Shelved> {
    let mut all = Vec::new();
    collect(dir, "", DEPTH, &mut all);
    all.sort_by(|a, b| a.id.cmp(&b.id));
    all
}

fn collect(dir: &Path, before: &str, depth: usize, all: &mut Vec<Shelved>) {
    for path in dir.read_dir().ok().into_iter().flatten().flatten().map(|entry| entry.path()) {
        let named = |name: Option<&OsStr>| format!("{before}{}", name.unwrap_or_default().to_string_lossy());
        if path.is_dir() {
            if depth > 0 {
                collect(&path, &(named(path.file_name()) + "/"), depth - 1, all);
            }
        } else if path.extension().is_some_and(|extension| extension == "safetensors") && path.is_file() {
            all.push(Shelved { id: named(path.file_stem()), path });
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn files_are_found_by_name_and_what_is_there_is_told() {
        let models = tempfile::tempdir().unwrap();
        let dir = Some(models.path());
        let error = Shelf::Loras.locate("ink", None, dir).unwrap_err().to_string();
        assert!(error.starts_with("LoRA ink is not here: ") && error.contains("holds none"), "{error}");
        let folder = models.path().join("loras");
        std::fs::create_dir_all(folder.join("folder.safetensors")).unwrap();
        for name in ["ink.safetensors", "v1.5.safetensors", "notes.txt", "old.bin"] {
            std::fs::write(folder.join(name), "x").unwrap();
        }
        for id in ["ink", "ink.safetensors"] {
            assert_eq!(Shelf::Loras.locate(id, None, dir).unwrap(), folder.join("ink.safetensors"));
        }
        assert_eq!(Shelf::Loras.locate("v1.5", None, dir).unwrap(), folder.join("v1.5.safetensors"));
        for unknown in ["INK", "../loras/ink", "", "old", "folder"] {
            let error = Shelf::Loras.locate(unknown, None, dir).unwrap_err().to_string();
            assert!(error.ends_with("holds ink, v1.5"), "{error}");
        }
        assert!(Shelf::Embeddings.list(dir).is_empty());
        std::fs::create_dir_all(folder.join("styles/old")).unwrap();
        for name in ["styles/pen.safetensors", "styles/ink.safetensors", "styles/old/pencil.safetensors"] {
            std::fs::write(folder.join(name), "x").unwrap();
        }
        for (id, place) in [
            ("styles/pen", "styles/pen"),
            ("pen", "styles/pen"),
            ("pen.safetensors", "styles/pen"),
            ("pencil", "styles/old/pencil"),
            ("ink", "ink"),
            ("styles/ink.safetensors", "styles/ink"),
        ] {
            let path = folder.join(format!("{place}.safetensors"));
            assert_eq!(Shelf::Loras.locate(id, None, dir).unwrap(), path, "{id}");
        }
        std::fs::copy(folder.join("styles/pen.safetensors"), folder.join("styles/old/pen.safetensors"))
            .unwrap();
        let error = Shelf::Loras.locate("pen", None, dir).unwrap_err().to_string();
        assert!(
            error.ends_with("holds ink, styles/ink, styles/old/pen, styles/old/pencil, styles/pen, v1.5"),
            "{error}"
        );
        std::fs::remove_dir_all(folder.join("styles")).unwrap();

        #[cfg(unix)]
        {
            let elsewhere = tempfile::tempdir().unwrap();
            std::fs::write(elsewhere.path().join("shared.safetensors"), "x").unwrap();
            let link = folder.join("linked.safetensors");
            std::os::unix::fs::symlink(elsewhere.path().join("shared.safetensors"), &link).unwrap();
            std::os::unix::fs::symlink("nowhere", folder.join("broken.safetensors")).unwrap();
            assert_eq!(Shelf::Loras.locate("linked", None, dir).unwrap(), link);
            assert_eq!(Shelf::Loras.list(dir).len(), 3);
            std::os::unix::fs::symlink(elsewhere.path(), models.path().join("embeddings")).unwrap();
            assert_eq!(Shelf::Embeddings.list(dir)[0].id, "shared");
        }

        let checkpoint = tempfile::tempdir().unwrap();
        let own = checkpoint.path().join("loras/ink.safetensors");
        std::fs::create_dir(checkpoint.path().join("loras")).unwrap();
        std::fs::write(&own, "x").unwrap();
        assert_eq!(Shelf::Loras.locate("ink", Some(checkpoint.path()), dir).unwrap(), own);
        let gone = |models: &Path| {
            Shelf::Loras.locate("gone", Some(checkpoint.path()), Some(models)).unwrap_err().to_string()
        };
        let told = gone(models.path());
        assert!(
            told.contains(": the model brings ink, and ") && told.contains("loras holds ink, "),
            "{told}"
        );
        let told = gone(&checkpoint.path().join("none"));
        assert!(told.contains(": the model brings ink, and ") && told.contains("holds none; put"), "{told}");
    }
}
