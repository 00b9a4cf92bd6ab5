//! What goes on top of a model: reference pictures, concepts, embeddings; and how words and steps are read.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::folder::copy;
use crate::harness::{Place, Run, fixture, model};
use crate::lora;

const ADAPTERS: &str = "models/ip_adapter";

fn adapter(name: &str) -> String {
    fixture(&format!("{ADAPTERS}/{name}"))
}

/// `infill inpaint` of two steps.
fn inpaint(place: &Place, more: &[&str]) -> Run {
    place.inpaint(&[&["--steps", "3", "--out", "out.png"], more].concat())
}

/// The pixels of a run that succeeds.
#[track_caller]
fn painted(place: &Place, more: &[&str]) -> image::RgbImage {
    inpaint(place, more).succeeded();
    place.picture("out.png").to_rgb8()
}

/// A run that is refused before anything is written.
#[track_caller]
fn refuse(place: &Place, more: &[&str], parts: &[&str]) {
    let before = place.names();
    inpaint(place, more).refused(2, parts);
    assert_eq!(place.names(), before, "something was written");
}

/// A models folder with the committed adapters, laid out as their repository.
fn models_folder(place: &Place) -> String {
    let models = place.path("models");
    copy(Path::new(&fixture(ADAPTERS)), &models.join("ip-adapters"));
    fs::create_dir_all(models.join("loras")).unwrap();
    fs::create_dir_all(models.join("embeddings")).unwrap();
    models.to_str().unwrap().to_owned()
}

#[test]
fn a_reference_picture_changes_what_is_painted_and_at_scale_0_nothing() {
    let place = Place::new();
    let models = models_folder(&place);
    let coffee = fixture("images/coffee.png");
    let found = ["--models", &models, "--ip-image", &coffee];
    let without = painted(&place, &[]);
    let style = painted(&place, &found);
    assert_ne!(style, without);
    let zero = format!("{coffee}:0");
    assert_eq!(painted(&place, &["--models", &models, "--ip-image", &zero]), without);
    assert_eq!(painted(&place, &["--models", &models, "--ip-image", &zero, "--ip-image", &zero]), without);

    // The same adapter by its file, whose encoder lies beside it.
    let plain = adapter("models/ip-adapter_sd15.safetensors");
    let named = ["--ip-image", &coffee, "--ip-adapter", &plain];
    assert_eq!(painted(&place, &named), style);
    let encoder = adapter("models/image_encoder");
    assert_eq!(painted(&place, &[&named[..], &["--image-encoder", &encoder]].concat()), style);
    let full = painted(&place, &[&found[..], &["--ip-type", "full"]].concat());
    assert_ne!(full, style);
    assert_eq!(painted(&place, &[&found[..], &["--ip-blocks", "all"]].concat()), full);
    let character = painted(&place, &[&found[..], &["--ip-type", "character"]].concat());
    assert!(character != style && character != full);
    for name in ["ip-adapter-plus-face_sd15", "ip-adapter-full-face_sd15"] {
        let face = adapter(&format!("models/{name}.safetensors"));
        assert_ne!(
            painted(&place, &["--ip-image", &coffee, "--ip-adapter", &face, "--ip-type", "character"]),
            character
        );
    }
}

