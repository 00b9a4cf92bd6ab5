//! What every call shares: the store, the worker, the queue before it, and what lies on this machine.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use infill_engine::device::{DTypeChoice, DeviceChoice, device_name, dtype_name};
use infill_engine::memory::MemoryPlan;
use infill_engine::pipeline::LoadOptions;
use infill_engine::worker::Engine;
use infill_models::places;
use infill_store::{Error as StoreError, JobId, Limits, NewJob, Runner, Store, Work};
use rmcp::model::CallToolResult;
use serde_json::{Map, Value};
use tokio::sync::Semaphore;
use tokio::sync::broadcast::Receiver;

use crate::desk::{Desk, Place, Told, Whereabouts};
use crate::estimate::Estimate;
use crate::holdings::Holdings;
use crate::inference::bare;
use crate::links::Links;
use crate::order::Order;
use crate::pictures::AllowedFolders;
use crate::prepare::Prepared;
use crate::reply;
use crate::tools::Kind;
use crate::{Result, ServeOptions, Ways, run};

/// A job that ended its process this often before it made a picture is not begun again.
const MOST_ATTEMPTS: u32 = 10;

/// Calls that are checked at once: each holds its pictures decoded.
const CHECKED_AT_ONCE: usize = 3;

/// What every call shares.
pub(crate) struct Studio {
    pub(crate) store: Store,
    pub(crate) engine: Engine,
    pub(crate) desk: Desk,
    /// For the calls that are being checked.
    pub(crate) checks: Arc<Semaphore>,
    /// Where pictures may be read.
    pub(crate) folders: AllowedFolders,
    pub(crate) holdings: Holdings,
    pub(crate) links: Links,
    /// How long a call waits for its job, unless it says otherwise.
    pub(crate) wait: Duration,
    /// How much the store may hold.
    limits: Limits,
    device: DeviceChoice,
    dtype: DTypeChoice,
    /// What holds for every call, beside its arguments.
    ways: Ways,
}

/// What became of a call.
pub(crate) enum Begun {
    /// It needs no work, or can't have any.
    Answered(CallToolResult),
    /// A job, and what is told of it.
    Job(JobId, Receiver<Told>),
}

impl Studio {
    /// Opens the store and the folders; [`Studio::start`] sets it to work.
    ///
    /// # Errors
    /// A folder or a store that can't be used.
    pub(crate) fn open(options: &ServeOptions, links: Links) -> Result<Arc<Self>> {
        let store = Store::open(&options.store_dir)?;
        let folders = AllowedFolders::new("allow-dir", &options.allow_dirs)?
            .without_database_of(&store)
            .told(links.are_files());
        let models_dir =
            options.models_dir.clone().or_else(|| places::models_dir().filter(|dir| dir.is_dir()));
        let studio = Arc::new(Self {
            holdings: Holdings::new(folders.and("models", models_dir.as_slice())?, models_dir),
            folders: folders.with_pictures_of(&store)?,
            engine: Engine::start(options.device, options.dtype)?,
            desk: Desk::default(),
            checks: Arc::new(Semaphore::new(CHECKED_AT_ONCE)),
            links,
            wait: options.wait,
            limits: options.limits,
            device: options.device,
            dtype: options.dtype,
            ways: options.ways,
            store,
        });
        Ok(studio)
    }

    /// Takes over what an earlier process left unfinished and sets the worker to work.
    ///
    /// # Errors
    /// A store that can't be used.
    pub(crate) fn start(studio: &Arc<Self>) -> Result<()> {
        studio.adopt()?;
        // What is queued holds on to its pictures.
        if let Err(error) = studio.store.sweep() {
            tracing::warn!(%error, "blobs that no picture names were not removed");
        }
        studio.tidy();
        let worker = studio.clone();
        thread::Builder::new().name("infill-jobs".into()).spawn(move || run::work(&worker))?;
        Ok(())
    }

    /// Queues what processes that are gone left unfinished.
    fn adopt(&self) -> infill_store::Result<()> {
        for job in self.store.adopt_jobs()? {
            if job.attempts < MOST_ATTEMPTS {
                tracing::info!(job = %job.id, pictures = job.assets.len(), "an interrupted job is queued again");
                self.desk.adopt(job.id);
            } else {
                let sentence =
                    format!("the server ended {MOST_ATTEMPTS} times while it was at work on the job");
                self.store.fail_job(&job.id, &sentence)?;
            }
        }
        Ok(())
    }

    /// Queues what other servers over this store have left since this one started.
    pub(crate) fn adopt_late(&self) {
        let adopted = match self.store.has_jobs_of_others() {
            Ok(true) => self.adopt(),
            other => other.map(|_| ()),
        };
        if let Err(error) = adopted {
            tracing::warn!(%error, "unfinished jobs of other servers were not looked for");
        }
    }

