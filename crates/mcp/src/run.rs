//! The thread that works: it takes one job after another from the desk, runs it from its row, and stores each picture
//! as it comes. No client is needed for that.

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::{Duration, Instant};

use infill_engine::cost::Costs;
use infill_engine::image::Picture;
use infill_engine::pipeline::{Painted, Preview, Progress};
use infill_engine::worker::{self, panic_text};
use infill_engine::{Error as EngineError, Interrupt};
use infill_store::{AssetId, AssetMeta, Error as StoreError, Job, JobId, JobStatus, Runner};
use serde_json::{Value, json};

use crate::desk::{Ticket, Told, Turn};
use crate::order::Order;
use crate::prepare::Prepared;
use crate::progress::{Course, Stage};
use crate::studio::Studio;

/// Events that the worker may be ahead of the store: finished pictures are among them.
const AHEAD: usize = 8;
/// How long the worker waits for a job before it looks for those of processes that have ended meanwhile.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two attempts to write down how a job ended.
const AGAIN: Duration = Duration::from_secs(2);
/// How often it is written down how far a job is: each time is a commit on the disk, for which all others who write wait.
const NOTED: Duration = Duration::from_millis(250);
/// Numbers that the previews of one picture may have: more than a run has steps.
const PREVIEWS_APART: usize = 1 << 10;

/// How work on a job ended.
#[derive(Debug)]
enum End {
    Done,
    /// Its client no longer wants it.
    Cancelled,
    /// The server ends: the next one goes on with it.
    GivenUp,
    Failed(String),
}

/// Works until the desk is closed.
pub(crate) fn work(studio: &Studio) {
    loop {
        let ticket = match studio.desk.next(PATIENCE) {
            Turn::Job(ticket) => ticket,
            Turn::Nothing => {
                studio.adopt_late();
                continue;
            }
            Turn::Closed => return,
        };
        let ended = catch_unwind(AssertUnwindSafe(|| begin(studio, &ticket)));
        let ended = ended.unwrap_or_else(|panic| {
            Some(End::Failed(format!("the job failed inside: {}", panic_text(panic.as_ref()))))
        });
        if let Some(end) = ended {
            write_down(studio, &ticket.id, &end);
        }
        studio.desk.leave(&ticket.id);
        studio.tidy();
    }
}

/// One job from its row to how it ended; `None` for one that was over before.
fn begin(studio: &Studio, ticket: &Arc<Ticket>) -> Option<End> {
    let id = &ticket.id;
    if ticket.is_cancelled() {
        return Some(End::Cancelled);
    }
    match studio.store.begin_job(id) {
        Ok(()) => {}
        // It was cancelled while it waited.
        Err(StoreError::Finished { .. }) => return None,
        Err(error) => return Some(End::Failed(error.to_string())),
    }
    Some(match studio.store.job(id) {
        Ok(_) if ticket.is_cancelled() => End::Cancelled,
        Ok(job) => paint(studio, ticket, &job),
        Err(error) => End::Failed(error.to_string()),
    })
}

/// Writes down how a job ended, as often as it takes: a full disk has room again one day, and a job without an end
/// would be waited for all that time. A server that ends leaves it to the next one.
fn write_down(studio: &Studio, id: &JobId, end: &End) {
    tracing::info!(job = %id, ?end, "work on a job ended");
    let store = &studio.store;
    let closing = studio.desk.closing();
    loop {
        let written = match end {
            End::Done => store.finish_job(id),
            End::Cancelled => store.cancel_job(id),
            End::GivenUp => store.release_job(id),
            End::Failed(sentence) => store.fail_job(id, sentence),
        };
        match written {
            Ok(()) | Err(StoreError::Finished { .. } | StoreError::UnknownJob(_)) => return,
            Err(error) => tracing::error!(%error, job = %id, "the job's end was not written"),
        }
        if closing.load(Ordering::Acquire) {
            return;
        }
        thread::sleep(AGAIN);
    }
}

/// Paints what is missing of a job.
fn paint(studio: &Studio, ticket: &Arc<Ticket>, job: &Job) -> End {
    let order = match Order::read(&job.input) {
        Ok(order) => order,
        Err(sentence) => return End::Failed(sentence),
    };
    // Finished pictures of an interrupted job are whole, or are made again.
    let first = job.assets.iter().take_while(|id| studio.store.bytes(id).is_ok()).count();
    if first >= order.samples() {
        return End::Done;
    }
    let prepared = match studio.prepare(order.kind, &order.arguments_after(first), order.ways()) {
        Ok(prepared) => prepared,
        Err(faults) => return End::Failed(faults.join("\n")),
    };
    if let Err(sentence) = order.check(&prepared) {
        return End::Failed(sentence);
    }
    let image = job.needs.first().cloned();
    Run { studio, ticket, order: &order, first, image }.paint(prepared)
}

/// A job at work.
struct Run<'a> {
    studio: &'a Studio,
    ticket: &'a Arc<Ticket>,
    order: &'a Order,
    /// Pictures that were there before.
    first: usize,
    /// The parent of each picture.
    image: Option<AssetId>,
}

