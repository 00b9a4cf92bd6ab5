//! `infill noise`: a fingerprint of the noise that a seed gives, so that anyone can compare engines.

use infill_engine::noise::{Generator, HalfType, NoiseRule};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::args::{HalfRule, NoiseArgs, NoiseFormat};
use crate::failure::Result;
use crate::stdout;

/// How many values are shown.
const HEAD: usize = 8;

#[derive(Debug, Serialize)]
struct Fingerprint<'a> {
    seed: u64,
    shape: &'a [usize],
    dtype: &'static str,
    rule: &'static str,
    /// Of the values widened to f32, little-endian, row-major.
    sha256: String,
    head: Vec<f64>,
}

pub(crate) fn run(args: &NoiseArgs) -> Result<()> {
    let shape = args.shape.0.as_slice();
    let values = Generator::new(args.seed).randn(shape, rule(args.dtype, args.rule));
    let mut hash = Sha256::new();
    for value in &values {
        hash.update(value.to_le_bytes());
    }
    let fingerprint = Fingerprint {
        seed: args.seed,
        shape,
        dtype: match args.dtype {
            NoiseFormat::F32 => "f32",
            NoiseFormat::F16 => "f16",
            NoiseFormat::Bf16 => "bf16",
        },
        rule: match args.rule {
            HalfRule::Torch => "torch",
            HalfRule::Torch211 => "torch-2.11",
        },
        sha256: hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect(),
        // As f64 they have the digits that Python prints.
        head: values.iter().take(HEAD).map(|&value| f64::from(value)).collect(),
    };
    if args.json {
        return stdout::json(&fingerprint);
    }
    let head: Vec<String> = fingerprint.head.iter().map(f64::to_string).collect();
    stdout::line(&format!("{}\n{}", fingerprint.sha256, head.join(" ")))
}

/// The noise of this format, as this torch draws it.
fn rule(dtype: NoiseFormat, rule: HalfRule) -> NoiseRule {
    let half = match dtype {
        NoiseFormat::F32 => return NoiseRule::F32,
        NoiseFormat::F16 => HalfType::F16,
        NoiseFormat::Bf16 => HalfType::BF16,
    };
    match rule {
        HalfRule::Torch => NoiseRule::Half(half),
        HalfRule::Torch211 => NoiseRule::HalfLegacy(half),
    }
}
