//! The second tool, and what both put on top of a model: reference pictures, concepts.

use std::fs;

use infill_store::Store;
use serde_json::{Value, json};

use crate::folder::copy;
use crate::harness::{REFERENCE_TOOL, Server, TOOL, arguments, files, fixture, pixels, text, url};
use crate::lora;
use crate::room::{Room, data_url, with_reference};

const SD15: &str = "tiny-sd15-inpaint";
const SDXL: &str = "tiny-sdxl-inpaint";

/// One refused call: its only sentence.
#[track_caller]
fn refused(server: &mut Server, tool: &str, arguments: &Value) -> String {
    let result = server.call_tool(tool, arguments);
    let told = text(&result);
    assert_eq!(result["isError"], true, "{told}");
    assert_eq!(told.lines().count(), 1, "{told}");
    told
}

#[test]
fn references_are_data_urls_files_and_assets() {
    let room = Room::with_adapters(&[SD15]);
    let mut server = room.start();
    let two = json!([data_url("images/coffee.png"), data_url("images/chelsea.png")]);
    let by_data = server.call_tool(
        REFERENCE_TOOL,
        &with_reference(&json!({"ipAdapterImages": two, "ipAdapterScales": [1, 0.5]})),
    );
    let made = pixels(&by_data);
    let plain = pixels(&server.call(&arguments(&json!({}))));
    assert_ne!(made, plain, "the references changed nothing");

    // Outside the mask the picture is the input's own.
    let input = image::open(fixture("images/init.png")).unwrap().to_rgb8();
    let mask = image::open(fixture("images/mask.png")).unwrap().to_luma8();
    for (x, y, pixel) in made[0].enumerate_pixels().filter(|&(x, y, _)| mask.get_pixel(x, y).0[0] == 0) {
        assert_eq!(pixel, input.get_pixel(x, y), "at {x}, {y}");
    }

    let inference = &by_data["structuredContent"]["inference"];
    assert_eq!(inference["type"], "inpaint_ip_adapter");
    assert_eq!(
        (&inference["ipAdapterType"], &inference["ipAdapterScales"]),
        (&json!("style"), &json!([1.0, 0.5]))
    );
    assert!(!by_data["structuredContent"].to_string().contains("base64"));
    let ids = inference["ipAdapterImageIds"].clone();
    assert_eq!(ids.as_array().unwrap().len(), 2);

    let files_and_ids = json!({
        "ipAdapterImages": [url("images/coffee.png")], "ipAdapterImageIds": [ids[1]], "ipAdapterScales": [1, 0.5]
    });
    let assets = json!({"ipAdapterImages": null, "ipAdapterImageIds": ids, "ipAdapterScales": [1, 0.5]});
    for change in [files_and_ids, assets] {
        let again = server.call_tool(REFERENCE_TOOL, &with_reference(&change));
        assert_eq!(pixels(&again), made, "{change}");
    }

    let bytes = fs::read(&files(&by_data)[0]).unwrap();
    let raw = String::from_utf8_lossy(&bytes);
    for part in
        ["\"ipAdapter\":{\"file\":\"ip-adapter_sd15.safetensors\",\"digest\":\"", "imageEncoderDigest"]
    {
        assert!(raw.contains(part), "{part} is not in the recipe");
    }
    assert!(!raw.contains("file://"), "a path of this machine is in the recipe");

    // Another type is another adapter, another scale another picture.
    let character = server.call_tool(REFERENCE_TOOL, &with_reference(&json!({"ipAdapterType": "character"})));
    let style = server.call_tool(REFERENCE_TOOL, &with_reference(&json!({})));
    let weak = server.call_tool(REFERENCE_TOOL, &with_reference(&json!({"ipAdapterScale": 0.1})));
    assert_ne!(pixels(&character), pixels(&style));
    assert_ne!(pixels(&weak), pixels(&style));
    assert!(server.finish().success());
}

