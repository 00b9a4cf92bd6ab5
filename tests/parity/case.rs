//! One case of the reference: what was asked of diffusers, what it computed, and how exactly.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use infill_engine::VaeTileSize;
use infill_engine::additions::{Additions, Concept, IpAdapterSource};
use infill_engine::device::{DTypeChoice, DeviceChoice};
use infill_engine::image::{Limits, Picture};
use infill_engine::image_prompt::{AdapterBlocks, BlockMap, ImagePrompt, Reference};
use infill_engine::mask::Mask;
use infill_engine::request::{InpaintParams, PROMPT_LIMIT, PromptSyntax, SchedulerChoice};
use infill_models::Checkpoint;
use infill_models::adapter::{AdapterFile, ImageEncoderFolder};
use infill_models::lora::LoraFile;
use serde_json::Value;

/// Where models, pictures and reference tensors lie.
pub struct Folders {
    pub models: PathBuf,
    pub images: PathBuf,
    pub reference: PathBuf,
}

impl Folders {
    /// The committed fixtures.
    pub fn committed() -> Self {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
        Self {
            models: fixtures.join("models"),
            images: fixtures.join("images"),
            reference: fixtures.join("reference"),
        }
    }

    /// The names of all cases, sorted.
    pub fn cases(&self) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(&self.reference)
            .unwrap_or_else(|e| panic!("{}: {e}", self.reference.display()))
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|e| e == "safetensors"))
            .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
            .collect();
        names.sort();
        names
    }

    /// Opens the checkpoint of a case.
    pub fn checkpoint(&self, model: &str) -> Checkpoint {
        Checkpoint::open(&self.models.join(model)).unwrap_or_else(|e| panic!("{model}: {e}"))
    }

    fn image(&self, name: &str) -> Vec<u8> {
        let path = self.images.join(name);
        std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }
}

/// The device and the number format under test.
pub fn device_and_dtype() -> (Device, DType) {
    let read = |name: &str, default: &str| std::env::var(name).unwrap_or_else(|_| default.to_owned());
    let device: DeviceChoice = read("INFILL_TEST_DEVICE", "cpu").parse().unwrap();
    let dtype: DTypeChoice = read("INFILL_TEST_DTYPE", "f32").parse().unwrap();
    let device = device.open().unwrap();
    let dtype = dtype.on(&device);
    (device, dtype)
}

/// One case.
pub struct Case {
    pub name: String,
    pub model: String,
    /// Where diffusers refused, what it said.
    pub error: Option<String>,
    /// `max |f32 - f64|` and `max |f64|` of each group of tensors.
    pub floor: HashMap<String, (f64, f64)>,
    meta: Value,
    tensors: HashMap<String, Tensor>,
}

impl Case {
    /// Reads `<name>.json` and `<name>.safetensors`.
    pub fn read(folders: &Folders, name: &str) -> Self {
        let path = folders.reference.join(name);
        let text = std::fs::read_to_string(path.with_added_extension("json")).unwrap();
        // Python writes an infinite scheduler value as no JSON reader takes it.
        let text = text.replace("-Infinity", "\"-inf\"");
        let meta: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
        let tensors =
            candle_core::safetensors::load(path.with_added_extension("safetensors"), &Device::Cpu).unwrap();
        Self {
            name: name.into(),
            model: meta["model"].as_str().unwrap().into(),
            error: meta["error"].as_str().map(str::to_owned),
            floor: floors(&meta["floor"]),
            meta,
            tensors,
        }
    }

