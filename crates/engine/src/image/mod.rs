//! Pictures: reading what users have, resizing as Pillow does, writing PNG with the recipe inside.
//!
//! Bytes in, bytes out; no files. A [`Picture`] keeps the depth and the alpha channel of what was read, so that the
//! pixels nobody repaints can leave as they came.

mod clip;
mod decode;
mod encode;
mod font;
mod jpeg;
mod resize;
pub mod sheet;
#[cfg(test)]
mod tests;

use image::{DynamicImage, RgbaImage};
pub use image::{Rgb, RgbImage};

pub use clip::clip_pixel_values;
pub(crate) use decode::decode;
pub use decode::{Limits, media_type};
pub use encode::{RECIPE_KEYWORD, read_recipe};
pub use resize::{Filter, Region, resize, resize_region};
pub(crate) use resize::{Raster, crop_resize_fill};

use crate::Result;
use crate::geometry::{Plan, Rect, Size};

/// A decoded picture: upright, 8 or 16 bits per channel, grey or RGB, with or without alpha.
#[derive(Clone, Debug)]
pub struct Picture {
    pixels: DynamicImage,
    /// The ICC profile of RGB pixels, handed through to the output.
    profile: Option<Vec<u8>>,
}

impl Picture {
    /// Decodes PNG, JPEG or WebP, told apart by their content. The orientation in EXIF is applied. Size limits are
    /// checked on the header, before any pixel is decoded.
    ///
    /// PNG and WebP give the values that Pillow gives. JPEG decoders round differently: from libjpeg-turbo, which Pillow
    /// uses, single values differ by up to 4.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`](crate::Error::Refused) beyond a limit, [`Error::Unreadable`](crate::Error::Unreadable) for
    /// other formats and for damaged data.
    pub fn decode(bytes: &[u8], limits: &Limits) -> Result<Self> {
        let decoded = decode(bytes, limits, "picture")?;
        Ok(Self { pixels: decoded.pixels, profile: decoded.profile })
    }

    /// An opaque picture of 8 bits per channel.
    pub fn from_rgb8(pixels: RgbImage) -> Self {
        Self { pixels: pixels.into(), profile: None }
    }

    /// The same picture with other pixels; a colour profile stays if both are in colour.
    pub(crate) fn with_pixels(&self, pixels: DynamicImage) -> Self {
        let profile = self.profile.clone().filter(|_| pixels.color().has_color());
        Self { pixels, profile }
    }

    /// The same pixels with a colour profile, or without.
    #[cfg(test)]
    pub(crate) fn with_profile(self, profile: Option<Vec<u8>>) -> Self {
        Self { profile, ..self }
    }

    /// The colour profile.
    #[cfg(test)]
    pub(crate) fn profile(&self) -> Option<&[u8]> {
        self.profile.as_deref()
    }

    /// The pixels as decoded: one of the 8- and 16-bit grey and RGB kinds, with or without alpha.
    pub fn pixels(&self) -> &DynamicImage {
        &self.pixels
    }

    /// Width and height in pixels.
    pub fn size(&self) -> Size {
        Size { width: self.pixels.width(), height: self.pixels.height() }
    }

    /// Whether there is an alpha channel.
    pub fn has_alpha(&self) -> bool {
        self.pixels.color().has_alpha()
    }

    /// Bits per channel: 8 or 16.
    pub fn depth(&self) -> u8 {
        if is_16_bit(&self.pixels) { 16 } else { 8 }
    }

    /// The colours as Pillow's `convert("RGB")` gives them: alpha dropped, grey repeated; of 16 bits the upper 8, in
    /// grey too, where Pillow cuts everything above 255 to white.
    pub fn to_rgb8(&self) -> RgbImage {
        to_rgb8(&self.pixels)
    }

    /// A PNG of the picture at its own depth, with `recipe` in an iTXt chunk named [`RECIPE_KEYWORD`]. The same picture
    /// and recipe always give the same bytes.
    ///
    /// # Errors
    ///
    /// [`Error::Encode`](crate::Error::Encode) if the encoder fails.
    pub fn encode_png(&self, recipe: Option<&str>) -> Result<Vec<u8>> {
        encode::png(&self.pixels, self.profile.as_deref(), recipe)
    }
}

pub(crate) fn is_16_bit(pixels: &DynamicImage) -> bool {
    pixels.color().bits_per_pixel() / u16::from(pixels.color().channel_count()) == 16
}

/// The upper byte of each 16-bit value is what Pillow takes, and what scaling by 257 undoes.
pub(crate) fn to_rgb8(pixels: &DynamicImage) -> RgbImage {
    if !is_16_bit(pixels) {
        return pixels.to_rgb8();
    }
    let wide = pixels.to_rgb16();
    RgbImage::from_raw(wide.width(), wide.height(), upper_bytes(wide.as_raw())).unwrap_or_default()
}

/// As [`to_rgb8`], with the alpha channel.
pub(crate) fn to_rgba8(pixels: &DynamicImage) -> RgbaImage {
    if !is_16_bit(pixels) {
        return pixels.to_rgba8();
    }
    let wide = pixels.to_rgba16();
    RgbaImage::from_raw(wide.width(), wide.height(), upper_bytes(wide.as_raw())).unwrap_or_default()
}

fn upper_bytes(values: &[u16]) -> Vec<u8> {
    values.iter().map(|value| (value >> 8) as u8).collect()
}

/// The picture at the plan's work size: cropped, resized with Lanczos, and, where the crop's shape differs from the work
/// size's, completed at its borders. (`VaeImageProcessor.preprocess` in diffusers/image_processor.py)
pub fn to_work(image: &RgbImage, plan: &Plan) -> RgbImage {
    resize::crop_resize_fill(image, plan, Filter::Lanczos)
}

/// `(3, H, W)` values in -1..=1, channel by channel, as the VAE takes them.
pub fn normalized(image: &RgbImage) -> Vec<f32> {
    let bytes = image.as_raw();
    (0..3)
        .flat_map(|channel| bytes.iter().skip(channel).step_by(3))
        .map(|byte| 2.0 * (f32::from(*byte) / 255.0) - 1.0)
        .collect()
}

/// The picture of `(3, H, W)` values in -1..=1, channel by channel, as the VAE gives them; values beyond are cut, and a
/// value that is not a number becomes black. (`VaeImageProcessor.postprocess` in diffusers/image_processor.py)
///
/// # Errors
///
/// [`Error::Encode`](crate::Error::Encode) if the number of values is not that of the size.
pub fn denormalized(values: &[f32], size: Size) -> Result<RgbImage> {
    let plane = size.width as usize * size.height as usize;
    if values.len() != 3 * plane {
        return Err(crate::Error::Encode(format!(
            "{} values are not a picture of 3 x {} x {}",
            values.len(),
            size.height,
            size.width
        )));
    }
    Ok(RgbImage::from_fn(size.width, size.height, |x, y| {
        let at = y as usize * size.width as usize + x as usize;
        image::Rgb([0, 1, 2].map(|channel| {
            let value = (values[channel * plane + at] * 0.5 + 0.5).clamp(0.0, 1.0);
            (value * 255.0).round_ties_even() as u8
        }))
    }))
}

/// The part of `image` inside `rect`; what lies beyond the picture is black.
pub(crate) fn crop<P>(image: &resize::Raster<P>, rect: Rect) -> resize::Raster<P>
where
    P: image::Pixel<Subpixel = u8>,
{
    let mut out = resize::Raster::<P>::new(rect.width, rect.height);
    image::imageops::replace(&mut out, image, -i64::from(rect.x), -i64::from(rect.y));
    out
}
