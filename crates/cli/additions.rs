//! What goes on top of the model: the files that were named, found and opened, and what the reports say of them.

use std::path::{Path, PathBuf};

use infill_engine::additions::{Additions, Concept, IpAdapterSource};
use infill_engine::image::{Limits, Picture};
use infill_engine::image_prompt::{ADAPTER_SCALE, AdapterBlocks, ImagePrompt, Reference};
use infill_engine::mask::Mask;
use infill_engine::pipeline::{CONCEPT_SCALE, check_concepts};
use infill_models::adapter::{AdapterFile, AdapterKind, ImageEncoderFolder};
use infill_models::adapters::{self, AdapterPurpose, FoundAdapter};
use infill_models::embedding::EmbeddingFile;
use infill_models::lora::LoraFile;
use infill_models::shelf::Shelf;
use infill_models::{Checkpoint, Family, embeddings};
use serde::Serialize;

use crate::addition_args::{ConceptArgs, IpType, ReferenceArgs};
use crate::args::InpaintArgs;
use crate::failure::{Failure, Result};
use crate::{digest, pictures, scaled};

/// As the tool's schema has it.
const IMAGE_SCALE: f64 = 0.9;
/// A LoRA as it was trained.
const AS_TRAINED: f64 = 1.0;

/// Everything that goes on top.
#[derive(Debug, Default)]
pub(crate) struct Chosen {
    pub(crate) additions: Additions,
    pub(crate) image_prompts: Vec<ImagePrompt>,
    pub(crate) recipe: AdditionsRecipe,
    /// The pictures and masks that were read.
    pub(crate) inputs: Vec<PathBuf>,
    /// What a user may not have meant.
    pub(crate) warnings: Vec<String>,
}

/// What the recipe says of it; what there is none of is not said.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct AdditionsRecipe {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    concepts: Vec<ConceptRecipe>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ip_adapter: Option<AdapterRecipe>,
    /// Where there are several: in place of the one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ip_adapters: Vec<AdapterRecipe>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    embeddings: Vec<Named>,
}

/// A file by its name and contents.
#[derive(Debug, Clone, Serialize)]
struct Named {
    name: String,
    digest: String,
}

#[derive(Debug, Clone, Serialize)]
struct ConceptRecipe {
    #[serde(flatten)]
    file: Named,
    scale: f64,
}

#[derive(Debug, Clone, Serialize)]
struct AdapterRecipe {
    #[serde(flatten)]
    file: Named,
    image_encoder: String,
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    blocks: Option<String>,
    images: Vec<ReferenceRecipe>,
}

#[derive(Debug, Clone, Serialize)]
struct ReferenceRecipe {
    #[serde(flatten)]
    file: Named,
    scale: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    mask: Option<Named>,
}

/// Finds and opens what was named; whatever can't be used is refused here, before the model is loaded.
pub(crate) fn choose(
    args: &InpaintArgs,
    checkpoint: &Checkpoint,
    models_dir: Option<&Path>,
) -> Result<Chosen> {
    let mut chosen = Chosen::default();
    let InpaintArgs { references, concepts, .. } = args;
    for typed in &concepts.loras {
        chosen.add_concept(typed, checkpoint, models_dir)?;
    }
    let others = [&args.prompt_2, &args.negative, &args.negative_2];
    let prompts: Vec<&str> =
        [args.prompt.as_str()].into_iter().chain(others.into_iter().filter_map(Option::as_deref)).collect();
    chosen.add_embeddings(concepts, &prompts, checkpoint.family(), models_dir)?;
    for group in &references.0 {
        let recipe = chosen.add_references(group, checkpoint, models_dir)?;
        chosen.recipe.ip_adapters.push(recipe);
    }
    if chosen.recipe.ip_adapters.len() == 1 {
        chosen.recipe.ip_adapter = chosen.recipe.ip_adapters.pop();
    }
    check_concepts(checkpoint, &chosen.additions.concepts)?;
    Ok(chosen)
}

