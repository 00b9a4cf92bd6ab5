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
Each picture is an asset id from an earlier result, a file:// URL or absolute path under a folder that the server \
allows, or a data URL; a file or an asset is better than a data URL for anything but the smallest picture. `image` (or \
`imageId`) and `mask` (or `maskId`) are needed, of the same size. `concepts` are LoRAs that lie on this machine, by \
name, each with a scale from -2 to 2. `((word))`, `[word]` and `(word:1.3)` in a prompt weigh it.

The model runs on this machine, offline: a run takes seconds on a GPU and minutes on a CPU, in proportion to \
numInferenceSteps x strength x numSamples x width x height, so give numSamples 1 unless several pictures are wanted. \
Nothing is overwritten: each result is a new asset, and its text gives the asset id, the file and the seed. Sample i is \
drawn with seed + i; the same seed and arguments give the same picture. Leave width and height out to work at the \
picture's own size, or give them in its proportions. Refused, since only Flux models have them: modelEpoch, \
baseModelId, negativePromptStrength.";

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
