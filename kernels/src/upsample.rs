//! Enlarging by repeating pixels.

use candle_core::{Result, Tensor};

/// `x` (B, C, H, W) to (B, C, 2H, 2W), each pixel repeated 2 by 2.
pub fn upsample_nearest2x(x: &Tensor) -> Result<Tensor> {
    let (_, _, height, width) = x.dims4()?;
    upsample_nearest(x, 2 * height, 2 * width)
}

/// `x` (B, C, H, W) to (B, C, `height`, `width`): output row `i` is input row `floor(i H / height)`, columns likewise
/// (torch: `interpolate`, mode `nearest`).
pub fn upsample_nearest(x: &Tensor, height: usize, width: usize) -> Result<Tensor> {
    x.contiguous()?.upsample_nearest2d(height, width)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::{noise, values};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn matches_integer_division(h in 1usize..9, w in 1usize..9, odd_h in 0usize..2, odd_w in 0usize..2) {
            let x = noise(&[2, 3, h, w], 7);
            let (oh, ow) = (2 * h - odd_h, 2 * w - odd_w);
            let out = upsample_nearest(&x, oh, ow).unwrap();
            prop_assert_eq!(out.dims(), [2, 3, oh, ow]);
            let (xs, ys) = (values(&x), values(&out));
            for plane in 0..6 {
                for i in 0..oh {
                    for j in 0..ow {
                        let source = plane * h * w + (i * h / oh) * w + j * w / ow;
                        prop_assert_eq!(ys[plane * oh * ow + i * ow + j], xs[source]);
                    }
                }
            }
        }
    }

    #[test]
    fn doubling_repeats_each_pixel() {
        let x = Tensor::new(&[[[[1f32, 2.0]]]], &candle_core::Device::Cpu).unwrap();
        let out = upsample_nearest2x(&x).unwrap();
        assert_eq!(out.dims(), [1, 1, 2, 4]);
        assert_eq!(values(&out), [1.0, 1.0, 2.0, 2.0, 1.0, 1.0, 2.0, 2.0]);
    }
}
