//! A run can be stopped in the middle of a stage, and tiles are a matter of memory.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use image::{GrayImage, Luma, Rgb, RgbImage};
use infill_engine::additions::{Additions, IpAdapterSource};
use infill_engine::device::{DTypeChoice, DeviceChoice};
use infill_engine::image::Picture;
use infill_engine::mask::Mask;
use infill_engine::pipeline::{LoadOptions, Observer, Progress};
use infill_engine::worker::{Event, Job};
use infill_engine::{Engine, Error, InpaintParams, InpaintRequest, Interrupt, Pipeline, Result, VaeTileSize};
use infill_models::adapter::{AdapterFile, ImageEncoderFolder};
use infill_models::{Checkpoint, summarize};
use infill_networks::{DType, Device};

fn checkpoint() -> Checkpoint {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/models");
    Checkpoint::open(&models.join("tiny-sdxl-inpaint")).unwrap()
}

fn load(observer: &mut Observer<'_>) -> Result<Pipeline> {
    Pipeline::load(&checkpoint(), &LoadOptions { device: Device::Cpu, dtype: DType::F32 }, observer)
}

/// Two steps on a picture of `width` x 128 pixels.
fn request(width: u32, tile: Option<u32>) -> InpaintRequest {
    let image = RgbImage::from_fn(width, 128, |x, y| Rgb([x as u8, (y * 2) as u8, (x / 40 * 50) as u8]));
    let mask = GrayImage::from_fn(width, 128, |x, _| Luma([if x < 40 { 255 } else { 0 }]));
    let mut params = InpaintParams::new(Picture::from_rgb8(image), Mask::from_luma8(mask), "a cat");
    params.num_inference_steps = 2;
    params.strength = 1.0;
    params.merge = false;
    params.vae_tile_size = tile.map(|side| VaeTileSize::new(side).unwrap());
    InpaintRequest::new(params).unwrap()
}

fn paint(pipeline: &Pipeline, request: &InpaintRequest, observer: &mut Observer<'_>) -> Result<Vec<u8>> {
    let mut pixels = Vec::new();
    pipeline.inpaint(request, observer, &mut |painted| {
        pixels = painted.picture.to_rgb8().into_raw();
        Ok(())
    })?;
    Ok(pixels)
}

/// An interrupt that stops at its call number `last`, and its calls so far.
fn stop_at(last: usize) -> (Interrupt, Arc<AtomicUsize>) {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    (Interrupt::new(move || counted.fetch_add(1, Ordering::SeqCst) >= last), calls)
}

#[test]
fn loading_stops_at_any_tensor() {
    let (never, calls) = stop_at(usize::MAX);
    load(&mut Observer::silent().with_interrupt(never)).unwrap();
    let all = calls.load(Ordering::SeqCst);
    assert!(all > 400, "{all} calls, fewer than there are tensors");
    for last in [0, 1, all / 3, all / 2, all - 1] {
        let (interrupt, calls) = stop_at(last);
        let outcome = load(&mut Observer::silent().with_interrupt(interrupt)).map(|_| ());
        assert!(matches!(outcome, Err(Error::Cancelled)), "{last} of {all}: {outcome:?}");
        assert_eq!(calls.load(Ordering::SeqCst), last + 1, "nothing is read after it");
    }
}

#[test]
fn reading_an_adapter_and_its_encoder_stops_at_any_tensor() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/models/ip_adapter");
    let file = AdapterFile::open(&folder.join("sdxl_models/ip-adapter_sdxl_vit-h.safetensors")).unwrap();
    let image_encoder = ImageEncoderFolder::open(&folder.join("models/image_encoder")).unwrap();
    let encoder = summarize("image_encoder", image_encoder.component()).unwrap();
    let tensors = file.tensors().len() + encoder.tensors;
    let additions =
        Additions { ip_adapters: vec![IpAdapterSource { file, image_encoder }], ..Additions::default() };
    let mut pipeline = load(&mut Observer::silent()).unwrap();
    let mut apply = |additions: &Additions, interrupt| {
        pipeline.apply(&checkpoint(), additions, &mut Observer::silent().with_interrupt(interrupt))
    };
    let (never, calls) = stop_at(usize::MAX);
    apply(&additions, never).unwrap();
    let all = calls.load(Ordering::SeqCst);
    assert!(all >= tensors, "{all} calls, fewer than the {tensors} tensors");
    for last in (0..all).step_by(7).chain([all - 1]) {
        // Without it first: what is there already is not read again.
        apply(&Additions::default(), stop_at(usize::MAX).0).unwrap();
        let (interrupt, calls) = stop_at(last);
        let outcome = apply(&additions, interrupt);
        assert!(matches!(outcome, Err(Error::Cancelled)), "{last} of {all}: {outcome:?}");
        assert_eq!(calls.load(Ordering::SeqCst), last + 1, "nothing is read after it");
    }
}

