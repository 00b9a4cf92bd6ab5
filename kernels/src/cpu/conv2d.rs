//! Two-dimensional convolution as a matrix product whose right side is gathered from the picture while it is packed:
//! weights `(O, C*kh*kw)` times patches `(C*kh*kw, OH*OW)` gives the output planes where they belong.

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, bail};
use rayon::prelude::*;

use super::microkernel::{MR, NR, Simd};
use super::product::{Rows, product, split_columns};
use super::winograd;

/// Output pixels of one piece of work.
const PIXELS: usize = 512;
/// Output channels of one piece of work, about.
const CHANNELS: usize = 320;

/// The convolution `(B,C,H,W) * (O,C,kh,kw) + (O) -> (B,O,OH,OW)` with zero padding, in f32.
pub(crate) struct Conv2d {
    pub(crate) stride: usize,
    pub(crate) padding: usize,
}

/// The pictures and the weights of a convolution.
pub(super) struct Sizes {
    pub(super) channels: usize,
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) out_channels: usize,
    pub(super) kernel: (usize, usize),
    pub(super) out_height: usize,
    pub(super) out_width: usize,
    pub(super) stride: usize,
    pub(super) padding: usize,
}

impl Sizes {
    fn depth(&self) -> usize {
        self.channels * self.kernel.0 * self.kernel.1
    }

    fn pixels(&self) -> usize {
        self.out_height * self.out_width
    }
}

/// Part of a row within a panel of NR places.
pub(super) struct Run {
    pub(super) at: usize,
    pub(super) length: usize,
    pub(super) row: usize,
    pub(super) column: usize,
}

impl CustomOp3 for Conv2d {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_at: &Layout,
        w: &CpuStorage,
        w_at: &Layout,
        bias: &CpuStorage,
        bias_at: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let x = super::slice::<f32>(x, x_at)?;
        let w = super::slice::<f32>(w, w_at)?;
        let bias = super::slice::<f32>(bias, bias_at)?;
        let (batch, channels, height, width) = x_at.shape().dims4()?;
        let (out_channels, weight_channels, kh, kw) = w_at.shape().dims4()?;
        let (padded_height, padded_width) = (height + 2 * self.padding, width + 2 * self.padding);
        let whole = height > 0 && width > 0 && !w.is_empty();
        let fits = weight_channels == channels && padded_height >= kh && padded_width >= kw;
        if !fits || !whole || self.stride == 0 || bias.len() != out_channels {
            bail!(
                "conv2d: picture {:?}, weight {:?}, bias {:?}, stride {}",
                x_at.dims(),
                w_at.dims(),
                bias_at.dims(),
                self.stride
            )
        }
        let sizes = Sizes {
            channels,
            height,
            width,
            out_channels,
            kernel: (kh, kw),
            out_height: (padded_height - kh) / self.stride + 1,
            out_width: (padded_width - kw) / self.stride + 1,
            stride: self.stride,
            padding: self.padding,
        };
        let pixels = sizes.pixels();
        let mut out = Vec::with_capacity(batch * out_channels * pixels);
        for _ in 0..batch {
            for &bias in bias {
                out.resize(out.len() + pixels, bias);
            }
        }
        if winograd::pays(&sizes) {
            winograd::convolve(x, w, &sizes, &mut out);
        } else {
            let pictures = x.chunks_exact(channels * height * width);
            for (picture, out) in pictures.zip(out.chunks_exact_mut(out_channels * pixels)) {
                one_picture(picture, w, &sizes, out);
            }
        }
        let shape = Shape::from((batch, out_channels, sizes.out_height, sizes.out_width));
        Ok((CpuStorage::F32(out), shape))
    }
}

/// Cuts the output planes into pieces of whole channel groups and pixel ranges, and does each on its own.
fn one_picture(picture: &[f32], weights: &[f32], sizes: &Sizes, out: &mut [f32]) {
    let simd = Simd::detect();
    let (pixels, depth) = (sizes.pixels(), sizes.depth());
    let groups = sizes.out_channels.div_ceil(CHANNELS);
    let per_group = sizes.out_channels.div_ceil(groups).next_multiple_of(MR);
    let pieces: Vec<_> = out
        .chunks_mut(per_group * pixels)
        .enumerate()
        .flat_map(|(group, planes)| {
            let columns = split_columns(planes, pixels, PIXELS);
            columns.into_iter().map(move |(pixel, planes)| (group * per_group, pixel, planes))
        })
        .collect();
    pieces.into_par_iter().for_each(|(channel, pixel, mut planes)| {
        let end = pixel + planes.first().map_or(0, |plane| plane.len());
        let runs: Vec<Vec<Run>> =
            (pixel..end).step_by(NR).map(|first| runs_of_panel(sizes.out_width, first, end)).collect();
        let left = Rows { values: &weights[channel * depth..(channel + planes.len()) * depth], depth };
        product(simd, &mut planes, left, |panel, from, block| {
            pack_patches(picture, sizes, from, &runs[panel], block);
        });
    });
}