#[test]
fn deprecated_references_work_and_lose_to_the_lists() {
    let room = Room::with_adapters(&[SD15]);
    let mut server = room.start();
    let mut call = |change: &Value| server.call_tool(REFERENCE_TOOL, &with_reference(change));
    let (coffee, cat) = (url("images/coffee.png"), url("images/chelsea.png"));
    let by_list = call(&json!({"ipAdapterScales": [0.5]}));
    let made = pixels(&by_list);
    let id = by_list["structuredContent"]["inference"]["ipAdapterImageIds"][0].clone();
    for singular in [
        json!({"ipAdapterImages": null, "ipAdapterImage": coffee, "ipAdapterScale": 0.5}),
        json!({"ipAdapterImages": [], "ipAdapterImageId": id, "ipAdapterScale": 0.5}),
    ] {
        assert_eq!(pixels(&call(&singular)), made, "{singular}");
    }
    assert_ne!(
        pixels(&call(&json!({"ipAdapterImages": null, "ipAdapterImage": cat, "ipAdapterScale": 0.5}))),
        made
    );
    for (change, note) in [
        (json!({"ipAdapterImage": cat}), "ipAdapterImage has no effect, since ipAdapterImages is given"),
        (json!({"ipAdapterImageId": id}), "ipAdapterImageId has no effect, since ipAdapterImages is given"),
        (json!({"ipAdapterScale": 1}), "ipAdapterScale has no effect, since ipAdapterScales is given"),
    ] {
        let mut change = change;
        change["ipAdapterScales"] = json!([0.5]);
        let result = call(&change);
        assert_eq!(pixels(&result), made, "{change}");
        assert!(text(&result).contains(&format!("Note: {note}.")), "{change}: {result}");
    }
    assert!(server.finish().success());
}

#[test]
fn a_reference_at_scale_0_is_none() {
    let room = Room::with_adapters(&[SD15]);
    let mut server = room.start();
    let without = pixels(&server.call(&arguments(&json!({}))));
    for scales in [json!([0]), json!([0, 0])] {
        let images = vec![url("images/coffee.png"); scales.as_array().unwrap().len()];
        let change = json!({"ipAdapterImages": images, "ipAdapterScales": scales});
        assert_eq!(pixels(&server.call_tool(REFERENCE_TOOL, &with_reference(&change))), without);
    }
    // And what a run left on the device does not reach the next.
    let followed = pixels(&server.call_tool(REFERENCE_TOOL, &with_reference(&json!({}))));
    assert_ne!(followed, without);
    assert_eq!(pixels(&server.call(&arguments(&json!({})))), without);
    assert!(server.finish().success());
}

#[test]
fn what_can_not_be_followed_is_one_sentence() {
    let room = Room::with_adapters(&[SD15, SDXL]);
    let adapters = room.models().join("ip-adapters");
    let mut server = room.start();
    let two = json!([url("images/coffee.png"), url("images/chelsea.png")]);
    for (change, expected) in [
        (
            json!({"ipAdapterImages": two, "ipAdapterScales": [1, 1, 1]}),
            "ipAdapterScales is a list of 3 for 2 reference pictures; allowed: one number for all, or 2",
        ),
        (json!({"ipAdapterScales": []}), "ipAdapterScales is a list of 0 for 1 reference picture;"),
        (json!({"ipAdapterImages": null}), "ipAdapterImages is missing; allowed: 1 to 32 reference pictures"),
        (json!({"ipAdapterImages": ["data:image/png;base64,AAAA"]}), "ipAdapterImages[0] can't be read: "),
        (json!({"ipAdapterImages": ["file:///etc/passwd"]}), "ipAdapterImages[0] is /etc/passwd; allowed: "),
        (
            json!({"ipAdapterImageIds": ["asset_AAAAAAAAAAAAAAAAAAAAAA"]}),
            "ipAdapterImageIds[0] is asset_AAAA",
        ),
        (json!({"ipAdapterType": "face"}), "ipAdapterType is \"face\"; allowed: character, style"),
        (
            json!({"ipAdapterImage": url("images/coffee.png"), "ipAdapterImageId": "asset_AAAAAAAAAAAAAAAAAAAAAA"}),
            "ipAdapterImageId is \"asset_AAAAAAAAAAAAAAAAAAAAAA\"; allowed: nothing where ipAdapterImage is given",
        ),
    ] {
        let told = refused(&mut server, REFERENCE_TOOL, &with_reference(&change));
        assert!(told.starts_with(expected), "{change}: {told}");
    }

    // The first tool knows none of these parameters.
    let told = refused(&mut server, TOOL, &with_reference(&json!({})));
    assert!(told.starts_with("ipAdapterImages is not a parameter;"), "{told}");

    let sdxl = json!({"modelId": SDXL, "width": 512, "height": 512});
    let name = "sdxl_models/ip-adapter_sdxl_vit-h.safetensors";
    fs::copy(adapters.join("models/ip-adapter_sd15.safetensors"), adapters.join(name)).unwrap();
    let told = refused(&mut server, REFERENCE_TOOL, &with_reference(&sdxl));
    assert!(told.contains(name) && told.contains("32; allowed: 72, as in "), "{told}");

    let name = "models/ip-adapter_sd15.safetensors";
    let bytes = fs::read(adapters.join(name)).unwrap();
    fs::write(adapters.join(name), &bytes[..bytes.len() / 2]).unwrap();
    let told = refused(&mut server, REFERENCE_TOOL, &with_reference(&json!({})));
    assert!(told.contains(name) && told.contains("bytes where its safetensors header says"), "{told}");

    fs::remove_file(adapters.join("models/image_encoder/config.json")).unwrap();
    fs::remove_file(adapters.join(name)).unwrap();
    let character = with_reference(&json!({"ipAdapterType": "character"}));
    let told = refused(&mut server, REFERENCE_TOOL, &character);
    assert!(told.contains("models/image_encoder (for models/ip-adapter-plus_sd15.safetensors"), "{told}");

    fs::remove_dir_all(&adapters).unwrap();
    let told = refused(&mut server, REFERENCE_TOOL, &with_reference(&json!({})));
    assert!(
        told.starts_with("adapter ip-adapter_sd15 is not here: ")
            && told.contains("hf download h94/IP-Adapter"),
        "{told}"
    );
    // Without a reference nothing of it is needed.
    assert_eq!(files(&server.call(&arguments(&json!({})))).len(), 1);
    assert!(server.finish().success());
}

