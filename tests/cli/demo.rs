//! `infill demo`, and the built-in model as the default one.

use infill_models::embedded;
use serde_json::Value;

use crate::harness::{Place, fixture};

/// True where the tests of the built-in model can run; where not, that its absence is told.
fn is_there(place: &Place) -> bool {
    if !embedded::is_there() {
        place.infill(&["demo"]).refused(2, &["built without the model infill-mini"]);
    }
    embedded::is_there()
}

#[test]
fn the_demonstration_is_one_sheet() {
    let place = Place::new();
    if !is_there(&place) {
        return;
    }
    let args = ["demo", "--steps", "2", "--device", "cpu", "--out", "sheet.png", "--json"];
    let told: Value = serde_json::from_str(&place.infill(&args).succeeded().stdout).unwrap();
    assert_eq!((&told["sheet"], &told["model"]), (&"sheet.png".into(), &embedded::ID.into()));
    assert_eq!(told["scenes"].as_array().unwrap().last().unwrap()["seeds"].as_array().unwrap().len(), 3);
    let sheet = place.picture("sheet.png");
    assert_eq!((u64::from(sheet.width()), u64::from(sheet.height())), {
        (told["width"].as_u64().unwrap(), told["height"].as_u64().unwrap())
    });
    assert_eq!(place.names(), ["sheet.png"]);
    place.infill(&["demo", "--out", "sheet.jpg"]).refused(2, &["--out is sheet.jpg", "not a PNG"]);
}

#[test]
fn without_a_model_the_built_in_one_runs() {
    let place = Place::new();
    if !is_there(&place) {
        return;
    }
    let (image, mask) = (fixture("images/init.png"), fixture("images/mask.png"));
    let args =
        ["inpaint", &image, "--mask", &mask, "--prompt", "a red star", "--steps", "2", "--device", "cpu"];
    let more = ["--width", "128", "--height", "128", "--seed", "1", "--json"];
    let run = |out: &str| place.infill(&[&args[..], &more[..], &["--out", out]].concat()).succeeded().stdout;
    let told: Value = serde_json::from_str(&run("a.png")).unwrap();
    assert!(told["model"]["name"].as_str().unwrap().starts_with(embedded::ID), "{told}");
    let unpacked = place.path("home/.cache/infill/embedded").read_dir().unwrap().count();
    assert_eq!(unpacked, 1);
    run("b.png");
    assert_eq!(place.read("a.png"), place.read("b.png"));
    // Its model_index.json names the guidance that it is best run at.
    assert_eq!(told["guidance"], 3.0, "{told}");
    let pixels = |name: &str| image::load_from_memory(&place.read(name)).unwrap().to_rgb8();
    let guided = |scale: &str| {
        place.infill(&[&args[..], &more[..], &["--out", "c.png", "--guidance", scale]].concat()).succeeded();
        pixels("c.png")
    };
    assert_eq!(guided("3"), pixels("a.png"));
    assert_ne!(guided("6"), pixels("a.png"));
    let list = place.infill(&["models", "list"]).succeeded().stdout;
    assert!(list.lines().any(|line| line.starts_with(embedded::ID) && line.ends_with("built in")), "{list}");
    let shown = place.infill(&["models", "show", embedded::ID]).succeeded().stdout;
    assert!(shown.contains("inpainting model"), "{shown}");
}
