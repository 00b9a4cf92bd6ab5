//! Painted colours brought to those around the hole, so that no seam is seen.
//!
//! VAE and network paint in slightly other colours than the original has, even what they are to keep. Two things tell by how
//! much: kept pixels, of which both pictures have the same thing, and pixels just inside the mask, which are compared with the
//! original across the edge, unless what is painted there is so different that it is something else. The difference along the
//! edge is continued into the mask by the smoothest function there is, the solution of Laplace's equation, and added to what
//! was painted: a tone or a drift of colours goes, what was painted stays. (P. Pérez, M. Gangnet, A. Blake: Poisson Image
//! Editing, 2003, equation 5, where the difference is taken at the edge pixel by pixel; the averages and the limits are ours.)
//!
//! All of it happens at the size of the work picture, or at a half or a quarter of it where that is large: a tone is coarse.

use image::{GrayImage, Luma, RgbImage};

use super::merge::reach;
use crate::geometry::{Plan, Rect};
use crate::image::{Filter, Picture, crop_resize_fill, to_work};
use crate::mask::{BinaryMask, Mask};

/// The standard deviation of the average along the edge: half a latent pixel, in pixels of the work picture.
const DEVIATION: f64 = 4.0;
/// How far inside the mask pixels are compared across its edge, in deviations.
const DEPTH: f64 = 1.5;
/// What is looked at around the mask, in pixels of the work picture: three latent pixels.
const AROUND: u32 = 24;
/// Pixels of the work picture that a latent pixel stands for.
const LATENT: u32 = 8;
/// The longest side that is worked on pixel by pixel.
const FINE: u32 = 1024;
/// What a kept pixel says, by what one at the edge says.
const KEPT: f32 = 0.05;
/// A pixel at the edge that is so far, of 255, from the tone of the kept ones says a third; one at twice that nothing.
const ALIKE: f32 = 16.0;
/// The most that an error of tone can be, of 255. Above lies what was painted anew.
const LIMIT: f32 = 32.0;
/// An average of pixels that say less than this together is none.
const SAID: f32 = 1e-3;
/// W-cycles; of the error that each starts from it leaves a fifth at most, and commonly a hundredth.
const CYCLES: usize = 4;

/// What is to be added to a painted picture.
pub(super) struct Correction {
    field: Field,
    /// Its place in the work picture.
    region: Rect,
    /// Pixels of the work picture, along each axis, that one of its points stands for.
    factor: u32,
}

impl Correction {
    /// Measures `painted`, a work picture; nothing where too little is kept to tell.
    pub(super) fn new(original: &Picture, painted: &RgbImage, mask: &Mask, plan: &Plan) -> Option<Self> {
        let mask = mask.to_work(plan);
        let region = aligned(reach(&mask, Rect::whole(plan.work), AROUND), plan);
        let side = region.width.max(region.height);
        let factor = if side <= FINE {
            1
        } else if side <= 2 * FINE {
            2
        } else {
            4
        };
        let edge = Edge::new(original, painted, &mask, plan, region, factor);
        let mut field = edge.difference((DEVIATION / f64::from(factor)).max(1.0))?;
        field.continue_smoothly();
        Some(Self { field, region, factor })
    }

    /// Adds it to `inner`, the painted picture at the size of the plan's crop, within a part of the picture.
    pub(super) fn add_to(&self, inner: &mut RgbImage, within: Rect, plan: &Plan) {
        let Plan { crop, placement, .. } = *plan;
        // From the middle of a pixel of the picture to points of the field.
        let point = |at: u32, scale: f64, placed: u32, start: u32| {
            ((f64::from(at) + 0.5) * scale + f64::from(placed) - f64::from(start)) / f64::from(self.factor)
                - 0.5
        };
        let across = f64::from(placement.width) / f64::from(crop.width);
        let down = f64::from(placement.height) / f64::from(crop.height);
        for y in within.y - crop.y..within.y - crop.y + within.height {
            for x in within.x - crop.x..within.x - crop.x + within.width {
                let change = self.field.at(
                    point(x, across, placement.x, self.region.x),
                    point(y, down, placement.y, self.region.y),
                );
                for (value, change) in inner.get_pixel_mut(x, y).0.iter_mut().zip(change) {
                    *value = (f32::from(*value) + change).round() as u8;
                }
            }
        }
    }
}

