//! Jobs as tasks, for clients that may have them (the extension `io.modelcontextprotocol/tasks`).
//!
//! A task is a job under the job's own id: it needs no state of its own, and outlives the server.

use std::sync::Arc;

use infill_store::{Error as StoreError, Job, JobId, JobStatus, iso};
use rmcp::RoleServer;
use rmcp::model::{
    CreateTaskResult, DetailedTask, ErrorData, GetTaskResult, JsonObject, ProtocolVersion, Task, TaskPayload,
    TaskStatus,
};
use rmcp::service::RequestContext;
use serde_json::Value;

use crate::inside::{blocking, failed};
use crate::report::To;
use crate::studio::Studio;

/// How often to look.
const POLL_MILLISECONDS: u64 = 1000;

/// True for a client that declares tasks in a protocol that has them: some declare them in older ones and then fail.
pub(crate) fn are_wanted(context: &RequestContext<RoleServer>) -> bool {
    let has_them = context
        .protocol_version()
        .is_some_and(|version| version.as_str() >= ProtocolVersion::V_2026_07_28.as_str());
    has_them && context.client_capabilities().is_some_and(|client| client.supports_tasks())
}

/// The answer to a call whose job has begun.
///
/// # Errors
/// A store that can't be read.
pub(crate) async fn created(studio: Arc<Studio>, id: JobId) -> Result<CreateTaskResult, ErrorData> {
    blocking(move || {
        studio.store.job(&id).map(|job| CreateTaskResult::new(task(&job))).map_err(|e| failed(&e))
    })
    .await
}

/// Where a task stands, with the call's result once it is done.
///
/// # Errors
/// No such task.
pub(crate) async fn get(studio: Arc<Studio>, id: String) -> Result<GetTaskResult, ErrorData> {
    blocking(move || {
        let id = read_id(&id)?;
        let job = studio.store.job(&id).map_err(|error| refused(&error))?;
        let payload = match job.status {
            JobStatus::Success | JobStatus::Failure => {
                let result = studio.report(&id, To::Caller).map_err(|error| failed(&error))?;
                TaskPayload::Completed { result: object(serde_json::to_value(result).unwrap_or_default()) }
            }
            JobStatus::Canceled => TaskPayload::Cancelled,
            _ => TaskPayload::Working,
        };
        Ok(GetTaskResult::new(DetailedTask::new(task(&job), payload)))
    })
    .await
}

/// Cancels the job of a task; one that is over stays as it is.
///
/// # Errors
/// No such task.
pub(crate) async fn cancel(studio: Arc<Studio>, id: String) -> Result<(), ErrorData> {
    blocking(move || match studio.cancel(&read_id(&id)?) {
        Ok(()) | Err(StoreError::Finished { .. }) => Ok(()),
        Err(error) => Err(refused(&error)),
    })
    .await
}

/// Takes answers to questions, of which no task asks any.
///
/// # Errors
/// No such task.
pub(crate) async fn update(studio: Arc<Studio>, id: String) -> Result<(), ErrorData> {
    blocking(move || studio.store.job(&read_id(&id)?).map(|_| ()).map_err(|error| refused(&error))).await
}

fn task(job: &Job) -> Task {
    let message = match job.status {
        JobStatus::Queued => "waiting for the worker".to_owned(),
        status if status.is_final() => status.as_str().to_owned(),
        status => format!("{}, {:.0} % done", status.as_str(), 100.0 * job.progress),
    };
    // Jobs are kept for good, or by the store's own limits: no time to live.
    Task::new(job.id.as_str(), TaskStatus::Working, iso(job.created_at), iso(job.updated_at))
        .with_status_message(message)
        .with_poll_interval_ms(POLL_MILLISECONDS)
}

fn read_id(text: &str) -> Result<JobId, ErrorData> {
    text.parse().map_err(|error: StoreError| ErrorData::invalid_params(format!("taskId: {error}"), None))
}

fn refused(error: &StoreError) -> ErrorData {
    match error {
        StoreError::UnknownJob(id) => {
            ErrorData::invalid_params(format!("taskId is {id}; allowed: a task of this server"), None)
        }
        other => failed(other),
    }
}

fn object(value: Value) -> JsonObject {
    match value {
        Value::Object(object) => object,
        _ => JsonObject::new(),
    }
}