#[test]
fn several_adapters_each_see_what_is_typed_after_them() {
    let place = Place::new();
    let (coffee, astronaut) = (fixture("images/coffee.png"), fixture("images/astronaut.png"));
    let plain = adapter("models/ip-adapter_sd15.safetensors");
    let face = adapter("models/ip-adapter-plus-face_sd15.safetensors");
    let first = ["--ip-adapter", &plain, "--ip-image", &coffee, "--ip-type", "style"];
    let second = ["--ip-adapter", &face, "--ip-image", &astronaut, "--ip-type", "full"];
    let both = [&first[..], &second].concat();
    let painted_with = |flags: &[&str]| painted(&place, flags);
    let joint = painted_with(&both);
    assert!(joint != painted_with(&first) && joint != painted_with(&second));
    // What is typed before the first adapter belongs to it.
    let early = [&first[2..], &first[..2], &second].concat();
    assert_eq!(painted_with(&early), joint);
    let zero = format!("{astronaut}:0");
    assert_eq!(
        painted_with(&[&first[..], &["--ip-adapter", &face, "--ip-image", &zero]].concat()),
        painted_with(&first)
    );

    let run = inpaint(&place, &[&both[..], &["--json"]].concat()).succeeded();
    let report: Value = serde_json::from_str(&run.stdout).unwrap();
    let told = report["ip_adapters"].as_array().unwrap();
    let types: Vec<&Value> = told.iter().map(|adapter| &adapter["type"]).collect();
    assert_eq!((types, report.get("ip_adapter")), (vec![&"style".into(), &"full".into()], None));

    let bare = [&first[..], &["--ip-adapter", &face]].concat();
    refuse(&place, &bare, &["--ip-adapter is ", "without an --ip-image of its own"]);
    let twice = [&first[..], &["--ip-type", "full"]].concat();
    refuse(&place, &twice, &["--ip-type is given 2 times for one adapter; allowed: once for each"]);
}

#[test]
fn scales_masks_and_names_with_colons() {
    let place = Place::new();
    let models = models_folder(&place);
    fs::copy(fixture("images/coffee.png"), place.path("a:1.png")).unwrap();
    fs::copy(fixture("images/coffee.png"), place.path("b:0.5")).unwrap();
    let with = |image: &str| painted(&place, &["--models", &models, "--ip-image", image]);
    let default = with("a:1.png");
    assert_eq!(with("a:1.png:0.9"), default);
    assert_eq!(with("b:0.5"), default);
    assert_ne!(with("b:0.5:0.3"), default);

    let mask = fixture("images/mask.png");
    let two = ["--models", &models, "--ip-image", "a:1.png", "--ip-image", "b:0.5", "--ip-type", "full"];
    let joint = painted(&place, &two);
    let masked = painted(&place, &[&two[..], &["--ip-mask", &mask, "--ip-mask", &mask]].concat());
    assert_ne!(joint, masked);
}

#[test]
fn the_report_and_the_recipe_name_what_is_on_top() {
    let place = Place::new();
    let models = models_folder(&place);
    place.write("models/loras/ink.safetensors", lora::for_tiny_sd15());
    place.write("models/embeddings/moss.safetensors", lora::embedding("moss", 32));
    let coffee = format!("{}:0.5", fixture("images/coffee.png"));
    let run = inpaint(
        &place,
        &[
            "--models",
            &models,
            "--ip-image",
            &coffee,
            "--lora",
            "ink:0.25",
            "--negative",
            "some moss",
            "--timestep-spacing",
            "trailing",
            "--scheduler",
            "EulerDiscreteScheduler",
            "--scheduler-option",
            "use_karras_sigmas=true",
            "--prompt-syntax",
            "plain",
            "--prompt-limit",
            "77",
            "--json",
        ],
    )
    .succeeded();
    let report: Value = serde_json::from_str(&run.stdout).unwrap();
    let digest = |value: &Value| {
        let text = value.as_str().unwrap_or_default();
        assert!(text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit()), "{value}");
    };
    let concept = &report["concepts"][0];
    assert_eq!((&concept["name"], &concept["scale"]), (&"ink.safetensors".into(), &0.25.into()));
    digest(&concept["digest"]);
    let adapter = &report["ip_adapter"];
    assert_eq!(
        (&adapter["name"], &adapter["type"]),
        (&"ip-adapter_sd15.safetensors".into(), &"style".into())
    );
    digest(&adapter["digest"]);
    digest(&adapter["image_encoder"]);
    let image = &adapter["images"][0];
    assert_eq!((&image["name"], &image["scale"]), (&"coffee.png".into(), &0.5.into()));
    digest(&image["digest"]);
    assert_eq!(report["embeddings"][0]["name"], "moss.safetensors");
    digest(&report["embeddings"][0]["digest"]);
    let options = serde_json::json!({"timestep_spacing": "trailing", "use_karras_sigmas": true});
    assert_eq!(report["scheduler_options"], options);
    assert_eq!((&report["prompt_syntax"], &report["prompt_limit"]), (&"plain".into(), &77.into()));

    let bytes = place.read("out.png");
    let raw = String::from_utf8_lossy(&bytes);
    for part in ["\"ip_adapter\":{\"name\":\"ip-adapter_sd15.safetensors\"", "\"concepts\":[", "trailing"] {
        assert!(raw.contains(part), "{part} is not in the recipe");
    }
    assert!(!raw.contains(&models), "a path of this machine is in the recipe");
    // What is not on top is not said.
    let plain: Value = serde_json::from_str(&inpaint(&place, &["--json"]).succeeded().stdout).unwrap();
    for key in ["concepts", "ip_adapter", "embeddings", "scheduler_options", "prompt_limit", "prompt_syntax"]
    {
        assert!(plain.get(key).is_none(), "{key}");
    }
}

