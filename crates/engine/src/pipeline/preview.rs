//! Small pictures of a run while it is under way: what the network takes for the clean picture, one pixel for each
//! latent.
//!
//! No decoder runs. Latents of these autoencoders are nearly a small picture in other colours: one linear map, fitted
//! for each request, turns them back.

use image::{Rgb, RgbImage};
use infill_networks::vae::Passage;
use infill_networks::{DType, Device, Tensor};

use super::encode::PixelInputs;
use super::{Observer, Pipeline};
use crate::Result;
use crate::geometry::Size;
use crate::image::{denormalized, normalized};
use crate::request::InpaintRequest;
use crate::scheduler::Scheduler;

/// Previews of one picture.
pub const MOST_PREVIEWS: usize = 8;

/// A picture that is not finished.
#[derive(Debug, Clone)]
pub struct Preview {
    /// The picture's number within the request, from 0.
    pub index: usize,
    /// The step that showed it, from 0, as [`Progress::Step`](super::Progress::Step) counts them.
    pub step: usize,
    /// How many there will be.
    pub steps: usize,
    /// The work picture, shrunk by the autoencoder's factor; where results are merged, with what is kept around the
    /// mask.
    pub picture: RgbImage,
}

/// Colours of the chart: the corners of the cube, and as many within it.
const CHART: [[f32; 3]; 16] = [
    [-1.0, -1.0, -1.0],
    [1.0, -1.0, -1.0],
    [0.0, 0.0, 0.0],
    [-1.0, 1.0, 1.0],
    [-1.0, 1.0, -1.0],
    [0.5, 0.5, 0.5],
    [1.0, -1.0, 1.0],
    [-0.5, 0.0, 0.5],
    [0.5, 0.0, -0.5],
    [-1.0, -1.0, 1.0],
    [-0.5, -0.5, -0.5],
    [1.0, 1.0, -1.0],
    [1.0, 1.0, 1.0],
    [0.0, 0.5, -0.5],
    [0.5, -0.5, 0.0],
    [-0.5, 0.5, 0.0],
];
/// Fields of the chart in a row.
const CHART_SIDE: usize = 4;
/// Latents in a row of a field.
const FIELD: usize = 2;
/// How much the chart counts beside the picture: enough to decide what a picture of few colours leaves open.
const CHART_WEIGHT: f64 = 0.1;

/// Makes the previews of one request.
pub(super) struct Previewer {
    palette: Palette,
    /// What lies around the painted part; absent where the whole picture is the model's.
    kept: Option<RgbImage>,
    /// By latent, 1 where to paint.
    mask: Vec<f32>,
}

/// A step at which a preview may be due.
pub(super) struct Moment<'a> {
    pub scheduler: &'a Scheduler,
    /// The index into the scheduler's timesteps.
    pub i: usize,
    pub step: usize,
    pub steps: usize,
    /// What the network predicts, guidance included.
    pub prediction: &'a Tensor,
    /// `(B,4,h,w)` before the step.
    pub latents: &'a Tensor,
}

impl Pipeline {
    /// What makes the previews of this request, fitted to its own picture and to a small chart of colours.
    pub(super) fn previewer(&self, request: &InpaintRequest, inputs: &PixelInputs) -> Result<Previewer> {
        let factor = self.vae.config().scale();
        let small = shrunk(&inputs.work, factor);
        let mask: Vec<f32> = inputs.mask.to_device(&Device::Cpu)?.flatten_all()?.to_vec1()?;
        let mut fit = Fit::default();

        let side = CHART_SIDE * FIELD;
        let pixels = (side * factor) as u32;
        let field = (FIELD * factor) as u32;
        let chart: RgbImage = RgbImage::from_fn(pixels, pixels, |x, y| {
            let colour = CHART[(y / field) as usize * CHART_SIDE + (x / field) as usize];
            Rgb(colour.map(|value| ((value + 1.0) * 127.5) as u8))
        });
        let shape = (1, 3, pixels as usize, pixels as usize);
        let image = Tensor::from_vec(normalized(&chart), shape, &Device::Cpu)?;
        let image = image.to_device(&self.device)?.to_dtype(self.vae_dtype)?;
        let chart_latents = self.host_latents(&self.vae.encode(&image, &Passage::default())?.mean)?;
        fit.add(&chart_latents, &normalized(&shrunk(&chart, factor)), |_| true, CHART_WEIGHT);

        // The picture as it is, or else the one with the hole, of which only what lies around the hole is known.
        match &inputs.image {
            Some(posterior) => {
                fit.add(&self.host_latents(&posterior.mean)?, &normalized(&small), |_| true, 1.0);
            }
            None => {
                let latents = self.host_latents(&inputs.masked_image.mean)?;
                fit.add(&latents, &normalized(&small), |at| mask[at] == 0.0, 1.0);
            }
        }
        let params = request.params();
        let kept = (params.merge || params.padding_mask_crop.is_some()).then_some(small);
        Ok(Previewer { palette: fit.palette(), kept, mask })
    }

