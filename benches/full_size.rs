//! One request on a checkpoint of full size: seconds per stage and peak memory, as a JSON line.
//!
//! `scripts/full-size` runs it beside `full_size.py`, which does the same with diffusers. Without `INFILL_BENCH_MODEL`
//! there is nothing to measure and it says so.
//!
//! | variable | meaning |
//! |---|---|
//! | `INFILL_BENCH_MODEL` | folder of a checkpoint |
//! | `INFILL_BENCH_SIDE` | side of the picture in pixels, 512 |
//! | `INFILL_BENCH_STEPS` | denoising steps, 3; the fastest is reported (on a GPU, which runs behind, their median) |
//! | `INFILL_BENCH_DEVICE`, `INFILL_BENCH_DTYPE` | as for `infill inpaint` |
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]

use std::cell::RefCell;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

use infill_engine::device::{DTypeChoice, DeviceChoice, device_name, dtype_name};
use infill_engine::image::{Limits, Picture};
use infill_engine::mask::Mask;
use infill_engine::pipeline::{LoadOptions, Observer, Pipeline, Progress};
use infill_engine::request::{InpaintParams, InpaintRequest};
use infill_models::Checkpoint;

fn setting(name: &str, default: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| default.to_owned())
}

fn main() {
    let Ok(model) = std::env::var("INFILL_BENCH_MODEL") else {
        println!("INFILL_BENCH_MODEL is not set: nothing to measure");
        return;
    };
    let device = setting("INFILL_BENCH_DEVICE", "auto").parse::<DeviceChoice>().unwrap().open().unwrap();
    let dtype = setting("INFILL_BENCH_DTYPE", "auto").parse::<DTypeChoice>().unwrap().on(&device);
    let side: u32 = setting("INFILL_BENCH_SIDE", "512").parse().unwrap();
    let steps: usize = setting("INFILL_BENCH_STEPS", "3").parse().unwrap();

    let started = Instant::now();
    let checkpoint = Checkpoint::open(Path::new(&model)).unwrap();
    let options = LoadOptions { device: device.clone(), dtype };
    let pipeline = Pipeline::load(&checkpoint, &options, &mut Observer::silent()).unwrap();
    let load = started.elapsed().as_secs_f64();

    let images = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/images");
    let read = |name: &str| std::fs::read(images.join(name)).unwrap();
    let image = Picture::decode(&read("astronaut.png"), &Limits::default()).unwrap();
    let mask = Mask::decode(&read("astronaut-mask.png"), &Limits::default()).unwrap();
    let mut params = InpaintParams::new(image, mask, "a photo of an astronaut in a garden");
    (params.width, params.height) = (Some(side), Some(side));
    (params.num_inference_steps, params.strength, params.seed) = (steps, 1.0, 1);
    let request = InpaintRequest::new(params).unwrap();

    let stages = RefCell::new(Vec::new());
    let mut progress = |progress: Progress| {
        let name = match progress {
            Progress::Step { .. } => "step",
            Progress::Decoding { .. } => "decode",
            _ => "encode",
        };
        stages.borrow_mut().push((name, Instant::now()));
        ControlFlow::Continue(())
    };
    if !device.is_cpu() {
        // Kernels are loaded and chosen at their first use.
        pipeline.inpaint(&request, &mut Observer::silent(), &mut |_| Ok(())).unwrap();
    }
    stages.borrow_mut().push(("start", Instant::now()));
    pipeline.inpaint(&request, &mut Observer::new(&mut progress), &mut |_| Ok(())).unwrap();
    stages.borrow_mut().push(("end", Instant::now()));
    let stages = stages.into_inner();
    // The fastest run of a stage: others share the machine. A GPU is reported to before it has done what it was told, and
    // only over many steps is it told as fast as it works.
    let seconds = |stage: &str| {
        let spans = stages.windows(2).filter(|pair| pair[0].0 == stage);
        let mut spans: Vec<f64> = spans.map(|pair| (pair[1].1 - pair[0].1).as_secs_f64()).collect();
        spans.sort_by(f64::total_cmp);
        let index = if device.is_cpu() { 0 } else { spans.len() / 2 };
        spans.get(index).copied()
    };
    let run = (stages[stages.len() - 1].1 - stages[0].1).as_secs_f64();
    let report = serde_json::json!({
        "program": "infill",
        "device": device_name(&device),
        "format": dtype_name(dtype),
        "load_s": load,
        "encode_s": seconds("encode"),
        "unet_step_s": seconds("step"),
        "vae_decode_s": seconds("decode"),
        "run_s": run,
        "peak_gb": peak_gigabytes(),
    });
    println!("{report}");
}

/// The largest resident set so far in GB; mapped weight files count while they are read. Zero where the system does not
/// say.
fn peak_gigabytes() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|kb| kb.parse::<f64>().ok()).unwrap_or_default() / 1e6
}
