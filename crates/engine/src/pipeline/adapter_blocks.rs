//! Which cross-attention layers of a UNet listen to a reference picture.

use infill_models::Family;
use infill_networks::unet::{CrossAttention, Place};

use crate::image_prompt::{AdapterBlocks, BlockMap, Levels, Transformers};
use crate::{Error, Result};

/// A factor for each of a UNet's cross-attention layers, in their order. `style`: the checkpoint's own blocks of style.
///
/// # Errors
/// [`Error::Refused`] for a choice that names blocks which this UNet does not have.
pub(super) fn weights(
    blocks: &AdapterBlocks,
    style: Option<&BlockMap>,
    family: Family,
    layers: &[CrossAttention],
) -> Result<Vec<f64>> {
    let unet = Unet { family, layers };
    let listening = |places: Vec<Place>| unet.factors(|place| f64::from(u8::from(places.contains(&place))));
    let styled = || match style {
        Some(map) => unet.custom(map),
        None => Ok(listening(unet.style()?)),
    };
    match blocks {
        AdapterBlocks::All => Ok(vec![1.0; layers.len()]),
        AdapterBlocks::Style => styled(),
        AdapterBlocks::StyleAndLayout => {
            let (style, layout) = (styled()?, listening(unet.layout()?));
            Ok(style.into_iter().zip(layout).map(|(style, layout)| style.max(layout)).collect())
        }
        AdapterBlocks::Custom(map) => unet.custom(map),
    }
}

struct Unet<'a> {
    family: Family,
    layers: &'a [CrossAttention],
}

impl Unet<'_> {
    fn factors(&self, factor: impl Fn(Place) -> f64) -> Vec<f64> {
        self.layers.iter().map(|layer| factor(layer.place)).collect()
    }

    /// The factors of a map.
    fn custom(&self, map: &BlockMap) -> Result<Vec<f64>> {
        self.check(map)?;
        Ok(self.factors(|place| factor(map, place)))
    }

    /// The places that `keep` accepts, each once.
    fn places(&self, keep: impl Fn(Place) -> bool) -> Vec<Place> {
        let mut places: Vec<Place> =
            self.layers.iter().map(|layer| layer.place).filter(|p| keep(*p)).collect();
        places.dedup();
        places
    }

    /// This one transformer, where this is an SDXL that has it.
    fn only(&self, wanted: Place) -> Option<Vec<Place>> {
        let found = self.places(|place| place == wanted);
        (self.family == Family::StableDiffusionXl && !found.is_empty()).then_some(found)
    }

    /// What InstantStyle's authors found to carry style: in SDXL one transformer, in SD 1.5 (their
    /// `infer_style_sd15.py`) the first level of the way up that has transformers, as in any other UNet.
    fn style(&self) -> Result<Vec<Place>> {
        if let Some(place) = self.only(Place::Up { level: 0, transformer: 1 }) {
            return Ok(place);
        }
        let first = self.layers.iter().filter_map(|layer| up_level(layer.place)).min();
        let Some(first) = first else {
            return Err(lacks("style", "the way up"));
        };
        Ok(self.places(|place| up_level(place) == Some(first)))
    }

    /// What they found to carry layout: in SDXL one transformer, in SD 1.5 the last level of the way down that has
    /// transformers and the middle, as in any other UNet.
    fn layout(&self) -> Result<Vec<Place>> {
        if let Some(place) = self.only(Place::Down { level: 2, transformer: 1 }) {
            return Ok(place);
        }
        let last = self.layers.iter().filter_map(|layer| down_level(layer.place)).max();
        let places =
            self.places(|place| place == Place::Mid || (last.is_some() && down_level(place) == last));
        if places.is_empty() {
            Err(lacks("style-and-layout", "the way down and in the middle"))
        } else {
            Ok(places)
        }
    }

    /// Every block that the map names must be there, and have as many transformers as it has factors.
    fn check(&self, map: &BlockMap) -> Result<()> {
        for (way, levels, level_of) in
            [("down", &map.down, down_level as fn(Place) -> Option<usize>), ("up", &map.up, up_level)]
        {
            let count = |level| self.places(|place| level_of(place) == Some(level)).len();
            match levels {
                Levels::All(factor) => {
                    if *factor != 0.0 && self.places(|place| level_of(place).is_some()).is_empty() {
                        return Err(absent(way.to_owned()));
                    }
                }
                Levels::Each(each) => {
                    for (level, transformers) in each {
                        let name = format!("{way} block_{level}");
                        match (count(*level), transformers) {
                            (0, _) => return Err(absent(name)),
                            (there, Transformers::Each(factors)) if factors.len() != there => {
                                return Err(Error::Refused {
                                    field: "adapter blocks",
                                    value: format!("{} factors for {name}", factors.len()),
                                    allowed: format!("one, or {there}, one for each of its transformers"),
                                });
                            }
                            _ => {}
                        }
                    }
                }
            }
        }
        if map.mid != 0.0 && self.places(|place| place == Place::Mid).is_empty() {
            return Err(absent("mid".to_owned()));
        }
        Ok(())
    }
}

