//! The fully connected layer.

use candle_core::{D, DType, Result, Tensor};

use crate::cpu;
#[cfg(feature = "cuda")]
use crate::cuda::bias::AddBias;

/// Below this many rows the CPU reads the weight once through a plain product: packing it would cost more.
const FEW_ROWS: usize = 8;

/// `x` (.., I) times the transpose of `weight` (O, I), plus `bias` (O): (.., O).
///
/// All leading dimensions become the rows of one matrix product.
pub fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let mut dims = x.dims().to_vec();
    let rows = x.reshape(((), x.dim(D::Minus1)?))?;
    let outputs = weight.dim(0)?;
    let plain = x.dtype() == DType::F32 && weight.dtype() == DType::F32;
    let out = if x.device().is_cpu() && plain && rows.dim(0)? >= FEW_ROWS {
        let bias = match bias {
            Some(bias) => bias.contiguous()?,
            None => Tensor::zeros(outputs, DType::F32, x.device())?,
        };
        rows.contiguous()?.apply_op3_no_bwd(&weight.contiguous()?, &bias, &cpu::linear::Linear)?
    } else {
        composed(&rows, weight, bias)?
    };
    if let Some(last) = dims.last_mut() {
        *last = outputs;
    }
    out.reshape(dims)
}

/// candle's product. The weight is read through a transposed view: no copy.
fn composed(rows: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let out = rows.matmul(&weight.t()?)?;
    let Some(bias) = bias else { return Ok(out) };
    #[cfg(feature = "cuda")]
    if AddBias::Last.fits(&out, bias) {
        // The product is nobody else's yet.
        out.inplace_op2(&bias.contiguous()?, &AddBias::Last)?;
        return Ok(out);
    }
    out.broadcast_add(bias)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::{assert_close, assert_same_for_any_thread_count, noise, tensor, values};
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn matches_the_naive_loop(b in 1usize..3, n in 1usize..40, i in 1usize..40, o in 1usize..80) {
            let (x, w, bias) = (noise(&[b, n, i], 1), noise(&[o, i], 2), noise(&[o], 3));
            let (xs, ws, bs) = (values(&x), values(&w), values(&bias));
            let mut expected = Vec::new();
            for row in 0..b * n {
                for col in 0..o {
                    let dot: f64 = (0..i).map(|k| f64::from(xs[row * i + k]) * f64::from(ws[col * i + k])).sum();
                    expected.push((dot + f64::from(bs[col])) as f32);
                }
            }
            assert_close(&linear(&x, &w, Some(&bias)).unwrap(), &tensor(&expected, &[b, n, o]), 1e-5);
        }
    }

    #[test]
    fn pieces_and_depths_join_seamlessly() {
        let (x, w, bias) = (noise(&[1600, 401], 1), noise(&[700, 401], 2), noise(&[700], 3));
        let expected = composed(&x, &w, Some(&bias)).unwrap();
        assert_close(&linear(&x, &w, Some(&bias)).unwrap(), &expected, 1e-5);
    }

    #[test]
    fn thread_count_does_not_matter() {
        let (x, w) = (noise(&[900, 64], 1), noise(&[400, 64], 2));
        assert_same_for_any_thread_count(|| linear(&x, &w, None).unwrap());
    }

    #[test]
    fn a_strided_input_and_no_bias() {
        let x = noise(&[3, 5], 1).t().unwrap();
        let w = noise(&[2, 3], 2);
        let expected = linear(&x.contiguous().unwrap(), &w, None).unwrap();
        assert_eq!(values(&linear(&x, &w, None).unwrap()), values(&expected));
    }
}