/// The region grown to whole latent pixels.
fn aligned(region: Rect, plan: &Plan) -> Rect {
    let (left, top) = (region.x / LATENT * LATENT, region.y / LATENT * LATENT);
    let right = (region.x + region.width).next_multiple_of(LATENT).min(plan.work.width);
    let bottom = (region.y + region.height).next_multiple_of(LATENT).min(plan.work.height);
    Rect { x: left, y: top, width: right - left, height: bottom - top }
}

/// Both pictures around the mask, at the size that the correction has.
struct Edge {
    width: usize,
    height: usize,
    original: Vec<[f32; 3]>,
    painted: Vec<[f32; 3]>,
    /// Whether a point is the original's in the end, and can be seen.
    visible: Vec<bool>,
    /// Whether it is visible and its latent pixel was kept too: both pictures have the same thing there.
    kept: Vec<bool>,
}

impl Edge {
    fn new(
        original: &Picture,
        painted: &RgbImage,
        mask: &BinaryMask,
        plan: &Plan,
        region: Rect,
        factor: u32,
    ) -> Self {
        let seen = original.pixels().color().has_alpha().then(|| {
            let opaque = original.pixels().to_rgba8();
            let alpha = GrayImage::from_fn(opaque.width(), opaque.height(), |x, y| {
                Luma([255 * u8::from(opaque.get_pixel(x, y).0[3] == 255)])
            });
            crop_resize_fill(&alpha, plan, Filter::Lanczos)
        });
        let original = to_work(&original.to_rgb8(), plan);
        let repaint = |x: u32, y: u32| mask.repaint()[(y * plan.work.width + x) as usize];
        let is_visible = |x: u32, y: u32| {
            let placed = x.checked_sub(plan.placement.x).is_some_and(|x| x < plan.placement.width)
                && y.checked_sub(plan.placement.y).is_some_and(|y| y < plan.placement.height);
            placed && !repaint(x, y) && seen.as_ref().is_none_or(|seen| seen.get_pixel(x, y).0[0] >= 128)
        };
        let mut edge = Self {
            width: (region.width / factor) as usize,
            height: (region.height / factor) as usize,
            original: Vec::new(),
            painted: Vec::new(),
            visible: Vec::new(),
            kept: Vec::new(),
        };
        for top in (region.y..region.y + region.height).step_by(factor as usize) {
            for left in (region.x..region.x + region.width).step_by(factor as usize) {
                let pixels = || (top..top + factor).flat_map(|y| (left..left + factor).map(move |x| (x, y)));
                let mean = |picture: &RgbImage| {
                    let sum = |i: usize| {
                        pixels().map(|(x, y)| f32::from(picture.get_pixel(x, y).0[i])).sum::<f32>()
                    };
                    [0, 1, 2].map(|i| sum(i) / (factor * factor) as f32)
                };
                let visible = pixels().all(|(x, y)| is_visible(x, y));
                edge.original.push(mean(&original));
                edge.painted.push(mean(painted));
                edge.visible.push(visible);
                // The mask of the latents has the upper left pixel of each.
                edge.kept.push(visible && !repaint(left / LATENT * LATENT, top / LATENT * LATENT));
            }
        }
        edge
    }

    /// The original minus the painted picture, averaged along the mask's edge and known where the original is visible; nothing
    /// where no latent pixel was kept.
    fn difference(&self, deviation: f64) -> Option<Field> {
        let count = self.kept.len();
        let error =
            |at: usize| [0, 1, 2].map(|i| (self.original[at][i] - self.painted[at][i]).clamp(-LIMIT, LIMIT));
        let share = |at: usize| f32::from(u8::from(self.kept[at]));
        let mut tone = self.field((0..count).map(error), (0..count).map(share));
        tone.average(deviation);

        let mut both = self.field((0..count).map(error), (0..count).map(|at| KEPT * share(at)));
        let farthest = (DEPTH * deviation).powi(2);
        for (at, nearest) in self.nearest_visible().into_iter().enumerate() {
            let Some(nearest) = nearest.filter(|_| !self.kept[at]) else { continue };
            if self.square(at, nearest) as f64 > farthest {
                continue;
            }
            let across = self.mirrored(at, nearest).unwrap_or(nearest);
            let step = [0, 1, 2].map(|i| self.original[across][i] - self.painted[at][i]);
            let strange = (0..3).map(|i| (step[i] - tone.values[nearest][i]).abs()).fold(0.0, f32::max);
            both.values[at] = step.map(|value| value.clamp(-LIMIT, LIMIT));
            both.weights[at] = (-(strange / ALIKE).powi(2)).exp();
        }
        both.average(deviation);
        for (weight, visible) in both.weights.iter_mut().zip(&self.visible) {
            *weight = f32::from(u8::from(*visible && *weight > SAID));
        }
        (self.kept.contains(&true) && both.weights.contains(&1.0)).then_some(both)
    }

