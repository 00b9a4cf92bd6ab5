//! What lies on this machine for a call to name: models, concepts, adapters, embeddings.

use std::path::{Component, Path, PathBuf};

use infill_models::adapters::{self, AdapterPurpose, FoundAdapter};
use infill_models::embedding::EmbeddingFile;
use infill_models::lora::LoraFile;
use infill_models::shelf::Shelf;
use infill_models::{Checkpoint, Family, catalogue, embedded, embeddings};

use crate::arguments::show_text;
use crate::pictures::{AllowedFolders, Refusal};

/// Concepts that the server's instructions name.
const NAMED: usize = 24;

/// The longest name or path of a model, in bytes: that of any file.
const LONGEST_NAME: usize = 4096;

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
        if id.len() > LONGEST_NAME {
            return Err((show_text(id), self.models_here()));
        }
        if Path::new(id).is_absolute() {
            return Checkpoint::open(&self.folders.resolve(Path::new(id))?).map_err(refused);
        }
        if catalogue::manifest(id).map_err(refused)?.is_some() {
            return Checkpoint::open(&catalogue::locate(id, self.models_dir()).map_err(refused)?)
                .map_err(refused);
        }
        // Never from the folder that the server was started in: a name means the same whichever that is.
        let mut parts = Path::new(id).components();
        let plain = matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None));
        let named = self.models_dir().filter(|_| plain).map(|dir| dir.join(id));
        let here = named.filter(|dir| dir.join("model_index.json").is_file());
        // A link that the user has put there is as good as a folder: only a path may not lead out of the allowed ones.
        let dir = here.ok_or_else(|| (show_text(id), self.models_here()))?;
        Checkpoint::open(&dir).map_err(refused)
    }

    /// A LoRA by its name in the model's own folder or in the models folder, or by a path under an allowed folder.
    pub(crate) fn concept(&self, id: &str, checkpoint: Option<&Checkpoint>) -> Result<LoraFile, Refusal> {
        let refused = |error: infill_models::Error| {
            (show_text(id), format!("{}; {error}", self.concepts_here(checkpoint)))
        };
        let absolute = Path::new(id).is_absolute();
        let own = checkpoint.map(Checkpoint::dir);
        let path = if absolute { Ok(id.into()) } else { Shelf::Loras.locate(id, own, self.models_dir()) };
        let mut path: PathBuf = path.map_err(|_| (show_text(id), self.concepts_here(checkpoint)))?;
        // A name is one of those that a model brings or that the user has put into the models folder, links among them.
        if absolute {
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

    /// The models that are here, by name.
    pub(crate) fn model_ids(&self) -> Vec<String> {
        let known = catalogue::manifests().unwrap_or_default().into_iter();
        let here = known.filter(|manifest| catalogue::is_here(manifest, self.models_dir()));
        let mut ids: Vec<String> = here.map(|manifest| manifest.id).collect();
        let entries = self.models_dir.iter().filter_map(|dir| dir.read_dir().ok()).flatten().flatten();
        let folders = entries.filter(|entry| entry.path().join("model_index.json").is_file());
        ids.extend(folders.map(|entry| entry.file_name().to_string_lossy().into_owned()));
        ids.sort();
        ids.dedup();
        ids
    }

    /// What a call can name as its model.
    pub(crate) fn models_here(&self) -> String {
        format!("a model that is here ({})", listed(&self.model_ids()))
    }

    /// What is known of a model without running it.
    pub(crate) fn about(&self, id: &str) -> About {
        if let Some(known) = catalogue::manifest(id).ok().flatten() {
            let kind = kind(&known.model_type, known.inpainting);
            let (name, licence, notes) = (Some(known.name), Some(known.licence), Some(known.notes));
            return About { name, model_type: Some(known.model_type), kind, licence, notes };
        }
        let (model_type, kind) = match self.checkpoint(id) {
            Ok(checkpoint) => {
                let model_type = match checkpoint.family() {
                    Family::StableDiffusion => "sd-1_5",
                    Family::StableDiffusionXl | Family::StableDiffusionXlRefiner => "sd-xl",
                };
                (Some(model_type.to_owned()), kind(model_type, checkpoint.is_inpaint()))
            }
            Err(_) => (None, "A folder that can't be opened as a model".to_owned()),
        };
        About { name: None, model_type, kind, licence: None, notes: None }
    }

    /// The model to take where none is named: one with an adapter where references are given, one that was trained to
    /// inpaint, and rather another than the small one of this program.
    pub(crate) fn suggested_model(&self, references: Option<AdapterPurpose>) -> Option<String> {
        let opened = self.model_ids().into_iter().filter_map(|id| Some((self.checkpoint(&id).ok()?, id)));
        let ranked = opened.min_by_key(|(checkpoint, id)| {
            let adapted = references.is_none_or(|purpose| self.adapter(checkpoint, purpose).is_ok());
            (!adapted, !checkpoint.is_inpaint(), id == embedded::ID)
        });
        ranked.map(|(_, id)| id)
    }

    /// The LoRAs that are here, those that a model brings first.
    pub(crate) fn concept_ids(&self, checkpoint: Option<&Checkpoint>) -> Vec<String> {
        let own = checkpoint.map(|checkpoint| Shelf::Loras.brought_by(checkpoint.dir())).unwrap_or_default();
        let mut ids: Vec<String> = Vec::new();
        for shelved in own.into_iter().chain(Shelf::Loras.list(self.models_dir())) {
            // The model's own goes before another of its name.
            if !ids.contains(&shelved.id) {
                ids.push(shelved.id);
            }
        }
        ids
    }

    /// What a call can name as a concept of a model.
    pub(crate) fn concepts_here(&self, checkpoint: Option<&Checkpoint>) -> String {
        let ids = self.concept_ids(checkpoint);
        format!("a LoRA that is here ({}), or its path under an allowed folder", listed(&ids))
    }

    /// What to say of concepts before anyone asks; nothing where there are none.
    pub(crate) fn concepts_hint(&self) -> Option<String> {
        let ids = self.concept_ids(None);
        (!ids.is_empty()).then(|| format!("Concepts that are here: {}.", listed(&ids)))
    }
}

/// What is known of a model without running it.
pub(crate) struct About {
    /// Its name in full, of one that the catalogue knows.
    pub(crate) name: Option<String>,
    /// `sd-xl` or `sd-1_5`.
    pub(crate) model_type: Option<String>,
    /// The same in words.
    pub(crate) kind: String,
    pub(crate) licence: Option<String>,
    pub(crate) notes: Option<String>,
}

fn kind(model_type: &str, inpainting: bool) -> String {
    let family = if model_type == "sd-xl" { "SDXL" } else { "SD 1.5" };
    let trained = if inpainting { "trained to inpaint" } else { "not trained to inpaint" };
    format!("{family} model, {trained}")
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
