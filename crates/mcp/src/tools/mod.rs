//! The tools, one file each, with the schema that it serves beside it.

pub(crate) mod post_inpaint_inferences;

use std::sync::Arc;

use rmcp::model::{JsonObject, Tool};

use crate::{Error, Result};

/// A tool as it is served.
///
/// # Errors
/// A definition that is built in and broken.
pub(crate) fn all() -> Result<Vec<Tool>> {
    Ok(vec![post_inpaint_inferences::definition()?])
}

/// Parses a schema that is built in.
fn schema(name: &'static str, text: &str) -> Result<Arc<JsonObject>> {
    serde_json::from_str(text).map(Arc::new).map_err(|e| Error::Definition { name, reason: e.to_string() })
}
