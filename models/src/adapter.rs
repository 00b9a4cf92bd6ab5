//! An image prompt adapter (IP-Adapter, Ye et al. 2023, arXiv 2308.06721) and the image encoder that it reads through.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use serde_json::{Map, Value};

use crate::header::read_header;
use crate::json::{self, MAX_CONFIG_BYTES};
use crate::tensor_file::TensorFile;
use crate::weight_files::{Library, Variant};
use crate::{Checkpoint, Component, Error, Family, Result, TensorInfo, digest};

/// How an adapter turns a picture into tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AdapterKind {
    /// The picture's embedding, through one layer, to a few tokens.
    Plain,
    /// All patches, through a resampler, to a few tokens: Plus and Plus-Face, which differ in nothing but their training.
    Plus,
    /// Every patch, through two layers, to a token of its own.
    FullFace,
}

/// An opened adapter: its header is read, its numbers are not.
#[derive(Debug, Clone)]
pub struct AdapterFile {
    file: TensorFile,
    kind: AdapterKind,
    cross_attention_dim: usize,
    encoder_width: usize,
}

impl AdapterFile {
    /// Opens a `.safetensors` file in the layout of the public adapters: `image_proj.*` and `ip_adapter.*`.
    ///
    /// # Errors
    /// [`Error::File`] when it is a pickle, can't be read or holds something else; [`Error::Unsupported`] for the kinds
    /// of adapters that are not run, by name.
    pub fn open(path: &Path) -> Result<Self> {
        let file = TensorFile::open(path, "adapter")?;
        let (kind, encoder_width) = kind(file.tensors(), path)?;
        let cross_attention_dim = cross_attention_dim(file.tensors(), path)?;
        Ok(Self { file, kind, cross_attention_dim, encoder_width })
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// What it holds, by name.
    pub fn tensors(&self) -> &BTreeMap<String, TensorInfo> {
        self.file.tensors()
    }

    /// SHA-256 of its contents.
    ///
    /// # Errors
    /// [`Error::File`] when it can't be read.
    pub fn digest(&self) -> Result<String> {
        self.file.digest()
    }

    /// How it turns a picture into tokens.
    pub fn kind(&self) -> AdapterKind {
        self.kind
    }

    /// The width of a word in the UNet that it is made for.
    pub fn cross_attention_dim(&self) -> usize {
        self.cross_attention_dim
    }

    /// The family of models that it is made for, if its width is that of a published one.
    pub fn family(&self) -> Option<Family> {
        published_model(self.cross_attention_dim).map(|(family, _)| family)
    }

    /// The width of what it reads from the image encoder, and the key in the encoder's `config.json` that must be equal:
    /// `projection_dim` for the plain kind, `hidden_size` for the others.
    pub fn encoder_width(&self) -> (&'static str, usize) {
        (encoder_key(self.kind), self.encoder_width)
    }

    /// Whether it is made for the UNet of `checkpoint`.
    ///
    /// # Errors
    /// [`Error::Unsupported`] with the two widths, and the models that they belong to where those are published ones.
    pub fn check_model(&self, checkpoint: &Checkpoint) -> Result<()> {
        let unet = checkpoint.required("unet")?;
        let needed = match unet.config.get("cross_attention_dim") {
            // diffusers' own default.
            None | Some(Value::Null) => Some(1280),
            Some(Value::Array(levels)) => levels.first().and_then(Value::as_u64),
            Some(width) => width.as_u64(),
        };
        if needed == Some(self.cross_attention_dim as u64) {
            return self.check_layers(checkpoint, unet);
        }
        // What is no number is refused by the network, by name.
        let needed = needed.unwrap_or(0) as usize;
        let named = |width| with_name(width, published_model(width).map(|(_, name)| name));
        Err(Error::Unsupported {
            path: self.path().to_owned(),
            what: "the width of the words that it stands beside".to_owned(),
            value: named(self.cross_attention_dim),
            allowed: format!("{}, as in {}", named(needed), checkpoint.dir().display()),
        })
    }

    /// Whether it stands beside every attention to words of the UNet.
    fn check_layers(&self, checkpoint: &Checkpoint, unet: &Component) -> Result<()> {
        let mut wanted = 0;
        for file in &unet.weight_files {
            wanted += read_header(file)?.keys().filter(|name| name.ends_with(".attn2.to_k.weight")).count();
        }
        let has = |layer: &str, part| self.tensors().contains_key(&format!("{layer}.{part}.weight"));
        let parts = self.tensors().keys().filter(|name| name.starts_with("ip_adapter."));
        let layers: BTreeSet<&str> =
            parts.filter_map(|name| name.match_indices('.').nth(1).map(|(end, _)| &name[..end])).collect();
        for (layer, part) in layers.iter().flat_map(|layer| [(layer, "to_k_ip"), (layer, "to_v_ip")]) {
            if !has(layer, part) {
                return Err(Error::file(
                    self.path(),
                    format!("is incomplete: {layer}.{part}.weight is missing"),
                ));
            }
        }
        if layers.len() == wanted {
            return Ok(());
        }
        Err(Error::Unsupported {
            path: self.path().to_owned(),
            what: "the number of its layers".to_owned(),
            value: format!("{}, so it is incomplete or for another UNet", layers.len()),
            allowed: format!("{wanted}, as in {}", checkpoint.dir().display()),
        })
    }

    /// Whether `encoder` gives what it reads.
    ///
    /// # Errors
    /// [`Error::Unsupported`] with the two widths, and the encoders that they belong to where those are published ones.
    pub fn check_encoder(&self, encoder: &ImageEncoderFolder) -> Result<()> {
        let (key, needed) = self.encoder_width();
        let given = encoder.size(key);
        if given == needed {
            return Ok(());
        }
        let named = |width| with_name(width, published_encoder(key, width));
        Err(Error::Unsupported {
            path: encoder.0.config_path.clone(),
            what: key.to_owned(),
            value: named(given),
            allowed: format!("{}, which {} reads", named(needed), self.path().display()),
        })
    }
}

impl fmt::Display for AdapterKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain => "plain",
            Self::Plus => "Plus",
            Self::FullFace => "Full-Face",
        })
    }
}

