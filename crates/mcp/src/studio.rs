//! One call from its arguments to its reply: everything that blocks, on a thread that may.

use std::ops::{ControlFlow, RangeInclusive};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

use infill_engine::additions::Additions;
use infill_engine::geometry::{Size, own_work_size};
use infill_engine::guidance::default_guidance_scale;
use infill_engine::image::{Limits, Picture};
use infill_engine::mask::Mask;
use infill_engine::pipeline::{Painted, Progress};
use infill_engine::request::{InpaintParams, InpaintRequest};
use infill_engine::worker::{Engine, Event, Job};
use infill_models::{Checkpoint, Family, catalogue, places};
use infill_store::{AssetId, AssetMeta, JobId, JobStatus, Store};
use rmcp::model::CallToolResult;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc::UnboundedSender;

use crate::arguments::show_text;
use crate::pictures::{AllowedFolders, Refusal, Source, file_url};
use crate::progress::Stage;
use crate::reply::{self, Made};
use crate::tools::post_inpaint_inferences::Inpaint;
use crate::{Result, ServeOptions, preview};

/// What every call shares.
pub(crate) struct Studio {
    store: Store,
    engine: Engine,
    /// Where pictures may be read.
    folders: AllowedFolders,
    /// Where models may be read, besides the catalogue's own places.
    model_folders: AllowedFolders,
    models_dir: Option<PathBuf>,
}

/// How one call is watched and stopped.
#[derive(Clone)]
pub(crate) struct Watch {
    /// Gets each stage.
    pub(crate) stages: UnboundedSender<Stage>,
    /// Set once nobody wants the pictures any more.
    pub(crate) cancelled: Arc<AtomicBool>,
}

/// A picture of the call, stored.
struct Input {
    id: AssetId,
    url: String,
}

/// A call that can be run.
struct Prepared {
    inpaint: Inpaint,
    checkpoint: Checkpoint,
    request: InpaintRequest,
    image: Vec<u8>,
    mask: Vec<u8>,
}

impl Studio {
    /// Opens the store and the folders and starts the worker.
    ///
    /// # Errors
    /// A folder or a store that can't be used.
    pub(crate) fn open(options: &ServeOptions) -> Result<Self> {
        let store = Store::open(&options.store_dir)?;
        // The clients of these jobs went away with the process that ran them.
        fail(&store, &store.abandoned_jobs()?)?;
        let folders = AllowedFolders::new("allow-dir", &options.allow_dirs)?;
        let models_dir =
            options.models_dir.clone().or_else(|| places::models_dir().filter(|dir| dir.is_dir()));
        Ok(Self {
            model_folders: folders.and("models", models_dir.as_slice())?,
            // What a reply names can be given back as it is.
            folders: folders.and("store", &[store.blobs_dir().to_owned()])?,
            models_dir,
            engine: Engine::start(options.device, options.dtype)?,
            store,
        })
    }

    /// Runs a call; whatever goes wrong is in the reply.
    pub(crate) fn call(&self, given: &Map<String, Value>, watch: &Watch) -> CallToolResult {
        let prepared = match self.prepare(given) {
            Ok(prepared) => prepared,
            Err(faults) => return reply::failure(&faults),
        };
        if prepared.inpaint.dry_run {
            return dry_run(&prepared);
        }
        self.run(prepared, watch).unwrap_or_else(|sentence| reply::failure(&[sentence]))
    }

