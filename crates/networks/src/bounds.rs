//! How large a configuration may make a network.
//!
//! A `config.json` comes from anywhere. What it claims is held against these bounds before anything is allocated or
//! counted up to it, since running out of memory can't be reported: it ends the process. Each bound is several times
//! what the largest published network of its kind has.

use std::ops::RangeInclusive;

use crate::{Error, Result};

/// Levels of a UNet or a VAE.
pub(crate) const LEVELS: RangeInclusive<usize> = 1..=8;
/// Layers one behind another.
pub(crate) const LAYERS: RangeInclusive<usize> = 1..=128;
/// Blocks of one network in all, residual and transformer blocks together.
pub(crate) const BLOCKS: RangeInclusive<usize> = 1..=4096;
/// Channels of a picture, of latents, or of a network between.
pub(crate) const WIDTH: RangeInclusive<usize> = 1..=8192;
/// Channels inside a feed-forward layer.
pub(crate) const INNER_WIDTH: RangeInclusive<usize> = 1..=65_536;
/// Entries of a token table.
pub(crate) const TOKENS: RangeInclusive<usize> = 1..=262_144;
/// Tokens of a text.
pub(crate) const POSITIONS: RangeInclusive<usize> = 1..=4096;
/// The side of a picture in pixels, where the network sees one size only.
pub(crate) const PICTURE: RangeInclusive<usize> = 1..=4096;
/// Sides of a convolution's kernel.
pub(crate) const KERNEL: RangeInclusive<usize> = 1..=15;

/// Refuses the first value that is out of its bounds, by the key that it stands under.
pub(crate) fn check<'a>(
    component: &str,
    sizes: impl IntoIterator<Item = (&'a str, usize, RangeInclusive<usize>)>,
) -> Result<()> {
    match sizes.into_iter().find(|(_, value, allowed)| !allowed.contains(value)) {
        None => Ok(()),
        Some((key, value, allowed)) => Err(Error::Config {
            component: component.to_owned(),
            reason: format!("{key} is {value}; allowed: {} to {}", allowed.start(), allowed.end()),
        }),
    }
}

/// Refuses channels that don't divide into the groups of their normalisation.
pub(crate) fn check_groups(component: &str, groups: usize, channels: &[usize]) -> Result<()> {
    match channels.iter().find(|channels| groups == 0 || **channels % groups != 0) {
        None => Ok(()),
        Some(channels) => Err(Error::Config {
            component: component.to_owned(),
            reason: format!("norm_num_groups {groups} does not divide the {channels} of block_out_channels"),
        }),
    }
}
