//! `get-job-id`: where a job stands, and its pictures once it is done.

use infill_store::JobId;
use rmcp::model::CallToolResult;
use serde_json::{Map, Value};

use super::{Action, Definition};
use crate::arguments::Arguments;
use crate::reply;
use crate::report::To;
use crate::studio::Studio;

pub(super) const DEFINITION: Definition = Definition {
    name: "get-job-id",
    title: "Look at a job",
    description: "Tells where a job stands and, once it is done, gives its pictures: their asset ids, links, seeds and \
previews, as the call that made it would have; one that failed or was cancelled says so, and why. Use it after post-inpaint-inferences or \
post-inpaint-ip-adapter-inferences answered with a job that is queued or in-progress; wait some seconds between two \
looks. A job goes on by itself and outlives the client and the server; looking changes nothing. For a picture whose \
asset id is known, use get-assets-by-asset-id.",
    reference: include_str!("get-job-id.tool.json"),
    output: include_str!("get-job-id.output.json"),
};

/// Answers a call.
pub(crate) fn answer(studio: &Studio, given: &Map<String, Value>) -> CallToolResult {
    let mut from = Arguments::new(given, Action::GetJob.input_schema());
    let id = from.id::<JobId>("jobId");
    let (Some(id), true) = (id, from.faults.is_empty()) else { return reply::failure(&from.faults) };
    studio.report(&id, To::Asker).unwrap_or_else(|error| {
        reply::failure(&[format!("jobId is {id}; allowed: a job of this server; {error}")])
    })
}
