//! The reference pictures of a call: two lists, their deprecated singular forms, the scales, and what they are for.
//!
//! A list wins over a singular form, as the descriptions say; where both lists are given their pictures are all used,
//! since the descriptions let neither be ignored. An empty list of pictures counts as absent.

use std::ops::RangeInclusive;

use infill_engine::image_prompt::REFERENCES;
use infill_models::adapters::AdapterPurpose;

use crate::arguments::{Arguments, show, show_text};
use crate::pictures::Source;

/// How strongly a reference may be followed.
const SCALE: RangeInclusive<f64> = 0.0..=1.0;
const DEFAULT_SCALE: f64 = 0.9;

/// What a call says of its reference pictures.
#[derive(Debug)]
pub(crate) struct References {
    /// The name of each picture's parameter, and where it comes from. Empty, or short, only where there is a fault.
    pub(crate) pictures: Vec<(String, Source)>,
    /// One for each picture.
    pub(crate) scales: Vec<f64>,
    /// What they are given for.
    pub(crate) purpose: AdapterPurpose,
}

/// Reads the seven parameters.
pub(super) fn read(from: &mut Arguments<'_>, warnings: &mut Vec<String>) -> References {
    let (count, pictures) = pictures(from, warnings);
    let scales = scales(from, warnings, count);
    let purpose = match from.choice("ipAdapterType") {
        Some("character") => AdapterPurpose::Character,
        _ => AdapterPurpose::Style,
    };
    References { pictures, scales, purpose }
}

/// How many pictures are given, and those of them that can be read.
fn pictures(from: &mut Arguments<'_>, warnings: &mut Vec<String>) -> (usize, Vec<(String, Source)>) {
    let before = from.faults.len();
    let images = from.array("ipAdapterImages").unwrap_or_default();
    let ids = from.array("ipAdapterImageIds").unwrap_or_default();
    let image = from.text("ipAdapterImage");
    let id = from.text("ipAdapterImageId");
    let mut found = Vec::new();
    let count = images.len() + ids.len();
    if let (Some(_), Some(id)) = (image, id) {
        let allowed = "nothing where ipAdapterImage is given, leave one of them out";
        from.refuse("ipAdapterImageId", show_text(id), allowed);
    }
    if count > 0 {
        for (name, singular) in [("ipAdapterImage", image), ("ipAdapterImageId", id)] {
            let list = if images.is_empty() { "ipAdapterImageIds" } else { "ipAdapterImages" };
            if singular.is_some() {
                warnings.push(format!("{name} has no effect, since {list} is given"));
            }
        }
        if !images.is_empty() && !ids.is_empty() {
            warnings.push(format!(
                "ipAdapterImages and ipAdapterImageIds are both used, {count} references in this order"
            ));
        }
        if count > *REFERENCES.end() {
            let allowed = format!("up to {} references in all", REFERENCES.end());
            from.refuse("ipAdapterImages", format!("given with {count} references"), allowed);
            return (count, found);
        }
        for (index, value) in images.iter().enumerate() {
            let name = format!("ipAdapterImages[{index}]");
            match value.as_str() {
                Some(text) => found.extend(any_source(from, name, text)),
                None => from.refuse(&name, show(value), Source::ALLOWED),
            }
        }
        for (index, value) in ids.iter().enumerate() {
            let name = format!("ipAdapterImageIds[{index}]");
            match value.as_str() {
                Some(text) => found.extend(asset(from, name, text)),
                None => from.refuse(&name, show(value), "an asset id"),
            }
        }
        return (count, found);
    }
    match (image, id) {
        (Some(text), _) => found.extend(any_source(from, "ipAdapterImage".into(), text)),
        (None, Some(text)) => found.extend(asset(from, "ipAdapterImageId".into(), text)),
        // A parameter that is there and wrong has its fault already.
        (None, None) if from.faults.len() == before => {
            let allowed = "1 to 32 reference pictures";
            from.faults
                .push(format!("ipAdapterImages is missing; allowed: {allowed}, each {}", Source::ALLOWED));
        }
        (None, None) => {}
    }
    (1, found)
}

fn any_source(from: &mut Arguments<'_>, name: String, text: &str) -> Option<(String, Source)> {
    match Source::read(text) {
        Ok(source) => Some((name, source)),
        Err((value, allowed)) => {
            from.refuse(&name, value, allowed);
            None
        }
    }
}

fn asset(from: &mut Arguments<'_>, name: String, text: &str) -> Option<(String, Source)> {
    match text.parse() {
        Ok(id) => Some((name, Source::Asset(id))),
        Err(error) => {
            from.faults.push(format!("{name}: {error}"));
            None
        }
    }
}

/// One scale for each of so many pictures.
fn scales(from: &mut Arguments<'_>, warnings: &mut Vec<String>, count: usize) -> Vec<f64> {
    let single = from.number("ipAdapterScale", &SCALE);
    if count > *REFERENCES.end() {
        // Refused already.
        return Vec::new();
    }
    if !from.has("ipAdapterScales") {
        return vec![single.unwrap_or(DEFAULT_SCALE); count];
    }
    if single.is_some() {
        warnings.push("ipAdapterScale has no effect, since ipAdapterScales is given".into());
    }
    let Some(given) = from.array("ipAdapterScales") else { return vec![DEFAULT_SCALE; count] };
    if given.len() != 1 && given.len() != count {
        let numbers = format!("a list of {} for {count} reference {}", given.len(), plural(count));
        from.refuse("ipAdapterScales", numbers, format!("one number for all, or {count}, one for each"));
        return vec![DEFAULT_SCALE; count];
    }
    let allowed = format!("a number from {} to {}", SCALE.start(), SCALE.end());
    let mut scales = Vec::new();
    for (index, value) in given.iter().enumerate() {
        match value.as_f64().filter(|scale| SCALE.contains(scale)) {
            Some(scale) => scales.push(scale),
            None => from.refuse(&format!("ipAdapterScales[{index}]"), show(value), &allowed),
        }
    }
    match scales.as_slice() {
        [one] => vec![*one; count],
        _ => scales,
    }
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "picture" } else { "pictures" }
}