    /// What is put on top of the checkpoint.
    pub fn additions(&self, folders: &Folders) -> Additions {
        let mut additions = Additions::default();
        if let Some(lora) = self.meta.get("lora").filter(|lora| !lora.is_null()) {
            let path = folders.models.join("lora").join(lora["file"].as_str().unwrap());
            let file = LoraFile::open(&path).unwrap_or_else(|e| panic!("{}: {e}", self.name));
            additions.concepts.push(Concept { file, scale: lora["scale"].as_f64().unwrap() });
        }
        let root = folders.models.join("ip_adapter");
        for file in self.meta["ip"]["weights"].as_array().into_iter().flatten() {
            let path = root.join(file[0].as_str().unwrap()).join(file[1].as_str().unwrap());
            additions.ip_adapters.push(IpAdapterSource {
                file: AdapterFile::open(&path).unwrap_or_else(|e| panic!("{}: {e}", self.name)),
                image_encoder: ImageEncoderFolder::open(&root.join("models/image_encoder")).unwrap(),
            });
        }
        additions
    }

    /// The reference pictures. A scale stands for all adapters, or there is one for each; in turn one for each of its
    /// pictures, or a map of blocks. Masks of the first adapter may stand without the list of adapters around them.
    fn image_prompts(&self, folders: &Folders) -> Vec<ImagePrompt> {
        let ip = &self.meta["ip"];
        let images = ip["images"].as_array().cloned().unwrap_or_default();
        let of = |value: &Value, index: usize| value.get(index).unwrap_or(value).clone();
        let prompt = |(adapter, names): (usize, &Value)| {
            let scale = of(&ip["scale"], adapter);
            let masks = if ip["masks"][0].is_string() { &ip["masks"] } else { &ip["masks"][adapter] };
            let reference = |(i, name): (usize, &Value)| {
                let mask = masks[i].as_str().map(|mask| folders.image(mask));
                Reference {
                    picture: Picture::decode(&folders.image(name.as_str().unwrap()), &Limits::default())
                        .unwrap(),
                    scale: of(&scale, i).as_f64().unwrap_or(1.0),
                    mask: mask.map(|bytes| Mask::decode(&bytes, &Limits::default()).unwrap()),
                }
            };
            let blocks = match scale.is_object() {
                true => AdapterBlocks::Custom(BlockMap::from_json(&scale).unwrap()),
                false => AdapterBlocks::All,
            };
            ImagePrompt {
                references: names.as_array().unwrap().iter().enumerate().map(reference).collect(),
                blocks,
            }
        };
        images.iter().enumerate().map(prompt).collect()
    }

    /// True if the reference holds this tensor.
    pub fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// The reference's tensor.
    pub fn tensor(&self, name: &str) -> Tensor {
        self.tensors.get(name).unwrap_or_else(|| panic!("{}: the reference has no {name}", self.name)).clone()
    }

