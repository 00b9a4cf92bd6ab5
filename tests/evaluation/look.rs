//! What is in a hole: measured from the pixels alone, by somebody who knows the background and the words' meanings but
//! nothing of how the picture was made.
//!
//! What differs from the true background, as one piece, is the object. Its colour is the median of its inside, named by
//! the nearest of the known colours. Its shape is the one whose outline, brought to the same centre and area, covers it
//! best, or covers best what has that colour in it.

use std::sync::OnceLock;

use image::RgbImage;

use crate::scene::COLOURS;
use crate::shapes::{Shape, coverage};

/// What was found in a hole.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Seen {
    /// Its place in [`COLOURS`].
    pub colour: usize,
    pub shape: Shape,
    /// Pixels of the object by those of the hole.
    pub share: f32,
    /// How well the shape covers the object: intersection by union.
    pub fit: f32,
}

/// Differences below this are never an object: the picture came through an autoencoder.
const LEAST: f32 = 14.0;
/// The side that shapes are compared at.
const SIDE: usize = 64;
/// The pixels of an object at that side.
const AREA: f32 = 900.0;

/// The object in the hole (row by row, true where it is), if there is one.
pub fn look(picture: &RgbImage, background: &RgbImage, hole: &[bool]) -> Option<Seen> {
    let size = picture.width() as usize;
    let here: Vec<[f32; 3]> = picture.pixels().map(|p| lab(p.0)).collect();
    let there: Vec<[f32; 3]> = background.pixels().map(|p| lab(p.0)).collect();
    let away: Vec<f32> =
        (0..hole.len()).map(|i| if hole[i] { distance(here[i], there[i], 1.0) } else { 0.0 }).collect();
    let hole_area = hole.iter().filter(|inside| **inside).count();
    let mut differing: Vec<f32> = away.iter().copied().filter(|d| *d > LEAST).collect();
    if differing.len() * 50 < hole_area {
        return None;
    }
    differing.sort_by(f32::total_cmp);
    let most = differing[differing.len() * 9 / 10];
    let threshold = (0.25 * most).clamp(LEAST, 28.0);
    let found: Vec<bool> = away.iter().map(|d| *d > threshold).collect();
    let reach = size.div_ceil(256);
    let object = largest(&grown(&shrunk(&found, size, reach), size, reach), size);
    let area = object.iter().filter(|inside| **inside).count();
    if area * 25 < hole_area || area < 30 {
        return None;
    }
    let colour = colour_of(&object, &away, &here, &there, size);
    // Where the background around the object was painted a little wrong, the object is what has one colour.
    let of_colour = |i: usize| object[i] && name_of(here[i]) == colour;
    let alike: Vec<bool> = (0..object.len()).map(of_colour).collect();
    let alike = largest(&shrunk(&grown(&alike, size, reach), size, reach), size);
    let clear = alike.iter().filter(|inside| **inside).count() * 3 > area;
    let whole = shape_of(&object, size);
    let own = if clear { shape_of(&alike, size) } else { whole };
    let (shape, fit) = if own.1 > whole.1 { own } else { whole };
    Some(Seen { colour, shape, share: area as f32 / hole_area as f32, fit })
}

/// The name of a colour, as its place in [`COLOURS`].
pub fn name_of(pixel: [f32; 3]) -> usize {
    let to = |i: usize| distance(pixel, lab(COLOURS[i].1), 0.6);
    (0..COLOURS.len()).min_by(|a, b| to(*a).total_cmp(&to(*b))).unwrap()
}

fn colour_of(object: &[bool], away: &[f32], here: &[[f32; 3]], there: &[[f32; 3]], size: usize) -> usize {
    let pixels = |inside: &[bool]| (0..inside.len()).filter(|i| inside[*i]).collect::<Vec<usize>>();
    let whole = pixels(object);
    let ground = median(whole.iter().map(|i| there[*i][0]));
    let chosen = if ground < 40.0 {
        // On the dark there is no outline to leave out, and a glow is strongest at the edge.
        let bright = quantile(whole.iter().map(|i| away[*i]), 0.7);
        whole.into_iter().filter(|i| away[*i] >= bright).collect()
    } else {
        let reach = (0.05 * (whole.len() as f32).sqrt()).round() as usize;
        let inside = pixels(&shrunk(object, size, reach));
        if inside.len() * 6 > whole.len() { inside } else { whole }
    };
    name_of(std::array::from_fn(|channel| median(chosen.iter().map(|i| here[*i][channel]))))
}

fn shape_of(object: &[bool], size: usize) -> (Shape, f32) {
    let own = normal(object, size);
    let (mut best, mut fit) = (Shape::Circle, 0.0);
    for (shape, template) in templates() {
        let (mut both, mut either) = (0, 0);
        for (a, b) in own.iter().zip(template) {
            both += usize::from(*a && *b);
            either += usize::from(*a || *b);
        }
        let covered = both as f32 / either.max(1) as f32;
        if covered > fit {
            (best, fit) = (*shape, covered);
        }
    }
    (best, fit)
}

