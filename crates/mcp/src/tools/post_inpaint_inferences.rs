//! `post-inpaint-inferences`: repaint the white part of a mask.
//!
//! Name and input schema are the reference server's (pasie15/scenario.com-mcp-server 2.0.1), served as they are; the
//! ranges and defaults that its descriptions state are enforced here.

use std::ops::RangeInclusive;
use std::sync::{Arc, LazyLock};

use infill_engine::noise::random_seed;
use infill_store::AssetId;
use rmcp::model::{JsonObject, Tool, ToolAnnotations};
use serde_json::{Map, Value};

use super::schema;
use crate::Result;
use crate::arguments::{Arguments, show};
use crate::pictures::Source;

/// The tool's name.
pub(crate) const NAME: &str = "post-inpaint-inferences";

/// What the reference says in two sentences, then what a model needs to know besides.
const DESCRIPTION: &str = "Trigger a new image generation in Inpaint mode. The mask indicates the area to inpaint in the reference image.

Repaints the white part of `mask` in `image` as `prompt` says; every pixel in the black part comes back unchanged \
unless `disableMerging` is true. Use it to remove, replace or add something in an existing picture. Don't use it to \
make a picture from nothing, or to change a whole picture without a mask.

`image` (or `imageId`) and `mask` (or `maskId`) are needed, of the same size. Each is an asset id from an earlier \
result, a file:// URL or absolute path under a folder that the server allows, or a data URL; a file or an asset is \
better than a data URL for anything but the smallest picture. The model runs on this machine, offline: a run takes \
seconds on a GPU and minutes on a CPU, in proportion to numInferenceSteps x strength x numSamples x width x height, so \
give numSamples 1 unless several pictures are wanted. Nothing is overwritten: each result is a new asset, and its \
text gives the asset id, the file and the seed. Sample i is drawn with seed + i; the same seed and arguments give the \
same picture. Leave width and height out to work at the picture's own size, or give them in its \
proportions. Not available here and refused: concepts, modelEpoch, baseModelId, negativePromptStrength.";

/// How far a picture may be changed.
const STRENGTH: RangeInclusive<f64> = 0.01..=1.0;
/// Guidance of SDXL and of SD 1.5.
const GUIDANCE: RangeInclusive<f64> = 0.0..=20.0;
const STEPS: RangeInclusive<u32> = 1..=150;
const SAMPLES: RangeInclusive<u32> = 1..=128;
/// Sides of any model; a family may allow less.
const SIDES: RangeInclusive<u32> = 64..=2048;
/// Far more than any text encoder reads; the reply repeats the prompts and must stay small.
const MOST_CHARACTERS: usize = 10_000;
/// The weight of a concept.
const CONCEPT_SCALE: RangeInclusive<f64> = -2.0..=2.0;
const NEGATIVE_STRENGTH: RangeInclusive<f64> = 0.0..=10.0;

/// The arguments, checked as far as that goes without the model and the pictures.
#[derive(Debug)]
pub(crate) struct Inpaint {
    /// An id of the catalogue or a folder.
    pub(crate) model_id: Option<String>,
    pub(crate) prompt: String,
    pub(crate) negative_prompt: Option<String>,
    /// Absent only where there is a fault about it.
    pub(crate) image: Option<Source>,
    /// Absent only where there is a fault about it.
    pub(crate) mask: Option<Source>,
    /// Drawn where the call gives none.
    pub(crate) seed: u64,
    pub(crate) strength: f64,
    pub(crate) guidance: Option<f64>,
    pub(crate) steps: u32,
    pub(crate) samples: u32,
    /// The picture's own where the call gives none.
    pub(crate) width: Option<u32>,
    /// The picture's own where the call gives none.
    pub(crate) height: Option<u32>,
    /// A scheduler's class.
    pub(crate) scheduler: Option<String>,
    /// Put the picture's own pixels back outside the mask.
    pub(crate) merge: bool,
    pub(crate) hide_results: bool,
    pub(crate) image_parent: Option<AssetId>,
    pub(crate) image_hide: bool,
    pub(crate) dry_run: bool,
    /// What was asked and has no effect, one sentence each.
    pub(crate) warnings: Vec<String>,
}

/// The tool as it is served.
pub(crate) fn definition() -> Result<Tool> {
    let reference = schema(NAME, include_str!("post-inpaint-inferences.tool.json"))?;
    let input = reference.get("inputSchema").and_then(Value::as_object).cloned().unwrap_or_default();
    let output = schema(NAME, include_str!("post-inpaint-inferences.output.json"))?;
    let annotations = ToolAnnotations::with_title(TITLE)
        .read_only(false)
        .destructive(false)
        .idempotent(false)
        .open_world(false);
    Ok(Tool::new(NAME, DESCRIPTION, Arc::new(input))
        .with_title(TITLE)
        .with_annotations(annotations)
        .with_raw_output_schema(output))
}