    /// Everything that can be refused, all of it at once.
    fn prepare(&self, given: &Map<String, Value>) -> std::result::Result<Prepared, Vec<String>> {
        let (mut inpaint, mut faults) = Inpaint::read(given);
        let checkpoint = inpaint.model_id.as_deref().and_then(|id| {
            self.checkpoint(id)
                .map_err(|(value, allowed)| faults.push(fault("modelId", &value, &allowed)))
                .ok()
        });
        if let Some(checkpoint) = &checkpoint {
            faults.extend(side_faults(&inpaint, checkpoint.family()));
        }
        let limits = Limits::default();
        let image = inpaint.image.take().and_then(|source| {
            self.picture("image", &source, &mut faults, |bytes| Picture::decode(bytes, &limits))
        });
        let mask = inpaint.mask.take().and_then(|source| {
            self.picture("mask", &source, &mut faults, |bytes| Mask::decode(bytes, &limits))
        });
        let (Some(checkpoint), Some((image, picture)), Some((mask, mask_picture)), true) =
            (checkpoint, image, mask, faults.is_empty())
        else {
            return Err(faults);
        };
        let own = own_work_size(picture.size(), &sides(checkpoint.family()).0);
        let work =
            Size { width: inpaint.width.unwrap_or(own.width), height: inpaint.height.unwrap_or(own.height) };
        (inpaint.width, inpaint.height) = (Some(work.width), Some(work.height));
        inpaint.warnings.extend(other_proportions(picture.size(), work));
        if !checkpoint.is_inpaint() {
            inpaint.warnings.push(
                "the model was not trained to inpaint: it does not see what is around the mask as well as one that was"
                    .into(),
            );
        }
        let request = params(&inpaint, picture, mask_picture)
            .and_then(InpaintRequest::new)
            .map_err(|error| vec![error.to_string()])?;
        Ok(Prepared { inpaint, checkpoint, request, image, mask })
    }

    /// The bytes of a picture parameter and what they decode to.
    fn picture<T>(
        &self,
        name: &str,
        source: &Source,
        faults: &mut Vec<String>,
        decode: impl Fn(&[u8]) -> infill_engine::Result<T>,
    ) -> Option<(Vec<u8>, T)> {
        let bytes = match source.fetch(&self.store, &self.folders) {
            Ok(bytes) => bytes,
            Err((value, allowed)) => {
                faults.push(fault(name, &value, &allowed));
                return None;
            }
        };
        match decode(&bytes) {
            Ok(decoded) => Some((bytes, decoded)),
            Err(error) => {
                faults.push(match error {
                    infill_engine::Error::Refused { value, allowed, .. } => fault(name, &value, &allowed),
                    infill_engine::Error::Unreadable { reason, .. } => {
                        format!("{name} can't be read: {reason}")
                    }
                    other => format!("{name}: {other}"),
                });
                None
            }
        }
    }

    /// A model by its id in the catalogue, by the name of its folder in the models folder, or by a path under an
    /// allowed folder.
    fn checkpoint(&self, id: &str) -> std::result::Result<Checkpoint, Refusal> {
        let refused =
            |error: infill_models::Error| (show_text(id), format!("{}; {error}", self.models_here()));
        if Path::new(id).is_absolute() {
            return Checkpoint::open(&self.model_folders.resolve(Path::new(id))?).map_err(refused);
        }
        let mut dir = catalogue::locate(id, self.models_dir.as_deref()).map_err(refused)?;
        if catalogue::manifest(id).map_err(refused)?.is_none() {
            dir = self.model_folders.resolve(&dir)?;
        }
        Checkpoint::open(&dir).map_err(refused)
    }

    /// What a call can name as its model.
    pub(crate) fn models_here(&self) -> String {
        let known = catalogue::manifests().unwrap_or_default().into_iter();
        let here = known.filter(|manifest| catalogue::is_here(manifest, self.models_dir.as_deref()));
        let mut ids: Vec<String> = here.map(|manifest| manifest.id).collect();
        let entries = self.models_dir.iter().filter_map(|dir| dir.read_dir().ok()).flatten().flatten();
        let folders = entries.filter(|entry| entry.path().join("model_index.json").is_file());
        ids.extend(folders.map(|entry| entry.file_name().to_string_lossy().into_owned()));
        ids.sort();
        ids.dedup();
        let models = if ids.is_empty() { "none yet".into() } else { ids.join(", ") };
        format!("a model that is here ({models})")
    }