    fn field(&self, values: impl Iterator<Item = [f32; 3]>, weights: impl Iterator<Item = f32>) -> Field {
        Field { width: self.width, height: self.height, values: values.collect(), weights: weights.collect() }
    }

    /// The square of the distance between two points.
    fn square(&self, at: usize, other: usize) -> usize {
        (at % self.width).abs_diff(other % self.width).pow(2)
            + (at / self.width).abs_diff(other / self.width).pow(2)
    }

    /// The point as far outside of the mask as `at` is inside, seen from the visible one nearest to it; none where that is not
    /// visible.
    fn mirrored(&self, at: usize, nearest: usize) -> Option<usize> {
        let one = |at: usize, nearest: usize, count: usize| {
            (2 * nearest).checked_sub(at).filter(|mirrored| *mirrored < count)
        };
        let x = one(at % self.width, nearest % self.width, self.width)?;
        let y = one(at / self.width, nearest / self.width, self.height)?;
        Some(y * self.width + x).filter(|mirrored| self.visible[*mirrored])
    }

    /// The visible point nearest to each, handed on from neighbour to neighbour, first downwards, then upwards.
    /// (P.-E. Danielsson: Euclidean Distance Mapping, 1980)
    fn nearest_visible(&self) -> Vec<Option<usize>> {
        let (width, height) = (self.width, self.height);
        let mut nearest: Vec<Option<usize>> =
            self.visible.iter().enumerate().map(|(at, visible)| visible.then_some(at)).collect();
        let mut hand_on = |from: Option<usize>, at: usize| {
            let handed = from.and_then(|from| nearest[from]);
            if let Some(other) = handed
                && nearest[at].is_none_or(|own| self.square(at, other) < self.square(at, own))
            {
                nearest[at] = Some(other);
            }
        };
        let rows = (0..height).map(|y| (y, y.checked_sub(1)));
        let back = (0..height).rev().map(|y| (y, (y + 1 < height).then_some(y + 1)));
        for (y, before) in rows.chain(back) {
            for x in 0..width {
                let at = y * width + x;
                let row = before.map(|before| before * width);
                hand_on(row.map(|row| row + x), at);
                hand_on(row.filter(|_| x > 0).map(|row| row + x - 1), at);
                hand_on(row.filter(|_| x + 1 < width).map(|row| row + x + 1), at);
                hand_on((x > 0).then(|| at - 1), at);
            }
            for x in (1..width).rev() {
                hand_on(Some(y * width + x), y * width + x - 1);
            }
        }
        nearest
    }
}

/// Three values at each point of a grid, of which some are known.
struct Field {
    width: usize,
    height: usize,
    values: Vec<[f32; 3]>,
    /// How much a value is worth; 0 where it isn't known.
    weights: Vec<f32>,
}