const TITLE: &str = "Inpaint a picture";

/// The input schema, for reading arguments.
static INPUT_SCHEMA: LazyLock<Arc<JsonObject>> =
    LazyLock::new(|| definition().map(|tool| tool.input_schema).unwrap_or_default());

impl Inpaint {
    /// Reads the arguments; the second part is everything that is wrong with them.
    pub(crate) fn read(given: &Map<String, Value>) -> (Self, Vec<String>) {
        let mut from = Arguments::new(given, &INPUT_SCHEMA);
        let mut warnings = Vec::new();
        let image = picture(&mut from, &mut warnings, "image", "imageId");
        let mask = picture(&mut from, &mut warnings, "mask", "maskId");
        let prompt = from.text("prompt").unwrap_or_default().to_owned();
        let negative_prompt = from.text("negativePrompt").map(str::to_owned);
        for (name, text) in [("prompt", Some(&prompt)), ("negativePrompt", negative_prompt.as_ref())] {
            let characters = text.map_or(0, |text| text.chars().count());
            if characters > MOST_CHARACTERS {
                from.refuse(
                    name,
                    format!("{characters} characters long"),
                    format!("up to {MOST_CHARACTERS}"),
                );
            }
            if text.is_some_and(|text| has_emphasis(text)) {
                warnings.push(format!(
                    "{name} has emphasis in brackets, which is not weighed: brackets are read as plain characters"
                ));
            }
        }
        let seed = from.text("seed").map(|text| (text, read_seed(text)));
        if let Some((text, None)) = seed {
            from.refuse(
                "seed",
                crate::arguments::show_text(text),
                "a whole number in a string, from -9223372036854775808 to 18446744073709551615",
            );
        }
        let image_parent = from.text("imageParentId").and_then(|text| match text.parse() {
            Ok(id) => Some(id),
            Err(error) => {
                from.faults.push(format!("imageParentId: {error}"));
                None
            }
        });
        let image_hide = from.flag("imageHide").unwrap_or(false);
        if !matches!(image, Some(Source::Data(_))) {
            for name in ["imageParentId", "imageHide"] {
                if from.has(name) {
                    warnings.push(format!("{name} has no effect, since image is not a data URL"));
                }
            }
        }
        if from.flag("intermediateImages") == Some(true) {
            warnings.push("intermediateImages has no effect: only finished pictures are kept".into());
        }
        if from.text_flag("originalAssets") == Some(true) {
            warnings.push("originalAssets has no effect: the linked files always are the originals".into());
        }
        refuse_what_is_missing(&mut from);

        let inpaint = Self {
            model_id: from.text("modelId").map(str::to_owned),
            prompt,
            negative_prompt,
            image,
            mask,
            seed: seed.and_then(|(_, seed)| seed).unwrap_or_else(random_seed),
            strength: from.number("strength", &STRENGTH).unwrap_or(0.75),
            guidance: from.number("guidance", &GUIDANCE),
            steps: from.whole("numInferenceSteps", &STEPS, 1).unwrap_or(30),
            samples: from.whole("numSamples", &SAMPLES, 1).unwrap_or(4),
            width: from.whole("width", &SIDES, 8),
            height: from.whole("height", &SIDES, 8),
            scheduler: from.choice("scheduler").map(str::to_owned),
            merge: !from.flag("disableMerging").unwrap_or(false),
            hide_results: from.flag("hideResults").unwrap_or(false),
            image_parent,
            image_hide,
            dry_run: from.text_flag("dryRun").unwrap_or(false),
            warnings,
        };
        (inpaint, from.faults)
    }
}

/// A picture by its own name or, deprecated, by its asset id alone; the first wins.
fn picture(
    from: &mut Arguments<'_>,
    warnings: &mut Vec<String>,
    name: &'static str,
    id_name: &'static str,
) -> Option<Source> {
    let given = from.text(name);
    let id = from.text(id_name);
    if from.has(name) {
        if id.is_some() {
            warnings.push(format!("{id_name} has no effect, since {name} is given"));
        }
        return match Source::read(given?) {
            Ok(source) => Some(source),
            Err((value, allowed)) => {
                from.refuse(name, value, allowed);
                None
            }
        };
    }
    let Some(id) = id else {
        if !from.has(id_name) {
            from.faults.push(format!("{name} is missing; allowed: {}", Source::ALLOWED));
        }
        return None;
    };
    match id.parse() {
        Ok(id) => Some(Source::Asset(id)),
        Err(error) => {
            from.faults.push(format!("{id_name}: {error}"));
            None
        }
    }
}