fn factor(map: &BlockMap, place: Place) -> f64 {
    let on = |levels: &Levels, level: usize, transformer: usize| match levels {
        Levels::All(factor) => *factor,
        Levels::Each(each) => match each.get(&level) {
            Some(Transformers::All(factor)) => *factor,
            Some(Transformers::Each(factors)) => factors.get(transformer).copied().unwrap_or(0.0),
            None => 0.0,
        },
    };
    match place {
        Place::Down { level, transformer } => on(&map.down, level, transformer),
        Place::Mid => map.mid,
        Place::Up { level, transformer } => on(&map.up, level, transformer),
    }
}

fn down_level(place: Place) -> Option<usize> {
    match place {
        Place::Down { level, .. } => Some(level),
        Place::Mid | Place::Up { .. } => None,
    }
}

fn up_level(place: Place) -> Option<usize> {
    match place {
        Place::Up { level, .. } => Some(level),
        Place::Mid | Place::Down { .. } => None,
    }
}

fn lacks(choice: &str, way: &str) -> Error {
    Error::Refused {
        field: "adapter blocks",
        value: choice.to_owned(),
        allowed: format!("all, or a map: this UNet has no transformers on {way}"),
    }
}

fn absent(name: String) -> Error {
    Error::Refused {
        field: "adapter blocks",
        value: name,
        allowed: "blocks of this UNet that have transformers".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// One layer for each transformer: `(level, transformers)` on the way down and on the way up.
    fn unet(down: &[(usize, usize)], up: &[(usize, usize)], mid: bool) -> Vec<CrossAttention> {
        let on = |levels: &[(usize, usize)], place: fn(usize, usize) -> Place| {
            let places = levels.iter().flat_map(|&(level, count)| (0..count).map(move |t| (level, t)));
            places.map(|(level, transformer)| place(level, transformer)).collect::<Vec<_>>()
        };
        let mut places = on(down, |level, transformer| Place::Down { level, transformer });
        places.extend(on(up, |level, transformer| Place::Up { level, transformer }));
        places.extend(mid.then_some(Place::Mid));
        let layer = |place| CrossAttention { name: format!("{place:?}"), place, width: 1, context_width: 1 };
        places.into_iter().map(layer).collect()
    }

    fn sdxl() -> Vec<CrossAttention> {
        unet(&[(1, 2), (2, 2)], &[(0, 3), (1, 3)], true)
    }

    fn sd15() -> Vec<CrossAttention> {
        unet(&[(0, 2), (1, 2), (2, 2)], &[(1, 3), (2, 3), (3, 3)], true)
    }

    /// The places that listen, and their factors.
    fn listening(blocks: &str, family: Family, layers: &[CrossAttention]) -> Vec<(Place, f64)> {
        let weights = weights(&blocks.parse().unwrap(), None, family, layers).unwrap();
        assert_eq!(weights.len(), layers.len());
        layers.iter().map(|layer| layer.place).zip(weights).filter(|(_, weight)| *weight != 0.0).collect()
    }

    fn refusal(blocks: &str, layers: &[CrossAttention]) -> String {
        weights(&blocks.parse().unwrap(), None, Family::StableDiffusionXl, layers).unwrap_err().to_string()
    }

    #[test]
    fn instant_style_in_sdxl_is_one_transformer_and_one_more_for_layout() {
        let (style, layout) =
            (Place::Up { level: 0, transformer: 1 }, Place::Down { level: 2, transformer: 1 });
        assert_eq!(listening("style", Family::StableDiffusionXl, &sdxl()), [(style, 1.0)]);
        assert_eq!(
            listening("style-and-layout", Family::StableDiffusionXl, &sdxl()),
            [(layout, 1.0), (style, 1.0)]
        );
        assert_eq!(listening("all", Family::StableDiffusionXl, &sdxl()).len(), 11);
    }

    #[test]
    fn a_checkpoint_may_name_its_own_blocks_of_style() {
        let AdapterBlocks::Custom(own) = r#"{"up": {"block_1": 0.5}}"#.parse().unwrap() else {
            unreachable!()
        };
        let layers = sdxl();
        let listening = |blocks: AdapterBlocks| {
            let weights = weights(&blocks, Some(&own), Family::StableDiffusionXl, &layers).unwrap();
            layers.iter().map(|layer| layer.place).zip(weights).filter(|(_, w)| *w != 0.0).collect::<Vec<_>>()
        };
        let style = [0, 1, 2].map(|transformer| (Place::Up { level: 1, transformer }, 0.5));
        assert_eq!(listening(AdapterBlocks::Style), style);
        let layout = (Place::Down { level: 2, transformer: 1 }, 1.0);
        assert_eq!(listening(AdapterBlocks::StyleAndLayout), [&[layout][..], &style].concat());
        assert_eq!(listening(AdapterBlocks::All).len(), 11);
    }

    #[test]
    fn in_sd_1_5_it_is_the_first_level_up_and_the_lowest_with_the_middle() {
        let names = |blocks| {
            let places = listening(blocks, Family::StableDiffusion, &sd15());
            places.iter().map(|(place, _)| *place).collect::<Vec<_>>()
        };
        let up = [0, 1, 2].map(|transformer| Place::Up { level: 1, transformer });
        let down = [0, 1].map(|transformer| Place::Down { level: 2, transformer });
        assert_eq!(names("style"), up);
        assert_eq!(names("style-and-layout"), [&down[..], &up, &[Place::Mid]].concat());
    }

    #[test]
    fn other_unets_fall_back_to_levels_or_refuse() {
        let small = unet(&[(0, 1)], &[(1, 2)], false);
        let style = listening("style", Family::StableDiffusionXl, &small);
        assert_eq!(style.len(), 2);
        assert_eq!(listening("style-and-layout", Family::StableDiffusionXl, &small).len(), 3);
        assert!(refusal("style", &unet(&[(0, 1)], &[], true)).contains("no transformers on the way up"));
        assert!(refusal("style-and-layout", &unet(&[], &[(0, 1)], false)).contains("the way down"));
    }

    #[test]
    fn a_map_is_diffusers() {
        let map =
            r#"{"down": {"block_2": [0, 0.5]}, "mid": 2, "up": {"block_0": [0.25], "block_1": [0, 0, 3]}}"#;
        let expected = [
            (Place::Down { level: 2, transformer: 1 }, 0.5),
            (Place::Up { level: 0, transformer: 0 }, 0.25),
            (Place::Up { level: 0, transformer: 1 }, 0.25),
            (Place::Up { level: 0, transformer: 2 }, 0.25),
            (Place::Up { level: 1, transformer: 2 }, 3.0),
            (Place::Mid, 2.0),
        ];
        assert_eq!(listening(map, Family::StableDiffusionXl, &sdxl()), expected);
    }

    #[test]
    fn blocks_that_are_not_there_are_named() {
        assert!(refusal(r#"{"down": {"block_0": 1}}"#, &sdxl()).contains("down block_0"));
        assert!(refusal(r#"{"up": {"block_0": [1, 0]}}"#, &sdxl()).contains("2 factors for up block_0"));
        assert!(refusal(r#"{"mid": 1}"#, &unet(&[(0, 1)], &[], false)).contains("is mid;"));
        assert!(refusal(r#"{"up": 1}"#, &unet(&[(0, 1)], &[], false)).contains("is up;"));
    }
}
