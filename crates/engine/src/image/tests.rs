#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::Cursor;

use image::{DynamicImage, GrayImage, ImageBuffer, ImageFormat, Luma, Pixel, Rgb, RgbImage, Rgba};
use proptest::prelude::*;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::*;
use crate::mask::Mask;
use crate::pipeline::merge::overlay;

const ASTRONAUT: &[u8] = include_bytes!("../../../../tests/fixtures/images/astronaut.png");

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn rows(fixture: &str) -> Vec<Value> {
    serde_json::from_str(fixture).unwrap()
}

fn numbers<const N: usize>(value: &Value) -> [u32; N] {
    std::array::from_fn(|i| u32::try_from(value[i].as_u64().unwrap()).unwrap())
}

/// The picture that `make.py` beside the fixtures makes by the same formula.
fn pattern<P: Pixel<Subpixel = u8>>(width: u32, height: u32, seed: u32) -> ImageBuffer<P, Vec<u8>> {
    let count = width * height * u32::from(P::CHANNEL_COUNT);
    let bytes = (0..count).map(|i| ((i ^ seed).wrapping_mul(0x9e37_79b9) >> 24) as u8).collect();
    ImageBuffer::from_raw(width, height, bytes).unwrap()
}

fn encoded(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

fn decode_any(bytes: &[u8]) -> Result<Picture> {
    Picture::decode(bytes, &Limits::default())
}

#[test]
fn resizing_equals_pillow() {
    let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/");
    let cases = rows(include_str!("../../../../tests/fixtures/resize/resized.json"));
    assert!(cases.len() > 250);
    for case in cases {
        let [width, height] = numbers(&case["to"]);
        let filter = match case["filter"].as_str().unwrap() {
            "nearest" => Filter::Nearest,
            "bicubic" => Filter::Bicubic,
            _ => Filter::Lanczos,
        };
        let grey = case["mode"] == "L";
        let (luma, colour) = if let Some(file) = case["photo"].as_str() {
            let bytes = std::fs::read(format!("{fixtures}images/{file}")).unwrap();
            let colour = decode_any(&bytes).unwrap().to_rgb8();
            (DynamicImage::from(colour.clone()).to_luma8(), colour)
        } else {
            let [width, height] = numbers(&case["from"]);
            let seed = case["seed"].as_u64().unwrap() as u32;
            (pattern(width, height, seed), pattern(width, height, seed))
        };
        let bytes = if grey {
            resize(&luma, width, height, filter).into_raw()
        } else {
            resize(&colour, width, height, filter).into_raw()
        };
        assert_eq!(sha256(&bytes), case["sha256"].as_str().unwrap(), "{case}");
    }
}

#[test]
fn crop_completion_and_overlay_equal_diffusers() {
    let cases = rows(include_str!("../../../../tests/fixtures/resize/prepared.json"));
    assert!(cases.len() > 30);
    for case in cases {
        let [width, height] = numbers(&case["picture"]);
        let [x, y, mask_width, mask_height] = numbers(&case["mask"]);
        let [work_width, work_height] = numbers(&case["work"]);
        let seed = case["seed"].as_u64().unwrap() as u32;
        let image: RgbImage = pattern(width, height, seed);
        let mut grey = GrayImage::new(width, height);
        for (dx, dy, value) in pattern::<Luma<u8>>(mask_width, mask_height, seed).enumerate_pixels() {
            grey.put_pixel(x + dx, y + dy, Luma([value[0] | 1]));
        }
        let mask = match case["kind"].as_str().unwrap() {
            "L" => Mask::from_luma8(grey),
            "RGB" => {
                let colour = DynamicImage::from(grey).to_rgb8().into();
                Mask::decode(&encoded(&colour, ImageFormat::Png), &Limits::default()).unwrap()
            }
            _ => Mask::decode(&one_bit_png(&grey), &Limits::default()).unwrap(),
        };
        let size = Size { width, height };
        let padding = case["padding"].as_u64().unwrap() as u32;
        let bounds = mask.bounds(size).unwrap();
        let plan = Plan::around(size, bounds, padding, Some(work_width), Some(work_height)).unwrap();
        assert_eq!(sha256(to_work(&image, &plan).as_raw()), case["image"].as_str().unwrap(), "{case}");
        let work_mask: Vec<u8> = mask.to_work(&plan).repaint().iter().map(|v| u8::from(*v)).collect();
        assert_eq!(sha256(&work_mask), case["work_mask"].as_str().unwrap(), "{case}");
        let painted = pattern(work_width, work_height, seed ^ 1);
        let laid = overlay(&Picture::from_rgb8(image), &painted, &mask, &plan).unwrap().to_rgb8();
        assert_eq!(sha256(laid.as_raw()), case["overlay"].as_str().unwrap(), "{case}");
    }
}

/// A PNG of one bit per pixel: white where the grey value is at least 128.
fn one_bit_png(grey: &GrayImage) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, grey.width(), grey.height());
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_depth(png::BitDepth::One);
    let packed: Vec<u8> = grey
        .rows()
        .flat_map(|row| {
            let bits: Vec<u8> = row.map(|pixel| u8::from(pixel[0] >= 128)).collect();
            bits.chunks(8)
                .map(|chunk| chunk.iter().enumerate().fold(0, |byte, (i, bit)| byte | (bit << (7 - i))))
                .collect::<Vec<u8>>()
        })
        .collect();
    encoder.write_header().unwrap().write_image_data(&packed).unwrap();
    bytes
}