#[test]
fn embeddings_are_offered_to_every_prompt() {
    let room = Room::new(&[SD15]);
    let mut server = room.start();
    let negative = json!({"negativePrompt": "some moss"});
    let plain = pixels(&server.call(&arguments(&negative)));
    fs::create_dir(room.models().join("embeddings")).unwrap();
    fs::write(room.models().join("embeddings/moss.safetensors"), lora::embedding("emb_params", 32)).unwrap();
    let named = server.call(&arguments(&negative));
    assert_ne!(pixels(&named), plain);
    let bytes = fs::read(&files(&named)[0]).unwrap();
    let recipe = String::from_utf8_lossy(&bytes);
    assert!(recipe.contains("\"embeddings\":[{\"name\":\"moss.safetensors\",\"digest\":\""));
    let other = json!({"negativePrompt": "stones"});
    let bytes = fs::read(&files(&server.call(&arguments(&other)))[0]).unwrap();
    assert!(!String::from_utf8_lossy(&bytes).contains("embeddings"));
    assert!(server.finish().success());
}

#[test]
fn concepts_come_and_go() {
    let room = Room::with_adapters(&[SD15]);
    let folder = room.models().join("loras");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("ink.safetensors"), lora::for_tiny_sd15()).unwrap();
    fs::write(folder.join("other.safetensors"), lora::for_another_model()).unwrap();
    let mut server = room.start();
    assert!(server.instructions.contains("Concepts that are here: ink, other."), "{}", server.instructions);
    let concepts = |id: &str, scale: f64| json!({"concepts": [{"modelId": id, "scale": scale}]});

    let before = pixels(&server.call(&arguments(&json!({}))));
    let with = server.call(&arguments(&concepts("ink", 1.0)));
    assert_ne!(pixels(&with), before, "the concept changed nothing");
    assert_eq!(pixels(&server.call(&arguments(&json!({})))), before, "the concept stayed");
    assert_eq!(pixels(&server.call(&arguments(&concepts("ink", 0.0)))), before);
    assert_eq!(pixels(&server.call(&arguments(&concepts("ink.safetensors", 1.0)))), pixels(&with));
    let path = folder.join("ink.safetensors").display().to_string();
    assert_eq!(pixels(&server.call(&arguments(&concepts(&path, 1.0)))), pixels(&with));
    assert_ne!(pixels(&server.call(&arguments(&concepts("ink", -2.0)))), pixels(&with));
    let both = with_reference(&concepts("ink", 1.0));
    assert_ne!(pixels(&server.call_tool(REFERENCE_TOOL, &both)), pixels(&with));

    assert_eq!(with["structuredContent"]["inference"]["concepts"], json!([{"modelId": "ink", "scale": 1.0}]));
    let bytes = fs::read(&files(&with)[0]).unwrap();
    let raw = String::from_utf8_lossy(&bytes);
    assert!(raw.contains("\"concepts\":[{\"modelId\":\"ink\",\"scale\":1.0,\"digest\":\""), "no digest");

    let outside = fixture("models/ip_adapter/models/ip-adapter_sd15.safetensors").display().to_string();
    for (id, parts) in [
        (
            "smoke",
            vec!["concepts[0].modelId is \"smoke\"; allowed: a LoRA that is here (ink, other), or its path"],
        ),
        ("../loras/ink", vec!["concepts[0].modelId is \"../loras/ink\"; allowed: a LoRA that is here"]),
        (outside.as_str(), vec!["concepts[0].modelId is ", "what exists under"]),
        ("other", vec!["other.safetensors"]),
    ] {
        let told = refused(&mut server, TOOL, &arguments(&concepts(id, 1.0)));
        assert!(parts.iter().all(|part| told.contains(part)), "{id}: {told}");
    }
    // What the model brings is named too, each name once.
    let own = room.models().join(SD15).join("loras");
    fs::create_dir(&own).unwrap();
    for name in ["ink.safetensors", "own.safetensors"] {
        fs::copy(folder.join("ink.safetensors"), own.join(name)).unwrap();
    }
    let told = refused(&mut server, TOOL, &arguments(&concepts("smoke", 1.0)));
    assert!(told.contains("allowed: a LoRA that is here (ink, own, other), or its path"), "{told}");
    assert!(server.finish().success());
}

