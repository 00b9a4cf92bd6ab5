//! Scaled dot-product attention.

use candle_core::{D, DType, Result, Tensor};

use crate::cpu;
#[cfg(feature = "cuda")]
use crate::cuda;

/// The most scores (batch x heads x queries x keys) held at once: 64 Mi of them are 256 MiB in `f32`. A picture of
/// 1024 x 1024 has 4096 tokens and 10 heads in SDXL's widest attention, whose whole matrix would be 640 MiB.
const MAX_SCORES: usize = 64 << 20;

/// `softmax(scale * q k^T + mask) v` (Vaswani et al., arXiv 1706.03762).
///
/// `q` (B, heads, N, D), `k` and `v` (B, heads, M, D); `mask`, added to the scores, broadcasts to (B, heads, N, M).
/// Returns (B, heads, N, D), on CUDA as a transposed view of (B, N, heads, D). The softmax is computed in `f32`. Queries
/// are taken in slices, or the scores are never written at all, so that memory grows with N + M and not with N x M.
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor, scale: f32, mask: Option<&Tensor>) -> Result<Tensor> {
    if q.device().is_cpu() && mask.is_none() {
        let wide = |t: &Tensor| -> Result<Tensor> {
            let t = t.to_dtype(DType::F32)?;
            if t.stride().last() == Some(&1) { Ok(t) } else { t.contiguous() }
        };
        let op = cpu::attention::Attention { scale };
        return wide(q)?.apply_op3_no_bwd(&wide(k)?, &wide(v)?, &op)?.to_dtype(q.dtype());
    }
    #[cfg(feature = "cuda")]
    if mask.is_none() && cuda::attention::fits(q, k, v, scale) {
        return cuda::attention::forward(q, k, v, scale);
    }
    sliced(q, k, v, scale, mask, MAX_SCORES)
}

fn sliced(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    scale: f32,
    mask: Option<&Tensor>,
    max_scores: usize,
) -> Result<Tensor> {
    let (batch, heads, queries, _) = q.dims4()?;
    let keys = k.dim(2)?;
    // Scaling q instead of the scores: fewer multiplications, and f16 scores overflow later.
    let q = (q * f64::from(scale))?;
    let (k, v) = (k.contiguous()?, v.contiguous()?);
    let mask =
        mask.map(|m| m.to_dtype(DType::F32)?.broadcast_as((batch, heads, queries, keys))).transpose()?;
    let rows = (max_scores / (batch * heads * keys).max(1)).max(1);
    let mut slices = Vec::new();
    let mut start = 0;
    while start < queries {
        let count = rows.min(queries - start);
        let mask = mask.as_ref().map(|m| m.narrow(2, start, count)).transpose()?;
        slices.push(block(&q.narrow(2, start, count)?.contiguous()?, &k, &v, mask.as_ref())?);
        start += count;
    }
    match slices.as_slice() {
        [whole] => Ok(whole.clone()),
        _ => Tensor::cat(&slices, 2),
    }
}

