//! Numbers that are stored in a file, in another format: in one pass, by all cores, on the host.

use candle_core::{CpuStorage, DType, Device, Result, Tensor, bail};
use half::f16;
use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};
use half::vec::HalfBitsVecExt;
use rayon::prelude::*;

/// Elements of one piece of work; its f32 copy stays in the cache.
const PIECE: usize = 8 * 1024;

/// The tensor of `shape` whose numbers are stored as `bytes` (little-endian) in the format `from`, in the format `to`.
///
/// Both formats are f32, f16 or bf16; a number is rounded to the nearest, ties to even, as candle's `to_dtype` does. The
/// bytes may begin at any address.
///
/// # Errors
/// Any other format, and bytes that are not as many as the shape needs.
pub fn convert(bytes: &[u8], from: DType, shape: &[usize], to: DType) -> Result<Tensor> {
    let count: usize = shape.iter().product();
    let width = from.size_in_bytes();
    if bytes.len() != count * width {
        bail!("convert: {} bytes for {shape:?} in {from:?}", bytes.len())
    }
    let load = match from {
        DType::F32 => load_f32,
        DType::F16 => load_f16,
        DType::BF16 => load_bf16,
        other => bail!("convert: numbers of f32, f16 or bf16 are needed, not {other:?}"),
    };
    let device = &Device::Cpu;
    match write(count, to, |start, piece| load(&bytes[start * width..][..piece.len() * width], piece))? {
        CpuStorage::F16(numbers) => Tensor::from_vec(numbers, shape, device),
        CpuStorage::BF16(numbers) => Tensor::from_vec(numbers, shape, device),
        CpuStorage::F32(numbers) => Tensor::from_vec(numbers, shape, device),
        _ => bail!("convert: {to:?} was asked for, and another format was written"),
    }
}

/// `count` numbers in the format `dtype`: f32, f16 or bf16. `fill` gets the place of a piece's first number and computes the
/// piece in f32; pieces are filled in any order.
pub(crate) fn write(
    count: usize,
    dtype: DType,
    fill: impl Fn(usize, &mut [f32]) + Sync,
) -> Result<CpuStorage> {
    // Zeros of plain integers come from the system as they are touched, by the thread that fills them.
    let halves = |round: fn(&[f32], &mut [u16])| {
        let mut out = vec![0u16; count];
        out.par_chunks_mut(PIECE).enumerate().for_each_init(
            || vec![0f32; PIECE],
            |numbers, (index, out)| {
                let numbers = &mut numbers[..out.len()];
                fill(index * PIECE, numbers);
                round(numbers, out);
            },
        );
        out
    };
    Ok(match dtype {
        DType::F32 => {
            let mut out = vec![0f32; count];
            let pieces = out.par_chunks_mut(PIECE).enumerate();
            pieces.for_each(|(index, out)| fill(index * PIECE, out));
            CpuStorage::F32(out)
        }
        DType::F16 => {
            let round =
                |x: &[f32], out: &mut [u16]| out.reinterpret_cast_mut::<f16>().convert_from_f32_slice(x);
            CpuStorage::F16(halves(round).reinterpret_into())
        }
        DType::BF16 => {
            let round = |x: &[f32], out: &mut [u16]| {
                out.iter_mut().zip(x).for_each(|(out, x)| *out = round_to_bf16(*x));
            };
            CpuStorage::BF16(halves(round).reinterpret_into())
        }
        other => bail!("numbers can be written as f32, f16 or bf16, not {other:?}"),
    })
}

fn load_f32(bytes: &[u8], out: &mut [f32]) {
    let (stored, _) = bytes.as_chunks::<4>();
    out.iter_mut().zip(stored).for_each(|(x, bytes)| *x = f32::from_le_bytes(*bytes));
}

fn load_f16(bytes: &[u8], out: &mut [f32]) {
    // Through a copy: the bytes may lie at an odd address.
    let mut aligned = [0u16; PIECE];
    let (stored, _) = bytes.as_chunks::<2>();
    aligned.iter_mut().zip(stored).for_each(|(x, bytes)| *x = u16::from_le_bytes(*bytes));
    aligned[..out.len()].reinterpret_cast::<f16>().convert_to_f32_slice(out);
}