    /// Scaled latents on the host, channel by channel.
    fn host_latents(&self, mean: &Tensor) -> Result<Vec<f32>> {
        let scaled = (mean.to_dtype(DType::F32)? * self.vae.config().scaling_factor)?;
        Ok(scaled.to_device(&Device::Cpu)?.flatten_all()?.to_vec1()?)
    }
}

impl Previewer {
    /// Shows the pictures as they look at this step, if it is one of those that are shown; `first` is the number of the
    /// first.
    pub(super) fn show(&self, moment: &Moment<'_>, first: usize, observer: &mut Observer<'_>) -> Result<()> {
        let Moment { scheduler, i, step, steps, prediction, latents } = *moment;
        let order = scheduler.order();
        // The second half of a step starts from a sample that is nobody's estimate.
        if i % order != 0 || !is_due(step / order, steps.div_ceil(order)) {
            return Ok(());
        }
        let Some(clean) = scheduler.clean_estimate(i, prediction, latents)? else { return Ok(()) };
        let clean = clean.to_device(&Device::Cpu)?;
        let (batch, _, height, width) = clean.dims4()?;
        let size = Size { width: width as u32, height: height as u32 };
        for position in 0..batch {
            let mut values = self.palette.colours(&clean.get(position)?.flatten_all()?.to_vec1::<f32>()?);
            if let Some(kept) = &self.kept {
                let mask = self.mask.iter().cycle();
                for ((value, kept), mask) in values.iter_mut().zip(normalized(kept)).zip(mask) {
                    *value = if *mask > 0.0 { *value } else { kept };
                }
            }
            let picture = denormalized(&values, size)?;
            observer.preview(Preview { index: first + position, step, steps, picture });
        }
        Ok(())
    }
}

/// Whether a step, from 0, is among those that are shown: evenly spread, and never the last, which the picture follows.
fn is_due(step: usize, steps: usize) -> bool {
    let interval = |step: usize| step * (MOST_PREVIEWS + 1) / steps.max(1);
    step + 1 < steps && interval(step + 1) > interval(step)
}

/// Each pixel the mean of a square of `factor` pixels a side.
fn shrunk(image: &RgbImage, factor: usize) -> RgbImage {
    let factor = factor as u32;
    RgbImage::from_fn(image.width() / factor, image.height() / factor, |x, y| {
        let square = (0..factor * factor)
            .map(|at| image.get_pixel(x * factor + at % factor, y * factor + at / factor));
        let mut sums = [0_u32; 3];
        for pixel in square {
            sums.iter_mut().zip(pixel.0).for_each(|(sum, value)| *sum += u32::from(value));
        }
        Rgb(sums.map(|sum| (sum / (factor * factor)) as u8))
    })
}

/// Latent channels.
const CHANNELS: usize = 4;
/// The channels and the constant.
const TERMS: usize = CHANNELS + 1;
/// Keeps directions that no sample decides at 0.
const RIDGE: f64 = 1e-4;

/// The linear map from latents to colours in -1..=1.
struct Palette {
    /// For each of red, green and blue.
    weights: [[f64; TERMS]; 3],
}

/// The normal equations of the map, filled sample by sample.
#[derive(Default)]
struct Fit {
    squares: [[f64; TERMS]; TERMS],
    products: [[f64; TERMS]; 3],
}

impl Fit {
    /// Adds those latents that `counts` picks by their position, together as much as `weight`.
    fn add(&mut self, latents: &[f32], colours: &[f32], counts: impl Fn(usize) -> bool, weight: f64) {
        let plane = latents.len() / CHANNELS;
        let picked: Vec<usize> = (0..plane).filter(|&at| counts(at)).collect();
        let share = weight / picked.len().max(1) as f64;
        for at in picked {
            let terms = terms(latents, at);
            if terms.iter().any(|term| !term.is_finite()) {
                continue;
            }
            for (row, left) in self.squares.iter_mut().zip(terms) {
                row.iter_mut().zip(terms).for_each(|(sum, right)| *sum += share * left * right);
            }
            for (channel, row) in self.products.iter_mut().enumerate() {
                let colour = f64::from(colours[channel * plane + at]);
                row.iter_mut().zip(terms).for_each(|(sum, term)| *sum += share * term * colour);
            }
        }
    }

