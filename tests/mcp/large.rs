//! A photograph as large as cameras make them, inside a call, on both transports.

use std::io::Cursor;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use image::{DynamicImage, GrayImage, ImageFormat, Luma, Rgb, RgbImage};
use serde_json::{Value, json};

use crate::client::Http;
use crate::harness::{Server, TOOL, arguments, pixels};

const SIDE: u32 = 2900;

/// Noise, which does not compress: 3 bytes a pixel.
fn photograph() -> RgbImage {
    let mut state = 1_u32;
    RgbImage::from_fn(SIDE, SIDE, |_, _| {
        Rgb(std::array::from_fn(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        }))
    })
}

fn data_url(picture: impl Into<DynamicImage>) -> String {
    let mut bytes = Cursor::new(Vec::new());
    picture.into().write_to(&mut bytes, ImageFormat::Png).unwrap();
    format!("data:image/png;base64,{}", STANDARD.encode(bytes.get_ref()))
}

/// Two pictures of a call whose image is the photograph.
fn given(photograph: &RgbImage) -> Value {
    let inside = 1000..1900;
    let mask = GrayImage::from_fn(SIDE, SIDE, |x, y| {
        Luma([if inside.contains(&x) && inside.contains(&y) { 255 } else { 0 }])
    });
    let image = data_url(photograph.clone());
    assert!(image.len() / 4 * 3 > 24_000_000, "{}", image.len());
    arguments(&json!({"image": image, "mask": data_url(mask), "numSamples": 2}))
}

fn assert_painted(result: &Value, photograph: &RgbImage) {
    let made = pixels(result);
    assert_eq!(made.len(), 2);
    for picture in &made {
        assert_eq!(picture.dimensions(), (SIDE, SIDE));
        assert_eq!(picture.get_pixel(10, 10), photograph.get_pixel(10, 10));
        assert_ne!(picture.get_pixel(1450, 1450), photograph.get_pixel(1450, 1450));
    }
}

// The clients hold every reply to its size.

#[test]
fn a_photograph_of_24_megabytes_goes_in_over_http() {
    let dir = tempfile::tempdir().unwrap();
    let server = Http::start(dir.path());
    let photograph = photograph();
    let session = server.session("2025-11-25");
    let params = json!({"name": TOOL, "arguments": given(&photograph)});
    let told = server.request("2025-11-25", Some(&session), "tools/call", &params);
    assert_painted(&told.last().unwrap()["result"], &photograph);
}

#[test]
fn a_photograph_of_24_megabytes_goes_in_on_stdio() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path());
    let photograph = photograph();
    assert_painted(&server.call(&given(&photograph)), &photograph);
    assert!(server.finish().success());
}
