//! The reply to a call: text that suffices by itself, previews, links, and the reference's structure, in this order,
//! and all of it small enough for every host.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use infill_store::AssetId;
use rmcp::model::{Annotations, CallToolResult, ContentBlock, Resource, Role};
use serde_json::{Value, json};

use crate::arguments::{MOST_FAULTS, bounded};

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
    /// Its place among the pictures of its job.
    pub(crate) index: usize,
    pub(crate) id: AssetId,
    /// Where it is, for a line of text.
    pub(crate) place: String,
    pub(crate) url: String,
    pub(crate) bytes: u64,
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) seed: String,
    pub(crate) seconds: f64,
    /// A JPEG of at most [`preview_budget`] bytes.
    pub(crate) preview: Option<Vec<u8>>,
}

/// The bytes that each of so many previews may have before base64; 0 for those that get none.
pub(crate) fn preview_budget(index: usize, samples: usize) -> usize {
    if index >= MOST_PREVIEWS { 0 } else { PREVIEW_BYTES / samples.clamp(1, MOST_PREVIEWS) / 4 * 3 - 3 }
}

/// The reply to a job that ended well, with those of its pictures that are still there.
pub(crate) fn success(
    made: &[Made],
    samples: usize,
    warnings: &[String],
    structured: Value,
) -> CallToolResult {
    let mut text = lines(made, samples);
    text.extend(notes(warnings));
    let links: Vec<ContentBlock> = made.iter().map(link).collect();

    // Some hosts are sent the text, some the structure, and the JSON of either may need escapes.
    let text_bytes: usize = text.iter().map(|line| 2 * line.len()).sum();
    let rest = text_bytes + structured.to_string().len() + made.len() * LINK_BYTES;
    let mut room = PREVIEW_BYTES.min(REPLY_BYTES.saturating_sub(rest));
    let mut previews = Vec::new();
    for one in made {
        let Some(jpeg) = &one.preview else { continue };
        let encoded = 4 * jpeg.len().div_ceil(3);
        if encoded <= room {
            room -= encoded;
            previews.push(preview_block(jpeg));
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
pub(crate) fn checked(lines: &[String], warnings: &[String], estimate: &Value) -> CallToolResult {
    let lines: Vec<String> = lines.iter().cloned().chain(notes(warnings)).collect();
    // On one's own machine a run costs no units, only time and memory.
    told(&lines, json!({ "creativeUnitsCost": 0, "estimate": estimate }))
}

/// A reply of text and structure alone.
pub(crate) fn told(lines: &[String], structured: Value) -> CallToolResult {
    let mut result = CallToolResult::success(vec![ContentBlock::text(lines.join("\n"))]);
    result.structured_content = Some(structured);
    result
}

pub(crate) fn notes(warnings: &[String]) -> impl Iterator<Item = String> {
    warnings.iter().map(|warning| format!("Note: {warning}."))
}

/// One line for each picture, which suffices by itself.
pub(crate) fn lines(made: &[Made], samples: usize) -> Vec<String> {
    made.iter().map(|one| line(samples, one)).collect()
}

/// A failure that a model can read.
pub(crate) fn failure(sentences: &[String]) -> CallToolResult {
    CallToolResult::error(vec![ContentBlock::text(faults(sentences))])
}

/// One sentence per line: no more of them than anybody reads, and none endless.
pub(crate) fn faults(sentences: &[String]) -> String {
    let mut lines: Vec<String> = sentences.iter().take(MOST_FAULTS).map(|one| bounded(one)).collect();
    if sentences.len() > MOST_FAULTS {
        lines.push(format!("and {} more of the kind", sentences.len() - MOST_FAULTS));
    }
    lines.join("\n")
}

fn line(samples: usize, one: &Made) -> String {
    let Made { index, id, place, width, height, seed, seconds, .. } = one;
    let number = if samples == 1 { "Picture".into() } else { format!("Picture {} of {samples}", index + 1) };
    format!("{number}: {id}, {place}, {width}x{height} pixels, seed {seed}, {seconds:.2} s.")
}

fn link(one: &Made) -> ContentBlock {
    let title = format!("Inpainted picture, seed {}", one.seed);
    picture_link(one.url.clone(), format!("{}.png", one.id), title, "image/png", one.bytes)
}

/// A small picture that models are shown.
pub(crate) fn preview_block(jpeg: &[u8]) -> ContentBlock {
    ContentBlock::image(STANDARD.encode(jpeg), "image/jpeg")
}

/// A link that hosts show to their users and don't send to models.
pub(crate) fn picture_link(
    url: String,
    name: String,
    title: String,
    media_type: &str,
    bytes: u64,
) -> ContentBlock {
    let mut resource = Resource::new(url, name).with_title(title).with_mime_type(media_type).with_size(bytes);
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
                index,
                id: AssetId::of(&index.to_le_bytes()),
                place: format!("/var/lib/a-folder-of-some-length/infill/blobs/{index:02}/{index:064}.png"),
                url: format!(
                    "file:///var/lib/a-folder-of-some-length/infill/blobs/{index:02}/{index:064}.png"
                ),
                bytes: 1 << 22,
                width: 1024,
                height: 768,
                seed: (u64::MAX - index as u64).to_string(),
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
        let result = success(&made(2, 1000), 2, &["x has no effect".into()], json!({"inference": {}}));
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
    fn a_failure_fits_a_host_whatever_was_wrong() {
        let result = failure(&vec!["\u{1}".repeat(10_000); 1000]);
        assert!(serde_json::to_string(&result).unwrap().len() < 1 << 20);
        let text = result.content[0].as_text().unwrap().text.clone();
        assert!(text.ends_with("...\nand 950 more of the kind"));
        assert_eq!(failure(&["one".into(), "two".into()]).content[0].as_text().unwrap().text, "one\ntwo");
    }

    #[test]
    fn the_largest_reply_fits_a_host() {
        for count in [1, 2, 7, 24, 25, 128] {
            let ids: Vec<_> = made(count, 0).iter().map(|one| one.id.to_string()).collect();
            let structured = json!({"inference": {"prompt": "\u{1}".repeat(10_000)}, "job": {"metadata": {"assetIds": ids}}});
            let result = success(&made(count, usize::MAX), count, &[], structured);
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
