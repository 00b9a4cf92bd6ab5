//! A diffusers folder, opened: what the model is, how it is configured and which files hold its weights.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::json::{self, MAX_CONFIG_BYTES};
use crate::weight_files::{self, Library, Variant};
use crate::{Error, Result};

/// The kind of model that a checkpoint is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// Stable Diffusion 1 and 2: one text encoder.
    StableDiffusion,
    /// Stable Diffusion XL: two text encoders, the second with a projection.
    StableDiffusionXl,
    /// The refiner of Stable Diffusion XL: the second text encoder only.
    StableDiffusionXlRefiner,
}

/// One network of a checkpoint.
#[derive(Debug, Clone)]
pub struct Component {
    /// Its class in diffusers or transformers, such as `UNet2DConditionModel`.
    pub class: String,
    /// Where its `config.json` lies.
    pub config_path: PathBuf,
    /// The `config.json` itself: an object.
    pub config: Value,
    /// The safetensors files that together hold its weights.
    pub weight_files: Vec<PathBuf>,
}

/// An opened checkpoint.
///
/// Opening reads the small files and looks that the large ones are there; it does not read weights.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    dir: PathBuf,
    family: Family,
    is_inpaint: bool,
    model_index: Value,
    scheduler_config: Value,
    classes: BTreeMap<String, String>,
    components: BTreeMap<String, Component>,
}

/// The pipelines whose folders can be run; the first word decides on the family.
const PIPELINES: [(&str, Family); 6] = [
    ("StableDiffusionPipeline", Family::StableDiffusion),
    ("StableDiffusionImg2ImgPipeline", Family::StableDiffusion),
    ("StableDiffusionInpaintPipeline", Family::StableDiffusion),
    ("StableDiffusionXLPipeline", Family::StableDiffusionXl),
    ("StableDiffusionXLImg2ImgPipeline", Family::StableDiffusionXl),
    ("StableDiffusionXLInpaintPipeline", Family::StableDiffusionXl),
];

/// What a folder of a checkpoint holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    /// A network: configuration and weights.
    Network(Library),
    /// Files that the reader of the tokens opens itself.
    Tokenizer,
    /// `scheduler_config.json`; which schedulers there are is the engine's business.
    Scheduler,
    /// Not part of the picture's mathematics, and not run.
    Unused,
}

/// Every component that a pipeline may name, what it is and the classes that can be run.
const COMPONENTS: [(&str, Role, &[&str]); 10] = [
    ("unet", Role::Network(Library::Diffusers), &["UNet2DConditionModel"]),
    ("vae", Role::Network(Library::Diffusers), &["AutoencoderKL"]),
    ("text_encoder", Role::Network(Library::Transformers), &["CLIPTextModel"]),
    ("text_encoder_2", Role::Network(Library::Transformers), &["CLIPTextModelWithProjection"]),
    ("tokenizer", Role::Tokenizer, &["CLIPTokenizer", "CLIPTokenizerFast"]),
    ("tokenizer_2", Role::Tokenizer, &["CLIPTokenizer", "CLIPTokenizerFast"]),
    ("scheduler", Role::Scheduler, &[]),
    ("safety_checker", Role::Unused, &[]),
    ("feature_extractor", Role::Unused, &[]),
    ("image_encoder", Role::Unused, &[]),
];

impl Checkpoint {
    /// Opens a diffusers folder, preferring the weights without a variant.
    ///
    /// # Errors
    /// See [`Checkpoint::open_variant`].
    pub fn open(dir: &Path) -> Result<Self> {
        Self::open_variant(dir, Variant::Default)
    }

    /// Opens a diffusers folder, preferring the weight files of one variant.
    ///
    /// # Errors
    /// [`Error::File`] naming the file that is missing, unreadable, too large or not what it should be;
    /// [`Error::Unsupported`] naming the pipeline, component or number of channels that can't be run.
    pub fn open_variant(dir: &Path, variant: Variant) -> Result<Self> {
        let index_path = dir.join("model_index.json");
        if !dir.is_dir() {
            return Err(Error::file(
                dir,
                "is not a folder; needed: a diffusers folder with a model_index.json",
            ));
        }
        if !index_path.exists() {
            return Err(Error::file(
                dir,
                "has no model_index.json; needed: a diffusers folder, with that file and unet/, vae/, text_encoder/",
            ));
        }
        let index = json::read_object(&index_path, MAX_CONFIG_BYTES)?;
        let classes = component_classes(&index, &index_path)?;
        let family = family(&index, &classes, &index_path)?;
        check_flags(&index, &index_path)?;
        for name in required(family) {
            if !classes.contains_key(*name) {
                return Err(Error::file(&index_path, format!("names no {name}, which {family} needs")));
            }
        }
        let mut components = BTreeMap::new();
        for (name, role, _) in COMPONENTS {
            let Some(class) = classes.get(name) else { continue };
            let folder = dir.join(name);
            match role {
                Role::Network(library) => {
                    components.insert(name.to_owned(), Component::open(&folder, class, library, variant)?);
                }
                Role::Tokenizer if !folder.is_dir() => {
                    return Err(Error::file(
                        &folder,
                        format!("is missing; {} names it", index_path.display()),
                    ));
                }
                Role::Tokenizer | Role::Scheduler | Role::Unused => {}
            }
        }
        let scheduler_config =
            json::read_object(&dir.join("scheduler/scheduler_config.json"), MAX_CONFIG_BYTES)?;
        let mut checkpoint = Self {
            dir: dir.to_owned(),
            family,
            is_inpaint: false,
            model_index: Value::Object(index),
            scheduler_config: Value::Object(scheduler_config),
            classes,
            components,
        };
        checkpoint.is_inpaint = checkpoint.unet_channels()? == 9;
        Ok(checkpoint)
    }

