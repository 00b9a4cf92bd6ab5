//! The random draws of one run, in order.

use infill_networks::{DType, Device, Tensor};

use super::Observer;
use crate::Result;
use crate::noise::{Generator, HalfType, NoiseEra};

/// One generator, its draws made on the host and counted.
pub(super) struct NoiseSource {
    generator: Generator,
    era: NoiseEra,
    draws: usize,
}

impl NoiseSource {
    pub(super) fn new(seed: u64, era: NoiseEra) -> Self {
        Self { generator: Generator::new(seed), era, draws: 0 }
    }

    /// Standard normal values as torch draws them for this number format, in f32 on `device`.
    pub(super) fn draw(
        &mut self,
        shape: &[usize],
        dtype: DType,
        device: &Device,
        observer: &mut Observer<'_>,
    ) -> Result<Tensor> {
        let half = match dtype {
            DType::F16 => Some(HalfType::F16),
            DType::BF16 => Some(HalfType::BF16),
            _ => None,
        };
        let values = self.generator.randn(shape, self.era.rule(half));
        let noise = Tensor::from_vec(values, shape, device)?;
        observer.tap(&format!("noise.{}", self.draws), &noise);
        self.draws += 1;
        Ok(noise)
    }
}