/// A PNG of a palette of red, green and half-transparent blue; one pixel of each.
fn palette_png() -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, 3, 1);
    encoder.set_color(png::ColorType::Indexed);
    encoder.set_depth(png::BitDepth::Two);
    encoder.set_palette(vec![255, 0, 0, 0, 255, 0, 0, 0, 255]);
    encoder.set_trns(vec![255, 255, 128]);
    encoder.write_header().unwrap().write_image_data(&[0b0001_1000]).unwrap();
    bytes
}

#[test]
fn every_kind_of_png_keeps_its_depth_and_alpha() {
    let wide =
        ImageBuffer::<Rgba<u16>, _>::from_fn(5, 4, |x, y| Rgba([x as u16 * 9999, y as u16, 65535, 258]));
    let wide = DynamicImage::from(wide);
    let kinds: [DynamicImage; 8] = [
        wide.to_luma8().into(),
        wide.to_luma_alpha8().into(),
        wide.to_rgb8().into(),
        wide.to_rgba8().into(),
        wide.to_luma16().into(),
        wide.to_luma_alpha16().into(),
        wide.to_rgb16().into(),
        wide,
    ];
    for kind in kinds {
        let first = decode_any(&encoded(&kind, ImageFormat::Png)).unwrap();
        assert_eq!(*first.pixels(), kind);
        let again = decode_any(&first.encode_png(None).unwrap()).unwrap();
        assert_eq!(*again.pixels(), kind);
        assert_eq!(first.depth(), if is_16_bit(&kind) { 16 } else { 8 });
    }
    let palette = decode_any(&palette_png()).unwrap();
    assert!(palette.has_alpha());
    assert_eq!(palette.to_rgb8().into_raw(), [255, 0, 0, 0, 255, 0, 0, 0, 255]);
}

#[test]
fn of_16_bits_the_upper_8_are_taken() {
    let wide = ImageBuffer::<Rgb<u16>, _>::from_pixel(1, 1, Rgb([0x12ff, 0xfe80, 0x0080]));
    assert_eq!(to_rgb8(&wide.into()).into_raw(), [0x12, 0xfe, 0x00]);
}

#[test]
fn a_mask_of_one_bit_is_resized_by_nearest_neighbour_and_colour_weighed_as_luma() {
    let grey = GrayImage::from_fn(2, 1, |x, _| Luma([if x == 0 { 255 } else { 0 }]));
    let size = Size { width: 16, height: 1 };
    let bilevel = Mask::decode(&one_bit_png(&grey), &Limits::default()).unwrap();
    assert!(bilevel.to_size(size).as_raw().iter().all(|value| [0, 255].contains(value)));
    assert!(Mask::from_luma8(grey).to_size(size).as_raw().iter().any(|value| ![0, 255].contains(value)));

    let palette = Mask::decode(&palette_png(), &Limits::default()).unwrap();
    assert_eq!(palette.to_size(Size { width: 3, height: 1 }).into_raw(), [76, 150, 29]);
    assert!(!palette.is_empty());
    assert!(Mask::from_luma8(GrayImage::from_pixel(3, 3, Luma([127]))).is_empty());
}

#[test]
fn a_mask_shrinks_to_latents_by_its_upper_left_pixels() {
    let grey = GrayImage::from_fn(16, 8, |x, y| Luma([if x == 8 && y == 0 { 255 } else { 0 }]));
    let mask = crate::mask::BinaryMask::from_luma(&grey);
    assert_eq!(mask.to_latents(1, 2), [0.0, 1.0]);
}

#[test]
fn the_recipe_comes_back_and_bytes_are_deterministic() {
    let picture = decode_any(ASTRONAUT).unwrap();
    let recipe = "{\"prompt\":\"a café, 猫\"}";
    let bytes = picture.encode_png(Some(recipe)).unwrap();
    assert_eq!(bytes, picture.encode_png(Some(recipe)).unwrap());
    assert_eq!(read_recipe(&bytes).as_deref(), Some(recipe));
    assert_eq!(read_recipe(&picture.encode_png(None).unwrap()), None);
    assert_eq!(read_recipe(b"no picture"), None);
    assert_eq!(decode_any(&bytes).unwrap().pixels(), picture.pixels());
}

