//! Small JSON files of a checkpoint, read with a limit on their size.

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
    match serde_json::from_slice(bytes) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err("holds JSON that is not an object".to_owned()),
        Err(e) => Err(format!("is not valid JSON: {e}")),
    }
}
