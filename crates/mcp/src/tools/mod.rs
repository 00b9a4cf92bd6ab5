//! The tools: one file each with its name and words, the schemas that it serves beside it, and one reader of the
//! parameters that they share.

mod concepts;
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
    /// What the reference says, word for word, then what a model needs to know besides; [`SHARED`] follows.
    description: &'static str,
    /// The reference's own definition, of which `inputSchema` is served.
    reference: &'static str,
    output: &'static str,
}

/// What holds for both tools.
const SHARED: &str = "\
Behaviour: runs on this machine, offline; takes seconds on a GPU and minutes on a CPU, in proportion to \
numInferenceSteps x strength x numSamples x width x height. Nothing is overwritten: each result is a new stored asset. \
Pixels where the mask is black come back unchanged, unless disableMerging is true. The same arguments and seed give the \
same picture.

Returns: for each picture a line with asset id, file, size and seed, a preview and a link. Wrong arguments are all told at \
once, a sentence each, and nothing runs.

Parameters:
- image, mask: needed, of one size. An asset id from an earlier result, a file:// URL or absolute path under an allowed \
folder, or a data URL, for the smallest only. imageId, maskId: deprecated, asset ids.
- modelId: a model on this machine; the server's instructions name them.
- prompt, negativePrompt: say what is to be seen, not what to do. `((word))`, `[word]`, `(word:1.3)` weigh.
- strength: near 1 to put something else there, lower to keep its shapes.
- numSamples: give 1 unless several are wanted; sample i has seed + i.
- width, height: leave out, or give in the picture's proportions.
- concepts: LoRAs on this machine by name, each with a scale from -2 to 2.
- dryRun \"true\": only checks. hideResults, imageHide: keep out of listings. imageParentId: where a data URL came from.
- originalAssets and intermediateImages have no effect. modelEpoch, baseModelId and negativePromptStrength are refused: \
only Flux models have them.";

impl Kind {
    /// All tools, in the order in which they are listed.
    pub(crate) const ALL: [Self; 2] = [Self::Inpaint, Self::InpaintIpAdapter];

    /// The name that it is called by.
    pub(crate) fn name(self) -> &'static str {
        self.definition().name
    }

    /// The tool of this name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// The published input schema, for reading arguments.
    pub(crate) fn input_schema(self) -> &'static JsonObject {
        static SCHEMAS: LazyLock<[Arc<JsonObject>; 2]> = LazyLock::new(|| {
            Kind::ALL.map(|kind| kind.tool().map(|tool| tool.input_schema).unwrap_or_default())
        });
        &SCHEMAS[self as usize]
    }

    /// The tool as it is served.
    ///
    /// # Errors
    /// A definition that is built in and broken.
    pub(crate) fn tool(self) -> Result<Tool> {
        let Definition { name, title, description, reference, output } = self.definition();
        let reference = parsed(name, reference)?;
        let input = reference.get("inputSchema").and_then(Value::as_object).cloned().unwrap_or_default();
        let annotations = ToolAnnotations::with_title(title)
            .read_only(false)
            .destructive(false)
            .idempotent(false)
            .open_world(false);
        Ok(Tool::new(name, format!("{description}\n\n{SHARED}"), Arc::new(input))
            .with_title(title)
            .with_icons(vec![icon()])
            .with_annotations(annotations)
            .with_raw_output_schema(Arc::new(parsed(name, output)?)))
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
    Kind::ALL.into_iter().map(Kind::tool).collect()
}

/// Parses a schema that is built in.
fn parsed(name: &'static str, text: &str) -> Result<JsonObject> {
    serde_json::from_str(text).map_err(|e| Error::Definition { name, reason: e.to_string() })
}
