//! Convolution by 3 x 3 with step 1 in 16 products in place of 36 for four output pixels: Winograd's F(2x2, 3x3) (Lavin
//! and Gray, "Fast Algorithms for Convolutional Neural Networks", 2016).
//!
//! A tile is 2 x 2 output pixels, which need 4 x 4 input pixels. Weights and inputs are transformed (`G g Gt`,
//! `Bt d B`), multiplied point by point of the 16 and summed over the channels, which are 16 matrix products, and the
//! sums transformed back (`At m A`). Its constants are 1 and 1/2, so that hardly more is rounded than in the plain sum.

use rayon::prelude::*;

use super::conv2d::{Run, Sizes, runs_of_panel};
use super::microkernel::{MR, NR, Simd};

/// Points of a transformed tile.
const POINTS: usize = 16;
/// The most tiles of one piece of work: panels of NR.
const TILES: usize = 5 * NR;
/// Channels of one pass: what they give at one point for all tiles stays in the first-level cache.
const DEPTH: usize = 64;
/// The most output channels of one piece of work.
const CHANNELS: usize = 14 * MR;
/// The most transformed weights that are held at once, as values: 16 MiB.
const MOST_WEIGHTS: usize = 1 << 22;
/// What lies between the values of one point and those of the next, so that the 16 don't fall into the same lines of a
/// cache.
const GAP: usize = NR;

/// Whether it can be done so, and there is more to gain than the transforms cost. One picture decides: what comes of it
/// is then the same among any others.
pub(super) fn pays(sizes: &Sizes) -> bool {
    let fits = sizes.kernel == (3, 3) && sizes.stride == 1;
    fits && sizes.channels >= 16 && sizes.out_channels >= MR && sizes.out_height * sizes.out_width >= 256
}

/// Some tiles of some output channels of one picture.
struct Piece<'a> {
    picture: &'a [f32],
    /// The first output channel, counted from the first of those whose weights are held.
    channel: usize,
    /// The first tile's row and column, in tiles, and how many there are.
    top: usize,
    left: usize,
    rows: usize,
    columns: usize,
    /// The pixels of each row, for each channel.
    out: Vec<&'a mut [f32]>,
    /// Rows of pixels: twice the tiles', or one less at an odd end.
    height: usize,
}

/// Adds the convolution of the pictures `x` with `weights` (O, C, 3, 3) to `out`, which holds the bias.
pub(super) fn convolve(x: &[f32], weights: &[f32], sizes: &Sizes, out: &mut [f32]) {
    let simd = Simd::detect();
    let (pixels, per_picture) =
        (sizes.out_height * sizes.out_width, sizes.channels * sizes.height * sizes.width);
    // So many output channels at a time that their weights can be held.
    let per_group = POINTS * sizes.channels * MR;
    let at_once = (MOST_WEIGHTS / per_group).max(1) * MR;
    // Whole pieces, for each transforms its inputs anew.
    let at_once = if at_once > CHANNELS { at_once / CHANNELS * CHANNELS } else { at_once };
    let mut transformed = vec![0f32; at_once.min(sizes.out_channels).div_ceil(MR) * per_group];
    for first in (0..sizes.out_channels).step_by(at_once) {
        let channels = at_once.min(sizes.out_channels - first);
        let weights = &weights[first * sizes.channels * 9..][..channels * sizes.channels * 9];
        transformed
            .par_chunks_exact_mut(per_group)
            .zip(weights.par_chunks(MR * sizes.channels * 9))
            .for_each(|(out, weights)| transform_weights(weights, sizes.channels, out));
        let pieces: Vec<Piece<'_>> = x
            .chunks_exact(per_picture)
            .zip(out.chunks_exact_mut(sizes.out_channels * pixels))
            .flat_map(|(picture, out)| {
                pieces(picture, sizes, &mut out[first * pixels..][..channels * pixels])
            })
            .collect();
        pieces
            .into_par_iter()
            .for_each_init(Room::default, |room, piece| one(simd, piece, &transformed, sizes, room));
    }
}

