//! Where image prompt adapters and their image encoders lie, and which one serves which kind of model.
//!
//! The places, in this order:
//!
//! 1. the checkpoint's own `ip_adapter/` with its `image_encoder/`;
//! 2. `<models folder>/ip-adapters/`, laid out as the repository [`REPOSITORY`] is;
//! 3. that repository in the cache of the Hugging Face hub.

use std::path::{Path, PathBuf};

use crate::adapter::{AdapterFile, AdapterKind, ImageEncoderFolder};
use crate::{Checkpoint, Error, Family, Result, places};

/// The repository whose file names are known here.
pub const REPOSITORY: &str = "h94/IP-Adapter";

/// The folder within a checkpoint.
const OWN_FOLDER: &str = "ip_adapter";
/// The folder within the models folder.
const FOLDER: &str = "ip-adapters";
/// ViT-H/14, which all adapters but one read through.
const VIT_H: &str = "models/image_encoder";
/// ViT-bigG/14, for the first adapter of SDXL alone.
const BIG_G: &str = "sdxl_models/image_encoder";

/// What reference pictures are given for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdapterPurpose {
    /// Colours, material and manner: a plain adapter, or a Plus one where no plain one is here.
    Style,
    /// The whole look of a figure: a Plus adapter.
    Character,
}

/// A file of the repository and the folder of its image encoder.
struct Known {
    family: Family,
    kind: AdapterKind,
    /// For faces alone: taken by name only.
    face: bool,
    file: &'static str,
    encoder: &'static str,
}

const KNOWN: [Known; 8] = {
    use AdapterKind::{FullFace, Plain, Plus};
    use Family::{StableDiffusion as Sd15, StableDiffusionXl as Xl};
    [
        known(Sd15, Plain, false, "models/ip-adapter_sd15.safetensors", VIT_H),
        known(Sd15, Plus, false, "models/ip-adapter-plus_sd15.safetensors", VIT_H),
        known(Sd15, Plus, true, "models/ip-adapter-plus-face_sd15.safetensors", VIT_H),
        known(Sd15, FullFace, true, "models/ip-adapter-full-face_sd15.safetensors", VIT_H),
        // Before the one with bigG: its encoder is a third of the size, and the others need it too.
        known(Xl, Plain, false, "sdxl_models/ip-adapter_sdxl_vit-h.safetensors", VIT_H),
        known(Xl, Plain, false, "sdxl_models/ip-adapter_sdxl.safetensors", BIG_G),
        known(Xl, Plus, false, "sdxl_models/ip-adapter-plus_sdxl_vit-h.safetensors", VIT_H),
        known(Xl, Plus, true, "sdxl_models/ip-adapter-plus-face_sdxl_vit-h.safetensors", VIT_H),
    ]
};

const fn known(
    family: Family,
    kind: AdapterKind,
    face: bool,
    file: &'static str,
    encoder: &'static str,
) -> Known {
    Known { family, kind, face, file, encoder }
}

/// An adapter with the encoder that it reads through.
#[derive(Debug, Clone)]
pub struct FoundAdapter {
    /// Projection and attention weights.
    pub file: AdapterFile,
    /// What turns a picture into the features that the projection reads.
    pub image_encoder: ImageEncoderFolder,
    /// Where it is not what the purpose asks for first: what it is, in a sentence without its stop.
    pub note: Option<String>,
}

/// An adapter that is on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedAdapter {
    /// The name of its file, without the extension.
    pub id: String,
    /// The models that it is for.
    pub family: Family,
    /// Its file.
    pub path: PathBuf,
    /// The folder of its image encoder, if that is here too.
    pub image_encoder: Option<PathBuf>,
}

/// The adapter for a model and a purpose.
///
/// A checkpoint's own adapter serves both purposes, for it is the only one that was made for it; `note` says so where it
/// is of another kind than the purpose asks for. `models_dir` stands in for the folder of [`places::models_dir`].
///
/// # Errors
/// [`Error::NotFound`] naming the places and how to get the files; [`Error::File`] for one that is there and damaged,
/// [`Error::Unsupported`] for one that does not fit the model.
pub fn choose(
    checkpoint: &Checkpoint,
    purpose: AdapterPurpose,
    models_dir: Option<&Path>,
) -> Result<FoundAdapter> {
    let found = match own(checkpoint.dir(), purpose)? {
        Some(found) => found,
        None => choose_in(checkpoint.family(), purpose, &roots(models_dir))?,
    };
    found.file.check_model(checkpoint)?;
    found.file.check_encoder(&found.image_encoder)?;
    Ok(found)
}