/// The rows of the panel that begins at place `first` of a picture this wide, of which places up to `end` count.
pub(super) fn runs_of_panel(width: usize, first: usize, end: usize) -> Vec<Run> {
    let end = end.min(first + NR);
    let mut runs = Vec::new();
    let mut place = first;
    while place < end {
        let (row, column) = (place / width, place % width);
        let length = (width - column).min(end - place);
        runs.push(Run { at: place - first, length, row, column });
        place += length;
    }
    runs
}

/// The patch values `from..` of a panel's pixels: rows of NR.
fn pack_patches(picture: &[f32], sizes: &Sizes, from: usize, runs: &[Run], panel: &mut [f32]) {
    let (kh, kw) = sizes.kernel;
    for (k, values) in panel.chunks_exact_mut(NR).enumerate() {
        let k = from + k;
        let (channel, ky, kx) = (k / (kh * kw), k / kw % kh, k % kw);
        let plane = &picture[channel * sizes.height * sizes.width..][..sizes.height * sizes.width];
        for run in runs {
            let values = &mut values[run.at..run.at + run.length];
            let y = (run.row * sizes.stride + ky).wrapping_sub(sizes.padding);
            if y >= sizes.height {
                values.fill(0.0);
                continue;
            }
            let line = &plane[y * sizes.width..][..sizes.width];
            let x = (run.column * sizes.stride + kx) as isize - sizes.padding as isize;
            if sizes.stride == 1 {
                copy_clipped(line, x, values);
            } else {
                for (i, value) in values.iter_mut().enumerate() {
                    let x = x + (i * sizes.stride) as isize;
                    *value = usize::try_from(x).ok().and_then(|x| line.get(x)).copied().unwrap_or(0.0);
                }
            }
        }
    }
}

/// `values[i] = line[x + i]`, zero outside the line.
fn copy_clipped(line: &[f32], x: isize, values: &mut [f32]) {
    let before = usize::try_from(-x).unwrap_or(0).min(values.len());
    let start = usize::try_from(x).unwrap_or(0).min(line.len());
    let inside = (line.len() - start).min(values.len() - before);
    values[..before].fill(0.0);
    values[before..before + inside].copy_from_slice(&line[start..start + inside]);
    values[before + inside..].fill(0.0);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use candle_core::{Device, Tensor};

    fn ramp(shape: &[usize], step: usize) -> Tensor {
        let count: usize = shape.iter().product();
        let values: Vec<f32> = (0..count).map(|i| ((i * step % 31) as f32 - 15.0) / 16.0).collect();
        Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
    }

    #[test]
    fn agrees_with_candle_on_every_kind_of_edge() {
        for (b, c, h, w, o, k, stride, padding) in [
            (1, 3, 7, 9, 5, 3, 1, 1),
            (2, 4, 33, 31, 13, 3, 1, 1),
            (1, 5, 16, 16, 24, 1, 1, 0),
            (1, 3, 17, 20, 7, 3, 2, 1),
            (1, 3, 17, 20, 7, 3, 2, 0),
            (1, 70, 24, 40, 330, 3, 1, 1),
            // By Winograd's algorithm: odd sides, pieces beside and below one another, parts of panels and groups.
            (2, 17, 33, 31, 25, 3, 1, 1),
            (1, 16, 5, 301, 12, 3, 1, 1),
            (1, 130, 18, 19, 180, 3, 1, 0),
            (3, 16, 16, 16, 13, 3, 1, 1),
            (1, 64, 70, 70, 16, 3, 1, 2),
            (1, 1200, 16, 16, 900, 3, 1, 1),
            (1, 2, 1, 1, 3, 3, 1, 1),
        ] {
            let x = ramp(&[b, c, h, w], 7);
            let weight = ramp(&[o, c, k, k], 11);
            let bias = ramp(&[o], 3);
            let got = x.apply_op3_no_bwd(&weight, &bias, &Conv2d { stride, padding }).unwrap();
            let expected = x.conv2d(&weight, padding, stride, 1, 1).unwrap();
            let expected = expected.broadcast_add(&bias.reshape((1, o, 1, 1)).unwrap()).unwrap();
            assert_eq!(got.dims(), expected.dims());
            let worst =
                (got - expected).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
            assert!(worst < 1e-4, "{:?}: {worst}", (b, c, h, w, o, k, stride, padding));
        }
    }
}
