//! `infill demo`: what the built-in model can do, as one sheet of pictures.

use std::ops::ControlFlow;
use std::time::Instant;

use infill_engine::additions::{Additions, IpAdapterSource};
use infill_engine::device::{DTypeChoice, DeviceChoice, device_name, dtype_name};
use infill_engine::image::sheet::{Row, Sheet, Tile};
use infill_engine::image::{Limits, Picture};
use infill_engine::image_prompt::{AdapterBlocks, ImagePrompt, Reference};
use infill_engine::mask::Mask;
use infill_engine::pipeline::{LoadOptions, Pipeline, Progress};
use infill_engine::request::{InpaintParams, InpaintRequest, STEPS};
use infill_models::adapter::{AdapterFile, ImageEncoderFolder};
use infill_models::{Checkpoint, catalogue, embedded};
use serde::Serialize;

use crate::args::DemoArgs;
use crate::attend::attend;
use crate::failure::{Failure, Result};
use crate::output::Output;
use crate::progress::{Seconds, Watch};
use crate::settings::Settings;
use crate::{cancel, report, stdout, strip};

/// One row of the sheet. Pictures are names in the model's folder `demo/`, without `.png`; the mask of `image` lies beside
/// it, with `-mask` behind its name.
struct Scene {
    title: &'static str,
    image: &'static str,
    prompt: &'static str,
    strength: f64,
    samples: usize,
    reference: Option<&'static str>,
}

/// One of the rows is painted at a strength below 1, which leaves none of a single step.
const LEAST_STEPS: usize = 2;

const SCENES: [Scene; 6] = [
    Scene {
        title: "Remove: no words, and the background goes on",
        image: "sky",
        prompt: "",
        strength: 1.0,
        samples: 1,
        reference: None,
    },
    Scene {
        title: "Replace",
        image: "sky",
        prompt: "a white star",
        strength: 1.0,
        samples: 1,
        reference: None,
    },
    Scene {
        title: "Recolour: a strength below 1 keeps what was there in sight",
        image: "heart",
        prompt: "a flat purple heart",
        strength: 0.8,
        samples: 1,
        reference: None,
    },
    Scene {
        title: "Words say the colour, a reference picture the shape",
        image: "wall",
        prompt: "a yellow shape",
        strength: 1.0,
        samples: 1,
        reference: Some("diamond"),
    },
    Scene {
        title: "A style",
        image: "night",
        prompt: "a neon cyan heart",
        strength: 1.0,
        samples: 1,
        reference: None,
    },
    Scene {
        title: "Three seeds",
        image: "sky",
        prompt: "a yellow heart",
        strength: 1.0,
        samples: 3,
        reference: None,
    },
];

/// The JSON object of `--json`.
#[derive(Debug, Serialize)]
struct Told {
    sheet: String,
    width: u32,
    height: u32,
    model: &'static str,
    digest: String,
    device: String,
    dtype: String,
    scenes: Vec<ToldScene>,
    seconds: Seconds,
}

/// One row of the sheet.
#[derive(Debug, Serialize)]
struct ToldScene {
    title: &'static str,
    prompt: &'static str,
    strength: f64,
    seeds: Vec<u64>,
    seconds: f64,
}

/// The demonstration, ready to begin.
struct Job {
    device: DeviceChoice,
    dtype: DTypeChoice,
    output: Output,
    watch: Watch,
    steps: usize,
    seed: u64,
}

pub(crate) fn run(args: &DemoArgs, settings: &Settings) -> Result<()> {
    if args.steps < LEAST_STEPS {
        let allowed = format!("{LEAST_STEPS} to {}", STEPS.end());
        return Err(Failure::value("--steps", args.steps, allowed));
    }
    let job = Job {
        device: settings.device(args.device.as_deref())?,
        dtype: settings.dtype(args.dtype.as_deref())?,
        output: Output::check("--out", &args.out, 1, &[], false)?,
        watch: Watch::start(args.quiet),
        steps: args.steps,
        seed: args.seed,
    };
    let bar = job.watch.bar();
    let outcome = attend(|| job.run());
    bar.finish_and_clear();
    let told = outcome?;
    if args.json { stdout::json(&told) } else { stdout::line(&told.sheet) }
}