impl Chosen {
    fn add_concept(&mut self, typed: &str, checkpoint: &Checkpoint, models_dir: Option<&Path>) -> Result<()> {
        let shelved = |id: &str| Shelf::Loras.locate(id, Some(checkpoint.dir()), models_dir);
        let exists = |name: &str| Path::new(name).is_file() || shelved(name).is_ok();
        let allowed = format!("a scale from {} to {}", CONCEPT_SCALE.start(), CONCEPT_SCALE.end());
        let (name, scale) = scaled::read("--lora", typed, exists, &allowed)?;
        let scale = scale.unwrap_or(AS_TRAINED);
        if !CONCEPT_SCALE.contains(&scale) {
            return Err(Failure::value("--lora", format!("{name} at the scale {scale}"), allowed));
        }
        let path = Path::new(name);
        let path = if path.is_file() {
            path.to_owned()
        } else {
            match shelved(name) {
                Ok(found) => found,
                // A path is one by its look, so that a misspelt one is told as a file that is not there.
                Err(_) if path.components().count() > 1 => path.to_owned(),
                Err(error) => return Err(error.into()),
            }
        };
        let file = LoraFile::open(&path)?;
        let named = Named { name: file_name(&path), digest: file.digest()? };
        self.recipe.concepts.push(ConceptRecipe { file: named, scale });
        self.additions.concepts.push(Concept { file, scale });
        Ok(())
    }

    fn add_embeddings(
        &mut self,
        args: &ConceptArgs,
        prompts: &[&str],
        family: Family,
        models_dir: Option<&Path>,
    ) -> Result<()> {
        let given = args.embeddings.iter().map(|path| EmbeddingFile::open(path));
        let given = given.collect::<infill_models::Result<Vec<_>>>()?;
        let (found, notes) = embeddings::named_in(prompts, &given, family, models_dir)?;
        self.warnings.extend(notes);
        for file in given.into_iter().chain(found) {
            self.recipe.embeddings.push(Named { name: file_name(file.path()), digest: file.digest()? });
            self.additions.embeddings.push(file);
        }
        Ok(())
    }

    fn add_references(
        &mut self,
        args: &ReferenceArgs,
        checkpoint: &Checkpoint,
        models_dir: Option<&Path>,
    ) -> Result<AdapterRecipe> {
        let (adapter_file, image_encoder) =
            (only("--ip-adapter", &args.adapter)?, only("--image-encoder", &args.image_encoder)?);
        let (kind_typed, blocks_typed) = (only("--ip-type", &args.kind)?, only("--ip-blocks", &args.blocks)?);
        let count = args.images.len();
        if let Some(path) = adapter_file.filter(|_| count == 0) {
            let value = format!("{} without an --ip-image of its own", path.display());
            return Err(Failure::value(
                "--ip-adapter",
                value,
                "one or more after it, before the next --ip-adapter",
            ));
        }
        if !args.masks.is_empty() && args.masks.len() != count {
            let value = format!("given {}", times(args.masks.len()));
            let allowed = format!("none, or {count}, one for each --ip-image in their order");
            return Err(Failure::value("--ip-mask", value, allowed));
        }
        let kind = kind_typed.copied().unwrap_or(IpType::Style);
        let blocks = match (blocks_typed, kind) {
            (Some(blocks), _) => blocks.parse()?,
            (None, IpType::Style) => AdapterBlocks::Style,
            (None, IpType::Character | IpType::Full) => AdapterBlocks::All,
        };
        let named = adapter_file.map(|path| (path.as_path(), image_encoder.map(PathBuf::as_path)));
        let found = adapter(named, kind, checkpoint, models_dir)?;
        let limits = Limits::default();
        let scales = format!("a scale from {} to {}", ADAPTER_SCALE.start(), ADAPTER_SCALE.end());
        let (mut pictures, mut recipes) = (Vec::new(), Vec::new());
        for (index, typed) in args.images.iter().enumerate() {
            let exists = |name: &str| Path::new(name).is_file();
            let (name, scale) = scaled::read("--ip-image", typed, exists, &scales)?;
            let scale = scale.unwrap_or(IMAGE_SCALE);
            let path = Path::new(name);
            let (picture, file) = opened(path, "reference picture", &limits, Picture::decode)?;
            let mask = args.masks.get(index);
            self.inputs.extend([path].into_iter().chain(mask.map(PathBuf::as_path)).map(Path::to_owned));
            let mask = mask.map(|path| opened(path, "reference mask", &limits, Mask::decode)).transpose()?;
            let (mask, mask_file) = mask.unzip();
            pictures.push(Reference { picture, scale, mask });
            recipes.push(ReferenceRecipe { file, scale, mask: mask_file });
        }
        let recipe = AdapterRecipe {
            file: Named { name: file_name(found.file.path()), digest: found.file.digest()? },
            image_encoder: found.image_encoder.digest()?,
            r#type: kind.name(),
            blocks: blocks_typed.cloned(),
            images: recipes,
        };
        self.warnings.extend(found.note);
        let name = file_name(found.file.path());
        let is_face = found.file.kind() == AdapterKind::FullFace || name.to_lowercase().contains("face");
        if is_face && kind_typed.is_none() && blocks_typed.is_none() {
            self.warnings.push(format!(
                "{name} is followed in the blocks of style alone; --ip-type full follows the whole face"
            ));
        }
        self.image_prompts.push(ImagePrompt { references: pictures, blocks });
        self.additions
            .ip_adapters
            .push(IpAdapterSource { file: found.file, image_encoder: found.image_encoder });
        Ok(recipe)
    }
}

