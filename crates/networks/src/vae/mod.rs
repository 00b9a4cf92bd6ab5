//! The autoencoder between pictures and latents.

mod blocks;
mod config;
mod decoder;
mod encoder;
mod tiling;

use candle_core::Tensor;

use crate::layers::Conv2d;
use crate::weights::Weights;
use crate::{Interrupt, Result};
pub use config::AutoencoderKlConfig;
use decoder::Decoder;
use encoder::Encoder;
use tiling::{PARTS, Tiling};

/// How a picture goes through the autoencoder.
#[derive(Clone, Debug, Default)]
pub struct Passage {
    /// Larger pictures go through in tiles of this side in pixels, a positive multiple of
    /// [`AutoencoderKl::tile_step`]; `None`: in one piece.
    pub tile_size: Option<usize>,
    /// Asked before every tile and block.
    pub interrupt: Interrupt,
}

/// The variational autoencoder of Stable Diffusion (diffusers: `autoencoders/autoencoder_kl.py`; arXiv 1312.6114).
pub struct AutoencoderKl {
    config: AutoencoderKlConfig,
    encoder: Encoder,
    decoder: Decoder,
    quant_conv: Option<Conv2d>,
    post_quant_conv: Option<Conv2d>,
}

impl AutoencoderKl {
    /// Builds the network; call [`Weights::finish`] afterwards.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Unsupported`] or [`crate::Error::Config`] for a configuration that can't be run.
    pub fn new(config: AutoencoderKlConfig, w: &Weights) -> Result<Self> {
        config.check(w.component())?;
        let latents = config.latent_channels;
        let pointwise = |channels, name: &str| Conv2d::new(channels, channels, 1, 1, 0, &w.sub(name));
        Ok(Self {
            encoder: Encoder::new(&config, &w.sub("encoder"))?,
            decoder: Decoder::new(&config, &w.sub("decoder"))?,
            quant_conv: config.use_quant_conv.then(|| pointwise(2 * latents, "quant_conv")).transpose()?,
            post_quant_conv: config
                .use_post_quant_conv
                .then(|| pointwise(latents, "post_quant_conv"))
                .transpose()?,
            config,
        })
    }

    /// The configuration that the network was built from.
    pub fn config(&self) -> &AutoencoderKlConfig {
        &self.config
    }

    /// What [`Passage::tile_size`] is a multiple of: tiles overlap by whole latents.
    pub fn tile_step(&self) -> usize {
        PARTS * self.config.scale()
    }

    /// `x` (B, 3, H, W) in -1..1 to the distribution of its latents (B, latent channels, H/8, W/8), not yet scaled.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Interrupted`]; a tensor that does not fit; a tile size that is no multiple of its step.
    pub fn encode(&self, x: &Tensor, passage: &Passage) -> Result<DiagonalGaussian> {
        let encode = |x: &Tensor| {
            let hidden = self.encoder.forward(x, &passage.interrupt)?;
            match &self.quant_conv {
                Some(conv) => conv.forward(&hidden),
                None => Ok(hidden),
            }
        };
        let tiling = |size| Tiling { before: size, after: size / self.config.scale() };
        DiagonalGaussian::new(&self.pass(x, passage, tiling, encode)?)
    }

    /// `z` (B, latent channels, h, w), already unscaled, to a picture (B, 3, 8h, 8w) in about -1..1, not clamped.
    ///
    /// # Errors
    ///
    /// As [`Self::encode`].
    pub fn decode(&self, z: &Tensor, passage: &Passage) -> Result<Tensor> {
        let decode = |z: &Tensor| match &self.post_quant_conv {
            Some(conv) => self.decoder.forward(&conv.forward(z)?, &passage.interrupt),
            None => self.decoder.forward(z, &passage.interrupt),
        };
        let tiling = |size| Tiling { before: size / self.config.scale(), after: size };
        self.pass(z, passage, tiling, decode)
    }

    /// `x` through `half` of the autoencoder, in tiles where they are asked for and it is larger than one.
    fn pass(
        &self,
        x: &Tensor,
        passage: &Passage,
        tiling: impl Fn(usize) -> Tiling,
        half: impl Fn(&Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let Some(size) = passage.tile_size else { return half(x) };
        let step = self.tile_step();
        if size == 0 || size % step != 0 {
            let reason = format!("tile_size is {size}; allowed: multiples of {step}");
            return Err(candle_core::Error::msg(reason).into());
        }
        let tiling = tiling(size);
        if tiling.divides(x)? { tiling.run(x, half) } else { half(x) }
    }
}

/// A normal distribution with its own variance at each place (diffusers: `vae.py`, `DiagonalGaussianDistribution`).
#[derive(Clone, Debug)]
pub struct DiagonalGaussian {
    /// (B, latent channels, h, w).
    pub mean: Tensor,
    /// Logarithm of the variance, within -30..=20, same shape.
    pub logvar: Tensor,
}

impl DiagonalGaussian {
    /// From `moments` (B, 2 latent channels, h, w): means, then logarithms of variances.
    pub fn new(moments: &Tensor) -> Result<Self> {
        let channels = moments.dim(1)? / 2;
        let mean = moments.narrow(1, 0, channels)?.contiguous()?;
        let logvar = moments.narrow(1, channels, channels)?.contiguous()?.clamp(-30.0, 20.0)?;
        Ok(Self { mean, logvar })
    }

    /// The standard deviation. A sample is `mean + std * noise`, the noise drawn by the caller.
    pub fn std(&self) -> Result<Tensor> {
        Ok((&self.logvar * 0.5)?.exp()?)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use candle_core::Device;

    #[test]
    fn the_variance_is_bounded() {
        let moments = Tensor::new(&[[[[1f32]], [[2.0]], [[-99.0]], [[99.0]]]], &Device::Cpu).unwrap();
        let gaussian = DiagonalGaussian::new(&moments).unwrap();
        let list = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(list(&gaussian.mean), [1.0, 2.0]);
        assert_eq!(list(&gaussian.logvar), [-30.0, 20.0]);
        let std = list(&gaussian.std().unwrap());
        assert!(
            (std[0] - (-15f32).exp()).abs() < 1e-12 && (std[1] / 10f32.exp() - 1.0).abs() < 1e-6,
            "{std:?}"
        );
    }
}
