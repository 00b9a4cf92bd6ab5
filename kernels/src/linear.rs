//! The fully connected layer.

use candle_core::{D, Result, Tensor};

/// `x` (.., I) times the transpose of `weight` (O, I), plus `bias` (O): (.., O).
///
/// All leading dimensions become the rows of one matrix product. The weight is read through a transposed view: no
/// copy, and no batched product that would read the weight once per picture.
pub fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let mut dims = x.dims().to_vec();
    let rows = x.reshape(((), x.dim(D::Minus1)?))?;
    let out = rows.matmul(&weight.t()?)?;
    let out = match bias {
        Some(bias) => out.broadcast_add(bias)?,
        None => out,
    };
    if let Some(last) = dims.last_mut() {
        *last = weight.dim(0)?;
    }
    out.reshape(dims)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::{assert_close, noise, tensor, values};
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn matches_the_naive_loop(b in 1usize..3, n in 1usize..9, i in 1usize..40, o in 1usize..40) {
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
    fn a_strided_input_and_no_bias() {
        let x = noise(&[3, 5], 1).t().unwrap();
        let w = noise(&[2, 3], 2);
        let expected = linear(&x.contiguous().unwrap(), &w, None).unwrap();
        assert_eq!(values(&linear(&x, &w, None).unwrap()), values(&expected));
    }
}