    /// The map of least squares.
    fn palette(mut self) -> Palette {
        for (at, row) in self.squares.iter_mut().enumerate() {
            row[at] += RIDGE;
        }
        Palette { weights: self.products.map(|products| solved(self.squares, products)) }
    }
}

impl Palette {
    /// Colours in -1..=1 of latents, both channel by channel.
    fn colours(&self, latents: &[f32]) -> Vec<f32> {
        let plane = latents.len() / CHANNELS;
        let colour = |weights: &[f64; TERMS], at| {
            weights.iter().zip(terms(latents, at)).map(|(weight, term)| weight * term).sum::<f64>() as f32
        };
        self.weights.iter().flat_map(|weights| (0..plane).map(move |at| colour(weights, at))).collect()
    }
}

/// The channels of one latent, and 1.
fn terms(latents: &[f32], at: usize) -> [f64; TERMS] {
    let plane = latents.len() / CHANNELS;
    let mut terms = [1.0; TERMS];
    for (channel, term) in terms.iter_mut().take(CHANNELS).enumerate() {
        *term = f64::from(latents[channel * plane + at]);
    }
    terms
}

/// `x` of `matrix · x = right`, for a matrix that is symmetric and positive: elimination needs no exchange of rows.
fn solved(mut matrix: [[f64; TERMS]; TERMS], mut right: [f64; TERMS]) -> [f64; TERMS] {
    for pivot in 0..TERMS {
        let (row, product) = (matrix[pivot], right[pivot]);
        for (below, right) in matrix.iter_mut().zip(&mut right).skip(pivot + 1) {
            let factor = below[pivot] / row[pivot];
            below.iter_mut().zip(row).for_each(|(value, above)| *value -= factor * above);
            *right -= factor * product;
        }
    }
    for pivot in (0..TERMS).rev() {
        let known: f64 = (pivot + 1..TERMS).map(|at| matrix[pivot][at] * right[at]).sum();
        right[pivot] = (right[pivot] - known) / matrix[pivot][pivot];
    }
    right
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_linear_map_is_found_again() {
        let weights = [[0.3, -0.2, 0.1, 0.05, 0.1], [0.0, 0.4, 0.0, -0.3, -0.2], [-0.1, 0.1, 0.5, 0.2, 0.0]];
        let latents: Vec<f32> =
            (0..4 * 50_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 20) as f32 / 2048.0 - 1.0).collect();
        let colours = Palette { weights }.colours(&latents);
        let mut fit = Fit::default();
        fit.add(&latents, &colours, |_| true, 1.0);
        let found = fit.palette();
        for (weights, found) in weights.iter().flatten().zip(found.weights.iter().flatten()) {
            assert!((weights - found).abs() < 2e-3, "{weights} {found}");
        }
    }

    #[test]
    fn what_no_sample_decides_is_nothing_and_no_fault() {
        let mut fit = Fit::default();
        fit.add(&[0.5; 4 * 9], &[0.25; 3 * 9], |_| true, 1.0);
        fit.add(&[f32::NAN; 4], &[0.0; 3], |_| true, 1.0);
        fit.add(&[1.0; 4], &[0.0; 3], |_| false, 1.0);
        let colours = fit.palette().colours(&[0.5; 4]);
        assert!(colours.iter().all(|colour| (colour - 0.25).abs() < 1e-3), "{colours:?}");
        assert!(Fit::default().palette().colours(&[3.0; 4]).iter().all(|colour| *colour == 0.0));
    }

    #[test]
    fn previews_are_few_and_evenly_spread_and_never_of_the_last_step() {
        for steps in 0..200 {
            let due: Vec<usize> = (0..steps).filter(|&step| is_due(step, steps)).collect();
            assert_eq!(due.len(), MOST_PREVIEWS.min(steps.saturating_sub(1)), "{steps}: {due:?}");
            assert!(due.iter().all(|step| step + 1 < steps), "{steps}: {due:?}");
            let gaps: Vec<usize> = due.windows(2).map(|pair| pair[1] - pair[0]).collect();
            let (least, most) = (gaps.iter().min(), gaps.iter().max());
            assert!(most.zip(least).is_none_or(|(most, least)| most - least <= 1), "{steps}: {due:?}");
        }
    }

    #[test]
    fn a_shrunk_picture_has_the_means_of_its_squares() {
        let image =
            RgbImage::from_fn(4, 2, |x, y| Rgb([(x * 10 + y * 2) as u8, 7, if x < 2 { 0 } else { 255 }]));
        let small = shrunk(&image, 2);
        assert_eq!(small.dimensions(), (2, 1));
        assert_eq!((small.get_pixel(0, 0).0, small.get_pixel(1, 0).0), ([6, 7, 0], [26, 7, 255]));
    }
}