/// Parameters whose machinery is not there: refused, since leaving them out would give another picture.
fn refuse_what_is_missing(from: &mut Arguments<'_>) {
    const LEAVE_OUT: &str = "nothing, leave it out";
    for (name, why) in [
        ("modelEpoch", "which only Flux LoRA models have"),
        ("baseModelId", "which only Flux LoRA models have"),
    ] {
        if let Some(text) = from.text(name) {
            from.refuse(name, format!("{}, {why}", crate::arguments::show_text(text)), LEAVE_OUT);
        }
    }
    if let Some(strength) = from.number("negativePromptStrength", &NEGATIVE_STRENGTH)
        && strength != 0.0
    {
        let value = format!("{strength}, which only Flux models have");
        from.refuse("negativePromptStrength", value, "0; negativePrompt alone works");
    }
    let concepts = from.array("concepts").unwrap_or_default();
    for (index, concept) in concepts.iter().enumerate() {
        let fault = match concept {
            Value::Object(concept) => concept_fault(index, concept),
            other => {
                Some(format!("concepts[{index}] is {}; allowed: an object of modelId and scale", show(other)))
            }
        };
        from.faults.extend(fault);
    }
    if !concepts.is_empty() {
        let value = format!("a list of {}, and this server has no concepts yet", concepts.len());
        from.refuse("concepts", value, LEAVE_OUT);
    }
}

fn concept_fault(index: usize, concept: &Map<String, Value>) -> Option<String> {
    let scale = concept.get("scale").and_then(Value::as_f64);
    if !scale.is_some_and(|scale| CONCEPT_SCALE.contains(&scale)) {
        let value = concept.get("scale").map_or("missing".into(), show);
        let (least, most) = (CONCEPT_SCALE.start(), CONCEPT_SCALE.end());
        return Some(format!("concepts[{index}].scale is {value}; allowed: a number from {least} to {most}"));
    }
    if !concept.get("modelId").is_some_and(Value::is_string) {
        let value = concept.get("modelId").map_or("missing".into(), show);
        return Some(format!("concepts[{index}].modelId is {value}; allowed: a string"));
    }
    None
}

/// Any 64 bits; a negative number stands for its two's complement.
fn read_seed(text: &str) -> Option<u64> {
    let text = text.trim();
    text.parse::<u64>().ok().or_else(|| text.parse::<i64>().ok().map(i64::cast_unsigned))
}

