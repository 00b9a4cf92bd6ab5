//! What is around the tools: resources, prompts, completion.

use std::collections::BTreeSet;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use infill_models::embedded;
use infill_store::{AssetMeta, NewJob, Store};
use serde_json::{Map, Value, json};

use crate::client::{Http, NEWEST};
use crate::harness::{REFERENCE_TOOL, Server, TOOL, arguments, files, fixture};

/// A request that must not be refused.
#[track_caller]
fn asked(server: &mut Server, method: &str, params: &Value) -> Value {
    let answer = server.request(method, params);
    assert!(answer.get("error").is_none(), "{method} {params}: {answer}");
    answer["result"].clone()
}

/// The code and the sentence of a request that must be refused.
#[track_caller]
fn refused(server: &mut Server, method: &str, params: &Value) -> (i64, String) {
    let answer = server.request(method, params);
    let error = &answer["error"];
    (
        error["code"].as_i64().unwrap_or_else(|| panic!("{answer}")),
        error["message"].as_str().unwrap().to_owned(),
    )
}

fn read(server: &mut Server, uri: &str) -> Vec<Value> {
    let result = asked(server, "resources/read", &json!({ "uri": uri }));
    let contents = result["contents"].as_array().unwrap().clone();
    assert!(contents.iter().all(|one| one["uri"] == uri), "{result}");
    assert!(result.to_string().len() < 1 << 20);
    contents
}

/// The JSON of a resource's last content.
fn known(contents: &[Value]) -> Value {
    let last = contents.last().unwrap();
    assert_eq!(last["mimeType"], "application/json");
    serde_json::from_str(last["text"].as_str().unwrap()).unwrap()
}

