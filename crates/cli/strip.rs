//! What a run did, side by side: the picture before, the mask, reference pictures, each picture after.

use infill_engine::image::sheet::{Row, Sheet, Tile};
use infill_engine::image::{Picture, RgbImage};
use infill_engine::request::InpaintParams;

/// The strip of one run; `after` holds each finished picture with its caption.
pub(crate) fn strip(params: &InpaintParams, after: Vec<Tile>) -> Picture {
    let mut tiles = vec![
        Tile { caption: "before".into(), pixels: params.image.to_rgb8() },
        Tile { caption: "mask".into(), pixels: mask(params) },
    ];
    let references = params.image_prompts.iter().flat_map(|prompt| &prompt.references);
    tiles.extend(references.map(|one| Tile { caption: "reference".into(), pixels: one.picture.to_rgb8() }));
    tiles.extend(after);
    Sheet { rows: vec![Row { title: String::new(), tiles }] }.draw()
}

/// What stands below a finished picture.
pub(crate) fn caption(prompt: &str, seed: u64) -> String {
    let words = prompt.split_whitespace().collect::<Vec<_>>().join(" ");
    let words = if words.is_empty() { "no words" } else { &words };
    format!("after: {words}, seed {seed}")
}

/// The mask as a picture.
pub(crate) fn mask(params: &InpaintParams) -> RgbImage {
    let grey = params.mask.to_size(params.image.size());
    RgbImage::from_fn(grey.width(), grey.height(), |x, y| {
        let value = grey.get_pixel(x, y).0[0];
        infill_engine::image::Rgb([value; 3])
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use infill_engine::image_prompt::{AdapterBlocks, ImagePrompt, Reference};
    use infill_engine::mask::Mask;

    use super::*;

    #[test]
    fn no_words_are_called_so() {
        assert_eq!(caption(" ", 1), "after: no words, seed 1");
        assert_eq!(caption("a  red\nhat", 7), "after: a red hat, seed 7");
    }

    #[test]
    fn references_stand_between_the_mask_and_the_results() {
        let picture = |colour: [u8; 3]| RgbImage::from_pixel(128, 128, infill_engine::image::Rgb(colour));
        let mask = Mask::from_luma8(image::GrayImage::new(128, 128));
        let mut params = InpaintParams::new(Picture::from_rgb8(picture([9; 3])), mask, "");
        let reference = Picture::from_rgb8(picture([1, 2, 200]));
        let references = vec![Reference { picture: reference, scale: 1.0, mask: None }];
        params.image_prompts = vec![ImagePrompt { references, blocks: AdapterBlocks::All }];
        let after = Tile { caption: caption("", 1), pixels: picture([3, 200, 3]) };
        let strip = strip(&params, vec![after]).to_rgb8();
        let place = |colour: [u8; 3]| strip.enumerate_pixels().find(|(_, _, pixel)| pixel.0 == colour);
        let places = [[9; 3], [1, 2, 200], [3, 200, 3]].map(|colour| place(colour).unwrap().0);
        assert!(places.is_sorted() && places[2] - places[1] >= 128, "{places:?}");
    }
}
