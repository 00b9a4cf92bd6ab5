//! Previews: what they show, how often, and that no picture depends on them.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use image::{GrayImage, Luma, Rgb, RgbImage};
use infill_engine::image::Picture;
use infill_engine::mask::Mask;
use infill_engine::pipeline::{LoadOptions, MOST_PREVIEWS, Observer, Pipeline, Preview};
use infill_engine::scheduler::{Scheduler, SchedulerConfig, SchedulerKind, StepOptions};
use infill_engine::{InpaintParams, InpaintRequest};
use infill_models::Checkpoint;
use serde_json::json;

fn load(name: &str) -> Pipeline {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/models").join(name);
    let options = LoadOptions { device: Device::Cpu, dtype: DType::F32 };
    Pipeline::load(&Checkpoint::open(&folder).unwrap(), &options, &mut Observer::silent()).unwrap()
}

/// A picture in stripes of 32 pixels, whose right half is painted.
fn request(change: impl Fn(&mut InpaintParams)) -> InpaintRequest {
    let image = RgbImage::from_fn(128, 64, |x, y| Rgb([(x / 32 * 60) as u8, (y / 32 * 200) as u8, 90]));
    let mask = GrayImage::from_fn(128, 64, |x, _| Luma([if x < 64 { 0 } else { 255 }]));
    let mut params = InpaintParams::new(Picture::from_rgb8(image), Mask::from_luma8(mask), "a red door");
    params.seed = 7;
    change(&mut params);
    InpaintRequest::new(params).unwrap()
}

/// The pictures of a run, and its previews.
fn run(pipeline: &Pipeline, request: &InpaintRequest, watched: bool) -> (Vec<Vec<u8>>, Vec<Preview>) {
    let (mut pictures, mut previews) = (Vec::new(), Vec::new());
    let mut see = |preview| previews.push(preview);
    let mut observer = Observer::silent();
    if watched {
        observer = observer.with_previews(&mut see);
    }
    pipeline
        .inpaint(request, &mut observer, &mut |painted| {
            pictures.push(painted.picture.encode_png(None)?);
            Ok(())
        })
        .unwrap();
    (pictures, previews)
}

#[test]
fn a_watched_run_gives_the_same_bytes() {
    for model in ["tiny-sd15-inpaint", "tiny-sd15-base", "tiny-sdxl-inpaint", "tiny-sd15-lcm"] {
        let pipeline = load(model);
        for (kind, strength) in [
            (None, 1.0),
            (None, 0.6),
            (Some(SchedulerKind::EulerAncestralDiscrete), 1.0),
            (Some(SchedulerKind::HeunDiscrete), 0.8),
        ] {
            let request = request(|params| {
                params.num_inference_steps = 5;
                params.strength = strength;
                params.samples = 2;
                params.scheduler.kind = kind;
            });
            let (alone, none) = run(&pipeline, &request, false);
            let (watched, previews) = run(&pipeline, &request, true);
            assert!(none.is_empty() && !previews.is_empty(), "{model}");
            assert!(alone == watched, "{model}, {kind:?}, {strength}: other bytes");
        }
    }
}

#[test]
fn previews_are_few_and_numbered_and_the_same_each_time() {
    let pipeline = load("tiny-sd15-inpaint");
    let request = request(|params| {
        params.num_inference_steps = 20;
        params.strength = 1.0;
        params.samples = 2;
    });
    let (_, previews) = run(&pipeline, &request, true);
    let numbers: Vec<_> = previews.iter().map(|preview| preview.index).collect();
    assert_eq!(numbers, [[0; MOST_PREVIEWS], [1; MOST_PREVIEWS]].concat());
    assert!(previews.iter().all(|preview| preview.steps >= 20 && preview.step + 1 < preview.steps));
    let (_, again) = run(&pipeline, &request, true);
    let pixels = |previews: &[Preview]| previews.iter().map(|p| p.picture.clone()).collect::<Vec<_>>();
    assert!(pixels(&previews) == pixels(&again));
}

#[test]
fn a_preview_is_pasted_as_the_result_is() {
    for model in ["tiny-sd15-inpaint", "tiny-sd15-base"] {
        let pipeline = load(model);
        for merge in [true, false] {
            let request = request(|params| {
                params.num_inference_steps = 4;
                params.strength = 1.0;
                params.merge = merge;
            });
            let (_, previews) = run(&pipeline, &request, true);
            assert!(previews.len() >= 3);
            let (width, height) = previews[0].picture.dimensions();
            let side = 128 / width;
            assert_eq!(height * side, 64);
            let kept = |preview: &Preview| {
                let left = preview.picture.enumerate_pixels().filter(|(x, ..)| x * side < 64);
                left.into_iter().all(|(x, y, pixel)| {
                    pixel.0 == [(x * side / 32 * 60) as u8, (y * side / 32 * 200) as u8, 90]
                })
            };
            assert!(previews.iter().all(|preview| kept(preview) == merge), "{model}, merged: {merge}");
            // Something is going on in the rest.
            let painted = |preview: &Preview| {
                preview
                    .picture
                    .enumerate_pixels()
                    .filter(|(x, ..)| x * side >= 64)
                    .map(|p| p.2.0)
                    .collect::<Vec<_>>()
            };
            assert!(painted(&previews[0]) != painted(previews.last().unwrap()), "{model}");
        }
    }
}

