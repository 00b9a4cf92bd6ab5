//! A weight and its change, summed in f32 and rounded once to another format: on the host.

use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::{CpuStorage, CustomOp2, DType, Layout, Result, Shape, Tensor, bail};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use crate::convert::write;
use crate::cpu;

/// `weight` plus `delta` in the format `dtype`, or `None` where a sum is no number or beyond what `dtype` holds.
///
/// `weight` is f32, f16 or bf16, `delta` f32 of the same shape, `dtype` one of the three; both lie on the host.
pub fn add_delta(weight: &Tensor, delta: &Tensor, dtype: DType) -> Result<Option<Tensor>> {
    let op = AddDelta { dtype, fits: AtomicBool::new(true) };
    let sum = weight.contiguous()?.apply_op2_no_bwd(&delta.contiguous()?, &op)?;
    Ok(op.fits.load(Ordering::Relaxed).then_some(sum))
}

struct AddDelta {
    dtype: DType,
    fits: AtomicBool,
}

impl AddDelta {
    fn from<W: Sync>(
        &self,
        weight: &[W],
        delta: &[f32],
        load: impl Fn(&[W], &mut [f32]) + Sync,
    ) -> Result<CpuStorage> {
        let largest = match self.dtype {
            DType::F16 => f16::MAX.to_f32(),
            DType::BF16 => bf16::MAX.to_f32(),
            _ => f32::MAX,
        };
        write(weight.len(), self.dtype, |start, sums| {
            load(&weight[start..][..sums.len()], sums);
            let mut fits = true;
            for (sum, delta) in sums.iter_mut().zip(&delta[start..]) {
                *sum += delta;
                // What is not a number fails too.
                fits &= sum.abs() <= largest;
            }
            if !fits {
                self.fits.store(false, Ordering::Relaxed);
            }
        })
    }
}

impl CustomOp2 for AddDelta {
    fn name(&self) -> &'static str {
        "add_delta"
    }

    fn cpu_fwd(
        &self,
        weight: &CpuStorage,
        weight_at: &Layout,
        delta: &CpuStorage,
        delta_at: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (shape, other) = (weight_at.shape(), delta_at.shape());
        if shape != other {
            bail!("add_delta: weight {:?}, delta {:?}", shape.dims(), other.dims())
        }
        let delta = cpu::slice::<f32>(delta, delta_at)?;
        let sum = match weight {
            CpuStorage::F32(_) => {
                self.from(cpu::slice(weight, weight_at)?, delta, |w: &[f32], x: &mut [f32]| {
                    x.copy_from_slice(w)
                })?
            }
            CpuStorage::F16(_) => {
                self.from(cpu::slice(weight, weight_at)?, delta, |w: &[f16], x: &mut [f32]| {
                    w.convert_to_f32_slice(x)
                })?
            }
            CpuStorage::BF16(_) => {
                self.from(cpu::slice(weight, weight_at)?, delta, |w: &[bf16], x: &mut [f32]| {
                    w.convert_to_f32_slice(x)
                })?
            }
            _ => bail!("add_delta: a weight of f32, f16 or bf16 is needed"),
        };
        Ok((sum, shape.clone()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::{assert_same_for_any_thread_count, noise, tensor, values};

    const FORMATS: [DType; 3] = [DType::F32, DType::F16, DType::BF16];

    /// Bit for bit what candle makes of it in three steps.
    #[test]
    fn every_pair_of_formats_is_summed_and_rounded_once() {
        for count in [1, 7, 8, 9, 8192, 2 * 8192 + 5] {
            let (weight, delta) = (noise(&[count], 1), (noise(&[count], 2) * 0.37).unwrap());
            for from in FORMATS {
                let weight = weight.to_dtype(from).unwrap();
                for to in FORMATS {
                    let sum = add_delta(&weight, &delta, to).unwrap().unwrap();
                    let expected =
                        (weight.to_dtype(DType::F32).unwrap() + &delta).unwrap().to_dtype(to).unwrap();
                    assert_eq!((sum.dtype(), values(&sum)), (to, values(&expected)), "{from:?} to {to:?}");
                }
            }
        }
    }

    #[test]
    fn what_the_format_does_not_hold_is_nothing() {
        let weight = tensor(&[1.0, 2.0, 3.0], &[3]);
        for (value, fits) in [
            (60000.0, [true, true, true]),
            (7e4, [true, false, true]),
            (3.4e38, [true, false, false]),
            (f32::INFINITY, [false; 3]),
            (f32::NAN, [false; 3]),
        ] {
            let delta = tensor(&[0.0, value, 0.0], &[3]);
            let found = FORMATS.map(|dtype| add_delta(&weight, &delta, dtype).unwrap().is_some());
            assert_eq!(found, fits, "{value}");
        }
    }

    #[test]
    fn thread_count_does_not_matter() {
        let (weight, delta) = (noise(&[50_000], 1), noise(&[50_000], 2));
        assert_same_for_any_thread_count(|| add_delta(&weight, &delta, DType::BF16).unwrap().unwrap());
    }

    #[test]
    fn unequal_shapes_and_integers_are_refused() {
        let weight = noise(&[4, 2], 1);
        assert!(add_delta(&weight, &noise(&[2, 4], 1), DType::F32).is_err());
        assert!(add_delta(&weight, &weight, DType::U8).is_err());
        assert!(add_delta(&weight.to_dtype(DType::U8).unwrap(), &weight, DType::F32).is_err());
    }
}