fn uris(server: &mut Server) -> Vec<String> {
    let result = asked(server, "resources/list", &json!({}));
    assert!(result.get("nextCursor").is_none(), "{result}");
    let resources = result["resources"].as_array().unwrap();
    assert!(
        resources.iter().all(|one| one["title"].is_string() && one["description"].is_string()),
        "{result}"
    );
    resources.iter().map(|one| one["uri"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn pictures_jobs_and_models_can_be_looked_at() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path());
    let models = uris(&mut server);
    assert!(models.contains(&"model://tiny-sd15-inpaint".to_owned()) && models.len() > 2, "{models:?}");

    let made = server.call(&arguments(&json!({"prompt": "a red hat"})));
    let structure = &made["structuredContent"];
    let result = structure["job"]["metadata"]["assetIds"][0].as_str().unwrap();
    let input = structure["inference"]["imageId"].as_str().unwrap();
    let job = structure["job"]["jobId"].as_str().unwrap();
    // Newest first, without the mask; what is hidden can still be read.
    let expected = [format!("asset://{result}"), format!("asset://{input}"), format!("job://{job}")];
    assert_eq!(uris(&mut server)[models.len()..], expected);
    server.call(&arguments(&json!({"seed": "8", "hideResults": true, "image": input})));
    let listed = uris(&mut server);
    assert_eq!(listed.len(), models.len() + 4, "{listed:?}");
    let mask = structure["inference"]["maskId"].as_str().unwrap();
    assert_eq!(known(&read(&mut server, &format!("asset://{mask}")))["privacy"], "unlisted");

    let contents = read(&mut server, &expected[0]);
    let file = &files(&made)[0];
    assert_eq!(STANDARD.decode(contents[0]["blob"].as_str().unwrap()).unwrap(), std::fs::read(file).unwrap());
    assert_eq!(contents[0]["mimeType"], "image/png");
    let about = known(&contents);
    assert_eq!((&about["id"], &about["metadata"]["parentId"]), (&json!(result), &json!(input)));
    assert_eq!(about["path"], file.to_str().unwrap());
    assert_eq!(about["recipe"]["prompt"], "a red hat");
    assert!(about.get("note").is_none());

    let about = known(&read(&mut server, &expected[2]));
    assert_eq!(about["job"], structure["job"]);
    assert_eq!(about["inference"]["prompt"], "a red hat");

    let about = known(&read(&mut server, "model://tiny-sdxl-inpaint"));
    assert_eq!((&about["type"], &about["trainedToInpaint"]), (&json!("sd-xl"), &json!(true)));
    assert_eq!(about["width"], json!({"minimum": 512, "maximum": 2048, "multipleOf": 8}));
    assert!(about["weightBytes"].as_u64().unwrap() > 0 && about["defaultScheduler"].is_string(), "{about}");
    assert!(server.finish().success());
}

#[test]
fn the_list_comes_in_pages_that_new_pictures_do_not_move() {
    let dir = tempfile::tempdir().unwrap();
    let meta = AssetMeta { media_type: "image/png".into(), ..AssetMeta::default() };
    let store = Store::open(dir.path()).unwrap();
    for number in 0..230u32 {
        store.put(&number.to_le_bytes(), &meta).unwrap();
    }
    let mut server = Server::start(dir.path());
    let mut seen = Vec::new();
    let mut cursor = Value::Null;
    let mut pages = 0;
    loop {
        let params = if cursor.is_null() { json!({}) } else { json!({ "cursor": cursor }) };
        let result = asked(&mut server, "resources/list", &params);
        let page = result["resources"].as_array().unwrap();
        assert!(page.len() <= 100);
        seen.extend(page.iter().map(|one| one["uri"].as_str().unwrap().to_owned()));
        pages += 1;
        store.put(format!("new {pages}").as_bytes(), &meta).unwrap();
        cursor = result["nextCursor"].clone();
        if cursor.is_null() {
            break;
        }
    }
    let assets: Vec<_> = seen.iter().filter(|uri| uri.starts_with("asset://")).collect();
    assert_eq!((pages, assets.len()), (3, 230));
    assert_eq!(assets.iter().collect::<BTreeSet<_>>().len(), 230);
    let (code, told) = refused(&mut server, "resources/list", &json!({"cursor": "2"}));
    assert_eq!(
        (code, told.as_str()),
        (-32602, "cursor is \"2\"; allowed: the nextCursor of an earlier page")
    );
    assert!(server.finish().success());
}

#[test]
fn a_large_picture_is_shown_small_and_what_is_damaged_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let mut state = 1u32;
    let noise = image::RgbImage::from_fn(1200, 800, |_, _| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        image::Rgb([(state >> 24) as u8, (state >> 16) as u8, (state >> 8) as u8])
    });
    let mut png = Vec::new();
    noise.write_to(&mut std::io::Cursor::new(&mut png), image::ImageFormat::Png).unwrap();
    let meta = AssetMeta { media_type: "image/png".into(), ..AssetMeta::default() };
    let large = store.put(&png, &meta).unwrap();
    let strange = store.put(&[7; 1 << 20], &meta).unwrap();
    let mut server = Server::start(dir.path());

    let contents = read(&mut server, &format!("asset://{large}"));
    assert_eq!(contents[0]["mimeType"], "image/jpeg");
    let shown =
        image::load_from_memory(&STANDARD.decode(contents[0]["blob"].as_str().unwrap()).unwrap()).unwrap();
    assert!(shown.width() >= 512 && shown.width() <= 1024, "{}", shown.width());
    let about = known(&contents);
    assert!(about["note"].as_str().unwrap().contains("smaller copy"));
    assert_eq!(std::fs::read(about["path"].as_str().unwrap()).unwrap(), png);

    let contents = read(&mut server, &format!("asset://{strange}"));
    assert_eq!(contents.len(), 1);
    assert!(known(&contents)["note"].as_str().unwrap().contains("the file is whole"));
    std::fs::write(about["path"].as_str().unwrap(), b"torn").unwrap();
    let (code, told) = refused(&mut server, "resources/read", &json!({"uri": format!("asset://{large}")}));
    assert!(code == -32603 && told.contains("other bytes"), "{code} {told}");
    assert!(server.finish().success());
}

#[test]
fn a_uri_that_leads_nowhere_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path());
    for (uri, part) in [
        ("asset://asset_AAAAAAAAAAAAAAAAAAAAAA", "asset_AAAAAAAAAAAAAAAAAAAAAA"),
        ("asset://a/../../etc/passwd", "asset_"),
        ("job://job_AAAAAAAAAAAAAAAAAAAAAA", "job_AAAAAAAAAAAAAAAAAAAAAA"),
        ("model://no-such", "allowed: a model that is here (infill-mini, tiny-sd15-base, "),
        ("model://%2Fetc", "allowed: "),
        ("model://%2E%2E%2Fimages", "allowed: "),
        ("file:///etc/passwd", "allowed: asset://{id}, job://{id}, model://{id}"),
        ("", "allowed: "),
    ] {
        let (code, told) = refused(&mut server, "resources/read", &json!({ "uri": uri }));
        assert!(code == -32002 && told.contains(part) && !told.contains('\n'), "{uri}: {code} {told}");
    }
    assert_eq!(refused(&mut server, "resources/read", &json!({"uri": 7})).0, -32602);
    assert!(server.finish().success());
}

