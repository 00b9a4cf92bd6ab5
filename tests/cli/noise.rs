//! `infill noise` against what torch 2.15 and 2.7.1 drew (`tests/fixtures/noise`).

use serde_json::Value;

use crate::harness::{Place, fixture};

fn recorded(file: &str) -> Value {
    serde_json::from_slice(&std::fs::read(fixture(&format!("noise/{file}"))).unwrap()).unwrap()
}

/// Every recorded case of the file, asked of the executable as JSON.
fn matches_torch(file: &str, rule: &str) {
    let place = Place::new();
    let recorded = recorded(file);
    let cases = recorded["cases"].as_array().unwrap();
    assert!(cases.len() >= 100, "{}", cases.len());
    for case in cases {
        let shape: Vec<String> = case["shape"].as_array().unwrap().iter().map(Value::to_string).collect();
        let (seed, dtype) = (case["seed"].to_string(), case["dtype"].as_str().unwrap());
        let args = [
            "noise",
            "--seed",
            &seed,
            "--shape",
            &shape.join(","),
            "--dtype",
            dtype,
            "--rule",
            rule,
            "--json",
        ];
        let answer: Value = serde_json::from_str(&place.infill(&args).succeeded().stdout).unwrap();
        assert!(case["sha256"].is_string());
        assert_eq!(answer["sha256"], case["sha256"], "{args:?}");
    }
}

#[test]
fn the_new_rule_is_torch_2_15() {
    matches_torch("torch-2.15.json", "torch");
}

#[test]
fn the_old_rule_is_torch_2_7() {
    matches_torch("torch-2.7.1.json", "torch-2.11");
}

#[test]
fn people_get_the_hash_and_eight_values() {
    let run = Place::new().infill(&["noise", "--seed", "0", "--shape", "1,4,64,64"]).succeeded();
    let lines: Vec<&str> = run.stdout.lines().collect();
    assert_eq!(lines[0], "24efac55b39e95b2d74d8fb5b3a8e8a8e808bd04129f260c4cdbb225bb952a4d");
    assert!(lines[1].starts_with("-1.1258398294448853 -1.152360200881958 "), "{}", lines[1]);
    assert_eq!((lines.len(), lines[1].split(' ').count()), (2, 8));
}

#[test]
fn only_the_low_32_bits_of_a_seed_count_and_negative_ones_are_two_s_complement() {
    let place = Place::new();
    let noise = |seed: &str| place.infill(&["noise", "--shape", "4,4,4", "--seed", seed]).succeeded().stdout;
    assert_eq!(noise("0"), noise("4294967296"));
    assert_eq!(noise("-1"), noise("18446744073709551615"));
    assert_eq!(noise("-1"), noise("0xffffffff"));
    assert_ne!(noise("-1"), noise("1"));
}

#[test]
fn bad_values_are_refused() {
    let place = Place::new();
    let cases: [(&[&str], &[&str]); 6] = [
        (&["--seed", "1.5", "--shape", "4"], &["--seed", "1.5", "whole number"]),
        (&["--seed", "18446744073709551616", "--shape", "4"], &["--seed", "18446744073709551616"]),
        (&["--seed", "1", "--shape", "1,0"], &["--shape", "1,0", "positive"]),
        (&["--seed", "1", "--shape", "99999,99999,99999"], &["--shape", "99999,99999,99999", "67108864"]),
        (&["--seed", "1", "--shape", "4", "--dtype", "f64"], &["--dtype", "f64", "bf16"]),
        (&["--seed", "1", "--shape", "4", "--rule", "numpy"], &["--rule", "numpy", "torch-2.11"]),
    ];
    for (args, parts) in cases {
        place.infill(&[&["noise"], args].concat()).refused(2, parts);
    }
}