    fn run(&self, prepared: Prepared, watch: &Watch) -> std::result::Result<CallToolResult, String> {
        let Prepared { inpaint, checkpoint, request, image, mask } = prepared;
        let broken = |error: infill_store::Error| error.to_string();
        let size = request.params().image.size();
        let stored = AssetMeta {
            width: Some(size.width),
            height: Some(size.height),
            parent: inpaint.image_parent.clone(),
            hidden: inpaint.image_hide,
            ..AssetMeta::default()
        };
        let image = self.keep(&image, stored.clone()).map_err(broken)?;
        let mask = self.keep(&mask, AssetMeta { parent: None, hidden: true, ..stored }).map_err(broken)?;
        let inference = inference(&inpaint, checkpoint.family(), &image, &mask);
        let job = self.store.create_job("inference", &inference.to_string()).map_err(broken)?;

        let run = Run { studio: self, job: &job, inpaint: &inpaint, inference: &inference, watch };
        let (made, said) = match run.paint(checkpoint, request, &image.id) {
            Ok(painted) => painted,
            Err(infill_engine::Error::Cancelled) => {
                self.store.cancel_job(&job).map_err(broken)?;
                return Err(format!("{job} was cancelled"));
            }
            Err(error) => {
                let sentence = error.to_string();
                self.store.fail_job(&job, &sentence).map_err(broken)?;
                return Err(sentence);
            }
        };
        let ids: Vec<AssetId> = made.iter().map(|one| one.id.clone()).collect();
        self.store.finish_job(&job, &ids).map_err(broken)?;
        let job = self.store.job(&job).map_err(broken)?;
        let structured =
            json!({ "inference": inference, "job": reply::job_value(&job), "creativeUnitsCost": 0 });
        let warnings = [inpaint.warnings, said].concat();
        Ok(reply::success(&made, &warnings, structured))
    }

    /// Stores an input.
    fn keep(&self, bytes: &[u8], mut meta: AssetMeta) -> infill_store::Result<Input> {
        let format =
            image::guess_format(bytes).map_or("application/octet-stream", |format| format.to_mime_type());
        meta.media_type = format.to_owned();
        let id = self.store.put(bytes, &meta)?;
        let url = file_url(&self.store.path(&self.store.get(&id)?));
        Ok(Input { id, url })
    }
}

/// A job at work.
struct Run<'a> {
    studio: &'a Studio,
    job: &'a JobId,
    inpaint: &'a Inpaint,
    inference: &'a Value,
    watch: &'a Watch,
}

