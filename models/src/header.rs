//! The header of a safetensors file: which tensors it holds, without reading them.
//!
//! The format: eight bytes with the length of the header (little endian), the header as JSON, then the tensors without
//! gaps (<https://github.com/huggingface/safetensors>). Everything here is checked against the file's true size, so
//! that a damaged or hostile file is refused before anything is allocated for it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use safetensors::tensor::Metadata;

use crate::{Error, Result};

/// The longest header that is read. SDXL's UNet, the largest here, has 1680 tensors and 0.2 MB.
const MAX_HEADER_BYTES: u64 = 16 << 20;

/// What one tensor is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// The number format as safetensors names it: `F32`, `F16`, `BF16`, ...
    pub dtype: String,
    /// The shape, outermost dimension first.
    pub shape: Vec<usize>,
    /// The size in the file.
    pub bytes: u64,
}

/// Reads the header of a safetensors file.
///
/// # Errors
/// [`Error::File`] when the file can't be read, its header is damaged, or header and size do not agree.
pub fn read_header(path: &Path) -> Result<BTreeMap<String, TensorInfo>> {
    let (start, size) = read_start(path)?;
    parse_header(&start, size).map_err(|reason| Error::file(path, reason))
}

/// Reads the texts that a safetensors file's header carries beside the tensors (`__metadata__`).
///
/// # Errors
/// As [`read_header`].
pub fn read_texts(path: &Path) -> Result<BTreeMap<String, String>> {
    let (start, size) = read_start(path)?;
    let metadata = parse(&start, size).map_err(|reason| Error::file(path, reason))?;
    Ok(metadata.metadata().clone().unwrap_or_default().into_iter().collect())
}

/// A file's length in bytes and its beginning, the whole header included.
fn read_start(path: &Path) -> Result<(Vec<u8>, u64)> {
    let unreadable = |e: std::io::Error| Error::file(path, format!("can't be read: {e}"));
    let mut file = File::open(path).map_err(unreadable)?;
    let size = file.metadata().map_err(unreadable)?.len();
    let mut start = Vec::new();
    // One byte of the header too: it tells other files from this kind.
    file.by_ref().take(9).read_to_end(&mut start).map_err(unreadable)?;
    let length = header_length(&start, size).map_err(|reason| Error::file(path, reason))?;
    file.take(length.saturating_sub(1)).read_to_end(&mut start).map_err(unreadable)?;
    Ok((start, size))
}

/// Parses the start of a safetensors file of `size` bytes: at least the length and the whole header.
///
/// Total over all inputs: whatever the bytes, it returns the tensors or a sentence why not.
///
/// # Errors
/// What is wrong with the header, in words.
pub fn parse_header(start: &[u8], size: u64) -> std::result::Result<BTreeMap<String, TensorInfo>, String> {
    let describe = |info: &safetensors::tensor::TensorInfo| TensorInfo {
        dtype: format!("{:?}", info.dtype),
        shape: info.shape.clone(),
        bytes: (info.data_offsets.1 - info.data_offsets.0) as u64,
    };
    let metadata = parse(start, size)?;
    Ok(metadata.tensors().into_iter().map(|(name, info)| (name, describe(info))).collect())
}

fn parse(start: &[u8], size: u64) -> std::result::Result<Metadata, String> {
    let length = header_length(start, size)?;
    let header = usize::try_from(length)
        .ok()
        .and_then(|length| start.get(8..)?.get(..length))
        .ok_or("is cut short inside its safetensors header")?;
    let metadata: Metadata =
        serde_json::from_slice(header).map_err(|e| format!("has a damaged safetensors header: {e}"))?;
    // Saturating: a hostile header may claim more than can be counted.
    let wanted = (8 + length).saturating_add(metadata.data_len() as u64);
    if wanted != size {
        return Err(format!("has {size} bytes where its safetensors header says {wanted}"));
    }
    Ok(metadata)
}

fn header_length(start: &[u8], size: u64) -> std::result::Result<u64, String> {
    let length = start.first_chunk::<8>().ok_or("is too short for a safetensors file")?;
    let length = u64::from_le_bytes(*length);
    let is_too_long = length > MAX_HEADER_BYTES || length + 8 > size;
    if is_too_long && start.get(8).is_some_and(|first| *first != b'{') {
        return Err("is not a safetensors file".to_owned());
    }
    if length > MAX_HEADER_BYTES {
        return Err(format!(
            "claims a safetensors header of {length} bytes; at most {MAX_HEADER_BYTES} are read"
        ));
    }
    if length + 8 > size {
        return Err("is cut short inside its safetensors header".to_owned());
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn file(header: &str, data: usize) -> Vec<u8> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend(vec![0; data]);
        bytes
    }

    const TWO: &str = r#"{"__metadata__":{"format":"pt"},
        "b":{"dtype":"F16","shape":[2,2],"data_offsets":[4,12]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;

    #[test]
    fn tensors_are_described() {
        let bytes = file(TWO, 12);
        let tensors = parse_header(&bytes, bytes.len() as u64).unwrap();
        assert_eq!(tensors.keys().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(parse(&bytes, bytes.len() as u64).unwrap().metadata().as_ref().unwrap()["format"], "pt");
        assert_eq!(tensors["b"], TensorInfo { dtype: "F16".into(), shape: vec![2, 2], bytes: 8 });
    }

    #[test]
    fn every_cut_and_every_changed_byte_is_survived() {
        let whole = file(TWO, 12);
        for end in 0..whole.len() {
            assert!(parse_header(&whole[..end], end as u64).is_err(), "{end} bytes were accepted");
        }
        for at in 0..whole.len() - 12 {
            for byte in [0, b'9', b'"', b'}', 0xff] {
                let mut bytes = whole.clone();
                bytes[at] = byte;
                // Whatever the answer: the total of what is described is what is there.
                if let Ok(tensors) = parse_header(&bytes, bytes.len() as u64) {
                    assert!(tensors.values().map(|t| t.bytes).sum::<u64>() <= 12);
                }
            }
        }
    }

    #[test]
    fn hostile_headers_are_refused() {
        let refused = |bytes: &[u8], size: u64, part: &str| {
            let reason = parse_header(bytes, size).unwrap_err();
            assert!(reason.contains(part), "{reason}");
        };
        refused(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", 16, "is not a safetensors file");
        refused(&u64::MAX.to_le_bytes(), 8, "claims a safetensors header");
        let overflow =
            format!(r#"{{"a":{{"dtype":"F32","shape":[{0},{0}],"data_offsets":[0,4]}}}}"#, u64::MAX);
        let overflow = file(&overflow, 4);
        refused(&overflow, overflow.len() as u64, "damaged");
        let gap = file(r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#, 8);
        refused(&gap, gap.len() as u64, "damaged");
        let long = file(TWO, 13);
        refused(&long, long.len() as u64, "where its safetensors header says");
        // So many bytes that they can't be counted together with the header's.
        let side = (1u64 << 61) - 1;
        let tensor = |i: u64| {
            let (from, to) = (i * side, (i + 1) * side);
            format!(r#""{i}":{{"dtype":"U8","shape":[{side}],"data_offsets":[{from},{to}]}}"#)
        };
        let huge = file(&format!("{{{}}}", (0..8).map(tensor).collect::<Vec<_>>().join(",")), 0);
        refused(&huge, huge.len() as u64, "where its safetensors header says");
        let nested = file(&"[".repeat(100_000), 0);
        refused(&nested, nested.len() as u64, "damaged");
    }
}