/// Every shape at every small angle, brought to one centre and area.
fn templates() -> &'static [(Shape, Vec<bool>)] {
    static TEMPLATES: OnceLock<Vec<(Shape, Vec<bool>)>> = OnceLock::new();
    TEMPLATES.get_or_init(|| {
        let angles = (-3..=3).map(|step| step as f32 * 0.08);
        let of = |shape: Shape| {
            angles.clone().map(move |angle| {
                let cover = coverage(&shape.placed([128.0, 128.0], 100.0, angle), 256);
                let inside: Vec<bool> = cover.iter().map(|c| *c >= 0.5).collect();
                (shape, normal(&inside, 256))
            })
        };
        Shape::ALL.into_iter().flat_map(of).collect()
    })
}

/// An object at [`SIDE`], its centre of mass in the middle, [`AREA`] pixels large.
fn normal(object: &[bool], size: usize) -> Vec<bool> {
    let (mut area, mut x, mut y) = (0.0f32, 0.0f64, 0.0f64);
    for i in (0..object.len()).filter(|i| object[*i]) {
        area += 1.0;
        x += (i % size) as f64;
        y += (i / size) as f64;
    }
    let (x, y) = ((x / f64::from(area)) as f32, (y / f64::from(area)) as f32);
    let scale = (area / AREA).sqrt();
    let at = |i: usize, centre: f32| (centre + (i as f32 + 0.5 - SIDE as f32 / 2.0) * scale).round();
    let inside = |x: f32, y: f32| {
        let within = (0.0..size as f32).contains(&x) && (0.0..size as f32).contains(&y);
        within && object[y as usize * size + x as usize]
    };
    (0..SIDE * SIDE).map(|i| inside(at(i % SIDE, x), at(i / SIDE, y))).collect()
}

/// True where the whole square of `2 reach + 1` pixels is.
fn shrunk(mask: &[bool], size: usize, reach: usize) -> Vec<bool> {
    grown(&mask.iter().map(|inside| !inside).collect::<Vec<_>>(), size, reach)
        .into_iter()
        .map(|out| !out)
        .collect()
}

/// True where some pixel of the square of `2 reach + 1` pixels is.
fn grown(mask: &[bool], size: usize, reach: usize) -> Vec<bool> {
    let along = |mask: &[bool], step: usize, stride: usize| -> Vec<bool> {
        let mut out = vec![false; mask.len()];
        for line in 0..size {
            for i in (0..size).filter(|i| mask[line * stride + i * step]) {
                for j in i.saturating_sub(reach)..(i + reach + 1).min(size) {
                    out[line * stride + j * step] = true;
                }
            }
        }
        out
    };
    along(&along(mask, 1, size), size, 1)
}

/// The largest piece that hangs together, corners included.
fn largest(mask: &[bool], size: usize) -> Vec<bool> {
    let mut seen = vec![false; mask.len()];
    let mut best: Vec<usize> = Vec::new();
    for start in 0..mask.len() {
        if !mask[start] || seen[start] {
            continue;
        }
        let mut piece = vec![start];
        seen[start] = true;
        let mut next = 0;
        while let Some(&at) = piece.get(next) {
            next += 1;
            let (x, y) = (at % size, at / size);
            for ny in y.saturating_sub(1)..(y + 2).min(size) {
                for nx in x.saturating_sub(1)..(x + 2).min(size) {
                    let neighbour = ny * size + nx;
                    if mask[neighbour] && !seen[neighbour] {
                        seen[neighbour] = true;
                        piece.push(neighbour);
                    }
                }
            }
        }
        if piece.len() > best.len() {
            best = piece;
        }
    }
    let mut out = vec![false; mask.len()];
    best.into_iter().for_each(|i| out[i] = true);
    out
}

fn median(values: impl Iterator<Item = f32>) -> f32 {
    quantile(values, 0.5)
}

/// The value that this share of the others lies below.
fn quantile(values: impl Iterator<Item = f32>, share: f32) -> f32 {
    let mut values: Vec<f32> = values.collect();
    values.sort_by(f32::total_cmp);
    values.get((values.len() as f32 * share) as usize).copied().unwrap_or(0.0)
}

/// CIE76 with lightness weighed.
fn distance(a: [f32; 3], b: [f32; 3], lightness: f32) -> f32 {
    let d: [f32; 3] = std::array::from_fn(|i| a[i] - b[i]);
    ((lightness * d[0]).powi(2) + d[1] * d[1] + d[2] * d[2]).sqrt()
}

/// CIE L*a*b* of sRGB, white point D65.
pub fn lab(rgb: [u8; 3]) -> [f32; 3] {
    let linear = rgb.map(|v| {
        let v = f32::from(v) / 255.0;
        if v <= 0.04045 { v / 12.92 } else { ((v + 0.055) / 1.055).powf(2.4) }
    });
    let row = |w: [f32; 3], white: f32| {
        let t = (w[0] * linear[0] + w[1] * linear[1] + w[2] * linear[2]) / white;
        if t > 0.008856 { t.cbrt() } else { 7.787 * t + 16.0 / 116.0 }
    };
    let x = row([0.4124, 0.3576, 0.1805], 0.9505);
    let y = row([0.2126, 0.7152, 0.0722], 1.0);
    let z = row([0.0193, 0.1192, 0.9505], 1.089);
    [116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)]
}