impl Run<'_> {
    /// Hands the job to the worker and stores each picture as it comes. Returns the pictures and the warnings.
    fn paint(
        &self,
        checkpoint: Checkpoint,
        request: InpaintRequest,
        image: &AssetId,
    ) -> infill_engine::Result<(Vec<Made>, Vec<String>)> {
        let (sender, events) = mpsc::channel();
        let cancelled = self.watch.cancelled.clone();
        let on_event = Box::new(move |event| {
            let heard = sender.send(event).is_ok();
            if heard && !cancelled.load(Ordering::Relaxed) {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        });
        self.studio.engine.submit(Job { checkpoint, additions: Additions::default(), request, on_event })?;
        let mut stage = Stage::waiting();
        let (mut made, mut warnings) = (Vec::new(), Vec::new());
        for event in events {
            match event {
                Event::Progress(progress) => {
                    stage = Stage::of(progress, &stage);
                    self.note(progress, &stage);
                    // Nobody listens any more where the call was cancelled.
                    let _ = self.watch.stages.send(stage.clone());
                }
                Event::Warning(warning) => warnings.push(warning),
                Event::Painted(painted) => made.push(self.keep(&painted, image)?),
                Event::Finished(outcome) => return outcome.map(|()| (made, warnings)),
            }
        }
        Err(infill_engine::Error::Panicked("the worker ended in the middle of the job".into()))
    }

    /// Writes to the job's row where it stands. The pictures do not depend on it.
    fn note(&self, progress: Progress, stage: &Stage) {
        let status = match progress {
            Progress::Loading { .. } => JobStatus::WarmingUp,
            Progress::Decoding { sample, samples } if sample + 1 == samples => JobStatus::Finalizing,
            _ => JobStatus::InProgress,
        };
        let store = &self.studio.store;
        let noted = store
            .set_job_status(self.job, status)
            .and_then(|()| store.set_job_progress(self.job, stage.fraction()));
        if let Err(error) = noted {
            tracing::warn!(%error, job = %self.job, "the job's progress was not written");
        }
    }

    fn keep(&self, painted: &Painted, image: &AssetId) -> infill_engine::Result<Made> {
        let mut recipe = self.inference.clone();
        if let Some(recipe) = recipe.as_object_mut() {
            // Where this machine keeps its files is nobody's business, and would make other bytes on each machine.
            for path in ["image", "mask"] {
                recipe.shift_remove(path);
            }
        }
        let model = self.inpaint.model_id.as_deref().map(Path::new);
        let model =
            model.filter(|id| id.is_absolute()).and_then(Path::file_name).or(model.map(Path::as_os_str));
        recipe["modelId"] = json!(model.map(|name| name.to_string_lossy()));
        recipe["seed"] = json!(painted.seed.to_string());
        recipe["numSamples"] = json!(1);
        let recipe = recipe.to_string();
        let png = painted.picture.encode_png(Some(&recipe))?;
        let size = painted.picture.size();
        let meta = AssetMeta {
            media_type: "image/png".into(),
            width: Some(size.width),
            height: Some(size.height),
            parent: Some(image.clone()),
            hidden: self.inpaint.hide_results,
            recipe: Some(recipe),
        };
        let store = &self.studio.store;
        let kept = store.put(&png, &meta).and_then(|id| store.get(&id));
        let asset = kept.map_err(|error| infill_engine::Error::Encode(error.to_string()))?;
        let budget = reply::preview_budget(painted.index, self.inpaint.samples as usize);
        Ok(Made {
            path: store.path(&asset),
            id: asset.id,
            bytes: asset.size,
            width: size.width,
            height: size.height,
            seed: painted.seed,
            seconds: painted.seconds,
            preview: preview::jpeg(&painted.picture.to_rgb8(), budget),
        })
    }
}

