//! Normalisation over groups of channels.

#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp3, D, DType, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

#[cfg(feature = "cuda")]
use crate::cuda::{self, group_norm::Options};
use crate::{activation, cpu};

/// Group normalisation (Wu and He, arXiv 1803.08494) of `x` (B, C, ..) over `groups` groups of channels, with
/// `weight` (C) and `bias` (C), in `f32`.
pub fn group_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, groups: usize, eps: f64) -> Result<Tensor> {
    normalise(x, weight, bias, &GroupNorm { groups, eps, silu: false })
}

/// [`group_norm`] followed by SiLU: the pair that stands before every convolution of a residual block.
pub fn group_norm_silu(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    groups: usize,
    eps: f64,
) -> Result<Tensor> {
    normalise(x, weight, bias, &GroupNorm { groups, eps, silu: true })
}

fn normalise(x: &Tensor, weight: &Tensor, bias: &Tensor, op: &GroupNorm) -> Result<Tensor> {
    let channels = x.dim(1)?;
    if op.groups == 0 || channels % op.groups != 0 || weight.dims() != [channels] || bias.dims() != [channels]
    {
        bail!(
            "group_norm: x {:?}, weight {:?}, bias {:?} do not fit {} groups",
            x.dims(),
            weight.dims(),
            bias.dims(),
            op.groups
        );
    }
    let dtype = x.dtype();
    #[cfg(feature = "cuda")]
    if cuda::group_norm::fits(x, weight, bias, op.groups) {
        let own = |t: &Tensor| t.to_dtype(dtype)?.contiguous();
        return x.contiguous()?.apply_op3_no_bwd(&own(weight)?, &own(bias)?, op);
    }
    let x = x.to_dtype(DType::F32)?.contiguous()?;
    let weight = weight.to_dtype(DType::F32)?.contiguous()?;
    let bias = bias.to_dtype(DType::F32)?.contiguous()?;
    let out = if x.device().is_cpu() {
        x.apply_op3_no_bwd(&weight, &bias, op)?
    } else {
        op.composed(&x, &weight, &bias)?
    };
    out.to_dtype(dtype)
}

struct GroupNorm {
    groups: usize,
    eps: f64,
    silu: bool,
}

impl GroupNorm {
    fn composed(&self, x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
        let (batch, channels) = (x.dim(0)?, x.dim(1)?);
        let rows = x.reshape((batch, self.groups, ()))?;
        let centred = rows.broadcast_sub(&rows.mean_keepdim(D::Minus1)?)?;
        let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
        let out = centred
            .broadcast_div(&(variance + self.eps)?.sqrt()?)?
            .reshape((batch, channels, ()))?
            .broadcast_mul(&weight.reshape((1, channels, 1))?)?
            .broadcast_add(&bias.reshape((1, channels, 1))?)?
            .reshape(x.shape())?;
        if self.silu { out.silu() } else { Ok(out) }
    }
}

