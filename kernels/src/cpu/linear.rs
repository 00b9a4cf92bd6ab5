//! The fully connected layer as a matrix product: rows of the input times the transposed weight.

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, bail};
use rayon::prelude::*;

use super::microkernel::{NR, Simd};
use super::product::{Rows, product, split_columns};

/// Input rows of one piece of work.
const ROWS: usize = 512;
/// Outputs of one piece of work.
const OUTPUTS: usize = 640;

/// `x (N,I) * weight (O,I)^T + bias (O) -> (N,O)` in f32, contiguous.
pub(crate) struct Linear;

impl CustomOp3 for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_at: &Layout,
        weight: &CpuStorage,
        weight_at: &Layout,
        bias: &CpuStorage,
        bias_at: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let x = super::slice::<f32>(x, x_at)?;
        let weight = super::slice::<f32>(weight, weight_at)?;
        let bias = super::slice::<f32>(bias, bias_at)?;
        let (count, inputs) = x_at.shape().dims2()?;
        let (outputs, weight_inputs) = weight_at.shape().dims2()?;
        if inputs != weight_inputs || bias.len() != outputs || inputs == 0 || outputs == 0 {
            bail!("linear: x {:?}, weight {:?}, bias {:?}", x_at.dims(), weight_at.dims(), bias_at.dims())
        }
        let mut out = bias.repeat(count);
        let pieces: Vec<_> = out
            .chunks_mut(ROWS * outputs)
            .enumerate()
            .flat_map(|(chunk, rows)| {
                let columns = split_columns(rows, outputs, OUTPUTS);
                columns.into_iter().map(move |(output, rows)| (chunk * ROWS, output, rows))
            })
            .collect();
        let simd = Simd::detect();
        pieces.into_par_iter().for_each(|(row, output, mut rows)| {
            let left = Rows { values: &x[row * inputs..(row + rows.len()) * inputs], depth: inputs };
            let right = Rows { values: weight, depth: inputs };
            product(simd, &mut rows, left, |panel, from, block| {
                right.pack_transposed(output + panel * NR, from, block);
            });
        });
        Ok((CpuStorage::F32(out), Shape::from((count, outputs))))
    }
}
