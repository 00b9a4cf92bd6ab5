//! Dry runs: what a call would cost, told without running it.

use serde_json::{Value, json};

use crate::harness::{Server, arguments, files, text};

fn dry(server: &mut Server, changes: Value) -> Value {
    let mut changes = changes;
    changes["dryRun"] = "true".into();
    let result = server.call(&arguments(&changes));
    assert_eq!(result["isError"], false, "{result}");
    assert_eq!(result["structuredContent"]["creativeUnitsCost"], 0);
    result
}

#[test]
fn time_is_unknown_until_pictures_of_the_model_tell_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path());
    let asked = json!({"numSamples": 3, "numInferenceSteps": 4, "strength": 1});
    let before = dry(&mut server, asked.clone());
    let told = text(&before);
    assert!(
        told.contains("3 pictures of 64x64 pixels, 4 steps each, with tiny-sd15-inpaint (SD 1.5"),
        "{told}"
    );
    assert!(told.contains("Time: unknown"), "{told}");
    let estimate = &before["structuredContent"]["estimate"];
    assert_eq!((&estimate["seconds"], &estimate["pictures"]), (&Value::Null, &json!(3)));
    assert_eq!((&estimate["width"], &estimate["steps"]), (&json!(64), &json!(4)));
    assert_eq!((&estimate["device"], &estimate["dtype"]), (&json!("cpu"), &json!("f32")));

    server.call(&arguments(&asked));
    let after = dry(&mut server, asked);
    let told = text(&after);
    assert!(told.contains("by 3 earlier pictures on this machine (cpu, f32)"), "{told}");
    let alike = after["structuredContent"]["estimate"]["seconds"].as_f64().unwrap();
    assert!(alike > 0.0);
    let larger =
        dry(&mut server, json!({"numSamples": 3, "numInferenceSteps": 9, "strength": 1, "width": 128}));
    assert!(text(&larger).contains("earlier pictures of other sizes or steps"), "{larger}");
    // Twice the pixels and (9 + 1) instead of (4 + 1) steps' worth of work.
    let ratio = larger["structuredContent"]["estimate"]["seconds"].as_f64().unwrap() / alike;
    assert!((ratio - 4.0).abs() < 1e-6, "{ratio}");
    // Another model says nothing of this one.
    let other = dry(&mut server, json!({"modelId": "tiny-sdxl-inpaint", "width": 512, "height": 512}));
    assert!(text(&other).contains("Time: unknown"), "{other}");
    assert!(server.finish().success());

    // Nor do those in one number format say anything of those in another, which takes other memory too.
    let peak = |told: &Value| told["structuredContent"]["estimate"]["peakMemoryBytes"].as_u64().unwrap();
    let mut server = Server::start_with(dir.path(), &["--dtype", "f16"]);
    let half = dry(&mut server, json!({"numSamples": 3, "numInferenceSteps": 4, "strength": 1}));
    assert!(text(&half).contains("no picture on this machine (cpu, f16) yet"), "{half}");
    assert!(peak(&half) < peak(&after), "{half}");
    assert!(server.finish().success());
}

/// The most memory that a process had so far, in bytes.
#[cfg(target_os = "linux")]
fn peak(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// What a run of one step at 512 x 512 is planned to take and takes, in bytes, and its picture's file.
#[cfg(target_os = "linux")]
fn planned_and_taken(server: &mut Server, model: &str) -> (u64, u64, Vec<u8>) {
    let asked = json!({"modelId": model, "width": 512, "height": 512, "numInferenceSteps": 1, "strength": 1});
    let planned = dry(server, asked.clone());
    let planned = planned["structuredContent"]["estimate"]["peakMemoryBytes"].as_u64().unwrap();
    let result = server.call(&arguments(&asked));
    assert_eq!(result["isError"], false, "{result}");
    let taken = peak(server.id());
    assert!(taken <= planned, "{model}: {taken} bytes were taken, {planned} were planned");
    assert!(planned < 4 * taken, "{model}: {taken} bytes were taken, and as many as {planned} were planned");
    (planned, taken, std::fs::read(&files(&result)[0]).unwrap())
}

#[cfg(target_os = "linux")]
#[test]
fn a_run_stays_within_the_planned_memory() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path());
    let whole = planned_and_taken(&mut server, "tiny-sd15-inpaint");
    planned_and_taken(&mut server, "tiny-sdxl-inpaint");
    assert!(server.finish().success());

    // And takes less in tiles.
    let mut server = Server::start_with(dir.path(), &["--vae-tile-size", "128"]);
    let tiles = planned_and_taken(&mut server, "tiny-sd15-inpaint");
    assert!(tiles.0 < whole.0 && tiles.1 < whole.1, "{} and {} bytes in tiles", tiles.0, tiles.1);
    let recipes =
        [&whole.2, &tiles.2].map(|png| String::from_utf8_lossy(png).contains("\"vaeTileSize\":128"));
    assert_eq!(recipes, [false, true]);
    assert!(server.finish().success());
}