fn load_bf16(bytes: &[u8], out: &mut [f32]) {
    let (stored, _) = bytes.as_chunks::<2>();
    for (x, bytes) in out.iter_mut().zip(stored) {
        *x = f32::from_bits(u32::from(u16::from_le_bytes(*bytes)) << 16);
    }
}

/// The bits of `bf16::from_f32`: to the nearest, ties to even, quiet where it is no number. Without a branch, so that a loop
/// of it is vectorised.
fn round_to_bf16(x: f32) -> u16 {
    const QUIET: u32 = 0x40;
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
    let no_number = (bits >> 16) | QUIET;
    (if x.is_nan() { no_number } else { rounded }) as u16
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use half::bf16;

    use super::*;
    use crate::testing::{assert_same_for_any_thread_count, noise, values};

    const FORMATS: [DType; 3] = [DType::F32, DType::F16, DType::BF16];

    /// A tensor's numbers as a file holds them.
    fn stored(x: &Tensor) -> Vec<u8> {
        let x = x.flatten_all().unwrap();
        match x.dtype() {
            DType::F16 => x.to_vec1::<f16>().unwrap().into_iter().flat_map(f16::to_le_bytes).collect(),
            DType::BF16 => x.to_vec1::<bf16>().unwrap().into_iter().flat_map(bf16::to_le_bytes).collect(),
            _ => x.to_vec1::<f32>().unwrap().into_iter().flat_map(f32::to_le_bytes).collect(),
        }
    }

    /// Bit for bit what candle makes of it, from any address.
    #[test]
    fn every_pair_of_formats_is_converted() {
        for shape in [&[0][..], &[1], &[7], &[2, 3, 5], &[PIECE], &[2, PIECE + 3]] {
            for from in FORMATS {
                // Ordinary numbers, and some that f16 holds as subnormal ones, as infinity or not at all.
                let scale = Tensor::new(&[1f32, 1e-6, 3e4, 1e-30], &Device::Cpu).unwrap();
                let x = noise(&[&[4][..], shape].concat(), 1);
                let scale = scale.reshape([&[4][..], &vec![1; shape.len()]].concat()).unwrap();
                let x = x.broadcast_mul(&scale).unwrap().to_dtype(from).unwrap();
                let bytes = stored(&x);
                let moved = [&[0][..], &bytes].concat();
                for to in FORMATS {
                    let expected = x.to_dtype(to).unwrap();
                    for bytes in [&bytes[..], &moved[1..]] {
                        let found = convert(bytes, from, x.dims(), to).unwrap();
                        assert_eq!((found.dtype(), found.dims()), (to, x.dims()));
                        assert_eq!(stored(&found), stored(&expected), "{from:?} to {to:?}, {shape:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn ties_go_to_even_and_no_number_stays_one() {
        for bits in [
            0x3f80_8000u32,
            0x3f81_8000,
            0x3f80_7fff,
            0x3f80_8001,
            0x0000_8000,
            0x8000_0001,
            0x7f7f_0000,
            0x7f7f_ffff,
            0x7f80_0000,
            0xff80_0000,
            0x7f80_0001,
            0x7fff_ffff,
            0xffc0_0000,
        ] {
            let x = f32::from_bits(bits);
            assert_eq!(round_to_bf16(x), bf16::from_f32(x).to_bits(), "{bits:x}");
        }
    }

    #[test]
    fn thread_count_does_not_matter() {
        let bytes = stored(&noise(&[50_000], 1));
        assert_same_for_any_thread_count(|| convert(&bytes, DType::F32, &[50_000], DType::F16).unwrap());
    }

    #[test]
    fn other_formats_and_counts_are_refused() {
        assert!(convert(&[0; 8], DType::F32, &[3], DType::F32).is_err());
        assert!(convert(&[0; 8], DType::I64, &[1], DType::F32).is_err());
        assert!(convert(&[0; 4], DType::F32, &[1], DType::U8).is_err());
        assert_eq!(values(&convert(&[0; 4], DType::F16, &[2], DType::F32).unwrap()), [0.0, 0.0]);
    }
}