impl Field {
    /// Replaces each value by the average of the known ones around it, as a Gaussian weighs them, and each weight by the sum of
    /// theirs; a value of which nothing is known is 0.
    fn average(&mut self, deviation: f64) {
        let reach = (3.0 * deviation).ceil() as usize;
        let kernel: Vec<f32> =
            (0..=reach).map(|i| (-0.5 * (i as f64 / deviation).powi(2)).exp() as f32).collect();
        // Values times weights, and the weights, blurred along rows and then along columns.
        let mut sums: Vec<[f32; 4]> = self
            .values
            .iter()
            .zip(&self.weights)
            .map(|(value, weight)| [value[0] * weight, value[1] * weight, value[2] * weight, *weight])
            .collect();
        for (count, stride, lines, between) in
            [(self.width, 1, self.height, self.width), (self.height, self.width, self.width, 1)]
        {
            let mut line = vec![[0.0; 4]; count];
            for start in (0..lines).map(|number| number * between) {
                for (position, sum) in line.iter_mut().enumerate() {
                    *sum = [0.0; 4];
                    for other in position.saturating_sub(reach)..(position + reach + 1).min(count) {
                        let share = kernel[position.abs_diff(other)];
                        let value = sums[start + other * stride];
                        (0..4).for_each(|i| sum[i] += share * value[i]);
                    }
                }
                line.iter().enumerate().for_each(|(position, sum)| sums[start + position * stride] = *sum);
            }
        }
        for ((value, weight), sum) in self.values.iter_mut().zip(&mut self.weights).zip(&sums) {
            *value = if sum[3] > 0.0 { [0, 1, 2].map(|i| sum[i] / sum[3]) } else { [0.0; 3] };
            *weight = sum[3];
        }
    }

    /// The value at a place between points, linear; beyond the outermost points theirs.
    fn at(&self, x: f64, y: f64) -> [f32; 3] {
        let split = |place: f64, count: usize| {
            let place = place.clamp(0.0, (count - 1) as f64);
            let first = (place as usize).min(count - 1);
            (first, (first + 1).min(count - 1), (place - first as f64) as f32)
        };
        let ((left, right, across), (top, bottom, down)) = (split(x, self.width), split(y, self.height));
        let value = |x: usize, y: usize| self.values[y * self.width + x];
        let mix = |a: [f32; 3], b: [f32; 3], share: f32| [0, 1, 2].map(|i| a[i] + (b[i] - a[i]) * share);
        mix(
            mix(value(left, top), value(right, top), across),
            mix(value(left, bottom), value(right, bottom), across),
            down,
        )
    }

    /// Continues the known values over the unknown ones, by Laplace's equation.
    fn continue_smoothly(&mut self) {
        self.guess();
        let mut grid = Grid {
            width: self.width,
            height: self.height,
            open: self.weights.iter().map(|weight| *weight == 0.0).collect(),
            sources: vec![[0.0; 3]; self.values.len()],
            values: std::mem::take(&mut self.values),
        };
        (0..CYCLES).for_each(|_| grid.cycle());
        self.values = grid.values;
    }

    /// Fills in unknown values from ever coarser grids.
    fn guess(&mut self) {
        if self.weights.iter().all(|weight| *weight > 0.0) || self.values.len() == 1 {
            return;
        }
        let (width, height) = (self.width.div_ceil(2), self.height.div_ceil(2));
        let count = width * height;
        let mut coarse = Self { width, height, values: vec![[0.0; 3]; count], weights: vec![0.0; count] };
        for (at, (value, weight)) in self.values.iter().zip(&self.weights).enumerate() {
            if *weight > 0.0 {
                let above = above(at, self.width);
                (0..3).for_each(|i| coarse.values[above][i] += value[i]);
                coarse.weights[above] += 1.0;
            }
        }
        for (value, weight) in coarse.values.iter_mut().zip(&coarse.weights).filter(|(_, w)| **w > 0.0) {
            value.iter_mut().for_each(|value| *value /= weight);
        }
        coarse.guess();
        for (at, value) in self.values.iter_mut().enumerate().filter(|(at, _)| self.weights[*at] == 0.0) {
            *value = between(&coarse.values, width, height, at % self.width, at / self.width);
        }
    }
}

/// Poisson's equation on a grid: every open value is the mean of its neighbours plus a source; the others stay as they are.
struct Grid {
    width: usize,
    height: usize,
    values: Vec<[f32; 3]>,
    sources: Vec<[f32; 3]>,
    open: Vec<bool>,
}

