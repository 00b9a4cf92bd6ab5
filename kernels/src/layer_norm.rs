//! Normalisation over the last dimension.

#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp3, D, DType, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use crate::cpu;
#[cfg(feature = "cuda")]
use crate::cuda;

/// Layer normalisation (Ba et al., arXiv 1607.06450) of `x` (.., D) with `weight` (D), `bias` (D), in `f32`.
pub fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    let dtype = x.dtype();
    #[cfg(feature = "cuda")]
    if cuda::layer_norm::fits(x, weight, bias) {
        let own = |t: &Tensor| t.to_dtype(dtype)?.contiguous();
        return x.contiguous()?.apply_op3_no_bwd(&own(weight)?, &own(bias)?, &LayerNorm { eps });
    }
    let x = x.to_dtype(DType::F32)?.contiguous()?;
    let weight = weight.to_dtype(DType::F32)?.contiguous()?;
    let bias = bias.to_dtype(DType::F32)?.contiguous()?;
    let out = if x.device().is_cpu() {
        x.apply_op3_no_bwd(&weight, &bias, &LayerNorm { eps })?
    } else {
        composed(&x, &weight, &bias, eps)?
    };
    out.to_dtype(dtype)
}

fn composed(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
    centred.broadcast_div(&(variance + eps)?.sqrt()?)?.broadcast_mul(weight)?.broadcast_add(bias)
}

struct LayerNorm {
    eps: f64,
}

impl CustomOp3 for LayerNorm {
    fn name(&self) -> &'static str {
        "layer_norm"
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
        let x = cpu::slice::<f32>(x, x_layout)?;
        let weight = cpu::slice::<f32>(weight, weight_layout)?;
        let bias = cpu::slice::<f32>(bias, bias_layout)?;
        let width = weight.len();
        if width == 0 || bias.len() != width || x_layout.dims().last() != Some(&width) {
            candle_core::bail!(
                "layer_norm: x {:?} needs weight and bias of its last dimension, they have {width} and {}",
                x_layout.dims(),
                bias.len()
            );
        }
        let mut out = vec![0f32; x.len()];
        out.par_chunks_mut(width).zip(x.par_chunks(width)).with_min_len(16).for_each(|(out, x)| {
            let (mean, variance) = cpu::moments(x);
            let (mean, scale) = (mean as f32, (1.0 / (variance + self.eps).sqrt()) as f32);
            for (((out, &x), &weight), &bias) in out.iter_mut().zip(x).zip(weight).zip(bias) {
                *out = (x - mean) * scale * weight + bias;
            }
        });
        Ok((CpuStorage::F32(out), x_layout.shape().clone()))
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
        cuda::layer_norm::forward((x, x_layout), (weight, weight_layout), (bias, bias_layout), self.eps)
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
        fn the_loop_matches_the_composed_reference(rows in 1usize..40, width in 2usize..70, seed in 0u64..99) {
            let x = ((noise(&[rows, width], seed) * 3.0).unwrap() + 5.0).unwrap();
            let (w, b) = (noise(&[width], 1), noise(&[width], 2));
            let expected = composed(&x, &w, &b, 1e-5).unwrap();
            assert_close(&layer_norm(&x, &w, &b, 1e-5).unwrap(), &expected, 2e-4);
        }
    }

    #[test]
    fn known_values() {
        let x = tensor(&[1.0, 2.0, 3.0, 4.0], &[1, 4]);
        let out = layer_norm(&x, &tensor(&[1.0; 4], &[4]), &tensor(&[0.5; 4], &[4]), 0.0).unwrap();
        let s = 1.25f32.sqrt();
        assert_close(
            &out,
            &tensor(&[-1.5 / s + 0.5, -0.5 / s + 0.5, 0.5 / s + 0.5, 1.5 / s + 0.5], &[1, 4]),
            1e-6,
        );
    }

    #[test]
    fn half_formats_are_computed_in_f32() {
        let (x, w, b) = (noise(&[3, 8], 1), noise(&[8], 2), noise(&[8], 3));
        let half = |t: &Tensor| t.to_dtype(DType::BF16).unwrap();
        let wide = |t: &Tensor| half(t).to_dtype(DType::F32).unwrap();
        let expected = layer_norm(&wide(&x), &wide(&w), &wide(&b), 1e-5).unwrap();
        let out = layer_norm(&half(&x), &half(&w), &half(&b), 1e-5).unwrap();
        assert_eq!(out.dtype(), DType::BF16);
        assert_eq!(values(&out), values(&half(&expected)));
    }

    #[test]
    fn thread_count_does_not_matter() {
        let (x, w, b) = (noise(&[301, 64], 1), noise(&[64], 2), noise(&[64], 3));
        assert_same_for_any_thread_count(|| layer_norm(&x, &w, &b, 1e-5).unwrap());
    }

    #[test]
    fn a_weight_of_another_width_is_refused() {
        assert!(layer_norm(&noise(&[2, 8], 1), &noise(&[4], 2), &noise(&[4], 3), 1e-5).is_err());
    }
}