impl Job {
    fn run(self) -> Result<Told> {
        let Self { device, dtype, output, mut watch, steps, seed } = self;
        let scenes_here: Vec<&Scene> =
            SCENES.iter().filter(|scene| scene.reference.is_none() || adapter_file().is_some()).collect();
        let requests =
            scenes_here.iter().map(|scene| request(scene, steps, seed)).collect::<Result<Vec<_>>>()?;
        let checkpoint = catalogue::find(embedded::ID, None)?;
        let options = LoadOptions::choose(device, dtype)?;
        let mut pipeline = {
            let mut progress = |progress| see(&mut watch, progress);
            Pipeline::load(&checkpoint, &options, &mut cancel::observer(&mut progress))?
        };
        let (mut rows, mut scenes) = (Vec::new(), Vec::new());
        for (number, (scene, request)) in scenes_here.iter().zip(&requests).enumerate() {
            watch.about(format!("{}/{}: ", number + 1, scenes_here.len()));
            let mut additions = Additions::default();
            if let Some(file) = adapter_file().filter(|_| scene.reference.is_some()) {
                additions.ip_adapters.push(IpAdapterSource {
                    file: AdapterFile::open(&checkpoint.dir().join(file))?,
                    image_encoder: ImageEncoderFolder::open(&checkpoint.dir().join("image_encoder"))?,
                });
            }
            let began = Instant::now();
            rows.push(paint(&mut pipeline, &checkpoint, &additions, scene, request, &mut watch)?);
            scenes.push(ToldScene {
                title: scene.title,
                prompt: scene.prompt,
                strength: scene.strength,
                seeds: (0..scene.samples).map(|index| request.seed_of(index)).collect(),
                seconds: began.elapsed().as_secs_f64(),
            });
        }
        let sheet = Sheet { rows }.draw();
        let size = sheet.size();
        let path = output.write(0, &sheet.encode_png(None)?)?;
        Ok(Told {
            sheet: report::path_text(path),
            width: size.width,
            height: size.height,
            model: embedded::ID,
            digest: checkpoint.digest()?,
            device: device_name(pipeline.device()).to_owned(),
            dtype: dtype_name(pipeline.dtype()).to_owned(),
            scenes,
            seconds: watch.finish(),
        })
    }
}

/// One row of the sheet: before, mask, the reference if there is one, and what was painted.
fn paint(
    pipeline: &mut Pipeline,
    checkpoint: &Checkpoint,
    additions: &Additions,
    scene: &Scene,
    request: &InpaintRequest,
    watch: &mut Watch,
) -> Result<Row> {
    let params = request.params();
    let tile = |caption: &str, pixels| Tile { caption: caption.to_owned(), pixels };
    let mut tiles = vec![tile("before", params.image.to_rgb8()), tile("mask", strip::mask(params))];
    for reference in params.image_prompts.iter().flat_map(|prompt| &prompt.references) {
        tiles.push(tile("reference", reference.picture.to_rgb8()));
    }
    let words = if scene.prompt.is_empty() { "no words" } else { scene.prompt };
    let mut progress = |progress| see(watch, progress);
    let mut observer = cancel::observer(&mut progress);
    pipeline.apply(checkpoint, additions, &mut observer)?;
    let painted = pipeline.inpaint(request, &mut observer, &mut |painted| {
        tiles.push(tile(&format!("{words}, seed {}", painted.seed), painted.picture.to_rgb8()));
        Ok(())
    });
    painted.map_err(Failure::running)?;
    Ok(Row { title: scene.title.to_owned(), tiles })
}

fn see(watch: &mut Watch, progress: Progress) -> ControlFlow<()> {
    watch.see(progress);
    ControlFlow::Continue(())
}

fn request(scene: &Scene, steps: usize, seed: u64) -> Result<InpaintRequest> {
    let limits = Limits::default();
    let image = Picture::decode(picture(scene.image)?, &limits)?;
    let mask = Mask::decode(picture(&format!("{}-mask", scene.image))?, &limits)?;
    let mut params = InpaintParams::new(image, mask, scene.prompt);
    params.num_inference_steps = steps;
    params.strength = scene.strength;
    params.samples = scene.samples;
    params.match_colours = true;
    params.seed = seed;
    if let Some(name) = scene.reference {
        let picture = Picture::decode(picture(name)?, &limits)?;
        let reference = Reference { picture, scale: 1.0, mask: None };
        params.image_prompts.push(ImagePrompt { references: vec![reference], blocks: AdapterBlocks::Style });
    }
    Ok(InpaintRequest::new(params)?)
}

/// A picture of the model's folder.
fn picture(name: &str) -> Result<&'static [u8]> {
    embedded::file(&format!("demo/{name}.png")).ok_or_else(|| {
        Failure::Refused(format!("this infill was built without the model {} and its pictures", embedded::ID))
    })
}

/// The model's own adapter, if it has one.
fn adapter_file() -> Option<&'static str> {
    let mut paths = embedded::FILES.iter().map(|file| file.path);
    paths.find(|path| path.starts_with("ip_adapter/") && path.ends_with(".safetensors"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_picture_is_there() {
        for scene in SCENES.iter().filter(|_| embedded::is_there()) {
            let request = request(scene, 4, 1).unwrap();
            assert!(!request.params().mask.is_empty(), "{}", scene.image);
        }
    }
}
