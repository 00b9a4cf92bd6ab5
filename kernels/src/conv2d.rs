//! The two-dimensional convolution.

use candle_core::{DType, Result, Tensor};

use crate::cpu;

/// Convolves `x` (B, C, H, W) with `weight` (O, C, kh, kw) and adds `bias` (O): (B, O, H', W') with
/// `H' = (H + 2 padding - kh) / stride + 1` and W' likewise. `padding` is zeros on all four sides.
pub fn conv2d(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    stride: usize,
    padding: usize,
) -> Result<Tensor> {
    let out_channels = weight.dim(0)?;
    if x.device().is_cpu() {
        // Half formats are widened, so that they are summed in f32.
        let wide = |t: &Tensor| t.to_dtype(DType::F32)?.contiguous();
        let bias = match bias {
            Some(bias) => wide(bias)?,
            None => Tensor::zeros(out_channels, DType::F32, x.device())?,
        };
        let op = cpu::conv2d::Conv2d { stride, padding };
        return wide(x)?.apply_op3_no_bwd(&wide(weight)?, &bias, &op)?.to_dtype(x.dtype());
    }
    let out = composed(x, weight, stride, padding)?;
    match bias {
        Some(bias) => out.broadcast_add(&bias.reshape((1, out_channels, 1, 1))?),
        None => Ok(out),
    }
}

/// candle's own convolution. Both operands are made contiguous: its Metal path reads the wrong buffer otherwise.
fn composed(x: &Tensor, weight: &Tensor, stride: usize, padding: usize) -> Result<Tensor> {
    x.contiguous()?.conv2d(&weight.contiguous()?, padding, stride, 1, 1)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::{assert_close, assert_same_for_any_thread_count, noise, tensor, values};
    use proptest::prelude::*;

    fn naive(x: &Tensor, w: &Tensor, bias: &Tensor, stride: usize, padding: usize) -> Tensor {
        let (b, c, h, wd) = x.dims4().unwrap();
        let (o, _, kh, kw) = w.dims4().unwrap();
        let (oh, ow) = ((h + 2 * padding - kh) / stride + 1, (wd + 2 * padding - kw) / stride + 1);
        let (xs, ws, bs) = (values(x), values(w), values(bias));
        let mut out = Vec::new();
        for n in 0..b {
            for (oc, &bias) in bs.iter().enumerate() {
                for i in 0..oh {
                    for j in 0..ow {
                        let mut sum = f64::from(bias);
                        for ic in 0..c {
                            for ki in 0..kh {
                                for kj in 0..kw {
                                    let (y, z) = (i * stride + ki, j * stride + kj);
                                    if (padding..h + padding).contains(&y)
                                        && (padding..wd + padding).contains(&z)
                                    {
                                        let at = ((n * c + ic) * h + y - padding) * wd + z - padding;
                                        let k = ((oc * c + ic) * kh + ki) * kw + kj;
                                        sum += f64::from(xs[at]) * f64::from(ws[k]);
                                    }
                                }
                            }
                        }
                        out.push(sum as f32);
                    }
                }
            }
        }
        tensor(&out, &[b, o, oh, ow])
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn matches_the_naive_loop(
            b in 1usize..3, c in 1usize..6, o in 1usize..6, h in 3usize..9, w in 3usize..9,
            kernel in prop::sample::select(vec![1usize, 3]), stride in 1usize..3, padding in 0usize..2
        ) {
            let (x, weight, bias) = (noise(&[b, c, h, w], 1), noise(&[o, c, kernel, kernel], 2), noise(&[o], 3));
            let out = conv2d(&x, &weight, Some(&bias), stride, padding).unwrap();
            assert_close(&out, &naive(&x, &weight, &bias, stride, padding), 1e-5);
        }
    }

    #[test]
    fn half_formats_run_on_the_cpu() {
        for dtype in [DType::BF16, DType::F16] {
            for kernel in [1, 3] {
                let x = noise(&[1, 4, 5, 5], 1).to_dtype(dtype).unwrap();
                let w = noise(&[3, 4, kernel, kernel], 2).to_dtype(dtype).unwrap();
                let bias = noise(&[3], 3).to_dtype(dtype).unwrap();
                let out = conv2d(&x, &w, Some(&bias), 1, kernel / 2).unwrap();
                assert_eq!(out.dtype(), dtype);
                assert_close(&out, &naive(&x, &w, &bias, 1, kernel / 2), 1.5e-2);
            }
        }
    }

    #[test]
    fn a_strided_input_is_read_in_its_own_order() {
        let x = noise(&[1, 5, 6, 3], 1).permute((0, 3, 1, 2)).unwrap();
        let (w, bias) = (noise(&[2, 3, 1, 1], 2), noise(&[2], 3));
        assert_close(&conv2d(&x, &w, Some(&bias), 1, 0).unwrap(), &naive(&x, &w, &bias, 1, 0), 1e-5);
    }

    #[test]
    fn thread_count_does_not_matter() {
        let (x, w) = (noise(&[2, 32, 24, 24], 1), noise(&[48, 32, 3, 3], 2));
        assert_same_for_any_thread_count(|| conv2d(&x, &w, None, 1, 1).unwrap());
    }
}