impl CustomOp3 for GroupNorm {
    fn name(&self) -> &'static str {
        "group_norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let shape = x_layout.shape();
        let x = cpu::slice::<f32>(x, x_layout)?;
        let weight = cpu::slice::<f32>(weight, weight_layout)?;
        let bias = cpu::slice::<f32>(bias, bias_layout)?;
        let plane: usize = shape.dims()[2..].iter().product();
        let channels = weight.len() / self.groups;
        let mut out = vec![0f32; x.len()];
        if !out.is_empty() {
            let rows = out.par_chunks_mut(channels * plane).zip(x.par_chunks(channels * plane));
            rows.enumerate().for_each(|(row, (out, x))| {
                let (mean, variance) = cpu::moments(x);
                let deviation = 1.0 / (variance + self.eps).sqrt();
                let first = row % self.groups * channels;
                for (c, (out, x)) in out.chunks_mut(plane).zip(x.chunks(plane)).enumerate() {
                    let scale = (deviation * f64::from(weight[first + c])) as f32;
                    let mean = mean as f32;
                    let shift = bias[first + c];
                    for (out, &x) in out.iter_mut().zip(x) {
                        let y = (x - mean) * scale + shift;
                        *out = if self.silu { activation::silu_f32(y) } else { y };
                    }
                }
            });
        }
        Ok((CpuStorage::F32(out), shape.clone()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        x: &CudaStorage,
        x_layout: &Layout,
        weight: &CudaStorage,
        weight_layout: &Layout,
        bias: &CudaStorage,
        bias_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let options = Options { groups: self.groups, eps: self.eps, silu: self.silu };
        cuda::group_norm::forward((x, x_layout), (weight, weight_layout), (bias, bias_layout), options)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::{assert_close, assert_same_for_any_thread_count, noise, tensor, values};
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn the_loop_matches_the_composed_reference(
            b in 1usize..3, groups in 1usize..5, per in 1usize..4, h in 2usize..7, w in 2usize..7, silu: bool
        ) {
            let c = groups * per;
            let x = ((noise(&[b, c, h, w], 5) * 2.0).unwrap() - 3.0).unwrap();
            let op = GroupNorm { groups, eps: 1e-6, silu };
            let (weight, bias) = (noise(&[c], 6), noise(&[c], 7));
            let expected = op.composed(&x, &weight, &bias).unwrap();
            assert_close(&normalise(&x, &weight, &bias, &op).unwrap(), &expected, 2e-4);
        }
    }

    #[test]
    fn each_group_has_its_own_moments() {
        let x = tensor(&[1.0, 3.0, 10.0, 30.0], &[1, 2, 1, 2]);
        let (one, zero) = (tensor(&[1.0, 1.0], &[2]), tensor(&[0.0, 0.0], &[2]));
        let out = group_norm(&x, &one, &zero, 2, 0.0).unwrap();
        assert_close(&out, &tensor(&[-1.0, 1.0, -1.0, 1.0], &[1, 2, 1, 2]), 1e-6);
    }

    #[test]
    fn a_long_row_far_from_zero_keeps_its_digits() {
        let noise = noise(&[1, 1, 1000, 1000], 3);
        let far = (&noise + 64.0).unwrap();
        let (one, zero) = (tensor(&[1.0], &[1]), tensor(&[0.0], &[1]));
        let expected = group_norm(&(&far - 64.0).unwrap(), &one, &zero, 1, 1e-6).unwrap();
        assert_close(&group_norm(&far, &one, &zero, 1, 1e-6).unwrap(), &expected, 1e-5);
    }

    #[test]
    fn half_formats_are_computed_in_f32() {
        let (x, w, b) = (noise(&[1, 4, 3, 3], 1), noise(&[4], 2), noise(&[4], 3));
        let half = |t: &Tensor| t.to_dtype(DType::F16).unwrap();
        let wide = |t: &Tensor| half(t).to_dtype(DType::F32).unwrap();
        let expected = group_norm_silu(&wide(&x), &wide(&w), &wide(&b), 2, 1e-5).unwrap();
        let out = group_norm_silu(&half(&x), &half(&w), &half(&b), 2, 1e-5).unwrap();
        assert_eq!(values(&out), values(&half(&expected)));
    }

    #[test]
    fn thread_count_does_not_matter() {
        let (x, w, b) = (noise(&[2, 8, 33, 31], 1), noise(&[8], 2), noise(&[8], 3));
        assert_same_for_any_thread_count(|| group_norm_silu(&x, &w, &b, 4, 1e-5).unwrap());
    }

    #[test]
    fn channels_that_do_not_divide_are_refused() {
        let error =
            group_norm(&noise(&[1, 6, 2, 2], 1), &noise(&[6], 2), &noise(&[6], 3), 4, 1e-5).unwrap_err();
        assert!(error.to_string().contains("4 groups"), "{error}");
    }
}
