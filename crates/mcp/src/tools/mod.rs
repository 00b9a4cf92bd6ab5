//! The tools: one file each with its name and words, the schemas that it serves beside it, and one reader of the
//! parameters that they share.

mod concepts;
pub(crate) mod get_assets_by_asset_id;
pub(crate) mod get_job_id;
pub(crate) mod inpaint;
mod post_inpaint_inferences;
mod post_inpaint_ip_adapter_inferences;
pub(crate) mod references;
#[cfg(test)]
mod tests;

use std::sync::{Arc, LazyLock};

use rmcp::model::{JsonObject, Tool, ToolAnnotations};
use serde_json::Value;

use crate::server::icon;
use crate::{Error, Result};

/// A tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// One that makes a job.
    Paint(Kind),
    /// `get-job-id`
    GetJob,
    /// `get-assets-by-asset-id`
    GetAsset,
}

/// A tool that paints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `post-inpaint-inferences`
    Inpaint,
    /// `post-inpaint-ip-adapter-inferences`
    InpaintIpAdapter,
}

/// What a tool's file says of it.
struct Definition {
    name: &'static str,
    title: &'static str,
    /// What the reference says, word for word where it says anything, then what a model needs to know besides;
    /// [`SHARED`] follows where it paints.
    description: &'static str,
    /// A definition, the reference's own where it paints, of which `inputSchema` is served.
    reference: &'static str,
    output: &'static str,
}

/// What holds for both tools that paint.
const SHARED: &str = "\
Behaviour: runs on this machine, offline; takes seconds on a GPU and minutes on a CPU, in proportion to \
numInferenceSteps x strength x numSamples x width x height. Nothing is overwritten: each result is a new stored asset. \
Pixels where the mask is black come back unchanged, unless disableMerging is true. The same arguments and seed give the \
same picture.

Returns: for each picture a line with asset id, where it is, size and seed, a preview and a link. Where that takes longer \
than the server lets a call wait, the job, which goes on: get-job-id gives its pictures later. Wrong arguments are all told \
at once, a sentence each, and nothing runs.

Parameters:
- image, mask: needed, of one size. An asset id or link from an earlier result, a file:// URL or absolute path under an \
allowed folder, or a data URL, for the smallest only. imageId, maskId: deprecated, asset ids.
- modelId: a model on this machine; the server's instructions name them.
- prompt, negativePrompt: say what is to be seen, not what to do. `((word))`, `[word]`, `(word:1.3)` weigh.
- guidance: leave out for the model's own, which model://{id} tells as defaultGuidance.
- strength: near 1 to put something else there, lower to keep its shapes.
- numSamples: give 1 unless several are wanted; sample i has seed + i.
- width, height: leave out, or give in the picture's proportions.
- concepts: LoRAs on this machine by name, each with a scale from -2 to 2.
- dryRun \"true\": only checks, and tells time and memory. intermediateImages: small pictures on the way. hideResults, \
imageHide: keep out of listings. imageParentId: where a data URL came from.
- originalAssets has no effect. modelEpoch, baseModelId and negativePromptStrength belong to Flux models: refused, \
unless they ask for nothing.";

impl Action {
    /// All tools, in the order in which they are listed.
    pub(crate) const ALL: [Self; 4] =
        [Self::Paint(Kind::Inpaint), Self::Paint(Kind::InpaintIpAdapter), Self::GetJob, Self::GetAsset];

    /// The name that it is called by.
    pub(crate) fn name(self) -> &'static str {
        self.definition().name
    }

    /// The tool of this name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.name() == name)
    }

    /// The published input schema, for reading arguments.
    pub(crate) fn input_schema(self) -> &'static JsonObject {
        static SCHEMAS: LazyLock<[Arc<JsonObject>; 4]> = LazyLock::new(|| {
            Action::ALL.map(|action| action.tool().map(|tool| tool.input_schema).unwrap_or_default())
        });
        let index = Self::ALL.into_iter().position(|action| action == self).unwrap_or_default();
        &SCHEMAS[index]
    }

    /// The tool as it is served.
    ///
    /// # Errors
    /// A definition that is built in and broken.
    pub(crate) fn tool(self) -> Result<Tool> {
        let Definition { name, title, description, reference, output } = self.definition();
        let reference = parsed(name, reference)?;
        let input = reference.get("inputSchema").and_then(Value::as_object).cloned().unwrap_or_default();
        let reads = !matches!(self, Self::Paint(_));
        let annotations = ToolAnnotations::with_title(title)
            .read_only(reads)
            .destructive(false)
            .idempotent(reads)
            .open_world(false);
        let description = if reads { description.to_owned() } else { format!("{description}\n\n{SHARED}") };
        Ok(Tool::new(name, description, Arc::new(input))
            .with_title(title)
            .with_icons(vec![icon()])
            .with_annotations(annotations)
            .with_raw_output_schema(Arc::new(parsed(name, output)?)))
    }

    fn definition(self) -> Definition {
        match self {
            Self::Paint(kind) => kind.definition(),
            Self::GetJob => get_job_id::DEFINITION,
            Self::GetAsset => get_assets_by_asset_id::DEFINITION,
        }
    }
}

impl Kind {
    #[cfg(test)]
    pub(crate) const ALL: [Self; 2] = [Self::Inpaint, Self::InpaintIpAdapter];

    /// The name that it is called by.
    pub(crate) fn name(self) -> &'static str {
        self.definition().name
    }

    /// The tool that paints and has this name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        match Action::named(name)? {
            Action::Paint(kind) => Some(kind),
            Action::GetJob | Action::GetAsset => None,
        }
    }

    /// The published input schema, for reading arguments.
    pub(crate) fn input_schema(self) -> &'static JsonObject {
        Action::Paint(self).input_schema()
    }

    fn definition(self) -> Definition {
        match self {
            Self::Inpaint => post_inpaint_inferences::DEFINITION,
            Self::InpaintIpAdapter => post_inpaint_ip_adapter_inferences::DEFINITION,
        }
    }
}

/// Every tool as it is served.
///
/// # Errors
/// A definition that is built in and broken.
pub(crate) fn all() -> Result<Vec<Tool>> {
    Action::ALL.into_iter().map(Action::tool).collect()
}

/// Parses a schema that is built in.
fn parsed(name: &'static str, text: &str) -> Result<JsonObject> {
    serde_json::from_str(text).map_err(|e| Error::Definition { name, reason: e.to_string() })
}