/// The message of a prompt, and the tool and the arguments in it.
fn prompt(server: &mut Server, name: &str, given: &Value) -> (String, String, Value) {
    let result = asked(server, "prompts/get", &json!({"name": name, "arguments": given}));
    assert_eq!(result["messages"].as_array().unwrap().len(), 1);
    assert_eq!(result["messages"][0]["role"], "user");
    let message = result["messages"][0]["content"]["text"].as_str().unwrap().to_owned();
    let (before, rest) = message.split_once("```json\n").unwrap();
    let call = serde_json::from_str(rest.split("\n```").next().unwrap()).unwrap();
    let tool =
        [REFERENCE_TOOL, TOOL].into_iter().find(|tool| before.contains(&format!("tool {tool} "))).unwrap();
    (message.clone(), tool.to_owned(), call)
}

#[test]
fn prompts_are_calls_that_work() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path());
    let listed = asked(&mut server, "prompts/list", &json!({}));
    let names: Vec<_> =
        listed["prompts"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["remove", "replace", "match-reference"]);
    let (image, mask) = (crate::harness::url("images/init.png"), crate::harness::url("images/mask.png"));
    let with = |more: Value| {
        let mut given = json!({"image": image, "mask": mask});
        given.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        given
    };

    let (message, tool, call) =
        prompt(&mut server, "remove", &with(json!({"object": "the hat", "background": ""})));
    assert!(
        message.contains("Remove the hat") && message.contains("If you can see the picture"),
        "{message}"
    );
    // The first of those that were trained to inpaint.
    assert_eq!((tool.as_str(), &call["modelId"]), (TOOL, &json!("tiny-sd15-inpaint")));
    let quick = |call: &Value, side: u32| {
        let mut call = call.clone();
        call.as_object_mut().unwrap().extend(Map::from_iter([
            ("numInferenceSteps".to_owned(), json!(2)),
            ("width".to_owned(), json!(side)),
            ("height".to_owned(), json!(side)),
        ]));
        call
    };
    let result = server.call_tool(&tool, &quick(&call, 64));
    assert_eq!(files(&result).len(), 1);

    let given = with(json!({"replacement": "a \"blue\" hat", "modelId": "tiny-sd15-base"}));
    let (_, tool, call) = prompt(&mut server, "replace", &given);
    assert_eq!((&call["prompt"], &call["modelId"]), (&json!("a \"blue\" hat"), &json!("tiny-sd15-base")));
    assert_eq!(files(&server.call_tool(&tool, &quick(&call, 64))).len(), 1);

    let given = with(json!({"reference": image, "prompt": "a hat", "ipAdapterType": "character"}));
    let (_, tool, call) = prompt(&mut server, "match-reference", &given);
    assert_eq!((tool.as_str(), &call["ipAdapterImages"]), (REFERENCE_TOOL, &json!([image])));
    assert_eq!(call["ipAdapterType"], "character");
    // No adapter lies where the fixtures are: the built-in model is the one that has its own.
    assert_eq!(call["modelId"], embedded::ID);
    assert_eq!(files(&server.call_tool(&tool, &quick(&call, 512))).len(), 1);
    assert!(server.finish().success());
}

#[test]
fn what_a_prompt_can_not_take_is_told_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path());
    let mut told = |name: &str, given: Value| {
        let (code, told) = refused(&mut server, "prompts/get", &json!({"name": name, "arguments": given}));
        assert_eq!(code, -32602);
        told
    };
    assert_eq!(
        told("draw", json!({})),
        "there is no prompt \"draw\"; allowed: remove, replace, match-reference"
    );
    let all = told(
        "match-reference",
        json!({"image": "cat.png", "mask": "", "modelId": "x", "ipAdapterType": "face", "size": "7", "prompt": "a"}),
    );
    for name in [
        "image is",
        "mask is missing",
        "reference is missing",
        "modelId is",
        "ipAdapterType is",
        "size is not",
    ] {
        assert_eq!(all.lines().filter(|line| line.starts_with(name)).count(), 1, "{name}: {all}");
    }
    assert_eq!(all.lines().count(), 6, "{all}");

    let models = tempfile::tempdir().unwrap();
    let mut server = Server::start_with_models(dir.path(), models.path());
    let id = "asset_AAAAAAAAAAAAAAAAAAAAAA";
    let given = json!({"name": "remove", "arguments": {"image": id, "mask": id}});
    let (_, _, call) = prompt(&mut server, "remove", &given["arguments"]);
    assert_eq!(call["modelId"], embedded::ID, "{call}");
    // Words for a background are none that it knows.
    assert_eq!((&call["prompt"], call.get("negativePrompt")), (&json!(""), None));
    assert!(server.finish().success());

    // Where even that one can't be opened there is none to suggest.
    let mut server = Server::start_without_cache(dir.path(), models.path());
    let (code, told) = refused(&mut server, "prompts/get", &given);
    assert_eq!(code, -32602);
    assert!(told.starts_with("modelId is missing, and no model on this machine can be opened"), "{told}");
    assert!(server.finish().success());
}

