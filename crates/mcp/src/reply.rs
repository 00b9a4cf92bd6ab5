//! The reply to a call: text that suffices by itself, previews, links, and the reference's structure, in this order,
//! and all of it small enough for every host.

use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use infill_store::{AssetId, Job};
use rmcp::model::{Annotations, CallToolResult, ContentBlock, Resource, Role};
use serde_json::{Value, json};

use crate::clock::iso;
use crate::pictures::file_url;

/// Base64 of all previews together: hosts count it, and some allow 1 MiB for a whole reply.
pub(crate) const PREVIEW_BYTES: usize = 700_000;
/// A whole reply.
const REPLY_BYTES: usize = 1_000_000;
/// What a link takes besides its path, which counts in the text.
const LINK_BYTES: usize = 600;
/// Pictures beyond these have no preview: it would show nothing.
const MOST_PREVIEWS: usize = 24;

/// One finished and stored picture.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) id: AssetId,
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) seed: u64,
    pub(crate) seconds: f64,
    /// A JPEG of at most [`preview_budget`] bytes.
    pub(crate) preview: Option<Vec<u8>>,
}

/// The bytes that each of so many previews may have before base64; 0 for those that get none.
pub(crate) fn preview_budget(index: usize, samples: usize) -> usize {
    if index >= MOST_PREVIEWS { 0 } else { PREVIEW_BYTES / samples.clamp(1, MOST_PREVIEWS) / 4 * 3 - 3 }
}

/// The reply to a run that ended well.
pub(crate) fn success(made: &[Made], warnings: &[String], structured: Value) -> CallToolResult {
    let mut text: Vec<String> =
        made.iter().enumerate().map(|(index, one)| line(index, made.len(), one)).collect();
    text.extend(warnings.iter().map(|warning| format!("Note: {warning}.")));
    let links: Vec<ContentBlock> = made.iter().map(link).collect();

    // Some hosts are sent the text, some the structure, and the JSON of either may need escapes.
    let text_bytes: usize = text.iter().map(|line| 2 * line.len()).sum();
    let rest = text_bytes + structured.to_string().len() + made.len() * LINK_BYTES;
    let mut room = PREVIEW_BYTES.min(REPLY_BYTES.saturating_sub(rest));
    let mut previews = Vec::new();
    for one in made {
        let Some(jpeg) = &one.preview else { continue };
        let data = STANDARD.encode(jpeg);
        if data.len() <= room {
            room -= data.len();
            previews.push(ContentBlock::image(data, "image/jpeg"));
        }
    }
    if previews.len() < made.len() {
        text.push(format!(
            "Note: {} of {} previews are shown; every picture is linked.",
            previews.len(),
            made.len()
        ));
    }

    let mut content = vec![ContentBlock::text(text.join("\n"))];
    content.extend(previews);
    content.extend(links);
    let mut result = CallToolResult::success(content);
    result.structured_content = Some(structured);
    result
}

/// The reply to a call that was checked and not run.
pub(crate) fn checked(text: String, warnings: &[String]) -> CallToolResult {
    let mut lines = vec![text];
    lines.extend(warnings.iter().map(|warning| format!("Note: {warning}.")));
    let mut result = CallToolResult::success(vec![ContentBlock::text(lines.join("\n"))]);
    // On one's own machine a run costs no units, only time.
    result.structured_content = Some(json!({ "creativeUnitsCost": 0 }));
    result
}

/// A failure that a model can read, one sentence per line.
pub(crate) fn failure(sentences: &[String]) -> CallToolResult {
    CallToolResult::error(vec![ContentBlock::text(sentences.join("\n"))])
}

