//! One call from its arguments to its reply: everything that blocks, on a thread that may.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use infill_engine::additions::{Additions, Concept, IpAdapterSource};
use infill_engine::geometry::{Size, own_work_size};
use infill_engine::image::{Limits, Picture};
use infill_engine::image_prompt::{AdapterBlocks, ImagePrompt, Reference};
use infill_engine::mask::Mask;
use infill_engine::request::{InpaintParams, InpaintRequest};
use infill_engine::worker::Engine;
use infill_models::adapters::AdapterPurpose;
use infill_models::{Checkpoint, places};
use infill_store::{AssetId, AssetMeta, NewJob, Store};
use rmcp::model::CallToolResult;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc::UnboundedSender;

use crate::holdings::Holdings;
use crate::inference::{Input, Inputs, inference, recipe};
use crate::pictures::{AllowedFolders, Source, file_url};
use crate::progress::Stage;
use crate::reply;
use crate::run::Run;
use crate::sizes::{other_proportions, side_faults, sides};
use crate::tools::Kind;
use crate::tools::inpaint::Inpaint;
use crate::{Result, ServeOptions};

/// What every call shares.
pub(crate) struct Studio {
    pub(crate) store: Store,
    pub(crate) engine: Engine,
    /// Where pictures may be read.
    folders: AllowedFolders,
    pub(crate) holdings: Holdings,
}

/// How one call is watched and stopped.
#[derive(Clone)]
pub(crate) struct Watch {
    /// Gets each stage.
    pub(crate) stages: UnboundedSender<Stage>,
    /// Set once nobody wants the pictures any more.
    pub(crate) cancelled: Arc<AtomicBool>,
}

/// A call that can be run.
struct Prepared {
    inpaint: Inpaint,
    checkpoint: Checkpoint,
    request: InpaintRequest,
    additions: Additions,
    image: Vec<u8>,
    mask: Vec<u8>,
    references: Vec<Encoded>,
}

/// A reference picture as it came.
struct Encoded {
    bytes: Vec<u8>,
    size: Size,
}

impl Studio {
    /// Opens the store and the folders and starts the worker.
    ///
    /// # Errors
    /// A folder or a store that can't be used.
    pub(crate) fn open(options: &ServeOptions) -> Result<Self> {
        let store = Store::open(&options.store_dir)?;
        // The clients of these jobs went away with the process that ran them.
        fail(&store, &store.adopt_jobs()?)?;
        let folders = AllowedFolders::new("allow-dir", &options.allow_dirs)?;
        let models_dir =
            options.models_dir.clone().or_else(|| places::models_dir().filter(|dir| dir.is_dir()));
        Ok(Self {
            holdings: Holdings::new(folders.and("models", models_dir.as_slice())?, models_dir),
            // What a reply names can be given back as it is.
            folders: folders.and("store", &[store.blobs_dir().to_owned()])?,
            engine: Engine::start(options.device, options.dtype)?,
            store,
        })
    }

    /// Runs a call of a tool; whatever goes wrong is in the reply.
    pub(crate) fn call(&self, kind: Kind, given: &Map<String, Value>, watch: &Watch) -> CallToolResult {
        let prepared = match self.prepare(kind, given) {
            Ok(prepared) => prepared,
            Err(faults) => return reply::failure(&faults),
        };
        if prepared.inpaint.dry_run {
            return dry_run(&prepared);
        }
        self.run(prepared, watch).unwrap_or_else(|sentence| reply::failure(&[sentence]))
    }