    /// The names of the reference's tensors, sorted.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.tensors.keys().map(String::as_str).collect();
        names.sort_unstable();
        names
    }

    /// How far diffusers itself is from exact in this half-precision format, where that was recorded.
    pub fn half_floor(&self, dtype: DType, group: &str) -> Option<f64> {
        let key = match dtype {
            DType::F16 => "f16",
            DType::BF16 => "bf16",
            _ => return None,
        };
        self.meta["half"][key][group]["max_abs_diff"].as_f64()
    }

    /// True where the case was run in this format.
    pub fn covers(&self, dtype: DType) -> bool {
        dtype == DType::F32 || self.half_floor(dtype, "step/latents").is_some()
    }

    /// The same request for infill, raw: without merging.
    pub fn params(&self, folders: &Folders, checkpoint: &Checkpoint) -> InpaintParams {
        let kwargs = &self.meta["kwargs"];
        let text = |key: &str| kwargs[key].as_str().map(str::to_owned);
        let number = |key: &str| kwargs[key].as_f64();
        let count = |key: &str| kwargs[key].as_u64();
        let pair = |key: &str| {
            let side = |i: usize| kwargs[key][i].as_u64().map(|n| n as u32);
            side(0).zip(side(1))
        };
        let image = Picture::decode(&folders.image(&text("image").unwrap()), &Limits::default()).unwrap();
        let mut mask =
            Mask::decode(&folders.image(&text("mask_image").unwrap()), &Limits::default()).unwrap();
        if mask.size() != image.size() {
            // diffusers resizes picture and mask each by itself; infill wants one size. Such a case's picture has the
            // work size already, so that this is the only resizing of its mask.
            mask = Mask::from_luma8(mask.to_size(image.size()));
        }

        let mut params = InpaintParams::new(image, mask, text("prompt").unwrap());
        params.prompt_2 = text("prompt_2");
        params.negative_prompt = text("negative_prompt");
        params.negative_prompt_2 = text("negative_prompt_2");
        params.seed = self.meta["seed"].as_u64().unwrap();
        params.num_images_per_prompt = count("num_images_per_prompt").unwrap_or(1) as usize;
        params.num_inference_steps = count("num_inference_steps").unwrap() as usize;
        params.strength = number("strength").unwrap();
        params.guidance_scale = number("guidance_scale");
        params.guidance_rescale = number("guidance_rescale").unwrap_or(0.0);
        params.eta = number("eta").unwrap_or(0.0);
        params.clip_skip = count("clip_skip").map(|n| n as usize);
        params.padding_mask_crop = count("padding_mask_crop").map(|n| n as u32);
        params.vae_tile_size = count("vae_tile_size").map(|pixels| VaeTileSize::new(pixels as u32).unwrap());
        params.denoising_start = number("denoising_start");
        params.denoising_end = number("denoising_end");
        // diffusers reads brackets as characters and cuts a long prompt, unless it was fed with embeddings.
        if self.meta["prompt_syntax"] != "weighted" {
            params.prompt_syntax = PromptSyntax::Plain;
            params.prompt_limit = Some(PROMPT_LIMIT);
        }
        params.allow_empty_mask = true;
        params.merge = false;

        // diffusers' own default is the UNet's sample size; infill's is the picture's.
        let unet = &checkpoint.component("unet").unwrap().config;
        let side = |key: &str| count(key).unwrap_or_else(|| 8 * unet["sample_size"].as_u64().unwrap()) as u32;
        (params.width, params.height) = (Some(side("width")), Some(side("height")));

        let sizes = &mut params.micro_conditioning;
        sizes.original_size = pair("original_size");
        sizes.target_size = pair("target_size");
        sizes.negative_original_size = pair("negative_original_size");
        sizes.negative_target_size = pair("negative_target_size");
        sizes.crops_coords_top_left = pair("crops_coords_top_left").unwrap_or((0, 0));
        sizes.negative_crops_coords_top_left = pair("negative_crops_coords_top_left").unwrap_or((0, 0));
        sizes.aesthetic_score = number("aesthetic_score").unwrap_or(sizes.aesthetic_score);
        sizes.negative_aesthetic_score =
            number("negative_aesthetic_score").unwrap_or(sizes.negative_aesthetic_score);
        params.scheduler = self.scheduler_choice(checkpoint);
        params.image_prompts = self.image_prompts(folders);
        params
    }

    /// The scheduler as a user would ask for it: a class, and the values that differ from what `from_config` gives.
    fn scheduler_choice(&self, checkpoint: &Checkpoint) -> SchedulerChoice {
        if self.meta["scheduler"] == "repo default" {
            return SchedulerChoice::default();
        }
        let own = checkpoint.scheduler_config().unwrap();
        let used = self.meta["scheduler_config"].as_object().unwrap();
        let defaults = used.get("_use_default_values").and_then(Value::as_array).cloned().unwrap_or_default();
        let overrides = used
            .iter()
            .filter(|(key, value)| {
                !key.starts_with('_')
                    && own.get(*key) != Some(value)
                    && !defaults.contains(&Value::from(key.as_str()))
            })
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        let kind = self.meta["scheduler_class"].as_str().unwrap().parse().unwrap();
        SchedulerChoice { kind: Some(kind), overrides }
    }
}

fn floors(groups: &Value) -> HashMap<String, (f64, f64)> {
    let number = |floor: &Value, key: &str| floor[key].as_f64().unwrap();
    groups
        .as_object()
        .unwrap()
        .iter()
        .map(|(group, floor)| (group.clone(), (number(floor, "max_abs_diff"), number(floor, "max_abs"))))
        .collect()
}
