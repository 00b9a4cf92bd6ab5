//! What a run did, side by side: the picture before, the mask, each picture after.

use infill_engine::image::sheet::{Row, Sheet, Tile};
use infill_engine::image::{Picture, RgbImage};
use infill_engine::request::InpaintParams;

/// The strip of one run; `after` holds each finished picture with its caption.
pub(crate) fn strip(params: &InpaintParams, after: Vec<Tile>) -> Picture {
    let mut tiles = vec![
        Tile { caption: "before".into(), pixels: params.image.to_rgb8() },
        Tile { caption: "mask".into(), pixels: mask(params) },
    ];
    tiles.extend(after);
    Sheet { rows: vec![Row { title: String::new(), tiles }] }.draw()
}

/// The mask as a picture.
pub(crate) fn mask(params: &InpaintParams) -> RgbImage {
    let grey = params.mask.to_size(params.image.size());
    RgbImage::from_fn(grey.width(), grey.height(), |x, y| {
        let value = grey.get_pixel(x, y).0[0];
        infill_engine::image::Rgb([value; 3])
    })
}