impl Grid {
    /// One W-cycle of multigrid: what is still wrong after a few passes is smooth, so it is found on a grid of half the width
    /// and height, in two cycles since that grid's edge lies a little off.
    /// (A. Brandt: Multi-Level Adaptive Solutions to Boundary-Value Problems, 1977)
    fn cycle(&mut self) {
        self.pass();
        if self.width.max(self.height) > 2 {
            let mut coarse = self.of_what_is_wrong();
            coarse.cycle();
            coarse.cycle();
            for at in (0..self.values.len()).filter(|at| self.open[*at]) {
                let (x, y) = (at % self.width, at / self.width);
                let change = between(&coarse.values, coarse.width, coarse.height, x, y);
                (0..3).for_each(|i| self.values[at][i] += change[i]);
            }
        }
        self.pass();
    }

    /// Two passes over the open values, each in the order of a chessboard's colours.
    fn pass(&mut self) {
        for colour in [0, 1, 0, 1] {
            for y in 0..self.height {
                for x in ((y + colour) % 2..self.width).step_by(2) {
                    let at = y * self.width + x;
                    if self.open[at] {
                        let mean = self.mean_of_neighbours(at);
                        self.values[at] = [0, 1, 2].map(|i| mean[i] + self.sources[at][i]);
                    }
                }
            }
        }
    }

    /// The equation of the error of the values, at half the width and height: open where all four points are.
    fn of_what_is_wrong(&self) -> Self {
        let (width, height) = (self.width.div_ceil(2), self.height.div_ceil(2));
        let count = width * height;
        let (mut sources, mut open, mut parts) =
            (vec![[0.0; 3]; count], vec![true; count], vec![0.0_f32; count]);
        for at in 0..self.values.len() {
            let above = above(at, self.width);
            parts[above] += 1.0;
            if self.open[at] {
                let mean = self.mean_of_neighbours(at);
                (0..3).for_each(|i| sources[above][i] += mean[i] + self.sources[at][i] - self.values[at][i]);
            } else {
                open[above] = false;
            }
        }
        // The mean, times four: neighbours are twice as far apart.
        for (source, parts) in sources.iter_mut().zip(parts) {
            source.iter_mut().for_each(|value| *value *= 4.0 / parts);
        }
        Self { width, height, values: vec![[0.0; 3]; count], sources, open }
    }

    /// The mean of the two to four values around a point; of a grid of one point, its own.
    fn mean_of_neighbours(&self, at: usize) -> [f32; 3] {
        let (x, y) = (at % self.width, at / self.width);
        let around = [
            (x > 0).then(|| at - 1),
            (x + 1 < self.width).then(|| at + 1),
            (y > 0).then(|| at - self.width),
            (y + 1 < self.height).then(|| at + self.width),
        ];
        let (mut sum, mut count) = ([0.0; 3], 0.0_f32);
        for neighbour in around.into_iter().flatten() {
            (0..3).for_each(|i| sum[i] += self.values[neighbour][i]);
            count += 1.0;
        }
        if count == 0.0 { self.values[at] } else { sum.map(|value| value / count) }
    }
}

/// The point of a grid of half the size that stands for `at`, of a grid this wide.
fn above(at: usize, width: usize) -> usize {
    (at / width / 2) * width.div_ceil(2) + at % width / 2
}

