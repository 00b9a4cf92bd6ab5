//! The last step: the repainted pixels go back into the picture, and every other pixel stays as it was.
//!
//! [`merge`] keeps the picture's size, depth and alpha, and blends along the mask's edge over a chosen distance.
//! [`overlay`] is what diffusers does instead, for comparison with it.

use image::{DynamicImage, GrayImage, ImageBuffer, Pixel, RgbImage};

use super::seam;
use crate::geometry::{Plan, Rect, Size};
use crate::image::{Filter, Picture, Raster, crop, resize};
use crate::mask::{BinaryMask, Mask};
use crate::{Error, Result};

/// Puts `painted`, a picture of the plan's work size, into `original` where `mask` says so.
///
/// Inside the mask (at least one half at the picture's own size) the painted colour replaces the original and alpha
/// becomes opaque. Outside, its share falls linearly with the Euclidean distance from the mask and is zero beyond
/// `feather` pixels: there every value stays bit for bit. Grey pictures become RGB, their untouched pixels (g, g, g);
/// 16-bit pictures take painted values times 257.
///
/// With `match_colours` the painted colours are first brought to those around the mask.
///
/// # Errors
///
/// [`Error::Refused`] if `painted` isn't of the work size or `original` not of the picture's size.
pub fn merge(
    original: &Picture,
    painted: &RgbImage,
    mask: &Mask,
    plan: &Plan,
    feather: u32,
    match_colours: bool,
) -> Result<Picture> {
    check_sizes(original, painted, plan)?;
    let inner = crop(painted, plan.placement);
    let mut inner = resize(&inner, plan.crop.width, plan.crop.height, Filter::Lanczos);
    let correction = match_colours.then(|| seam::Correction::new(original, painted, mask, plan)).flatten();
    let mask = BinaryMask::from_luma(&mask.to_size(plan.picture));
    if let Some(correction) = correction {
        correction.add_to(&mut inner, reach(&mask, plan.crop, feather), plan);
    }
    let weights = Weights::new(&mask, plan.crop, feather);

    let narrow8 = |value: f64| value as u8;
    let narrow16 = |value: f64| value as u16;
    let pixels = original.pixels();
    let wide = original.depth() == 16;
    let merged: DynamicImage = match (wide, original.has_alpha()) {
        (false, false) => blend(pixels.to_rgb8(), &inner, &weights, plan.crop, 255.0, narrow8).into(),
        (false, true) => blend(pixels.to_rgba8(), &inner, &weights, plan.crop, 255.0, narrow8).into(),
        (true, false) => blend(pixels.to_rgb16(), &inner, &weights, plan.crop, 65535.0, narrow16).into(),
        (true, true) => blend(pixels.to_rgba16(), &inner, &weights, plan.crop, 65535.0, narrow16).into(),
    };
    Ok(original.with_pixels(merged))
}

fn check_sizes(original: &Picture, painted: &RgbImage, plan: &Plan) -> Result<()> {
    let painted = Size { width: painted.width(), height: painted.height() };
    for (field, size, planned) in
        [("picture size", original.size(), plan.picture), ("painted picture size", painted, plan.work)]
    {
        if size != planned {
            return Err(Error::Refused {
                field,
                value: format!("{} x {}", size.width, size.height),
                allowed: format!("{} x {}, as planned", planned.width, planned.height),
            });
        }
    }
    Ok(())
}

/// Blends `inner`, which lies at `place`, over `canvas`. In the blend a transparent original counts by its alpha, so that
/// the colours of invisible pixels don't bleed in.
fn blend<P>(
    mut canvas: ImageBuffer<P, Vec<P::Subpixel>>,
    inner: &RgbImage,
    weights: &Weights,
    place: Rect,
    max: f64,
    narrow: impl Fn(f64) -> P::Subpixel,
) -> ImageBuffer<P, Vec<P::Subpixel>>
where
    P: Pixel,
    P::Subpixel: Into<f64>,
{
    for (x, y, weight) in weights.iter() {
        let new = inner.get_pixel(x - place.x, y - place.y);
        let channels = canvas.get_pixel_mut(x, y).channels_mut();
        let old_alpha = channels.get(3).map_or(1.0, |alpha| (*alpha).into() / max);
        let old_share = old_alpha * (1.0 - weight);
        let alpha = old_share + weight;
        for (old, new) in channels.iter_mut().zip(new.0) {
            let new = f64::from(new) * (max / 255.0);
            let mixed = ((*old).into() * old_share + new * weight) / alpha;
            *old = narrow(mixed.round());
        }
        if let Some(value) = channels.get_mut(3) {
            *value = narrow((alpha * max).round());
        }
    }
    canvas
}

