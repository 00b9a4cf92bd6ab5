//! The names of assets and jobs: a prefix and 22 characters, which are 16 bytes in base64url.

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::{Error, Result};

/// Characters after the prefix.
const LETTERS: usize = 22;

/// The name of an asset: the first 16 bytes of the BLAKE3 of its content, so the same bytes have the same name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AssetId(String);

/// The name of a job: 16 random bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JobId(String);

impl AssetId {
    const PREFIX: &str = "asset_";

    /// The name of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self::from_hash(&blake3::hash(bytes))
    }

    pub(crate) fn from_hash(hash: &blake3::Hash) -> Self {
        let (first, _) = hash.as_bytes().split_at(16);
        Self(format!("{}{}", Self::PREFIX, URL_SAFE_NO_PAD.encode(first)))
    }

    /// The whole name, `asset_...`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl JobId {
    const PREFIX: &str = "job_";

    /// A new name.
    pub fn random() -> Self {
        Self(format!("{}{}", Self::PREFIX, random_letters()))
    }

    /// The whole name, `job_...`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// 16 bytes that no other call gives, as 22 letters. Names need no secrecy: the keys that the standard library draws
/// from the system for its hash maps are random enough.
pub(crate) fn random_letters() -> String {
    let mut bytes = [0; 16];
    for (index, half) in bytes.chunks_exact_mut(8).enumerate() {
        let mut hasher = RandomState::new().build_hasher();
        hasher.write_usize(index);
        hasher.write_u32(std::process::id());
        hasher.write_i64(crate::now());
        half.copy_from_slice(&hasher.finish().to_le_bytes());
    }
    URL_SAFE_NO_PAD.encode(bytes)
}

fn parse(text: &str, what: &'static str, prefix: &'static str) -> Result<String> {
    let letters = text.strip_prefix(prefix).filter(|rest| {
        rest.len() == LETTERS && rest.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    });
    match letters {
        Some(_) => Ok(text.to_owned()),
        None => Err(Error::Id { what, prefix, value: text.chars().take(60).collect() }),
    }
}

impl FromStr for AssetId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        parse(text, "asset", Self::PREFIX).map(Self)
    }
}

impl FromStr for JobId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        parse(text, "job", Self::PREFIX).map(Self)
    }
}

impl fmt::Display for AssetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_id_of_the_reference_is_read() {
        assert!("asset_GTrL3mq4SXWyMxkOHRxlpw".parse::<AssetId>().is_ok());
    }

    #[test]
    fn what_is_no_id_is_refused_in_one_sentence() {
        for text in [
            "",
            "asset_",
            "asset_../../etc/passwd_____",
            "job_GTrL3mq4SXWyMxkOHRxlpw",
            "asset_GTrL3mq4SXWyMxkOHRxlpw ",
        ] {
            let message = text.parse::<AssetId>().unwrap_err().to_string();
            assert!(message.contains("asset_") && !message.contains('\n'), "{message}");
        }
    }

    proptest! {
        #[test]
        fn ids_of_bytes_round_trip(bytes: Vec<u8>) {
            let id = AssetId::of(&bytes);
            prop_assert_eq!(id.as_str().parse::<AssetId>().unwrap(), id);
        }

        #[test]
        fn any_text_is_read_or_refused(text: String) {
            if let Ok(id) = text.parse::<AssetId>() {
                prop_assert_eq!(id.as_str(), text);
            }
        }
    }

    #[test]
    fn random_ids_differ() {
        assert_ne!(JobId::random(), JobId::random());
        assert!(JobId::random().as_str().parse::<JobId>().is_ok());
    }
}