    /// Everything that can be refused, all of it at once.
    fn prepare(&self, kind: Kind, given: &Map<String, Value>) -> std::result::Result<Prepared, Vec<String>> {
        let (mut inpaint, mut faults) = Inpaint::read(kind, given);
        let checkpoint = inpaint.model_id.as_deref().and_then(|id| {
            self.holdings
                .checkpoint(id)
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
        let (references, image_prompt) = self.references(&mut inpaint, &mut faults).unzip();
        let additions = self.additions(&mut inpaint, checkpoint.as_ref(), &mut faults);
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
        let request = params(&inpaint, picture, mask_picture, image_prompt)
            .and_then(InpaintRequest::new)
            .map_err(|error| vec![error.to_string()])?;
        let references = references.unwrap_or_default();
        Ok(Prepared { inpaint, checkpoint, request, additions, image, mask, references })
    }

    /// The reference pictures of a call that has any, encoded and as the engine takes them.
    fn references(
        &self,
        inpaint: &mut Inpaint,
        faults: &mut Vec<String>,
    ) -> Option<(Vec<Encoded>, ImagePrompt)> {
        let given = inpaint.references.as_mut()?;
        let limits = Limits::default();
        let (mut encoded, mut references) = (Vec::new(), Vec::new());
        for ((name, source), &scale) in std::mem::take(&mut given.pictures).iter().zip(&given.scales) {
            let decoded = self.picture(name, source, faults, |bytes| Picture::decode(bytes, &limits));
            let Some((bytes, picture)) = decoded else { continue };
            encoded.push(Encoded { bytes, size: picture.size() });
            references.push(Reference { picture, scale, mask: None });
        }
        let blocks = match given.purpose {
            AdapterPurpose::Style => AdapterBlocks::Style,
            AdapterPurpose::Character => AdapterBlocks::All,
        };
        Some((encoded, ImagePrompt { references, blocks }))
    }

    /// The files that the call puts on top of its model.
    fn additions(
        &self,
        inpaint: &mut Inpaint,
        checkpoint: Option<&Checkpoint>,
        faults: &mut Vec<String>,
    ) -> Additions {
        let mut additions = Additions::default();
        for (index, concept) in inpaint.concepts.iter().enumerate() {
            match self.holdings.concept(&concept.model_id, checkpoint) {
                Ok(file) => additions.concepts.push(Concept { file, scale: concept.scale }),
                Err((value, allowed)) => {
                    faults.push(fault(&format!("concepts[{index}].modelId"), &value, &allowed));
                }
            }
        }
        let Some(checkpoint) = checkpoint else { return additions };
        let prompts: Vec<&str> =
            [inpaint.prompt.as_str()].into_iter().chain(inpaint.negative_prompt.as_deref()).collect();
        match self.holdings.embeddings(&prompts, checkpoint.family()) {
            Ok((embeddings, notes)) => {
                additions.embeddings = embeddings;
                inpaint.warnings.extend(notes);
            }
            Err(error) => faults.push(error.to_string()),
        }
        if let Some(references) = &inpaint.references {
            match self.holdings.adapter(checkpoint, references.purpose) {
                Ok(found) => {
                    inpaint.warnings.extend(found.note);
                    additions
                        .ip_adapters
                        .push(IpAdapterSource { file: found.file, image_encoder: found.image_encoder });
                }
                Err(error) => faults.push(error.to_string()),
            }
        }
        additions
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

    fn run(&self, prepared: Prepared, watch: &Watch) -> std::result::Result<CallToolResult, String> {
        let Prepared { inpaint, checkpoint, request, additions, image, mask, references } = prepared;
        let broken = |error: infill_store::Error| error.to_string();
        let stored = |size: Size| AssetMeta {
            width: Some(size.width),
            height: Some(size.height),
            ..AssetMeta::default()
        };
        let own = stored(request.params().image.size());
        let hidden = AssetMeta { hidden: true, ..own.clone() };
        let shown = AssetMeta { parent: inpaint.image_parent.clone(), hidden: inpaint.image_hide, ..own };
        let references = references
            .iter()
            .map(|one| self.keep(&one.bytes, AssetMeta { hidden: true, ..stored(one.size) }));
        let inputs = Inputs {
            image: self.keep(&image, shown).map_err(broken)?,
            mask: self.keep(&mask, hidden).map_err(broken)?,
            references: references.collect::<infill_store::Result<_>>().map_err(broken)?,
        };
        let inference = inference(&inpaint, checkpoint.family(), &inputs);
        let recipe = recipe(&inpaint, &inference, &additions).map_err(|error| error.to_string())?;
        let needs: Vec<AssetId> = [&inputs.image, &inputs.mask]
            .into_iter()
            .chain(&inputs.references)
            .map(|input| input.id.clone())
            .collect();
        let input = inference.to_string();
        let new = NewJob { kind: "inference", input: &input, needs: &needs, ..NewJob::default() };
        let job = self.store.create_job(&new).map_err(broken)?;
        self.store.begin_job(&job).map_err(broken)?;

        let run = Run { studio: self, job: &job, inpaint: &inpaint, recipe: &recipe, watch };
        let (made, said) = match run.paint(checkpoint, additions, request, &inputs.image.id) {
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
        self.store.finish_job(&job).map_err(broken)?;
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

/// Ends jobs that nobody waits for any more.
fn fail(store: &Store, jobs: &[infill_store::Job]) -> infill_store::Result<()> {
    jobs.iter().try_for_each(|job| store.fail_job(&job.id, "the server ended before the job was done"))
}

pub(crate) fn fault(name: &str, value: &str, allowed: &str) -> String {
    format!("{name} is {value}; allowed: {allowed}")
}

fn params(
    inpaint: &Inpaint,
    image: Picture,
    mask: Mask,
    image_prompt: Option<ImagePrompt>,
) -> infill_engine::Result<InpaintParams> {
    let mut params = InpaintParams::new(image, mask, &inpaint.prompt);
    params.image_prompts = image_prompt.into_iter().collect();
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
