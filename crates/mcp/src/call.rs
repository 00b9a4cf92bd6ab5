//! One call of a tool that paints: its job is begun, watched, and waited for, up to a limit.
//!
//! Until it is answered, a call owns its job: a client that cancels it, hangs up or ends its input has cancelled the
//! job. Once the answer was the running job, the job is the store's: only a wish to cancel that names it ends it.

use std::sync::Arc;
use std::time::Duration;

use infill_store::JobId;
use rmcp::RoleServer;
use rmcp::model::{CallToolResponse, CallToolResult, ErrorData, RequestMetaObject};
use rmcp::service::RequestContext;
use serde_json::{Map, Value};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, sleep_until};

use crate::desk::Told;
use crate::progress::{HEARTBEAT, Teller};
use crate::reply;
use crate::report::To;
use crate::studio::{Begun, Studio};
use crate::tasks;
use crate::tools::Kind;

/// How long a call waits, where it says so itself.
const WAIT: &str = "infill/waitSeconds";
/// The longest wait: a week.
pub(crate) const MOST_WAIT: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// The longest wait in a session over HTTP, which ends after two hours without a message and takes its calls along.
pub(crate) const MOST_WAIT_IN_SESSION: Duration = Duration::from_secs(115 * 60);

/// How the wait for a job ended.
enum Waited {
    /// The job is over.
    Over,
    /// The limit has passed.
    Late,
    /// Nobody waits any more.
    Gone,
}

/// Runs a call to its answer. `input` closes with the session.
///
/// # Errors
/// A wait in the request's `_meta` that is none.
pub(crate) async fn paint(
    studio: Arc<Studio>,
    kind: Kind,
    given: Map<String, Value>,
    context: &RequestContext<RoleServer>,
    input: &mut watch::Receiver<()>,
) -> Result<CallToolResponse, ErrorData> {
    let mut wait = wait(&context.meta)?.unwrap_or(studio.wait);
    if is_in_session(context) {
        wait = wait.min(MOST_WAIT_IN_SESSION);
    }
    let until = Instant::now() + wait;
    let mut teller = Teller::new(&context.peer, context.meta.get_progress_token());

    let beginning = studio.clone();
    let begin = async move {
        // Fair, so that calls begin in the order in which they came. It is never closed.
        let _turn = beginning.checks.clone().acquire_owned().await;
        spawn_blocking(move || beginning.begin(kind, &given)).await
    };
    tokio::pin!(begin);
    let begun = tokio::select! {
        biased;
        () = gone(context, input) => None,
        begun = &mut begin => Some(begun),
        () = beats(&mut teller) => None,
    };
    let (left, begun) = match begun {
        Some(begun) => (false, begun),
        None => (true, begin.await),
    };
    let (id, mut heard) = match begun {
        Ok(Begun::Answered(result)) => return Ok(result.into()),
        Ok(Begun::Job(id, heard)) => (id, heard),
        Err(error) => return Ok(inside(&error).into()),
    };
    if tasks::are_wanted(context) && !left {
        return tasks::created(studio, id).await.map(CallToolResponse::from);
    }

    let mut owned = Owned { studio: &studio, id: &id, kept: false };
    // After either of the last two nobody is told: a notification would wait for ever once the input has ended. The
    // SDK itself stops a call only seconds after that, when hosts have killed the process.
    let waited = tokio::select! {
        biased;
        () = gone(context, input) => Waited::Gone,
        () = told(&studio, &id, &mut heard, &mut teller) => Waited::Over,
        () = sleep_until(until) => Waited::Late,
    };
    let waited = if left { Waited::Gone } else { waited };
    if let Waited::Gone = waited {
        let (cancelling, cancelled) = (studio.clone(), id.clone());
        // One that is over by itself in this moment is over too.
        let _ = spawn_blocking(move || cancelling.cancel(&cancelled)).await;
        over(&mut heard).await;
    }
    owned.kept = true;
    let (studio, id) = (studio.clone(), id.clone());
    let answer = look(move || {
        studio.report(&id, To::Caller).unwrap_or_else(|error| reply::failure(&[error.to_string()]))
    });
    Ok(answer.await.into())
}

