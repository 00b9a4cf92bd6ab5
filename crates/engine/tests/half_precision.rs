//! What half precision changes besides rounding: which values torch's generator gives.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use image::{GrayImage, Luma, RgbImage};
use infill_engine::image::Picture;
use infill_engine::mask::Mask;
use infill_engine::noise::{Generator, HalfType, NoiseEra, NoiseRule};
use infill_engine::pipeline::{LoadOptions, Observer};
use infill_engine::{InpaintParams, InpaintRequest, Pipeline};
use infill_models::Checkpoint;
use infill_networks::{DType, Device};

/// The draws of a run of `model` in f16 with the old noise, in order.
fn draws(model: &str) -> Vec<Vec<f32>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/models").join(model);
    let options = LoadOptions { device: Device::Cpu, dtype: DType::F16 };
    let checkpoint = Checkpoint::open(&dir).unwrap();
    let pipeline = Pipeline::load(&checkpoint, &options, &mut Observer::silent()).unwrap();
    let image = Picture::from_rgb8(RgbImage::from_pixel(64, 64, image::Rgb([90, 120, 200])));
    let mask = Mask::from_luma8(GrayImage::from_pixel(64, 64, Luma([255])));
    let mut params = InpaintParams::new(image, mask, "a cat");
    (params.seed, params.num_inference_steps, params.noise_era) = (7, 2, NoiseEra::Torch211);
    let request = InpaintRequest::new(params).unwrap();
    let mut draws = Vec::new();
    let mut tap = |name: &str, tensor: &infill_networks::Tensor| {
        if name.starts_with("noise.") {
            draws.push(tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap());
        }
    };
    let mut observer = Observer::silent().with_tensors(&mut tap);
    pipeline.inpaint(&request, &mut observer, &mut |_| Ok(())).unwrap();
    draws
}

#[test]
fn a_posterior_is_drawn_in_the_format_that_diffusers_runs_the_vae_in() {
    let half = NoiseRule::HalfLegacy(HalfType::F16);
    // The pipelines of SDXL widen the VAE where it says force_upcast; those of Stable Diffusion don't look at it.
    for (model, posterior) in [("tiny-sd15-inpaint", half), ("tiny-sdxl-inpaint", NoiseRule::F32)] {
        let mut generator = Generator::new(7);
        let shape = [1, 4, 8, 8];
        let expected: Vec<Vec<f32>> =
            [posterior, half, posterior].map(|rule| generator.randn(&shape, rule)).into();
        assert_eq!(draws(model)[..3], expected, "{model}");
    }
}
