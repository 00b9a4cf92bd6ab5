//! Reference pictures: what they are asked to do, and where in the UNet.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde_json::{Map, Value};

use crate::image::Picture;
use crate::mask::Mask;
use crate::{Error, Result};

/// The scales of a reference picture, and of a block in a map, that can be asked for.
pub const ADAPTER_SCALE: RangeInclusive<f64> = 0.0..=5.0;
/// The adapters that one request can use.
pub const ADAPTERS: RangeInclusive<usize> = 0..=8;
/// The reference pictures that one adapter can read.
pub const REFERENCES: RangeInclusive<usize> = 1..=32;

/// What one adapter is given.
#[derive(Debug, Clone)]
pub struct ImagePrompt {
    /// The pictures. Where none has a mask they are attended to jointly, as diffusers does with several pictures for
    /// one adapter, each picture's values weighed by its own scale. Where one has a mask each is attended to by itself,
    /// those without a mask everywhere.
    pub references: Vec<Reference>,
    /// The layers that listen.
    pub blocks: AdapterBlocks,
}

/// One picture to be followed. It is always seen whole: nothing crops it with the mask of the request.
#[derive(Debug, Clone)]
pub struct Reference {
    /// The picture, of any size.
    pub picture: Picture,
    /// How strongly it is followed; 1 as the adapter was trained, 0 as if it were not there.
    pub scale: f64,
    /// Where it is followed: white. Of any size, and brought to the work picture as the request's mask is, crop included;
    /// everywhere if absent.
    pub mask: Option<Mask>,
}

/// Which cross-attention layers listen to a reference picture, and how much.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum AdapterBlocks {
    /// Every layer, as diffusers does by default.
    #[default]
    All,
    /// Colours, material and mood, but not what is where: InstantStyle (Wang et al. 2024, arXiv 2404.02733). For SDXL
    /// `up_blocks.0.attentions.1`, for SD 1.5 `up_blocks.1`, in other UNets the first level of the way up that has
    /// transformers.
    Style,
    /// `Style`, and what is where: for SDXL also `down_blocks.2.attentions.1`, for SD 1.5 also `down_blocks.2` and the
    /// middle, in other UNets the last level of the way down that has transformers and the middle.
    StyleAndLayout,
    /// A factor for each block.
    Custom(BlockMap),
}

/// A factor for each block, as diffusers' `set_ip_adapter_scale` takes it; what is not named is 0.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct BlockMap {
    /// The levels of the way down.
    pub down: Levels,
    /// The middle.
    pub mid: f64,
    /// The levels of the way up.
    pub up: Levels,
}

/// The factors of one way.
#[derive(Debug, Clone, PartialEq)]
pub enum Levels {
    /// The same for all.
    All(f64),
    /// By the number of the level.
    Each(BTreeMap<usize, Transformers>),
}

/// The factors of one level.
#[derive(Debug, Clone, PartialEq)]
pub enum Transformers {
    /// The same for all.
    All(f64),
    /// One for each of its transformers.
    Each(Vec<f64>),
}

impl Default for Levels {
    fn default() -> Self {
        Self::All(0.0)
    }
}

impl ImagePrompt {
    /// Checks what needs no model.
    ///
    /// # Errors
    /// [`Error::Refused`] with the first value that is out of range.
    pub(crate) fn check(&self) -> Result<()> {
        let count = self.references.len();
        if !REFERENCES.contains(&count) {
            return Err(refused(
                "references",
                format!("{count} pictures"),
                "1 to 32 pictures for each adapter",
            ));
        }
        for reference in &self.references {
            if !ADAPTER_SCALE.contains(&reference.scale) {
                return Err(scale_refused(reference.scale));
            }
            if reference.mask.as_ref().is_some_and(Mask::is_empty) {
                let allowed = "a mask with white where the picture is to be followed";
                return Err(refused("reference mask", "nowhere 128 or brighter".to_owned(), allowed));
            }
        }
        match &self.blocks {
            AdapterBlocks::Custom(map) => map.check(),
            AdapterBlocks::All | AdapterBlocks::Style | AdapterBlocks::StyleAndLayout => Ok(()),
        }
    }
}

impl BlockMap {
    /// Reads diffusers' form: `{"down": {"block_2": [0, 1]}, "mid": 0.5, "up": 1}`.
    ///
    /// # Errors
    /// [`Error::Refused`] for a key or a value that has no meaning in it.
    pub fn from_json(json: &Value) -> Result<Self> {
        let Value::Object(keys) = json else { return Err(not_a_map(json)) };
        let mut map = Self::default();
        for (key, value) in keys {
            match key.as_str() {
                "down" => map.down = Levels::from_json(value)?,
                "up" => map.up = Levels::from_json(value)?,
                "mid" => map.mid = mid_from_json(value)?,
                _ => return Err(refused("adapter blocks", key.clone(), "down, mid and up")),
            }
        }
        map.check()?;
        Ok(map)
    }

    fn check(&self) -> Result<()> {
        let mut factors = vec![self.mid];
        for levels in [&self.down, &self.up] {
            match levels {
                Levels::All(factor) => factors.push(*factor),
                Levels::Each(levels) => factors.extend(levels.values().flat_map(|level| match level {
                    Transformers::All(factor) => vec![*factor],
                    Transformers::Each(each) => each.clone(),
                })),
            }
        }
        match factors.into_iter().find(|factor| !ADAPTER_SCALE.contains(factor)) {
            Some(factor) => Err(scale_refused(factor)),
            None => Ok(()),
        }
    }
}