/// Attention of a few queries, whose scores fit in memory.
fn block(q: &Tensor, k: &Tensor, v: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
    let scores = q.matmul(&k.transpose(D::Minus2, D::Minus1)?)?.to_dtype(DType::F32)?;
    let scores = match mask {
        Some(mask) => (scores + mask)?,
        None => scores,
    };
    candle_nn::ops::softmax_last_dim(&scores)?.to_dtype(v.dtype())?.matmul(v)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::{assert_close, assert_same_for_any_thread_count, noise, tensor, values};
    use proptest::prelude::*;

    fn naive(q: &Tensor, k: &Tensor, v: &Tensor, scale: f32, mask: Option<&Tensor>) -> Tensor {
        let (b, h, n, d) = q.dims4().unwrap();
        let m = k.dim(2).unwrap();
        let (qs, ks, vs) = (values(q), values(k), values(v));
        let ms = mask.map(|x| values(&x.broadcast_as((b, h, n, m)).unwrap().contiguous().unwrap()));
        let mut out = Vec::new();
        for head in 0..b * h {
            for i in 0..n {
                let score = |j: usize| {
                    let dot =
                        |c| f64::from(qs[(head * n + i) * d + c]) * f64::from(ks[(head * m + j) * d + c]);
                    let mask = ms.as_ref().map_or(0.0, |x| f64::from(x[(head * n + i) * m + j]));
                    (f64::from(scale) * (0..d).map(dot).sum::<f64>() + mask).exp()
                };
                let scores: Vec<f64> = (0..m).map(score).collect();
                let total: f64 = scores.iter().sum();
                for c in 0..d {
                    let sum: f64 = (0..m).map(|j| scores[j] * f64::from(vs[(head * m + j) * d + c])).sum();
                    out.push((sum / total) as f32);
                }
            }
        }
        tensor(&out, &[b, h, n, d])
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn slices_match_the_naive_loop(
            b in 1usize..3, h in 1usize..4, n in 1usize..12, m in 1usize..9, d in 1usize..9,
            max_scores in 1usize..300, masked: bool
        ) {
            let (q, k, v) = (noise(&[b, h, n, d], 1), noise(&[b, h, m, d], 2), noise(&[b, h, m, d], 3));
            let mask = masked.then(|| noise(&[1, 1, n, m], 4));
            let out = sliced(&q, &k, &v, 0.7, mask.as_ref(), max_scores).unwrap();
            assert_close(&out, &naive(&q, &k, &v, 0.7, mask.as_ref()), 2e-6);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn panels_match_the_naive_loop(
            b in 1usize..3, h in 1usize..4, n in 1usize..70, m in 1usize..40, d in 1usize..30
        ) {
            let (q, k, v) = (noise(&[b, h, n, d], 1), noise(&[b, h, m, d], 2), noise(&[b, h, m, d], 3));
            let out = attention(&q, &k, &v, 0.7, None).unwrap();
            assert_close(&out, &naive(&q, &k, &v, 0.7, None), 2e-6);
        }
    }

    #[test]
    fn heads_split_from_the_channels_need_no_copy_by_the_caller() {
        let split = |seed| noise(&[2, 6, 3, 4], seed).transpose(1, 2).unwrap();
        let (q, k, v) = (split(1), split(2), split(3));
        assert_close(&attention(&q, &k, &v, 0.5, None).unwrap(), &naive(&q, &k, &v, 0.5, None), 2e-6);
    }

    #[test]
    fn a_mask_of_minus_infinity_hides_a_key() {
        let (q, k, v) = (noise(&[1, 1, 2, 3], 1), noise(&[1, 1, 2, 3], 2), noise(&[1, 1, 2, 3], 3));
        let mask = tensor(&[0.0, f32::NEG_INFINITY], &[1, 1, 1, 2]);
        let out = attention(&q, &k, &v, 1.0, Some(&mask)).unwrap();
        let first = values(&v)[..3].to_vec();
        assert_eq!(values(&out), [first.clone(), first].concat());
    }

    #[test]
    fn bf16_keeps_the_softmax_in_f32() {
        let half = |seed| noise(&[1, 2, 9, 8], seed).to_dtype(DType::BF16).unwrap();
        let (q, k, v) = (half(1), half(2), half(3));
        assert_close(&attention(&q, &k, &v, 0.35, None).unwrap(), &naive(&q, &k, &v, 0.35, None), 1e-2);
    }

    #[test]
    fn thread_count_does_not_matter() {
        let (q, k, v) = (noise(&[2, 4, 128, 40], 1), noise(&[2, 4, 77, 40], 2), noise(&[2, 4, 77, 40], 3));
        assert_same_for_any_thread_count(|| attention(&q, &k, &v, 0.2, None).unwrap());
    }
}
