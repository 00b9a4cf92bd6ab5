//! The side of the pieces in which large pictures go through the VAE.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use crate::geometry::MAX_SIDE;
use crate::{Error, Result};

/// The side of the VAE's tiles in pixels: a multiple of 32, so that the quarter by which tiles overlap is whole latents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct VaeTileSize(u32);

/// The sides that can be asked for.
pub const VAE_TILE_SIZES: RangeInclusive<u32> = 128..=MAX_SIDE;
const STEP: u32 = 32;

impl VaeTileSize {
    /// Tiles of `pixels` x `pixels`.
    ///
    /// # Errors
    /// [`Error::Refused`] for any side but the multiples of 32 within [`VAE_TILE_SIZES`].
    pub fn new(pixels: u32) -> Result<Self> {
        if VAE_TILE_SIZES.contains(&pixels) && pixels.is_multiple_of(STEP) {
            return Ok(Self(pixels));
        }
        Err(refused(pixels.to_string()))
    }

    /// In pixels.
    pub fn pixels(self) -> u32 {
        self.0
    }
}

impl FromStr for VaeTileSize {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        text.parse().map_err(|_| refused(format!("\"{text}\""))).and_then(Self::new)
    }
}

impl fmt::Display for VaeTileSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

fn refused(value: String) -> Error {
    let (least, most) = VAE_TILE_SIZES.into_inner();
    Error::Refused {
        field: "vae_tile_size",
        value,
        allowed: format!("multiples of {STEP} from {least} to {most}"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn sides_are_multiples_of_32_within_their_range() {
        for good in ["128", "512", "4096"] {
            assert_eq!(good.parse::<VaeTileSize>().unwrap().to_string(), good);
        }
        for bad in ["0", "96", "130", "4128", "-128", "big", ""] {
            let message = bad.parse::<VaeTileSize>().unwrap_err().to_string();
            assert!(message.ends_with("allowed: multiples of 32 from 128 to 4096"), "{message}");
        }
    }
}
