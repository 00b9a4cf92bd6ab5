//! The gated linear unit of the transformer's feed-forward layer.

#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{CpuStorage, CustomOp1, D, Layout, Result, Shape, Tensor, bail};
use half::{bf16, f16};
use rayon::prelude::*;

use crate::activation::gelu_erf_f32;
use crate::cpu;
#[cfg(feature = "cuda")]
use crate::cuda;

/// GEGLU (Shazeer, arXiv 2002.05202): `x` (.., 2D) is cut into values and gate; returns `values * gelu(gate)` (.., D).
///
/// The GELU is the exact one, as in diffusers' `activations.py`.
pub fn geglu(x: &Tensor) -> Result<Tensor> {
    let width = x.dim(D::Minus1)?;
    if width == 0 || width % 2 != 0 {
        bail!("geglu: the last dimension is {width}, which can't be cut in two halves");
    }
    let own = x.device().is_cpu();
    #[cfg(feature = "cuda")]
    let own = own || cuda::geglu::fits(x);
    if own { x.contiguous()?.apply_op1_no_bwd(&Geglu { width }) } else { composed(x, width) }
}

fn composed(x: &Tensor, width: usize) -> Result<Tensor> {
    let values = x.narrow(D::Minus1, 0, width / 2)?;
    let gate = x.narrow(D::Minus1, width / 2, width / 2)?;
    values * gate.gelu_erf()?
}

struct Geglu {
    width: usize,
}

impl Geglu {
    fn rows<T: Copy + Send + Sync>(&self, x: &[T], zero: T, gated: impl Fn(T, T) -> T + Sync) -> Vec<T> {
        let half = self.width / 2;
        let mut out = vec![zero; x.len() / 2];
        out.par_chunks_mut(half).zip(x.par_chunks(self.width)).for_each(|(out, x)| {
            let (values, gate) = x.split_at(half);
            for ((out, &value), &gate) in out.iter_mut().zip(values).zip(gate) {
                *out = gated(value, gate);
            }
        });
        out
    }
}

impl CustomOp1 for Geglu {
    fn name(&self) -> &'static str {
        "geglu"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let gated = |value: f32, gate: f32| value * gelu_erf_f32(gate);
        let out = match storage {
            CpuStorage::F32(_) => CpuStorage::F32(self.rows(cpu::slice(storage, layout)?, 0.0, gated)),
            CpuStorage::F16(_) => {
                let gated = |v: f16, g: f16| f16::from_f32(gated(v.to_f32(), g.to_f32()));
                CpuStorage::F16(self.rows(cpu::slice(storage, layout)?, f16::ZERO, gated))
            }
            CpuStorage::BF16(_) => {
                let gated = |v: bf16, g: bf16| bf16::from_f32(gated(v.to_f32(), g.to_f32()));
                CpuStorage::BF16(self.rows(cpu::slice(storage, layout)?, bf16::ZERO, gated))
            }
            _ => bail!("geglu: f32, f16 or bf16 is needed"),
        };
        let mut dims = layout.dims().to_vec();
        if let Some(last) = dims.last_mut() {
            *last = self.width / 2;
        }
        Ok((out, Shape::from(dims)))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, storage: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        cuda::geglu::forward(storage, layout)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::{assert_close, noise, tensor};
    use candle_core::DType;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn the_loop_matches_the_composed_reference(b in 1usize..3, n in 1usize..7, half in 1usize..30) {
            let x = (noise(&[b, n, 2 * half], 1) * 4.0).unwrap();
            assert_close(&geglu(&x).unwrap(), &composed(&x, 2 * half).unwrap(), 1e-6);
            for (dtype, tolerance) in [(DType::F16, 2e-3), (DType::BF16, 1.6e-2)] {
                let x = x.to_dtype(dtype).unwrap();
                assert_close(&geglu(&x).unwrap(), &composed(&x, 2 * half).unwrap(), tolerance);
            }
        }
    }

    #[test]
    fn the_second_half_is_the_gate() {
        let x = tensor(&[2.0, 3.0, 0.0, 1.0, 5.0, 7.0, 1.0, -1.0], &[2, 4]);
        let expected = tensor(&[0.0, 3.0 * 0.841_344_7, 5.0 * 0.841_344_7, 7.0 * -0.158_655_26], &[2, 2]);
        assert_close(&geglu(&x).unwrap(), &expected, 1e-6);
    }

    #[test]
    fn an_odd_width_is_refused() {
        let error = geglu(&tensor(&[1.0, 2.0, 3.0], &[1, 3])).unwrap_err().to_string();
        assert!(error.contains("last dimension is 3"), "{error}");
    }
}
