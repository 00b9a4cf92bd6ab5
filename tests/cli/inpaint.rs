//! `infill inpaint` on the tiny checkpoints.

use serde_json::Value;

use crate::harness::{Place, Run, fixture, model};

#[test]
fn every_committed_model_paints() {
    for name in ["tiny-sd15-base", "tiny-sd15-inpaint", "tiny-sdxl-base", "tiny-sdxl-inpaint"] {
        let place = Place::new();
        let (image, mask) = (fixture("images/init.png"), fixture("images/mask.png"));
        let args = ["inpaint", &image, "--mask", &mask, "--prompt", "a red door", "--negative", "blurry"];
        let more =
            ["--model", &model(name), "--steps", "3", "--seed", "3", "--device", "cpu", "--out", "a.png"];
        let run = place.infill(&[&args[..], &more[..]].concat()).succeeded();
        assert_eq!(run.stdout, "a.png\n");
        let (before, after) = (image::open(&image).unwrap().to_rgb8(), place.picture("a.png").to_rgb8());
        assert_eq!(before.dimensions(), after.dimensions());
        assert_ne!(before, after, "{name} painted nothing");
    }
}

#[test]
fn the_same_command_gives_the_same_bytes_whatever_the_threads() {
    let place = Place::new();
    for (threads, out) in [("1", "a.png"), ("2", "b.png"), ("2", "c.png")] {
        let mut command = place.inpaint_command();
        command.args(["--steps", "4", "--out", out]).env("RAYON_NUM_THREADS", threads);
        Run::of(&command.output().unwrap()).succeeded();
    }
    assert_eq!(place.read("a.png"), place.read("b.png"));
    assert_eq!(place.read("b.png"), place.read("c.png"));
}

#[test]
fn samples_are_numbered_and_sample_i_is_the_picture_of_seed_plus_i() {
    let place = Place::new();
    let run = place.inpaint(&["--steps", "2", "--samples", "3", "--out", "many.png"]).succeeded();
    assert_eq!(run.stdout, "many-0.png\nmany-1.png\nmany-2.png\n");
    assert_eq!(place.names(), ["many-0.png", "many-1.png", "many-2.png"]);
    assert_ne!(place.picture("many-0.png"), place.picture("many-1.png"));

    let (image, mask, model) =
        (fixture("images/init.png"), fixture("images/mask.png"), model("tiny-sd15-inpaint"));
    let args =
        ["inpaint", &image, "--mask", &mask, "--prompt", "a red door", "--model", &model, "--seed", "8"];
    let more = ["--device", "cpu", "--width", "64", "--height", "64", "--steps", "2", "--out", "one.png"];
    place.infill(&[&args[..], &more[..]].concat()).succeeded();
    assert_eq!(place.read("one.png"), place.read("many-1.png"));
}

#[test]
fn the_report_for_machines_is_one_json_object() {
    let place = Place::new();
    let run =
        place.inpaint(&["--steps", "4", "--strength", "0.5", "--samples", "2", "--json", "--out", "a.png"]);
    let run = run.succeeded();
    assert_eq!((run.stdout.lines().count(), run.stderr.as_str()), (1, ""));
    let report: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(report["images"][0]["path"], "a-0.png");
    assert_eq!(report["images"][1]["seed"], 8);
    assert_eq!((&report["images"][0]["width"], &report["images"][0]["height"]), (&150.into(), &106.into()));
    assert_eq!((&report["width"], &report["height"]), (&64.into(), &64.into()));
    assert_eq!(
        (&report["steps"], &report["strength"], &report["guidance"]),
        (&4.into(), &0.5.into(), &7.5.into())
    );
    assert_eq!((&report["device"], &report["dtype"]), (&"cpu".into(), &"f32".into()));
    assert_eq!(report["model"]["name"], "tiny-sd15-inpaint");
    assert_eq!(report["model"]["inpainting"], true);
    assert!(report["model"]["digest"].as_str().is_some_and(|digest| digest.len() >= 32));
    assert!(report["scheduler"].as_str().is_some_and(|class| class.ends_with("Scheduler")));
    let seconds = &report["seconds"];
    for stage in ["load", "encode", "denoise", "decode", "total"] {
        assert!(seconds[stage].as_f64().is_some_and(|s| s > 0.0), "{stage}: {seconds}");
    }
    assert_eq!(report["warnings"], Value::Array(Vec::new()));
}

#[test]
fn tiles_of_the_vae_stand_in_the_recipe() {
    let place = Place::new();
    let (image, mask, model) =
        (fixture("images/init.png"), fixture("images/mask.png"), model("tiny-sd15-inpaint"));
    let common = ["inpaint", &image, "--mask", &mask, "--prompt", "x", "--model", &model, "--device", "cpu"];
    let large =
        ["--seed", "7", "--steps", "2", "--width", "160", "--height", "128", "--no-merge", "--json", "--out"];
    let report = |more: &[&str]| -> Value {
        let run = place.infill(&[&common[..], &large[..], more].concat()).succeeded();
        serde_json::from_str(&run.stdout).unwrap()
    };
    assert_eq!(report(&["whole.png"])["vae_tile_size"], Value::Null);
    assert_eq!(report(&["tiles.png", "--vae-tile-size", "128"])["vae_tile_size"], 128);
    assert_ne!(place.picture("tiles.png"), place.picture("whole.png"));
}

