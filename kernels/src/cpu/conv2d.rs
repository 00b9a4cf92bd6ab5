//! Two-dimensional convolution as a matrix product whose right side is gathered from the picture while it is packed:
//! weights `(O, C*kh*kw)` times patches `(C*kh*kw, OH*OW)` gives the output planes where they belong.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, bail};
use rayon::prelude::*;

use super::microkernel::{MR, NR, Simd, Tile};

/// Depth of one pass: a packed block of patches (DEPTH x PIXELS) stays in the second-level cache.
const DEPTH: usize = 384;
/// Output pixels of one piece of work.
const PIXELS: usize = 512;
/// Output channels of one piece of work, about.
const CHANNELS: usize = 320;

/// The convolution `(B,C,H,W) * (O,C,kh,kw) -> (B,O,OH,OW)` with zero padding, in f32.
pub(crate) struct Conv2d {
    pub(crate) stride: usize,
    pub(crate) padding: usize,
}

struct Sizes {
    channels: usize,
    height: usize,
    width: usize,
    out_channels: usize,
    kernel: (usize, usize),
    out_height: usize,
    out_width: usize,
    stride: usize,
    padding: usize,
}

impl Sizes {
    fn depth(&self) -> usize {
        self.channels * self.kernel.0 * self.kernel.1
    }

    fn pixels(&self) -> usize {
        self.out_height * self.out_width
    }
}

/// Part of an output row within a panel of NR pixels.
struct Run {
    at: usize,
    length: usize,
    row: usize,
    column: usize,
}

impl CustomOp2 for Conv2d {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_at: &Layout,
        w: &CpuStorage,
        w_at: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (CpuStorage::F32(x), CpuStorage::F32(w)) = (x, w) else { bail!("conv2d: f32 only on this path") };
        let (Some((x_from, x_to)), Some((w_from, w_to))) =
            (x_at.contiguous_offsets(), w_at.contiguous_offsets())
        else {
            bail!("conv2d: contiguous tensors only on this path")
        };
        let (batch, channels, height, width) = x_at.shape().dims4()?;
        let (out_channels, weight_channels, kh, kw) = w_at.shape().dims4()?;
        let (padded_height, padded_width) = (height + 2 * self.padding, width + 2 * self.padding);
        if weight_channels != channels || padded_height < kh || padded_width < kw || self.stride == 0 {
            bail!("conv2d: picture {:?}, weight {:?}, stride {}", x_at.shape(), w_at.shape(), self.stride)
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
        let mut out = vec![0f32; batch * out_channels * sizes.pixels()];
        let pictures = x[x_from..x_to].chunks_exact(channels * height * width);
        for (picture, out) in pictures.zip(out.chunks_exact_mut(out_channels * sizes.pixels())) {
            one_picture(picture, &w[w_from..w_to], &sizes, out);
        }
        let shape = Shape::from((batch, out_channels, sizes.out_height, sizes.out_width));
        Ok((CpuStorage::F32(out), shape))
    }
}

/// Cuts the output planes into pieces of whole channel groups and pixel ranges, and does each on its own.
fn one_picture(picture: &[f32], weights: &[f32], sizes: &Sizes, out: &mut [f32]) {
    let simd = Simd::detect();
    let pixels = sizes.pixels();
    let groups = sizes.out_channels.div_ceil(CHANNELS);
    let per_group = sizes.out_channels.div_ceil(groups).next_multiple_of(MR);
    let pieces: Vec<_> = out
        .chunks_mut(per_group * pixels)
        .enumerate()
        .flat_map(|(group, planes)| {
            split_columns(planes, pixels)
                .into_iter()
                .map(move |(first, rows)| (group * per_group, first, rows))
        })
        .collect();
    pieces.into_par_iter().for_each(|(channel, pixel, mut rows)| {
        let weights = &weights[channel * sizes.depth()..(channel + rows.len()) * sizes.depth()];
        piece(picture, weights, sizes, simd, pixel, &mut rows);
    });
}

