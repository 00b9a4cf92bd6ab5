//! What lies on this machine for a call to name: models, concepts, adapters, embeddings.

use std::path::{Path, PathBuf};

use infill_models::adapters::{self, AdapterPurpose, FoundAdapter};
use infill_models::embedding::EmbeddingFile;
use infill_models::lora::LoraFile;
use infill_models::shelf::Shelf;
use infill_models::{Checkpoint, Family, catalogue, embeddings};

use crate::arguments::show_text;
use crate::pictures::{AllowedFolders, Refusal};

/// Concepts that the server's instructions name.
const NAMED: usize = 24;

/// Where models and what goes on top of them are looked for.
pub(crate) struct Holdings {
    /// Where they may be read by their path, besides the catalogue's own places.
    folders: AllowedFolders,
    models_dir: Option<PathBuf>,
}

impl Holdings {
    pub(crate) fn new(folders: AllowedFolders, models_dir: Option<PathBuf>) -> Self {
        Self { folders, models_dir }
    }

    fn models_dir(&self) -> Option<&Path> {
        self.models_dir.as_deref()
    }

    /// A model by its id in the catalogue, by the name of its folder in the models folder, or by a path under an
    /// allowed folder.
    pub(crate) fn checkpoint(&self, id: &str) -> Result<Checkpoint, Refusal> {
        let refused =
            |error: infill_models::Error| (show_text(id), format!("{}; {error}", self.models_here()));
        if Path::new(id).is_absolute() {
            return Checkpoint::open(&self.folders.resolve(Path::new(id))?).map_err(refused);
        }
        let mut dir = catalogue::locate(id, self.models_dir()).map_err(refused)?;
        if catalogue::manifest(id).map_err(refused)?.is_none() {
            dir = self.folders.resolve(&dir)?;
        }
        Checkpoint::open(&dir).map_err(refused)
    }

    /// A LoRA by its name in the model's own folder or in the models folder, or by a path under an allowed folder.
    pub(crate) fn concept(&self, id: &str, checkpoint: Option<&Checkpoint>) -> Result<LoraFile, Refusal> {
        let refused =
            |error: infill_models::Error| (show_text(id), format!("{}; {error}", self.concepts_here()));
        let absolute = Path::new(id).is_absolute();
        let own = checkpoint.map(Checkpoint::dir);
        let path = if absolute { Ok(id.into()) } else { Shelf::Loras.locate(id, own, self.models_dir()) };
        let mut path: PathBuf = path.map_err(|_| (show_text(id), self.concepts_here()))?;
        // What a model brings lies where the model was allowed to lie.
        if absolute || !own.is_some_and(|own| path.starts_with(own)) {
            path = self.folders.resolve(&path)?;
        }
        LoraFile::open(&path).map_err(refused)
    }

    /// The adapter of a model, with its image encoder.
    pub(crate) fn adapter(
        &self,
        checkpoint: &Checkpoint,
        purpose: AdapterPurpose,
    ) -> infill_models::Result<FoundAdapter> {
        adapters::choose(checkpoint, purpose, self.models_dir())
    }

    /// The embeddings that prompts name, and what was passed over.
    pub(crate) fn embeddings(
        &self,
        prompts: &[&str],
        family: Family,
    ) -> infill_models::Result<(Vec<EmbeddingFile>, Vec<String>)> {
        embeddings::named_in(prompts, &[], family, self.models_dir())
    }

    /// What a call can name as its model.
    pub(crate) fn models_here(&self) -> String {
        let known = catalogue::manifests().unwrap_or_default().into_iter();
        let here = known.filter(|manifest| catalogue::is_here(manifest, self.models_dir()));
        let mut ids: Vec<String> = here.map(|manifest| manifest.id).collect();
        let entries = self.models_dir.iter().filter_map(|dir| dir.read_dir().ok()).flatten().flatten();
        let folders = entries.filter(|entry| entry.path().join("model_index.json").is_file());
        ids.extend(folders.map(|entry| entry.file_name().to_string_lossy().into_owned()));
        ids.sort();
        ids.dedup();
        format!("a model that is here ({})", listed(&ids))
    }

    /// What a call can name as a concept.
    pub(crate) fn concepts_here(&self) -> String {
        let ids: Vec<String> =
            Shelf::Loras.list(self.models_dir()).into_iter().map(|shelved| shelved.id).collect();
        format!("a LoRA that is here ({}), or its path under an allowed folder", listed(&ids))
    }

    /// What to say of concepts before anyone asks; nothing where there are none.
    pub(crate) fn concepts_hint(&self) -> Option<String> {
        let ids: Vec<String> =
            Shelf::Loras.list(self.models_dir()).into_iter().map(|shelved| shelved.id).collect();
        (!ids.is_empty()).then(|| format!("Concepts that are here: {}.", listed(&ids)))
    }
}

fn listed(ids: &[String]) -> String {
    match ids {
        [] => "none yet".into(),
        _ if ids.len() > NAMED => {
            format!("{} and {} more", ids[..NAMED].join(", "), ids.len() - NAMED)
        }
        _ => ids.join(", "),
    }
}
