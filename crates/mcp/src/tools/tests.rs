//! What is read out of arguments, and what is refused.
#![allow(clippy::unwrap_used)]
use infill_models::adapters::AdapterPurpose;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::concepts::ConceptArgument;
use super::inpaint::{Inpaint, SIDES, STRENGTH, read_seed};
use super::{Action, Kind};
use crate::pictures::Source;

const ASSET: &str = "asset_GTrL3mq4SXWyMxkOHRxlpw";

const OTHER: &str = "asset_AAAAAAAAAAAAAAAAAAAAAA";

fn read_with(kind: Kind, change: &Value) -> (Inpaint, Vec<String>) {
    let mut given = json!({"modelId": "sd-1.5", "prompt": "a cat", "image": ASSET, "mask": ASSET});
    given.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    Inpaint::read(kind, given.as_object().unwrap(), None)
}

fn read(change: &Value) -> (Inpaint, Vec<String>) {
    read_with(Kind::Inpaint, change)
}

/// The second tool, whose references are all in `change`.
fn read_references(change: &Value) -> (Inpaint, Vec<String>) {
    read_with(Kind::InpaintIpAdapter, change)
}

#[test]
fn the_schemas_are_served_as_the_reference_has_them() {
    for (kind, count) in [(Kind::Inpaint, 26), (Kind::InpaintIpAdapter, 33)] {
        let reference: Value = serde_json::from_str(kind.definition().reference).unwrap();
        let served = serde_json::to_value(Action::Paint(kind).tool().unwrap()).unwrap();
        // As text, so that the order counts.
        assert_eq!(served["inputSchema"].to_string(), reference["inputSchema"].to_string());
        assert_eq!(served["name"], reference["name"]);
        let description = served["description"].as_str().unwrap();
        assert!(description.starts_with(reference["description"].as_str().unwrap()));
        assert_eq!(served["inputSchema"]["properties"].as_object().unwrap().len(), count);
        assert_eq!(Kind::named(kind.name()), Some(kind));
    }
    assert_eq!(Kind::named("post-inpaint"), None);
}

#[test]
fn a_definition_explains_every_parameter_and_stays_short() {
    for action in Action::ALL {
        let tool = action.tool().unwrap();
        let description = tool.description.unwrap();
        for (name, property) in action.input_schema()["properties"].as_object().unwrap() {
            let explained = property["description"].is_string() || description.contains(name.as_str());
            assert!(explained, "{}: {name}", action.name());
        }
        assert!(description.len() < 3400, "{}: {}", action.name(), description.len());
        // Each says which other one to use instead.
        let others = Action::ALL.into_iter().filter(|other| *other != action);
        assert!(others.map(Action::name).any(|other| description.contains(other)), "{}", action.name());
        assert!(tool.title.is_some() && tool.icons.is_some_and(|icons| icons.len() == 1));
    }
}

#[test]
fn every_parameter_of_the_schemas_is_read() {
    // A wrong type must be noticed for each: a parameter that is never read would be ignored silently.
    for kind in Kind::ALL {
        for (name, property) in kind.input_schema()["properties"].as_object().unwrap() {
            let wrong = if property["type"] == "object" { json!(1) } else { json!({}) };
            let (_, faults) = read_with(kind, &json!({ name: wrong }));
            assert!(faults.iter().any(|fault| fault.starts_with(name)), "{name}: {faults:?}");
        }
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
        "modelEpoch is",
    ] {
        assert_eq!(faults.iter().filter(|fault| fault.starts_with(name)).count(), 1, "{name}: {faults:?}");
    }
    assert_eq!(faults.len(), 15, "{faults:?}");
    assert!(faults.iter().all(|fault| fault.contains("; allowed: ") && !fault.contains('\n')), "{faults:?}");
}

#[test]
fn what_is_said_of_a_data_url_means_nothing_for_other_pictures() {
    let said = json!({"imageHide": true, "imageParentId": OTHER});
    for image in [ASSET, "file:///pictures/a.png"] {
        let mut change = said.clone();
        change["image"] = json!(image);
        let (inpaint, faults) = read(&change);
        assert_eq!(faults, [""; 0]);
        assert_eq!((inpaint.image_hide, inpaint.image_parent), (false, None));
        assert_eq!(inpaint.warnings.len(), 2);
    }
    let mut change = said;
    change["image"] = json!("data:image/png;base64,AAEC");
    let (inpaint, _) = read(&change);
    assert!(inpaint.image_hide && inpaint.image_parent.is_some() && inpaint.warnings.is_empty());
}

