//! The models that are known by name, and where a model is looked for.
//!
//! One manifest in `manifests/` describes one model. Looking for a model opens no network connection.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::{Checkpoint, Error, Result, Variant, embedded, places};

/// What is known about a model: one file of `manifests/`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The name it is asked for by.
    pub id: String,
    /// Its name in full.
    pub name: String,
    /// The `model.type` of a request that it answers: `sd-xl`, `sd-1_5`.
    pub model_type: String,
    /// Whether it was trained to inpaint.
    pub inpainting: bool,
    /// The repository on the Hugging Face hub; none for the model that is part of the program.
    pub repository: Option<String>,
    /// The commit of the repository that this entry was written for.
    pub revision: Option<String>,
    /// The folders that are needed.
    pub components: Vec<String>,
    /// Its licence, by the hub's identifier.
    pub licence: String,
    /// What is worth knowing before choosing it.
    pub notes: String,
}

impl Manifest {
    /// The repository on the Hugging Face hub and its commit, if it comes from there.
    pub fn hub(&self) -> Option<(&str, &str)> {
        self.repository.as_deref().zip(self.revision.as_deref())
    }

    /// Whether it is part of the program.
    pub fn is_embedded(&self) -> bool {
        self.id == embedded::ID
    }
}

const MANIFESTS: [&str; 6] = [
    include_str!("../manifests/infill-mini.toml"),
    include_str!("../manifests/sdxl-inpainting.toml"),
    include_str!("../manifests/sdxl-base.toml"),
    include_str!("../manifests/sdxl-refiner.toml"),
    include_str!("../manifests/sd15-inpainting.toml"),
    include_str!("../manifests/sd15.toml"),
];

/// All known models of this build, the embedded one first.
///
/// # Errors
/// [`Error::File`] when a manifest of this build is damaged.
pub fn manifests() -> Result<Vec<Manifest>> {
    let parse = |text: &&str| {
        toml::from_str(text)
            .map_err(|e| Error::file(Path::new("manifests"), format!("one can't be read: {e}")))
    };
    let mut all: Vec<Manifest> = MANIFESTS.iter().map(parse).collect::<Result<_>>()?;
    all.retain(|manifest| !manifest.is_embedded() || embedded::is_there());
    Ok(all)
}

/// The model that runs where none is named: the embedded one.
pub fn default_model() -> Option<&'static str> {
    embedded::is_there().then_some(embedded::ID)
}

/// The known model with this id or of this repository.
///
/// # Errors
/// As [`manifests`].
pub fn manifest(id: &str) -> Result<Option<Manifest>> {
    Ok(manifests()?.into_iter().find(|m| m.id == id || m.repository.as_deref() == Some(id)))
}

/// The known model with this id or of this repository, where it can be fetched.
///
/// # Errors
/// [`Error::NotFound`] naming those that can be.
pub fn to_fetch(id: &str) -> Result<Manifest> {
    let not_found = |reason| Error::NotFound { what: "model", id: id.to_owned(), reason };
    match manifest(id)? {
        Some(manifest) if manifest.hub().is_some() => Ok(manifest),
        Some(_) => Err(Error::file(Path::new(id), "is part of this program and never fetched")),
        None => {
            let known = manifests()?.into_iter().filter(|m| m.hub().is_some()).map(|m| m.id);
            let known: Vec<String> = known.collect();
            Err(not_found(format!("only known models are fetched: {}", known.join(", "))))
        }
    }
}

/// Finds and opens a model, preferring the weights without a variant; see [`locate`].
///
/// # Errors
/// As [`locate`] and [`Checkpoint::open`].
pub fn find(id_or_dir: &str, models_dir: Option<&Path>) -> Result<Checkpoint> {
    find_variant(id_or_dir, models_dir, Variant::Default)
}

/// Finds and opens a model, preferring the weight files of one variant; see [`locate`].
///
/// # Errors
/// As [`locate`] and [`Checkpoint::open`].
pub fn find_variant(id_or_dir: &str, models_dir: Option<&Path>, variant: Variant) -> Result<Checkpoint> {
    Checkpoint::open_variant(&locate(id_or_dir, models_dir)?, variant)
}

/// Whether a known model can be run: it is on this machine, or part of the program. Nothing is written for the answer.
pub fn is_here(manifest: &Manifest, models_dir: Option<&Path>) -> bool {
    manifest.is_embedded() || locate(&manifest.id, models_dir).is_ok()
}

/// The folder of a model.
///
/// A known id (or its repository) is looked for as `<models folder>/<id>`, then in the cache of the Hugging Face hub;
/// the embedded model is written to the user's cache folder where it is not there yet, see [`embedded::unpack`].
/// Anything else is a folder, or the name of one in the models folder. `./sdxl-base` is a folder whatever is known.
///
/// `models_dir` stands in for the folder of [`places::models_dir`].
///
/// # Errors
/// [`Error::NotFound`] naming the places and the known ids.
pub fn locate(id_or_dir: &str, models_dir: Option<&Path>) -> Result<PathBuf> {
    let models = models_dir.map(Path::to_owned).or_else(places::models_dir);
    locate_in(id_or_dir, models.as_deref(), places::hub_cache().as_deref())
}