/// Ends jobs that nobody waits for any more.
fn fail(store: &Store, jobs: &[infill_store::Job]) -> infill_store::Result<()> {
    for job in jobs {
        match store.fail_job(&job.id, "the server ended before the job was done") {
            // Another server that is just starting was quicker.
            Ok(()) | Err(infill_store::Error::Finished { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn fault(name: &str, value: &str, allowed: &str) -> String {
    format!("{name} is {value}; allowed: {allowed}")
}

/// The tool's own range of width and height, narrower than the engine's, and the kind of model that has it.
fn sides(family: Family) -> (RangeInclusive<u32>, &'static str) {
    match family {
        Family::StableDiffusion => (64..=1024, "an SD 1.5 model"),
        Family::StableDiffusionXl | Family::StableDiffusionXlRefiner => (512..=2048, "an SDXL model"),
    }
}

fn side_faults(inpaint: &Inpaint, family: Family) -> Vec<String> {
    let (range, kind) = sides(family);
    [("width", inpaint.width), ("height", inpaint.height)]
        .into_iter()
        .filter_map(|(name, side)| side.filter(|side| !range.contains(side)).map(|side| (name, side)))
        .map(|(name, side)| {
            let allowed = format!("a multiple of 8 from {} to {} for {kind}", range.start(), range.end());
            fault(name, &side.to_string(), &allowed)
        })
        .collect()
}

fn other_proportions(picture: Size, work: Size) -> Option<String> {
    let ratio = f64::from(picture.width) * f64::from(work.height)
        / (f64::from(picture.height) * f64::from(work.width));
    let same = (0.95..=1.05).contains(&ratio);
    (!same).then(|| {
        format!(
            "the picture is {}x{} pixels and was squeezed to {}x{} to work on; width and height in its proportions \
             give a better result",
            picture.width, picture.height, work.width, work.height
        )
    })
}

fn params(inpaint: &Inpaint, image: Picture, mask: Mask) -> infill_engine::Result<InpaintParams> {
    let mut params = InpaintParams::new(image, mask, &inpaint.prompt);
    params.negative_prompt = inpaint.negative_prompt.clone();
    params.seed = inpaint.seed;
    params.samples = inpaint.samples as usize;
    params.num_inference_steps = inpaint.steps as usize;
    params.strength = inpaint.strength;
    params.guidance_scale = inpaint.guidance;
    params.scheduler.kind = inpaint.scheduler.as_deref().map(str::parse).transpose()?;
    params.width = inpaint.width;
    params.height = inpaint.height;
    params.merge = inpaint.merge;
    Ok(params)
}

/// The inference as the reference writes it.
fn inference(inpaint: &Inpaint, family: Family, image: &Input, mask: &Input) -> Value {
    let mut value = json!({
        "type": "inpaint",
        "prompt": inpaint.prompt,
        "image": image.url,
        "imageId": image.id.as_str(),
        "mask": mask.url,
        "maskId": mask.id.as_str(),
        "seed": inpaint.seed.to_string(),
        "strength": inpaint.strength,
        "guidance": inpaint.guidance.unwrap_or_else(|| default_guidance_scale(family)),
        "numInferenceSteps": inpaint.steps,
        "numSamples": inpaint.samples,
        "width": inpaint.width,
        "height": inpaint.height,
        "disableMerging": !inpaint.merge,
        "hideResults": inpaint.hide_results,
        "intermediateImages": false,
    });
    for (name, text) in [("negativePrompt", &inpaint.negative_prompt), ("scheduler", &inpaint.scheduler)] {
        if let Some(text) = text {
            value[name] = json!(text);
        }
    }
    value
}

fn dry_run(prepared: &Prepared) -> CallToolResult {
    let Prepared { inpaint, request, .. } = prepared;
    let steps = request.steps_after_strength();
    let text = format!(
        "Dry run: the arguments are fine and nothing was run. {} of {}x{} pixels, {} each, would cost no units, only \
         time on this machine.",
        counted(inpaint.samples as usize, "picture"),
        request.plan().work.width,
        request.plan().work.height,
        counted(steps, "step"),
    );
    reply::checked(text, &inpaint.warnings)
}

fn counted(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn two_servers_may_start_at_once_after_a_crash() {
        let dir = tempfile::tempdir().unwrap();
        Store::open(dir.path()).unwrap().create_job("inference", "{}").unwrap();
        let (one, other) = (Store::open(dir.path()).unwrap(), Store::open(dir.path()).unwrap());
        let (seen, also_seen) = (one.abandoned_jobs().unwrap(), other.abandoned_jobs().unwrap());
        assert_eq!((seen.len(), also_seen.len()), (1, 1));
        fail(&one, &seen).unwrap();
        fail(&other, &also_seen).unwrap();
        assert_eq!(other.job(&seen[0].id).unwrap().status, JobStatus::Failure);
    }

    fn work(width: u32, height: u32, family: Family) -> (u32, u32) {
        let size = own_work_size(Size { width, height }, &sides(family).0);
        (size.width, size.height)
    }

    #[test]
    fn the_own_size_is_brought_within_the_range_in_its_proportions() {
        assert_eq!(work(1000, 702, Family::StableDiffusion), (1000, 704));
        assert_eq!(work(4000, 3000, Family::StableDiffusion), (1024, 768));
        assert_eq!(work(300, 200, Family::StableDiffusionXl), (768, 512));
        assert_eq!(work(6000, 4000, Family::StableDiffusionXl), (2048, 1368));
        assert_eq!(work(9000, 100, Family::StableDiffusionXl), (2048, 512));
        assert_eq!(work(10, 10, Family::StableDiffusion), (64, 64));
    }
}
