//! Large pictures piece by piece: tiles that overlap by a quarter, their edges blended into each other (diffusers:
//! `autoencoders/autoencoder_kl.py`, `_tiled_encode` and `tiled_decode`).
//!
//! A tile's norms know nothing of the rest of the picture, so the result differs a little from that of one piece.

use candle_core::{DType, Tensor};

use crate::Result;

/// The sides of a tile, in front of the network and behind it. Both are multiples of [`PARTS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tiling {
    pub(super) before: usize,
    pub(super) after: usize,
}

/// A tile overlaps its neighbour by one of so many parts of its side.
pub(super) const PARTS: usize = 4;

impl Tiling {
    /// Whether `x` (B, C, h, w) is larger than one tile.
    pub(super) fn divides(self, x: &Tensor) -> Result<bool> {
        let (_, _, height, width) = x.dims4()?;
        Ok(height > self.before || width > self.before)
    }

    /// Runs `network` over the tiles of `x` (B, C, h, w) and joins what it makes of them.
    pub(super) fn run(
        self,
        x: &Tensor,
        mut network: impl FnMut(&Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let (_, _, height, width) = x.dims4()?;
        let stride = self.before - self.before / PARTS;
        let blend = self.after / PARTS;
        let kept = self.after - blend;
        let mut bands = Vec::new();
        let mut above: Vec<Tensor> = Vec::new();
        for top in (0..height).step_by(stride) {
            let band = x.narrow(2, top, self.before.min(height - top))?;
            let mut row: Vec<Tensor> = Vec::new();
            for left in (0..width).step_by(stride) {
                let tile = band.narrow(3, left, self.before.min(width - left))?.contiguous()?;
                let mut tile = network(&tile)?;
                if let Some(above) = above.get(row.len()) {
                    tile = blended(above, &tile, 2, blend)?;
                }
                if let Some(left) = row.last() {
                    tile = blended(left, &tile, 3, blend)?;
                }
                row.push(tile);
            }
            let parts = row.iter().map(|tile| {
                let (_, _, height, width) = tile.dims4()?;
                Ok(tile.narrow(2, 0, kept.min(height))?.narrow(3, 0, kept.min(width))?)
            });
            bands.push(Tensor::cat(&parts.collect::<Result<Vec<_>>>()?, 3)?);
            above = row;
        }
        Ok(Tensor::cat(&bands, 2)?)
    }
}

/// `tile`, whose first `extent` lines along `axis` fade in over the last ones of `before`.
fn blended(before: &Tensor, tile: &Tensor, axis: usize, extent: usize) -> Result<Tensor> {
    let (ends, side) = (before.dim(axis)?, tile.dim(axis)?);
    let extent = extent.min(ends).min(side);
    let ramp = |weight: &dyn Fn(f64) -> f64| -> Result<Tensor> {
        let weights: Vec<f32> = (0..extent).map(|i| weight(i as f64 / extent as f64) as f32).collect();
        let mut shape = [1; 4];
        shape[axis] = extent;
        Ok(Tensor::from_vec(weights, &shape, tile.device())?)
    };
    let fading = before.narrow(axis, ends - extent, extent)?.to_dtype(DType::F32)?;
    let coming = tile.narrow(axis, 0, extent)?.to_dtype(DType::F32)?;
    let edge = (fading.broadcast_mul(&ramp(&|part| 1.0 - part)?)?
        + coming.broadcast_mul(&ramp(&|part| part)?)?)?
    .to_dtype(tile.dtype())?;
    Ok(Tensor::cat(&[&edge, &tile.narrow(axis, extent, side - extent)?], axis)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use candle_core::Device;

    fn ramp(height: usize, width: usize) -> Tensor {
        let values: Vec<f32> = (0..height * width).map(|i| i as f32).collect();
        Tensor::from_vec(values, (1, 1, height, width), &Device::Cpu).unwrap()
    }

    fn list(x: &Tensor) -> Vec<f32> {
        x.flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn what_does_not_depend_on_its_surroundings_is_put_together_whole() {
        let tiling = Tiling { before: 8, after: 16 };
        for (height, width) in [(9, 3), (8, 20), (14, 23), (12, 12)] {
            let x = ramp(height, width);
            assert!(tiling.divides(&x).unwrap());
            let doubled =
                tiling.run(&x, |x| Ok(x.upsample_nearest2d(2 * x.dim(2)?, 2 * x.dim(3)?)?)).unwrap();
            let whole = x.upsample_nearest2d(2 * height, 2 * width).unwrap();
            assert_eq!(doubled.dims(), whole.dims());
            let differences = list(&doubled).into_iter().zip(list(&whole)).map(|(a, b)| (a - b).abs());
            assert!(differences.fold(0.0, f32::max) < 1e-4, "{height}x{width}");
        }
        assert!(!tiling.divides(&ramp(8, 8)).unwrap());
    }

    #[test]
    fn edges_fade_into_each_other() {
        let mut number = -1.0;
        // Every tile is filled with its number.
        let joined = Tiling { before: 4, after: 8 }.run(&ramp(4, 5), |x| {
            number += 1.0;
            Ok(Tensor::full(number as f32, (1, 1, 2 * x.dim(2)?, 2 * x.dim(3)?), &Device::Cpu)?)
        });
        // The second band lies within the first one's overlap, and fades in from its beginning.
        let row: Vec<f32> = list(&joined.unwrap())[..10].to_vec();
        assert_eq!(row, [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.5, 1.0, 1.0]);
    }
}
