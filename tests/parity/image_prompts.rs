//! What must hold of reference pictures whatever their numbers: a scale of 0 is none, equal pictures are one, a crop
//! leaves them whole, and what does not fit is refused.

use std::path::PathBuf;

use candle_core::{DType, Tensor};
use infill_engine::additions::{Additions, IpAdapterSource};
use infill_engine::image_prompt::{AdapterBlocks, ImagePrompt, Reference};
use infill_engine::pipeline::{Observer, Pipeline};
use infill_engine::request::{InpaintParams, InpaintRequest};
use infill_models::adapter::{AdapterFile, ImageEncoderFolder};

use crate::case::{Case, Folders, device_and_dtype};
use crate::compare::values;
use crate::pipelines::load;

const MODEL: &str = "tiny-sdxl-inpaint";
const PLAIN: &str = "sdxl_models/ip-adapter_sdxl_vit-h.safetensors";
const PLUS: &str = "sdxl_models/ip-adapter-plus_sdxl_vit-h.safetensors";

fn additions(folders: &Folders, files: &[&str]) -> Additions {
    let root: PathBuf = folders.models.join("ip_adapter");
    let source = |file: &&str| IpAdapterSource {
        file: AdapterFile::open(&root.join(file)).unwrap(),
        image_encoder: ImageEncoderFolder::open(&root.join("models/image_encoder")).unwrap(),
    };
    Additions { ip_adapters: files.iter().map(source).collect(), ..Additions::default() }
}

/// A committed case with a small picture and one reference; `change` makes of it what a test needs.
fn params(folders: &Folders, change: impl FnOnce(&mut InpaintParams)) -> InpaintParams {
    let case = Case::read(folders, "x9_ip_base_0.4");
    let mut params = case.params(folders, &folders.checkpoint(MODEL));
    params.num_inference_steps = 3;
    change(&mut params);
    params
}

/// One prompt for each adapter: the case's picture with each of the scales.
fn prompts(params: &InpaintParams, scales: &[&[f64]], blocks: &AdapterBlocks) -> Vec<ImagePrompt> {
    let first = &params.image_prompts[0].references[0];
    let prompt = |scales: &&[f64]| ImagePrompt {
        references: scales.iter().map(|&scale| Reference { scale, ..first.clone() }).collect(),
        blocks: blocks.clone(),
    };
    scales.iter().map(prompt).collect()
}

/// The last latents, and the image encoder's input, of a run.
fn run(pipeline: &Pipeline, params: InpaintParams) -> infill_engine::Result<(Vec<f64>, Vec<Vec<f64>>)> {
    let (mut latents, mut pixels) = (Vec::new(), Vec::new());
    let mut tap = |name: &str, tensor: &Tensor| {
        if name.ends_with("/latents") {
            latents = values(tensor);
        } else if name.ends_with("/pixel_values") {
            pixels.push(values(tensor));
        }
    };
    let request = InpaintRequest::new(params)?;
    pipeline.inpaint(&request, &mut Observer::silent().with_tensors(&mut tap), &mut |_| Ok(()))?;
    Ok((latents, pixels))
}

fn apply(folders: &Folders, pipeline: &mut Pipeline, files: &[&str]) -> infill_engine::Result<()> {
    pipeline.apply(&folders.checkpoint(MODEL), &additions(folders, files), &mut Observer::silent())
}

