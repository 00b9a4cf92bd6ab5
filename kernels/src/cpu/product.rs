//! The matrix product of one piece of an output: whatever the right side is gathered from.

use std::ops::Range;

use super::microkernel::{MR, NR, Simd};

/// Depth of one pass: a packed block of the right side (DEPTH x a few hundred columns) stays in the second-level cache.
const DEPTH: usize = 384;

/// A matrix whose rows lie one after the other, `depth` values each.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    pub(super) values: &'a [f32],
    pub(super) depth: usize,
}

impl<'a> Rows<'a> {
    fn row(self, index: usize) -> &'a [f32] {
        &self.values[index * self.depth..][..self.depth]
    }

    /// Rows `first..first + rows`, columns `from..`, as columns of MR; missing rows are zero.
    fn pack_left(self, first: usize, rows: usize, from: usize, left: &mut [f32]) {
        let depth = left.len() / MR;
        for i in 0..MR {
            if i < rows {
                for (column, &x) in left.chunks_exact_mut(MR).zip(&self.row(first + i)[from..from + depth]) {
                    column[i] = x;
                }
            } else {
                left.iter_mut().skip(i).step_by(MR).for_each(|x| *x = 0.0);
            }
        }
    }

    /// Rows `first..` as the NR columns of a panel, from depth `from` on; missing rows are zero.
    pub(super) fn pack_transposed(self, first: usize, from: usize, panel: &mut [f32]) {
        let depth = panel.len() / NR;
        let rows = (self.values.len() / self.depth - first).min(NR);
        if rows < NR {
            panel.fill(0.0);
        }
        // A cache line of each row at a time.
        for (block, values) in panel.chunks_mut(NR * 16).enumerate() {
            let at = from + block * 16;
            let end = (at + 16).min(from + depth);
            for i in 0..rows {
                for (column, &x) in values.chunks_exact_mut(NR).zip(&self.row(first + i)[at..end]) {
                    column[i] = x;
                }
            }
        }
    }
}

/// `rows += left * right`: row i gains `left` row i times the columns that `pack_right(panel, from, block)` gives, NR of
/// them for each panel, as rows of NR from depth `from` on. The sums over the depth are always taken in the same order.
pub(super) fn product(
    simd: Simd,
    rows: &mut [&mut [f32]],
    left: Rows<'_>,
    pack_right: impl Fn(usize, usize, &mut [f32]),
) {
    let count = rows.first().map_or(0, |row| row.len());
    let mut right = vec![0f32; count.div_ceil(NR) * NR * DEPTH.min(left.depth)];
    let mut columns = vec![0f32; MR * DEPTH];
    for from in (0..left.depth).step_by(DEPTH) {
        let depth = DEPTH.min(left.depth - from);
        let columns = &mut columns[..depth * MR];
        for (panel, block) in right.chunks_exact_mut(NR * depth).take(count.div_ceil(NR)).enumerate() {
            pack_right(panel, from, block);
        }
        for (group, rows) in rows.chunks_mut(MR).enumerate() {
            left.pack_left(group * MR, rows.len(), from, columns);
            for (panel, block) in right.chunks_exact(NR * depth).take(count.div_ceil(NR)).enumerate() {
                let part = panel * NR..(panel * NR + NR).min(count);
                match <&mut [&mut [f32]; MR]>::try_from(&mut *rows) {
                    Ok(rows) if part.len() == NR => simd.multiply(columns, block, rows, part.start),
                    _ => edge(simd, columns, block, rows, part),
                }
            }
        }
    }
}

/// A tile that is not whole, by way of one that is.
fn edge(simd: Simd, columns: &[f32], block: &[f32], rows: &mut [&mut [f32]], part: Range<usize>) {
    let mut tile = [[0f32; NR]; MR];
    for (tile, row) in tile.iter_mut().zip(rows.iter()) {
        tile[..part.len()].copy_from_slice(&row[part.clone()]);
    }
    simd.multiply(columns, block, &mut tile.each_mut().map(|row| row.as_mut_slice()), 0);
    for (tile, row) in tile.iter().zip(rows.iter_mut()) {
        row[part.clone()].copy_from_slice(&tile[..part.len()]);
    }
}

/// A matrix of rows of `width` as column ranges of `part` each: for every range its first column and one slice per row.
pub(super) fn split_columns(matrix: &mut [f32], width: usize, part: usize) -> Vec<(usize, Vec<&mut [f32]>)> {
    let ranges = width.div_ceil(part);
    let mut columns: Vec<(usize, Vec<&mut [f32]>)> = (0..ranges).map(|i| (i * part, Vec::new())).collect();
    for row in matrix.chunks_exact_mut(width) {
        for (part, column) in row.chunks_mut(part).zip(&mut columns) {
            column.1.push(part);
        }
    }
    columns
}
