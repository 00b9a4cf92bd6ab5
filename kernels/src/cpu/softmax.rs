//! The exponential part of a softmax, down the columns of a block that is NR wide.

use super::microkernel::{NR, Simd};

/// Replaces each score by `exp(score - column maximum)` and returns the inverse of each column's sum.
pub(super) fn softmax_columns(simd: Simd, scores: &mut [f32]) -> [f32; NR] {
    match simd {
        // SAFETY: `Simd::detect` saw the feature.
        #[cfg(target_arch = "x86_64")]
        #[allow(unsafe_code)]
        Simd::Avx512 => unsafe { avx512(scores) },
        // SAFETY: `Simd::detect` saw the features.
        #[cfg(target_arch = "x86_64")]
        #[allow(unsafe_code)]
        Simd::Avx2 => unsafe { avx2(scores) },
        Simd::Portable => columns::<false>(scores),
    }
}

/// # Safety
/// The processor has AVX-512F.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
#[allow(unsafe_code)]
unsafe fn avx512(scores: &mut [f32]) -> [f32; NR] {
    columns::<true>(scores)
}

/// # Safety
/// The processor has AVX2 and FMA.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
#[allow(unsafe_code)]
unsafe fn avx2(scores: &mut [f32]) -> [f32; NR] {
    columns::<true>(scores)
}

/// Inlined into each of the functions above, so that each is compiled for its own vectors. Without a fused
/// multiply-add in the processor, `mul_add` would call a library function per element.
#[inline(always)]
fn columns<const FUSED: bool>(scores: &mut [f32]) -> [f32; NR] {
    let (rows, _) = scores.as_chunks_mut::<NR>();
    let mut maxima = [f32::NEG_INFINITY; NR];
    for row in rows.iter() {
        for (maximum, &x) in maxima.iter_mut().zip(row) {
            *maximum = if x > *maximum { x } else { *maximum };
        }
    }
    let mut sums = [0f32; NR];
    for row in rows {
        for ((x, maximum), sum) in row.iter_mut().zip(&maxima).zip(&mut sums) {
            *x = exp::<FUSED>(*x - maximum);
            *sum += *x;
        }
    }
    sums.map(|sum| 1.0 / sum)
}

/// `exp(x)` for `x <= 0` within 2 units of the last place, zero from -87.3 on, where the
/// result would soon be denormal.
///
/// The reduction and the polynomial are those of Cephes' `expf` (Moshier): x = n ln 2 + r, with ln 2 in two parts.
#[inline(always)]
fn exp<const FUSED: bool>(x: f32) -> f32 {
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    // Adding 1.5 * 2^23 rounds to the nearest integer and leaves it in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let fma = |a: f32, b: f32, c: f32| if FUSED { a.mul_add(b, c) } else { a * b + c };
    let clamped = if x > -87.3 { x } else { -87.3 };
    let shifted = fma(clamped, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = fma(n, -LN_2_LOW, fma(n, -LN_2_HIGH, clamped));
    let mut p = 1.987_569_1e-4;
    for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = fma(p, r, c);
    }
    let p = fma(p, r * r, r) + 1.0;
    // 2^n by its exponent bits: n is in -126..=0.
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3f80_0000));
    if x > -87.3 { p * power } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exponential_is_within_two_units_of_the_last_place() {
        for i in 0..200_000 {
            let x = -f32::from(i as u16) / 700.0 - i as f32 / 2_300_000.0;
            let expected = f64::from(x).exp();
            if x <= -87.3 {
                assert_eq!(exp::<false>(x).max(exp::<true>(x)), 0.0, "{x}");
            } else {
                let bound = expected * 2.5e-7;
                for got in [exp::<false>(x), exp::<true>(x)] {
                    assert!((f64::from(got) - expected).abs() < bound, "exp({x}) = {got}, not {expected}");
                }
            }
        }
        assert_eq!(exp::<true>(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp::<true>(0.0), 1.0);
    }

    #[test]
    fn columns_sum_to_one() {
        let mut scores: Vec<f32> = (0..5 * NR).map(|i| (i * 37 % 101) as f32 / 7.0 - 8.0).collect();
        let inverse = softmax_columns(Simd::detect(), &mut scores);
        for (column, inverse) in inverse.iter().enumerate() {
            let sum: f32 = scores.iter().skip(column).step_by(NR).map(|p| p * inverse).sum();
            assert!((sum - 1.0).abs() < 1e-6, "{sum}");
        }
    }
}
