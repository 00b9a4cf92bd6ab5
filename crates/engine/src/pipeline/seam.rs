//! Painted colours brought to those around the hole, so that no seam is seen.
//!
//! VAE and network give back even what they are to keep in slightly other colours. On kept pixels that error is known: it is
//! the original minus the painted picture. Inside the mask it is taken to be the smoothest function that continues it from
//! the mask's edge, the solution of Laplace's equation, and added to what was painted: a tone or a drift of colours goes,
//! what was painted stays. (P. Pérez, M. Gangnet, A. Blake: Poisson Image Editing, 2003, equation 5. There the error is that
//! at the edge alone; here it is averaged over some pixels around it, since a VAE is also wrong about every detail.)

use image::RgbImage;

use super::merge::reach;
use crate::geometry::{Plan, Rect};
use crate::image::Picture;
use crate::mask::BinaryMask;

/// The standard deviation of the average over kept pixels: half a latent pixel, in pixels of the work picture.
const DEVIATION: f64 = 4.0;
/// The most that an error of a tone can be, of 255. Above lies what was painted anew outside the mask.
const LIMIT: f32 = 32.0;
/// V-cycles; each leaves about a fifth of the error.
const CYCLES: usize = 5;

/// Corrects `painted`, the plan's crop at the original's size, in and around the mask.
pub(super) fn match_colours(
    painted: &mut RgbImage,
    original: &Picture,
    mask: &BinaryMask,
    plan: &Plan,
    feather: u32,
) {
    let shrunk = f64::from(plan.crop.width) / f64::from(plan.placement.width);
    let deviation = (DEVIATION * shrunk).max(1.0);
    let region = reach(mask, plan.crop, feather.max((3.0 * deviation).ceil() as u32));
    let mut correction = Field::of_errors(painted, original, mask, plan.crop, region);
    if !correction.average(deviation) {
        return;
    }
    correction.continue_smoothly();
    for (at, change) in correction.values.iter().enumerate() {
        let (x, y) = (at % correction.width, at / correction.width);
        let pixel =
            painted.get_pixel_mut(region.x - plan.crop.x + x as u32, region.y - plan.crop.y + y as u32);
        for (value, change) in pixel.0.iter_mut().zip(change) {
            *value = (f32::from(*value) + change).round() as u8;
        }
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
    /// The original minus the painted picture, known where the mask keeps what is visible.
    fn of_errors(
        painted: &RgbImage,
        original: &Picture,
        mask: &BinaryMask,
        crop: Rect,
        region: Rect,
    ) -> Self {
        let original = original.pixels().to_rgba8();
        let columns = mask.size().width as usize;
        let points = (region.y..region.y + region.height)
            .flat_map(|y| (region.x..region.x + region.width).map(move |x| (x, y)));
        let (values, weights) = points
            .map(|(x, y)| {
                let [colours @ .., alpha] = original.get_pixel(x, y).0;
                let new = painted.get_pixel(x - crop.x, y - crop.y).0;
                let error = |i: usize| (f32::from(colours[i]) - f32::from(new[i])).clamp(-LIMIT, LIMIT);
                let kept = !mask.repaint()[y as usize * columns + x as usize];
                ([0, 1, 2].map(error), if kept { f32::from(alpha) / 255.0 } else { 0.0 })
            })
            .unzip();
        Self { width: region.width as usize, height: region.height as usize, values, weights }
    }

    /// Replaces each known value by the average of the known ones around it, as a Gaussian weighs them; false if none is
    /// known.
    fn average(&mut self, deviation: f64) -> bool {
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
        for ((value, weight), sum) in self.values.iter_mut().zip(&self.weights).zip(&sums) {
            *value = if *weight > 0.0 { [0, 1, 2].map(|i| sum[i] / sum[3]) } else { [0.0; 3] };
        }
        self.weights.iter().any(|weight| *weight > 0.0)
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
                let above = (at / self.width / 2) * width + at % self.width / 2;
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
    /// One V-cycle of multigrid: what is still wrong after a few passes is smooth, so it is found on a grid of half the
    /// width and height. (A. Brandt: Multi-Level Adaptive Solutions to Boundary-Value Problems, 1977)
    fn cycle(&mut self) {
        self.pass();
        if self.width.max(self.height) > 2 {
            let mut coarse = self.of_what_is_wrong();
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
        let (mut sources, mut open) = (vec![[0.0; 3]; count], vec![true; count]);
        for at in 0..self.values.len() {
            let above = (at / self.width / 2) * width + at % self.width / 2;
            if self.open[at] {
                let mean = self.mean_of_neighbours(at);
                // The mean of four, times four: neighbours are twice as far apart.
                (0..3).for_each(|i| sources[above][i] += mean[i] + self.sources[at][i] - self.values[at][i]);
            } else {
                open[above] = false;
            }
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

    use image::{GrayImage, Luma, Rgb};

    use super::*;
    use crate::geometry::Size;
    use crate::mask::Mask;
    use crate::pipeline::merge::merge;

    const SIDE: u32 = 96;

    /// A picture with some texture.
    fn texture(x: u32, y: u32) -> [u8; 3] {
        let noise = |seed: u32| ((x * 7 + y * 13 + seed) ^ (x * y)) % 23;
        [90 + noise(1) as u8, 120 + noise(5) as u8, 70 + (x % 64) as u8]
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
        assert_eq!(largest_difference(&original, &matched), 0);
    }

    #[test]
    fn a_drift_goes() {
        let drift = |x: u32, y: u32| 0.2 * f64::from(x) - 0.1 * f64::from(y);
        let (original, matched) = merged(drift, disc, true);
        assert!(largest_difference(&original, &matched) <= 2, "{}", largest_difference(&original, &matched));
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

    #[test]
    fn a_mask_of_everything_leaves_what_was_painted() {
        let (original, matched) = merged(|_, _| 9.0, |_, _| true, true);
        assert!(original.as_raw().iter().zip(matched.as_raw()).all(|(old, new)| new - old == 9));
    }

    #[test]
    fn the_solution_is_laplaces() {
        let (width, height) = (61, 47);
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
        (0..5_000).for_each(|_| slow.pass());
        let difference =
            |(a, b): (&[f32; 3], &[f32; 3])| (0..3).map(|i| (a[i] - b[i]).abs()).fold(0.0, f32::max);
        let largest = field.values.iter().zip(&slow.values).map(difference).fold(0.0, f32::max);
        assert!(largest < 0.05, "{largest}");
    }
}
