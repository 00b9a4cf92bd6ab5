//! Attention with the queries along the vector lanes.
//!
//! A panel of NR queries is a column block: its scores are `K Q^T` (keys x NR), its result `V^T P` (D x NR). The
//! softmax runs down the columns, so that it needs no sum across lanes, and the scores of one panel stay in the
//! second-level cache: the N x N matrix never exists.

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, bail};
use rayon::prelude::*;

use super::microkernel::{MR, NR, Simd};
use super::softmax::softmax_columns;

/// `softmax(scale * q k^T) v` for `q` (B, heads, N, D), `k` and `v` (B, heads, M, D) in f32, last dimension dense.
pub(crate) struct Attention {
    pub(crate) scale: f32,
}

/// One tensor as (batch x heads) matrices of rows, wherever they lie.
struct Heads<'a> {
    values: &'a [f32],
    start: usize,
    heads: usize,
    strides: (usize, usize, usize),
    rows: usize,
    width: usize,
}

impl<'a> Heads<'a> {
    fn new(storage: &'a CpuStorage, layout: &Layout) -> Result<Self> {
        let CpuStorage::F32(values) = storage else { bail!("attention: f32 only on this path") };
        let (_, heads, rows, width) = layout.shape().dims4()?;
        let [batch, head, row, element] = layout.stride() else {
            bail!("attention: four dimensions are needed")
        };
        if *element != 1 && width != 1 {
            bail!("attention: the last dimension has to be dense")
        }
        Ok(Self { values, start: layout.start_offset(), heads, strides: (*batch, *head, *row), rows, width })
    }

    fn row(&self, head: usize, row: usize) -> &'a [f32] {
        let (batch, head) = (head / self.heads, head % self.heads);
        let at = self.start + batch * self.strides.0 + head * self.strides.1 + row * self.strides.2;
        &self.values[at..at + self.width]
    }

    /// Groups of MR rows, each group as columns of MR: the left side of a product with these rows.
    fn pack_rows(&self, head: usize) -> Vec<f32> {
        let mut packed = vec![0f32; self.rows.div_ceil(MR) * MR * self.width];
        for (group, columns) in packed.chunks_exact_mut(MR * self.width).enumerate() {
            for i in 0..MR.min(self.rows - group * MR) {
                for (k, &x) in self.row(head, group * MR + i).iter().enumerate() {
                    columns[k * MR + i] = x;
                }
            }
        }
        packed
    }

    /// Groups of MR columns, each group as one run of MR per row: the left side of a product with the transpose.
    fn pack_columns(&self, head: usize) -> Vec<f32> {
        let mut packed = vec![0f32; self.width.div_ceil(MR) * MR * self.rows];
        for (group, runs) in packed.chunks_exact_mut(MR * self.rows).enumerate() {
            for (row, run) in runs.chunks_exact_mut(MR).enumerate() {
                let columns = &self.row(head, row)[group * MR..self.width.min(group * MR + MR)];
                run[..columns.len()].copy_from_slice(columns);
            }
        }
        packed
    }

    /// Rows `first..` as columns of NR, scaled: the right side of a product.
    fn pack_panel(&self, head: usize, first: usize, scale: f32, panel: &mut [f32]) {
        panel.fill(0.0);
        for i in 0..NR.min(self.rows - first) {
            for (k, &x) in self.row(head, first + i).iter().enumerate() {
                panel[k * NR + i] = x * scale;
            }
        }
    }
}

impl CustomOp3 for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(
        &self,
        q: &CpuStorage,
        q_layout: &Layout,
        k: &CpuStorage,
        k_layout: &Layout,
        v: &CpuStorage,
        v_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (q, k, v) = (Heads::new(q, q_layout)?, Heads::new(k, k_layout)?, Heads::new(v, v_layout)?);
        let (batch, heads, queries, width) = q_layout.shape().dims4()?;
        if k_layout.dims() != v_layout.dims()
            || k_layout.dims() != [batch, heads, k.rows, width]
            || k.rows == 0
        {
            bail!("attention: q {:?}, k {:?}, v {:?}", q_layout.dims(), k_layout.dims(), v_layout.dims())
        }
        let packed: Vec<_> = (0..batch * heads)
            .into_par_iter()
            .map(|head| (k.pack_rows(head), v.pack_columns(head)))
            .collect();
        let mut out = vec![0f32; batch * heads * queries * width];
        let per_head = out.chunks_mut((queries * width).max(1)).enumerate();
        let panels: Vec<_> = per_head
            .flat_map(|(head, rows)| {
                rows.chunks_mut(NR * width).enumerate().map(move |(p, rows)| (head, p, rows))
            })
            .collect();
        let simd = Simd::detect();
        let (scale, keys) = (self.scale, k.rows);
        panels.into_par_iter().for_each_init(
            || Scratch::new(keys, width),
            |scratch, (head, panel, rows)| {
                q.pack_panel(head, panel * NR, scale, &mut scratch.queries);
                let (k, v) = &packed[head];
                scratch.attend(simd, k, v, (keys, width), rows);
            },
        );
        Ok((CpuStorage::F32(out), Shape::from((batch, heads, queries, width))))
    }
}

/// The working memory of one panel.
struct Scratch {
    /// `(D, NR)`.
    queries: Vec<f32>,
    /// `(keys, NR)`: scores, then probabilities that are not yet divided by their sums.
    scores: Vec<f32>,
}

impl Scratch {
    fn new(keys: usize, width: usize) -> Self {
        Self { queries: vec![0.0; width * NR], scores: vec![0.0; keys * NR] }
    }

    fn attend(&mut self, simd: Simd, k: &[f32], v: &[f32], (keys, width): (usize, usize), out: &mut [f32]) {
        for (k, scores) in k.chunks_exact(MR * width).zip(self.scores.chunks_mut(MR * NR)) {
            let mut tile = [[0f32; NR]; MR];
            simd.multiply(k, &self.queries, &mut tile.each_mut().map(|row| row.as_mut_slice()), 0);
            scores.copy_from_slice(&tile.as_flattened()[..scores.len()]);
        }
        let inverse_sums = softmax_columns(simd, &mut self.scores);
        for (group, v) in v.chunks_exact(MR * keys).enumerate() {
            let mut tile = [[0f32; NR]; MR];
            simd.multiply(v, &self.scores, &mut tile.each_mut().map(|row| row.as_mut_slice()), 0);
            for (channel, values) in (group * MR..width).zip(&tile) {
                for ((row, value), inverse) in out.chunks_exact_mut(width).zip(values).zip(&inverse_sums) {
                    row[channel] = value * inverse;
                }
            }
        }
    }
}