impl Levels {
    fn from_json(json: &Value) -> Result<Self> {
        match json {
            Value::Number(_) => Ok(Self::All(number(json)?)),
            Value::Object(levels) => Self::each_from_json(levels),
            _ => Err(not_a_map(json)),
        }
    }

    fn each_from_json(levels: &Map<String, Value>) -> Result<Self> {
        let level = |(key, value): (&String, &Value)| {
            let number = key.strip_prefix("block_").and_then(|n| n.parse::<usize>().ok());
            let Some(number) = number else {
                return Err(refused(
                    "adapter blocks",
                    key.clone(),
                    "block_0, block_1, ... within down and up",
                ));
            };
            Ok((number, Transformers::from_json(value)?))
        };
        Ok(Self::Each(levels.iter().map(level).collect::<Result<_>>()?))
    }
}

impl Transformers {
    fn from_json(json: &Value) -> Result<Self> {
        match json {
            Value::Array(each) => Ok(match &each.iter().map(number).collect::<Result<Vec<_>>>()?[..] {
                [one] => Self::All(*one),
                each => Self::Each(each.to_vec()),
            }),
            _ => Ok(Self::All(number(json)?)),
        }
    }
}

/// `all`, `style`, `style-and-layout`, or diffusers' map as JSON.
impl FromStr for AdapterBlocks {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "all" => Ok(Self::All),
            "style" => Ok(Self::Style),
            "style-and-layout" => Ok(Self::StyleAndLayout),
            _ => match serde_json::from_str::<Value>(text) {
                Ok(json) => Ok(Self::Custom(BlockMap::from_json(&json)?)),
                Err(_) => Err(refused(
                    "adapter blocks",
                    text.to_owned(),
                    "all, style, style-and-layout, or a map such as {\"up\": {\"block_0\": 1}}",
                )),
            },
        }
    }
}

/// One number, or a list of one, as diffusers takes it.
fn mid_from_json(json: &Value) -> Result<f64> {
    match json {
        Value::Array(each) if each.len() == 1 => number(&each[0]),
        _ => number(json),
    }
}

fn number(json: &Value) -> Result<f64> {
    json.as_f64().ok_or_else(|| refused("adapter blocks", json.to_string(), "a number where a factor stands"))
}

fn not_a_map(json: &Value) -> Error {
    refused("adapter blocks", json.to_string(), "a map of down, mid and up")
}

fn scale_refused(scale: f64) -> Error {
    refused("adapter scale", scale.to_string(), "0 to 5")
}

fn refused(field: &'static str, value: String, allowed: &str) -> Error {
    Error::Refused { field, value, allowed: allowed.to_owned() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use image::{GrayImage, RgbImage};

    fn prompt(scales: &[f64]) -> ImagePrompt {
        let picture = Picture::from_rgb8(RgbImage::new(8, 8));
        let reference = |&scale| Reference { picture: picture.clone(), scale, mask: None };
        ImagePrompt { references: scales.iter().map(reference).collect(), blocks: AdapterBlocks::All }
    }

    #[test]
    fn the_named_choices_and_diffusers_map() {
        assert_eq!("style".parse::<AdapterBlocks>().unwrap(), AdapterBlocks::Style);
        let map = r#"{"down": {"block_2": [0, 1], "block_1": [0.5]}, "mid": [2], "up": 1}"#;
        let AdapterBlocks::Custom(map) = map.parse().unwrap() else { unreachable!() };
        assert_eq!(map.mid, 2.0);
        assert_eq!(map.up, Levels::All(1.0));
        let each = [(1, Transformers::All(0.5)), (2, Transformers::Each(vec![0.0, 1.0]))];
        assert_eq!(map.down, Levels::Each(each.into_iter().collect()));
    }

    #[test]
    fn what_a_map_can_not_say_is_refused_with_the_word() {
        for (text, word) in [
            ("layout", "layout"),
            (r#"{"middle": 1}"#, "middle"),
            (r#"{"up": {"0": 1}}"#, "block_0, block_1"),
            (r#"{"up": {"block_0": [[0.5, 1]]}}"#, "[0.5,1]"),
            (r#"{"mid": [1, 2]}"#, "[1,2]"),
            (r#"{"up": -1}"#, "adapter scale is -1; allowed: 0 to 5"),
            ("3", "a map of down, mid and up"),
        ] {
            let error = text.parse::<AdapterBlocks>().unwrap_err().to_string();
            assert!(error.contains(word), "{text}: {error}");
        }
    }

    #[test]
    fn no_picture_and_too_much_are_refused() {
        prompt(&[0.0, 5.0]).check().unwrap();
        let error = |prompt: ImagePrompt| prompt.check().unwrap_err().to_string();
        assert!(error(prompt(&[])).contains("0 pictures"));
        assert!(error(prompt(&[1.0; 33])).contains("33 pictures"));
        assert!(error(prompt(&[5.5])).contains("adapter scale is 5.5"));
        assert!(error(prompt(&[f64::NAN])).contains("adapter scale is NaN"));
        let mut black = prompt(&[1.0]);
        black.references[0].mask = Some(Mask::from_luma8(GrayImage::new(8, 8)));
        assert!(error(black).contains("reference mask is nowhere 128 or brighter"));
    }
}