/// Cuts the planes into pieces: rectangles of at most TILES tiles, and so many channels of them.
fn pieces<'a>(picture: &'a [f32], sizes: &Sizes, planes: &'a mut [f32]) -> Vec<Piece<'a>> {
    let (down, across) = (sizes.out_height.div_ceil(2), sizes.out_width.div_ceil(2));
    // Evenly, and in whole panels but for the last.
    let columns = across.div_ceil(across.div_ceil(TILES)).next_multiple_of(NR).min(across);
    let rows = rows_of_pieces(columns).min(down);
    let mut pieces = Vec::new();
    for (part, planes) in planes.chunks_mut(CHANNELS * sizes.out_height * sizes.out_width).enumerate() {
        let first = pieces.len();
        let channels = planes.len() / (sizes.out_height * sizes.out_width);
        for top in (0..down).step_by(rows) {
            for left in (0..across).step_by(columns) {
                let height = (2 * rows).min(sizes.out_height - 2 * top);
                pieces.push(Piece {
                    picture,
                    channel: part * CHANNELS,
                    top,
                    left,
                    rows: rows.min(down - top),
                    columns: columns.min(across - left),
                    out: Vec::with_capacity(channels * height),
                    height,
                });
            }
        }
        let in_a_row = across.div_ceil(columns);
        for plane in planes.chunks_exact_mut(sizes.out_height * sizes.out_width) {
            for (band, pixels) in plane.chunks_mut(2 * rows * sizes.out_width).enumerate() {
                let pieces = &mut pieces[first + band * in_a_row..][..in_a_row];
                for row in pixels.chunks_exact_mut(sizes.out_width) {
                    for (piece, part) in pieces.iter_mut().zip(row.chunks_mut(2 * columns)) {
                        piece.out.push(part);
                    }
                }
            }
        }
    }
    pieces
}

/// How many rows of so many tiles make a piece: as many as leave the least of its panels empty.
fn rows_of_pieces(columns: usize) -> usize {
    let panels = |rows: usize| (rows * columns).div_ceil(NR);
    let most = (TILES / columns).max(1);
    (1..=most).rev().min_by(|&a, &b| (panels(a) * b).cmp(&(panels(b) * a))).unwrap_or(1)
}

/// What a thread works in.
#[derive(Default)]
struct Room {
    /// Transformed inputs: for each point and panel, DEPTH rows of NR.
    inputs: Vec<f32>,
    /// Sums: for each point and output channel, a row of tiles.
    sums: Vec<f32>,
    lines: Lines,
}

/// Four input rows of a run of tiles, their even and odd columns apart: each is read for two tiles.
struct Lines {
    even: [[f32; NR + 1]; 4],
    odd: [[f32; NR + 1]; 4],
}

impl Default for Lines {
    fn default() -> Self {
        Self { even: [[0.0; NR + 1]; 4], odd: [[0.0; NR + 1]; 4] }
    }
}

fn one(simd: Simd, mut piece: Piece<'_>, weights: &[f32], sizes: &Sizes, room: &mut Room) {
    let tiles = piece.rows * piece.columns;
    let panels = tiles.div_ceil(NR);
    let groups = (piece.out.len() / piece.height).div_ceil(MR);
    let runs: Vec<Vec<Run>> = (0..panels).map(|panel| runs(&piece, panel)).collect();
    let width = panels * NR;
    // How far apart two points are.
    let sums_apart = groups * MR * width + GAP;
    room.sums.clear();
    room.sums.resize(POINTS * sums_apart, 0.0);
    room.inputs.resize(POINTS * (panels * DEPTH.min(sizes.channels) * NR + GAP), 0.0);
    for from in (0..sizes.channels).step_by(DEPTH) {
        let depth = DEPTH.min(sizes.channels - from);
        let inputs_apart = panels * depth * NR + GAP;
        for (panel, runs) in runs.iter().enumerate() {
            for k in 0..depth {
                let plane =
                    &piece.picture[(from + k) * sizes.height * sizes.width..][..sizes.height * sizes.width];
                for run in runs {
                    room.lines.read(plane, sizes, run);
                    room.lines.transform(run.length, &mut room.inputs, |point| {
                        point * inputs_apart + (panel * depth + k) * NR + run.at
                    });
                }
            }
        }
        for point in 0..POINTS {
            let sums = &mut room.sums[point * sums_apart..][..groups * MR * width];
            for (group, sums) in sums.chunks_exact_mut(MR * width).enumerate() {
                let group = piece.channel / MR + group;
                let columns =
                    &weights[((group * sizes.channels + from) * POINTS + point * depth) * MR..][..depth * MR];
                let mut rows = rows_of(sums, width);
                for panel in 0..panels {
                    let block = &room.inputs[point * inputs_apart + panel * depth * NR..][..depth * NR];
                    simd.multiply(columns, block, &mut rows, panel * NR);
                }
            }
        }
    }
    for (channel, out) in piece.out.chunks_exact_mut(piece.height).enumerate() {
        transform_back(&room.sums[channel * width..], sums_apart, piece.columns, out);
    }
}

