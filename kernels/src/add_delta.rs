//! A weight and its change, summed in f32 and rounded once to another format: on the host.

use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::{CpuStorage, CustomOp2, DType, Layout, Result, Shape, Tensor, bail};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use rayon::prelude::*;

use crate::cpu;

/// Elements of one piece of work; its f32 copy stays in the cache.
const PIECE: usize = 8 * 1024;

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
    /// `store` puts a piece of f32 sums into the output.
    fn run<W: Sync, O: Copy + Send>(
        &self,
        weight: &[W],
        delta: &[f32],
        zero: O,
        largest: f32,
        load: impl Fn(&[W], &mut [f32]) + Sync,
        store: impl Fn(&[f32], &mut [O]) + Sync,
    ) -> Vec<O> {
        let mut out = vec![zero; weight.len()];
        let pieces = out.par_chunks_mut(PIECE).zip(weight.par_chunks(PIECE)).zip(delta.par_chunks(PIECE));
        pieces.for_each_init(
            || vec![0f32; PIECE],
            |sums, ((out, weight), delta)| {
                let sums = &mut sums[..out.len()];
                load(weight, sums);
                let mut fits = true;
                for (sum, delta) in sums.iter_mut().zip(delta) {
                    *sum += delta;
                    // What is not a number fails too.
                    fits &= sum.abs() <= largest;
                }
                if !fits {
                    self.fits.store(false, Ordering::Relaxed);
                }
                store(sums, out);
            },
        );
        out
    }

    fn from<W: Sync>(
        &self,
        weight: &[W],
        delta: &[f32],
        load: impl Fn(&[W], &mut [f32]) + Sync,
    ) -> Result<CpuStorage> {
        Ok(match self.dtype {
            DType::F32 => {
                let store = |sums: &[f32], out: &mut [f32]| out.copy_from_slice(sums);
                CpuStorage::F32(self.run(weight, delta, 0.0, f32::MAX, load, store))
            }
            DType::F16 => {
                let store = |sums: &[f32], out: &mut [f16]| out.convert_from_f32_slice(sums);
                CpuStorage::F16(self.run(weight, delta, f16::ZERO, f16::MAX.to_f32(), load, store))
            }
            DType::BF16 => {
                let store = |sums: &[f32], out: &mut [bf16]| {
                    for (out, sum) in out.iter_mut().zip(sums) {
                        *out = round_to_bf16(*sum);
                    }
                };
                CpuStorage::BF16(self.run(weight, delta, bf16::ZERO, bf16::MAX.to_f32(), load, store))
            }
            other => bail!("add_delta: the sum can be f32, f16 or bf16, not {other:?}"),
        })
    }
}

/// To the nearest, ties to even, as `bf16::from_f32` does with numbers; without its test for others, so that a loop of it
/// is vectorised.
fn round_to_bf16(x: f32) -> bf16 {
    let bits = x.to_bits();
    bf16::from_bits((bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16) as u16)
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
        for count in [1, 7, 8, 9, PIECE, 2 * PIECE + 5] {
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
    fn ties_go_to_even() {
        for bits in
            [0x3f80_8000u32, 0x3f81_8000, 0x3f80_7fff, 0x3f80_8001, 0x0000_8000, 0x8000_0001, 0x7f7f_0000]
        {
            let x = f32::from_bits(bits);
            assert_eq!(round_to_bf16(x), bf16::from_f32(x), "{bits:x}");
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
