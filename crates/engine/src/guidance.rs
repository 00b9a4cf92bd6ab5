//! Classifier-free guidance and its rescaling.

use infill_models::{Checkpoint, Family};
use infill_networks::Tensor;

use crate::Result;

/// The guidance scale of a request that names none: the checkpoint's own, else what the tool schema gives each kind of
/// model.
pub fn default_guidance_scale(checkpoint: &Checkpoint) -> f64 {
    checkpoint.guidance_scale().unwrap_or(match checkpoint.family() {
        Family::StableDiffusion => 7.5,
        Family::StableDiffusionXl | Family::StableDiffusionXlRefiner => 6.0,
    })
}

/// How the conditioned and the unconditioned prediction become one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Guidance {
    /// One forward pass with the prompt alone (a scale of 1 or less).
    Off,
    /// Classifier-free guidance (Ho and Salimans 2022, arXiv 2207.12598): both halves in one batch, the
    /// unconditioned half first.
    ClassifierFree {
        /// The guidance weight w, above 1.
        scale: f64,
        /// How far the result is pulled back to the conditioned prediction's spread, in 0..=1 (Lin et al. 2023,
        /// arXiv 2305.08891, section 3.4).
        rescale: f64,
    },
    /// One forward pass of a network that was distilled to read the guidance weight as one of its inputs (Meng et al.
    /// 2023, arXiv 2210.03142): a UNet with `time_cond_proj_dim`, as latent consistency models have it.
    Embedded {
        /// The guidance weight w.
        scale: f64,
    },
}

impl Guidance {
    /// As diffusers' pipelines decide: guidance is on above a scale of 1.
    pub fn new(scale: f64, rescale: f64) -> Self {
        if scale > 1.0 { Guidance::ClassifierFree { scale, rescale } } else { Guidance::Off }
    }

    /// True where the network sees every image twice.
    pub fn is_on(self) -> bool {
        matches!(self, Guidance::ClassifierFree { .. })
    }

    /// The network's output `(2B,C,h,w)`, or `(B,C,h,w)` in one pass, to the prediction `(B,C,h,w)`.
    pub fn combine(self, output: &Tensor) -> Result<Tensor> {
        let Guidance::ClassifierFree { scale, rescale } = self else { return Ok(output.clone()) };
        let batch = output.dim(0)? / 2;
        let uncond = output.narrow(0, 0, batch)?;
        let text = output.narrow(0, batch, batch)?;
        let guided = (&uncond + ((&text - &uncond)? * scale)?)?;
        if rescale > 0.0 { rescale_noise_cfg(&guided, &text, rescale) } else { Ok(guided) }
    }
}

/// Gives the guided prediction the standard deviation of the conditioned one, by the share `rescale`.
fn rescale_noise_cfg(guided: &Tensor, text: &Tensor, rescale: f64) -> Result<Tensor> {
    let rescaled = guided.broadcast_mul(&std_per_image(text)?.div(&std_per_image(guided)?)?)?;
    Ok(((rescaled * rescale)? + (guided * (1.0 - rescale))?)?)
}

/// The unbiased standard deviation over all but the first dimension: `(B,C,h,w)` to `(B,1,1,1)`.
fn std_per_image(x: &Tensor) -> Result<Tensor> {
    let flat = x.flatten_from(1)?;
    let count = flat.dim(1)?;
    let mean = flat.mean_keepdim(1)?;
    let variance =
        (flat.broadcast_sub(&mean)?.sqr()?.sum_keepdim(1)? / (count.saturating_sub(1).max(1)) as f64)?;
    Ok(variance.sqrt()?.reshape((x.dim(0)?, 1, 1, 1))?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use infill_networks::Device;

    fn tensor(values: &[f32]) -> Tensor {
        Tensor::from_slice(values, (2, 1, 2, 2), &Device::Cpu).unwrap()
    }

    #[test]
    fn guidance_at_or_below_one_is_off() {
        assert!(!Guidance::new(1.0, 0.7).is_on());
        assert!(Guidance::new(1.0001, 0.0).is_on());
    }

    #[test]
    fn the_weight_extrapolates_from_the_unconditioned_half() {
        let x = tensor(&[0.0, 1.0, 2.0, 3.0, 1.0, 1.0, 4.0, 2.0]);
        let y = Guidance::new(3.0, 0.0).combine(&x).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(y, [3.0, 1.0, 8.0, 0.0]);
    }

    #[test]
    fn a_full_rescale_has_the_conditioned_spread() {
        let x = tensor(&[0.0, 1.0, 2.0, 3.0, 1.0, 1.0, 4.0, 2.0]);
        let y = Guidance::new(3.0, 1.0).combine(&x).unwrap();
        let spread =
            |t: &Tensor| std_per_image(t).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap()[0];
        assert!((spread(&y) - spread(&x.narrow(0, 1, 1).unwrap())).abs() < 1e-6);
    }
}
