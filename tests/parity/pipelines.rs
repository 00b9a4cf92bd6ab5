//! Whole requests: every tensor between the stages, then the picture.

use candle_core::{DType, Device, Tensor};
use infill_engine::pipeline::{LoadOptions, Observer, Pipeline};
use infill_engine::request::InpaintRequest;

use crate::case::{Case, Folders, device_and_dtype};
use crate::compare::{Report, assert_all_pass};

/// Loads the pipeline of a model onto the device under test.
pub fn load(folders: &Folders, model: &str) -> Pipeline {
    let (device, dtype) = device_and_dtype();
    let options = LoadOptions { device, dtype };
    Pipeline::load(&folders.checkpoint(model), &options, &mut Observer::silent())
        .unwrap_or_else(|e| panic!("{model}: {e}"))
}

/// Runs a case and compares all that the reference holds of it.
///
/// # Errors
/// What the engine says where it refuses or fails.
pub fn run(folders: &Folders, pipeline: &mut Pipeline, case: &Case) -> infill_engine::Result<Report> {
    let checkpoint = folders.checkpoint(&case.model);
    let request = InpaintRequest::new(case.params(folders, &checkpoint))?;
    pipeline.apply(&checkpoint, &case.additions(folders), &mut Observer::silent())?;
    let mut report = Report::default();
    let mut compare = |name: &str, tensor: &Tensor| report.check(case, name, tensor, pipeline.dtype());
    let mut observer = Observer::silent().with_tensors(&mut compare);
    let mut pictures = Vec::new();
    pipeline.inpaint(&request, &mut observer, &mut |painted| {
        let rgb = painted.picture.to_rgb8();
        let shape = (rgb.height() as usize, rgb.width() as usize, 3);
        pictures.push(Tensor::from_vec(rgb.into_raw(), shape, &Device::Cpu)?);
        Ok(())
    })?;
    if case.error.is_none() {
        report.check(case, "out/image_u8", &Tensor::stack(&pictures, 0)?, pipeline.dtype());
    }
    Ok(report)
}

/// Every step and the picture must have been compared: a tap that falls silent is no agreement.
fn assert_complete(case: &Case, report: &Report) {
    for name in case.names() {
        let wanted =
            ["/latents", "out/image_u8", "cond/encoder_hidden_states"].iter().any(|end| name.ends_with(end))
                || name.starts_with("cond/ip_tokens.")
                || name == "cond/timestep_cond"
                || name.ends_with("/moments");
        assert!(!wanted || report.compared(name), "{}: {name} was never compared", case.name);
    }
}

/// All committed cases of one model.
fn all_cases_of(model: &str) {
    let folders = Folders::committed();
    let mut pipeline = load(&folders, model);
    let mut reports = Vec::new();
    let mut refused = Vec::new();
    for name in folders.cases() {
        let case = Case::read(&folders, &name);
        if case.model != model || !case.covers(pipeline.dtype()) {
            continue;
        }
        match run(&folders, &mut pipeline, &case) {
            Ok(report) => {
                assert_complete(&case, &report);
                let (latents, picture) = (report.worst("/latents"), report.worst("out/image_u8"));
                println!(
                    "{name:34} {:3} tensors, latents {latents:.1e}, picture {picture}",
                    report.rows.len()
                );
                reports.push((name, report));
            }
            Err(e) => refused.push(format!("{name}: {e}")),
        }
    }
    assert!(refused.is_empty(), "refused or failed:\n{}", refused.join("\n"));
    assert!(!reports.is_empty(), "no case of {model} covers {:?}", pipeline.dtype());
    assert_all_pass(&reports);
}

#[test]
fn sdxl_inpaint() {
    all_cases_of("tiny-sdxl-inpaint");
}

#[test]
fn sdxl_base() {
    all_cases_of("tiny-sdxl-base");
}

#[test]
fn sdxl_refiner() {
    all_cases_of("tiny-sdxl-refiner");
}

#[test]
fn sd15_inpaint() {
    all_cases_of("tiny-sd15-inpaint");
}

#[test]
fn sd15_base() {
    all_cases_of("tiny-sd15-base");
}

#[test]
fn sd15_distilled_for_guidance() {
    all_cases_of("tiny-sd15-lcm");
}

/// A wrong value must be seen: the comparison of a shifted tensor fails, and names that tensor.
#[test]
fn a_difference_is_found_and_named() {
    let folders = Folders::committed();
    let case = Case::read(&folders, "x9_sched_euler");
    let mut report = Report::default();
    let exact = case.tensor("step.0/unet_out");
    report.check(&case, "step.0/unet_out", &exact, DType::F32);
    assert!(report.first_difference().is_none());
    let floor = case.floor["step/unet_out"].0;
    let shifted = exact.affine(1.0, 11.0 * floor).unwrap();
    report.check(&case, "step.0/unet_out", &shifted, DType::F32);
    assert_eq!(report.first_difference().unwrap().name, "step.0/unet_out");
    let cut = exact.narrow(3, 0, 1).unwrap();
    report.rows.clear();
    report.check(&case, "step.0/unet_out", &cut, DType::F32);
    assert!(report.first_difference().unwrap().place.contains("shape"));
}