/// The MR rows of a matrix, which is that high.
fn rows_of(matrix: &mut [f32], width: usize) -> [&mut [f32]; MR] {
    let mut rows = matrix.chunks_exact_mut(width);
    std::array::from_fn(|_| rows.next().unwrap_or_default())
}

/// The runs of a panel of tiles, moved to their first input pixels, counted from the padding's corner.
fn runs(piece: &Piece<'_>, panel: usize) -> Vec<Run> {
    let corner =
        |run: Run| Run { row: 2 * (piece.top + run.row), column: 2 * (piece.left + run.column), ..run };
    let runs = runs_of_panel(piece.columns, panel * NR, piece.rows * piece.columns);
    runs.into_iter().map(corner).collect()
}

impl Lines {
    /// The rows that a run needs, zero outside the plane.
    fn read(&mut self, plane: &[f32], sizes: &Sizes, run: &Run) {
        for i in 0..4 {
            let (even, odd) = (&mut self.even[i][..=run.length], &mut self.odd[i][..=run.length]);
            let y = (run.row + i).wrapping_sub(sizes.padding);
            if y >= sizes.height {
                even.fill(0.0);
                odd.fill(0.0);
                continue;
            }
            let line = &plane[y * sizes.width..][..sizes.width];
            let first = run.column.checked_sub(sizes.padding);
            let inside = first.and_then(|first| line.get(first..first + 2 * run.length + 2));
            if let Some(inside) = inside {
                for ((even, odd), pair) in even.iter_mut().zip(odd).zip(inside.chunks_exact(2)) {
                    (*even, *odd) = (pair[0], pair[1]);
                }
            } else {
                let at =
                    |x: usize| x.checked_sub(sizes.padding).and_then(|x| line.get(x)).copied().unwrap_or(0.0);
                for (x, (even, odd)) in even.iter_mut().zip(odd).enumerate() {
                    (*even, *odd) = (at(run.column + 2 * x), at(run.column + 2 * x + 1));
                }
            }
        }
    }

    /// `Bt d B` of the run's tiles; `at` says where a point's values go.
    fn transform(&self, length: usize, out: &mut [f32], at: impl Fn(usize) -> usize) {
        let rows = |d: &[[f32; NR + 1]; 4], x: usize| {
            [d[0][x] - d[2][x], d[1][x] + d[2][x], d[2][x] - d[1][x], d[1][x] - d[3][x]]
        };
        let mut even = [[0f32; NR + 1]; 4];
        let mut odd = [[0f32; NR + 1]; 4];
        for x in 0..=length {
            let (e, o) = (rows(&self.even, x), rows(&self.odd, x));
            for i in 0..4 {
                even[i][x] = e[i];
                odd[i][x] = o[i];
            }
        }
        for (i, (even, odd)) in even.iter().zip(&odd).enumerate() {
            // The columns 0 to 3 of tile x are even x, odd x, even x + 1, odd x + 1.
            let (next_even, next_odd) = (&even[1..=length], &odd[1..=length]);
            let (even, odd) = (&even[..length], &odd[..length]);
            let mut put = |j: usize, one: &[f32], other: &[f32], sign: f32| {
                let out = &mut out[at(4 * i + j)..][..length];
                for ((out, &a), &b) in out.iter_mut().zip(one).zip(other) {
                    *out = a + sign * b;
                }
            };
            put(0, even, next_even, -1.0);
            put(1, odd, next_even, 1.0);
            put(2, next_even, odd, -1.0);
            put(3, odd, next_odd, -1.0);
        }
    }
}