#[test]
fn limits_are_checked_on_the_header() {
    let limits = |bytes, side, pixels| Picture::decode(ASTRONAUT, &Limits { bytes, side, pixels });
    let error = limits(1000, 1000, 1 << 20).unwrap_err().to_string();
    assert_eq!(error, format!("picture is {} bytes long; allowed: at most 1000 bytes", ASTRONAUT.len()));
    let error = limits(1 << 24, 500, 1 << 20).unwrap_err().to_string();
    assert_eq!(error, "picture is 512 x 512 pixels; allowed: sides of at most 500 and 1048576 pixels in all");
    assert!(limits(1 << 24, 512, 512 * 512).is_ok());
    assert!(limits(1 << 24, 512, 512 * 512 - 1).is_err());

    // A header that promises 65535 x 65535 pixels and brings none.
    let mut bomb = ASTRONAUT[..8 + 25].to_vec();
    bomb[16..24].copy_from_slice(&[0, 0, 0xff, 0xff, 0, 0, 0xff, 0xff]);
    assert!(decode_any(&bomb).is_err());
}

#[test]
fn damaged_and_foreign_data_is_unreadable() {
    for bytes in [&ASTRONAUT[..ASTRONAUT.len() / 2], b"", b"GIF89a..............", &ASTRONAUT[..20]] {
        let error = decode_any(bytes).unwrap_err();
        assert!(matches!(error, crate::Error::Unreadable { what: "picture", .. }), "{error}");
    }
    let error = decode_any(b"plain text").unwrap_err().to_string();
    assert_eq!(error, "the picture can't be read: its content is neither PNG, JPEG nor WebP");
}

#[test]
fn the_orientation_in_exif_is_applied() {
    // A TIFF header with one entry: orientation 6, to be turned a quarter clockwise.
    let exif = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
    let image = RgbImage::from_fn(2, 1, |x, _| if x == 0 { Rgb([255, 0, 0]) } else { Rgb([0, 0, 255]) });
    let mut info = png::Info::with_size(2, 1);
    info.color_type = png::ColorType::Rgb;
    info.exif_metadata = Some(exif.as_slice().into());
    let mut bytes = Vec::new();
    let encoder = png::Encoder::with_info(&mut bytes, info).unwrap();
    encoder.write_header().unwrap().write_image_data(image.as_raw()).unwrap();
    let upright = decode_any(&bytes).unwrap();
    assert_eq!(upright.size(), Size { width: 1, height: 2 });
    assert_eq!(upright.to_rgb8().into_raw(), image.into_raw());

    let jpeg = encoded(&DynamicImage::from(pattern::<Rgb<u8>>(24, 8, 1)), ImageFormat::Jpeg);
    let mut segment = vec![0xff, 0xe1, 0, (exif.len() + 8) as u8];
    segment.extend_from_slice(b"Exif\0\0");
    segment.extend_from_slice(exif);
    let turned = [&jpeg[..2], &segment, &jpeg[2..]].concat();
    assert_eq!(decode_any(&turned).unwrap().size(), Size { width: 8, height: 24 });
}

#[test]
fn jpeg_and_webp_are_read() {
    let image = DynamicImage::from(RgbImage::from_pixel(20, 10, Rgb([200, 30, 60])));
    for format in [ImageFormat::Jpeg, ImageFormat::WebP] {
        let picture = decode_any(&encoded(&image, format)).unwrap();
        assert_eq!(picture.size(), Size { width: 20, height: 10 });
        let colour = picture.to_rgb8().get_pixel(7, 7).0;
        assert!(colour.iter().zip([200_u8, 30, 60]).all(|(a, b)| a.abs_diff(b) <= 3), "{colour:?}");
    }
    let grey = DynamicImage::from(GrayImage::from_pixel(9, 9, Luma([77])));
    let picture = decode_any(&encoded(&grey, ImageFormat::Jpeg)).unwrap();
    assert!(!picture.pixels().color().has_color());
}

#[test]
fn values_of_the_networks_round_trip() {
    let image: RgbImage = pattern(16, 8, 5);
    let values = normalized(&image);
    assert_eq!(values[0], 2.0 * (f32::from(image.get_pixel(0, 0)[0]) / 255.0) - 1.0);
    assert_eq!(denormalized(&values, Size { width: 16, height: 8 }).unwrap(), image);
    let edge = denormalized(&[9.0, -9.0, f32::NAN], Size { width: 1, height: 1 }).unwrap();
    assert_eq!(edge.into_raw(), [255, 0, 0]);
    assert!(denormalized(&values, Size { width: 8, height: 8 }).is_err());
}

/// Small encoded pictures of each format.
fn samples() -> Vec<Vec<u8>> {
    let colour = DynamicImage::from(pattern::<Rgb<u8>>(19, 13, 2));
    vec![
        encoded(&colour, ImageFormat::Png),
        encoded(&colour, ImageFormat::Jpeg),
        encoded(&colour, ImageFormat::WebP),
        encoded(&colour.to_rgba16().into(), ImageFormat::Png),
        palette_png(),
        one_bit_png(&pattern(19, 13, 3)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_bytes_make_decoding_panic(
        which in 0_usize..6,
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = samples()[which].clone();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let limits = Limits { bytes: 1 << 20, side: 4096, pixels: 1 << 22 };
        let _ = Picture::decode(&bytes, &limits);
        let _ = Mask::decode(&bytes, &limits);
        let _ = read_recipe(&bytes);
    }

    #[test]
    fn random_bytes_are_no_picture(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(Picture::decode(&bytes, &Limits::default()).is_err());
    }
}
