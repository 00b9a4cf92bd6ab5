//! Every scheduler against runs of diffusers, over the grid of `tests/fixtures/schedulers/make.py`.
//!
//! Each case is run freely, with the network's formula and the noise bank of the generator; its timesteps and sigmas,
//! the network's inputs, the samples after every step and the known picture noised to the next level must agree.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use candle_core::{DType, Device, Tensor};
use infill_engine::scheduler::{Scheduler, SchedulerConfig, SchedulerKind, StepOptions};
use serde::Deserialize;

/// An implementation may differ from diffusers' float32 run by this many times what that differs from its float64 run.
const FLOORS: f64 = 10.0;

/// Two neighbouring float32 are no further apart than this share of them: what a table's entry may be off by.
const UNIT: f64 = f32::EPSILON as f64;

#[derive(Deserialize)]
struct Case {
    name: String,
    class: String,
    config: serde_json::Value,
    steps: usize,
    begin: usize,
    #[serde(default)]
    eta: f64,
    draws: usize,
    floors: HashMap<String, f64>,
}

struct Fixtures {
    cases: Vec<Case>,
    tensors: HashMap<String, Tensor>,
}

impl Fixtures {
    fn open() -> Self {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/schedulers");
        let cases = std::fs::read_to_string(folder.join("cases.json")).unwrap();
        let tensors = candle_core::safetensors::load(folder.join("runs.safetensors"), &Device::Cpu).unwrap();
        Self { cases: serde_json::from_str(&cases).unwrap(), tensors }
    }

    fn of(&self, case: &Case, name: &str) -> Option<&Tensor> {
        self.tensors.get(&format!("{}/{name}", case.name))
    }
}

impl Case {
    fn scheduler(&self) -> infill_engine::Result<Scheduler> {
        let mut json = self.config.clone();
        json["_class_name"] = self.class.clone().into();
        Scheduler::new(
            &SchedulerConfig::from_json(&json)?,
            self.steps,
            StepOptions { eta: self.eta, seed: 0 },
        )
    }
}

/// The largest difference; not a number if any is not.
fn difference(ours: &[f64], theirs: &[f64]) -> f64 {
    assert_eq!(ours.len(), theirs.len());
    let larger = |most: f64, apart: f64| if apart.is_nan() || apart > most { apart } else { most };
    ours.iter().zip(theirs).map(|(a, b)| (a - b).abs()).fold(0.0, larger)
}

/// The largest difference as a share of their number.
fn relative(ours: &[f64], theirs: &[f64]) -> f64 {
    let apart = |(a, b): (&f64, &f64)| if a == b { 0.0 } else { ((a - b) / b).abs() };
    ours.iter().zip(theirs).map(apart).fold(0.0, f64::max)
}

fn numbers(tensor: &Tensor) -> Vec<f64> {
    tensor.flatten_all().unwrap().to_dtype(DType::F64).unwrap().to_vec1().unwrap()
}

/// What a case's run came out as: for every recorded group, the difference and what it may be.
fn run(fixtures: &Fixtures, case: &Case, mut scheduler: Scheduler) -> Vec<(&'static str, f64, f64)> {
    let timesteps = scheduler.timesteps().to_vec();
    let mut results = Vec::new();

    let expected = numbers(fixtures.of(case, "timesteps").unwrap());
    assert_eq!(timesteps.len(), expected.len(), "{}: number of timesteps", case.name);
    results.push(("timesteps", relative(&timesteps, &expected), UNIT));
    if let Some(expected) = fixtures.of(case, "sigmas") {
        let ours: Vec<f64> = scheduler.sigmas().iter().copied().map(f64::from).collect();
        assert_eq!(ours.len(), expected.elem_count(), "{}: number of sigmas", case.name);
        results.push(("sigmas", relative(&ours, &numbers(expected)), UNIT));
    }
    let init = numbers(fixtures.of(case, "init_noise_sigma").unwrap());
    results.push(("init_noise_sigma", relative(&[scheduler.init_noise_sigma()], &init), UNIT));

    let (bank, original, pattern) =
        (&fixtures.tensors["bank"], &fixtures.tensors["original"], &fixtures.tensors["pattern"]);
    let first = bank.get(63).unwrap();
    let mut drawn = 0;
    let mut draw = |shape: &[usize]| {
        drawn += 1;
        assert_eq!(shape, original.dims());
        Ok(bank.get(drawn - 1)?)
    };
    let mut x = if case.begin > 0 {
        scheduler.add_noise(original, &first, case.begin).unwrap()
    } else {
        (&first * scheduler.init_noise_sigma()).unwrap()
    };
    let (mut inputs, mut prevs, mut merged) = (Vec::new(), Vec::new(), Vec::new());
    for (i, t) in expected.iter().enumerate().skip(case.begin) {
        let input = scheduler.scale_model_input(&x, i).unwrap();
        inputs.push(input.clone());
        let output = ((input * 0.3).unwrap() + (pattern * (0.2 + 0.5 * t / 1000.0)).unwrap()).unwrap();
        x = scheduler.step(i, &output, &x, &mut draw).unwrap();
        prevs.push(x.clone());
        if i + 1 < timesteps.len() {
            merged.push(scheduler.add_noise(original, &first, i + 1).unwrap());
        }
    }
    assert_eq!(drawn, case.draws, "{}: draws", case.name);
    for (name, ours) in [("inputs", inputs), ("prevs", prevs), ("merged", merged)] {
        if ours.is_empty() {
            continue;
        }
        let ours = numbers(&Tensor::stack(&ours, 0).unwrap());
        let theirs = numbers(fixtures.of(case, name).unwrap());
        // A few roundings of the largest number, where a case happens to have next to no noise floor.
        let roundings = 4.0 * f64::from(f32::EPSILON) * theirs.iter().fold(0.0, |a, b| b.abs().max(a));
        results.push((name, difference(&ours, &theirs), (FLOORS * case.floors[name]).max(roundings)));
    }
    results
}