/// The image encoder that fits an adapter that was named by its file: one beside it, else one of the known places.
///
/// # Errors
/// [`Error::NotFound`] naming the places; [`Error::File`] for one that is there and damaged.
pub fn encoder_for(adapter: &AdapterFile, models_dir: Option<&Path>) -> Result<ImageEncoderFolder> {
    let beside = adapter.path().parent().unwrap_or(Path::new("."));
    let above = beside.parent().unwrap_or(beside);
    let mut folders =
        vec![beside.join("image_encoder"), above.join(VIT_H), above.join(BIG_G), above.join("image_encoder")];
    folders.extend(roots(models_dir).iter().flat_map(|root| [root.join(VIT_H), root.join(BIG_G)]));
    for folder in folders.iter().filter(|folder| is_encoder(folder)) {
        let encoder = ImageEncoderFolder::open(folder)?;
        if adapter.check_encoder(&encoder).is_ok() {
            return Ok(encoder);
        }
    }
    let looked: Vec<String> = folders.iter().map(|folder| folder.display().to_string()).collect();
    Err(Error::NotFound {
        what: "image encoder",
        id: format!("for {}", adapter.path().display()),
        reason: format!("looked for one that fits in {}; name its folder", looked.join(", ")),
    })
}

/// The known adapters that are on this machine, in the models folder first.
pub fn listed(models_dir: Option<&Path>) -> Vec<ListedAdapter> {
    let roots = roots(models_dir);
    KNOWN
        .iter()
        .filter_map(|known| {
            let path = roots.iter().map(|root| root.join(known.file)).find(|path| path.is_file())?;
            let encoder = roots.iter().map(|root| root.join(known.encoder)).find(|dir| is_encoder(dir));
            Some(ListedAdapter { id: stem(known), family: known.family, path, image_encoder: encoder })
        })
        .collect()
}

/// Every folder that is laid out as the repository.
fn roots(models_dir: Option<&Path>) -> Vec<PathBuf> {
    let models = models_dir.map(Path::to_owned).or_else(places::models_dir);
    let hub = places::hub_cache().and_then(|cache| places::snapshot(&cache, REPOSITORY, None));
    models.map(|dir| dir.join(FOLDER)).into_iter().chain(hub).collect()
}

fn is_encoder(dir: &Path) -> bool {
    dir.join("config.json").is_file()
}

fn stem(known: &Known) -> String {
    let name = known.file.rsplit('/').next().unwrap_or(known.file);
    name.trim_end_matches(".safetensors").to_owned()
}

/// The files of the adapters in a checkpoint's own folder.
pub fn brought_by(checkpoint: &Path) -> Vec<PathBuf> {
    let entries = checkpoint.join(OWN_FOLDER).read_dir().into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "safetensors"));
    paths.sort();
    paths
}

/// The adapter in a checkpoint's own folder, if it has one.
fn own(checkpoint: &Path, purpose: AdapterPurpose) -> Result<Option<FoundAdapter>> {
    let files =
        brought_by(checkpoint).iter().map(|path| AdapterFile::open(path)).collect::<Result<Vec<_>>>()?;
    let wanted = wanted_kind(purpose);
    let first = files.iter().find(|file| file.kind() == wanted).or_else(|| files.first());
    let Some(file) = first.cloned() else { return Ok(None) };
    let image_encoder = ImageEncoderFolder::open(&checkpoint.join("image_encoder"))?;
    let note = (file.kind() != wanted).then(|| {
        format!("the model brings one adapter, {}, which serves for style and for character", name_of(&file))
    });
    Ok(Some(FoundAdapter { file, image_encoder, note }))
}