#[test]
fn what_only_flux_models_have_is_refused_unless_it_is_harmless() {
    for (change, name) in [
        (json!({"modelEpoch": ""}), "modelEpoch"),
        (json!({"baseModelId": ""}), "baseModelId"),
        (json!({"baseModelId": "sd-1.5"}), "baseModelId"),
        (json!({"negativePromptStrength": 0}), "negativePromptStrength"),
        (json!({"concepts": [{"modelId": "ink", "scale": 1, "modelEpoch": ""}]}), "concepts[0].modelEpoch"),
    ] {
        let (inpaint, faults) = read(&change);
        assert_eq!(faults, [""; 0], "{change}");
        assert_eq!(inpaint.warnings.len(), 1, "{change}");
        assert!(
            inpaint.warnings[0].starts_with(&format!("{name} has no effect, since only Flux")),
            "{change}"
        );
    }
    for (change, fault) in [
        (
            json!({"modelEpoch": "000001"}),
            "modelEpoch is \"000001\", which only Flux LoRA models have; allowed: nothing",
        ),
        (
            json!({"baseModelId": "flux"}),
            "baseModelId is \"flux\", which only Flux LoRA models have; allowed: nothing",
        ),
        (
            json!({"negativePromptStrength": 1}),
            "negativePromptStrength is 1, which only Flux models have; allowed: 0,",
        ),
        (
            json!({"negativePromptStrength": 11}),
            "negativePromptStrength is 11; allowed: a number from 0 to 10",
        ),
    ] {
        let (_, faults) = read(&change);
        assert!(faults.len() == 1 && faults[0].starts_with(fault), "{change}: {faults:?}");
    }
}

#[test]
fn what_is_required_is_asked_for() {
    let (_, faults) = Inpaint::read(Kind::Inpaint, &Map::new(), None);
    for name in ["modelId", "prompt", "image", "mask"] {
        assert!(faults.iter().any(|f| f.starts_with(&format!("{name} is missing"))), "{faults:?}");
    }
}

