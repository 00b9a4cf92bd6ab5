//! The parameters that both tools share, and what a call asks for in all.
//!
//! The ranges and defaults that the schemas' descriptions state are enforced here.

use std::ops::RangeInclusive;

use infill_engine::noise::random_seed;
use infill_engine::request::PROMPT_CHARACTERS;
use infill_models::Family;
use infill_store::AssetId;
use serde_json::{Map, Value};

use super::Kind;
use super::concepts::{self, ConceptArgument};
use super::references::{self, References};
use crate::arguments::{Arguments, show_text};
use crate::pictures::Source;
use crate::sizes::sides;

/// How far a picture may be changed.
pub(super) const STRENGTH: RangeInclusive<f64> = 0.01..=1.0;
/// Guidance of SDXL and of SD 1.5.
const GUIDANCE: RangeInclusive<f64> = 0.0..=20.0;
const STEPS: RangeInclusive<u32> = 1..=150;
const SAMPLES: RangeInclusive<u32> = 1..=128;
/// Sides of any model; a family may allow less.
pub(super) const SIDES: RangeInclusive<u32> = 64..=2048;
const NEGATIVE_STRENGTH: RangeInclusive<f64> = 0.0..=10.0;
pub(super) const LEAVE_OUT: &str = "nothing, leave it out";

/// The arguments, checked as far as that goes without the model and the pictures.
#[derive(Debug)]
pub(crate) struct Inpaint {
    /// The tool that was called.
    pub(crate) kind: Kind,
    /// An id of the catalogue or a folder.
    pub(crate) model_id: Option<String>,
    pub(crate) prompt: String,
    pub(crate) negative_prompt: Option<String>,
    /// Absent only where there is a fault about it.
    pub(crate) image: Option<Source>,
    /// Absent only where there is a fault about it.
    pub(crate) mask: Option<Source>,
    /// For the tool that reads them.
    pub(crate) references: Option<References>,
    pub(crate) concepts: Vec<ConceptArgument>,
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
    /// Show the pictures on the way.
    pub(crate) intermediate_images: bool,
    pub(crate) image_parent: Option<AssetId>,
    pub(crate) image_hide: bool,
    pub(crate) dry_run: bool,
    /// What was asked and has no effect, one sentence each.
    pub(crate) warnings: Vec<String>,
}

impl Inpaint {
    /// Reads the arguments of a tool; the second part is everything that is wrong with them. A family has sides of its
    /// own.
    pub(crate) fn read(
        kind: Kind,
        given: &Map<String, Value>,
        family: Option<Family>,
    ) -> (Self, Vec<String>) {
        let (side, whose) = match family.map(sides) {
            Some((range, kind)) => (range, format!(" for {kind}")),
            None => (SIDES, String::new()),
        };
        let mut from = Arguments::new(given, kind.input_schema());
        let mut warnings = Vec::new();
        let image = picture(&mut from, &mut warnings, "image", "imageId");
        let mask = picture(&mut from, &mut warnings, "mask", "maskId");
        let references = match kind {
            Kind::Inpaint => None,
            Kind::InpaintIpAdapter => Some(references::read(&mut from, &mut warnings)),
        };
        let prompt = from.text("prompt").unwrap_or_default().to_owned();
        let negative_prompt = from.text("negativePrompt").map(str::to_owned);
        for (name, text) in [("prompt", Some(&prompt)), ("negativePrompt", negative_prompt.as_ref())] {
            let characters = text.map_or(0, |text| text.chars().count());
            if characters > PROMPT_CHARACTERS {
                from.refuse(
                    name,
                    format!("{characters} characters long"),
                    format!("up to {PROMPT_CHARACTERS}"),
                );
            }
        }
        let seed = from.text("seed").map(|text| (text, read_seed(text)));
        if let Some((text, None)) = seed {
            from.refuse(
                "seed",
                show_text(text),
                "a whole number in a string, from -9223372036854775808 to 18446744073709551615",
            );
        }
        let mut image_parent = from.id("imageParentId");
        let mut image_hide = from.flag("imageHide").unwrap_or(false);
        if !matches!(image, Some(Source::Data(_))) {
            (image_parent, image_hide) = (None, false);
            for name in ["imageParentId", "imageHide"] {
                if from.has(name) {
                    warnings.push(format!("{name} has no effect, since image is not a data URL"));
                }
            }
        }
        if from.text_flag("originalAssets") == Some(true) {
            warnings
                .push("originalAssets has no effect: the linked pictures always are the originals".into());
        }
        let model_id = from.text("modelId");
        what_flux_has(&mut from, &mut warnings, model_id);

        let concepts = concepts::read(&mut from, &mut warnings);

        let inpaint = Self {
            kind,
            model_id: model_id.map(str::to_owned),
            prompt,
            negative_prompt,
            image,
            mask,
            references,
            concepts,
            seed: seed.and_then(|(_, seed)| seed).unwrap_or_else(random_seed),
            strength: from.number("strength", &STRENGTH).unwrap_or(0.75),
            guidance: from.number("guidance", &GUIDANCE),
            steps: from.whole("numInferenceSteps", &STEPS, 1).unwrap_or(30),
            samples: from.whole("numSamples", &SAMPLES, 1).unwrap_or(4),
            width: from.whole_of("width", &side, 8, &whose),
            height: from.whole_of("height", &side, 8, &whose),
            scheduler: from.choice("scheduler").map(str::to_owned),
            merge: !from.flag("disableMerging").unwrap_or(false),
            hide_results: from.flag("hideResults").unwrap_or(false),
            intermediate_images: from.flag("intermediateImages").unwrap_or(false),
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

/// Parameters that only Flux models have: refused where leaving them out would give another picture than was asked for,
/// else passed over with a note.
fn what_flux_has(from: &mut Arguments<'_>, warnings: &mut Vec<String>, model: Option<&str>) {
    for name in ["modelEpoch", "baseModelId"] {
        let Some(text) = from.text(name) else { continue };
        if text.is_empty() || (name == "baseModelId" && Some(text) == model) {
            warnings.push(format!("{name} has no effect, since only Flux LoRA models have it"));
        } else {
            from.refuse(name, format!("{}, which only Flux LoRA models have", show_text(text)), LEAVE_OUT);
        }
    }
    match from.number("negativePromptStrength", &NEGATIVE_STRENGTH) {
        Some(0.0) => warnings.push(
            "negativePromptStrength has no effect, since only Flux models have it; negativePrompt alone works".into(),
        ),
        Some(strength) => {
            let value = format!("{strength}, which only Flux models have");
            from.refuse("negativePromptStrength", value, "0, or leave it out; negativePrompt alone works");
        }
        None => {}
    }
}

/// Any 64 bits; a negative number stands for its two's complement.
pub(super) fn read_seed(text: &str) -> Option<u64> {
    let text = text.trim();
    text.parse::<u64>().ok().or_else(|| text.parse::<i64>().ok().map(i64::cast_unsigned))
}
