//! Work on threads that may block, and what the protocol says of a request that was fine and failed all the same.

use rmcp::model::ErrorData;
use tokio::task::spawn_blocking;

/// Does what reads the store or a model's files, on a thread that may block.
///
/// # Errors
/// As `work`; a panic of it stands in the log alone.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ErrorData> + Send + 'static,
) -> Result<T, ErrorData> {
    spawn_blocking(work).await.unwrap_or_else(|error| {
        tracing::error!(%error, "a request failed inside");
        Err(ErrorData::internal_error("the request failed inside; see the server's log", None))
    })
}

/// What the server could not do although the request was fine.
pub(crate) fn failed(error: &dyn std::error::Error) -> ErrorData {
    tracing::error!(%error, "a request can't be answered");
    ErrorData::internal_error(error.to_string(), None)
}