    /// The folder that was opened.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What kind of model it is.
    pub fn family(&self) -> Family {
        self.family
    }

    /// Whether the UNet was trained to inpaint: nine input channels instead of four.
    pub fn is_inpaint(&self) -> bool {
        self.is_inpaint
    }

    /// `model_index.json`: an object.
    pub fn model_index(&self) -> &Value {
        &self.model_index
    }

    /// `scheduler/scheduler_config.json`: an object, its class under `_class_name`.
    ///
    /// # Errors
    /// [`Error::File`] when it names no class.
    pub fn scheduler_config(&self) -> Result<&Value> {
        match self.scheduler_config.get("_class_name") {
            Some(Value::String(_)) => Ok(&self.scheduler_config),
            _ => Err(Error::file(&self.dir.join("scheduler/scheduler_config.json"), "has no _class_name")),
        }
    }

    /// The network `name` (`unet`, `vae`, `text_encoder`, `text_encoder_2`), if the model has it.
    pub fn component(&self, name: &str) -> Option<&Component> {
        self.components.get(name)
    }

    /// All networks by name.
    pub fn components(&self) -> impl Iterator<Item = (&str, &Component)> {
        self.components.iter().map(|(name, component)| (name.as_str(), component))
    }

    /// The network `name`, which the model must have.
    ///
    /// # Errors
    /// [`Error::File`] when `model_index.json` names none.
    pub fn required(&self, name: &str) -> Result<&Component> {
        self.component(name).ok_or_else(|| self.names_no(name))
    }

    /// The folder of the component `name`: `tokenizer`, `tokenizer_2`, `unet`, ...
    ///
    /// # Errors
    /// [`Error::File`] when `model_index.json` names none.
    pub fn folder(&self, name: &str) -> Result<PathBuf> {
        if self.classes.contains_key(name) { Ok(self.dir.join(name)) } else { Err(self.names_no(name)) }
    }

    /// The class that `model_index.json` gives the component `name`.
    pub fn class_of(&self, name: &str) -> Option<&str> {
        self.classes.get(name).map(String::as_str)
    }

    /// Whether an absent negative prompt is encoded as zeros and not as an empty text (diffusers' SDXL pipelines,
    /// which have `true` where the file says nothing). Never for Stable Diffusion 1 and 2.
    pub fn force_zeros_for_empty_prompt(&self) -> bool {
        self.family != Family::StableDiffusion && self.flag("force_zeros_for_empty_prompt", true)
    }

    /// Whether the time ids end in an aesthetics score (the refiner) and not in the target size.
    pub fn requires_aesthetics_score(&self) -> bool {
        self.flag("requires_aesthetics_score", false)
    }

    /// The guidance scale that the checkpoint is best run at, where `model_index.json` gives one under
    /// [`GUIDANCE_SCALE`].
    pub fn guidance_scale(&self) -> Option<f64> {
        self.model_index.get(GUIDANCE_SCALE).and_then(Value::as_f64)
    }

    /// The blocks that carry style, by diffusers' map, where `model_index.json` names them under [`STYLE_BLOCKS`].
    pub fn style_blocks(&self) -> Option<&Value> {
        self.model_index.get(STYLE_BLOCKS)
    }

    fn flag(&self, key: &str, default: bool) -> bool {
        self.model_index.get(key).and_then(Value::as_bool).unwrap_or(default)
    }

    fn names_no(&self, name: &str) -> Error {
        Error::file(&self.dir.join("model_index.json"), format!("names no {name}"))
    }

    fn unet_channels(&self) -> Result<u64> {
        let unet = self.required("unet")?;
        // diffusers' own default is 4.
        let channels = unet.config.get("in_channels").unwrap_or(&Value::Null);
        match channels.as_u64() {
            _ if channels.is_null() => Ok(4),
            Some(channels @ (4 | 9)) => Ok(channels),
            _ => Err(Error::Unsupported {
                path: unet.config_path.clone(),
                what: "in_channels".into(),
                value: channels.to_string(),
                allowed: "4 (a base model), 9 (an inpainting model)".into(),
            }),
        }
    }
}