/// An opened folder of a `CLIPVisionModelWithProjection`.
#[derive(Debug, Clone)]
pub struct ImageEncoderFolder(Component);

impl ImageEncoderFolder {
    /// Opens a folder with a `config.json` and weights. A `preprocessor_config.json` beside them is optional and must
    /// say what is done anyway.
    ///
    /// # Errors
    /// [`Error::File`] naming what is missing or unreadable, [`Error::Unsupported`] for another class of network or
    /// another preparation of pictures.
    pub fn open(dir: &Path) -> Result<Self> {
        if !dir.is_dir() {
            let needed = "needed: an image encoder's folder with a config.json and weights";
            return Err(Error::file(dir, format!("is not a folder; {needed}")));
        }
        let folder = Self(Component::open(dir, CLASS, Library::Transformers, Variant::Default)?);
        folder.check_class()?;
        let preprocessor = dir.join("preprocessor_config.json");
        if preprocessor.exists() {
            let config = json::read_object(&preprocessor, MAX_CONFIG_BYTES)?;
            check_preprocessor(&config, folder.size("image_size"), &preprocessor)?;
        }
        Ok(folder)
    }

    /// Where it lies.
    pub fn dir(&self) -> &Path {
        self.0.config_path.parent().unwrap_or(&self.0.config_path)
    }

    /// Its configuration and weight files.
    pub fn component(&self) -> &Component {
        &self.0
    }

    /// SHA-256 over its configuration and weights, remembered as a checkpoint's is.
    ///
    /// # Errors
    /// [`Error::File`] when a file can't be read.
    pub fn digest(&self) -> Result<String> {
        digest::of_component(&self.0)
    }

