//! The innermost loop of a matrix product: one tile of the output, held in registers.
//!
//! The panel layout is that of Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication" (2008).

/// Rows of a tile.
pub(super) const MR: usize = 12;
/// Columns of a tile.
pub(super) const NR: usize = 32;

/// One tile: MR slices of NR values.
type Tile<'a> = [&'a mut [f32]; MR];

/// How the processor multiplies; found once per operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Simd {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    Portable,
}

impl Simd {
    pub(super) fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f") {
                return Self::Avx512;
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                return Self::Avx2;
            }
        }
        Self::Portable
    }

    /// `tile += a * b`, where `a` holds k columns of MR values and `b` holds k rows of NR values. The tile is the NR
    /// values of each of the MR rows from `column` on.
    pub(super) fn multiply(self, a: &[f32], b: &[f32], rows: &mut [&mut [f32]; MR], column: usize) {
        let depth = a.len() / MR;
        assert_eq!(b.len(), depth * NR, "the two sides of a tile differ in depth");
        let mut tile: Tile<'_> = rows.each_mut().map(|row| &mut row[column..column + NR]);
        match self {
            // SAFETY: `detect` saw the feature; `a` holds `depth` columns by the division above, `b` as many rows by
            // the assertion; each row of the tile is a slice of NR values.
            #[cfg(target_arch = "x86_64")]
            #[allow(unsafe_code)]
            Self::Avx512 => unsafe { avx512(depth, a.as_ptr(), b.as_ptr(), &mut tile) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            #[allow(unsafe_code)]
            Self::Avx2 => unsafe { avx2(depth, a.as_ptr(), b.as_ptr(), &mut tile) },
            Self::Portable => portable(a, b, &mut tile),
        }
    }
}

/// # Safety
/// The processor has AVX-512F; `a` points to `depth * MR` values and `b` to `depth * NR`.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
#[allow(unsafe_code)]
unsafe fn avx512(depth: usize, mut a: *const f32, mut b: *const f32, tile: &mut Tile<'_>) {
    use std::arch::x86_64::{_mm512_fmadd_ps, _mm512_loadu_ps, _mm512_set1_ps, _mm512_storeu_ps};
    // SAFETY: all offsets stay within the lengths that the caller vouches for, and within the tile.
    unsafe {
        let mut sum = [[_mm512_set1_ps(0.0); 2]; MR];
        for (sum, row) in sum.iter_mut().zip(tile.iter()) {
            *sum = [_mm512_loadu_ps(row.as_ptr()), _mm512_loadu_ps(row.as_ptr().add(16))];
        }
        for _ in 0..depth {
            let (left, right) = (_mm512_loadu_ps(b), _mm512_loadu_ps(b.add(16)));
            for (i, sum) in sum.iter_mut().enumerate() {
                let x = _mm512_set1_ps(*a.add(i));
                sum[0] = _mm512_fmadd_ps(x, left, sum[0]);
                sum[1] = _mm512_fmadd_ps(x, right, sum[1]);
            }
            a = a.add(MR);
            b = b.add(NR);
        }
        for (sum, row) in sum.iter().zip(tile.iter_mut()) {
            _mm512_storeu_ps(row.as_mut_ptr(), sum[0]);
            _mm512_storeu_ps(row.as_mut_ptr().add(16), sum[1]);
        }
    }
}

/// AVX2 has 16 registers: the tile is done in four pieces of 6 rows by 16 columns, each with its own pass over k.
///
/// # Safety
/// The processor has AVX2 and FMA; `a` points to `depth * MR` values and `b` to `depth * NR`.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
#[allow(unsafe_code)]
unsafe fn avx2(depth: usize, a: *const f32, b: *const f32, tile: &mut Tile<'_>) {
    use std::arch::x86_64::{_mm256_fmadd_ps, _mm256_loadu_ps, _mm256_set1_ps, _mm256_storeu_ps};
    const ROWS: usize = 6;
    // SAFETY: all offsets stay within the lengths that the caller vouches for, and within the tile.
    unsafe {
        // Rows within columns: half of `b` stays in the first-level cache.
        for column in (0..NR).step_by(16) {
            for row in (0..MR).step_by(ROWS) {
                let mut sum = [[_mm256_set1_ps(0.0); 2]; ROWS];
                for (i, sum) in sum.iter_mut().enumerate() {
                    let at = tile[row + i].as_ptr().add(column);
                    *sum = [_mm256_loadu_ps(at), _mm256_loadu_ps(at.add(8))];
                }
                for k in 0..depth {
                    let at = b.add(k * NR + column);
                    let (left, right) = (_mm256_loadu_ps(at), _mm256_loadu_ps(at.add(8)));
                    for (i, sum) in sum.iter_mut().enumerate() {
                        let x = _mm256_set1_ps(*a.add(k * MR + row + i));
                        sum[0] = _mm256_fmadd_ps(x, left, sum[0]);
                        sum[1] = _mm256_fmadd_ps(x, right, sum[1]);
                    }
                }
                for (i, sum) in sum.iter().enumerate() {
                    let at = tile[row + i].as_mut_ptr().add(column);
                    _mm256_storeu_ps(at, sum[0]);
                    _mm256_storeu_ps(at.add(8), sum[1]);
                }
            }
        }
    }
}

/// For other processors: rows in turn, columns left to the compiler's vectors.
fn portable(a: &[f32], b: &[f32], tile: &mut Tile<'_>) {
    for (a, b) in a.chunks_exact(MR).zip(b.chunks_exact(NR)) {
        for (row, &x) in tile.iter_mut().zip(a) {
            for (sum, &y) in row.iter_mut().zip(b) {
                *sum += x * y;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_agrees_with_the_portable_one() {
        let depth = 37;
        let a: Vec<f32> = (0..depth * MR).map(|i| ((i * 7 % 23) as f32 - 11.0) / 8.0).collect();
        let b: Vec<f32> = (0..depth * NR).map(|i| ((i * 5 % 19) as f32 - 9.0) / 4.0).collect();
        let mut expected = [[0.5; NR]; MR];
        portable(&a, &b, &mut expected.each_mut().map(|row| row.as_mut_slice()));
        let mut paths = vec![Simd::detect()];
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            paths.push(Simd::Avx2);
        }
        for simd in paths {
            let mut tile = [[0.5; NR]; MR];
            simd.multiply(&a, &b, &mut tile.each_mut().map(|row| row.as_mut_slice()), 0);
            // The values are small multiples of 1/32: every sum is exact on every path.
            assert_eq!(tile, expected, "{simd:?}");
        }
    }
}