/// The painted picture's share of each pixel that it has a share of.
struct Weights {
    region: Rect,
    feather: u32,
    /// The squared distance from the mask, row by row, over the region.
    squares: Vec<u64>,
}

impl Weights {
    /// The shares within `within` for a ramp `feather` pixels wide.
    fn new(mask: &BinaryMask, within: Rect, feather: u32) -> Self {
        let region = reach(mask, within, feather);
        Self { region, feather, squares: squared_distances(mask, region) }
    }

    /// Pixels with a share above zero: column, row, share.
    fn iter(&self) -> impl Iterator<Item = (u32, u32, f64)> {
        let farthest = u64::from(self.feather) * u64::from(self.feather);
        let ramp = f64::from(self.feather) + 1.0;
        self.squares.iter().enumerate().filter(move |(_, square)| **square <= farthest).map(
            move |(at, square)| {
                let (x, y) = (at % self.region.width as usize, at / self.region.width as usize);
                let weight = 1.0 - (*square as f64).sqrt() / ramp;
                (self.region.x + x as u32, self.region.y + y as u32, weight)
            },
        )
    }
}

/// The part of `within` that lies no more than `feather` columns and rows from a pixel to repaint; may be empty.
pub(super) fn reach(mask: &BinaryMask, within: Rect, feather: u32) -> Rect {
    let width = mask.size().width as usize;
    let (mut left, mut top, mut right, mut bottom) = (u32::MAX, u32::MAX, 0, 0);
    for (at, _) in mask.repaint().iter().enumerate().filter(|(_, repaint)| **repaint) {
        let (x, y) = ((at % width) as u32, (at / width) as u32);
        (left, right) = (left.min(x), right.max(x + 1));
        (top, bottom) = (top.min(y), bottom.max(y + 1));
    }
    let left = left.saturating_sub(feather).max(within.x);
    let top = top.saturating_sub(feather).max(within.y);
    let right = right.saturating_add(feather).min(within.x + within.width);
    let bottom = bottom.saturating_add(feather).min(within.y + within.height);
    if right <= left || bottom <= top {
        return Rect { x: within.x, y: within.y, width: 0, height: 0 };
    }
    Rect { x: left, y: top, width: right - left, height: bottom - top }
}

/// No pixel to repaint in this column.
const FAR: u64 = u64::MAX;

/// The exact squared Euclidean distance of each pixel of `region` to the nearest pixel to repaint, by the lower envelope
/// of parabolas. (P. Felzenszwalb, D. Huttenlocher: Distance Transforms of Sampled Functions, 2012)
fn squared_distances(mask: &BinaryMask, region: Rect) -> Vec<u64> {
    let (columns, rows) = (mask.size().width as usize, mask.size().height as usize);
    let width = region.width as usize;
    let (first, last) = (region.y as usize, (region.y + region.height) as usize);
    let mut out = Vec::with_capacity(width * region.height as usize);
    if width == 0 {
        return out;
    }

    // For each column, the rows to repaint nearest above and below the current one.
    let repaint = |x: usize, y: usize| mask.repaint()[y * columns + x];
    let mut above: Vec<Option<usize>> =
        (0..columns).map(|x| (0..first).rev().find(|y| repaint(x, *y))).collect();
    let mut below: Vec<Option<usize>> = vec![None; columns];
    let mut heights = vec![FAR; columns];
    let mut envelope = Envelope::default();
    for y in first..last {
        for x in 0..columns {
            if repaint(x, y) {
                above[x] = Some(y);
            }
            if below[x].is_none_or(|row| row < y) {
                below[x] = Some((y..rows).find(|row| repaint(x, *row)).unwrap_or(usize::MAX));
            }
            let up = above[x].map_or(FAR, |row| (y - row) as u64);
            let down = below[x].filter(|row| *row != usize::MAX).map_or(FAR, |row| (row - y) as u64);
            let nearest = up.min(down);
            heights[x] = if nearest == FAR { FAR } else { nearest * nearest };
        }
        envelope.build(&heights);
        envelope.sample(region.x as usize, width, &mut out);
    }
    out
}

