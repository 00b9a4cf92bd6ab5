//! Writing PNG, with the recipe of the picture inside, and reading the recipe back.

use std::borrow::Cow;
use std::io::Cursor;

use image::DynamicImage;
use png::{BitDepth, ColorType, Compression, Decoder, Encoder, Info};

use super::is_16_bit;
use crate::{Error, Result};

/// The keyword of the iTXt chunk that holds a picture's recipe.
pub const RECIPE_KEYWORD: &str = "infill";

/// Encodes 8- or 16-bit grey or RGB pixels, with or without alpha.
pub(super) fn png(pixels: &DynamicImage, profile: Option<&[u8]>, recipe: Option<&str>) -> Result<Vec<u8>> {
    let mut info = Info::with_size(pixels.width(), pixels.height());
    info.color_type = match (pixels.color().has_color(), pixels.color().has_alpha()) {
        (false, false) => ColorType::Grayscale,
        (false, true) => ColorType::GrayscaleAlpha,
        (true, false) => ColorType::Rgb,
        (true, true) => ColorType::Rgba,
    };
    let wide = is_16_bit(pixels);
    info.bit_depth = if wide { BitDepth::Sixteen } else { BitDepth::Eight };
    info.icc_profile = profile.map(Cow::Borrowed);
    // PNG stores the upper byte first, memory on the usual machines the lower one.
    let bytes: Cow<'_, [u8]> = if wide {
        let native = pixels.as_bytes().as_chunks::<2>().0;
        native.iter().flat_map(|value| u16::from_ne_bytes(*value).to_be_bytes()).collect()
    } else {
        Cow::Borrowed(pixels.as_bytes())
    };

    let mut out = Vec::new();
    let written = (|| {
        let mut encoder = Encoder::with_info(&mut out, info)?;
        // On photographs no larger than the slower settings, in a twentieth of the time.
        encoder.set_compression(Compression::Fast);
        if let Some(recipe) = recipe {
            encoder.add_itxt_chunk(RECIPE_KEYWORD.to_owned(), recipe.to_owned())?;
        }
        let mut writer = encoder.write_header()?;
        writer.write_image_data(&bytes)?;
        writer.finish()
    })();
    written.map_err(|error: png::EncodingError| Error::Encode(error.to_string()))?;
    Ok(out)
}

/// The recipe inside a PNG that [`Picture::encode_png`](super::Picture::encode_png) wrote; `None` if there is none, or
/// if the bytes are not such a PNG.
pub fn read_recipe(bytes: &[u8]) -> Option<String> {
    let mut reader = Decoder::new(Cursor::new(bytes)).read_info().ok()?;
    let find = |info: &Info<'_>| {
        let chunk = info.utf8_text.iter().find(|chunk| chunk.keyword == RECIPE_KEYWORD)?;
        chunk.get_text().ok()
    };
    if let Some(recipe) = find(reader.info()) {
        return Some(recipe);
    }
    // Another program may have moved the chunk behind the pixels.
    reader.finish().ok()?;
    find(reader.info())
}
