//! Small JPEG copies of results, for hosts that show or pass on pictures inside a reply.

use image::codecs::jpeg::JpegEncoder;
use image::imageops::{FilterType, resize};
use image::{ExtendedColorType, ImageEncoder, RgbImage};

/// Sides to try, longest first.
const SIDES: [u32; 6] = [1024, 768, 512, 384, 256, 128];
/// JPEG qualities to try at each side.
const QUALITIES: [u8; 3] = [88, 75, 60];

/// The largest and finest JPEG of at most `budget` bytes; `None` if not even the smallest fits.
pub(crate) fn jpeg(picture: &RgbImage, budget: usize) -> Option<Vec<u8>> {
    let longest = picture.width().max(picture.height());
    let mut tried = None;
    for side in SIDES {
        let side = side.min(longest);
        if tried.replace(side) == Some(side) {
            continue;
        }
        let small = shrunk(picture, side);
        let small = small.as_ref().unwrap_or(picture);
        for quality in QUALITIES {
            let mut bytes = Vec::new();
            let encoder = JpegEncoder::new_with_quality(&mut bytes, quality);
            let (width, height) = small.dimensions();
            encoder.write_image(small, width, height, ExtendedColorType::Rgb8).ok()?;
            if bytes.len() <= budget {
                return Some(bytes);
            }
        }
    }
    None
}

/// The picture with this longest side; `None` where it is no longer than that.
fn shrunk(picture: &RgbImage, side: u32) -> Option<RgbImage> {
    let longest = picture.width().max(picture.height());
    if longest <= side {
        return None;
    }
    let scaled = |length: u32| {
        let rounded = (u64::from(length) * u64::from(side) + u64::from(longest) / 2) / u64::from(longest);
        u32::try_from(rounded.max(1)).unwrap_or(side)
    };
    Some(resize(picture, scaled(picture.width()), scaled(picture.height()), FilterType::Triangle))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// A picture that compresses badly.
    fn noise(width: u32, height: u32) -> RgbImage {
        let mut state = 1u32;
        RgbImage::from_fn(width, height, |_, _| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            image::Rgb([(state >> 24) as u8, (state >> 16) as u8, (state >> 8) as u8])
        })
    }

    #[test]
    fn a_preview_keeps_to_its_budget_and_its_sides() {
        for (size, budget, expected) in
            [((1500, 1000), 10_000_000, (1024, 683)), ((300, 400), 10_000_000, (300, 400))]
        {
            let bytes = jpeg(&noise(size.0, size.1), budget).unwrap();
            let read = image::load_from_memory(&bytes).unwrap();
            assert_eq!((read.width(), read.height()), expected);
        }
        let bytes = jpeg(&noise(1500, 1000), 60_000).unwrap();
        assert!(bytes.len() <= 60_000);
        assert!(image::load_from_memory(&bytes).unwrap().width() < 1024);
        assert_eq!(jpeg(&noise(600, 600), 100), None);
    }

    #[test]
    fn thin_pictures_keep_a_pixel() {
        let bytes = jpeg(&noise(4000, 1), 10_000_000).unwrap();
        assert_eq!(image::load_from_memory(&bytes).unwrap().height(), 1);
    }
}