#[test]
fn painting_stops_at_any_block_and_the_next_run_is_as_if_it_had_not_begun() {
    let pipeline = load(&mut Observer::silent()).unwrap();
    let request = request(160, Some(128));
    let (never, calls) = stop_at(usize::MAX);
    let whole = paint(&pipeline, &request, &mut Observer::silent().with_interrupt(never)).unwrap();
    let all = calls.load(Ordering::SeqCst);
    for last in (0..all).step_by(5).chain([all - 1]) {
        let (interrupt, calls) = stop_at(last);
        let outcome = paint(&pipeline, &request, &mut Observer::silent().with_interrupt(interrupt));
        assert!(matches!(outcome, Err(Error::Cancelled)), "{last} of {all}: {outcome:?}");
        assert_eq!(calls.load(Ordering::SeqCst), last + 1);
    }
    assert!(paint(&pipeline, &request, &mut Observer::silent()).unwrap() == whole);
}

/// The worker's owner need not break: the interrupt alone stops the job, and the next one is none the worse.
#[test]
fn the_worker_asks_the_interrupt_of_its_job() {
    let engine = Engine::start(DeviceChoice::Cpu, DTypeChoice::F32).unwrap();
    let run = |interrupt| {
        let (sender, events) = std::sync::mpsc::channel();
        let job = Job {
            checkpoint: checkpoint(),
            additions: Additions::default(),
            request: request(128, None),
            previews: false,
            interrupt,
            on_event: Box::new(move |event| {
                sender.send(event).unwrap();
                ControlFlow::Continue(())
            }),
        };
        engine.submit(job).unwrap();
        let mut pixels = None;
        for event in events {
            match event {
                Event::Painted(painted) => pixels = Some(painted.picture.to_rgb8().into_raw()),
                Event::Finished(Ok(())) => return pixels,
                Event::Finished(outcome) => {
                    assert!(matches!(outcome, Err(Error::Cancelled)), "{outcome:?}");
                    assert!(pixels.is_none());
                    return None;
                }
                _ => {}
            }
        }
        panic!("the job did not finish")
    };
    // While it loads, while it paints, and not at all.
    assert!(run(stop_at(100).0).is_none());
    let (never, calls) = stop_at(usize::MAX);
    let whole = run(never).unwrap();
    let all = calls.load(Ordering::SeqCst);
    let (loaded, calls) = stop_at(usize::MAX);
    assert!(run(loaded).unwrap() == whole);
    assert!(calls.load(Ordering::SeqCst) < all / 2, "the second run loads nothing");
    assert!(run(stop_at(8).0).is_none());
    assert!(run(Interrupt::default()).unwrap() == whole);
}

#[test]
fn every_tile_is_a_place_to_stop() {
    let pipeline = load(&mut Observer::silent()).unwrap();
    let while_decoding = |width, tile| {
        let (never, calls) = stop_at(usize::MAX);
        let mut before = 0;
        let mut see = |progress| {
            if let Progress::Decoding { .. } = progress {
                before = calls.load(Ordering::SeqCst);
            }
            ControlFlow::Continue(())
        };
        let mut observer = Observer::new(&mut see).with_interrupt(never);
        paint(&pipeline, &request(width, tile), &mut observer).unwrap();
        calls.load(Ordering::SeqCst) - before
    };
    let one = while_decoding(128, None);
    assert!(one > 2);
    assert_eq!(while_decoding(256, None), one);
    // Tiles begin at 0, 96 and 192, and in two rows at 0 and 96, as diffusers cuts them.
    assert_eq!(while_decoding(256, Some(128)), 6 * one);
}

#[test]
fn only_pictures_larger_than_a_tile_are_divided() {
    let pipeline = load(&mut Observer::silent()).unwrap();
    let paint = |width, tile| paint(&pipeline, &request(width, tile), &mut Observer::silent()).unwrap();
    assert!(paint(160, Some(160)) == paint(160, None));
    let (tiled, whole) = (paint(160, Some(128)), paint(160, None));
    assert_eq!(tiled.len(), whole.len());
    assert!(tiled != whole);
}
