//! Resizing bit for bit as Pillow does, since diffusers resizes pictures and masks with it.
//!
//! Lanczos and bicubic are separable convolutions with an antialiasing support, computed in 22-bit fixed point, with
//! 8-bit values between the two passes: first along rows, then along columns; since Pillow 13 the other way round if the
//! height loses more than twice as many pixels as the width. The order changes single values by 1; the one here is that
//! of Pillow 13.0.0, found by comparing bytes. (Pillow's src/libImaging/Resample.c)
//!
//! Nearest neighbour walks the source in steps of one double. (`ImagingScaleAffine` in Pillow's
//! src/libImaging/Geometry.c)

use std::ops::Range;

use image::{ImageBuffer, Pixel};

use super::crop;
use crate::geometry::{Plan, Rect, Size};

/// An 8-bit picture of any number of channels.
pub(crate) type Raster<P> = ImageBuffer<P, Vec<u8>>;

/// How a new pixel is made from old ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// The old pixel under the new one's centre.
    Nearest,
    /// Keys' cubic convolution with a = -1/2, over two pixels either side.
    Bicubic,
    /// The sinc function windowed by its own central lobe, over three pixels either side.
    Lanczos,
}

impl Filter {
    /// How far the kernel reaches, in old pixels, where nothing is shrunk.
    fn support(self) -> f64 {
        match self {
            Filter::Nearest => 0.5,
            Filter::Bicubic => 2.0,
            Filter::Lanczos => 3.0,
        }
    }

    fn weight(self, x: f64) -> f64 {
        match self {
            Filter::Nearest => 1.0,
            Filter::Bicubic => bicubic(x.abs()),
            Filter::Lanczos if (-3.0..3.0).contains(&x) => sinc(x) * sinc(x / 3.0),
            Filter::Lanczos => 0.0,
        }
    }
}

fn sinc(x: f64) -> f64 {
    if x == 0.0 {
        return 1.0;
    }
    let x = x * std::f64::consts::PI;
    x.sin() / x
}

fn bicubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

/// A part of a picture: from the left and top edge up to, not including, the right and bottom one. It may be empty in a
/// direction; resizing it then spreads what lies at that line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// The first column.
    pub left: u32,
    /// The first row.
    pub top: u32,
    /// The column after the last.
    pub right: u32,
    /// The row after the last.
    pub bottom: u32,
}

impl Region {
    fn whole<P: Pixel<Subpixel = u8>>(image: &Raster<P>) -> Self {
        Self { left: 0, top: 0, right: image.width(), bottom: image.height() }
    }
}

/// `image` resized to `width` x `height`: Pillow's `resize((width, height), filter)`.
pub fn resize<P: Pixel<Subpixel = u8>>(
    image: &Raster<P>,
    width: u32,
    height: u32,
    filter: Filter,
) -> Raster<P> {
    resize_region(image, Region::whole(image), width, height, filter)
}

/// A region of `image` resized to `width` x `height`: Pillow's `resize((width, height), filter, box=region)`. Pixels
/// outside the region, but within reach of the kernel, take part.
pub fn resize_region<P: Pixel<Subpixel = u8>>(
    image: &Raster<P>,
    region: Region,
    width: u32,
    height: u32,
    filter: Filter,
) -> Raster<P> {
    if filter == Filter::Nearest {
        return nearest(image, region, width, height);
    }
    let whole = Rect { x: 0, y: 0, width, height };
    convolve(image, region, Size { width, height }, whole, filter)
}

/// The part `window` of `image` resized to `size`: Pillow's `resize(size, filter).crop(window)` without the rest. What
/// lies outside, which may be far too large, is never made. Not for [`Filter::Nearest`].
pub(crate) fn resize_window<P: Pixel<Subpixel = u8>>(
    image: &Raster<P>,
    size: Size,
    window: Rect,
    filter: Filter,
) -> Raster<P> {
    convolve(image, Region::whole(image), size, window, filter)
}