#[test]
fn ids_are_completed() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let png = std::fs::read(fixture("images/init.png")).unwrap();
    let shown = store.put(&png, &AssetMeta::default()).unwrap().to_string();
    store.put(b"hidden", &AssetMeta { hidden: true, ..AssetMeta::default() }).unwrap();
    let job = store.create_job(&NewJob { kind: "inference", input: "{}", ..NewJob::default() }).unwrap();
    store.cancel_job(&job).unwrap();
    let mut server = Server::start(dir.path());
    let mut completed = |reference: Value, name: &str, value: &str| {
        let params = json!({"ref": reference, "argument": {"name": name, "value": value}});
        let completion = asked(&mut server, "completion/complete", &params)["completion"].clone();
        assert_eq!(completion["hasMore"], false);
        serde_json::from_value::<Vec<String>>(completion["values"].clone()).unwrap()
    };
    let prompt = json!({"type": "ref/prompt", "name": "match-reference"});
    for name in ["image", "mask", "reference"] {
        assert_eq!(completed(prompt.clone(), name, &shown[..9]), [shown.as_str()]);
    }
    assert_eq!(completed(prompt.clone(), "modelId", "TINY-SDXL-IN"), ["tiny-sdxl-inpaint"]);
    assert_eq!(completed(prompt.clone(), "ipAdapterType", ""), ["style", "character"]);
    assert!(completed(prompt.clone(), "prompt", "a").is_empty());
    let template = |uri: &str| json!({"type": "ref/resource", "uri": uri});
    assert_eq!(completed(template("asset://{id}"), "id", ""), [shown.as_str()]);
    assert_eq!(completed(template("job://{id}"), "id", "job_"), [job.as_str()]);
    assert!(completed(template("model://{id}"), "id", "sdxl").contains(&"tiny-sdxl-base".to_owned()));
    for (reference, name) in [
        (prompt, "size"),
        (json!({"type": "ref/prompt", "name": "draw"}), "image"),
        (template("file://{id}"), "id"),
        (template("model://{id}"), "name"),
    ] {
        let params = json!({"ref": reference, "argument": {"name": name, "value": ""}});
        let (code, told) = refused(&mut server, "completion/complete", &params);
        assert!(code == -32602 && told.contains("allowed: "), "{told}");
    }
    assert!(server.finish().success());
}

#[test]
fn the_newest_protocol_has_them_without_a_session() {
    let dir = tempfile::tempdir().unwrap();
    let server = Http::start(dir.path());
    let ask = |method: &str, params: Value| {
        let answer = server.request(NEWEST, None, method, &params).pop().unwrap();
        if answer["error"].is_null() { answer["result"].clone() } else { answer["error"].clone() }
    };
    let listed = ask("resources/list", json!({}));
    assert!(listed["resources"].as_array().unwrap().len() > 2, "{listed}");
    assert_eq!(ask("resources/templates/list", json!({}))["resourceTemplates"].as_array().unwrap().len(), 3);
    let about = ask("resources/read", json!({"uri": "model://tiny-sd15-inpaint"}));
    assert_eq!(known(about["contents"].as_array().unwrap())["type"], "sd-1_5");
    // It has no code of its own for what is not there.
    assert_eq!(ask("resources/read", json!({"uri": "model://no-such"}))["code"], -32602);
    assert_eq!(ask("prompts/list", json!({}))["prompts"].as_array().unwrap().len(), 3);
    let id = "asset_AAAAAAAAAAAAAAAAAAAAAA";
    let filled = ask("prompts/get", json!({"name": "remove", "arguments": {"image": id, "mask": id}}));
    assert!(filled["messages"][0]["content"]["text"].as_str().unwrap().contains(id), "{filled}");
    let asked = json!({"ref": {"type": "ref/prompt", "name": "remove"}, "argument": {"name": "modelId", "value": "tiny"}});
    assert_eq!(ask("completion/complete", asked)["completion"]["values"][0], "tiny-sd15-base");
}
