//! Outside the mask the picture is the input's own, bit for bit, whatever the input's mode.

use std::io::BufWriter;

use image::{DynamicImage, GenericImageView};

use crate::harness::{Place, fixture, model};

const WIDTH: u32 = 70;
const HEIGHT: u32 = 66;

fn noisy(x: u32, y: u32, channel: u32) -> u16 {
    // Any values that differ from pixel to pixel and use all 16 bits.
    (x * 7919 + y * 104_729 + channel * 1_299_709).wrapping_mul(2_654_435_761).to_be_bytes()[..2]
        .iter()
        .fold(0, |value, &byte| value << 8 | u16::from(byte))
}

/// The test picture in this mode, as a PNG.
fn save(place: &Place, color: png::ColorType, depth: png::BitDepth) {
    let file = BufWriter::new(std::fs::File::create(place.path("in.png")).unwrap());
    let mut encoder = png::Encoder::new(file, WIDTH, HEIGHT);
    encoder.set_color(color);
    encoder.set_depth(depth);
    let channels = match color {
        png::ColorType::Indexed => {
            encoder.set_palette((0..3 * 16).map(|i| (i * 5) as u8).collect::<Vec<u8>>());
            encoder.set_trns((0..16).map(|i| 255 - i * 3).collect::<Vec<u8>>());
            1
        }
        other => other.samples() as u32,
    };
    let mut data = Vec::new();
    for y in 0..HEIGHT {
        match depth {
            png::BitDepth::One => data.extend((0..WIDTH.div_ceil(8)).map(|x| noisy(x, y, 0) as u8)),
            png::BitDepth::Four => data.extend((0..WIDTH.div_ceil(2)).map(|x| noisy(x, y, 0) as u8)),
            _ => {
                for value in (0..WIDTH).flat_map(|x| (0..channels).map(move |c| noisy(x, y, c))) {
                    match depth {
                        png::BitDepth::Sixteen => data.extend(value.to_be_bytes()),
                        _ => data.push(value as u8),
                    }
                }
            }
        }
    }
    encoder.write_header().unwrap().write_image_data(&data).unwrap();
}

/// White from (20,16) to (51,47).
fn is_hole(x: u32, y: u32) -> bool {
    (20..52).contains(&x) && (16..48).contains(&y)
}

fn save_mask(place: &Place) {
    let mask =
        image::GrayImage::from_fn(WIDTH, HEIGHT, |x, y| image::Luma([if is_hole(x, y) { 255 } else { 0 }]));
    mask.save(place.path("mask.png")).unwrap();
}

/// How many pixels differ outside the hole, and inside, compared in 16 bits per channel.
fn differences(a: &DynamicImage, b: &DynamicImage) -> (usize, usize) {
    assert_eq!(a.dimensions(), b.dimensions());
    let (a, b) = (a.to_rgba16(), b.to_rgba16());
    let differing = a.enumerate_pixels().filter(|&(x, y, pixel)| pixel != b.get_pixel(x, y));
    let (inside, outside): (Vec<_>, Vec<_>) = differing.partition(|&(x, y, _)| is_hole(x, y));
    (outside.len(), inside.len())
}

#[track_caller]
fn keeps_what_is_outside(color: png::ColorType, depth: png::BitDepth) {
    let place = Place::new();
    save(&place, color, depth);
    save_mask(&place);
    let model = model("tiny-sd15-inpaint");
    let args =
        ["inpaint", "in.png", "--mask", "mask.png", "--prompt", "x", "--model", &model, "--out", "out.png"];
    let small = ["--device", "cpu", "--seed", "1", "--steps", "2", "--strength", "1"];
    place.infill(&[&args[..], &small[..]].concat()).succeeded();
    let (outside, inside) = differences(&place.picture("in.png"), &place.picture("out.png"));
    assert_eq!(outside, 0, "of {} pixels", WIDTH * HEIGHT - 32 * 32);
    assert!(inside > 32 * 32 / 2, "only {inside} pixels were painted");
}

#[test]
fn rgb() {
    keeps_what_is_outside(png::ColorType::Rgb, png::BitDepth::Eight);
}

#[test]
fn rgba() {
    keeps_what_is_outside(png::ColorType::Rgba, png::BitDepth::Eight);
}