/// The lower envelope of the parabolas (x - apex)^2 + height.
#[derive(Default)]
struct Envelope {
    /// Apex, height, and the column from which on the parabola is the lowest.
    parabolas: Vec<(usize, u64, f64)>,
}

impl Envelope {
    /// The envelope over all columns that aren't [`FAR`].
    fn build(&mut self, heights: &[u64]) {
        self.parabolas.clear();
        for (apex, height) in heights.iter().copied().enumerate().filter(|(_, height)| *height != FAR) {
            let mut from = f64::NEG_INFINITY;
            while let Some((last, last_height, last_from)) = self.parabolas.last().copied() {
                let square = |apex: usize, height: u64| apex as f64 * apex as f64 + height as f64;
                from = (square(apex, height) - square(last, last_height)) / (2.0 * (apex - last) as f64);
                if from > last_from {
                    break;
                }
                self.parabolas.pop();
                from = f64::NEG_INFINITY;
            }
            self.parabolas.push((apex, height, from));
        }
    }

    /// Appends the envelope's values at `width` columns from `first` on.
    fn sample(&self, first: usize, width: usize, out: &mut Vec<u64>) {
        let mut index = 0;
        for x in first..first + width {
            while self.parabolas.get(index + 1).is_some_and(|next| next.2 <= x as f64) {
                index += 1;
            }
            out.push(match self.parabolas.get(index) {
                Some((apex, height, _)) => (x.abs_diff(*apex) as u64).pow(2) + height,
                None => FAR,
            });
        }
    }
}

/// What diffusers returns where it crops around the mask: the painted picture resized over the crop on black, under the
/// original made transparent by the mask's grey value. 8 bits, RGB, rounded as Pillow does.
/// (`VaeImageProcessor.apply_overlay` in diffusers/image_processor.py)
///
/// # Errors
///
/// [`Error::Refused`] if `painted` isn't of the work size or `original` not of the picture's size.
pub fn overlay(original: &Picture, painted: &RgbImage, mask: &Mask, plan: &Plan) -> Result<Picture> {
    check_sizes(original, painted, plan)?;
    let Size { width, height } = plan.picture;
    let mut out = RgbImage::new(width, height);
    let inner = resize_crop(painted, plan.crop.size());
    image::imageops::replace(&mut out, &inner, i64::from(plan.crop.x), i64::from(plan.crop.y));
    let colours = original.to_rgb8();
    let mask: GrayImage = mask.to_size(plan.picture);
    for ((pixel, old), grey) in out.pixels_mut().zip(colours.pixels()).zip(mask.as_raw()) {
        let alpha = u32::from(255 - grey);
        for (value, old) in pixel.0.iter_mut().zip(old.0) {
            *value =
                composite(u32::from(*value), straight(divided_by_255(u32::from(old) * alpha), alpha), alpha);
        }
    }
    Ok(original.with_pixels(out.into()))
}

/// Resized to cover a size with the shape kept, and cut around the middle.
/// (`VaeImageProcessor._resize_and_crop` in diffusers/image_processor.py)
fn resize_crop(image: &RgbImage, size: Size) -> RgbImage {
    let (old_width, old_height) = (u64::from(image.width()), u64::from(image.height()));
    let (width, height) = (u64::from(size.width), u64::from(size.height));
    let (inner_width, inner_height) = if width * old_height > old_width * height {
        (width, old_height * width / old_width)
    } else {
        (old_width * height / old_height, height)
    };
    let inner = resize(image, inner_width as u32, inner_height as u32, Filter::Lanczos);
    let mut out: Raster<image::Rgb<u8>> = RgbImage::new(size.width, size.height);
    let middle = |outer: u64, inner: u64| (outer / 2) as i64 - (inner / 2) as i64;
    image::imageops::replace(&mut out, &inner, middle(width, inner_width), middle(height, inner_height));
    out
}

