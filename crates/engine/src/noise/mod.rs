//! The only source of randomness: the noise of PyTorch's CPU generator, bit for bit.
//!
//! A seed means the same picture as in diffusers only if the noise is the same, so [`Generator`] reproduces what
//! `torch.Generator("cpu").manual_seed(seed)` followed by `torch.randn` gives on x86: the Mersenne Twister and its
//! seeding ([`mt19937`]), the eight-lane Box-Muller transform of 16 values at a time with the Cephes logarithm, sine and
//! cosine ([`normal`]), the double-precision path for fewer than 16 values with its remembered second value, and the
//! coarse half-precision noise of PyTorch up to 2.11 ([`half_legacy`]).
//!
//! Noise is drawn on the host whatever the device of the networks, in `f32`, in row-major order.

pub mod brownian;
mod half_legacy;
mod mt19937;
mod normal;
mod seed_sequence;
#[cfg(test)]
mod tests;

use std::hash::{BuildHasher, Hasher, RandomState};

use half::{bf16, f16};
use mt19937::Mt19937;

/// A 16-bit number format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HalfType {
    /// IEEE 754 half precision.
    F16,
    /// Brain floating point: the upper half of an `f32`.
    BF16,
}

impl HalfType {
    /// `value` rounded to the format and widened again.
    fn round(self, value: f32) -> f32 {
        match self {
            HalfType::F16 => f16::from_f32(value).to_f32(),
            HalfType::BF16 => bf16::from_f32(value).to_f32(),
        }
    }
}

/// Which of PyTorch's rules turns random bits into normal noise. Whatever the rule, values come back as `f32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoiseRule {
    /// `torch.randn` in `float32`.
    F32,
    /// `torch.randn` in half precision since PyTorch 2.12: computed in `f32`, then rounded.
    Half(HalfType),
    /// `torch.randn` in half precision up to PyTorch 2.11: computed in the half format from uniforms of 11 (f16) or
    /// 8 (bf16) bits. Unrelated to the `f32` noise of the same seed, and never beyond 3.90 or 3.33.
    HalfLegacy(HalfType),
}

/// Which PyTorch a half-precision run draws its noise like; in `f32` there is no difference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NoiseEra {
    /// PyTorch 2.12 and later: the `f32` noise, rounded.
    #[default]
    Torch,
    /// PyTorch up to 2.11: noise of its own for each half format.
    Torch211,
}

impl NoiseEra {
    /// The rule for values that a network takes in this number format.
    pub fn rule(self, half: Option<HalfType>) -> NoiseRule {
        match (self, half) {
            (_, None) => NoiseRule::F32,
            (NoiseEra::Torch, Some(kind)) => NoiseRule::Half(kind),
            (NoiseEra::Torch211, Some(kind)) => NoiseRule::HalfLegacy(kind),
        }
    }
}

/// Values per application of the Box-Muller transform; fewer take the double-precision path.
const BLOCK: usize = 16;

/// A seed for a request that names none: the standard library seeds its hash maps from the system. 32 bits, since
/// torch's generator knows no more of a seed.
pub fn random_seed() -> u64 {
    RandomState::new().build_hasher().finish() & u64::from(u32::MAX)
}

/// PyTorch's CPU random number generator.
#[derive(Clone)]
pub struct Generator {
    bits: Mt19937,
    /// The second value of the last double-precision pair, until a later small draw takes it.
    second_normal: Option<f64>,
}

impl Generator {
    /// The generator after `manual_seed(seed)`. As in PyTorch only the low 32 bits of the seed count; a negative seed is
    /// its two's complement.
    pub fn new(seed: u64) -> Self {
        Self { bits: Mt19937::new(seed as u32), second_normal: None }
    }

    /// `torch.randn(shape, generator=self)`: standard normal values in row-major order.
    pub fn randn(&mut self, shape: &[usize], rule: NoiseRule) -> Vec<f32> {
        let count = shape.iter().product();
        if count < BLOCK {
            return (0..count).map(|_| self.small_normal(rule)).collect();
        }
        match rule {
            NoiseRule::F32 => normal::fill(&mut self.bits, count),
            NoiseRule::Half(kind) => normal::fill_half(&mut self.bits, count, kind),
            NoiseRule::HalfLegacy(kind) => half_legacy::fill(&mut self.bits, count, kind),
        }
    }

    /// One value of a draw of fewer than 16: Box-Muller in `f64`, cosine first, the sine's value kept for the next call.
    /// (`normal_distribution<double>` in ATen/core/DistributionsHelper.h)
    fn small_normal(&mut self, rule: NoiseRule) -> f32 {
        let value = self.second_normal.take().unwrap_or_else(|| {
            let turn = self.bits.uniform_f64();
            let magnitude = self.bits.uniform_f64();
            let radius = (-2.0 * (-magnitude).ln_1p()).sqrt();
            let theta = 2.0 * std::f64::consts::PI * turn;
            self.second_normal = Some(radius * theta.sin());
            radius * theta.cos()
        });
        // Adding zero turns -0 into +0, as adding the mean does in PyTorch.
        let value = (value + 0.0) as f32;
        match rule {
            NoiseRule::F32 => value,
            NoiseRule::Half(kind) | NoiseRule::HalfLegacy(kind) => kind.round(value),
        }
    }
}