#[test]
fn concepts_by_name_and_by_file() {
    let place = Place::new();
    let models = models_folder(&place);
    place.write("models/loras/ink.safetensors", lora::for_tiny_sd15());
    let without = painted(&place, &[]);
    let ink = painted(&place, &["--models", &models, "--lora", "ink"]);
    assert_ne!(ink, without);
    assert_eq!(painted(&place, &["--lora", "models/loras/ink.safetensors:1"]), ink);
    assert_eq!(painted(&place, &["--models", &models, "--lora", "ink:0"]), without);
    assert_ne!(painted(&place, &["--models", &models, "--lora", "ink:-1"]), ink);
    let twice = painted(&place, &["--models", &models, "--lora", "ink:0.5", "--lora", "ink.safetensors:0.5"]);
    // Two halves may round otherwise than the whole.
    let far = twice.pixels().zip(ink.pixels()).any(|(a, b)| (0..3).any(|c| a.0[c].abs_diff(b.0[c]) > 1));
    assert!(!far, "two halves are not the whole");
}

#[test]
fn embeddings_are_read_where_a_prompt_names_them() {
    let place = Place::new();
    let models = models_folder(&place);
    place.write("models/embeddings/moss.safetensors", lora::embedding("emb_params", 32));
    place.write("models/embeddings/wide.safetensors", lora::embedding("emb_params", 768));
    place.write("models/embeddings/broken.safetensors", "x");
    let folder = ["--models", &models];
    let without = painted(&place, &["--negative", "moss"]);
    assert_ne!(painted(&place, &[&folder[..], &["--negative", "moss"]].concat()), without);
    place.write("lichen.safetensors", lora::embedding("emb_params", 32));
    let run = inpaint(&place, &["--embedding", "lichen.safetensors", "--negative", "stone"]).succeeded();
    assert_eq!(run.stderr, "warning: the embedding lichen does nothing, since no prompt names it\n");
    refuse(&place, &[&folder[..], &["--negative", "a broken cup"]].concat(), &["broken.safetensors"]);
    refuse(&place, &[&folder[..], &["--negative", "wide"]].concat(), &["wide.safetensors", "768", "32"]);
    place.write("old.pt", "x");
    refuse(&place, &["--embedding", "old.pt"], &["old.pt", "pickle", "convert the embedding"]);
}

#[test]
fn schedulers_of_few_steps() {
    let place = Place::new();
    let euler = ["--scheduler", "EulerDiscreteScheduler"];
    let leading = painted(&place, &euler);
    let trailing = painted(&place, &[&euler[..], &["--timestep-spacing", "trailing"]].concat());
    assert_ne!(leading, trailing);
    for scheduler in ["LCMScheduler", "TCDScheduler"] {
        let few = ["--scheduler", scheduler, "--steps", "1", "--strength", "1", "--guidance", "1"];
        place.inpaint(&[&few[..], &["--out", "few.png"]].concat()).succeeded();
        let spaced = [&few[..], &["--timestep-spacing", "trailing", "--out", "spaced.png"]].concat();
        let said = place.inpaint(&spaced).succeeded().stderr;
        assert!(said.contains(&format!("--timestep-spacing does nothing: {scheduler}")), "{said}");
    }
    refuse(
        &place,
        &["--timestep-spacing", "tail"],
        &["--timestep-spacing is \"tail\"; allowed: leading, trailing"],
    );
    let single = ["--scheduler", "DPMSolverSinglestepScheduler", "--timestep-spacing", "trailing"];
    refuse(&place, &single, &["\"timestep_spacing\"", "allowed: num_train_timesteps"]);
    refuse(&place, &["--scheduler-option", "beta_end=much"], &["beta_end is \"much\"; allowed: a number"]);
    refuse(&place, &["--scheduler-option", "beta_end=much"], &["--scheduler-option: beta_end"]);
    refuse(
        &place,
        &["--scheduler-option", "foo=1"],
        &["--scheduler-option is 1 for \"foo\"", "allowed: ", "beta_end"],
    );
    refuse(&place, &["--scheduler-option", "=banana"], &["--scheduler-option is \"=banana\"", "KEY=VALUE"]);
    refuse(&place, &["--scheduler-option", "beta_end"], &["--scheduler-option is \"beta_end\"", "KEY=VALUE"]);
}