#[test]
fn the_new_names_win_over_the_deprecated_ones() {
    let (inpaint, faults) = read(&json!({"imageId": OTHER, "maskId": OTHER}));
    assert_eq!(faults, [""; 0]);
    for source in [inpaint.image, inpaint.mask] {
        assert!(matches!(source, Some(Source::Asset(id)) if id.as_str() == ASSET));
    }
    assert_eq!(inpaint.warnings.len(), 2);
    let given = json!({"modelId": "m", "prompt": "", "imageId": OTHER, "maskId": ASSET});
    let (inpaint, faults) = Inpaint::read(Kind::Inpaint, given.as_object().unwrap(), None);
    assert_eq!(faults, [""; 0]);
    assert!(matches!(inpaint.image, Some(Source::Asset(id)) if id.as_str() == OTHER));
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

/// The references of a call that is fine: the pictures' parameters, their scales, the notes.
fn references(change: &Value) -> (Vec<String>, Vec<f64>, Vec<String>) {
    let (inpaint, faults) = read_references(change);
    assert_eq!(faults, [""; 0], "{change}");
    let references = inpaint.references.unwrap();
    assert_eq!(references.pictures.len(), references.scales.len());
    (references.pictures.into_iter().map(|(name, _)| name).collect(), references.scales, inpaint.warnings)
}

#[test]
fn references_come_from_either_list_or_both() {
    let (names, scales, notes) = references(&json!({"ipAdapterImages": [ASSET]}));
    assert_eq!((names, scales, notes.len()), (vec!["ipAdapterImages[0]".to_owned()], vec![0.9], 0));
    let (names, scales, notes) = references(&json!({
        "ipAdapterImages": ["data:image/png;base64,AAEC", "file:///a.png"], "ipAdapterImageIds": [OTHER],
        "ipAdapterScales": [0, 0.5, 1]
    }));
    assert_eq!(names, ["ipAdapterImages[0]", "ipAdapterImages[1]", "ipAdapterImageIds[0]"]);
    assert_eq!(scales, [0.0, 0.5, 1.0]);
    assert!(notes.len() == 1 && notes[0].contains("3 references"), "{notes:?}");
    let (_, scales, _) = references(&json!({"ipAdapterImageIds": [OTHER, ASSET], "ipAdapterScales": [0.25]}));
    assert_eq!(scales, [0.25, 0.25]);
}

#[test]
fn deprecated_forms_work_and_lose_to_the_lists() {
    for (singular, name) in [("ipAdapterImage", "ipAdapterImage"), ("ipAdapterImageId", "ipAdapterImageId")] {
        let (names, scales, _) =
            references(&json!({ singular: OTHER, "ipAdapterScale": 0.3, "ipAdapterImages": [] }));
        assert_eq!((names, scales), (vec![name.to_owned()], vec![0.3]));
        for list in ["ipAdapterImages", "ipAdapterImageIds"] {
            let (names, _, notes) = references(&json!({ singular: OTHER, list: [ASSET] }));
            assert_eq!(names, [format!("{list}[0]")]);
            assert_eq!(notes, [format!("{singular} has no effect, since {list} is given")]);
        }
    }
    let (_, scales, notes) = references(&json!({"ipAdapterImages": [ASSET, OTHER], "ipAdapterScale": 0.3}));
    assert_eq!((scales, notes.len()), (vec![0.3, 0.3], 0));
    let (_, scales, notes) =
        references(&json!({"ipAdapterImages": [ASSET], "ipAdapterScale": 0.3, "ipAdapterScales": [0.4]}));
    assert_eq!((scales, notes.len()), (vec![0.4], 1));
}

#[test]
fn what_is_wrong_with_references_is_told() {
    for (change, fault) in [
        (json!({}), "ipAdapterImages is missing; allowed: 1 to 32 reference pictures, each an asset id"),
        (json!({"ipAdapterImages": [], "ipAdapterImageIds": []}), "ipAdapterImages is missing"),
        (
            json!({"ipAdapterImage": ASSET, "ipAdapterImageId": OTHER}),
            "ipAdapterImageId is \"asset_AAAAAAAAAAAAAAAAAAAAAA\"; allowed: nothing where ipAdapterImage is given",
        ),
        (
            json!({"ipAdapterImages": [ASSET, ASSET], "ipAdapterScales": [1, 1, 1]}),
            "ipAdapterScales is a list of 3 for 2 reference pictures; allowed: one number for all, or 2, one for each",
        ),
        (
            json!({"ipAdapterImages": [ASSET], "ipAdapterScales": []}),
            "ipAdapterScales is a list of 0 for 1 reference picture;",
        ),
        (
            json!({"ipAdapterImages": [ASSET], "ipAdapterScales": [1.5]}),
            "ipAdapterScales[0] is 1.5; allowed: a number from 0 to 1",
        ),
        (json!({"ipAdapterImages": [ASSET], "ipAdapterScale": -0.1}), "ipAdapterScale is -0.1; allowed:"),
        (json!({"ipAdapterImages": [ASSET, 3]}), "ipAdapterImages[1] is 3; allowed:"),
        (json!({"ipAdapterImages": ["cat.png"]}), "ipAdapterImages[0] is \"cat.png\"; allowed:"),
        (json!({"ipAdapterImageIds": ["file:///a.png"]}), "ipAdapterImageIds[0]: "),
        (
            json!({"ipAdapterImages": vec![ASSET; 33]}),
            "ipAdapterImages is given with 33 references; allowed:",
        ),
        (
            json!({"ipAdapterImages": [ASSET], "ipAdapterType": "face"}),
            "ipAdapterType is \"face\"; allowed: character, style",
        ),
    ] {
        let (_, faults) = read_references(&change);
        assert_eq!(faults.len(), 1, "{change}: {faults:?}");
        assert!(faults[0].starts_with(fault), "{change}: {faults:?}");
    }
}

#[test]
fn the_type_is_style_unless_it_is_said() {
    let purpose = |change: Value| read_references(&change).0.references.unwrap().purpose;
    assert_eq!(purpose(json!({"ipAdapterImage": ASSET})), AdapterPurpose::Style);
    assert_eq!(
        purpose(json!({"ipAdapterImage": ASSET, "ipAdapterType": "character"})),
        AdapterPurpose::Character
    );
    assert!(read(&json!({})).0.references.is_none());
}

#[test]
fn concepts_are_names_with_scales() {
    let (inpaint, faults) =
        read(&json!({"concepts": [{"modelId": "ink", "scale": -2}, {"modelId": "b", "scale": 0}]}));
    assert_eq!(faults, [""; 0]);
    let ink = ConceptArgument { model_id: "ink".into(), scale: -2.0 };
    assert_eq!((inpaint.concepts.len(), &inpaint.concepts[0]), (2, &ink));
    for (concept, fault) in [
        (json!("ink"), "concepts[0] is \"ink\"; allowed: an object of modelId and scale"),
        (json!({"scale": 1}), "concepts[0].modelId is missing; allowed: a string"),
        (json!({"modelId": "ink"}), "concepts[0].scale is missing; allowed: a number from -2 to 2"),
        (json!({"modelId": "ink", "scale": 2.5}), "concepts[0].scale is 2.5; allowed: a number from -2 to 2"),
        (
            json!({"modelId": "ink", "scale": 1, "modelEpoch": "1"}),
            "concepts[0].modelEpoch is \"1\", which only",
        ),
        (json!({"modelId": "ink", "scale": 1, "weight": 1}), "concepts[0] has \"weight\"; allowed: modelId,"),
    ] {
        let (_, faults) = read(&json!({ "concepts": [concept] }));
        assert!(faults.len() == 1 && faults[0].starts_with(fault), "{faults:?}");
    }
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
    fn any_value_anywhere_is_read_or_refused(index in 0usize..33, value in any_json()) {
        let kind = Kind::InpaintIpAdapter;
        let name = kind.input_schema()["properties"].as_object().unwrap().keys().nth(index).unwrap().clone();
        let (inpaint, faults) = read_with(kind, &json!({ name: value }));
        prop_assert!(STRENGTH.contains(&inpaint.strength) && inpaint.width.is_none_or(|side| SIDES.contains(&side)));
        prop_assert!(faults.iter().all(|fault| fault.len() < 2000));
    }
}
