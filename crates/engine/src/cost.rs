//! How long the stages of a run take beside each other, told from the headers of the checkpoint's files: for whoever
//! shows how far a run is. A plain estimate; no picture depends on it.

use infill_models::{Checkpoint, summarize};

/// A decode takes about this many times the operations of a step with guidance, for each weight of its network: torch's
/// flop counter has 0.115 for a weight and pixel of the VAE, and 0.0047 (SDXL) to 0.0071 (SD 1.5) for one of the UNet.
const DECODE_TO_STEP: f64 = 19.0;

/// How long stages take, in steps of the same run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Costs {
    /// Of words and pixels: the picture goes through the VAE's first half twice.
    pub encoding: f64,
    /// Of one picture.
    pub decoding: f64,
}

impl Default for Costs {
    /// Where nothing is known: as for SD 1.5 and SDXL.
    fn default() -> Self {
        Self { encoding: 1.0, decoding: 1.0 }
    }
}

impl Costs {
    /// Those of a checkpoint, for any size of picture, since both networks take their time by the pixel.
    pub fn of(checkpoint: &Checkpoint) -> Self {
        let weights = |wanted: &str| {
            let (name, component) = checkpoint.components().find(|(name, _)| *name == wanted)?;
            summarize(name, component).ok().map(|summary| summary.parameters as f64)
        };
        match (weights("unet"), weights("vae")) {
            (Some(unet), Some(vae)) if unet > 0.0 => Self::of_weights(unet, vae),
            // A file that can't be read is refused where it is loaded.
            _ => Self::default(),
        }
    }

    fn of_weights(unet: f64, vae: f64) -> Self {
        let decoding = (DECODE_TO_STEP * vae / unet).clamp(0.1, 100.0);
        Self { encoding: decoding, decoding }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The seconds of docs/benchmarks.md: 10.43 to 6.95 and 10.59 to 12.85, within a factor of two.
    #[test]
    fn the_published_models_are_near_what_was_measured() {
        for (unet, vae, measured) in [(860e6, 83.7e6, 10.43 / 6.95), (2567e6, 83.7e6, 10.59 / 12.85)] {
            let told = Costs::of_weights(unet, vae).decoding;
            assert!(told > measured / 2.0 && told < measured * 2.0, "{told} for {measured}");
        }
        assert!(Costs::of_weights(8.7e6, 2.6e6).decoding > 4.0, "a small UNet beside its VAE");
    }
}
