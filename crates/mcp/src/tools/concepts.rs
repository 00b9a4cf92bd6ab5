//! `concepts`: LoRAs by name, each with its weight.

use infill_engine::pipeline::CONCEPT_SCALE;
use serde_json::{Map, Value};

use super::inpaint::LEAVE_OUT;
use crate::arguments::{Arguments, MOST_FAULTS, show, show_text};

/// Each is read, and merged into the weights.
const MOST: usize = 32;
/// What one may say; the schema names the same.
const KEYS: [&str; 3] = ["modelId", "modelEpoch", "scale"];

/// One concept, not yet looked for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ConceptArgument {
    /// The name of a LoRA, or an absolute path.
    pub(crate) model_id: String,
    pub(crate) scale: f64,
}

/// The concepts of a call.
pub(super) fn read(from: &mut Arguments<'_>, warnings: &mut Vec<String>) -> Vec<ConceptArgument> {
    let given = from.array("concepts").unwrap_or_default();
    if given.len() > MOST {
        from.refuse("concepts", format!("a list of {}", given.len()), format!("up to {MOST}"));
        return Vec::new();
    }
    let mut concepts = Vec::new();
    for (index, concept) in given.iter().enumerate() {
        match concept {
            Value::Object(concept) => concepts.extend(read_one(from, warnings, index, concept)),
            other => {
                from.refuse(&format!("concepts[{index}]"), show(other), "an object of modelId and scale")
            }
        }
    }
    concepts
}

fn read_one(
    from: &mut Arguments<'_>,
    warnings: &mut Vec<String>,
    index: usize,
    concept: &Map<String, Value>,
) -> Option<ConceptArgument> {
    let before = from.faults.len();
    let value = |key: &str| concept.get(key).map_or("missing".into(), show);
    for key in concept.keys().filter(|key| !KEYS.contains(&key.as_str())).take(MOST_FAULTS) {
        let fault = format!("concepts[{index}] has {}; allowed: {}", show_text(key), KEYS.join(", "));
        from.faults.push(fault);
    }
    let model_id = concept.get("modelId").and_then(Value::as_str);
    if model_id.is_none() {
        from.refuse(&format!("concepts[{index}].modelId"), value("modelId"), "a string");
    }
    let scale = concept.get("scale").and_then(Value::as_f64).filter(|scale| CONCEPT_SCALE.contains(scale));
    if scale.is_none() {
        let allowed = format!("a number from {} to {}", CONCEPT_SCALE.start(), CONCEPT_SCALE.end());
        from.refuse(&format!("concepts[{index}].scale"), value("scale"), allowed);
    }
    let name = format!("concepts[{index}].modelEpoch");
    match concept.get("modelEpoch") {
        None => {}
        Some(empty) if empty == "" => {
            warnings.push(format!("{name} has no effect, since only Flux LoRA models have it"));
        }
        Some(epoch) => {
            from.refuse(&name, format!("{}, which only Flux LoRA models have", show(epoch)), LEAVE_OUT);
        }
    }
    if from.faults.len() > before {
        return None;
    }
    Some(ConceptArgument { model_id: model_id?.to_owned(), scale: scale? })
}