/// The one value of a flag that an adapter has one of.
fn only<'a, T>(flag: &str, values: &'a [T]) -> Result<Option<&'a T>> {
    match values {
        [] => Ok(None),
        [one] => Ok(Some(one)),
        more => {
            Err(Failure::value(flag, format!("given {} for one adapter", times(more.len())), "once for each"))
        }
    }
}

/// The adapter that was named, or the one for the purpose, with its encoder.
fn adapter(
    named: Option<(&Path, Option<&Path>)>,
    kind: IpType,
    checkpoint: &Checkpoint,
    models_dir: Option<&Path>,
) -> Result<FoundAdapter> {
    let Some((path, image_encoder)) = named else {
        let purpose = match kind {
            IpType::Style | IpType::Full => AdapterPurpose::Style,
            IpType::Character => AdapterPurpose::Character,
        };
        return Ok(adapters::choose(checkpoint, purpose, models_dir)?);
    };
    let file = AdapterFile::open(path)?;
    if kind == IpType::Character && file.kind() == AdapterKind::Plain {
        let value = format!("character, and {} is a plain adapter", path.display());
        return Err(Failure::value("--ip-type", value, "style, full, or a Plus adapter as --ip-adapter"));
    }
    file.check_model(checkpoint)?;
    let image_encoder = match image_encoder {
        Some(dir) => {
            let encoder = ImageEncoderFolder::open(dir)?;
            file.check_encoder(&encoder)?;
            encoder
        }
        None => adapters::encoder_for(&file, models_dir)?,
    };
    Ok(FoundAdapter { file, image_encoder, note: None })
}

/// A picture and what the recipe says of its file.
fn opened<T>(
    path: &Path,
    what: &str,
    limits: &Limits,
    by: impl Fn(&[u8], &Limits) -> infill_engine::Result<T>,
) -> Result<(T, Named)> {
    let bytes = pictures::bytes(path, what, limits)?;
    let named = Named { name: file_name(path), digest: digest::of(&bytes) };
    Ok((pictures::decode(&bytes, path, what, limits, by)?, named))
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

fn times(count: usize) -> String {
    if count == 1 { "once".to_owned() } else { format!("{count} times") }
}