impl Component {
    pub(crate) fn open(dir: &Path, class: &str, library: Library, variant: Variant) -> Result<Self> {
        let config_path = dir.join("config.json");
        let config = Value::Object(json::read_object(&config_path, MAX_CONFIG_BYTES)?);
        let weight_files = weight_files::find(dir, library, variant)?;
        Ok(Self { class: class.to_owned(), config_path, config, weight_files })
    }
}

impl std::fmt::Display for Family {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::StableDiffusion => "Stable Diffusion",
            Self::StableDiffusionXl => "Stable Diffusion XL",
            Self::StableDiffusionXlRefiner => "the Stable Diffusion XL refiner",
        })
    }
}

/// Parses a `model_index.json` as far as it can be judged without its folder: pipeline, components, flags.
///
/// Total over all inputs; meant for texts from anywhere.
///
/// # Errors
/// As [`Checkpoint::open`], with `path` as the file's name.
pub fn parse_model_index(bytes: &[u8], path: &Path) -> Result<Family> {
    let index = json::parse_object(bytes).map_err(|reason| Error::file(path, reason))?;
    let classes = component_classes(&index, path)?;
    check_flags(&index, path)?;
    family(&index, &classes, path)
}

/// Component name to class name, for the components that are there: `[library, class]`, absent as `[null, null]`.
fn component_classes(index: &Map<String, Value>, path: &Path) -> Result<BTreeMap<String, String>> {
    let mut classes = BTreeMap::new();
    for (name, value) in index {
        let Value::Array(pair) = value else { continue };
        if name.starts_with('_') {
            continue;
        }
        let class = match pair.as_slice() {
            [_, Value::Null] => continue,
            [_, Value::String(class)] => class,
            _ => return Err(Error::file(path, format!("gives {name} as {value}; needed: [library, class]"))),
        };
        let unsupported = |what: String, value: String, allowed: String| {
            Err(Error::Unsupported { path: path.to_owned(), what, value, allowed })
        };
        let Some((_, _, allowed)) = COMPONENTS.iter().find(|(known, _, _)| known == name) else {
            let known: Vec<&str> = COMPONENTS.iter().map(|(known, _, _)| *known).collect();
            return unsupported("component".into(), format!("{name} ({class})"), known.join(", "));
        };
        if !allowed.is_empty() && !allowed.contains(&class.as_str()) {
            return unsupported(format!("the class of {name}"), class.clone(), allowed.join(", "));
        }
        classes.insert(name.clone(), class.clone());
    }
    Ok(classes)
}

fn family(index: &Map<String, Value>, classes: &BTreeMap<String, String>, path: &Path) -> Result<Family> {
    let class = index.get("_class_name").unwrap_or(&Value::Null);
    let known = PIPELINES.iter().find(|(name, _)| class.as_str() == Some(*name));
    match known {
        Some((_, Family::StableDiffusionXl)) if !classes.contains_key("text_encoder") => {
            Ok(Family::StableDiffusionXlRefiner)
        }
        Some((_, family)) => Ok(*family),
        None => Err(Error::Unsupported {
            path: path.to_owned(),
            what: "_class_name".into(),
            value: class.to_string(),
            allowed: PIPELINES.map(|(name, _)| name).join(", "),
        }),
    }
}

/// The components without which a family can't be run.
fn required(family: Family) -> &'static [&'static str] {
    match family {
        Family::StableDiffusion => &["unet", "vae", "text_encoder", "tokenizer", "scheduler"],
        Family::StableDiffusionXl => {
            &["unet", "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "scheduler"]
        }
        Family::StableDiffusionXlRefiner => &["unet", "vae", "text_encoder_2", "tokenizer_2", "scheduler"],
    }
}

/// Our own key in a `model_index.json`: the guidance scale of a request that names none. diffusers passes over keys that
/// begin so.
const GUIDANCE_SCALE: &str = "_guidance_scale";

/// Our own key in a `model_index.json`: what of its UNet listens to a reference picture of the type "style".
const STYLE_BLOCKS: &str = "_ip_adapter_style";

/// The flags of the pipeline that change a picture must be what they are read as.
fn check_flags(index: &Map<String, Value>, path: &Path) -> Result<()> {
    let guidance = index.get(GUIDANCE_SCALE);
    if let Some(value) = guidance.filter(|v| !v.as_f64().is_some_and(|scale| (0.0..=20.0).contains(&scale))) {
        let reason = format!("gives {GUIDANCE_SCALE} as {value}; needed: a number from 0 to 20");
        return Err(Error::file(path, reason));
    }
    for key in ["force_zeros_for_empty_prompt", "requires_aesthetics_score"] {
        if let Some(value) = index.get(key).filter(|value| !value.is_boolean()) {
            return Err(Error::file(path, format!("gives {key} as {value}; needed: true or false")));
        }
    }
    Ok(())
}
