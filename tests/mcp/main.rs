//! `infill serve` as a host uses it, over real pipes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod client;
mod estimates;
#[path = "../shared/folder.rs"]
mod folder;
mod harness;
mod hosts;
mod http;
mod jobs;
mod large;
#[path = "../shared/lora.rs"]
mod lora;
mod malformed;
mod parameters;
mod previews;
mod references;
mod resources;
mod room;
mod schema;
mod soak;
mod tasks;

use std::path::Path;
use std::time::Instant;

use infill_store::{JobStatus, Store};
use serde_json::{Value, json};

use harness::{LET_GO, REFERENCE_TOOL, Server, TOOL, arguments, files, fixture, one_of_three, text, url};

fn reference(tool: &str) -> Value {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/mcp/src/tools");
    serde_json::from_slice(&std::fs::read(folder.join(format!("{tool}.tool.json"))).unwrap()).unwrap()
}

#[test]
fn the_tools_have_the_schemas_of_the_reference() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path());
    let answer = server.request("tools/list", &json!({}));
    let tools = answer["result"]["tools"].as_array().unwrap();
    assert_eq!(tools.len(), 4);
    for (tool, name) in tools.iter().zip([TOOL, REFERENCE_TOOL]) {
        assert_eq!(tool["name"], name);
        // As text, so that the order counts.
        assert_eq!(tool["inputSchema"].to_string(), reference(name)["inputSchema"].to_string());
        let hints = &tool["annotations"];
        assert_eq!((&hints["readOnlyHint"], &hints["destructiveHint"]), (&json!(false), &json!(false)));
        assert_eq!((&hints["idempotentHint"], &hints["openWorldHint"]), (&json!(false), &json!(false)));
        assert!(tool["title"].is_string() && tool["outputSchema"].is_object());
    }
    for method in ["resources/subscribe", "logging/setLevel", "tasks/list", "no/such"] {
        assert_eq!(server.request(method, &json!({}))["error"]["code"], -32601, "{method}");
    }
    assert!(server.finish().success());
}

#[test]
fn a_picture_comes_out_and_is_the_input_outside_the_mask() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path());
    let result = server.call(&arguments(&json!({"numSamples": 2, "seed": "18446744073709551615"})));
    let made = files(&result);
    assert_eq!(made.len(), 2, "{result}");
    let input = image::open(fixture("images/init.png")).unwrap().to_rgb8();
    let mask = image::open(fixture("images/mask.png")).unwrap().to_luma8();
    for path in &made {
        let picture = image::open(path).unwrap().to_rgb8();
        assert_eq!(picture.dimensions(), input.dimensions());
        let mut painted = 0;
        for (x, y, pixel) in picture.enumerate_pixels() {
            if mask.get_pixel(x, y).0[0] == 0 {
                assert_eq!(pixel, input.get_pixel(x, y), "at {x}, {y}");
            } else {
                painted += usize::from(pixel != input.get_pixel(x, y));
            }
        }
        assert!(painted > 0, "nothing was painted");
        let bytes = std::fs::read(path).unwrap();
        let raw = String::from_utf8_lossy(&bytes);
        assert!(raw.contains("\"modelId\":\"tiny-sd15-inpaint\""), "no recipe");
        assert!(!raw.contains("file://"), "a path of this machine is in the recipe");
    }

    let kinds: Vec<_> =
        result["content"].as_array().unwrap().iter().map(|b| b["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["text", "image", "image", "resource_link", "resource_link"]);
    let lines = text(&result);
    // Seeds go on at zero after the last one.
    assert!(lines.contains("seed 18446744073709551615,") && lines.contains("seed 0,"), "{lines}");
    let structure = &result["structuredContent"];
    assert!(!structure.to_string().contains("base64"));
    assert_eq!(structure["inference"]["type"], "inpaint");
    assert_eq!(structure["job"]["status"], "success");
    let assets = structure["job"]["metadata"]["assetIds"].as_array().unwrap();
    assert_eq!(assets.len(), 2);

    // Sample 1 alone, and the asset of the input in place of the file.
    let input = structure["inference"]["imageId"].as_str().unwrap();
    let again = server.call(&arguments(&json!({"seed": "0", "image": input})));
    let pixels = |path| image::open(path).unwrap().to_rgb8();
    assert_eq!(pixels(&files(&again)[0]), pixels(&made[1]));

    // A result is the next image, by its id and by its path.
    let next = server.call(&arguments(&json!({"image": assets[0]})));
    let by_path = server.call(&arguments(&json!({"image": made[0].to_str().unwrap()})));
    assert_eq!(files(&next), files(&by_path));
    assert!(server.finish().success());
}

#[test]
fn progress_is_told_at_every_step() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path());
    let params = json!({
        "name": TOOL, "_meta": {"progressToken": "p"}, "arguments": arguments(&json!({"strength": 1, "numSamples": 2}))
    });
    let answer = server.request("tools/call", &params);
    assert_eq!(files(&answer["result"]).len(), 2);
    let told: Vec<&Value> = server.notifications.iter().map(|n| &n["params"]).collect();
    assert!(told.iter().all(|t| t["progressToken"] == "p"));
    let values: Vec<f64> = told.iter().map(|t| t["progress"].as_f64().unwrap()).collect();
    assert!(values.windows(2).all(|pair| pair[0] < pair[1]), "{values:?}");
    assert!(told.iter().all(|t| t["total"] == 100.0), "the total is the same from the first word: {told:?}");
    for message in ["picture 1 of 2: step 1 of", "picture 1 of 2: decoding", "picture 2 of 2: step 3 of"] {
        assert!(
            told.iter().any(|t| t["message"].as_str().unwrap().starts_with(message)),
            "{message}: {told:?}"
        );
    }
    assert!(server.finish().success());
}