impl Run<'_> {
    /// Hands the job to the worker, stores what comes and tells how far it is.
    fn paint(&self, prepared: Prepared) -> End {
        let Prepared { inpaint, checkpoint, request, additions, .. } = prepared;
        let course = Course {
            samples: self.order.samples(),
            before: self.first,
            steps: request.steps_after_strength(),
            costs: Costs::of(&checkpoint),
        };
        let mut stage = Stage::waiting();
        let (sender, events) = sync_channel(AHEAD);
        let (ticket, closing) = (self.ticket.clone(), self.studio.desk.closing());
        // A wish to stop that comes after the last picture is done stops nothing.
        let interrupt = Interrupt::new(move || ticket.is_cancelled() || closing.load(Ordering::Acquire));
        let on_event = Box::new(move |event| match sender.send(event) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        });
        let previews = inpaint.intermediate_images;
        let job = worker::Job { checkpoint, additions, request, previews, interrupt, on_event };
        if let Err(error) = self.studio.engine.submit(job) {
            return End::Failed(error.to_string());
        }
        let mut noted = None;
        for event in events {
            let kept = match event {
                worker::Event::Progress(progress) => {
                    let progress = self.among_all(progress);
                    stage = course.at(progress);
                    self.note(progress, &stage, &mut noted)
                }
                worker::Event::Preview(preview) => {
                    self.show(*preview, &stage);
                    Ok(())
                }
                worker::Event::Warning(warning) => self.studio.store.add_job_note(&self.ticket.id, &warning),
                worker::Event::Painted(painted) => match self.keep(&painted, inpaint.hide_results) {
                    Ok(kept) => kept,
                    Err(error) => return End::Failed(error.to_string()),
                },
                worker::Event::Finished(Ok(())) => return End::Done,
                worker::Event::Finished(Err(EngineError::Cancelled)) if self.ticket.is_cancelled() => {
                    return End::Cancelled;
                }
                worker::Event::Finished(Err(EngineError::Cancelled)) => return End::GivenUp,
                worker::Event::Finished(Err(error)) => return End::Failed(error.to_string()),
            };
            if let Err(error) = kept {
                return End::Failed(error.to_string());
            }
        }
        End::Failed("the worker ended in the middle of the job".into())
    }

    /// Where the job is, counted with the pictures that were there before.
    fn among_all(&self, progress: Progress) -> Progress {
        let samples = self.order.samples();
        match progress {
            Progress::Step { sample, step, steps, .. } => {
                Progress::Step { sample: sample + self.first, samples, step, steps }
            }
            Progress::Decoding { sample, .. } => Progress::Decoding { sample: sample + self.first, samples },
            other => other,
        }
    }

    /// Writes to the job's row where it stands unless it has just been `noted`, hears whether it is still wanted, and tells
    /// those who wait.
    fn note(
        &self,
        progress: Progress,
        stage: &Stage,
        noted: &mut Option<(JobStatus, Instant)>,
    ) -> infill_store::Result<()> {
        let status = match progress {
            Progress::Loading { .. } => JobStatus::WarmingUp,
            Progress::Decoding { sample, samples } if sample + 1 == samples => JobStatus::Finalizing,
            _ => JobStatus::InProgress,
        };
        let (store, id) = (&self.studio.store, &self.ticket.id);
        let unwanted = match noted {
            Some((before, at)) if *before == status && at.elapsed() < NOTED => store.is_unwanted(id)?,
            _ => {
                let unwanted = store.advance_job(id, status, stage.fraction())?;
                *noted = Some((status, Instant::now()));
                unwanted
            }
        };
        if unwanted {
            self.ticket.cancel();
        }
        self.ticket.tell(Told::Stage(stage.clone()));
        Ok(())
    }

    /// Stores a picture as it looks on the way and tells those who wait. Its failure is nobody's: no picture depends on
    /// it.
    fn show(&self, preview: Preview, stage: &Stage) {
        let Preview { index, step, picture, .. } = preview;
        let picture = Picture::from_rgb8(picture);
        let size = picture.size();
        let meta = AssetMeta {
            media_type: "image/png".into(),
            width: Some(size.width),
            height: Some(size.height),
            parent: self.image.clone(),
            hidden: true,
            recipe: None,
            passing: true,
        };
        let store = &self.studio.store;
        let position = (self.first + index) * PREVIEWS_APART + step;
        let stored = picture.encode_png(None).map_err(|error| error.to_string()).and_then(|png| {
            let put = store.put(&png, &meta);
            let added = put.and_then(|id| store.add_job_preview(&self.ticket.id, position, &id).map(|()| id));
            added.map_err(|error| error.to_string())
        });
        match stored {
            Ok(id) => self.ticket.tell(Told::Stage(stage.showing(&id))),
            Err(error) => tracing::warn!(%error, job = %self.ticket.id, "a preview was not stored"),
        }
    }

    fn keep(&self, painted: &Painted, hidden: bool) -> infill_engine::Result<infill_store::Result<()>> {
        let mut recipe = Value::Object(self.order.recipe.clone());
        recipe["seed"] = json!(painted.seed.to_string());
        recipe["numSamples"] = json!(1);
        let recipe = recipe.to_string();
        let png = painted.picture.encode_png(Some(&recipe))?;
        let size = painted.picture.size();
        let meta = AssetMeta {
            media_type: "image/png".into(),
            width: Some(size.width),
            height: Some(size.height),
            parent: self.image.clone(),
            hidden,
            recipe: Some(recipe),
            passing: false,
        };
        let store = &self.studio.store;
        let position = self.first + painted.index;
        let runner = Runner { device: painted.device, dtype: painted.dtype };
        let keep = || {
            let asset = store.put(&png, &meta)?;
            store.add_job_asset(&self.ticket.id, position, &asset, painted.seconds, runner)
        };
        Ok(match keep() {
            // Somebody else cleared the store in between.
            Err(StoreError::UnknownAsset(_)) => keep(),
            kept => kept,
        })
    }
}