/// The same planes as column ranges of PIXELS each: for every range its first pixel and one slice per plane.
fn split_columns(planes: &mut [f32], pixels: usize) -> Vec<(usize, Vec<&mut [f32]>)> {
    let ranges = pixels.div_ceil(PIXELS);
    let mut columns: Vec<(usize, Vec<&mut [f32]>)> = (0..ranges).map(|i| (i * PIXELS, Vec::new())).collect();
    for plane in planes.chunks_exact_mut(pixels) {
        for (part, column) in plane.chunks_mut(PIXELS).zip(&mut columns) {
            column.1.push(part);
        }
    }
    columns
}

/// All channels of `rows` for the pixels from `first` on.
fn piece(picture: &[f32], weights: &[f32], sizes: &Sizes, simd: Simd, first: usize, rows: &mut [&mut [f32]]) {
    let count = rows.first().map_or(0, |row| row.len());
    let panels = count.div_ceil(NR);
    let runs: Vec<Vec<Run>> =
        (0..panels).map(|p| runs_of_panel(sizes, first + p * NR, first + count)).collect();
    let mut patches = vec![0f32; panels * NR * DEPTH];
    let mut left = vec![0f32; MR * DEPTH];
    for from in (0..sizes.depth()).step_by(DEPTH) {
        let depth = DEPTH.min(sizes.depth() - from);
        for (panel, runs) in patches.chunks_exact_mut(NR * DEPTH).zip(&runs) {
            pack_patches(picture, sizes, from, runs, &mut panel[..depth * NR]);
        }
        for (group, rows) in rows.chunks_mut(MR).enumerate() {
            pack_weights(weights, sizes.depth(), group * MR, rows.len(), from, &mut left[..depth * MR]);
            for (p, panel) in patches.chunks_exact(NR * DEPTH).enumerate() {
                let columns = p * NR..(p * NR + NR).min(count);
                let mut tile: Tile = [[0.0; NR]; MR];
                if from > 0 {
                    for (tile, row) in tile.iter_mut().zip(rows.iter()) {
                        tile[..columns.len()].copy_from_slice(&row[columns.clone()]);
                    }
                }
                simd.multiply(&left[..depth * MR], &panel[..depth * NR], &mut tile);
                for (tile, row) in tile.iter().zip(rows.iter_mut()) {
                    row[columns.clone()].copy_from_slice(&tile[..columns.len()]);
                }
            }
        }
    }
}

fn runs_of_panel(sizes: &Sizes, first: usize, end: usize) -> Vec<Run> {
    let end = end.min(first + NR);
    let mut runs = Vec::new();
    let mut pixel = first;
    while pixel < end {
        let (row, column) = (pixel / sizes.out_width, pixel % sizes.out_width);
        let length = (sizes.out_width - column).min(end - pixel);
        runs.push(Run { at: pixel - first, length, row, column });
        pixel += length;
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

/// Rows `first..first + rows` of the weights, transposed into columns of MR; missing rows are zero.
fn pack_weights(weights: &[f32], stride: usize, first: usize, rows: usize, from: usize, left: &mut [f32]) {
    let depth = left.len() / MR;
    for i in 0..MR {
        if i < rows {
            let row = &weights[(first + i) * stride + from..][..depth];
            for (k, &w) in row.iter().enumerate() {
                left[k * MR + i] = w;
            }
        } else {
            left.iter_mut().skip(i).step_by(MR).for_each(|x| *x = 0.0);
        }
    }
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
            (1, 2, 1, 1, 3, 3, 1, 1),
        ] {
            let x = ramp(&[b, c, h, w], 7);
            let weight = ramp(&[o, c, k, k], 11);
            let got = x.apply_op2_no_bwd(&weight, &Conv2d { stride, padding }).unwrap();
            let expected = x.conv2d(&weight, padding, stride, 1, 1).unwrap();
            assert_eq!(got.dims(), expected.dims());
            let worst =
                (got - expected).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
            assert!(worst < 1e-4, "{:?}: {worst}", (b, c, h, w, o, k, stride, padding));
        }
    }
}
