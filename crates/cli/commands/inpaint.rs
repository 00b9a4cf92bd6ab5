//! `infill inpaint`: everything is checked first, then a thread runs the model while this one listens for Ctrl-C.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use infill_engine::additions::Additions;
use infill_engine::cost::Costs;
use infill_engine::device::{DTypeChoice, DeviceChoice, device_name, dtype_name};
use infill_engine::geometry::other_proportions;
use infill_engine::image::sheet::Tile;
use infill_engine::image::{Limits, Picture};
use infill_engine::mask::Mask;
use infill_engine::noise::{NoiseEra, random_seed};
use infill_engine::pipeline::{LoadOptions, Painted, Pipeline, Progress, check_run, scheduler_kind};
use infill_engine::request::{InpaintParams, InpaintRequest, PromptSyntax, SchedulerChoice};
use infill_engine::scheduler::{SchedulerConfig, TimestepSpacing};
use infill_engine::{Error, VaeTileSize};
use infill_models::{Checkpoint, Family, catalogue};
use serde_json::{Value, json};

use crate::additions::{self, AdditionsRecipe, Chosen};
use crate::args::{HalfRule, InpaintArgs};
use crate::attend::attend;
use crate::commands::models::family_name;
use crate::failure::{Failure, Result};
use crate::output::Output;
use crate::progress::{Seconds, Watch};
use crate::report::{self, Image, Model, PictureRecipe, Recipe, Report};
use crate::settings::Settings;
use crate::{cancel, pictures, stderr, stdout, strip};

/// A run, ready to begin.
struct Job {
    checkpoint: Checkpoint,
    additions: Additions,
    /// What the recipe says of them.
    added: AdditionsRecipe,
    warnings: Vec<String>,
    model: String,
    request: InpaintRequest,
    device: DeviceChoice,
    dtype: DTypeChoice,
    output: Output,
    strip: Option<Output>,
    watch: Watch,
    quiet: bool,
    json: bool,
}

/// A run that came to its end.
struct Done {
    images: Vec<Image>,
    strip: Option<String>,
    recipe: Recipe,
    seconds: Seconds,
    warnings: Vec<String>,
}

pub(crate) fn run(args: &InpaintArgs, settings: &Settings) -> Result<()> {
    let job = prepare(args, settings)?;
    let bar = job.watch.bar();
    if let Some(note) = report::large_work(job.request.plan().work).filter(|_| !args.quiet) {
        bar.suspend(|| stderr::line(&format!("note: {note}")));
    }
    let outcome = attend(|| job.run());
    bar.finish_and_clear();
    tell(args, outcome?)
}

/// Refuses whatever can be refused before the model is loaded.
fn prepare(args: &InpaintArgs, settings: &Settings) -> Result<Job> {
    let device = settings.device(args.device.device.as_deref())?;
    let dtype = settings.dtype(args.device.dtype.as_deref())?;
    let rule = settings.noise_rule(args.noise_rule.as_deref())?;
    let models_dir = settings.models_dir(args.device.models.as_deref())?;
    let default = || catalogue::default_model().map(str::to_owned);
    let model = settings.model(args.model.as_deref()).or_else(default).ok_or_else(|| {
        Failure::Refused(
            "no model is named; name one with --model ID|DIR, INFILL_MODEL or `model` in the settings file"
                .to_owned(),
        )
    })?;
    let mut params = params(args, rule)?;
    params.vae_tile_size = settings.vae_tile_size(args.device.vae_tile_size.as_deref())?;
    let checkpoint = catalogue::find(&model, models_dir.as_deref())?;
    let chosen = additions::choose(args, &checkpoint, models_dir.as_deref())?;
    let Chosen { additions, image_prompts, recipe: added, inputs, mut warnings } = chosen;
    params.image_prompts = image_prompts;
    let request = InpaintRequest::new(params)?;
    check_run_by_flags(args, &request, &checkpoint)?;
    if args.timestep_spacing.is_some() {
        let kind = scheduler_kind(&checkpoint, &request.params().scheduler)?;
        if !kind.spaces_timesteps() {
            warnings.push(format!(
                "--timestep-spacing does nothing: {kind} places its steps by a rule of its own"
            ));
        }
    }
    // Who gives both sides has chosen the proportions.
    if request.plan().is_whole() && args.width.is_some() != args.height.is_some() {
        warnings.extend(other_proportions(request.params().image.size(), request.plan().work));
    }
    let inputs: Vec<&Path> =
        [&args.image, &args.mask].into_iter().chain(&inputs).map(PathBuf::as_path).collect();
    let output = Output::check("--out", &args.out, request.params().samples, &inputs, args.force)?;
    let strip = args.strip.as_deref().map(|path| Output::check("--strip", path, 1, &inputs, args.force));
    let strip = strip.transpose()?;
    if let Some(strip) = strip.as_ref().filter(|strip| strip.meets(&output)) {
        return Err(Failure::value("--strip", strip.target(0)?.display(), "another path than --out"));
    }
    Ok(Job {
        checkpoint,
        additions,
        added,
        warnings,
        model,
        request,
        device,
        dtype,
        output,
        strip,
        watch: Watch::start(args.quiet),
        quiet: args.quiet,
        json: args.json,
    })
}

