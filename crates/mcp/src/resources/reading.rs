//! The contents of one resource, small enough for every host.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use infill_engine::guidance::default_guidance_scale;
use infill_models::adapters::AdapterPurpose;
use infill_models::inspect;
use infill_store::{Asset, AssetId, Error as StoreError, JobId};
use rmcp::model::{ErrorData, ResourceContents};
use serde_json::{Value, json};

use super::{Scheme, not_found};
use crate::inference::linked;
use crate::inside::failed;
use crate::order::Order;
use crate::pictures::asset_of;
use crate::reply::PREVIEW_BYTES;
use crate::report::job_value;
use crate::sizes::sides;
use crate::studio::Studio;
use crate::tools::get_assets_by_asset_id::asset_value;

/// The largest picture that is given as it is: base64 makes four bytes of three.
const WHOLE_BYTES: usize = PREVIEW_BYTES / 4 * 3;

/// The contents of a resource.
///
/// # Errors
/// A URI that leads nowhere; a picture that is damaged.
pub(crate) fn read(studio: &Studio, uri: &str) -> Result<Vec<ResourceContents>, ErrorData> {
    match Scheme::read(uri) {
        Some((Scheme::Asset, id)) => asset(studio, uri, &id),
        Some((Scheme::Job, id)) => job(studio, uri, &id),
        Some((Scheme::Model, id)) => model(studio, uri, &id),
        None => match asset_of(uri) {
            // A link of an earlier reply.
            Some(id) => asset(studio, uri, id),
            None => {
                let forms = Scheme::ALL.map(Scheme::template).join(", ");
                Err(not_found(uri, &format!("allowed: {forms}")))
            }
        },
    }
}

/// The picture, or a preview of it, and then what is known of it.
fn asset(studio: &Studio, uri: &str, id: &str) -> Result<Vec<ResourceContents>, ErrorData> {
    let nowhere = |error: StoreError| match error {
        StoreError::UnknownAsset(_) | StoreError::Id { .. } => not_found(uri, &error.to_string()),
        other => failed(&other),
    };
    let id: AssetId = id.parse().map_err(nowhere)?;
    let asset = studio.store.get(&id).map_err(nowhere)?;
    let bytes = studio.store.bytes(&id).map_err(nowhere)?;
    let mut about = about_asset(studio, &asset);
    let mut contents = Vec::new();
    let blob = |bytes: &[u8], media_type: &str| {
        ResourceContents::blob(STANDARD.encode(bytes), uri).with_mime_type(media_type)
    };
    if bytes.len() <= WHOLE_BYTES {
        contents.push(blob(&bytes, &asset.meta.media_type));
    } else {
        // What came in may be more than can be decoded, and is then told of only.
        let preview = studio.preview(&id, WHOLE_BYTES);
        let shown = if preview.is_some() { ": this is a smaller copy of it" } else { "" };
        let whole = if studio.links.are_files() {
            "the file is whole".to_owned()
        } else {
            format!("it is whole at /assets/{id} of this server")
        };
        about["note"] = json!(format!("The picture is too large for a reply{shown}; {whole}."));
        contents.extend(preview.map(|preview| blob(&preview, "image/jpeg")));
    }
    contents.push(json_contents(uri, &about));
    Ok(contents)
}

/// What is known of an asset: as the tool that shows one says it, with its whole recipe, and its file for clients that
/// have it too.
fn about_asset(studio: &Studio, asset: &Asset) -> Value {
    let mut value = asset_value(asset, &studio.links.url(&studio.store, asset));
    if studio.links.are_files() {
        value["path"] = json!(studio.store.path(asset).display().to_string());
    }
    if let Some(recipe) =
        asset.meta.recipe.as_deref().and_then(|text| serde_json::from_str::<Value>(text).ok())
    {
        value["recipe"] = recipe;
    }
    value
}

fn job(studio: &Studio, uri: &str, id: &str) -> Result<Vec<ResourceContents>, ErrorData> {
    let nowhere = |error: StoreError| match error {
        StoreError::UnknownJob(_) | StoreError::Id { .. } => not_found(uri, &error.to_string()),
        other => failed(&other),
    };
    let id: JobId = id.parse().map_err(nowhere)?;
    let job = studio.store.job(&id).map_err(nowhere)?;
    let mut value = json!({ "job": job_value(&job) });
    if let Ok(order) = Order::read(&job.input) {
        value["inference"] = linked(order.inference, &studio.store, &studio.links);
    }
    Ok(vec![json_contents(uri, &value)])
}

fn model(studio: &Studio, uri: &str, id: &str) -> Result<Vec<ResourceContents>, ErrorData> {
    let holdings = &studio.holdings;
    let checkpoint =
        holdings.checkpoint(id).map_err(|(_, allowed)| not_found(uri, &format!("allowed: {allowed}")))?;
    let family = checkpoint.family();
    let (sides, _) = sides(family);
    let about = holdings.about(id);
    let adapters = [("style", AdapterPurpose::Style), ("character", AdapterPurpose::Character)]
        .into_iter()
        .filter(|(_, purpose)| holdings.adapter(&checkpoint, *purpose).is_ok());
    let mut value = json!({
        "id": id,
        "name": about.name.as_deref().unwrap_or(id),
        "type": about.model_type,
        "trainedToInpaint": checkpoint.is_inpaint(),
        "width": { "minimum": sides.start(), "maximum": sides.end(), "multipleOf": 8 },
        "height": { "minimum": sides.start(), "maximum": sides.end(), "multipleOf": 8 },
        "defaultGuidance": default_guidance_scale(&checkpoint),
        "defaultScheduler": checkpoint.scheduler_config().ok().and_then(|config| config["_class_name"].as_str()),
        "ipAdapterTypes": adapters.map(|(name, _)| name).collect::<Vec<_>>(),
        "concepts": holdings.concept_ids(Some(&checkpoint)),
    });
    for (key, text) in [("licence", about.licence), ("notes", about.notes)] {
        if let Some(text) = text {
            value[key] = json!(text);
        }
    }
    if let Ok(networks) = inspect(&checkpoint) {
        value["parameters"] = json!(networks.iter().map(|network| network.parameters).sum::<u64>());
        value["weightBytes"] = json!(networks.iter().map(|network| network.total_bytes()).sum::<u64>());
    }
    Ok(vec![json_contents(uri, &value)])
}

fn json_contents(uri: &str, value: &Value) -> ResourceContents {
    ResourceContents::text(value.to_string(), uri).with_mime_type("application/json")
}
