//! Pictures as CLIP's image encoder takes them, bit for bit as transformers' `CLIPImageProcessor` prepares them.
//!
//! transformers 5.23 has two of them. The one meant here works with Pillow: diffusers gets it where torchvision is not
//! installed, it is what transformers 4 did by default, and what the encoders were trained with. The other resizes with
//! torchvision, whose antialiasing rounds single values differently.
//!
//! diffusers makes the processor itself from the encoder's `image_size`, with the defaults for everything else
//! (`loaders/ip_adapter.py`).

use image::{Rgb, RgbImage};

use super::resize::{Filter, resize_window};
use super::{Picture, to_rgba8};
use crate::geometry::{Rect, Size};

/// CLIP's mean colour and deviation (transformers: `OPENAI_CLIP_MEAN`, `OPENAI_CLIP_STD`).
#[allow(clippy::excessive_precision)] // As published.
const MEAN: [f32; 3] = [0.48145466, 0.4578275, 0.40821073];
#[allow(clippy::excessive_precision)]
const STD: [f32; 3] = [0.26862954, 0.26130258, 0.27577711];

/// `(3, side, side)` values, channel by channel: the shortest side brought to `side` by cubic convolution, the middle
/// cut out, CLIP's mean and deviation taken out. Transparency is laid over white.
///
/// `side` is the encoder's `image_size`. A picture without pixels gives no values.
pub fn clip_pixel_values(picture: &Picture, side: u32) -> Vec<f32> {
    let rgb = if picture.has_alpha() { over_white(picture) } else { picture.to_rgb8() };
    let Some((size, window)) = resized(picture.size(), side) else { return Vec::new() };
    let seen = resize_window(&rgb, size, window, Filter::Bicubic);
    (0..3)
        .flat_map(|channel| seen.as_raw().iter().skip(channel).step_by(3).map(move |byte| (channel, byte)))
        .map(|(channel, byte)| {
            // In double precision and rounded once, as numpy does it there.
            let value = (f64::from(*byte) * (1.0 / 255.0)) as f32;
            (value - MEAN[channel]) / STD[channel]
        })
        .collect()
}

/// The size whose shortest side is `side`, and the square in its middle; fractions of a pixel are dropped, the half one
/// beside the square too.
fn resized(size: Size, side: u32) -> Option<(Size, Rect)> {
    let Size { width, height } = size;
    let (short, long) = (width.min(height), width.max(height));
    let long = u64::from(side) * u64::from(long);
    let long = u32::try_from(long.checked_div(u64::from(short))?).ok()?;
    let size =
        if width <= height { Size { width: side, height: long } } else { Size { width: long, height: side } };
    let window = Rect { x: (size.width - side) / 2, y: (size.height - side) / 2, width: side, height: side };
    Some((size, window))
}

/// Pillow's `alpha_composite` over opaque white. (src/libImaging/AlphaComposite.c)
fn over_white(picture: &Picture) -> RgbImage {
    let rgba = to_rgba8(picture.pixels());
    RgbImage::from_fn(rgba.width(), rgba.height(), |x, y| {
        let image::Rgba([r, g, b, alpha]) = *rgba.get_pixel(x, y);
        let alpha = u32::from(alpha);
        Rgb([r, g, b].map(|value| {
            // Seven fractional bits, then a division by 255 that rounds.
            let sum = (u32::from(value) * alpha + 255 * (255 - alpha)) * 128 + (128 << 7);
            ((((sum >> 8) + sum) >> 8) >> 7) as u8
        }))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::image::Limits;
    use image::{DynamicImage, GrayAlphaImage, LumaA, Rgba, RgbaImage};
    use serde_json::Value;
    use sha2::{Digest, Sha256};

    /// The picture that `make.py` beside the fixture makes.
    fn picture(case: &Value) -> Picture {
        let images = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/images/");
        let bytes = std::fs::read(format!("{images}{}", case["photo"].as_str().unwrap())).unwrap();
        let photo = Picture::decode(&bytes, &Limits::default()).unwrap();
        let mut rgb = photo.to_rgb8();
        if let Some(crop) = case["crop"].as_array() {
            let [left, top, right, bottom] = [0, 1, 2, 3].map(|i: usize| crop[i].as_u64().unwrap() as u32);
            rgb = image::imageops::crop_imm(&rgb, left, top, right - left, bottom - top).to_image();
        }
        // Pillow's weights of the colours, which are not those of the image crate.
        let luma = |[r, g, b]: [u8; 3]| {
            ((u32::from(r) * 19595 + u32::from(g) * 38470 + u32::from(b) * 7471 + 0x8000) >> 16) as u8
        };
        let (width, height) = rgb.dimensions();
        let pixels: DynamicImage = match case["mode"].as_str().unwrap() {
            "RGB" => rgb.into(),
            "RGBA" => RgbaImage::from_fn(width, height, |x, y| {
                let [r, g, b] = rgb.get_pixel(x, y).0;
                Rgba([r, g, b, g])
            })
            .into(),
            "L" => {
                image::GrayImage::from_fn(width, height, |x, y| image::Luma([luma(rgb.get_pixel(x, y).0)]))
                    .into()
            }
            _ => GrayAlphaImage::from_fn(width, height, |x, y| {
                let colour = rgb.get_pixel(x, y).0;
                LumaA([luma(colour), colour[1]])
            })
            .into(),
        };
        photo.with_pixels(pixels)
    }

    #[test]
    fn prepared_pictures_equal_transformers() {
        let cases = include_str!("../../../../tests/fixtures/clip-pixels/prepared.json");
        let cases: Vec<Value> = serde_json::from_str(cases).unwrap();
        assert_eq!(cases.len(), 20);
        for case in cases {
            let side = case["side"].as_u64().unwrap() as u32;
            let values = clip_pixel_values(&picture(&case), side);
            assert_eq!(values.len(), 3 * (side * side) as usize);
            let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            let hash: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
            let plane = (side * side) as usize;
            let first = [0, 1, 2].map(|channel| values[channel * plane]);
            assert_eq!(hash, case["sha256"].as_str().unwrap(), "{first:?} in {case}");
        }
    }

    #[test]
    fn a_long_line_is_cut_before_it_is_spread() {
        // Whole, it would be 224 x 14,680,064 pixels.
        let line = Picture::from_rgb8(RgbImage::from_pixel(65_536, 1, Rgb([255, 0, 0])));
        let values = clip_pixel_values(&line, 224);
        assert_eq!(values.len(), 3 * 224 * 224);
        assert_eq!(values[0], (1.0 - MEAN[0]) / STD[0]);
    }

    #[test]
    fn sixteen_bits_are_seen_by_their_upper_byte() {
        let wide = image::ImageBuffer::from_pixel(9, 9, Rgba([0x80ff_u16, 0, 0xffff, 0x00ff]));
        let eight = RgbaImage::from_pixel(9, 9, Rgba([0x80, 0, 0xff, 0]));
        let picture = |pixels: DynamicImage| Picture::from_rgb8(RgbImage::new(1, 1)).with_pixels(pixels);
        let (wide, eight) = (picture(wide.into()), picture(eight.into()));
        assert_eq!(clip_pixel_values(&wide, 14), clip_pixel_values(&eight, 14));
    }
}