fn choose_in(family: Family, purpose: AdapterPurpose, roots: &[PathBuf]) -> Result<FoundAdapter> {
    let wanted = wanted_kind(purpose);
    let mut candidates: Vec<&Known> =
        KNOWN.iter().filter(|known| known.family == family && !known.face && known.kind == wanted).collect();
    let Some(&first) = candidates.first() else {
        return Err(not_found(format!("for {family}"), "there are none for it".into()));
    };
    if purpose == AdapterPurpose::Style {
        let plus = |known: &&Known| known.family == family && !known.face && known.kind == AdapterKind::Plus;
        candidates.extend(KNOWN.iter().filter(plus));
    }
    for known in &candidates {
        let file = roots.iter().map(|root| root.join(known.file)).find(|path| path.is_file());
        let encoder = roots.iter().map(|root| root.join(known.encoder)).find(|dir| is_encoder(dir));
        if let (Some(file), Some(encoder)) = (file, encoder) {
            let file = AdapterFile::open(&file)?;
            let note = (known.kind != wanted)
                .then(|| format!("{} serves for style, since no plain adapter is here", name_of(&file)));
            return Ok(FoundAdapter { file, image_encoder: ImageEncoderFolder::open(&encoder)?, note });
        }
    }
    Err(missing(first, &candidates, roots))
}

fn wanted_kind(purpose: AdapterPurpose) -> AdapterKind {
    match purpose {
        AdapterPurpose::Style => AdapterKind::Plain,
        AdapterPurpose::Character => AdapterKind::Plus,
    }
}

/// What is not there of what would do, and how to get the first of it.
fn missing(first: &Known, candidates: &[&Known], roots: &[PathBuf]) -> Error {
    let looked: Vec<String> = roots.iter().map(|root| root.display().to_string()).collect();
    let names: Vec<String> = candidates
        .iter()
        .map(|known| {
            let has_file = roots.iter().any(|root| root.join(known.file).is_file());
            if has_file {
                format!("{} (for {}, which is here)", known.encoder, known.file)
            } else {
                known.file.into()
            }
        })
        .collect();
    let target = roots.first().map_or_else(|| FOLDER.to_owned(), |root| root.display().to_string());
    not_found(
        stem(first),
        format!(
            "looked for ip_adapter/ in the model's own folder and for {} in {}; fetch it with `hf download {REPOSITORY} \
             {} {encoder}/config.json {encoder}/model.safetensors --local-dir {target}`",
            names.join(", "),
            looked.join(", "),
            first.file,
            encoder = first.encoder,
        ),
    )
}

fn not_found(id: String, reason: String) -> Error {
    Error::NotFound { what: "adapter", id, reason }
}