    /// Checks a call and makes a job of it: its row is written before it is queued.
    pub(crate) fn begin(&self, kind: Kind, given: &Map<String, Value>) -> Begun {
        // Its place first: a call that has none costs no decoding. A dry run needs none.
        let place = if given.get("dryRun").is_some_and(|dry_run| dry_run == "true") {
            None
        } else {
            match self.desk.reserve() {
                Ok(place) => Some(place),
                Err(sentence) => return Begun::Answered(reply::failure(&[sentence])),
            }
        };
        let prepared = match self.prepare(kind, given, self.ways) {
            Ok(prepared) => prepared,
            Err(faults) => return Begun::Answered(reply::failure(&faults)),
        };
        let Some(place) = place.filter(|_| !prepared.inpaint.dry_run) else {
            return Begun::Answered(self.dry_run(&prepared));
        };
        match self.queue(given, &prepared, place) {
            Ok((id, heard)) => Begun::Job(id, heard),
            Err(sentence) => Begun::Answered(reply::failure(&[sentence])),
        }
    }

    fn queue(
        &self,
        given: &Map<String, Value>,
        prepared: &Prepared,
        place: Place<'_>,
    ) -> std::result::Result<(JobId, Receiver<Told>), String> {
        // Whoever prunes may take an input away before its job is there to hold it.
        let made = match self.create_job(given, prepared)? {
            Err(StoreError::UnknownAsset(_)) => self.create_job(given, prepared)?,
            made => made,
        };
        let id = made.map_err(|error| error.to_string())?;
        Ok((id.clone(), place.take(id)))
    }

    /// Stores what the job needs, and its row.
    fn create_job(
        &self,
        given: &Map<String, Value>,
        prepared: &Prepared,
    ) -> std::result::Result<std::result::Result<JobId, StoreError>, String> {
        let inputs = prepared.keep(&self.store).map_err(|error| error.to_string())?;
        let order = Order::new(given, prepared, &inputs).map_err(|error| error.to_string())?;
        let needs: Vec<_> =
            [&inputs.image, &inputs.mask].into_iter().chain(&inputs.references).cloned().collect();
        let request = &prepared.request;
        let model = prepared.inpaint.model_id.as_deref().map(bare).unwrap_or_default();
        let pixels = request.plan().work;
        let new = NewJob {
            kind: "inference",
            input: &order.to_json(),
            needs: &needs,
            notes: &prepared.inpaint.warnings,
            work: Some(Work {
                model: &model,
                steps: u32::try_from(request.steps_after_strength()).unwrap_or(u32::MAX),
                pixels: u64::from(pixels.width) * u64::from(pixels.height),
            }),
        };
        Ok(self.store.create_job(&new))
    }

    /// Keeps the store within its limits. Where that fails, the store is larger than it should be and no worse.
    pub(crate) fn tidy(&self) {
        if self.limits.is_none() {
            return;
        }
        match self.store.prune(&self.limits) {
            Ok(pruned) if pruned.removed.is_empty() && pruned.jobs == 0 => {}
            Ok(pruned) => {
                tracing::info!(
                    removed = pruned.removed.len(),
                    jobs = pruned.jobs,
                    kept_bytes = pruned.kept_bytes,
                    "the store was pruned"
                );
            }
            Err(error) => tracing::warn!(%error, "the store was not pruned"),
        }
    }

    /// What a call would do and cost.
    fn dry_run(&self, prepared: &Prepared) -> CallToolResult {
        let Prepared { inpaint, checkpoint, request, additions, .. } = prepared;
        let model = inpaint.model_id.as_deref().map(bare).unwrap_or_default();
        let planned = || {
            let options = LoadOptions::choose(self.device, self.dtype)?;
            let memory = MemoryPlan::new(checkpoint, additions, request, &options)?;
            let runner = Runner { device: device_name(&options.device), dtype: dtype_name(options.dtype) };
            // Time is not worth more than a word where it can't be told.
            let timings = self.store.timings(&model, runner).unwrap_or_default();
            let estimate = Estimate { model: &model, checkpoint, request, runner, memory, timings: &timings };
            infill_engine::Result::Ok(reply::checked(&estimate.lines(), &inpaint.warnings, &estimate.value()))
        };
        planned().unwrap_or_else(|error| reply::failure(&[error.to_string()]))
    }