/// The engine's parameters: what was typed, the pictures read, the tool schema's defaults for the rest.
fn params(args: &InpaintArgs, rule: HalfRule) -> Result<InpaintParams> {
    let limits = Limits::default();
    let image = pictures::read(&args.image, "picture", &limits, Picture::decode)?;
    let mask = pictures::read(&args.mask, "mask", &limits, Mask::decode)?;
    let mut params = InpaintParams::new(image, mask, args.prompt.as_str());
    params.prompt_2.clone_from(&args.prompt_2);
    params.negative_prompt.clone_from(&args.negative);
    params.negative_prompt_2.clone_from(&args.negative_2);
    params.seed = args.seed.unwrap_or_else(random_seed);
    params.samples = args.samples.unwrap_or(params.samples);
    params.num_inference_steps = args.steps.unwrap_or(params.num_inference_steps);
    params.strength = args.strength.unwrap_or(params.strength);
    params.guidance_scale = args.guidance;
    params.guidance_rescale = args.guidance_rescale.unwrap_or(params.guidance_rescale);
    params.eta = args.eta.unwrap_or(params.eta);
    params.clip_skip = args.clip_skip;
    params.prompt_limit = args.prompt_limit;
    params.prompt_syntax = match args.prompt_syntax.as_deref() {
        Some("plain") => PromptSyntax::Plain,
        _ => PromptSyntax::Weighted,
    };
    params.scheduler = SchedulerChoice {
        kind: args.scheduler.as_deref().map(str::parse).transpose()?,
        overrides: scheduler_options(args),
    };
    params.width = args.width;
    params.height = args.height;
    params.padding_mask_crop = args.crop_padding;
    params.merge = !args.no_merge;
    params.feather = args.feather.unwrap_or(params.feather);
    params.match_colours = args.match_colours;
    params.noise_era = match rule {
        HalfRule::Torch => NoiseEra::Torch,
        HalfRule::Torch211 => NoiseEra::Torch211,
    };
    Ok(params)
}

/// What was typed of the scheduler's configuration.
fn scheduler_options(args: &InpaintArgs) -> Vec<(String, Value)> {
    let spacing = args.timestep_spacing.iter().map(|value| (TimestepSpacing::KEY.to_owned(), json!(value)));
    spacing.chain(args.scheduler_options.iter().cloned()).collect()
}

/// Refuses what the model's scheduler and text encoders do not take before the model is loaded, a scheduler's options by
/// their flags.
fn check_run_by_flags(args: &InpaintArgs, request: &InpaintRequest, checkpoint: &Checkpoint) -> Result<()> {
    let overrides = &request.params().scheduler.overrides;
    let flag = |key: &str| match key {
        TimestepSpacing::KEY if args.timestep_spacing.is_some() => "--timestep-spacing",
        _ => "--scheduler-option",
    };
    check_run(checkpoint, request).map_err(|error| {
        let Error::Refused { field, value, allowed } = error else { return error.into() };
        let is_unknown = field == SchedulerConfig::UNKNOWN_KEY;
        let typed = overrides.iter().find(|(key, _)| match is_unknown {
            true => value == format!("\"{key}\""),
            false => field.split(", ").any(|name| name == key),
        });
        match typed {
            Some((key, given)) if is_unknown => {
                let value = format!("{given} for {value}, which the scheduler does not take");
                Failure::value(flag(key), value, allowed)
            }
            Some((key, _)) => {
                Failure::Refused(format!("{}: {field} is {value}; allowed: {allowed}", flag(key)))
            }
            None => Error::Refused { field, value, allowed }.into(),
        }
    })
}

