//! SHA-256 as the reports write it.

use sha2::{Digest, Sha256};

/// Of these bytes, as 64 hexadecimal digits.
pub(crate) fn of(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