/// The pixels `window` of a region of `image` resized to `size`.
fn convolve<P: Pixel<Subpixel = u8>>(
    image: &Raster<P>,
    region: Region,
    size: Size,
    window: Rect,
    filter: Filter,
) -> Raster<P> {
    let Size { width, height } = size;
    let unchanged = |from: u32, to: u32, old: u32, new: u32, seen: u32| {
        from == 0 && to == new && old == new && seen == new
    };
    let across = |image: &Raster<P>| {
        if unchanged(region.left, region.right, image.width(), width, window.width) {
            return image.clone();
        }
        let seen = window.x..window.x + window.width;
        rows(image, &taps(image.width(), region.left, region.right, width, seen, filter))
    };
    let down = |image: &Raster<P>| {
        if unchanged(region.top, region.bottom, image.height(), height, window.height) {
            return image.clone();
        }
        let seen = window.y..window.y + window.height;
        columns(image, &taps(image.height(), region.top, region.bottom, height, seen, filter))
    };
    let lost_rows = i64::from(image.height()) - i64::from(height);
    let lost_columns = i64::from(image.width()) - i64::from(width);
    if lost_rows > (2 * lost_columns).max(0) { across(&down(image)) } else { down(&across(image)) }
}

fn nearest<P: Pixel<Subpixel = u8>>(image: &Raster<P>, region: Region, width: u32, height: u32) -> Raster<P> {
    // Positions are summed up, not multiplied out, so that they round as Pillow's do.
    let positions = |from: u32, to: u32, new: u32| {
        let step = (f64::from(to) - f64::from(from)) / f64::from(new);
        let first = f64::from(from) + step * 0.5;
        std::iter::successors(Some(first), move |position| Some(position + step))
            .take(new as usize)
            .map(|position| position as u32)
            .collect::<Vec<_>>()
    };
    let columns = positions(region.left, region.right, width);
    let rows = positions(region.top, region.bottom, height);
    let mut out = Raster::<P>::new(width, height);
    for (x, y, pixel) in out.enumerate_pixels_mut() {
        if let Some(source) = image.get_pixel_checked(columns[x as usize], rows[y as usize]) {
            *pixel = *source;
        }
    }
    out
}

/// Fractional bits of the weights: what 8-bit values and their sums leave of 32, less two for the overshoot.
const PRECISION: u32 = 32 - 8 - 2;

/// The weighted old pixels that make one new pixel.
struct Tap {
    first: usize,
    weights: Vec<i32>,
}

/// The taps of those `seen` of `new` pixels over the old ones `from..to` of `old`.
fn taps(old: u32, from: u32, to: u32, new: u32, seen: Range<u32>, filter: Filter) -> Vec<Tap> {
    let scale = (f64::from(to) - f64::from(from)) / f64::from(new);
    let stretch = scale.max(1.0);
    let support = filter.support() * stretch;
    let reciprocal = 1.0 / stretch;
    let tap = |position: u32| {
        let center = f64::from(from) + (f64::from(position) + 0.5) * scale;
        let first = ((center - support + 0.5) as i64).max(0);
        let end = ((center + support + 0.5) as i64).min(i64::from(old));
        let mut weights: Vec<f64> =
            (first..end).map(|x| filter.weight((x as f64 - center + 0.5) * reciprocal)).collect();
        let sum: f64 = weights.iter().sum();
        if sum != 0.0 {
            weights.iter_mut().for_each(|weight| *weight /= sum);
        }
        Tap { first: first as usize, weights: weights.into_iter().map(fixed_point).collect() }
    };
    seen.map(tap).collect()
}

fn fixed_point(weight: f64) -> i32 {
    let scaled = weight * f64::from(1 << PRECISION);
    (if weight < 0.0 { scaled - 0.5 } else { scaled + 0.5 }) as i32
}

fn rounded_byte(sum: i32) -> u8 {
    (sum >> PRECISION).clamp(0, 255) as u8
}

