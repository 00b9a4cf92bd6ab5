//! The model under test, and one run of it.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use image::RgbImage;
use infill_engine::additions::{Additions, IpAdapterSource};
use infill_engine::device::{DTypeChoice, DeviceChoice};
use infill_engine::image::Picture;
use infill_engine::image_prompt::{AdapterBlocks, ImagePrompt, Reference};
use infill_engine::mask::Mask;
use infill_engine::pipeline::{LoadOptions, Observer, Pipeline};
use infill_engine::request::{InpaintParams, InpaintRequest};
use infill_models::adapter::{AdapterFile, ImageEncoderFolder};
use infill_models::{Checkpoint, embedded};

use crate::tasks::Task;

/// A loaded model and the numbers of every run.
pub struct Painter {
    pipeline: Pipeline,
    checkpoint: Checkpoint,
    pub size: usize,
    pub steps: usize,
}

/// What a run differs in from the usual one.
#[derive(Clone, Copy)]
pub struct How {
    pub strength: f64,
    /// The scale at which the task's reference picture is followed.
    pub reference: Option<f64>,
}

impl Default for How {
    fn default() -> Self {
        Self { strength: 1.0, reference: None }
    }
}

pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

impl Painter {
    /// The model that the environment names, else the built-in one; none in a build without it.
    pub fn open(size: usize, steps: usize) -> Option<Self> {
        let named = variable("INFILL_EVALUATE_MODEL").map(PathBuf::from);
        let folder = match named {
            Some(folder) => folder,
            None if embedded::is_there() => embedded::unpack().unwrap(),
            None => return None,
        };
        let checkpoint = Checkpoint::open(&folder).unwrap();
        let device: DeviceChoice =
            variable("INFILL_TEST_DEVICE").unwrap_or_else(|| "cpu".into()).parse().unwrap();
        let dtype: DTypeChoice =
            variable("INFILL_TEST_DTYPE").unwrap_or_else(|| "f32".into()).parse().unwrap();
        let device = device.open().unwrap();
        let options = LoadOptions { dtype: dtype.on(&device), device };
        let mut silent = |_| ControlFlow::Continue(());
        let pipeline = Pipeline::load(&checkpoint, &options, &mut Observer::new(&mut silent)).unwrap();
        Some(Self { pipeline, checkpoint, size, steps })
    }

    /// The finished picture of a task.
    pub fn paint(&mut self, task: &Task, how: How) -> RgbImage {
        let image = Picture::from_rgb8(task.picture.clone());
        let mut params = InpaintParams::new(image, Mask::from_luma8(task.mask()), task.prompt.as_str());
        params.seed = task.seed;
        params.num_inference_steps = self.steps;
        params.guidance_scale = variable("INFILL_EVALUATE_GUIDANCE").map(|scale| scale.parse().unwrap());
        params.strength = how.strength;
        let mut additions = Additions::default();
        if let Some(scale) = how.reference {
            additions.ip_adapters.push(self.adapter());
            let picture = Picture::from_rgb8(task.reference.clone());
            let references = vec![Reference { picture, scale, mask: None }];
            params.image_prompts.push(ImagePrompt { references, blocks: AdapterBlocks::Style });
        }
        let request = InpaintRequest::new(params).unwrap();
        let mut silent = |_| ControlFlow::Continue(());
        let mut observer = Observer::new(&mut silent);
        self.pipeline.apply(&self.checkpoint, &additions, &mut observer).unwrap();
        let mut painted = None;
        let keep = &mut |one: infill_engine::pipeline::Painted| {
            painted = Some(one.picture.to_rgb8());
            Ok(())
        };
        self.pipeline.inpaint(&request, &mut observer, keep).unwrap();
        painted.unwrap()
    }

    /// The model's folder.
    pub fn folder(&self) -> &Path {
        self.checkpoint.dir()
    }

    /// The loaded networks.
    pub fn pipeline(&self) -> &Pipeline {
        &self.pipeline
    }

    /// Whether the model brings an adapter for reference pictures.
    pub fn has_adapter(&self) -> bool {
        self.checkpoint.dir().join("ip_adapter").is_dir()
    }

    /// The model's own adapter.
    fn adapter(&self) -> IpAdapterSource {
        let folder = self.checkpoint.dir().join("ip_adapter");
        let entries = folder.read_dir().unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        let files: Vec<PathBuf> = entries
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "safetensors"))
            .collect();
        assert_eq!(files.len(), 1, "adapters in {}", folder.display());
        IpAdapterSource {
            file: AdapterFile::open(&files[0]).unwrap(),
            image_encoder: ImageEncoderFolder::open(&self.checkpoint.dir().join("image_encoder")).unwrap(),
        }
    }
}