/// The command that fetches a known model, of this program where it can.
fn fetching(id: &str, repository: &str, own: Option<&Path>) -> String {
    if cfg!(feature = "hub") {
        return format!("infill models pull {id}");
    }
    let dir = own.map_or_else(|| id.to_owned(), |dir| dir.display().to_string());
    format!("hf download {repository} --exclude \"*.bin\" --local-dir {dir}")
}

fn locate_in(asked: &str, models: Option<&Path>, hub: Option<&Path>) -> Result<PathBuf> {
    let not_found = |reason: String| Error::NotFound { what: "model", id: asked.to_owned(), reason };
    let has_index = |dir: &PathBuf| dir.join("model_index.json").is_file();
    if let Some(known) = manifest(asked)? {
        let own = models.map(|dir| dir.join(&known.id));
        if let Some(found) = own.clone().filter(has_index) {
            return Ok(found);
        }
        let Some((repository, revision)) = known.hub() else { return embedded::unpack() };
        let snapshot = hub.and_then(|hub| places::snapshot(hub, repository, Some(revision)));
        if let Some(found) = snapshot.filter(has_index) {
            return Ok(found);
        }
        let looked: Vec<String> =
            [own.as_deref(), hub].into_iter().flatten().map(|p| p.display().to_string()).collect();
        return Err(not_found(format!(
            "looked in {}; fetch {repository} with `{}` or give its folder",
            looked.join(" and "),
            fetching(&known.id, repository, own.as_deref())
        )));
    }
    let folder = PathBuf::from(asked);
    if folder.is_dir() {
        return Ok(folder);
    }
    if folder.is_file() {
        let way = "diffusers makes one of a single-file checkpoint: Pipeline.from_single_file(FILE).save_pretrained(FOLDER), \
                   as docs/models.md tells";
        return Err(Error::file(&folder, format!("is a file; needed: a folder in diffusers' layout; {way}")));
    }
    let plain = !asked.is_empty() && !asked.contains(['/', '\\']) && asked != "..";
    if let Some(found) = models.filter(|_| plain).map(|dir| dir.join(asked)).filter(has_index) {
        return Ok(found);
    }
    let ids: Vec<String> = manifests()?.into_iter().map(|m| m.id).collect();
    let also = models.map(|dir| format!(", nor one in {}", dir.display())).unwrap_or_default();
    Err(not_found(format!("it is no folder{also}; known models: {}", ids.join(", "))))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn make(dir: &Path) -> PathBuf {
        std::fs::create_dir_all(dir).unwrap();
        std::fs::write(dir.join("model_index.json"), "{}").unwrap();
        dir.to_owned()
    }

    #[test]
    fn manifests_are_whole() {
        let all = manifests().unwrap();
        for m in &all {
            assert!(["sd-xl", "sd-1_5"].contains(&m.model_type.as_str()), "{}", m.id);
            assert_eq!(m.hub().is_none(), m.is_embedded(), "{}", m.id);
            if let Some((repository, revision)) = m.hub() {
                assert_eq!(repository.split('/').count(), 2, "{}", m.id);
                assert!(revision.len() == 40 && revision.bytes().all(|b| b.is_ascii_hexdigit()), "{}", m.id);
                assert_eq!(m.inpainting, m.id.contains("inpainting"), "{}", m.id);
            }
            assert!(
                m.components.iter().any(|c| c == "unet") && m.components.iter().any(|c| c == "vae"),
                "{}",
                m.id
            );
            assert!(!m.licence.is_empty() && !m.notes.is_empty(), "{}", m.id);
            assert_eq!(all.iter().filter(|other| other.id == m.id).count(), 1, "{}", m.id);
        }
    }

    #[test]
    fn a_known_model_is_found_in_both_places() {
        let (models, hub) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let locate = |asked| locate_in(asked, Some(models.path()), Some(hub.path()));
        let error = locate("sd15").unwrap_err().to_string();
        let advice = match cfg!(feature = "hub") {
            true => "`infill models pull sd15`".to_owned(),
            false => format!("--local-dir {}`", models.path().join("sd15").display()),
        };
        assert!(error.contains(&advice), "{error}");
        let repository = "stable-diffusion-v1-5/stable-diffusion-v1-5";
        let folder = format!("models--{}/snapshots/0123", repository.replace('/', "--"));
        let cached = make(&hub.path().join(folder));
        assert_eq!(locate("sd15").unwrap(), cached);
        assert_eq!(locate(repository).unwrap(), cached);
        let own = make(&models.path().join("sd15"));
        assert_eq!(locate("sd15").unwrap(), own);
    }

    #[test]
    fn folders_and_unknown_names() {
        let models = tempfile::tempdir().unwrap();
        let own = make(&models.path().join("my-model"));
        let locate = |asked: &str| locate_in(asked, Some(models.path()), None);
        assert_eq!(locate("my-model").unwrap(), own);
        assert_eq!(locate(own.to_str().unwrap()).unwrap(), own);
        for unknown in ["sdxl", "../my-model", ""] {
            let error = locate(unknown).unwrap_err().to_string();
            assert!(
                error.contains("known models: ") && error.contains("sdxl-inpainting, sdxl-base"),
                "{error}"
            );
        }
    }
}