/// Half a unit, so that cutting off the fraction rounds.
const HALF: i32 = 1 << (PRECISION - 1);

/// Each row resized by its taps.
fn rows<P: Pixel<Subpixel = u8>>(image: &Raster<P>, taps: &[Tap]) -> Raster<P> {
    let channels = usize::from(P::CHANNEL_COUNT);
    let mut out = Raster::<P>::new(taps.len() as u32, image.height());
    let (old, new) = (image.width() as usize * channels, taps.len() * channels);
    if old == 0 || new == 0 {
        return out;
    }
    for (source, target) in image.as_raw().chunks_exact(old).zip(out.chunks_exact_mut(new)) {
        for (tap, pixel) in taps.iter().zip(target.chunks_exact_mut(channels)) {
            let mut sums = [HALF; 4];
            for (weight, old) in tap.weights.iter().zip(source[tap.first * channels..].chunks_exact(channels))
            {
                for (sum, byte) in sums.iter_mut().zip(old) {
                    *sum = sum.wrapping_add(weight.wrapping_mul(i32::from(*byte)));
                }
            }
            for (byte, sum) in pixel.iter_mut().zip(sums) {
                *byte = rounded_byte(sum);
            }
        }
    }
    out
}

/// Each column resized by its taps, a row at a time.
fn columns<P: Pixel<Subpixel = u8>>(image: &Raster<P>, taps: &[Tap]) -> Raster<P> {
    let mut out = Raster::<P>::new(image.width(), taps.len() as u32);
    let length = image.width() as usize * usize::from(P::CHANNEL_COUNT);
    if length == 0 {
        return out;
    }
    let mut sums = vec![HALF; length];
    for (tap, target) in taps.iter().zip(out.chunks_exact_mut(length)) {
        sums.fill(HALF);
        for (weight, source) in
            tap.weights.iter().zip(image.as_raw()[tap.first * length..].chunks_exact(length))
        {
            for (sum, byte) in sums.iter_mut().zip(source) {
                *sum = sum.wrapping_add(weight.wrapping_mul(i32::from(*byte)));
            }
        }
        for (byte, sum) in target.iter_mut().zip(&sums) {
            *byte = rounded_byte(*sum);
        }
    }
    out
}

/// A picture or mask at the plan's work size. Where the resized crop doesn't cover the work size, the two bars beside it
/// are filled from the lines at its edges, by cubic convolution over a region of no extent as diffusers does.
/// (`VaeImageProcessor._resize_and_fill` in diffusers/image_processor.py)
pub(crate) fn crop_resize_fill<P>(image: &Raster<P>, plan: &Plan, filter: Filter) -> Raster<P>
where
    P: Pixel<Subpixel = u8>,
{
    let Rect { x, y, width, height } = plan.placement;
    let inner = resize(&crop(image, plan.crop), width, height, filter);
    if (width, height) == (plan.work.width, plan.work.height) {
        return inner;
    }
    let mut out = Raster::<P>::new(plan.work.width, plan.work.height);
    image::imageops::replace(&mut out, &inner, i64::from(x), i64::from(y));
    let bar_filter = if filter == Filter::Nearest { Filter::Nearest } else { Filter::Bicubic };
    let line = |left, top, right, bottom| Region { left, top, right, bottom };
    if y > 0 {
        let above = resize_region(&inner, line(0, 0, width, 0), width, y, bar_filter);
        let below = resize_region(&inner, line(0, height, width, height), width, y, bar_filter);
        image::imageops::replace(&mut out, &above, 0, 0);
        image::imageops::replace(&mut out, &below, 0, i64::from(y) + i64::from(height));
    } else if x > 0 {
        let left = resize_region(&inner, line(0, 0, 0, height), x, height, bar_filter);
        let right = resize_region(&inner, line(width, 0, width, height), x, height, bar_filter);
        image::imageops::replace(&mut out, &left, 0, 0);
        image::imageops::replace(&mut out, &right, i64::from(x) + i64::from(width), 0);
    }
    out
}