#[test]
fn matched_colours_change_the_painted_part_only_and_stand_in_the_recipe() {
    let place = Place::new();
    place.inpaint(&["--steps", "2", "--out", "plain.png"]).succeeded();
    let run =
        place.inpaint(&["--steps", "2", "--match-colours", "--json", "--out", "matched.png"]).succeeded();
    let report: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(report["match_colours"], true);
    let mask = image::open(fixture("images/mask.png")).unwrap().to_luma8();
    let (plain, matched) = (place.picture("plain.png").to_rgb8(), place.picture("matched.png").to_rgb8());
    let pairs = || plain.pixels().zip(matched.pixels()).zip(mask.pixels());
    assert!(pairs().all(|((plain, matched), mask)| mask.0[0] >= 128 || plain == matched));
    assert!(pairs().any(|((plain, matched), _)| plain != matched));
    let both = place.inpaint(&["--match-colours", "--no-merge", "--out", "b.png"]);
    both.refused(2, &["--match-colours", "--no-merge"]);
}

#[test]
fn a_random_seed_is_told_and_gives_the_picture_again() {
    let place = Place::new();
    let (image, mask, model) =
        (fixture("images/init.png"), fixture("images/mask.png"), model("tiny-sd15-inpaint"));
    let common = ["inpaint", &image, "--mask", &mask, "--prompt", "x", "--model", &model, "--device", "cpu"];
    let small = ["--width", "64", "--height", "64", "--steps", "2", "--out"];
    let run = place.infill(&[&common[..], &small[..], &["a.png"]].concat()).succeeded();
    let seed = run.stderr.trim().strip_prefix("note: the seed was ").unwrap().to_owned();
    place.infill(&[&common[..], &small[..], &["b.png", "--seed", &seed]].concat()).succeeded();
    assert_eq!(place.read("a.png"), place.read("b.png"));
    let quiet = place.infill(&[&common[..], &small[..], &["c.png", "--quiet"]].concat()).succeeded();
    assert_eq!(quiet.stderr, "");
}

#[test]
fn the_recipe_is_in_the_picture() {
    let place = Place::new();
    place.inpaint(&["--steps", "2", "--out", "a.png"]).succeeded();
    let decoder = png::Decoder::new(std::io::Cursor::new(place.read("a.png")));
    let reader = decoder.read_info().unwrap();
    let info = reader.info();
    let latin = info.uncompressed_latin1_text.iter().map(|chunk| chunk.text.clone());
    let unicode = info.utf8_text.iter().map(|chunk| chunk.get_text().unwrap());
    let recipe = latin.chain(unicode).find(|text| text.contains("a red door")).expect("no recipe");
    let recipe: Value = serde_json::from_str(&recipe).unwrap();
    assert_eq!((&recipe["seed"], &recipe["steps"]), (&7.into(), &2.into()));
    assert!(
        !recipe.to_string().contains(env!("CARGO_MANIFEST_DIR")),
        "a path of this machine is in {recipe}"
    );
}

#[test]
fn every_scheduler_of_the_schema_paints() {
    let place = Place::new();
    for class in SCHEDULERS {
        place.inpaint(&["--scheduler", class, "--steps", "5", "--out", &format!("{class}.png")]).succeeded();
    }
    assert_eq!(place.names().len(), SCHEDULERS.len());
}

const SCHEDULERS: [&str; 15] = [
    "DDIMScheduler",
    "DDPMScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "LCMScheduler",
    "LMSDiscreteScheduler",
    "PNDMScheduler",
    "TCDScheduler",
    "UniPCMultistepScheduler",
];

#[test]
fn an_earlier_result_is_replaced_and_an_input_only_by_force() {
    let place = Place::new();
    place.write("a.png", "an earlier result");
    place.inpaint(&["--steps", "2", "--out", "a.png"]).succeeded();
    assert_eq!(place.picture("a.png").width(), 150);

    std::fs::copy(fixture("images/init.png"), place.path("in.png")).unwrap();
    let (mask, model) = (fixture("images/mask.png"), model("tiny-sd15-inpaint"));
    let args = ["inpaint", "in.png", "--mask", &mask, "--prompt", "x", "--model", &model, "--steps", "2"];
    let small = ["--device", "cpu", "--width", "64", "--height", "64", "--out", "./in.png"];
    let before = place.read("in.png");
    place.infill(&[&args[..], &small[..]].concat()).refused(2, &["--out", "in.png", "--force"]);
    assert_eq!(place.read("in.png"), before);
    place.infill(&[&args[..], &small[..], &["--force"]].concat()).succeeded();
    assert_ne!(place.read("in.png"), before);
}

