#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::brownian::BrownianTree;
use super::{Generator, HalfType, NoiseRule};

fn sha256(values: &[f32]) -> String {
    let mut hasher = Sha256::new();
    values.iter().for_each(|value| hasher.update(value.to_le_bytes()));
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn rule(dtype: &str, legacy: bool) -> NoiseRule {
    match (dtype, legacy) {
        ("f32", _) => NoiseRule::F32,
        ("f16", false) => NoiseRule::Half(HalfType::F16),
        ("bf16", false) => NoiseRule::Half(HalfType::BF16),
        ("f16", true) => NoiseRule::HalfLegacy(HalfType::F16),
        ("bf16", true) => NoiseRule::HalfLegacy(HalfType::BF16),
        other => panic!("unknown dtype {other:?}"),
    }
}

fn numbers(value: &Value) -> Vec<usize> {
    value.as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as usize).collect()
}

fn floats(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(float).collect()
}

fn float(value: &Value) -> f32 {
    f32::from_bits(u32::try_from(value.as_u64().unwrap()).unwrap())
}

fn check_single_draws(fixture: &str, legacy: bool) {
    let fixture: Value = serde_json::from_str(fixture).unwrap();
    let cases = fixture["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 108);
    for case in cases {
        let rule = rule(case["dtype"].as_str().unwrap(), legacy);
        let values = Generator::new(case["seed"].as_u64().unwrap()).randn(&numbers(&case["shape"]), rule);
        assert_eq!(sha256(&values), case["sha256"].as_str().unwrap(), "{case}");
    }
    let mut generator = Generator::new(42);
    generator.randn(&[1, 4, 128, 128], NoiseRule::F32);
    let second = generator.randn(&[1, 4, 128, 128], NoiseRule::F32);
    assert_eq!(sha256(&second), fixture["second_draw_seed_42_1x4x128x128"].as_str().unwrap());
}

#[test]
fn draws_equal_torch_2_15() {
    check_single_draws(include_str!("../../../../tests/fixtures/noise/torch-2.15.json"), false);
}

#[test]
fn draws_equal_torch_2_7_with_its_coarse_half_noise() {
    check_single_draws(include_str!("../../../../tests/fixtures/noise/torch-2.7.1.json"), true);
}

#[test]
fn draws_of_several_sizes_from_one_generator_equal_torch() {
    let cases: Value =
        serde_json::from_str(include_str!("../../../../tests/fixtures/noise/sequences.json")).unwrap();
    for case in cases.as_array().unwrap() {
        let rule = rule(case["dtype"].as_str().unwrap(), false);
        let mut generator = Generator::new(case["seed"].as_u64().unwrap());
        let values: Vec<f32> =
            numbers(&case["counts"]).iter().flat_map(|count| generator.randn(&[*count], rule)).collect();
        assert_eq!(sha256(&values), case["sha256"].as_str().unwrap(), "{case}");
    }
}

#[test]
fn brownian_noise_equals_torchsde() {
    let cases: Value =
        serde_json::from_str(include_str!("../../../../tests/fixtures/noise/brownian.json")).unwrap();
    for case in cases.as_array().unwrap() {
        let mut tree = BrownianTree::new(
            &numbers(&case["shape"]),
            float(&case["sigma_min"]),
            float(&case["sigma_max"]),
            case["seed"].as_u64().unwrap(),
        );
        for step in case["steps"].as_array().unwrap() {
            let (from, to) = (float(&step["from"]), float(&step["to"]));
            assert_eq!(tree.signed_increment(from, to), floats(&step["increment"]), "from {from} to {to}");
            // PyTorch's square root is in the last place wrong for about one number in a hundred; ours is not.
            for (ours, torch) in tree.sample(from, to).iter().zip(floats(&step["noise"])) {
                assert!((ours - torch).abs() <= torch.abs() * f32::EPSILON * 2.0, "{ours} is not {torch}");
            }
        }
    }
}

#[test]
fn only_the_low_half_of_a_seed_counts() {
    let draw = |seed| Generator::new(seed).randn(&[32], NoiseRule::F32);
    assert_eq!(draw(5), draw((1 << 32) + 5));
    assert_eq!(draw(u64::MAX), draw(0xffff_ffff));
    assert_ne!(draw(5), draw(6));
}
