//! `infill models`.

use serde_json::Value;

use crate::harness::{Place, fixture, model};

#[test]
fn the_known_models_and_those_of_the_folder_are_listed() {
    let place = Place::new();
    let models = fixture("models");
    let list = place.infill(&["models", "list", "--models", &models]).succeeded().stdout;
    for id in ["sdxl-inpainting", "sd15-inpainting", "tiny-sdxl-inpaint", "tiny-sd15-inpaint"] {
        assert!(list.lines().any(|line| line.starts_with(&format!("{id} "))), "{id} is not in\n{list}");
    }
    let names = ["Stable Diffusion", "your own", "infill's own", "adapter of", "LoRA of"];
    let names = list.lines().map(|line| names.iter().find_map(|name| line.find(name)).unwrap());
    assert_eq!(names.collect::<std::collections::BTreeSet<_>>().len(), 1, "not in columns:\n{list}");
    let json = place.infill(&["models", "list", "--models", &models, "--json"]).succeeded().stdout;
    let json: Value = serde_json::from_str(&json).unwrap();
    let find = |id: &str| json.as_array().unwrap().iter().find(|model| model["id"] == id).unwrap();
    assert!(find("sdxl-inpainting")["dir"].is_null());
    assert!(find("tiny-sd15-inpaint")["dir"].as_str().unwrap().ends_with("tiny-sd15-inpaint"));
}

#[test]
fn what_goes_on_top_of_models_is_listed() {
    let place = Place::new();
    for folder in ["models/loras", "models/embeddings", "models/ip-adapters/models/image_encoder"] {
        std::fs::create_dir_all(place.path(folder)).unwrap();
    }
    for file in ["loras/ink", "embeddings/moss", "ip-adapters/models/ip-adapter_sd15"] {
        place.write(&format!("models/{file}.safetensors"), "x");
    }
    let listed = || place.infill(&["models", "list", "--models", "models"]).succeeded().stdout;
    assert!(listed().contains("its image encoder is not here"), "{}", listed());
    place.write("models/ip-adapters/models/image_encoder/config.json", "{}");
    assert!(!listed().contains("its image encoder is not here"), "{}", listed());
    let json = place.infill(&["models", "list", "--models", "models", "--json"]).succeeded().stdout;
    let json: Value = serde_json::from_str(&json).unwrap();
    for (kind, id) in
        [("lora", "ink"), ("embedding", "moss"), ("adapter", "ip-adapter_sd15"), ("model", "sd15")]
    {
        let found = json.as_array().unwrap().iter().any(|one| one["kind"] == kind && one["id"] == id);
        assert!(found, "{kind} {id} is not in {json}");
    }
}

#[test]
fn what_is_in_a_model_is_shown() {
    let place = Place::new();
    let shown = place.infill(&["models", "show", &model("tiny-sdxl-inpaint")]).succeeded().stdout;
    for part in
        ["stable-diffusion-xl", "inpainting model", "UNet2DConditionModel", "text_encoder_2", "Scheduler"]
    {
        assert!(shown.contains(part), "{part} is not in\n{shown}");
    }
    let args = ["models", "show", "tiny-sd15-base", "--models", &fixture("models"), "--json"];
    let shown: Value = serde_json::from_str(&place.infill(&args).succeeded().stdout).unwrap();
    assert_eq!((&shown["family"], &shown["inpainting"]), (&"stable-diffusion".into(), &false.into()));
    let components = shown["components"].as_array().unwrap();
    let unet = components.iter().find(|part| part["name"] == "unet").unwrap();
    assert!(
        unet["parameters"].as_u64().unwrap() > 1000 && unet["bytes"]["F16"].as_u64().unwrap() > 1000,
        "{unet}"
    );
}

#[test]
fn what_the_built_in_model_brings_is_listed_and_shown() {
    if !infill_models::embedded::is_there() {
        return;
    }
    let place = Place::new();
    let json = place.infill(&["models", "list", "--json"]).succeeded().stdout;
    let json: Value = serde_json::from_str(&json).unwrap();
    for (kind, id) in [("adapter", "infill-mini"), ("lora", "sticker")] {
        let found = json.as_array().unwrap().iter().find(|one| one["kind"] == kind && one["id"] == id);
        assert_eq!(found.unwrap()["embedded"], true, "{kind} {id} is not in {json}");
    }
    assert!(!place.path("home/.cache").exists(), "a list needs no files of the model");
    let list = place.infill(&["models", "list"]).succeeded().stdout;
    let line = list.lines().find(|line| line.starts_with("sticker ")).unwrap();
    assert!(line.contains("LoRA of infill-mini") && line.ends_with("built in"), "{line}");

    let shown = place.infill(&["models", "show", "infill-mini"]).succeeded().stdout;
    assert!(shown.contains("\nadapters    infill-mini\nLoRAs       sticker\n"), "{shown}");
    let shown = place.infill(&["models", "show", "infill-mini", "--json"]).succeeded().stdout;
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!((&shown["adapters"][0], &shown["loras"][0]), (&"infill-mini".into(), &"sticker".into()));
}

#[test]
fn what_a_model_of_the_folder_brings_is_listed() {
    let place = Place::new();
    for folder in ["models/mine/loras", "models/mine/ip_adapter"] {
        std::fs::create_dir_all(place.path(folder)).unwrap();
    }
    for file in ["model_index.json", "loras/ink.safetensors", "ip_adapter/eye.safetensors"] {
        place.write(&format!("models/mine/{file}"), "{}");
    }
    let list = place.infill(&["models", "list", "--models", "models"]).succeeded().stdout;
    for (id, name) in [("ink ", "LoRA of mine"), ("eye ", "adapter of mine")] {
        assert!(list.lines().any(|line| line.starts_with(id) && line.contains(name)), "{list}");
    }
}

#[test]
fn unknown_models_are_refused() {
    let place = Place::new();
    let advice =
        if cfg!(feature = "hub") { "infill models pull sd15" } else { "hf download stable-diffusion-v1-5/" };
    place.infill(&["models", "show", "sdxl"]).refused(2, &["sdxl", "sdxl-inpainting", "sd15"]);
    place.infill(&["models", "show", "sd15"]).refused(2, &["sd15", advice]);
    place.infill(&["models", "list", "--models", "none"]).refused(2, &["--models is none", "folder"]);
}

#[test]
fn without_the_hub_nothing_is_fetched() {
    if !cfg!(feature = "hub") {
        let place = Place::new();
        place.infill(&["models", "pull", "sd15"]).refused(2, &["sd15", "hub", "network"]);
        place.infill(&["models", "pull", "nosuch"]).refused(2, &["nosuch", "only known models", "sd15"]);
    }
}