/// `value / 255`, rounded, in Pillow's integer form.
fn divided_by_255(value: u32) -> u32 {
    let value = value + 128;
    ((value >> 8) + value) >> 8
}

/// A colour freed of its alpha. (`rgba2rgbA`'s inverse in Pillow's src/libImaging/Convert.c)
fn straight(premultiplied: u32, alpha: u32) -> u32 {
    match alpha {
        0 | 255 => premultiplied,
        alpha => (255 * premultiplied / alpha).min(255),
    }
}

/// `over` with its alpha on an opaque `under`, in seven more bits. (Pillow's src/libImaging/AlphaComposite.c)
fn composite(under: u32, over: u32, alpha: u32) -> u8 {
    if alpha == 0 {
        return under as u8;
    }
    let share = alpha << 7;
    let sum = over * share + under * ((255 << 7) - share) + (0x80 << 7);
    ((((sum >> 8) + sum) >> 8) >> 7) as u8
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use image::{ColorType, Rgb};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_colour_profile_outlives_a_crop_without_merging() {
        let size = Size { width: 32, height: 32 };
        let original = Picture::from_rgb8(RgbImage::new(32, 32)).with_profile(Some(vec![7; 20]));
        let mask = Mask::from_luma8(GrayImage::from_pixel(32, 32, image::Luma([255])));
        let plan = Plan::whole(size, Some(64), Some(64)).unwrap();
        let painted = RgbImage::new(64, 64);
        let over = overlay(&original, &painted, &mask, &plan).unwrap();
        assert_eq!(over.profile(), original.profile());
        assert!(original.profile().is_some());
    }

    const KINDS: [ColorType; 8] = [
        ColorType::L8,
        ColorType::La8,
        ColorType::Rgb8,
        ColorType::Rgba8,
        ColorType::L16,
        ColorType::La16,
        ColorType::Rgb16,
        ColorType::Rgba16,
    ];

    /// Values that look random but aren't, of every kind of picture.
    fn picture(kind: ColorType, size: Size, seed: u32) -> Picture {
        let mut pixels = DynamicImage::new(size.width, size.height, kind);
        let noise = |at: usize| (at as u32 ^ seed).wrapping_mul(0x9e37_79b9) >> 16;
        match &mut pixels {
            DynamicImage::ImageLuma8(i) => i.iter_mut().enumerate().for_each(|(at, v)| *v = noise(at) as u8),
            DynamicImage::ImageLumaA8(i) => i.iter_mut().enumerate().for_each(|(at, v)| *v = noise(at) as u8),
            DynamicImage::ImageRgb8(i) => i.iter_mut().enumerate().for_each(|(at, v)| *v = noise(at) as u8),
            DynamicImage::ImageRgba8(i) => i.iter_mut().enumerate().for_each(|(at, v)| *v = noise(at) as u8),
            DynamicImage::ImageLuma16(i) => {
                i.iter_mut().enumerate().for_each(|(at, v)| *v = noise(at) as u16)
            }
            DynamicImage::ImageLumaA16(i) => {
                i.iter_mut().enumerate().for_each(|(at, v)| *v = noise(at) as u16)
            }
            DynamicImage::ImageRgb16(i) => i.iter_mut().enumerate().for_each(|(at, v)| *v = noise(at) as u16),
            DynamicImage::ImageRgba16(i) => {
                i.iter_mut().enumerate().for_each(|(at, v)| *v = noise(at) as u16)
            }
            other => unreachable!("{:?} is not a kind of picture", other.color()),
        }
        Picture::from_rgb8(RgbImage::new(1, 1)).with_pixels(pixels)
    }

    /// Distances the slow way.
    fn distance(mask: &BinaryMask, x: u32, y: u32) -> f64 {
        let width = mask.size().width as usize;
        let painted = mask.repaint().iter().enumerate().filter(|(_, repaint)| **repaint);
        painted
            .map(|(at, _)| {
                f64::from(x.abs_diff((at % width) as u32)).hypot(f64::from(y.abs_diff((at / width) as u32)))
            })
            .fold(f64::INFINITY, f64::min)
    }

    #[test]
    fn overlay_is_the_painted_picture_under_white_and_the_original_under_black() {
        let size = Size { width: 64, height: 64 };
        let plan = Plan::whole(size, None, None).unwrap();
        let original = picture(ColorType::Rgb8, size, 3);
        let painted = RgbImage::from_pixel(64, 64, Rgb([1, 2, 3]));
        let mask =
            Mask::from_luma8(GrayImage::from_fn(64, 64, |x, _| image::Luma([if x < 9 { 255 } else { 0 }])));
        let out = overlay(&original, &painted, &mask, &plan).unwrap().to_rgb8();
        for (x, y, pixel) in out.enumerate_pixels() {
            let expected = if x < 9 { Rgb([1, 2, 3]) } else { *original.to_rgb8().get_pixel(x, y) };
            assert_eq!(*pixel, expected);
        }
    }

    #[test]
    fn a_picture_of_another_size_than_planned_is_refused() {
        let size = Size { width: 64, height: 72 };
        let plan = Plan::whole(size, None, None).unwrap();
        let mask = Mask::from_luma8(GrayImage::new(64, 72));
        let error = merge(&picture(ColorType::L8, size, 1), &RgbImage::new(64, 64), &mask, &plan, 0, false)
            .unwrap_err();
        assert_eq!(error.to_string(), "painted picture size is 64 x 64; allowed: 64 x 72, as planned");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn outside_mask_and_feather_every_value_stays(
            (width, height) in (1_u32..40, 1_u32..40),
            dots in proptest::collection::vec((0_u32..40, 0_u32..40, 120_u8..=255), 0..6),
            feather in 0_u32..12,
            padding in proptest::option::of(0_u32..10),
            match_colours: bool,
            seed: u32,
        ) {
            let size = Size { width, height };
            let mut grey = GrayImage::new(width, height);
            for (x, y, value) in dots {
                grey.put_pixel(x % width, y % height, image::Luma([value]));
            }
            let binary = BinaryMask::from_luma(&grey);
            let mask = Mask::from_luma8(grey);
            let plan = match (padding, mask.bounds(size)) {
                (Some(padding), Some(bounds)) => Plan::around(size, bounds, padding, None, None).unwrap(),
                _ => Plan::whole(size, None, None).unwrap(),
            };
            let painted = RgbImage::from_pixel(plan.work.width, plan.work.height, Rgb([10, 200, 90]));
            for kind in KINDS {
                let original = picture(kind, size, seed);
                let merged = merge(&original, &painted, &mask, &plan, feather, match_colours).unwrap();
                prop_assert_eq!(merged.size(), size);
                prop_assert_eq!(merged.depth(), original.depth());
                prop_assert_eq!(merged.has_alpha(), original.has_alpha());
                prop_assert!(merged.pixels().color().has_color());
                let (old, new) = (original.pixels().to_rgba16(), merged.pixels().to_rgba16());
                for (x, y, pixel) in new.enumerate_pixels() {
                    let distance = distance(&binary, x, y);
                    if distance > f64::from(feather) {
                        prop_assert_eq!(pixel, old.get_pixel(x, y));
                    } else if distance == 0.0 && !match_colours {
                        prop_assert_eq!(pixel.0, [10 * 257, 200 * 257, 90 * 257, 65535]);
                    }
                }
            }
        }

        #[test]
        fn distances_are_exact(
            (width, height) in (1_u32..24, 1_u32..24),
            dots in proptest::collection::vec((0_u32..24, 0_u32..24), 0..8),
        ) {
            let mut grey = GrayImage::new(width, height);
            for (x, y) in dots {
                grey.put_pixel(x % width, y % height, image::Luma([255]));
            }
            let mask = BinaryMask::from_luma(&grey);
            let whole = Rect { x: 0, y: 0, width, height };
            let squares = squared_distances(&mask, whole);
            for (at, square) in squares.iter().enumerate() {
                let (x, y) = (at as u32 % width, at as u32 / width);
                let expected = distance(&mask, x, y);
                if expected.is_infinite() {
                    prop_assert_eq!(*square, FAR);
                } else {
                    prop_assert_eq!(*square, expected.powi(2).round() as u64);
                }
            }
        }
    }
}
