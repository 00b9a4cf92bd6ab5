//! A `scheduler_config.json` comes from anywhere: whatever it says, a scheduler is refused with a sentence or runs to
//! its end.

#![allow(clippy::unwrap_used)]

use candle_core::{DType, Device, Tensor};
use infill_engine::scheduler::{Scheduler, SchedulerConfig, SchedulerKind, StepOptions, TimestepSpacing};
use proptest::prelude::*;
use serde_json::{Value, json};

const NUMBERS: [&str; 16] = [
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "steps_offset",
    "clip_sample_range",
    "dynamic_thresholding_ratio",
    "sample_max_value",
    "original_inference_steps",
    "timestep_scaling",
    "solver_order",
    "lambda_min_clipped",
    "sigma_min",
    "sigma_max",
    "noise_sampler_seed",
    "trained_betas",
    "disable_corrector",
];

const FLAGS: [&str; 14] = [
    "rescale_betas_zero_snr",
    "use_karras_sigmas",
    "use_exponential_sigmas",
    "use_beta_sigmas",
    "thresholding",
    "clip_sample",
    "set_alpha_to_one",
    "lower_order_final",
    "euler_at_final",
    "use_lu_lambdas",
    "predict_x0",
    "skip_prk_steps",
    "solver_p",
    "use_flow_sigmas",
];

const WORDS: [(&str, &[&str]); 9] = [
    ("prediction_type", &["epsilon", "sample", "original_sample", "v_prediction"]),
    ("timestep_spacing", &["linspace", "leading", "trailing"]),
    ("beta_schedule", &["linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid", "laplace", "exp"]),
    ("final_sigmas_type", &["zero", "sigma_min"]),
    ("algorithm_type", &["dpmsolver", "dpmsolver++", "sde-dpmsolver", "sde-dpmsolver++", "deis"]),
    ("solver_type", &["midpoint", "heun", "bh1", "bh2", "logrho"]),
    ("interpolation_type", &["linear", "log_linear"]),
    ("timestep_type", &["discrete", "continuous"]),
    ("variance_type", &["fixed_small", "fixed_large", "learned_range", "learned"]),
];

fn number() -> impl Strategy<Value = Value> {
    prop_oneof![
        prop::sample::select(vec![0, 1, 2, 3, 50, 1000, -1]).prop_map(Value::from),
        prop::sample::select(vec![0.0, 0.00085, 0.5, 0.999, 1.0, 1e-30, 1e30, -0.3]).prop_map(Value::from),
        Just(json!("-Infinity")),
        Just(json!([0.1, 0.2, 0.3])),
        Just(json!([1, 2])),
        Just(Value::Null),
        any::<u64>().prop_map(Value::from),
    ]
}

fn entry() -> impl Strategy<Value = (String, Value)> {
    let word = prop::sample::select(WORDS.to_vec());
    prop_oneof![
        (prop::sample::select(NUMBERS.to_vec()), number()).prop_map(|(key, value)| (key.to_owned(), value)),
        (prop::sample::select(FLAGS.to_vec()), any::<bool>())
            .prop_map(|(key, flag)| (key.to_owned(), flag.into())),
        word.prop_flat_map(|(key, words)| (Just(key.to_owned()), prop::sample::select(words.to_vec())))
            .prop_map(|(key, word)| (key, word.into())),
    ]
}

#[test]
fn the_classes_that_space_their_time_steps_are_named() {
    for kind in SchedulerKind::ALL {
        let timesteps = TimestepSpacing::ALL.map(|(name, _)| {
            let config = json!({ "_class_name": kind.name(), "timestep_spacing": name, "beta_end": 0.012 });
            let config = SchedulerConfig::from_json(&config).unwrap();
            let scheduler = Scheduler::new(&config, 7, StepOptions { eta: 0.0, seed: 1 }).unwrap();
            scheduler.timesteps().to_vec()
        });
        assert_eq!(timesteps[0] != timesteps[1], kind.spaces_timesteps(), "{kind}: {timesteps:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]
    #[test]
    fn nothing_that_a_configuration_says_stops_the_process(
        kind in prop::sample::select(SchedulerKind::ALL.to_vec()),
        entries in prop::collection::vec(entry(), 0..6),
        steps in prop_oneof![1usize..8, 1usize..=150],
    ) {
        let mut config = json!({ "_class_name": kind.name(), "num_train_timesteps": 100 });
        for (key, value) in entries {
            config[key] = value;
        }
        let config = SchedulerConfig::from_json(&config).unwrap().for_stable_diffusion();
        let Ok(mut scheduler) = Scheduler::new(&config, steps, StepOptions { eta: 0.5, seed: 1 }) else {
            return Ok(());
        };
        let ones = || Tensor::ones((1, 4, 2, 2), DType::F32, &Device::Cpu).unwrap();
        let mut sample = ones();
        for i in 0..scheduler.timesteps().len() {
            if i == 0 && scheduler.add_noise(&sample, &ones(), i).is_err() {
                return Ok(());
            }
            let input = scheduler.scale_model_input(&sample, i).unwrap();
            match scheduler.step(i, &input, &sample, &mut |_| Ok(ones())) {
                Ok(next) => sample = next,
                Err(_) => return Ok(()),
            }
        }
        prop_assert_eq!(sample.dims(), [1, 4, 2, 2]);
    }
}