/// `G g Gt` of MR output channels (fewer at the end, then zero). For each DEPTH channels, for each point, their columns
/// of MR.
fn transform_weights(weights: &[f32], channels: usize, out: &mut [f32]) {
    let half = |a: [f32; MR], b: [f32; MR], c: [f32; MR], sign: f32| -> [f32; MR] {
        std::array::from_fn(|i| 0.5 * ((a[i] + c[i]) + sign * b[i]))
    };
    for k in 0..channels {
        let from = k / DEPTH * DEPTH;
        let depth = DEPTH.min(channels - from);
        let mut g = [[[0f32; MR]; 3]; 3];
        for (lane, weights) in weights.chunks_exact(channels * 9).enumerate() {
            for (at, &w) in weights[k * 9..][..9].iter().enumerate() {
                g[at / 3][at % 3][lane] = w;
            }
        }
        // Columns first: 4 x 3.
        let [top, middle, bottom] = g;
        let column = |j: usize| {
            let (a, b, c) = (top[j], middle[j], bottom[j]);
            [a, half(a, b, c, 1.0), half(a, b, c, -1.0), c]
        };
        let columns = [column(0), column(1), column(2)];
        for i in 0..4 {
            let (a, b, c) = (columns[0][i], columns[1][i], columns[2][i]);
            for (j, point) in [a, half(a, b, c, 1.0), half(a, b, c, -1.0), c].into_iter().enumerate() {
                out[(from * POINTS + (4 * i + j) * depth + k - from) * MR..][..MR].copy_from_slice(&point);
            }
        }
    }
}

/// Adds `At m A` of the tiles of one output channel to its rows. `sums` holds the tiles of each point, so far `apart`.
fn transform_back(sums: &[f32], apart: usize, columns: usize, out: &mut [&mut [f32]]) {
    for (row, out) in out.chunks_mut(2).enumerate() {
        for start in (0..columns).step_by(NR) {
            let length = NR.min(columns - start);
            let m = |i: usize| &sums[i * apart + row * columns + start..][..length];
            // Rows first: 2 x 4.
            let (mut upper, mut lower) = ([[0f32; NR]; 4], [[0f32; NR]; 4]);
            for (j, (upper, lower)) in upper.iter_mut().zip(&mut lower).enumerate() {
                let (a, b, c, d) = (m(j), m(4 + j), m(8 + j), m(12 + j));
                for x in 0..length {
                    upper[x] = a[x] + b[x] + c[x];
                    lower[x] = b[x] - c[x] - d[x];
                }
            }
            for (half, pixels) in [upper, lower].iter().zip(out.iter_mut()) {
                let mut pairs = [[0f32; 2]; NR];
                for (x, pair) in pairs[..length].iter_mut().enumerate() {
                    let (a, b, c, d) = (half[0][x], half[1][x], half[2][x], half[3][x]);
                    *pair = [a + b + c, b - c - d];
                }
                for (pixel, y) in pixels[2 * start..].iter_mut().zip(pairs[..length].as_flattened()) {
                    *pixel += y;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_leave_little_of_their_panels_empty() {
        // The widths of SDXL's and SD 1.5's first level at common sizes, in tiles.
        for (columns, most) in
            [(8, 1.0), (16, 1.0), (32, 1.0), (48, 1.0), (64, 1.0), (72, 1.12), (76, 1.06), (80, 1.0)]
        {
            let tiles = rows_of_pieces(columns) * columns;
            assert!(tiles <= TILES);
            let share = (tiles.div_ceil(NR) * NR) as f64 / tiles as f64;
            assert!(share <= most, "{columns}: {share}");
        }
        assert_eq!(rows_of_pieces(TILES), 1);
    }
}
