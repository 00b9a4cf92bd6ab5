//! A long run on a thread of its own, while this one listens for Ctrl-C.

use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use crate::failure::{Failure, Result};
use crate::{cancel, panics};

/// How long a run may take to stop by itself after Ctrl-C, so that the device is left in order. Not
/// everything that takes long can be stopped in the middle: hashing a checkpoint can't, and nobody waits for that.
const GRACE: Duration = Duration::from_secs(2);

/// What the listening thread hears.
enum Event<T> {
    Finished(Result<Box<T>>),
    Interrupted,
}

/// The outcome of `run`; soon after Ctrl-C there is one, whether the run has stopped or not.
pub(crate) fn attend<T: Send + 'static>(run: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let (sender, inbox) = mpsc::channel();
    let interrupt = sender.clone();
    cancel::install(move || {
        // Without a listener the process is ending anyway.
        let _ = interrupt.send(Event::Interrupted);
    })?;
    thread::Builder::new()
        .name("infill-run".into())
        .spawn(move || {
            let outcome = panics::caught(|| run().map(Box::new));
            let _ = sender.send(Event::Finished(outcome));
        })
        .map_err(|e| Failure::Failed(format!("no thread can be started: {e}")))?;
    listen(&inbox).map(|outcome| *outcome)
}

fn listen<T>(inbox: &Receiver<Event<T>>) -> Result<Box<T>> {
    match inbox.recv() {
        Ok(Event::Finished(outcome)) => {
            // The run may have seen the wish, and ended, before this thread was told of it.
            if cancel::requested() {
                tracing::info!("asked to stop");
            }
            outcome
        }
        Ok(Event::Interrupted) | Err(_) => {
            tracing::info!("asked to stop");
            let _ = inbox.recv_timeout(GRACE);
            Err(Failure::Cancelled)
        }
    }
}