#[test]
fn every_fault_is_one_sentence_and_nothing_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path());
    let result = server.call(&arguments(&json!({
        "modelId": "no-such-model", "image": "file:///etc/passwd", "mask": "data:image/png;base64,AAAA", "strength": 0,
        "numInferenceSteps": 151, "width": 68, "height": true, "scheduler": "Euler", "seed": "x", "steps": 3
    })));
    assert_eq!(result["isError"], true);
    let told = text(&result);
    let names = [
        "modelId",
        "image",
        "mask",
        "strength",
        "numInferenceSteps",
        "width",
        "height",
        "scheduler",
        "seed",
        "steps",
    ];
    for name in names {
        assert_eq!(
            told.lines().filter(|line| line.split(' ').next() == Some(name)).count(),
            1,
            "{name}: {told}"
        );
    }
    assert_eq!(told.lines().count(), names.len(), "{told}");
    assert!(!told.contains("root:"));

    for (changes, expected) in [
        (json!({"mask": url("images/mask_none.png")}), "mask is "),
        (json!({"mask": url("images/raccoon-mask.png")}), "mask is 1024x768"),
        (
            json!({"modelId": "tiny-sdxl-inpaint", "height": 512}),
            "width is 64; allowed: a multiple of 8 from 512 to 2048",
        ),
        (
            json!({"modelId": "tiny-sdxl-inpaint", "width": 100, "height": 512}),
            "width is 100; allowed: a multiple of 8 from 512 to 2048 for an SDXL model",
        ),
        (
            json!({"image": "init.png"}),
            "image is \"init.png\"; allowed: an asset id or a link to one, a file:// URL, an absolute path, or",
        ),
        (json!({"strength": 0.01}), "strength is 0.01"),
        (
            json!({"concepts": [{"modelId": "x", "scale": 1}]}),
            "concepts[0].modelId is \"x\"; allowed: a LoRA that is here (none yet), or its path under",
        ),
        (json!({"image": "asset_AAAAAAAAAAAAAAAAAAAAAA"}), "image is asset_AAAAAAAAAAAAAAAAAAAAAA"),
        (json!({"modelId": fixture("").to_str().unwrap()}), "modelId is "),
    ] {
        let result = server.call(&arguments(&changes));
        let told = text(&result);
        assert!(result["isError"] == true && told.starts_with(expected), "{changes}: {told}");
        assert_eq!(told.lines().count(), 1, "{told}");
    }
    let dry = server.call(&arguments(&json!({"dryRun": "true", "negativePrompt": "((ugly))"})));
    assert_eq!(dry["structuredContent"]["creativeUnitsCost"], 0);
    assert!(!text(&dry).contains("negativePrompt"), "{dry}");
    assert!(server.finish().success());

    let store = Store::open(dir.path()).unwrap();
    assert!(store.list(true).unwrap().is_empty() && store.jobs().unwrap().is_empty());
}

