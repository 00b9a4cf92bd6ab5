//! Small JSON files of a checkpoint, read with a limit on their size.

use std::borrow::Cow;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde_json::{Map, Value};

use crate::{Error, Result};

/// The largest `config.json`, `model_index.json` or `scheduler_config.json` that is read; real ones have 5 KB.
pub(crate) const MAX_CONFIG_BYTES: u64 = 1 << 20;

/// The largest list of shards that is read; SDXL's UNet in shards has 0.2 MB.
pub(crate) const MAX_INDEX_BYTES: u64 = 16 << 20;

/// Reads the JSON object in `path`, of at most `limit` bytes.
pub(crate) fn read_object(path: &Path, limit: u64) -> Result<Map<String, Value>> {
    parse_object(&read_bytes(path, limit)?).map_err(|reason| Error::file(path, reason))
}

/// Reads all of `path` if it has at most `limit` bytes.
pub(crate) fn read_bytes(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let unreadable = |e: std::io::Error| Error::file(path, format!("can't be read: {e}"));
    let mut bytes = Vec::new();
    // One byte over the limit is enough to know, whatever the file claims to be (a device has no length).
    File::open(path).map_err(unreadable)?.take(limit + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > limit {
        return Err(Error::file(path, format!("is larger than {limit} bytes; such a file is not read")));
    }
    Ok(bytes)
}

pub(crate) fn parse_object(bytes: &[u8]) -> std::result::Result<Map<String, Value>, String> {
    match serde_json::from_slice(&quote_non_finite(bytes)) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err("holds JSON that is not an object".to_owned()),
        Err(e) => Err(format!("is not valid JSON: {e}")),
    }
}

/// Python writes the numbers that JSON has no words for as bare words: `"lambda_min_clipped": -Infinity` stands in
/// every DPM-Solver configuration that diffusers saves. They become strings, which the readers of numbers know.
fn quote_non_finite(bytes: &[u8]) -> Cow<'_, [u8]> {
    const WORDS: [&[u8]; 3] = [b"-Infinity", b"Infinity", b"NaN"];
    let mut out: Option<Vec<u8>> = None;
    let (mut at, mut in_string) = (0, false);
    while at < bytes.len() {
        let rest = &bytes[at..];
        let word = WORDS.iter().find(|word| !in_string && rest.starts_with(word));
        let taken = match (word, rest[0]) {
            (Some(word), _) => {
                let out = out.get_or_insert_with(|| bytes[..at].to_vec());
                out.push(b'"');
                out.extend_from_slice(word);
                out.push(b'"');
                at += word.len();
                continue;
            }
            (None, b'\\') if in_string => 2.min(rest.len()),
            (None, b'"') => {
                in_string = !in_string;
                1
            }
            _ => 1,
        };
        if let Some(out) = &mut out {
            out.extend_from_slice(&rest[..taken]);
        }
        at += taken;
    }
    out.map_or(Cow::Borrowed(bytes), Cow::Owned)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn numbers_beyond_json_are_read_as_python_writes_them() {
        let text =
            br#"{"lambda_min_clipped": -Infinity, "a": [Infinity, NaN], "note": "\\\" -Infinity", "b": 1}"#;
        let map = parse_object(text).unwrap();
        assert_eq!(map["lambda_min_clipped"], "-Infinity");
        assert_eq!(map["a"], serde_json::json!(["Infinity", "NaN"]));
        assert_eq!(map["note"], "\\\" -Infinity");
        assert_eq!(map["b"], 1);
    }

    #[test]
    fn other_words_stay_faults() {
        for text in [&b"{\"a\": Infinit}"[..], b"{\"a\": -", b"{\"a\": \"\\", b"[]", b""] {
            assert!(parse_object(text).is_err());
        }
    }
}
