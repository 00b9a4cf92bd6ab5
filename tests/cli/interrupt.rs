//! Ctrl-C: exit code 130, and nothing half written.
#![cfg(unix)]

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use infill_models::embedded;

use crate::harness::{Place, fixture, model};

fn interrupt(child: &Child) {
    let status = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(status.success());
}

/// Interrupts a run with far more work than the test waits for, once its log has `mark`. Whatever the machine's speed, it
/// must begin no other stage after it has heard of it, but for one that was about to begin just then.
#[track_caller]
fn stops_at_once(place: &Place, mut command: Command, mark: &str) {
    command.env("INFILL_LOG", "infill=info").stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains(mark) {
        line.clear();
        assert_ne!(log.read_line(&mut line).unwrap(), 0, "it ended by itself");
    }
    interrupt(&child);
    let mut rest = String::new();
    log.read_to_string(&mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{rest}");
    let (_, after) = rest.split_once("asked to stop\n").unwrap_or_else(|| panic!("it was not heard: {rest}"));
    assert!(after.ends_with("error: cancelled\n"), "{after}");
    let begun = after.lines().filter(|line| line.contains("infill::progress")).count();
    assert!(begun <= 1, "{after}");
    assert!(place.names().is_empty(), "{:?}", place.names());
}

#[test]
fn no_stage_is_begun_after_it() {
    let place = Place::new();
    let mut painting = place.inpaint_command();
    painting.args(["--steps", "150", "--samples", "128", "--out", "a.png"]);
    stops_at_once(&place, painting, "step 2/");
    if !embedded::is_there() {
        return;
    }
    let mut built_in = place.command();
    built_in.args(["inpaint", &fixture("images/init.png"), "--mask", &fixture("images/mask.png")]);
    built_in.args(["--prompt", "a red star", "--device", "cpu", "--width", "64", "--height", "64"]);
    built_in.args(["--steps", "150", "--samples", "128", "--out", "a.png"]);
    stops_at_once(&place, built_in, "step 2/");
    for mark in ["loading", "step 1/"] {
        let mut demo = place.command();
        demo.args(["demo", "--steps", "150", "--device", "cpu", "--out", "a.png"]);
        stops_at_once(&place, demo, mark);
    }
}

#[test]
fn between_steps_it_stops_and_leaves_nothing() {
    let place = Place::new();
    let mut command = place.inpaint_command();
    // Far more work than the test waits for. The log tells when it has begun.
    command.args(["--steps", "150", "--samples", "128", "--json", "--out", "a.png"]);
    command.env("INFILL_LOG", "infill=info").stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("step 2/") {
        line.clear();
        assert_ne!(log.read_line(&mut line).unwrap(), 0, "it ended by itself");
    }
    let asked = Instant::now();
    interrupt(&child);
    let mut rest = String::new();
    log.read_to_string(&mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{rest}");
    assert!(asked.elapsed() < Duration::from_secs(20), "{:?}", asked.elapsed());
    assert!(rest.ends_with("error: cancelled\n"), "{rest}");
    assert!(place.names().is_empty(), "{:?}", place.names());
}

#[test]
fn asked_twice_it_ends_in_the_midst_of_a_step() {
    let place = Place::new();
    let mut command = place.command();
    command.args(["inpaint", &fixture("images/raccoon.png"), "--mask", &fixture("images/raccoon-mask.png")]);
    command.args([
        "--prompt",
        "x",
        "--model",
        &model("tiny-sdxl-inpaint"),
        "--device",
        "cpu",
        "--out",
        "a.png",
    ]);
    // So large that a single block takes about as long as the test waits, or longer.
    command.args(["--width", "2048", "--height", "2048"]);
    command.env("INFILL_LOG", "infill=info").stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("encoding") {
        line.clear();
        assert_ne!(log.read_line(&mut line).unwrap(), 0, "it ended by itself");
    }
    interrupt(&child);
    std::thread::sleep(Duration::from_millis(100));
    let asked = Instant::now();
    interrupt(&child);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    assert!(place.names().is_empty(), "{:?}", place.names());
}

#[test]
fn what_was_finished_before_stays_whole() {
    let place = Place::new();
    let mut command = place.inpaint_command();
    // So much work after the first picture that the interrupt comes before the last, however late it is sent.
    command.args(["--steps", "20", "--samples", "128", "--out", "a.png"]);
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let mut finished = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    finished.read_line(&mut line).unwrap();
    assert_eq!(line, "a-0.png\n");
    interrupt(&child);
    finished.read_to_string(&mut String::new()).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let names = place.names();
    assert!(!names.is_empty() && names.len() < 128, "{names:?}");
    for name in names {
        assert_eq!(place.picture(&name).width(), 150, "{name}");
    }
}