fn distance(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

#[test]
fn scale_0_is_no_reference_bit_for_bit_and_so_is_the_run_after() {
    let folders = Folders::committed();
    let mut pipeline = load(&folders, MODEL);
    let none = || params(&folders, |p| p.image_prompts.clear());
    let (without, _) = run(&pipeline, none()).unwrap();
    apply(&folders, &mut pipeline, &[PLAIN, PLUS]).unwrap();
    let with = |scales: &[&[f64]], blocks: AdapterBlocks| {
        run(&pipeline, params(&folders, |p| p.image_prompts = prompts(p, scales, &blocks))).unwrap()
    };
    let (zero, pixels) = with(&[&[0.0], &[0.0, 0.0]], AdapterBlocks::All);
    assert_eq!(zero, without);
    assert!(pixels.is_empty(), "the image encoder was run for nothing");
    let no_block = AdapterBlocks::Custom(infill_engine::image_prompt::BlockMap::default());
    assert_eq!(with(&[&[1.0], &[1.0]], no_block).0, without);
    assert!(distance(&with(&[&[1.0], &[0.0]], AdapterBlocks::Style).0, &without) > 1e-3);
    assert!(distance(&with(&[&[1.0], &[0.5]], AdapterBlocks::All).0, &without) > 1e-3);
    apply(&folders, &mut pipeline, &[]).unwrap();
    assert_eq!(run(&pipeline, none()).unwrap().0, without);
}

#[test]
fn a_picture_twice_is_the_picture_and_a_white_mask_is_none() {
    let folders = Folders::committed();
    let mut pipeline = load(&folders, MODEL);
    apply(&folders, &mut pipeline, &[PLUS]).unwrap();
    let latents = |scales: &[f64], mask: bool| {
        let params = params(&folders, |p| {
            p.image_prompts = prompts(p, &[scales], &AdapterBlocks::All);
            if mask {
                let white = image::GrayImage::from_pixel(8, 8, image::Luma([255]));
                p.image_prompts[0].references[0].mask = Some(infill_engine::mask::Mask::from_luma8(white));
            }
        });
        run(&pipeline, params).unwrap().0
    };
    // In half formats the halves of the softmax are rounded one by one, as much as everything else in a run.
    let rounding = match device_and_dtype().1 {
        DType::F16 => 5e-2,
        DType::BF16 => 4e-1,
        _ => 1e-4,
    };
    let once = latents(&[0.8], false);
    assert!(distance(&latents(&[0.8, 0.8], false), &once) < rounding);
    // Each takes half of the softmax.
    assert!(distance(&latents(&[1.0, 0.6], false), &once) < rounding);
    // What is not there takes none of it.
    assert_eq!(latents(&[0.8, 0.0], false), once);
    assert!(distance(&latents(&[0.8], true), &once) < rounding);
    // By themselves they add up.
    assert!(distance(&latents(&[0.5, 0.3], true), &once) < rounding);
}

#[test]
fn a_crop_around_the_mask_leaves_the_reference_whole() {
    let folders = Folders::committed();
    let mut pipeline = load(&folders, MODEL);
    apply(&folders, &mut pipeline, &[PLAIN]).unwrap();
    let (whole, seen) = run(&pipeline, params(&folders, |_| ())).unwrap();
    let (cropped, seen_in_crop) =
        run(&pipeline, params(&folders, |p| p.padding_mask_crop = Some(4))).unwrap();
    assert_eq!(seen, seen_in_crop);
    assert!(distance(&whole, &cropped) > 1e-3);
}

#[test]
fn what_does_not_fit_is_refused_and_what_was_there_stays() {
    let folders = Folders::committed();
    let mut pipeline = load(&folders, MODEL);
    let error = |result: infill_engine::Result<()>| result.unwrap_err().to_string();
    apply(&folders, &mut pipeline, &[PLAIN]).unwrap();
    let foreign = error(apply(&folders, &mut pipeline, &[PLAIN, "models/ip-adapter_sd15.safetensors"]));
    assert!(foreign.contains("32") && foreign.contains("72"), "{foreign}");

    let (followed, _) = run(&pipeline, params(&folders, |_| ())).unwrap();
    assert!(!followed.is_empty());
    let message = error(run(&pipeline, params(&folders, |p| p.image_prompts.clear())).map(|_| ()));
    assert!(message.contains("image_prompts is 0 given; allowed: 1, one for each adapter"), "{message}");
    let message = error(
        run(
            &pipeline,
            params(&folders, |p| p.image_prompts[0].blocks = r#"{"down": {"block_0": 1}}"#.parse().unwrap()),
        )
        .map(|_| ()),
    );
    assert!(message.contains("down block_0"), "{message}");
}