/// A job that its call may leave behind: then it is not wanted any more.
struct Owned<'a> {
    studio: &'a Studio,
    id: &'a JobId,
    kept: bool,
}

impl Drop for Owned<'_> {
    fn drop(&mut self) {
        if !self.kept {
            // The worker writes it down when the job's turn comes.
            self.studio.desk.cancel_in_turn(self.id);
        }
    }
}

/// Runs a call that only reads, on a thread that may block.
pub(crate) async fn look(read: impl FnOnce() -> CallToolResult + Send + 'static) -> CallToolResult {
    spawn_blocking(read).await.unwrap_or_else(|error| inside(&error))
}

fn inside(error: &dyn std::error::Error) -> CallToolResult {
    tracing::error!(%error, "a call failed inside");
    reply::failure(&["the call failed inside; see the server's log".to_owned()])
}

/// Waits until nobody waits for the answer.
async fn gone(context: &RequestContext<RoleServer>, input: &mut watch::Receiver<()>) {
    tokio::select! {
        () = context.ct.cancelled() => {}
        _ = input.changed() => {}
    }
}

/// Beats for ever.
async fn beats(teller: &mut Teller) {
    loop {
        sleep(HEARTBEAT).await;
        teller.beat().await;
    }
}

/// Tells the client of each stage, and beats between them, until the job is over.
async fn told(studio: &Arc<Studio>, id: &JobId, heard: &mut Receiver<Told>, teller: &mut Teller) {
    // The job has its place: who sends another call from now on comes after it.
    teller.beat().await;
    loop {
        tokio::select! {
            biased;
            told = heard.recv() => match told {
                Ok(Told::Stage(stage)) => teller.tell(stage).await,
                Err(RecvError::Lagged(_)) => {}
                Ok(Told::Over) | Err(RecvError::Closed) => return,
            },
            () = sleep(HEARTBEAT) => {
                teller.beat().await;
                // Another process may have cancelled it while it waited.
                let (studio, id) = (studio.clone(), id.clone());
                let job = spawn_blocking(move || studio.store.job(&id)).await;
                if matches!(job, Ok(Ok(job)) if job.status.is_final()) {
                    return;
                }
            }
        }
    }
}

/// Waits until the job is over, and tells nobody.
async fn over(heard: &mut Receiver<Told>) {
    while let Ok(Told::Stage(_)) | Err(RecvError::Lagged(_)) = heard.recv().await {}
}

/// Whether the call came over HTTP in a session.
fn is_in_session(context: &RequestContext<RoleServer>) -> bool {
    let head = context.extensions.get::<hyper::http::request::Parts>();
    head.is_some_and(|head| head.headers.contains_key("mcp-session-id"))
}

/// What a request says of its own wait.
fn wait(meta: &RequestMetaObject) -> Result<Option<Duration>, ErrorData> {
    let Some(value) = meta.get(WAIT) else { return Ok(None) };
    let seconds = value.as_f64().filter(|seconds| (0.0..=MOST_WAIT.as_secs_f64()).contains(seconds));
    let seconds = seconds.ok_or_else(|| {
        let allowed = MOST_WAIT.as_secs();
        let message =
            format!("_meta[\"{WAIT}\"] is {value}; allowed: a number of seconds from 0 to {allowed}");
        ErrorData::invalid_params(message, None)
    })?;
    Ok(Some(Duration::from_secs_f64(seconds)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    #[test]
    fn a_request_may_say_how_long_it_waits() {
        let meta =
            |value: Value| serde_json::from_value::<RequestMetaObject>(json!({ WAIT: value })).unwrap();
        assert_eq!(wait(&RequestMetaObject::new()).unwrap(), None);
        assert_eq!(wait(&meta(json!(0))).unwrap(), Some(Duration::ZERO));
        assert_eq!(wait(&meta(json!(1.5))).unwrap(), Some(Duration::from_millis(1500)));
        for value in [json!(-1), json!("45"), json!(1e9), json!(null), json!({})] {
            let error = wait(&meta(value.clone())).unwrap_err();
            assert!(error.message.contains("allowed: a number of seconds from 0 to 604800"), "{value}");
        }
    }
}
