//! The built-in model through diffusers: the same words and seeds, the same pictures. The reference is
//! `tests/fixtures/default/`, made by `tests/fixtures/make_default.py`.

use std::ops::ControlFlow;
use std::path::Path;

use infill_engine::image::{Limits, Picture};
use infill_engine::mask::Mask;
use infill_engine::pipeline::Observer;
use infill_engine::request::{InpaintParams, InpaintRequest};
use serde_json::Value;

use crate::painter::Painter;

#[test]
fn diffusers_paints_the_same_pictures() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/default");
    let Some(painter) = Painter::open(0, 0) else { return };
    let listed: Value = serde_json::from_slice(&std::fs::read(folder.join("cases.json")).unwrap()).unwrap();
    let count = |key: &str| listed[key].as_u64().unwrap();
    for case in listed["cases"].as_array().unwrap() {
        let text = |key: &str| case[key].as_str().unwrap();
        let file = |name: &str| {
            let path = painter.folder().join(format!("demo/{name}.png"));
            std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
        };
        let limits = Limits::default();
        let image = Picture::decode(&file(text("image")), &limits).unwrap();
        let mask = Mask::decode(&file(&format!("{}-mask", text("image"))), &limits).unwrap();
        let mut params = InpaintParams::new(image, mask, text("prompt"));
        params.seed = case["seed"].as_u64().unwrap();
        params.strength = case["strength"].as_f64().unwrap();
        params.guidance_scale = listed["guidance"].as_f64();
        params.num_inference_steps = count("steps") as usize;
        (params.width, params.height) = (Some(count("size") as u32), Some(count("size") as u32));
        params.merge = false;
        let request = InpaintRequest::new(params).unwrap();
        let mut silent = |_| ControlFlow::Continue(());
        let mut ours = None;
        let keep = &mut |one: infill_engine::pipeline::Painted| {
            ours = Some(one.picture.to_rgb8());
            Ok(())
        };
        painter.pipeline().inpaint(&request, &mut Observer::new(&mut silent), keep).unwrap();
        let (ours, theirs) =
            (ours.unwrap(), image::open(folder.join(format!("{}.png", text("name")))).unwrap().to_rgb8());
        assert_eq!(ours.dimensions(), theirs.dimensions());
        let most = ours.as_raw().iter().zip(theirs.as_raw()).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
        println!("{}: {most} of 255", text("name"));
        assert!(most <= 1, "{}: {most} of 255; make_default.py for these weights?", text("name"));
    }
}