/// `((word))`, `[[word]]` or `(word:1.2)`, as other tools write weights.
fn has_emphasis(text: &str) -> bool {
    let weighted = |part: &str| {
        part.split_once(')')
            .and_then(|(inside, _)| inside.rsplit_once(':'))
            .is_some_and(|(_, weight)| weight.trim().parse::<f64>().is_ok())
    };
    text.contains("((") || text.contains("[[") || text.split('(').skip(1).any(weighted)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const ASSET: &str = "asset_GTrL3mq4SXWyMxkOHRxlpw";

    fn read(change: &Value) -> (Inpaint, Vec<String>) {
        let mut given = json!({"modelId": "sd-1.5", "prompt": "a cat", "image": ASSET, "mask": ASSET});
        given.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        Inpaint::read(given.as_object().unwrap())
    }

    #[test]
    fn the_schema_is_served_as_the_reference_has_it() {
        let reference: Value =
            serde_json::from_str(include_str!("post-inpaint-inferences.tool.json")).unwrap();
        let served = serde_json::to_value(definition().unwrap()).unwrap();
        // As text, so that the order counts.
        assert_eq!(served["inputSchema"].to_string(), reference["inputSchema"].to_string());
        assert_eq!(served["name"], reference["name"]);
        assert!(
            served["description"].as_str().unwrap().starts_with(reference["description"].as_str().unwrap())
        );
        assert_eq!(served["inputSchema"]["properties"].as_object().unwrap().len(), 26);
    }

    #[test]
    fn every_parameter_of_the_schema_is_read() {
        // A wrong type must be noticed for each: a parameter that is never read would be ignored silently.
        for (name, property) in INPUT_SCHEMA["properties"].as_object().unwrap() {
            let wrong = if property["type"] == "object" { json!(1) } else { json!({}) };
            let (_, faults) = read(&json!({ name: wrong }));
            assert!(faults.iter().any(|fault| fault.starts_with(name)), "{name}: {faults:?}");
        }
    }

    #[test]
    fn absent_parameters_have_the_defaults_of_the_descriptions() {
        let (inpaint, faults) = read(&json!({}));
        assert_eq!(faults, [""; 0]);
        assert_eq!((inpaint.strength, inpaint.steps, inpaint.samples), (0.75, 30, 4));
        assert_eq!((inpaint.width, inpaint.height, inpaint.guidance), (None, None, None));
        assert!(inpaint.merge && !inpaint.hide_results && !inpaint.dry_run && inpaint.warnings.is_empty());
    }

    #[test]
    fn all_faults_are_told_at_once() {
        let (_, faults) = read(&json!({
            "strength": 0, "guidance": 21, "numInferenceSteps": 151, "numSamples": 0, "width": 68, "height": "512",
            "scheduler": "Euler", "seed": "seven", "imageId": 3, "mask": "http://example.com/mask.png", "dryRun": true,
            "prompt": null, "steps": 3, "concepts": [{"modelId": "x", "scale": 3}], "modelEpoch": "1"
        }));
        for name in [
            "strength is 0;",
            "guidance is 21;",
            "numInferenceSteps is 151;",
            "numSamples is 0;",
            "width is 68;",
            "height is \"512\";",
            "scheduler is \"Euler\";",
            "seed is \"seven\";",
            "imageId is 3;",
            "mask is",
            "dryRun is true;",
            "prompt is null;",
            "steps is not a parameter;",
            "concepts[0].scale is 3;",
            "concepts is",
            "modelEpoch is",
        ] {
            assert_eq!(
                faults.iter().filter(|fault| fault.starts_with(name)).count(),
                1,
                "{name}: {faults:?}"
            );
        }
        assert_eq!(faults.len(), 16, "{faults:?}");
        assert!(
            faults.iter().all(|fault| fault.contains("; allowed: ") && !fault.contains('\n')),
            "{faults:?}"
        );
    }

    #[test]
    fn what_is_required_is_asked_for() {
        let (_, faults) = Inpaint::read(&Map::new());
        for name in ["modelId", "prompt", "image", "mask"] {
            assert!(faults.iter().any(|f| f.starts_with(&format!("{name} is missing"))), "{faults:?}");
        }
    }

    #[test]
    fn the_new_names_win_over_the_deprecated_ones() {
        let other = "asset_AAAAAAAAAAAAAAAAAAAAAA";
        let (inpaint, faults) = read(&json!({"imageId": other, "maskId": other}));
        assert_eq!(faults, [""; 0]);
        for source in [inpaint.image, inpaint.mask] {
            assert!(matches!(source, Some(Source::Asset(id)) if id.as_str() == ASSET));
        }
        assert_eq!(inpaint.warnings.len(), 2);
        let given = json!({"modelId": "m", "prompt": "", "imageId": other, "maskId": ASSET});
        let (inpaint, faults) = Inpaint::read(given.as_object().unwrap());
        assert_eq!(faults, [""; 0]);
        assert!(matches!(inpaint.image, Some(Source::Asset(id)) if id.as_str() == other));
    }

    #[test]
    fn seeds_are_any_64_bits() {
        for (text, seed) in [
            ("0", Some(0)),
            ("18446744073709551615", Some(u64::MAX)),
            ("-1", Some(u64::MAX)),
            (" 7 ", Some(7)),
            ("-9223372036854775808", Some(1 << 63)),
            ("18446744073709551616", None),
            ("1.5", None),
            ("", None),
        ] {
            assert_eq!(read_seed(text), seed, "{text}");
        }
    }

    #[test]
    fn emphasis_is_noticed() {
        for text in ["((ugly face))", "a (red:1.3) hat", "[[x]]"] {
            assert!(has_emphasis(text), "{text}");
        }
        for text in ["a hat (red)", "ratio (3 : b)", "", "(:", "a:1.2"] {
            assert!(!has_emphasis(text), "{text}");
        }
        assert_eq!(read(&json!({"negativePrompt": "((ugly face))"})).0.warnings.len(), 1);
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 12, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::hash_map(any::<String>(), inner, 0..4)
                    .prop_map(|m| Value::Object(m.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_value_anywhere_is_read_or_refused(index in 0usize..26, value in any_json()) {
            let name = INPUT_SCHEMA["properties"].as_object().unwrap().keys().nth(index).unwrap().clone();
            let (inpaint, faults) = read(&json!({ name: value }));
            prop_assert!(STRENGTH.contains(&inpaint.strength) && inpaint.width.is_none_or(|side| SIDES.contains(&side)));
            prop_assert!(faults.iter().all(|fault| fault.len() < 2000));
        }
    }
}
