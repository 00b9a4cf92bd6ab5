//! The gated linear unit of the transformer's feed-forward layer.

use candle_core::{D, Result, Tensor, bail};

use crate::gelu_erf;

/// GEGLU (Shazeer, arXiv 2002.05202): `x` (.., 2D) is cut into values and gate; returns `values * gelu(gate)` (.., D).
///
/// The GELU is the exact one, as in diffusers' `activations.py`.
pub fn geglu(x: &Tensor) -> Result<Tensor> {
    let width = x.dim(D::Minus1)?;
    if width % 2 != 0 {
        bail!("geglu: the last dimension is {width}, which can't be cut in two halves");
    }
    let values = x.narrow(D::Minus1, 0, width / 2)?;
    let gate = x.narrow(D::Minus1, width / 2, width / 2)?;
    values * gelu_erf(&gate)?
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::{assert_close, tensor};

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