    /// A size in its `config.json`, or transformers' default; 0 where something else stands there, which the network
    /// refuses by name.
    fn size(&self, key: &str) -> usize {
        let default = match key {
            "hidden_size" => 768,
            "projection_dim" => 512,
            "image_size" => 224,
            _ => 0,
        };
        self.0.config.get(key).map_or(default, |value| value.as_u64().unwrap_or(0) as usize)
    }

    /// transformers writes the class into `architectures`, or at least its configuration's name into `model_type`.
    fn check_class(&self) -> Result<()> {
        let refuse = |what: &str, value: String, allowed: &str| {
            let path = self.0.config_path.clone();
            Err(Error::Unsupported { path, what: what.to_owned(), value, allowed: allowed.to_owned() })
        };
        let key = |key| self.0.config.get(key).filter(|value: &&Value| !value.is_null());
        match (key("architectures"), key("model_type")) {
            (Some(classes), _) if !classes.as_array().is_some_and(|c| c.iter().any(|c| c == CLASS)) => {
                let whole = format!(
                    "{CLASS}; of a whole CLIPModel save that part alone: {CLASS}.from_pretrained(FOLDER).save_pretrained(NEW)"
                );
                let is_whole = classes.as_array().is_some_and(|c| c.iter().any(|c| c == "CLIPModel"));
                refuse("architectures", classes.to_string(), if is_whole { &whole } else { CLASS })
            }
            (_, Some(model_type)) if model_type != MODEL_TYPE => {
                refuse("model_type", model_type.to_string(), MODEL_TYPE)
            }
            (None, None) => {
                let needed = format!("needed: architectures with {CLASS}, or model_type {MODEL_TYPE}");
                Err(Error::file(&self.0.config_path, format!("says of no network what it is; {needed}")))
            }
            _ => Ok(()),
        }
    }
}

const CLASS: &str = "CLIPVisionModelWithProjection";
const MODEL_TYPE: &str = "clip_vision_model";

/// CLIP's own mean colour and deviation (transformers: `OPENAI_CLIP_MEAN`, `OPENAI_CLIP_STD`).
const MEAN: [f64; 3] = [0.48145466, 0.4578275, 0.40821073];
const STD: [f64; 3] = [0.26862954, 0.26130258, 0.27577711];

/// Refuses a preparation of pictures other than CLIP's: shortest side to the encoder's size by cubic convolution, the
/// middle cut out, CLIP's mean and deviation.
fn check_preprocessor(config: &Map<String, Value>, side: usize, path: &Path) -> Result<()> {
    let square = |value: &Value, keys: &[&str]| {
        let is_side = |value: Option<&Value>| value.and_then(Value::as_u64) == Some(side as u64);
        match value {
            Value::Object(sides) => {
                sides.len() == keys.len() && keys.iter().all(|key| is_side(sides.get(*key)))
            }
            number => is_side(Some(number)),
        }
    };
    let near = |value: &Value, wanted: &[f64]| {
        let values = value.as_array().map_or(vec![value], |values| values.iter().collect());
        values.len() == wanted.len()
            && values.iter().zip(wanted).all(|(v, w)| v.as_f64().is_some_and(|v| (v - w).abs() < 1e-9))
    };
    for (key, value) in config {
        let (fits, allowed) = match key.as_str() {
            "do_resize" | "do_center_crop" | "do_rescale" | "do_normalize" | "do_convert_rgb" => {
                (*value == true, "true".to_owned())
            }
            "size" => (square(value, &["shortest_edge"]), format!("{{\"shortest_edge\":{side}}}")),
            "crop_size" => {
                (square(value, &["height", "width"]), format!("{{\"height\":{side},\"width\":{side}}}"))
            }
            "resample" => (*value == 3, "3 (bicubic)".to_owned()),
            "rescale_factor" => (near(value, &[1.0 / 255.0]), "1/255".to_owned()),
            "image_mean" => (near(value, &MEAN), format!("{MEAN:?}")),
            "image_std" => (near(value, &STD), format!("{STD:?}")),
            "image_processor_type" | "feature_extractor_type" => {
                let name = value.as_str().unwrap_or_default();
                (PROCESSORS.contains(&name), PROCESSORS.join(", "))
            }
            // What the fast processors write of how they work.
            "default_to_square" => (*value == false, "false".to_owned()),
            "data_format" => (*value == "channels_first", "channels_first".to_owned()),
            "processor_class" | "disable_grouping" => continue,
            key if key.starts_with('_') => continue,
            _ => (false, "the keys of transformers' CLIPImageProcessor".to_owned()),
        };
        // What is null is transformers' default, which is what is done here.
        if !fits && !value.is_null() {
            return Err(Error::Unsupported {
                path: path.to_owned(),
                what: key.clone(),
                value: value.to_string(),
                allowed,
            });
        }
    }
    Ok(())
}