/// A job as the reference writes it.
pub(crate) fn job_value(job: &Job) -> Value {
    let history: Vec<Value> = job
        .history
        .iter()
        .map(|(status, at)| json!({ "date": iso(*at), "status": status.as_str() }))
        .collect();
    let assets: Vec<&str> = job.assets.iter().map(AssetId::as_str).collect();
    json!({
        "jobId": job.id.as_str(),
        "jobType": job.kind,
        "status": job.status.as_str(),
        "progress": job.progress,
        "statusHistory": history,
        "metadata": { "assetIds": assets },
        "createdAt": iso(job.created_at),
        "updatedAt": iso(job.updated_at),
    })
}

fn line(index: usize, samples: usize, one: &Made) -> String {
    let Made { id, path, width, height, seed, seconds, .. } = one;
    let number = if samples == 1 { "Picture".into() } else { format!("Picture {} of {samples}", index + 1) };
    format!("{number}: {id}, {}, {width}x{height} pixels, seed {seed}, {seconds:.2} s.", path.display())
}

fn link(one: &Made) -> ContentBlock {
    let mut resource = Resource::new(file_url(&one.path), format!("{}.png", one.id))
        .with_title(format!("Inpainted picture, seed {}", one.seed))
        .with_mime_type("image/png")
        .with_size(one.bytes);
    resource.annotations = Some(Annotations::default().with_audience(vec![Role::User]));
    ContentBlock::resource_link(resource)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn made(count: usize, preview: usize) -> Vec<Made> {
        (0..count)
            .map(|index| Made {
                id: AssetId::of(&index.to_le_bytes()),
                path: format!("/var/lib/a-folder-of-some-length/infill/blobs/{index:02}/{index:064}.png")
                    .into(),
                bytes: 1 << 22,
                width: 1024,
                height: 768,
                seed: u64::MAX - index as u64,
                seconds: 12.351,
                preview: Some(vec![0xff; preview.min(preview_budget(index, count))])
                    .filter(|p| !p.is_empty()),
            })
            .collect()
    }

    fn kinds(result: &CallToolResult) -> Vec<String> {
        let content = serde_json::to_value(&result.content).unwrap();
        content.as_array().unwrap().iter().map(|block| block["type"].as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn a_reply_has_text_then_previews_then_links() {
        let result = success(&made(2, 1000), &["x has no effect".into()], json!({"inference": {}}));
        assert_eq!(kinds(&result), ["text", "image", "image", "resource_link", "resource_link"]);
        let text = result.content[0].as_text().unwrap().text.clone();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert!(
            lines[1].starts_with("Picture 2 of 2: asset_")
                && lines[1].contains("seed 18446744073709551614, 12.35 s")
        );
        assert_eq!(lines[2], "Note: x has no effect.");
        let link = serde_json::to_value(&result.content[3]).unwrap();
        assert_eq!(link["annotations"]["audience"], json!(["user"]));
        assert!(link["uri"].as_str().unwrap().starts_with("file:///var/lib/"));
    }

    #[test]
    fn the_largest_reply_fits_a_host() {
        for count in [1, 2, 7, 24, 25, 128] {
            let ids: Vec<_> = made(count, 0).iter().map(|one| one.id.to_string()).collect();
            let structured = json!({"inference": {"prompt": "\u{1}".repeat(10_000)}, "job": {"metadata": {"assetIds": ids}}});
            let result = success(&made(count, usize::MAX), &[], structured);
            let value = serde_json::to_value(&result).unwrap();
            let previews: usize = value["content"]
                .as_array()
                .unwrap()
                .iter()
                .filter_map(|block| block["data"].as_str())
                .map(str::len)
                .sum();
            assert!(
                previews <= PREVIEW_BYTES && value.to_string().len() < 1 << 20,
                "{count}: {}",
                value.to_string().len()
            );
            assert_eq!(
                kinds(&result).iter().filter(|kind| *kind == "image").count(),
                count.min(MOST_PREVIEWS)
            );
            assert_eq!(
                value["content"][0]["text"].as_str().unwrap().contains("previews are shown"),
                count > MOST_PREVIEWS
            );
        }
    }
}