/// A vector that is not all the same.
fn values(seed: u32) -> Tensor {
    let value = |i: u32| ((i + seed).wrapping_mul(2_654_435_761) >> 16) as f32 / 32_768.0 - 1.0;
    Tensor::from_vec((0..16).map(value).collect::<Vec<f32>>(), (1, 4, 2, 2), &Device::Cpu).unwrap()
}

fn difference(a: &Tensor, b: &Tensor) -> f32 {
    (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar().unwrap()
}

/// What a network that knows the clean sample says of `x`, which has `original` of it and `noise` of the noise.
fn known(kind: &str, x: &Tensor, clean: &Tensor, (original, noise): (f64, f64)) -> Tensor {
    let epsilon = (((x - (clean * original).unwrap()).unwrap()) / noise).unwrap();
    let norm = original.hypot(noise);
    match kind {
        "epsilon" => epsilon,
        "sample" => clean.clone(),
        _ => ((epsilon * (original / norm)).unwrap() - (clean * (noise / norm)).unwrap()).unwrap(),
    }
}

fn shares(scheduler: &Scheduler, i: usize) -> (f64, f64) {
    let [one, zero] = [1_f32, 0.0].map(|v| Tensor::full(v, (1,), &Device::Cpu).unwrap());
    let share = |a: &Tensor, b: &Tensor| {
        f64::from(scheduler.add_noise(a, b, i).unwrap().to_vec1::<f32>().unwrap()[0])
    };
    (share(&one, &zero), share(&zero, &one))
}

#[test]
fn every_scheduler_tells_the_clean_sample_from_what_the_network_says() {
    let (clean, noise) = (values(1), values(77));
    for kind in SchedulerKind::ALL {
        for prediction in ["epsilon", "sample", "v_prediction"] {
            let json = json!({ "_class_name": kind.name(), "prediction_type": prediction });
            let config = SchedulerConfig::from_json(&json).unwrap();
            let Ok(scheduler) = Scheduler::new(&config, 6, StepOptions::default()) else { continue };
            for i in 0..scheduler.timesteps().len() {
                let x = scheduler.add_noise(&clean, &noise, i).unwrap();
                let output = known(prediction, &x, &clean, shares(&scheduler, i));
                let estimate = scheduler.clean_estimate(i, &output, &x).unwrap().unwrap();
                let apart = difference(&estimate, &clean);
                assert!(apart < 1e-3, "{kind} with {prediction} at {i}: {apart}");
            }
        }
    }
}

#[test]
fn a_run_of_a_network_that_knows_it_all_ends_at_what_the_estimates_said() {
    let clean = values(1);
    for kind in SchedulerKind::ALL {
        let config = SchedulerConfig::new(kind);
        let mut scheduler = Scheduler::new(&config, 8, StepOptions::default()).unwrap();
        if scheduler.order() > 1 {
            continue;
        }
        let mut x = (values(5) * scheduler.init_noise_sigma()).unwrap();
        let mut draw = |shape: &[usize]| Ok(Tensor::zeros(shape, DType::F32, &Device::Cpu)?);
        for i in 0..scheduler.timesteps().len() {
            let output = known("epsilon", &x, &clean, shares(&scheduler, i));
            let estimate = scheduler.clean_estimate(i, &output, &x).unwrap().unwrap();
            let apart = difference(&estimate, &clean);
            assert!(apart < 1e-2, "{kind} at {i}: {apart}");
            x = scheduler.step(i, &output, &x, &mut draw).unwrap();
        }
        let apart = difference(&x, &clean);
        assert!(apart < 0.1, "{kind} ends {apart} away");
    }
}

#[test]
fn noise_alone_gives_no_estimate() {
    let json = json!({ "_class_name": "DDIMScheduler", "rescale_betas_zero_snr": true, "timestep_spacing": "trailing" });
    let scheduler = |prediction: &str| {
        let mut json = json.clone();
        json["prediction_type"] = prediction.into();
        Scheduler::new(&SchedulerConfig::from_json(&json).unwrap(), 4, StepOptions::default()).unwrap()
    };
    let x = values(3);
    assert!(scheduler("epsilon").clean_estimate(0, &x, &x).unwrap().is_none());
    assert!(scheduler("epsilon").clean_estimate(1, &x, &x).unwrap().is_some());
    assert!(scheduler("v_prediction").clean_estimate(0, &x, &x).unwrap().is_some());
    assert!(scheduler("v_prediction").clean_estimate(9, &x, &x).is_err());
}
