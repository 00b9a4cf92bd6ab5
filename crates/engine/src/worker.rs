//! One thread that owns a device and the pipeline loaded on it, and a handle to it.

use std::any::Any;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;

use infill_models::Checkpoint;
use infill_networks::Interrupt;

use crate::additions::Additions;
use crate::device::{DTypeChoice, DeviceChoice};
use crate::pipeline::{LoadOptions, Observer, Painted, Pipeline, Preview, Progress};
use crate::request::InpaintRequest;
use crate::{Error, Result};

/// How many jobs wait before a new one is refused.
pub const QUEUE: usize = 64;

/// What a job tells its owner: warnings, progress and pictures as they come, then once `Finished`.
#[derive(Debug)]
pub enum Event {
    /// A stage is about to begin.
    Progress(Progress),
    /// Something that the user should know, in a sentence.
    Warning(String),
    /// What a picture looks like on the way.
    Preview(Box<Preview>),
    /// A picture is ready.
    Painted(Box<Painted>),
    /// The job is over.
    Finished(Result<()>),
}

/// Gets the events of one job on the worker's thread; [`ControlFlow::Break`] cancels the job.
pub type OnEvent = Box<dyn FnMut(Event) -> ControlFlow<()> + Send>;

/// One run.
pub struct Job {
    /// The model. It is loaded unless the worker ran it last.
    pub checkpoint: Checkpoint,
    /// What it is run with.
    pub additions: Additions,
    /// What to paint.
    pub request: InpaintRequest,
    /// Whether previews are wanted. The pictures do not depend on it.
    pub previews: bool,
    /// Asked in the middle of a stage whether the job is to stop.
    pub interrupt: Interrupt,
    /// Who is told.
    pub on_event: OnEvent,
}

/// A clonable handle to the worker. The thread ends when the last handle is dropped and its queue is empty.
#[derive(Clone)]
pub struct Engine {
    jobs: SyncSender<Job>,
}

impl Engine {
    /// Starts the worker; the device is opened on its thread with the first job.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(device: DeviceChoice, dtype: DTypeChoice) -> Result<Self> {
        let (jobs, queue) = sync_channel(QUEUE);
        thread::Builder::new()
            .name("infill-worker".into())
            .spawn(move || work(&queue, device, dtype))
            .map_err(|e| Error::Panicked(format!("no worker thread: {e}")))?;
        Ok(Self { jobs })
    }

    /// Queues a job. Jobs run one after another, first come first served.
    ///
    /// # Errors
    /// [`Error::Busy`] if the queue is full: the job did not start and its owner hears nothing more.
    pub fn submit(&self, job: Job) -> Result<()> {
        self.jobs.try_send(job).map_err(|e| match e {
            TrySendError::Full(_) => Error::Busy { waiting: QUEUE },
            TrySendError::Disconnected(_) => Error::Panicked("the worker has ended".into()),
        })
    }
}

/// The pipeline that was loaded last, and what it was loaded from.
struct Loaded {
    digest: String,
    pipeline: Pipeline,
}

fn work(queue: &Receiver<Job>, device: DeviceChoice, dtype: DTypeChoice) {
    let mut loaded = None;
    while let Ok(mut job) = queue.recv() {
        // A panic is this job's error. The pipeline it may have left in the middle of something is dropped.
        let outcome = catch_unwind(AssertUnwindSafe(|| run(&mut job, &mut loaded, device, dtype)));
        let outcome = outcome.unwrap_or_else(|panic| {
            loaded = None;
            Err(Error::Panicked(panic_text(panic.as_ref())))
        });
        // The owner has nothing left to cancel.
        let _ = (job.on_event)(Event::Finished(outcome));
    }
}

fn run(job: &mut Job, loaded: &mut Option<Loaded>, device: DeviceChoice, dtype: DTypeChoice) -> Result<()> {
    let on_event = std::cell::RefCell::new(&mut job.on_event);
    let mut progress = |progress| (on_event.borrow_mut())(Event::Progress(progress));
    // A wish to stop is heard at the next stage, or by the interrupt.
    let mut preview = |preview| {
        let _ = (on_event.borrow_mut())(Event::Preview(Box::new(preview)));
    };
    let mut observer = Observer::new(&mut progress).with_interrupt(job.interrupt.clone());
    if job.previews {
        observer = observer.with_previews(&mut preview);
    }
    let digest = job.checkpoint.digest()?;
    if loaded.as_ref().is_none_or(|l| l.digest != digest) {
        // The old networks go before the new ones come: both may not fit.
        *loaded = None;
        let options = LoadOptions::choose(device, dtype)?;
        let pipeline = Pipeline::load(&job.checkpoint, &options, &mut observer)?;
        *loaded = Some(Loaded { digest, pipeline });
    }
    let Some(Loaded { pipeline, .. }) = loaded else { return Err(Error::Cancelled) };
    pipeline.apply(&job.checkpoint, &job.additions, &mut observer)?;
    for warning in pipeline.warnings(&job.request)? {
        if (on_event.borrow_mut())(Event::Warning(warning)).is_break() {
            return Err(Error::Cancelled);
        }
    }
    pipeline.inpaint(&job.request, &mut observer, &mut |painted| match (on_event.borrow_mut())(
        Event::Painted(Box::new(painted)),
    ) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(Error::Cancelled),
    })
}

/// What a caught panic says.
pub fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text =
        panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no message").to_owned()
}