impl Job {
    fn run(self) -> Result<Done> {
        let mut watch = self.watch;
        watch.weigh(Costs::of(&self.checkpoint));
        let bar = watch.bar();
        let mut progress = |progress: Progress| {
            watch.see(progress);
            ControlFlow::Continue(())
        };
        let mut observer = cancel::observer(&mut progress);
        let options = LoadOptions::choose(self.device, self.dtype)?;
        let mut pipeline = Pipeline::load(&self.checkpoint, &options, &mut observer)?;
        pipeline.apply(&self.checkpoint, &self.additions, &mut observer)?;
        let recipe = recipe(&self.request, &pipeline, &self.checkpoint, &self.model, self.added)?;
        let mut warnings = self.warnings;
        warnings.extend(report::warnings(self.request.params(), &recipe));
        warnings.extend(pipeline.warnings(&self.request)?);
        if !self.quiet {
            // Before the painting, which may take hours and be stopped for what they say.
            bar.suspend(|| warnings.iter().for_each(|warning| stderr::line(&format!("warning: {warning}"))));
        }

        let (mut images, mut after) = (Vec::new(), Vec::new());
        let mut failure = None;
        let outcome = pipeline.inpaint(&self.request, &mut observer, &mut |painted| {
            match write(&self.output, &recipe, &painted) {
                Ok(image) => {
                    if painted.index + 1 == self.request.params().samples {
                        // What is painted is painted: no bar comes back below the last path.
                        bar.finish_and_clear();
                    }
                    if !self.json {
                        // A finished picture stays, whatever becomes of the others.
                        bar.suspend(|| stdout::line(&image.path)).unwrap_or_else(|e| failure = Some(e));
                    }
                    if self.strip.is_some() {
                        let caption = strip::caption(&self.request.params().prompt, painted.seed);
                        after.push(Tile { caption, pixels: painted.picture.to_rgb8() });
                    }
                    images.push(image);
                }
                Err(e) => failure = Some(e),
            }
            if failure.is_some() { Err(infill_engine::Error::Cancelled) } else { Ok(()) }
        });
        match failure {
            Some(failure) => return Err(failure),
            None => outcome.map_err(Failure::running)?,
        }
        let strip = self.strip.as_ref().map(|output| write_strip(output, self.request.params(), after));
        let strip = strip.transpose()?;
        if let Some(path) = strip.as_ref().filter(|_| !self.json) {
            bar.suspend(|| stdout::line(path))?;
        }
        Ok(Done { images, strip, recipe, seconds: watch.finish(), warnings })
    }
}

/// Encodes a picture with its recipe and writes it.
fn write(output: &Output, recipe: &Recipe, painted: &Painted) -> Result<Image> {
    let text = serde_json::to_string(&PictureRecipe { seed: painted.seed, recipe })
        .map_err(|e| Failure::Failed(format!("the recipe is no JSON: {e}")))?;
    let bytes = painted.picture.encode_png(Some(&text))?;
    let path = output.write(painted.index, &bytes)?;
    let size = painted.picture.size();
    Ok(Image {
        path: report::path_text(path),
        seed: painted.seed,
        width: size.width,
        height: size.height,
        seconds: painted.seconds,
    })
}

/// Writes the pictures of a run side by side.
fn write_strip(output: &Output, params: &InpaintParams, after: Vec<Tile>) -> Result<String> {
    let bytes = strip::strip(params, after).encode_png(None)?;
    output.write(0, &bytes).map(report::path_text)
}

/// What the run is made of, after every default.
fn recipe(
    request: &InpaintRequest,
    pipeline: &Pipeline,
    checkpoint: &Checkpoint,
    model: &str,
    additions: AdditionsRecipe,
) -> Result<Recipe> {
    let params = request.params();
    let work = request.plan().work;
    let folder = Path::new(model).file_name().map(|name| name.to_string_lossy().into_owned());
    Ok(Recipe {
        software: concat!("infill ", env!("CARGO_PKG_VERSION")),
        model: Model {
            name: folder.unwrap_or_else(|| model.to_owned()),
            family: family_name(checkpoint.family()),
            digest: checkpoint.digest()?,
            inpainting: pipeline.is_inpaint_model(),
            two_encoders: checkpoint.family() == Family::StableDiffusionXl,
        },
        prompt: params.prompt.clone(),
        prompt_2: params.prompt_2.clone(),
        negative_prompt: params.negative_prompt.clone(),
        negative_prompt_2: params.negative_prompt_2.clone(),
        prompt_syntax: match params.prompt_syntax {
            PromptSyntax::Weighted => None,
            PromptSyntax::Plain => Some("plain"),
        },
        prompt_limit: params.prompt_limit,
        additions,
        scheduler: pipeline.scheduler_config(request)?.kind().to_string(),
        scheduler_options: params.scheduler.overrides.iter().cloned().collect(),
        steps: params.num_inference_steps,
        strength: params.strength,
        guidance: params.guidance_scale.unwrap_or_else(|| pipeline.default_guidance_scale()),
        guidance_rescale: params.guidance_rescale,
        eta: params.eta,
        clip_skip: params.clip_skip,
        width: work.width,
        height: work.height,
        crop_padding: params.padding_mask_crop,
        merge: params.merge,
        feather: params.feather,
        match_colours: params.match_colours,
        device: device_name(pipeline.device()).to_owned(),
        dtype: dtype_name(pipeline.dtype()).to_owned(),
        vae_tile_size: params.vae_tile_size.map(VaeTileSize::pixels),
        noise_rule: match params.noise_era {
            NoiseEra::Torch => "torch",
            NoiseEra::Torch211 => "torch-2.11",
        },
    })
}

/// The report of a run that came to its end; the paths are out already.
fn tell(args: &InpaintArgs, done: Done) -> Result<()> {
    let Done { images, strip, recipe, seconds, warnings } = done;
    if args.json {
        return stdout::json(&Report { images, strip, recipe, seconds, warnings });
    }
    if let (false, None, Some(first)) = (args.quiet, args.seed, images.first()) {
        stderr::line(&format!("note: the seed was {}", first.seed));
    }
    Ok(())
}