#[test]
fn flags_without_an_effect_are_told() {
    let place = Place::new();
    let small = ["--steps", "2", "--out", "a.png", "--eta", "0.5"];
    let run = place.inpaint(&[&small[..], &["--prompt-2", "x"]].concat()).succeeded();
    assert!(
        run.stderr.contains("has one text encoder: --prompt-2 and --negative-2 do nothing"),
        "{}",
        run.stderr
    );
    assert!(run.stderr.contains("eta does nothing with PNDMScheduler"), "{}", run.stderr);
    let run = place.inpaint(&[&small[..], &["--scheduler", "DDIMScheduler"]].concat()).succeeded();
    assert_eq!(run.stderr, "");
}

#[test]
fn one_side_alone_may_squeeze_the_picture_and_says_so() {
    let place = Place::new();
    let (image, mask, model) =
        (fixture("images/init.png"), fixture("images/mask.png"), model("tiny-sd15-inpaint"));
    let inpaint = |sides: &[&str]| {
        let common = [
            "inpaint", &image, "--mask", &mask, "--prompt", "a", "--model", &model, "--seed", "1", "--steps",
            "2", "--out", "a.png",
        ];
        place.infill(&[&common[..], sides].concat()).succeeded().stderr
    };
    assert!(inpaint(&["--width", "64"]).contains("150x106 pixels and was squeezed to 64x104"));
    assert_eq!(inpaint(&["--width", "152"]), "");
    assert_eq!(inpaint(&["--width", "64", "--height", "64"]), "");
}

#[test]
fn warnings_are_told_once_and_before_the_painting() {
    let place = Place::new();
    let told = "the negative prompt does nothing at a guidance of 1, only above 1";
    let flags = ["--steps", "2", "--guidance", "1", "--negative", "fog", "--out", "a.png"];
    let run =
        Run::of(&place.inpaint_command().args(flags).env("INFILL_LOG", "info").output().unwrap()).succeeded();
    let at = |text: &str| run.stderr.find(text).unwrap_or_else(|| panic!("no {text} in {}", run.stderr));
    assert!(at(told) < at("painting, step 1/"), "{}", run.stderr);
    assert_eq!(run.stderr.matches("warning: ").count(), 1, "{}", run.stderr);

    let run = place.inpaint(&[&flags[..6], &["--json", "--quiet", "--out", "b.png"]].concat()).succeeded();
    assert_eq!(run.stderr, "");
    let report: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(report["warnings"], serde_json::json!([told]));
}

#[test]
fn a_log_is_plain_text_where_there_is_no_terminal() {
    let place = Place::new();
    let run = Run::of(
        &place
            .inpaint_command()
            .args(["--steps", "2", "--out", "a.png"])
            .env("INFILL_LOG", "info")
            .output()
            .unwrap(),
    )
    .succeeded();
    assert!(run.stderr.contains("loading unet") && !run.stderr.contains('\u{1b}'), "{}", run.stderr);
}

#[test]
fn a_strip_shows_before_mask_and_after() {
    let place = Place::new();
    let flags = ["--steps", "2", "--samples", "2", "--out", "a.png", "--strip", "strip.png"];
    let said = place.inpaint(&flags).succeeded().stdout;
    assert_eq!(said, "a-0.png\na-1.png\nstrip.png\n");
    let (strip, after) = (place.picture("strip.png").to_rgb8(), place.picture("a-1.png").to_rgb8());
    let side = after.width();
    assert!(strip.width() > 4 * side && strip.height() > after.height(), "{:?}", strip.dimensions());
    let shown = |picture: &image::RgbImage| {
        // Small pictures are shown as large pixels.
        let times = (256 / picture.width().max(picture.height())).max(1);
        let large = image::RgbImage::from_fn(picture.width() * times, picture.height() * times, |x, y| {
            *picture.get_pixel(x / times, y / times)
        });
        let (picture, side) = (&large, large.width());
        let first = picture.get_pixel(0, 0);
        (0..strip.width() - side).any(|x| {
            (0..strip.height() - picture.height()).any(|y| {
                strip.get_pixel(x, y) == first
                    && picture
                        .enumerate_pixels()
                        .all(|(dx, dy, pixel)| strip.get_pixel(x + dx, y + dy) == pixel)
            })
        })
    };
    assert!(shown(&after) && shown(&place.picture("a-0.png").to_rgb8()));
    let json =
        place.inpaint(&["--steps", "2", "--out", "b.png", "--strip", "c.png", "--json"]).succeeded().stdout;
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["strip"], "c.png");
    place.inpaint(&["--out", "d.png", "--strip", "./d.png"]).refused(2, &["--strip is ./d.png", "--out"]);
    place.inpaint(&["--out", "d.png", "--strip", "d.jpg"]).refused(2, &["--strip is d.jpg", "not a PNG"]);
}
