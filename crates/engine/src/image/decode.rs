//! Reading PNG, JPEG and WebP, within limits.

use std::io::Cursor;

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader};

use super::{is_16_bit, jpeg};
use crate::{Error, Result};

/// What a picture may measure at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the encoded picture.
    pub bytes: usize,
    /// Width and height, each, in pixels.
    pub side: u32,
    /// Width times height.
    pub pixels: u64,
}

impl Default for Limits {
    /// 64 MiB, 16384 pixels a side, 67 million pixels in all.
    fn default() -> Self {
        Self { bytes: 64 << 20, side: 16_384, pixels: 64 << 20 }
    }
}

/// The media type of the kinds of picture that are read, told by their content.
pub fn media_type(bytes: &[u8]) -> Option<&'static str> {
    known_format(bytes).map(|format| format.to_mime_type())
}

fn known_format(bytes: &[u8]) -> Option<ImageFormat> {
    image::guess_format(bytes)
        .ok()
        .filter(|format| matches!(format, ImageFormat::Png | ImageFormat::Jpeg | ImageFormat::WebP))
}

/// A picture as decoded.
pub(crate) struct Decoded {
    /// One of the 8- and 16-bit grey and RGB kinds.
    pub(crate) pixels: DynamicImage,
    /// The ICC profile, if it is one for RGB and the pixels are.
    pub(crate) profile: Option<Vec<u8>>,
    /// Whether it was stored with one bit of grey per pixel or with a palette, Pillow's modes "1" and "P": these are
    /// resized by their nearest pixels alone.
    pub(crate) nearest: bool,
}

/// Decodes a picture; `what` names it in errors: "picture" or "mask".
pub(crate) fn decode(bytes: &[u8], limits: &Limits, what: &'static str) -> Result<Decoded> {
    let refused = |value: String, allowed: String| Error::Refused { field: what, value, allowed };
    let unreadable = |error: image::ImageError| Error::Unreadable { what, reason: error.to_string() };
    if bytes.len() > limits.bytes {
        return Err(refused(
            format!("{} bytes long", bytes.len()),
            format!("at most {} bytes", limits.bytes),
        ));
    }
    let Some(format) = known_format(bytes) else {
        let reason = "its content is neither PNG, JPEG nor WebP".to_owned();
        return Err(Error::Unreadable { what, reason });
    };

    if format == ImageFormat::Jpeg && !jpeg::is_whole(bytes) {
        return Err(Error::Unreadable { what, reason: "the JPEG is cut short".to_owned() });
    }

    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut memory = image::Limits::no_limits();
    // Room for the pixels at their widest, twice, and for the decoder's own tables and metadata.
    memory.max_alloc = Some(limits.pixels.saturating_mul(16).saturating_add(64 << 20));
    reader.limits(memory);
    let mut decoder = reader.into_decoder().map_err(unreadable)?;
    let (width, height) = decoder.dimensions();
    if width.max(height) > limits.side || u64::from(width) * u64::from(height) > limits.pixels {
        return Err(refused(
            format!("{width} x {height} pixels"),
            format!("sides of at most {} and {} pixels in all", limits.side, limits.pixels),
        ));
    }
    if width == 0 || height == 0 {
        return Err(refused(format!("{width} x {height} pixels"), "at least one pixel".to_owned()));
    }

    // Damaged metadata doesn't make a picture unreadable.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let profile = decoder.icc_profile().unwrap_or(None);
    let mut pixels = DynamicImage::from_decoder(decoder).map_err(unreadable)?;
    pixels.apply_orientation(orientation);
    let pixels = known_kind(pixels);
    let profile =
        profile.filter(|profile| profile.get(16..20) == Some(b"RGB ") && pixels.color().has_color());
    Ok(Decoded { pixels, profile, nearest: format == ImageFormat::Png && is_nearest_png(bytes) })
}

/// The pixels in one of the eight kinds that a [`Picture`](super::Picture) has.
fn known_kind(pixels: DynamicImage) -> DynamicImage {
    use DynamicImage as Kind;
    match pixels {
        Kind::ImageLuma8(_)
        | Kind::ImageLumaA8(_)
        | Kind::ImageRgb8(_)
        | Kind::ImageRgba8(_)
        | Kind::ImageLuma16(_)
        | Kind::ImageLumaA16(_)
        | Kind::ImageRgb16(_)
        | Kind::ImageRgba16(_) => pixels,
        other if is_16_bit(&other) => other.to_rgba16().into(),
        other => other.to_rgba8().into(),
    }
}

/// Bit depth 1 and colour type grey, or a palette, in the header chunk that every PNG begins with.
fn is_nearest_png(bytes: &[u8]) -> bool {
    matches!(bytes.get(24..26), Some([1, 0] | [_, 3]))
}