    /// Cancels a job, whoever has it.
    ///
    /// # Errors
    /// [`StoreError::UnknownJob`]; [`StoreError::Finished`] if it is over.
    pub(crate) fn cancel(&self, id: &JobId) -> infill_store::Result<()> {
        match self.desk.cancel(id) {
            // Written down, so that it holds even if this process ends before the worker hears it.
            Whereabouts::AtWork | Whereabouts::Elsewhere => self.store.request_cancel(id).map(|_| ()),
            Whereabouts::Waiting(_) => {
                let cancelled = self.store.cancel_job(id);
                match cancelled {
                    Ok(()) | Err(StoreError::Finished { .. } | StoreError::UnknownJob(_)) => {
                        self.desk.leave(id)
                    }
                    Err(_) => self.desk.put_back(id),
                }
                cancelled
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use infill_store::AssetMeta;

    use super::*;

    #[test]
    fn jobs_of_a_server_that_ends_later_are_taken_too() {
        let dir = tempfile::tempdir().unwrap();
        let other = Store::open(dir.path()).unwrap();
        let id = other.create_job(&NewJob { kind: "inference", input: "{}", ..NewJob::default() }).unwrap();
        let options = ServeOptions {
            store_dir: dir.path().to_owned(),
            device: DeviceChoice::Cpu,
            ..ServeOptions::default()
        };
        let studio = Studio::open(&options, Links::Files).unwrap();
        studio.adopt_late();
        assert_eq!(studio.desk.find(&id), Whereabouts::Elsewhere, "its process lives");
        drop(other);
        studio.adopt_late();
        assert_eq!(studio.desk.find(&id), Whereabouts::Waiting(0));
        // Once.
        assert!(!studio.store.has_jobs_of_others().unwrap());
    }

    #[test]
    fn a_job_that_failed_tells_what_it_painted() {
        use crate::report::To;

        let dir = tempfile::tempdir().unwrap();
        let options = ServeOptions {
            store_dir: dir.path().to_owned(),
            device: DeviceChoice::Cpu,
            ..ServeOptions::default()
        };
        let studio = Studio::open(&options, Links::Files).unwrap();
        let id = studio.store.create_job(&NewJob::default()).unwrap();
        let meta = AssetMeta { media_type: "image/png".into(), ..AssetMeta::default() };
        let painted = studio.store.put(b"painted", &meta).unwrap();
        let runner = Runner { device: "cpu", dtype: "f32" };
        studio.store.add_job_asset(&id, 0, &painted, 1.0, runner).unwrap();
        studio.store.fail_job(&id, "the disk is full").unwrap();
        for to in [To::Caller, To::Asker] {
            let result = studio.report(&id, to).unwrap();
            let text = result.content[0].as_text().unwrap().text.clone();
            for part in ["the disk is full", id.as_str(), painted.as_str()] {
                assert!(text.contains(part), "{part}: {text}");
            }
            assert_eq!(result.is_error, Some(to == To::Caller));
        }
    }

    #[test]
    fn a_name_is_no_folder_that_the_server_was_started_in() {
        let dir = tempfile::tempdir().unwrap();
        let holdings =
            Holdings::new(AllowedFolders::new("models", &[]).unwrap(), Some(dir.path().to_owned()));
        for name in ["src", "./src", "../mcp", "no-such-model", "", ".", ".."] {
            let (_, allowed) = holdings.checkpoint(name).unwrap_err();
            assert_eq!(allowed, holdings.models_here(), "{name}");
        }
    }

    #[test]
    fn a_server_that_starts_prunes_its_store_but_for_what_jobs_need() {
        let dir = tempfile::tempdir().unwrap();
        let before = Store::open(dir.path()).unwrap();
        let put = |bytes: &[u8]| before.put(bytes, &AssetMeta::default()).unwrap();
        let (needed, other) = (put(b"needed"), put(b"other"));
        let order = NewJob {
            kind: "inference",
            input: "{}",
            needs: std::slice::from_ref(&needed),
            ..NewJob::default()
        };
        before.create_job(&order).unwrap();
        let options = |spared| ServeOptions {
            store_dir: dir.path().to_owned(),
            limits: Limits { max_bytes: Some(0), max_age: None, spared },
            device: DeviceChoice::Cpu,
            ..ServeOptions::default()
        };
        // The job's process lives, as long as its store is open.
        let studio = Studio::open(&options(Duration::from_secs(60)), Links::Files).unwrap();
        Studio::start(&studio).unwrap();
        assert!(studio.store.get(&other).is_ok(), "what is young is spared");
        let studio = Studio::open(&options(Duration::ZERO), Links::Files).unwrap();
        Studio::start(&studio).unwrap();
        assert!(studio.store.get(&other).is_err());
        assert!(studio.store.get(&needed).is_ok());
    }
}
