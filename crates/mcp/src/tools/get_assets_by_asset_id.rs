//! `get-assets-by-asset-id`: what is known of a stored picture, with a preview and a link.

use infill_store::{Asset, AssetId, iso};
use rmcp::model::CallToolResult;
use serde_json::{Map, Value, json};

use super::{Action, Definition};
use crate::arguments::Arguments;
use crate::reply;
use crate::studio::Studio;

pub(super) const DEFINITION: Definition = Definition {
    name: "get-assets-by-asset-id",
    title: "Look at a picture",
    description: "Shows a stored picture: its size, where it is, the picture that it was made from, the prompt, seed and \
settings of one that was painted here, a small preview, and a link to the full picture. Use it to see a picture of \
which only the asset id is known. It reads and changes nothing; to work on the picture, give its asset id as the image \
of post-inpaint-inferences. For a job's pictures, use get-job-id.",
    reference: include_str!("get-assets-by-asset-id.tool.json"),
    output: include_str!("get-assets-by-asset-id.output.json"),
};

/// Whose pictures these are, where the reference names a user: nobody else is here.
const OWNER: &str = "local";
/// What a recipe says that belongs to a picture's metadata.
const SAID: [&str; 8] =
    ["modelId", "prompt", "negativePrompt", "seed", "strength", "guidance", "numInferenceSteps", "scheduler"];

/// Answers a call.
pub(crate) fn answer(studio: &Studio, given: &Map<String, Value>) -> CallToolResult {
    let mut from = Arguments::new(given, Action::GetAsset.input_schema());
    let id = from.id::<AssetId>("assetId");
    let (Some(id), true) = (id, from.faults.is_empty()) else { return reply::failure(&from.faults) };
    let refused = |error: infill_store::Error| {
        reply::failure(&[format!("assetId is {id}; allowed: an asset of this server; {error}")])
    };
    let asset = match studio.store.get(&id) {
        Ok(asset) => asset,
        Err(error) => return refused(error),
    };
    if let Err(error) = studio.store.bytes(&id) {
        return refused(error);
    }
    let (place, url) = (studio.links.place(&studio.store, &asset), studio.links.url(&studio.store, &asset));
    let value = asset_value(&asset, &url);
    let mut result = reply::told(&[line(&asset, &place, &value)], json!({ "asset": value }));
    if let Some(jpeg) = studio.preview(&id, reply::preview_budget(0, 1)) {
        result.content.push(reply::preview_block(&jpeg));
    }
    let path = studio.store.path(&asset);
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or("bin");
    result.content.push(reply::picture_link(
        url,
        format!("{id}.{extension}"),
        "Stored picture".into(),
        &asset.meta.media_type,
        asset.size,
    ));
    result
}

fn line(asset: &Asset, place: &str, value: &Value) -> String {
    let Asset { id, meta, size, created_at, .. } = asset;
    let mut text = format!("{id}: {place}, {}, ", meta.media_type);
    if let (Some(width), Some(height)) = (meta.width, meta.height) {
        text.push_str(&format!("{width}x{height} pixels, "));
    }
    text.push_str(&format!("{size} bytes, since {}", iso(*created_at)));
    if let Some(parent) = &meta.parent {
        text.push_str(&format!(", made from {parent}"));
    }
    if meta.hidden {
        text.push_str(", kept out of listings");
    }
    text.push('.');
    let said = &value["metadata"];
    let known = SAID.iter().filter_map(|name| Some(format!("{name} {}", said.get(*name)?)));
    let known: Vec<String> = known.collect();
    if !known.is_empty() {
        text.push_str(&format!(" Painted with {}.", known.join(", ")));
    }
    text
}

/// An asset as the reference writes it.
pub(crate) fn asset_value(asset: &Asset, url: &str) -> Value {
    let Asset { id, meta, size, created_at, .. } = asset;
    let recipe: Value =
        meta.recipe.as_deref().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    let source = match recipe["type"].as_str() {
        Some("inpaint_ip_adapter") => "inference-in-paint-ip-adapter",
        Some(_) => "inference-in-paint",
        None => "uploaded",
    };
    let mut properties = json!({ "size": size });
    let mut metadata = json!({ "kind": "image", "type": source, "size": size });
    for (name, side) in [("width", meta.width), ("height", meta.height)] {
        if let Some(side) = side {
            properties[name] = json!(side);
            metadata[name] = json!(side);
        }
    }
    if let Some(parent) = &meta.parent {
        metadata["parentId"] = json!(parent.as_str());
    }
    for name in SAID {
        if let Some(value) = recipe.get(name) {
            metadata[name] = value.clone();
        }
    }
    if let Some(mask) = recipe.get("maskId") {
        metadata["mask"] = mask.clone();
    }
    json!({
        "id": id.as_str(),
        "url": url,
        "mimeType": meta.media_type,
        "kind": "image",
        "source": source,
        "status": "success",
        "privacy": if meta.hidden { "unlisted" } else { "private" },
        "metadata": metadata,
        "properties": properties,
        "authorId": OWNER,
        "ownerId": OWNER,
        "tags": [],
        "collectionIds": [],
        "editCapabilities": [],
        "createdAt": iso(*created_at),
        "updatedAt": iso(*created_at),
    })
}