#[test]
fn what_can_not_be_put_on_top() {
    let place = Place::new();
    let models = models_folder(&place);
    let coffee = fixture("images/coffee.png");
    let image = ["--models", &models, "--ip-image", &coffee];
    let plain = adapter("models/ip-adapter_sd15.safetensors");
    let xl = adapter("sdxl_models/ip-adapter_sdxl_vit-h.safetensors");
    let bytes = fs::read(&plain).unwrap();
    place.write("cut.safetensors", &bytes[..bytes.len() / 2]);
    place.write("a.bin", "x");
    fs::create_dir(place.path("hollow")).unwrap();
    place.write("models/loras/ink.safetensors", lora::for_tiny_sd15());
    place.write("models/loras/other.safetensors", lora::for_another_model());
    let mask = fixture("images/mask.png");
    let black = fixture("images/mask_none.png");
    let base = place.path("alone.safetensors").display().to_string();
    fs::copy(&plain, &base).unwrap();
    for (more, parts) in [
        (vec!["--ip-image", "none.png"], vec!["the reference picture none.png", "can't be read"]),
        (vec!["--ip-image", "none.png:0.5"], vec!["the reference picture none.png can't be read"]),
        (
            vec!["--ip-mask", &mask, "--ip-mask", &mask],
            vec!["--ip-mask is given 2 times; allowed: none, or 1, one for each"],
        ),
        (vec!["--ip-mask", &black], vec!["--ip-mask is nowhere 128 or brighter"]),
        (vec!["--ip-adapter", "cut.safetensors"], vec!["cut.safetensors", "safetensors header says"]),
        (vec!["--ip-adapter", "a.bin"], vec!["a.bin", "pickle", "save_file"]),
        (vec!["--ip-adapter", "gone.safetensors"], vec!["gone.safetensors"]),
        (vec!["--ip-adapter", &xl], vec!["ip-adapter_sdxl_vit-h.safetensors", "72; allowed: 32"]),
        (vec!["--ip-adapter", &plain, "--image-encoder", "hollow"], vec!["hollow", "config.json"]),
        (vec!["--ip-adapter", &plain, "--image-encoder", "none"], vec!["none", "is not a folder"]),
        (
            vec!["--ip-adapter", &plain, "--ip-type", "character"],
            vec!["--ip-type is character", "plain adapter", "style, full"],
        ),
        (vec!["--ip-blocks", "layout"], vec!["--ip-blocks is layout; allowed: all, style, style-and-layout"]),
        (vec!["--lora", "smoke"], vec!["LoRA smoke is not here", "holds ink, other"]),
        (vec!["--lora", "./smoke.safetensors"], vec!["smoke.safetensors"]),
        (vec!["--lora", "ink:3"], vec!["--lora is ink at the scale 3; allowed: a scale from -2 to 2"]),
        (
            vec!["--lora", "ink:abc"],
            vec!["--lora is ink at the scale \"abc\"; allowed: a scale from -2 to 2"],
        ),
        (vec!["--lora", "a.bin"], vec!["a.bin", "pickle"]),
        (vec!["--lora", "other"], vec!["other.safetensors"]),
        (vec!["--prompt-limit", "100"], vec!["--prompt-limit is 100; allowed: 77"]),
    ] {
        refuse(&place, &[&image[..], &more].concat(), &parts);
    }
    let strong = format!("{coffee}:6");
    refuse(
        &place,
        &["--models", &models, "--ip-image", &strong],
        &["the scale of --ip-image is 6; allowed: 0 to 5"],
    );
    // Without a models folder nothing of the adapters is here, and beside a lone file there is no encoder.
    refuse(
        &place,
        &["--ip-image", &coffee],
        &["adapter ip-adapter_sd15 is not here", "hf download h94/IP-Adapter"],
    );
    refuse(&place, &["--ip-image", &coffee, "--ip-adapter", &base], &["image encoder for", "image_encoder"]);
    refuse(&place, &["--ip-type", "full"], &["missing: --ip-image"]);
    refuse(&place, &["--ip-image", &coffee, "--image-encoder", "x"], &["missing: --ip-adapter"]);
    let sdxl = ["--model", &model("tiny-sdxl-inpaint"), "--ip-adapter", &plain];
    let mut command = place.command();
    command.args([
        "inpaint",
        &fixture("images/init.png"),
        "--mask",
        &mask,
        "--prompt",
        "x",
        "--out",
        "out.png",
    ]);
    Run::of(&command.args(["--ip-image", &coffee]).args(sdxl).output().unwrap())
        .refused(2, &["ip-adapter_sd15.safetensors", "32; allowed: 72"]);
}