#[test]
fn every_class_agrees_with_diffusers() {
    let fixtures = Fixtures::open();
    let mut failures = Vec::new();
    let mut worst: BTreeMap<(&str, &str), f64> = BTreeMap::new();
    for case in &fixtures.cases {
        let scheduler = match case.scheduler() {
            Ok(scheduler) => scheduler,
            Err(error) => {
                failures.push(format!("{}: {error}; {}", case.name, case.config));
                continue;
            }
        };
        for (what, got, allowed) in run(&fixtures, case, scheduler) {
            let share = worst.entry((&case.class, what)).or_default();
            *share = share.max(got / allowed);
            if got.is_nan() || got > allowed {
                failures
                    .push(format!("{} {what}: {got:.2e}, allowed {allowed:.2e}; {}", case.name, case.config));
            }
        }
    }
    for ((class, what), share) in worst {
        println!("{class:32} {what:18} {share:.3} of what is allowed");
    }
    assert!(failures.is_empty(), "{} differ:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn no_class_is_left_out() {
    let fixtures = Fixtures::open();
    for kind in SchedulerKind::ALL {
        let cases = fixtures.cases.iter().filter(|case| case.class == kind.name()).count();
        assert!(cases > 10, "{kind} has {cases} cases");
        assert_eq!(kind.name().parse::<SchedulerKind>().unwrap(), kind);
    }
}

#[test]
fn samples_keep_their_dtype() {
    let config = SchedulerConfig::new(SchedulerKind::EulerAncestralDiscrete);
    let mut scheduler = Scheduler::new(&config, 4, StepOptions::default()).unwrap();
    let x = Tensor::ones((1, 4, 2, 2), DType::F16, &Device::Cpu).unwrap();
    assert_eq!(scheduler.scale_model_input(&x, 0).unwrap().dtype(), DType::F16);
    assert_eq!(scheduler.add_noise(&x, &x, 0).unwrap().dtype(), DType::F16);
    let mut draw = |shape: &[usize]| Ok(Tensor::ones(shape, DType::F32, &Device::Cpu)?);
    assert_eq!(scheduler.step(0, &x, &x, &mut draw).unwrap().dtype(), DType::F16);
}

#[test]
fn refusals_name_the_key() {
    let refused = |class: &str, key: &str, value: serde_json::Value| {
        let json = serde_json::json!({"_class_name": class, key: value});
        let config = SchedulerConfig::from_json(&json).unwrap();
        let message = match Scheduler::new(&config, 4, StepOptions::default()) {
            Ok(_) => panic!("{class} takes {key} {value}"),
            Err(error) => error.to_string(),
        };
        assert!(message.contains(key), "{message}");
    };
    for kind in SchedulerKind::ALL {
        refused(kind.name(), "beta_schedule", "quadratic".into());
        refused(kind.name(), "prediction_type", "flow".into());
        refused(kind.name(), "num_train_timesteps", 0.into());
        let config = SchedulerConfig::new(kind);
        assert!(Scheduler::new(&config, 0, StepOptions::default()).is_err());
    }
    for class in [
        "DPMSolverMultistepScheduler",
        "DPMSolverSinglestepScheduler",
        "UniPCMultistepScheduler",
        "DEISMultistepScheduler",
    ] {
        refused(class, "use_flow_sigmas", true.into());
    }
    refused("EulerDiscreteScheduler", "timestep_type", "odd".into());
    refused("EulerDiscreteScheduler", "use_karras_sigmas", serde_json::Value::Null);
    let both = serde_json::json!({
        "_class_name": "EulerDiscreteScheduler", "use_karras_sigmas": true, "use_beta_sigmas": true
    });
    let config = SchedulerConfig::from_json(&both).unwrap();
    assert!(Scheduler::new(&config, 4, StepOptions::default()).is_err());
}
