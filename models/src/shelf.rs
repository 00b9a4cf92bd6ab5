//! Single files that are looked up by name: concepts in `<models folder>/loras/`, embeddings in
//! `<models folder>/embeddings/`. A checkpoint's own folder may hold concepts that were made for it.

use std::path::{Path, PathBuf};

use crate::{Error, Result, places};

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
    /// Its name without the extension.
    pub id: String,
    /// Where it lies.
    pub path: PathBuf,
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

    /// The file with this name, with or without its extension: the checkpoint's own, else one of the models folder.
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

/// The safetensors files of a folder, by name.
fn within(dir: &Path) -> Vec<Shelved> {
    let entries = dir.read_dir().ok().into_iter().flatten().flatten();
    let mut all: Vec<Shelved> = entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "safetensors") && path.is_file())
        .map(|path| Shelved { id: path.file_stem().unwrap_or_default().to_string_lossy().into_owned(), path })
        .collect();
    all.sort_by(|a, b| a.id.cmp(&b.id));
    all
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