#[test]
fn what_is_no_message_never_ends_the_session() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start_silent(dir.path());
    server.send_line(b"hello");
    assert_eq!(server.receive()["error"]["code"], -32700);
    server.send_line(b"\xff\xfe\x00");
    assert_eq!(server.receive()["error"]["code"], -32700);
    let deep =
        format!("{{\"jsonrpc\":\"2.0\",\"id\":1000,\"method\":\"ping\",\"params\":{}", "[".repeat(1_000_000));
    server.send_line(deep.as_bytes());
    assert_eq!(server.receive()["id"], 1000);
    server.send(&json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 5}}));
    server.send(&json!([1, 2, 3]));
    assert!(server.receive()["error"].is_object());

    let client = json!({"name": "test", "version": "1"});
    let params = json!({"protocolVersion": "2024-11-05", "capabilities": {}, "clientInfo": client});
    assert_eq!(server.request("initialize", &params)["result"]["protocolVersion"], "2024-11-05");
    for params in [json!({"name": TOOL, "arguments": [1]}), json!({"name": 7}), json!({"name": "nothing"})] {
        assert_eq!(server.request("tools/call", &params)["error"]["code"], -32602, "{params}");
    }

    // A data URL of 60 MiB is read and refused as a picture; one that does not fit a line is answered too.
    let long =
        server.call(&arguments(&json!({"image": format!("data:image/png;base64,{}", "A".repeat(60 << 20))})));
    assert!(text(&long).starts_with("image "), "{}", text(&long));
    let data = format!("data:image/png;base64,{}", "A".repeat(65 << 20));
    let answer =
        server.request("tools/call", &json!({"name": TOOL, "arguments": arguments(&json!({"image": data}))}));
    assert!(answer["error"]["message"].as_str().unwrap().contains("67108864"), "{answer}");
    assert_eq!(server.request("ping", &json!({}))["result"], json!({}));
    assert!(server.finish().success());
}

/// A call that is still at work when its test has ended.
fn endless() -> Value {
    json!({
        "name": TOOL, "_meta": {"progressToken": 1},
        "arguments": arguments(&json!({"numInferenceSteps": 150, "numSamples": 128, "strength": 1}))
    })
}

#[test]
fn a_cancelled_run_stops_and_a_crash_loses_no_job() {
    let dir = tempfile::tempdir().unwrap();
    let endless = endless();
    let mut server = Server::start(dir.path());
    let cancelled = server.begin("tools/call", &endless);
    while !server.receive()["params"]["message"].as_str().is_some_and(|message| message.contains("step 2 ")) {
    }
    server.send(
        &json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": cancelled}}),
    );
    // The worker is free for the next call.
    assert_eq!(files(&server.call(&arguments(&json!({})))).len(), 1);

    server.begin("tools/call", &endless);
    while !server.receive()["params"]["message"].as_str().is_some_and(|message| message.contains("step 2 ")) {
    }
    server.kill();

    assert!(Server::start(dir.path()).finish().success());
    let jobs = Store::open(dir.path()).unwrap().jobs().unwrap();
    let statuses: Vec<_> = jobs.iter().map(|job| job.status).collect();
    assert_eq!(statuses, [JobStatus::Canceled, JobStatus::Success, JobStatus::Queued]);
}

#[test]
fn a_client_that_goes_away_stops_its_run_at_once() {
    let (_dir, ()) = one_of_three(|dir| {
        let mut server = Server::start(dir);
        server.begin("tools/call", &endless());
        while !server.receive()["params"]["message"].as_str().is_some_and(|told| told.contains("step 2 ")) {}
        let gone = Instant::now();
        assert!(server.finish().success());
        let took = gone.elapsed();
        if took >= LET_GO {
            return Err(took);
        }
        let statuses: Vec<_> =
            Store::open(dir).unwrap().jobs().unwrap().iter().map(|job| job.status).collect();
        assert_eq!(statuses, [JobStatus::Canceled]);
        Ok(())
    });
}

#[test]
fn the_models_that_are_here_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path());
    let result = server.call(&arguments(&json!({"modelId": "tiny"})));
    let told = text(&result);
    assert!(
        told.starts_with("modelId is \"tiny\"; allowed: a model that is here (infill-mini, tiny-sd15-base, "),
        "{told}"
    );
    assert!(server.instructions.contains("modelId is a model that is here (infill-mini, tiny-sd15-base, "));
    assert!(server.finish().success());
}

#[cfg(unix)]
#[test]
fn a_link_out_of_the_allowed_folder_is_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let allowed = dir.path().join("blobs");
    std::fs::create_dir_all(&allowed).unwrap();
    let secret = dir.path().join("secret.png");
    std::fs::copy(fixture("images/init.png"), &secret).unwrap();
    std::os::unix::fs::symlink(&secret, allowed.join("link.png")).unwrap();
    let mut server = Server::start(dir.path());
    for path in [secret.clone(), allowed.join("link.png"), allowed.join("../secret.png")] {
        let result = server.call(&arguments(&json!({"image": format!("file://{}", path.display())})));
        assert!(result["isError"] == true && text(&result).starts_with("image is "), "{result}");
    }
    assert!(server.finish().success());
}