#[test]
fn grey() {
    keeps_what_is_outside(png::ColorType::Grayscale, png::BitDepth::Eight);
}

#[test]
fn grey_of_one_bit() {
    keeps_what_is_outside(png::ColorType::Grayscale, png::BitDepth::One);
}

#[test]
fn grey_with_alpha() {
    keeps_what_is_outside(png::ColorType::GrayscaleAlpha, png::BitDepth::Eight);
}

#[test]
fn palette_with_alpha() {
    keeps_what_is_outside(png::ColorType::Indexed, png::BitDepth::Four);
}

#[test]
fn grey_of_16_bits() {
    keeps_what_is_outside(png::ColorType::Grayscale, png::BitDepth::Sixteen);
}

#[test]
fn grey_with_alpha_of_16_bits() {
    keeps_what_is_outside(png::ColorType::GrayscaleAlpha, png::BitDepth::Sixteen);
}

#[test]
fn rgb_of_16_bits() {
    keeps_what_is_outside(png::ColorType::Rgb, png::BitDepth::Sixteen);
}

#[test]
fn rgba_of_16_bits() {
    keeps_what_is_outside(png::ColorType::Rgba, png::BitDepth::Sixteen);
}

#[test]
fn a_photograph_as_jpeg() {
    let place = Place::new();
    let (photo, mask) = (fixture("images/rocket.jpg"), fixture("images/rocket-mask.png"));
    let args = ["inpaint", &photo, "--mask", &mask, "--prompt", "x", "--model", &model("tiny-sd15-inpaint")];
    let small = [
        "--device", "cpu", "--seed", "1", "--steps", "2", "--width", "64", "--height", "64", "--out",
        "out.png",
    ];
    place.infill(&[&args[..], &small[..]].concat()).succeeded();
    let (before, after) = (image::open(photo).unwrap().to_rgb8(), place.picture("out.png").to_rgb8());
    let mask = image::open(mask).unwrap().to_luma8();
    let (mut kept, mut painted) = (0, 0);
    for (x, y, pixel) in before.enumerate_pixels() {
        let same = pixel == after.get_pixel(x, y);
        match mask.get_pixel(x, y).0[0] {
            0 => {
                assert!(same, "pixel {x},{y} changed");
                kept += 1;
            }
            _ => painted += usize::from(!same),
        }
    }
    assert!(kept > 100_000 && painted > 1000, "{kept} kept, {painted} painted");
}

#[test]
fn without_merging_the_whole_picture_is_the_model_s() {
    let place = Place::new();
    save(&place, png::ColorType::Rgb, png::BitDepth::Eight);
    save_mask(&place);
    let model = model("tiny-sd15-inpaint");
    let args =
        ["inpaint", "in.png", "--mask", "mask.png", "--prompt", "x", "--model", &model, "--out", "out.png"];
    place.infill(&[&args[..], &["--device", "cpu", "--steps", "2", "--no-merge"]].concat()).succeeded();
    let out = place.picture("out.png");
    assert_eq!((out.width() % 8, out.height() % 8), (0, 0));
}

#[test]
fn a_feather_changes_nothing_beyond_its_width() {
    let place = Place::new();
    save(&place, png::ColorType::Rgb, png::BitDepth::Eight);
    save_mask(&place);
    let model = model("tiny-sd15-inpaint");
    let args =
        ["inpaint", "in.png", "--mask", "mask.png", "--prompt", "x", "--model", &model, "--out", "out.png"];
    place.infill(&[&args[..], &["--device", "cpu", "--steps", "2", "--feather", "6"]].concat()).succeeded();
    let (before, after) = (place.picture("in.png").to_rgb8(), place.picture("out.png").to_rgb8());
    let mut in_the_feather = 0;
    for (x, y, pixel) in before.enumerate_pixels().filter(|&(x, y, _)| !is_hole(x, y)) {
        let near = (14..58).contains(&x) && (10..54).contains(&y);
        let changed = pixel != after.get_pixel(x, y);
        assert!(near || !changed, "pixel {x},{y} changed");
        in_the_feather += usize::from(changed);
    }
    assert!(in_the_feather > 0, "the feather is not there");
}