/// The names that CLIP's preparation of pictures has had.
const PROCESSORS: [&str; 4] =
    ["CLIPImageProcessor", "CLIPImageProcessorFast", "CLIPImageProcessorPil", "CLIPFeatureExtractor"];

/// The models whose words have this width, with their name.
fn published_model(width: usize) -> Option<(Family, &'static str)> {
    match width {
        768 => Some((Family::StableDiffusion, "Stable Diffusion 1.5")),
        1024 => Some((Family::StableDiffusion, "Stable Diffusion 2")),
        1280 => Some((Family::StableDiffusionXlRefiner, "the Stable Diffusion XL refiner")),
        2048 => Some((Family::StableDiffusionXl, "Stable Diffusion XL")),
        _ => None,
    }
}

/// The published encoder with this width.
fn published_encoder(key: &str, width: usize) -> Option<&'static str> {
    match (key, width) {
        ("projection_dim", 768) | ("hidden_size", 1024) => Some("CLIP ViT-L/14"),
        ("projection_dim", 1024) | ("hidden_size", 1280) => Some("OpenCLIP ViT-H/14"),
        ("projection_dim", 1280) | ("hidden_size", 1664) => Some("OpenCLIP ViT-bigG/14"),
        _ => None,
    }
}

fn with_name(width: usize, name: Option<&str>) -> String {
    name.map_or_else(|| width.to_string(), |name| format!("{width} ({name})"))
}

fn encoder_key(kind: AdapterKind) -> &'static str {
    match kind {
        AdapterKind::Plain => "projection_dim",
        AdapterKind::Plus | AdapterKind::FullFace => "hidden_size",
    }
}

/// The kind of an adapter and the width of what it reads, told by the names of its projection as diffusers does
/// (`loaders/unet.py`, `_convert_ip_adapter_image_proj_to_diffusers`).
fn kind(tensors: &BTreeMap<String, TensorInfo>, path: &Path) -> Result<(AdapterKind, usize)> {
    let has = |name: &str| tensors.contains_key(name);
    let any = |test: &dyn Fn(&str) -> bool| tensors.keys().any(|name| test(name));
    let refuse = |value: &str| {
        Err(Error::Unsupported {
            path: path.to_owned(),
            what: "the kind of adapter".to_owned(),
            value: value.to_owned(),
            allowed: "plain, Plus, Plus-Face, Full-Face".to_owned(),
        })
    };
    let columns = |name: &str| columns(tensors, name, path);
    if any(&|name| name.starts_with("image_proj.perceiver_resampler.")) {
        return refuse("FaceID Plus, which reads the numbers of a face recogniser");
    }
    if any(&|name| name.starts_with("ip_adapter.") && name.contains("_lora.")) {
        return refuse("FaceID, which reads the numbers of a face recogniser and brings a LoRA");
    }
    if any(&|name| name.starts_with("double_blocks.") || name.starts_with("ip_adapter_proj_model.")) {
        return refuse("one for Flux");
    }
    if any(&|name| name.starts_with("image_proj_model.") || name.starts_with("adapter_modules.")) {
        return refuse("a training's own file, whose names are not those of the published adapters");
    }
    if has("image_proj.proj.weight") {
        return Ok((AdapterKind::Plain, columns("image_proj.proj.weight")?));
    }
    if has("image_proj.proj.3.weight") {
        return Ok((AdapterKind::FullFace, columns("image_proj.proj.0.weight")?));
    }
    if has("image_proj.norm.weight") && has("image_proj.proj.0.weight") {
        return refuse("FaceID, which reads the numbers of a face recogniser");
    }
    if !has("image_proj.latents") {
        let needed = "needed: the tensors image_proj.* and ip_adapter.* of an image prompt adapter";
        return Err(Error::file(path, format!("is no adapter of a known kind; {needed}")));
    }
    if any(&|name| name.starts_with("image_proj.layers.") && name.contains(".attn.")) {
        return refuse("one for Kolors");
    }
    match columns("image_proj.proj_in.weight")? {
        512 => refuse("InstantID, which reads the 512 numbers of a face recogniser"),
        width => Ok((AdapterKind::Plus, width)),
    }
}

