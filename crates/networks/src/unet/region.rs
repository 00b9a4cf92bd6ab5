//! Where in the picture a reference works, brought to the pixels of a layer.

/// A mask of the whole picture.
#[derive(Clone, Debug, PartialEq)]
pub struct RegionMask {
    width: usize,
    /// Row by row; 1 where the reference works.
    values: Vec<f32>,
}

impl RegionMask {
    /// A mask of `width` columns. `None` if the values do not fill its rows, or there are none.
    pub fn new(width: usize, values: Vec<f32>) -> Option<Self> {
        (width > 0 && !values.is_empty() && values.len().is_multiple_of(width))
            .then_some(Self { width, values })
    }

    /// The values at a layer of `pixels` pixels, row by row.
    ///
    /// The layer's height and width follow from the mask's proportions, as in diffusers (`image_processor.py`,
    /// `IPAdapterMaskProcessor.downsample`); where they do not come out even, the end is zero, or left off.
    pub(super) fn at(&self, pixels: usize) -> Vec<f32> {
        let height = self.values.len() / self.width;
        let proportion = self.width as f64 / height as f64;
        let rows = ((pixels as f64 / proportion).sqrt() as usize).max(1);
        let rows = rows + usize::from(!pixels.is_multiple_of(rows));
        let columns = (pixels / rows).max(1);
        let mut values = bicubic(&self.values, (height, self.width), (rows, columns));
        values.resize(pixels, 0.0);
        values
    }
}

/// One output position: four input positions and their shares.
type Taps = [(usize, f32); 4];

/// Resizes `values` of (height, width) by Keys' cubic convolution, without smoothing where it shrinks.
/// (`torch.nn.functional.interpolate` with mode "bicubic")
fn bicubic(values: &[f32], from: (usize, usize), to: (usize, usize)) -> Vec<f32> {
    let (rows, columns) = (taps(from.0, to.0), taps(from.1, to.1));
    let along = |row: &[f32], taps: &Taps| taps.iter().map(|&(at, share)| row[at] * share).sum::<f32>();
    rows.iter()
        .flat_map(|row| {
            let lines = row.map(|(at, share)| (&values[at * from.1..(at + 1) * from.1], share));
            columns
                .iter()
                .map(move |column| lines.iter().map(|(line, share)| along(line, column) * share).sum::<f32>())
        })
        .collect()
}

fn taps(from: usize, to: usize) -> Vec<Taps> {
    let scale = from as f32 / to as f32;
    (0..to)
        .map(|i| {
            let position = scale * (i as f32 + 0.5) - 0.5;
            let start = position.floor();
            let t = position - start;
            let shares = [outer(t + 1.0), inner(t), inner(1.0 - t), outer(2.0 - t)];
            [0, 1, 2, 3].map(|k| {
                let at = (start as i64 - 1 + k as i64).clamp(0, from as i64 - 1) as usize;
                (at, shares[k])
            })
        })
        .collect()
}

/// Keys' parameter as torch has it; Pillow's is -0.5.
const A: f32 = -0.75;

/// The kernel up to a distance of 1.
fn inner(x: f32) -> f32 {
    ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
}

/// The kernel from a distance of 1 to 2.
fn outer(x: f32) -> f32 {
    ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn assert_near(actual: &[f32], expected: &[f32]) {
        assert_eq!(actual.len(), expected.len());
        for (a, e) in actual.iter().zip(expected) {
            assert!((a - e).abs() < 2e-6, "{actual:?}, expected {expected:?}");
        }
    }

    /// Zero, with the right half and a block of 3 x 2 in the upper left corner 1: 8 rows of 12.
    fn corner_and_half() -> RegionMask {
        let values = (0..8 * 12).map(|i| f32::from(u8::from(i % 12 >= 6 || (i / 12 < 3 && i % 12 < 2))));
        RegionMask::new(12, values.collect()).unwrap()
    }

    /// The values are torch's: `IPAdapterMaskProcessor.downsample(mask, 1, pixels, 1)`.
    #[test]
    fn the_mask_of_a_layer_is_torchs_bicubic() {
        assert_near(&corner_and_half().at(6), &[0.546875, 0.5, 1.0, 0.0, 0.5, 1.0]);
        assert_near(
            &corner_and_half().at(24)[..12],
            &[
                1.09375, -0.09375, -0.09375, 1.09375, 1.0, 1.0, 0.546875, -0.046875, -0.09375, 1.09375, 1.0,
                1.0,
            ],
        );
        let dot = RegionMask::new(2, vec![0.0, 1.0, 0.0, 0.0]).unwrap();
        assert_near(&dot.at(16)[..4], &[-0.116_592_4, 0.250_457_8, 0.855_011, 1.222_061_2]);
    }

    #[test]
    fn pixels_that_do_not_fill_rows_end_in_zero() {
        let seven = [-0.09375, 1.0, 0.008_789_1, 1.0, 0.0, 1.0, 0.0];
        assert_near(&corner_and_half().at(7), &seven);
        assert_eq!(corner_and_half().at(11)[10..], [0.0]);
        assert_eq!(RegionMask::new(400, vec![1.0; 400]).unwrap().at(3), [1.0; 3]);
    }

    #[test]
    fn a_mask_needs_whole_rows() {
        assert!(RegionMask::new(3, vec![0.0; 7]).is_none());
        assert!(RegionMask::new(0, vec![]).is_none());
        assert!(RegionMask::new(3, vec![0.0; 6]).is_some());
    }
}