#[test]
fn what_does_not_fit_the_model_is_refused_before_there_is_a_job() {
    let room = Room::new(&[SD15, SDXL]);
    let loras = room.models().join("loras");
    fs::create_dir(&loras).unwrap();
    fs::write(loras.join("ink.safetensors"), lora::for_tiny_sd15()).unwrap();
    fs::write(loras.join("other.safetensors"), lora::for_another_model()).unwrap();
    // An adapter of its own, for another family.
    let own = room.models().join(SDXL);
    fs::create_dir(own.join("ip_adapter")).unwrap();
    let adapter = fixture("models/ip_adapter/models/ip-adapter_sd15.safetensors");
    fs::copy(adapter, own.join("ip_adapter/ip-adapter.safetensors")).unwrap();
    copy(&fixture("models/ip_adapter/models/image_encoder"), &own.join("image_encoder"));
    let mut server = room.start();
    let store = Store::open(&room.store()).unwrap();
    let sdxl = json!({"modelId": SDXL, "width": 512, "height": 512});
    let with = |id: &str, change: &Value| {
        let mut all = arguments(change);
        all["concepts"] = json!([{"modelId": id, "scale": 1}]);
        all
    };
    for dry_run in ["true", "false"] {
        let dry_run = |mut all: Value| {
            all["dryRun"] = dry_run.into();
            all
        };
        let told = refused(&mut server, TOOL, &dry_run(with("other", &json!({}))));
        assert!(told.starts_with("concepts[0].modelId is \"other\": "), "{told}");
        assert!(told.contains("other.safetensors") && told.contains("text_encoder_2"), "{told}");
        let told = refused(&mut server, TOOL, &dry_run(with("ink", &sdxl)));
        assert!(told.contains("ink.safetensors") && told.contains("fit nothing in this model"), "{told}");
        let told = refused(&mut server, REFERENCE_TOOL, &dry_run(with_reference(&sdxl)));
        assert!(told.contains("ip-adapter.safetensors") && told.contains("32; allowed: 72"), "{told}");
        assert!(store.jobs().unwrap().is_empty(), "a job was begun");
    }
    // At 0 it is as if it were not there.
    let mut none = with("other", &json!({}));
    none["concepts"][0]["scale"] = json!(0);
    assert_eq!(pixels(&server.call(&none)), pixels(&server.call(&arguments(&json!({})))));
    assert_eq!(store.jobs().unwrap().len(), 2);
    assert!(server.finish().success());
}

#[cfg(unix)]
#[test]
fn links_in_the_models_folder_are_what_they_lead_to() {
    use std::os::unix::fs::symlink;

    let room = Room::new(&[SD15]);
    let elsewhere = tempfile::tempdir().unwrap();
    let model = elsewhere.path().join("model");
    copy(&fixture("models").join(SD15), &model);
    let ink = elsewhere.path().join("shared.safetensors");
    fs::write(&ink, lora::for_tiny_sd15()).unwrap();
    fs::create_dir(room.models().join("loras")).unwrap();
    symlink(&ink, room.models().join("loras/ink.safetensors")).unwrap();
    symlink(&model, room.models().join("linked")).unwrap();
    let mut server = room.start();
    assert!(server.instructions.contains("Concepts that are here: ink."), "{}", server.instructions);
    assert!(server.instructions.contains("linked, tiny-sd15-inpaint"), "{}", server.instructions);
    let plain = pixels(&server.call(&arguments(&json!({}))));
    assert_eq!(pixels(&server.call(&arguments(&json!({"modelId": "linked"})))), plain);
    let concepts = json!([{"modelId": "ink", "scale": 1}]);
    let by_links = json!({"modelId": "linked", "concepts": concepts});
    assert_ne!(pixels(&server.call(&arguments(&by_links))), plain);
    // By its path, where it leads to is asked.
    for path in [room.models().join("linked"), model] {
        let told = refused(&mut server, TOOL, &arguments(&json!({"modelId": path})));
        assert!(told.starts_with("modelId is "), "{told}");
    }
    for path in [room.models().join("loras/ink.safetensors"), ink] {
        let concepts = json!({"concepts": [{"modelId": path, "scale": 1}]});
        let told = refused(&mut server, TOOL, &arguments(&concepts));
        assert!(told.starts_with("concepts[0].modelId is "), "{told}");
    }
    assert!(server.finish().success());
}