fn name_of(file: &AdapterFile) -> String {
    file.path().file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;

    use super::*;

    /// A file with tensors of zeros of these names and shapes.
    fn write(path: &Path, tensors: &[(&str, [usize; 2])]) {
        let mut header = serde_json::Map::new();
        let mut end = 0;
        for (name, shape) in tensors {
            let begin = end;
            end += 4 * shape[0] * shape[1];
            header.insert(
                (*name).to_owned(),
                serde_json::json!({"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}),
            );
        }
        let header = serde_json::Value::Object(header).to_string();
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend(vec![0; end]);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn plain(path: &Path, width: usize) {
        write(
            path,
            &[
                ("image_proj.proj.weight", [64, width]),
                ("ip_adapter.1.to_k_ip.weight", [8, 768]),
                ("ip_adapter.1.to_v_ip.weight", [8, 768]),
            ],
        );
    }

    fn plus(path: &Path, width: usize) {
        write(
            path,
            &[
                ("image_proj.latents", [4, 16]),
                ("image_proj.proj_in.weight", [16, width]),
                ("ip_adapter.1.to_k_ip.weight", [8, 768]),
                ("ip_adapter.1.to_v_ip.weight", [8, 768]),
            ],
        );
    }

    fn encoder(dir: &Path, projection: usize, hidden: usize) {
        fs::create_dir_all(dir).unwrap();
        let config = serde_json::json!({"model_type": "clip_vision_model", "projection_dim": projection, "hidden_size": hidden});
        fs::write(dir.join("config.json"), config.to_string()).unwrap();
        write(&dir.join("model.safetensors"), &[("visual_projection.weight", [projection, hidden])]);
    }

    #[test]
    fn what_is_missing_is_told_with_the_way_to_get_it() {
        let root = tempfile::tempdir().unwrap();
        let roots = [root.path().to_owned()];
        let choose = |purpose| choose_in(Family::StableDiffusionXl, purpose, &roots);
        let error = choose(AdapterPurpose::Character).unwrap_err().to_string();
        for part in [
            "adapter ip-adapter-plus_sdxl_vit-h is not here: ",
            "ip_adapter/ in the model's own folder",
            "sdxl_models/ip-adapter-plus_sdxl_vit-h.safetensors",
            &root.path().display().to_string(),
            "hf download h94/IP-Adapter sdxl_models/ip-adapter-plus_sdxl_vit-h.safetensors models/image_encoder/config.json",
        ] {
            assert!(error.contains(part), "{part} is not in {error}");
        }
        plus(&root.path().join("sdxl_models/ip-adapter-plus_sdxl_vit-h.safetensors"), 6);
        let error = choose(AdapterPurpose::Character).unwrap_err().to_string();
        assert!(error.contains("models/image_encoder (for sdxl_models/ip-adapter-plus"), "{error}");
        let error = choose_in(Family::StableDiffusionXlRefiner, AdapterPurpose::Style, &roots).unwrap_err();
        assert!(error.to_string().contains("refiner is not here: there are none for it"), "{error}");
    }

    #[test]
    fn style_takes_a_plain_adapter_first_and_character_a_plus_one() {
        let root = tempfile::tempdir().unwrap();
        let roots = [root.path().join("none"), root.path().to_owned()];
        let choose = |purpose| choose_in(Family::StableDiffusion, purpose, &roots);
        encoder(&root.path().join(VIT_H), 4, 6);
        plus(&root.path().join("models/ip-adapter-plus-face_sd15.safetensors"), 6);
        assert!(choose(AdapterPurpose::Character).is_err(), "faces are taken by name only");
        plus(&root.path().join("models/ip-adapter-plus_sd15.safetensors"), 6);
        let style = choose(AdapterPurpose::Style).unwrap();
        assert_eq!(style.file.kind(), AdapterKind::Plus);
        assert!(style.note.unwrap().contains("no plain adapter is here"));
        plain(&root.path().join("models/ip-adapter_sd15.safetensors"), 4);
        let style = choose(AdapterPurpose::Style).unwrap();
        assert_eq!((style.file.kind(), style.note), (AdapterKind::Plain, None));
        let character = choose(AdapterPurpose::Character).unwrap();
        assert_eq!((character.file.kind(), character.note), (AdapterKind::Plus, None));
    }

    #[test]
    fn a_checkpoint_s_own_adapter_comes_first_and_serves_for_all() {
        let dir = tempfile::tempdir().unwrap();
        assert!(own(dir.path(), AdapterPurpose::Style).unwrap().is_none());
        plain(&dir.path().join("ip_adapter/ip_adapter.safetensors"), 4);
        assert!(own(dir.path(), AdapterPurpose::Style).unwrap_err().to_string().contains("image_encoder"));
        encoder(&dir.path().join("image_encoder"), 4, 6);
        let style = own(dir.path(), AdapterPurpose::Style).unwrap().unwrap();
        assert_eq!((style.file.kind(), style.note), (AdapterKind::Plain, None));
        let character = own(dir.path(), AdapterPurpose::Character).unwrap().unwrap();
        assert!(character.note.unwrap().contains("ip_adapter.safetensors"));
    }

    #[test]
    fn the_encoder_of_a_named_adapter_is_one_that_fits() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("sdxl_models/ip-adapter_sdxl_vit-h.safetensors");
        plain(&path, 4);
        let adapter = AdapterFile::open(&path).unwrap();
        let error = encoder_for(&adapter, Some(root.path())).unwrap_err().to_string();
        assert!(error.starts_with("image encoder for ") && error.contains("models/image_encoder"), "{error}");
        encoder(&root.path().join("sdxl_models/image_encoder"), 5, 6);
        assert!(encoder_for(&adapter, Some(root.path())).is_err(), "of another width");
        encoder(&root.path().join("models/image_encoder"), 4, 6);
        let found = encoder_for(&adapter, Some(root.path())).unwrap();
        assert!(found.component().config_path.starts_with(root.path().join("models")));
    }
}