/// The value at point (x, y) of a grid of twice the size, linear between the four points around it: three quarters along each
/// axis come from the point that stands for it, one from the next on the same side.
fn between(values: &[[f32; 3]], width: usize, height: usize, x: usize, y: usize) -> [f32; 3] {
    let next = |at: usize, count: usize| {
        if at.is_multiple_of(2) { (at / 2).saturating_sub(1) } else { (at / 2 + 1).min(count - 1) }
    };
    let (beside, below) = (next(x, width), next(y, height));
    let value = |x: usize, y: usize| values[y * width + x];
    let (own, right, down, far) =
        (value(x / 2, y / 2), value(beside, y / 2), value(x / 2, below), value(beside, below));
    [0, 1, 2].map(|i| (9.0 * own[i] + 3.0 * (right[i] + down[i]) + far[i]) / 16.0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use image::Rgb;

    use super::*;
    use crate::geometry::Size;
    use crate::pipeline::merge::merge;

    const SIDE: u32 = 96;

    /// A picture with some texture.
    fn texture(x: u32, y: u32) -> [u8; 3] {
        let noise = |seed: u32| ((x * 7 + y * 13 + seed) ^ (x * y)) % 11;
        [90 + noise(1) as u8, 120 + noise(5) as u8, 70 + (x / 4) as u8]
    }

    fn disc(x: u32, y: u32) -> bool {
        x.abs_diff(44).pow(2) + y.abs_diff(50).pow(2) < 24 * 24
    }

    /// What is merged where the model paints the original with an error, into a hole in a picture of the same content.
    fn merged(
        error: impl Fn(u32, u32) -> f64,
        hole: impl Fn(u32, u32) -> bool,
        matched: bool,
    ) -> (RgbImage, RgbImage) {
        let original = RgbImage::from_fn(SIDE, SIDE, |x, y| Rgb(texture(x, y)));
        let painted = RgbImage::from_fn(SIDE, SIDE, |x, y| {
            Rgb(texture(x, y).map(|value| (f64::from(value) + error(x, y)).round() as u8))
        });
        let mask =
            Mask::from_luma8(GrayImage::from_fn(SIDE, SIDE, |x, y| Luma([255 * u8::from(hole(x, y))])));
        let plan = Plan::whole(Size { width: SIDE, height: SIDE }, None, None).unwrap();
        let out = merge(&Picture::from_rgb8(original.clone()), &painted, &mask, &plan, 0, matched).unwrap();
        (original, out.to_rgb8())
    }

    fn largest_difference(a: &RgbImage, b: &RgbImage) -> u8 {
        a.as_raw().iter().zip(b.as_raw()).map(|(a, b)| a.abs_diff(*b)).max().unwrap()
    }

    #[test]
    fn a_tone_goes() {
        let (original, plain) = merged(|_, _| 9.0, disc, false);
        assert_eq!(largest_difference(&original, &plain), 9);
        let (original, matched) = merged(|_, _| 9.0, disc, true);
        assert!(largest_difference(&original, &matched) <= 2, "{}", largest_difference(&original, &matched));
    }

    #[test]
    fn a_step_at_the_edge_goes() {
        let step = |x: u32, y: u32| if disc(x, y) || disc(x / 8 * 8, y / 8 * 8) { 9.0 } else { 0.0 };
        let (original, matched) = merged(step, disc, true);
        assert!(largest_difference(&original, &matched) <= 3, "{}", largest_difference(&original, &matched));
    }

    #[test]
    fn an_object_that_touches_the_edge_stays() {
        let object = |x: u32, y: u32| if disc(x, y) && y < 50 { 80.0 } else { 0.0 };
        let (original, matched) = merged(object, disc, true);
        for (x, y) in [(44, 30), (30, 40), (44, 70)] {
            let change = f64::from(matched.get_pixel(x, y).0[0]) - f64::from(original.get_pixel(x, y).0[0]);
            assert!((change - object(x, y)).abs() <= 3.0, "{x} {y}: {change}");
        }
    }

    #[test]
    fn a_drift_goes() {
        let drift = |x: u32, y: u32| 0.2 * f64::from(x) - 0.1 * f64::from(y);
        let (original, matched) = merged(drift, disc, true);
        assert!(largest_difference(&original, &matched) <= 3, "{}", largest_difference(&original, &matched));
        let (original, plain) = merged(drift, disc, false);
        assert!(largest_difference(&original, &plain) >= 8);
    }

    #[test]
    fn what_is_painted_stays() {
        let painted = |x: u32, y: u32| if x.abs_diff(44).max(y.abs_diff(50)) < 8 { 100.0 } else { 5.0 };
        let (original, matched) = merged(painted, disc, true);
        let at = |image: &RgbImage, x, y| image.get_pixel(x, y).0;
        assert_eq!(at(&matched, 44, 50).map(|v| v - 95), at(&original, 44, 50));
        assert_eq!(at(&matched, 44, 40), at(&original, 44, 40));
    }

    #[test]
    fn no_correction_is_larger_than_the_limit() {
        let beside = |x: u32, y: u32| if disc(x, y) { 0.0 } else { 120.0 };
        let (original, matched) = merged(beside, disc, true);
        assert!(largest_difference(&original, &matched) <= LIMIT as u8);
    }

    /// The latent pixel of a black speck was painted too: what is there now says nothing of the tone.
    #[test]
    fn a_speck_that_no_latent_sees_tells_nothing() {
        let all_but_one = |x, y| (x, y) != (3, 3);
        let (_, plain) = merged(|_, _| 9.0, all_but_one, false);
        let (_, matched) = merged(|_, _| 9.0, all_but_one, true);
        assert!(plain == matched);
    }

    /// At half and a quarter of the work size, and where the picture has another size than the work picture.
    #[test]
    fn a_tone_goes_at_every_size() {
        for (side, work) in [(1400, 1400), (2400, 2400), (200, 96), (96, 200)] {
            let hole = |at: u32| at > side / 8 && at < side - side / 8;
            let mask = GrayImage::from_fn(side, side, |x, y| Luma([255 * u8::from(hole(x) && hole(y))]));
            let original = Picture::from_rgb8(RgbImage::from_pixel(side, side, Rgb([100, 120, 140])));
            let painted = RgbImage::from_pixel(work, work, Rgb([107, 111, 140]));
            let size = Size { width: side, height: side };
            let plan = Plan::whole(size, Some(work), Some(work)).unwrap();
            let out = merge(&original, &painted, &Mask::from_luma8(mask), &plan, 0, true).unwrap();
            assert!(out.to_rgb8() == original.to_rgb8(), "{side} {work}");
        }
    }

    #[test]
    fn what_cannot_be_seen_tells_nothing() {
        let transparent = |x: u32, y: u32| x < 40 || y < 40;
        let original = image::RgbaImage::from_fn(SIDE, SIDE, |x, y| {
            let hidden = transparent(x, y);
            image::Rgba(if hidden { [130, 130, 130, 0] } else { [100, 100, 100, 255] })
        });
        let painted = RgbImage::from_pixel(SIDE, SIDE, Rgb([109; 3]));
        let mask =
            Mask::from_luma8(GrayImage::from_fn(SIDE, SIDE, |x, y| Luma([255 * u8::from(disc(x, y))])));
        let plan = Plan::whole(Size { width: SIDE, height: SIDE }, None, None).unwrap();
        let original = Picture::from_rgb8(RgbImage::new(1, 1)).with_pixels(original.into());
        let out = merge(&original, &painted, &mask, &plan, 0, true).unwrap().to_rgb8();
        assert_eq!(out.get_pixel(44, 50).0, [100; 3]);
        assert_eq!(out.get_pixel(30, 40).0, [100; 3]);
    }

    #[test]
    fn a_mask_of_everything_leaves_what_was_painted() {
        let (original, matched) = merged(|_, _| 9.0, |_, _| true, true);
        assert!(original.as_raw().iter().zip(matched.as_raw()).all(|(old, new)| new - old == 9));
    }

    #[test]
    fn the_solution_is_laplaces() {
        let (width, height) = (97, 65);
        let known = |x: usize, y: usize| x == 0 || y == 0 || x == width - 1 || (x > 40 && y > 30 && x < 45);
        let point = |at: usize| (at % width, at / width);
        let value = |(x, y): (usize, usize)| ((x as f32 * 0.3).sin() * 20.0, (y * x % 17) as f32 - 8.0);
        let count = width * height;
        let weights: Vec<f32> =
            (0..count).map(point).map(|(x, y)| f32::from(u8::from(known(x, y)))).collect();
        let values: Vec<[f32; 3]> = (0..count)
            .map(point)
            .zip(&weights)
            .map(|(p, w)| [value(p).0 * w, value(p).1 * w, 3.0 * w])
            .collect();
        let mut slow = Grid {
            width,
            height,
            values: values.clone(),
            sources: vec![[0.0; 3]; count],
            open: weights.iter().map(|weight| *weight == 0.0).collect(),
        };
        let mut field = Field { width, height, values, weights };
        field.continue_smoothly();
        (0..3_000).for_each(|_| slow.pass());
        let difference =
            |(a, b): (&[f32; 3], &[f32; 3])| (0..3).map(|i| (a[i] - b[i]).abs()).fold(0.0, f32::max);
        let largest = field.values.iter().zip(&slow.values).map(difference).fold(0.0, f32::max);
        assert!(largest < 0.05, "{largest}");
    }
}