/// The width of the words that the attention weights stand beside.
fn cross_attention_dim(tensors: &BTreeMap<String, TensorInfo>, path: &Path) -> Result<usize> {
    let layer = |name: &&String| name.starts_with("ip_adapter.") && name.ends_with(".to_k_ip.weight");
    match tensors.keys().find(layer) {
        Some(name) => columns(tensors, name, path),
        None => {
            Err(Error::file(path, "holds no ip_adapter.*.to_k_ip.weight, an adapter's attention weights"))
        }
    }
}

fn columns(tensors: &BTreeMap<String, TensorInfo>, name: &str, path: &Path) -> Result<usize> {
    match tensors.get(name).map(|info| info.shape.as_slice()) {
        Some(&[_, columns]) => Ok(columns),
        Some(shape) => Err(Error::file(path, format!("has {name} as {shape:?}; needed: two dimensions"))),
        None => Err(Error::file(path, format!("holds no {name}"))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    /// A name and a shape.
    type Entry<'a> = (&'a str, &'a [usize]);

    /// A safetensors file of zeros.
    fn write(path: &Path, tensors: &[Entry<'_>]) {
        let (mut header, mut end) = (Map::new(), 0);
        for (name, shape) in tensors {
            let start = end;
            end += 4 * shape.iter().product::<usize>();
            header.insert(
                (*name).to_owned(),
                json!({"dtype": "F32", "shape": shape, "data_offsets": [start, end]}),
            );
        }
        let header = Value::Object(header).to_string();
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.resize(bytes.len() + end, 0);
        std::fs::write(path, bytes).unwrap();
    }

    fn adapter(tensors: &[Entry<'_>]) -> Result<AdapterFile> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("adapter.safetensors");
        write(&path, tensors);
        AdapterFile::open(&path)
    }

    const K: Entry<'_> = ("ip_adapter.1.to_k_ip.weight", &[4, 768]);
    const PLAIN: Entry<'_> = ("image_proj.proj.weight", &[8, 1024]);

    fn encoder(config: &Value) -> (tempfile::TempDir, Result<ImageEncoderFolder>) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
        write(&dir.path().join("model.safetensors"), &[("visual_projection.weight", &[1, 1])]);
        let folder = ImageEncoderFolder::open(dir.path());
        (dir, folder)
    }

    #[test]
    fn the_kinds_are_told_by_their_projection() {
        let plain = adapter(&[K, PLAIN]).unwrap();
        assert_eq!((plain.kind(), plain.encoder_width()), (AdapterKind::Plain, ("projection_dim", 1024)));
        assert_eq!((plain.cross_attention_dim(), plain.family()), (768, Some(Family::StableDiffusion)));
        let plus = adapter(&[
            ("ip_adapter.1.to_k_ip.weight", &[4, 2048]),
            ("image_proj.latents", &[1, 2, 3]),
            ("image_proj.proj_in.weight", &[3, 1280]),
        ])
        .unwrap();
        assert_eq!((plus.kind(), plus.encoder_width()), (AdapterKind::Plus, ("hidden_size", 1280)));
        assert_eq!(plus.family(), Some(Family::StableDiffusionXl));
        let full = adapter(&[
            ("ip_adapter.1.to_k_ip.weight", &[4, 32]),
            ("image_proj.proj.0.weight", &[3, 1280]),
            ("image_proj.proj.3.weight", &[3]),
        ])
        .unwrap();
        assert_eq!((full.kind(), full.family()), (AdapterKind::FullFace, None));
    }

    #[test]
    fn other_kinds_are_refused_by_their_name() {
        let cases: [(&[Entry<'_>], &str); 9] = [
            (
                &[K, ("image_proj.norm.weight", &[1]), ("image_proj.proj.0.weight", &[1, 1])],
                "is FaceID, which",
            ),
            (&[K, PLAIN, ("ip_adapter.0.to_q_lora.down.weight", &[1, 1])], "is FaceID, which reads"),
            (&[K, ("image_proj.perceiver_resampler.proj_in.weight", &[1, 1])], "is FaceID Plus"),
            (&[("ip_adapter_proj_model.proj.weight", &[1, 1])], "is one for Flux"),
            (&[("image_proj_model.proj.weight", &[1, 1])], "is a training's own file"),
            (
                &[K, ("image_proj.latents", &[1, 1, 1]), ("image_proj.layers.0.attn.to_q.weight", &[1, 1])],
                "is one for Kolors",
            ),
            (
                &[K, ("image_proj.latents", &[1, 1, 1]), ("image_proj.proj_in.weight", &[1, 512])],
                "is InstantID, which",
            ),
            (&[("unet.lora.weight", &[1, 1])], "is no adapter of a known kind"),
            (&[PLAIN], "holds no ip_adapter.*.to_k_ip.weight"),
        ];
        for (tensors, reason) in cases {
            let error = adapter(tensors).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
        let error = adapter(&[K, ("image_proj.proj.weight", &[8])]).unwrap_err().to_string();
        assert!(error.contains("has image_proj.proj.weight as [8]; needed: two dimensions"), "{error}");
    }

    #[test]
    fn an_encoder_must_give_what_the_adapter_reads() {
        let plain = adapter(&[K, PLAIN]).unwrap();
        let (_dir, vit_h) = encoder(&json!({"model_type": MODEL_TYPE, "projection_dim": 1024}));
        plain.check_encoder(&vit_h.unwrap()).unwrap();
        let (_dir, big_g) = encoder(&json!({"architectures": [CLASS], "projection_dim": 1280}));
        let error = plain.check_encoder(&big_g.unwrap()).unwrap_err().to_string();
        assert!(error.contains("config.json: projection_dim is 1280 (OpenCLIP ViT-bigG/14); "), "{error}");
        assert!(error.contains("allowed: 1024 (OpenCLIP ViT-H/14), which "), "{error}");
    }

    #[test]
    fn an_adapter_for_another_family_is_refused() {
        let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/models");
        let checkpoint = Checkpoint::open(&models.join("tiny-sdxl-base")).unwrap();
        let error = adapter(&[K, PLAIN]).unwrap().check_model(&checkpoint).unwrap_err().to_string();
        let words = "the words that it stands beside is 768 (Stable Diffusion 1.5); allowed: 72, as in ";
        assert!(error.contains(words) && error.contains("tiny-sdxl-base"), "{error}");
    }

    #[test]
    fn an_adapter_with_fewer_layers_or_a_gap_is_refused() {
        let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/models");
        let checkpoint = Checkpoint::open(&models.join("tiny-sdxl-base")).unwrap();
        let files = &checkpoint.required("unet").unwrap().weight_files;
        let stored = files.iter().flat_map(|file| read_header(file).unwrap().into_keys());
        let count = stored.filter(|name| name.ends_with("attn2.to_k.weight")).count();
        let names: Vec<String> = (0..count)
            .flat_map(|i| ["k", "v"].map(|part| format!("ip_adapter.{}.to_{part}_ip.weight", 2 * i + 1)))
            .collect();
        let check = |names: &[String]| {
            let layers = names.iter().map(|name| (name.as_str(), &[4, 72][..]));
            let all: Vec<Entry<'_>> = layers.chain([PLAIN]).collect();
            adapter(&all).unwrap().check_model(&checkpoint).map_err(|error| error.to_string())
        };
        check(&names).unwrap();
        let fewer = check(&names[..names.len() - 2]).unwrap_err();
        let counts = format!("the number of its layers is {}, so it is incomplete", count - 1);
        assert!(fewer.contains(&counts) && fewer.contains(&format!("allowed: {count}, as in ")), "{fewer}");
        let gap = check(&names[..names.len() - 1]).unwrap_err();
        let last = format!("is incomplete: ip_adapter.{}.to_v_ip.weight is missing", 2 * count - 1);
        assert!(gap.ends_with(&last), "{gap}");
    }

    #[test]
    fn other_networks_than_the_encoder_are_refused() {
        let refused = |config| encoder(&config).1.unwrap_err().to_string();
        let error = refused(json!({"architectures": ["CLIPModel"], "model_type": "clip"}));
        assert!(error.contains(r#"architectures is ["CLIPModel"]; allowed: CLIPVisionModelWithProjection"#));
        assert!(error.contains("of a whole CLIPModel save that part alone: "), "{error}");
        assert!(refused(json!({"model_type": "siglip_vision_model"})).contains("model_type is \"siglip"));
        assert!(refused(json!({})).contains("says of no network what it is"));
        let error = ImageEncoderFolder::open(Path::new("no/such/folder")).unwrap_err().to_string();
        assert!(error.contains("is not a folder; needed: an image encoder's folder"), "{error}");
    }

    #[test]
    fn another_preparation_of_pictures_is_refused_by_name() {
        let check = |json: Value| {
            check_preprocessor(json.as_object().unwrap(), 224, Path::new("p")).map_err(|e| e.to_string())
        };
        // The two forms in which it is published.
        let old = json!({
            "crop_size": 224, "do_center_crop": true, "do_convert_rgb": true, "do_normalize": true, "do_resize": true,
            "feature_extractor_type": "CLIPFeatureExtractor", "image_mean": MEAN, "image_std": STD, "resample": 3,
            "size": 224,
        });
        check(old.clone()).unwrap();
        let mut new = old;
        new["size"] = json!({"shortest_edge": 224});
        new["crop_size"] = json!({"height": 224, "width": 224});
        new["rescale_factor"] = json!(0.003_921_568_627_450_98);
        new["image_processor_type"] = json!("CLIPImageProcessor");
        (new["_valid_processor_keys"], new["do_pad"]) = (json!(["images"]), Value::Null);
        check(new.clone()).unwrap();
        // What the fast processors add.
        new["image_processor_type"] = json!("CLIPImageProcessorFast");
        (new["default_to_square"], new["data_format"]) = (json!(false), json!("channels_first"));
        (new["disable_grouping"], new["device"]) = (json!(true), Value::Null);
        check(new).unwrap();
        for (wrong, words) in [
            (json!({"do_center_crop": false}), "do_center_crop is false; allowed: true"),
            (json!({"size": 336}), "size is 336; allowed: {\"shortest_edge\":224}"),
            (json!({"size": {"height": 224, "width": 224}}), "allowed: {\"shortest_edge\":224}"),
            (json!({"crop_size": {"height": 224, "width": 225}}), "crop_size is"),
            (json!({"resample": 2}), "resample is 2; allowed: 3 (bicubic)"),
            (json!({"rescale_factor": 1}), "rescale_factor is 1; allowed: 1/255"),
            (json!({"image_mean": [0.5, 0.5, 0.5]}), "image_mean is [0.5,0.5,0.5]"),
            (json!({"image_std": 0.5}), "image_std is 0.5"),
            (json!({"image_processor_type": "SiglipImageProcessor"}), "image_processor_type is"),
            (json!({"do_pad": true}), "do_pad is true"),
            (json!({"default_to_square": true}), "default_to_square is true; allowed: false"),
            (
                json!({"data_format": "channels_last"}),
                "data_format is \"channels_last\"; allowed: channels_first",
            ),
        ] {
            let error = check(wrong).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }
}
