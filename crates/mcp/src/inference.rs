//! A call as the reference writes it down, and the recipe that a picture carries.

use std::path::Path;

use infill_engine::additions::Additions;
use infill_engine::guidance::default_guidance_scale;
use infill_models::Checkpoint;
use infill_models::adapters::AdapterPurpose;
use infill_store::{AssetId, Store};
use serde_json::{Map, Value, json};

use crate::links::Links;
use crate::tools::Kind;
use crate::tools::inpaint::Inpaint;

/// The pictures of the call, stored.
#[derive(Debug)]
pub(crate) struct Inputs {
    pub(crate) image: AssetId,
    pub(crate) mask: AssetId,
    pub(crate) references: Vec<AssetId>,
}

/// The inference as the reference writes it, with asset ids in place of [links](linked).
pub(crate) fn inference(inpaint: &Inpaint, checkpoint: &Checkpoint, inputs: &Inputs) -> Value {
    let mut value = json!({
        "type": match inpaint.kind {
            Kind::Inpaint => "inpaint",
            Kind::InpaintIpAdapter => "inpaint_ip_adapter",
        },
        "prompt": inpaint.prompt,
        "image": inputs.image.as_str(),
        "imageId": inputs.image.as_str(),
        "mask": inputs.mask.as_str(),
        "maskId": inputs.mask.as_str(),
        "seed": inpaint.seed.to_string(),
        "strength": inpaint.strength,
        "guidance": inpaint.guidance.unwrap_or_else(|| default_guidance_scale(checkpoint)),
        "numInferenceSteps": inpaint.steps,
        "numSamples": inpaint.samples,
        "width": inpaint.width,
        "height": inpaint.height,
        "disableMerging": !inpaint.merge,
        "hideResults": inpaint.hide_results,
        "intermediateImages": inpaint.intermediate_images,
    });
    for (name, text) in [("negativePrompt", &inpaint.negative_prompt), ("scheduler", &inpaint.scheduler)] {
        if let Some(text) = text {
            value[name] = json!(text);
        }
    }
    if !inpaint.concepts.is_empty() {
        let concepts = inpaint.concepts.iter();
        value["concepts"] =
            concepts.map(|concept| json!({ "modelId": concept.model_id, "scale": concept.scale })).collect();
    }
    if let Some(references) = &inpaint.references {
        let ids: Vec<&str> = inputs.references.iter().map(AssetId::as_str).collect();
        value["ipAdapterImages"] = json!(ids);
        value["ipAdapterImageIds"] = json!(ids);
        value["ipAdapterScales"] = json!(references.scales);
        value["ipAdapterType"] = json!(match references.purpose {
            AdapterPurpose::Style => "style",
            AdapterPurpose::Character => "character",
        });
    }
    value
}

/// The parameters of an inference that are links to pictures.
const PICTURES: [&str; 3] = ["image", "mask", "ipAdapterImages"];

/// The inference with the links that hold now. A picture that is gone keeps its id.
pub(crate) fn linked(mut inference: Value, store: &Store, links: &Links) -> Value {
    let link = |value: &mut Value| {
        let id = value.as_str().and_then(|id| id.parse::<AssetId>().ok());
        if let Some(asset) = id.and_then(|id| store.get(&id).ok()) {
            *value = json!(links.url(store, &asset));
        }
    };
    for name in PICTURES {
        match inference.get_mut(name) {
            Some(Value::Array(values)) => values.iter_mut().for_each(link),
            Some(value) => link(value),
            None => {}
        }
    }
    if !links.are_files() {
        let concepts = inference.get_mut("concepts").and_then(Value::as_array_mut);
        for id in concepts.into_iter().flatten().filter_map(|concept| concept.get_mut("modelId")) {
            *id = json!(bare(id.as_str().unwrap_or_default()));
        }
    }
    inference
}

/// What all pictures of a run have in common: the inference without this machine's paths, and what its names stood for.
///
/// # Errors
/// A file of the additions that can't be read.
pub(crate) fn recipe(
    inpaint: &Inpaint,
    inference: &Value,
    additions: &Additions,
) -> infill_engine::Result<Map<String, Value>> {
    let mut recipe = inference.as_object().cloned().unwrap_or_default();
    // Where this machine keeps its files is nobody's business, and would make other bytes on each machine.
    for path in PICTURES {
        recipe.shift_remove(path);
    }
    // Nor does a picture depend on being watched.
    recipe.shift_remove("intermediateImages");
    recipe.insert("modelId".into(), json!(inpaint.model_id.as_deref().map(bare)));
    let concepts = inpaint.concepts.iter().zip(&additions.concepts).map(|(concept, added)| {
        let digest = added.file.digest()?;
        Ok(json!({ "modelId": bare(&concept.model_id), "scale": concept.scale, "digest": digest }))
    });
    let concepts = concepts.collect::<infill_engine::Result<Vec<_>>>()?;
    if !concepts.is_empty() {
        recipe.insert("concepts".into(), json!(concepts));
    }
    let embeddings = additions.embeddings.iter();
    let embeddings = embeddings
        .map(|file| Ok(json!({ "name": name(file.path()), "digest": file.digest()? })))
        .collect::<infill_engine::Result<Vec<_>>>()?;
    if !embeddings.is_empty() {
        recipe.insert("embeddings".into(), json!(embeddings));
    }
    if let Some(adapter) = additions.ip_adapters.first() {
        let (file, digest) = (name(adapter.file.path()), adapter.file.digest()?);
        let encoder = adapter.image_encoder.digest()?;
        recipe.insert(
            "ipAdapter".into(),
            json!({ "file": file, "digest": digest, "imageEncoderDigest": encoder }),
        );
    }
    Ok(recipe)
}

/// An id as it is; of a path, its last part.
pub(crate) fn bare(id: &str) -> String {
    let path = Path::new(id);
    if path.is_absolute() { name(path) } else { id.to_owned() }
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}
