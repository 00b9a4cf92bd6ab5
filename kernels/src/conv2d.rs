//! The two-dimensional convolution.

use candle_core::{DType, Result, Tensor, bail};

use crate::cpu;
#[cfg(feature = "cudnn")]
use crate::cuda;
#[cfg(feature = "cuda")]
use crate::cuda::bias::AddBias;

/// The most patch values held at once where candle gathers them before its matrix product, as it does on Metal and on
/// CUDA without cuDNN: 4 GiB of them in `f32`. It counts its threads in 32 bits, so that from 2^32 on it would leave a
/// part of the output undone without a word: a picture of 2048 x 2048 in the VAE's last level needs twice that.
const MAX_PATCHES: usize = 1 << 30;

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
    #[cfg(feature = "cuda")]
    if (stride, padding) == (1, 0)
        && let Some(out) = pointwise(x, weight)?
    {
        return with_bias(out, bias);
    }
    #[cfg(feature = "cudnn")]
    if let Some(out) = cuda::conv2d::forward(x, weight, bias, stride, padding)? {
        return Ok(out);
    }
    let out = composed(x, weight, stride, padding, MAX_PATCHES)?;
    with_bias(out, bias)
}

/// `out` (B, O, H, W), which nobody else holds, plus `bias` (O).
fn with_bias(out: Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let Some(bias) = bias else { return Ok(out) };
    #[cfg(feature = "cuda")]
    if AddBias::Channel.fits(&out, bias) {
        out.inplace_op2(&bias.contiguous()?, &AddBias::Channel)?;
        return Ok(out);
    }
    out.broadcast_add(&bias.reshape((1, (), 1, 1))?)
}

/// A convolution with single pixels on CUDA, as what it is: the same product (O, C) x (C, HW) for every picture.
#[cfg(feature = "cuda")]
fn pointwise(x: &Tensor, weight: &Tensor) -> Result<Option<Tensor>> {
    let (batch, channels, height, width) = x.dims4()?;
    let (outputs, inputs, kh, kw) = weight.dims4()?;
    if !x.device().is_cuda() || (kh, kw) != (1, 1) {
        return Ok(None);
    }
    let weight =
        weight.contiguous()?.reshape((1, outputs, inputs))?.broadcast_as((batch, outputs, inputs))?;
    let pixels = x.contiguous()?.reshape((batch, channels, height * width))?;
    Ok(Some(weight.matmul(&pixels)?.reshape((batch, outputs, height, width))?))
}

/// A convolution without bias, over as much of the output at a time as needs `max_patches` values.
///
/// Both operands are made contiguous: its Metal path reads the wrong buffer otherwise.
fn composed(
    x: &Tensor,
    weight: &Tensor,
    stride: usize,
    padding: usize,
    max_patches: usize,
) -> Result<Tensor> {
    let (batch, channels, height, width) = x.dims4()?;
    let (_, _, kh, kw) = weight.dims4()?;
    let (x, weight) = (x.contiguous()?, weight.contiguous()?);
    if height + 2 * padding < kh || width + 2 * padding < kw || stride == 0 {
        bail!("conv2d: picture {:?}, weight {:?}, stride {stride}", x.shape(), weight.shape())
    }
    let out_height = (height + 2 * padding - kh) / stride + 1;
    let out_width = (width + 2 * padding - kw) / stride + 1;
    let per_row = channels * kh * kw * out_width;
    if batch * out_height * per_row <= max_patches {
        return at_once(&x, &weight, stride, padding);
    }
    let rows = (max_patches / per_row.max(1)).max(1);
    let picture = |i: usize| {
        let padded = x.narrow(0, i, 1)?.pad_with_zeros(2, padding, padding)?;
        let padded = padded.pad_with_zeros(3, padding, padding)?;
        let slices = (0..out_height).step_by(rows).map(|first| {
            let count = rows.min(out_height - first);
            let needed = padded.narrow(2, first * stride, (count - 1) * stride + kh)?;
            at_once(&needed.contiguous()?, &weight, stride, 0)
        });
        Tensor::cat(&slices.collect::<Result<Vec<_>>>()?, 2)
    };
    Tensor::cat(&(0..batch).map(picture).collect::<Result<Vec<_>>>()?, 0)
}

/// Without slices: candle's, or ours where a slice is not too large for it.
fn at_once(x: &Tensor, weight: &Tensor, stride: usize, padding: usize) -> Result<Tensor> {
    #[cfg(feature = "cudnn")]
    if let Some(out) = cuda::conv2d::forward(x, weight, None, stride, padding)? {
        return Ok(out);
    }
    x.conv2d(weight, padding, stride, 1, 1)
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

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn large_pictures_match_the_naive_loop_each_as_alone(
            b in 1usize..3, c in 16usize..40, o in 12usize..40, h in 1usize..40, w in 1usize..40, padding in 1usize..4
        ) {
            let w = w.max(256_usize.div_ceil(h));
            let (x, weight, bias) = (noise(&[b, c, h, w], 1), noise(&[o, c, 3, 3], 2), noise(&[o], 3));
            let out = conv2d(&x, &weight, Some(&bias), 1, padding).unwrap();
            assert_close(&out, &naive(&x, &weight, &bias, 1, padding), 3e-5);
            let last = conv2d(&x.narrow(0, b - 1, 1).unwrap(), &weight, Some(&bias), 1, padding).unwrap();
            prop_assert_eq!(values(&out.narrow(0, b - 1, 1).unwrap()), values(&last));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn slices_match_the_naive_loop(
            b in 1usize..3, c in 1usize..4, h in 3usize..9, w in 3usize..9,
            kernel in prop::sample::select(vec![1usize, 3]), stride in 1usize..3, padding in 0usize..2,
            max_patches in 1usize..400
        ) {
            let (x, weight) = (noise(&[b, c, h, w], 1), noise(&[2, c, kernel, kernel], 2));
            let out = composed(&x, &weight, stride, padding, max_patches).unwrap();
            assert_close(&out, &naive(&x, &weight, &noise(&[2], 3).zeros_like().unwrap(), stride, padding), 1e-5);
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