/// What is wrong is said before anything of a model is loaded, as the log shows.
#[test]
fn what_does_not_fit_is_refused_before_the_model_is_loaded() {
    let place = Place::new();
    let models = models_folder(&place);
    place.write("models/loras/ink.safetensors", lora::for_tiny_sd15());
    place.write("models/loras/other.safetensors", lora::for_another_model());
    let coffee = fixture("images/coffee.png");
    let (plain, xl) = (
        adapter("models/ip-adapter_sd15.safetensors"),
        adapter("sdxl_models/ip-adapter_sdxl_vit-h.safetensors"),
    );
    // Of another width than what the adapter reads.
    copy(Path::new(&adapter("models/image_encoder")), &place.path("wide"));
    let mut config: Value = serde_json::from_slice(&place.read("wide/config.json")).unwrap();
    let width = config["projection_dim"].as_u64().unwrap();
    config["projection_dim"] = (width + 8).into();
    place.write("wide/config.json", config.to_string());
    let read = format!("projection_dim is {}; allowed: {width}", width + 8);
    let sdxl = model("tiny-sdxl-inpaint");
    let run = |model: &str, more: &[&str]| {
        let mut command = place.command();
        command.args(["inpaint", &fixture("images/init.png"), "--mask", &fixture("images/mask.png")]);
        command.args(["--prompt", "x", "--steps", "1", "--strength", "1", "--width", "64", "--height", "64"]);
        command.args(["--device", "cpu", "--out", "out.png", "--models", &models, "--model", model]);
        Run::of(&command.args(more).env("INFILL_LOG", "infill=info").output().unwrap())
    };
    let sd15 = model("tiny-sd15-inpaint");
    let fits = run(&sd15, &["--lora", "ink"]).succeeded();
    assert!(fits.stderr.contains("loading unet"), "{}", fits.stderr);
    for (model, more, parts) in [
        (&sd15, vec!["--lora", "other"], ["other.safetensors", "text_encoder_2"]),
        (&sdxl, vec!["--lora", "ink"], ["ink.safetensors", "fit nothing in this model"]),
        (&sd15, vec!["--ip-image", &coffee, "--ip-adapter", &xl], ["ip-adapter_sdxl", "72; allowed: 32"]),
        (&sdxl, vec!["--ip-image", &coffee, "--ip-adapter", &plain], ["ip-adapter_sd15", "32; allowed: 72"]),
        (
            &sd15,
            vec!["--ip-image", &coffee, "--ip-adapter", &plain, "--image-encoder", "wide"],
            [&read, "which"],
        ),
    ] {
        let run = run(model, &more);
        assert_eq!(run.code, Some(2), "{more:?}: {}", run.stderr);
        assert!(parts.iter().all(|part| run.stderr.contains(part)), "{more:?}: {}", run.stderr);
        assert!(!run.stderr.contains("loading"), "{more:?}: {}", run.stderr);
    }
}
