//! `infill assets`: pictures into the store, out of it and away.

use std::fs;

use infill_store::{AssetId, JobStatus, NewJob, Store};
use serde_json::Value;

use crate::harness::{Place, Run, fixture};

/// `infill assets` over the store `kept` of this place.
fn assets(place: &Place, args: &[&str]) -> Run {
    place.infill(&[&["assets"][..], args, &["--store", "kept"]].concat())
}

/// Stores a picture; its id.
fn added(place: &Place, args: &[&str]) -> String {
    let run = assets(place, &[&["add"][..], args].concat()).succeeded();
    run.stdout.trim_end().to_owned()
}

fn json(run: Run) -> Value {
    serde_json::from_str(&run.succeeded().stdout).unwrap()
}

#[test]
fn a_picture_goes_in_and_comes_out_as_it_was() {
    let place = Place::new();
    let (init, rocket) = (fixture("images/init.png"), fixture("images/rocket.jpg"));
    let ids = added(&place, &[&init, &rocket]);
    let ids: Vec<&str> = ids.lines().collect();
    let (png, jpeg) = (fs::read(&init).unwrap(), fs::read(&rocket).unwrap());
    assert_eq!(ids, [AssetId::of(&png).as_str(), AssetId::of(&jpeg).as_str()]);

    let shown = json(assets(&place, &["show", ids[0], "--json"]));
    let size = image::load_from_memory(&png).unwrap();
    assert_eq!((&shown["width"], &shown["height"]), (&size.width().into(), &size.height().into()));
    assert_eq!((&shown["media_type"], &shown["hidden"]), (&"image/png".into(), &false.into()));
    assert_eq!(fs::read(shown["path"].as_str().unwrap()).unwrap(), png);

    let out = assets(&place, &["export", ids[1]]).succeeded().stdout;
    assert_eq!(out.trim_end(), format!("{}.jpg", ids[1]));
    assert_eq!(place.read(out.trim_end()), jpeg);
    assets(&place, &["export", ids[0], "-o", "mine.png"]).succeeded();
    assert_eq!(place.read("mine.png"), png);
}

#[test]
fn an_export_replaces_only_what_it_is_told_to() {
    let place = Place::new();
    let id = added(&place, &[&fixture("images/init.png")]);
    place.write("old.png", "mine");
    let refused = |out: &str, parts: &[&str]| assets(&place, &["export", &id, "-o", out]).refused(2, parts);
    refused("old.png", &["--out is old.png (it is there already)", "--force"]);
    refused("old.jpg", &["the picture is image/png", "ends in .png"]);
    refused("none/new.png", &["its folder does not exist"]);
    fs::create_dir(place.path("folder.png")).unwrap();
    refused("folder.png", &["not a file"]);
    assert_eq!(place.read("old.png"), b"mine");
    assets(&place, &["export", &id, "-o", "old.png", "--force"]).succeeded();
    assert_eq!(place.read("old.png"), fs::read(fixture("images/init.png")).unwrap());
    assert_eq!(place.names(), ["folder.png", "kept", "old.png"]);
}

#[test]
fn pictures_are_listed_with_what_they_come_from() {
    let place = Place::new();
    let parent = added(&place, &[&fixture("images/init.png")]);
    let child = added(&place, &[&fixture("images/mask.png"), "--parent", &parent, "--hide"]);
    let shown = assets(&place, &["list"]).succeeded().stdout;
    assert!(shown.contains(&parent) && !shown.contains(&child), "{shown}");
    let all = assets(&place, &["list", "--all"]).succeeded().stdout;
    let line = all.lines().find(|line| line.starts_with(&child)).unwrap();
    assert!(line.ends_with(&format!("{parent}  hidden")), "{all}");
    let all = json(assets(&place, &["list", "--all", "--json"]));
    assert_eq!((&all[0]["id"], &all[1]["parent"]), (&parent.as_str().into(), &parent.as_str().into()));
    // What is there already stays as it is, and that is said.
    let again = assets(&place, &["add", &fixture("images/init.png"), "--hide"]).succeeded();
    assert!(again.stderr.contains("was in the store already"), "{}", again.stderr);
    assert!(assets(&place, &["list"]).succeeded().stdout.contains(&parent));
}

#[test]
fn what_is_removed_is_gone() {
    let place = Place::new();
    let ids = added(&place, &[&fixture("images/init.png"), &fixture("images/mask.png")]);
    let ids: Vec<&str> = ids.lines().collect();
    let path = json(assets(&place, &["show", ids[0], "--json"]))["path"].as_str().unwrap().to_owned();
    // One that is unknown keeps the others from going.
    let unknown = AssetId::of(b"never put");
    assets(&place, &["rm", ids[0], unknown.as_str()]).refused(2, &["there is no asset", unknown.as_str()]);
    assets(&place, &["show", ids[0]]).succeeded();
    assets(&place, &["rm", ids[0], ids[0]]).succeeded();
    assets(&place, &["show", ids[0]]).refused(2, &["there is no asset", ids[0]]);
    assert!(!std::path::Path::new(&path).exists());
    assets(&place, &["show", ids[1]]).succeeded();
}

#[test]
fn what_is_no_picture_and_no_id_is_refused() {
    let place = Place::new();
    let init = fixture("images/init.png");
    place.write("text.png", "no picture");
    assets(&place, &["add", &init, "text.png"]).refused(2, &["the picture text.png can't be read"]);
    assets(&place, &["add", "none.png"]).refused(2, &["none.png"]);
    assets(&place, &["add", &init, "--parent", "mine"]).refused(2, &["\"mine\" is no asset id"]);
    let unknown = AssetId::of(b"never put");
    assets(&place, &["add", &init, "--parent", unknown.as_str()]).refused(2, &["there is no asset"]);
    // None of them left a picture behind.
    let list = assets(&place, &["list"]).succeeded();
    assert_eq!(
        (list.stdout.as_str(), list.stderr.as_str()),
        ("", "note: the store has no pictures to list\n")
    );
    assets(&place, &["show", "asset_1"]).refused(2, &["\"asset_1\" is no asset id; allowed: asset_"]);
    for command in [&["assets", "list"][..], &["jobs", "list"]] {
        place
            .infill(&[command, &["--store", "nowhere"]].concat())
            .refused(2, &["there is no store in nowhere"]);
    }
    assert_eq!(place.names(), ["kept", "text.png"]);
}

#[test]
fn jobs_are_listed_and_shown() {
    let place = Place::new();
    let store = Store::open(&place.path("kept")).unwrap();
    let job = store
        .create_job(&NewJob {
            kind: "inference",
            input: r#"{"inference":{"prompt":"a red\ndoor","seed":"7"}}"#,
            ..NewJob::default()
        })
        .unwrap();
    let jobs = |args: &[&str]| place.infill(&[&["jobs"][..], args, &["--store", "kept"]].concat());
    let line = |text: &str| text.lines().find(|line| line.starts_with(job.as_str())).unwrap().to_owned();
    let listed = line(&jobs(&["list"]).succeeded().stdout);
    assert!(listed.contains("queued") && listed.ends_with("a red door"), "{listed}");
    store.begin_job(&job).unwrap();
    store.advance_job(&job, JobStatus::InProgress, 0.5).unwrap();
    store.fail_job(&job, "the UNet has no tensor conv_in.weight").unwrap();
    let shown = jobs(&["show", job.as_str()]).succeeded().stdout;
    for part in ["failure", "no tensor conv_in.weight", "in-progress", "\"seed\": \"7\""] {
        assert!(shown.contains(part), "{part} is not in\n{shown}");
    }
    let shown = json(jobs(&["show", job.as_str(), "--json"]));
    assert_eq!((&shown["status"], &shown["input"]["inference"]["seed"]), (&"failure".into(), &"7".into()));
    assert_eq!(shown["history"].as_array().unwrap().len(), 4);
    assert_eq!(json(jobs(&["list", "--json"])).as_array().unwrap().len(), 1);
    jobs(&["show", "job_1"]).refused(2, &["\"job_1\" is no job id"]);
}

#[test]
fn jobs_are_cancelled() {
    let place = Place::new();
    let store = Store::open(&place.path("kept")).unwrap();
    let job = || store.create_job(&NewJob { kind: "inference", input: "{}", ..NewJob::default() }).unwrap();
    let (waiting, running, over) = (job(), job(), job());
    store.begin_job(&running).unwrap();
    store.finish_job(&over).unwrap();
    let cancel = |ids: &[&str]| place.infill(&[&["jobs", "cancel", "--store", "kept"][..], ids].concat());
    // One that is over keeps the others from being stopped.
    cancel(&[waiting.as_str(), over.as_str()]).refused(
        2,
        &[over.as_str(), "is over, with the status success; allowed: one that waits or is at work"],
    );
    assert_eq!(store.job(&waiting).unwrap().status, JobStatus::Queued);
    let said = cancel(&[waiting.as_str(), running.as_str()]).succeeded().stdout;
    assert_eq!(said, format!("{waiting}  canceled\n{running}  stops at its next step\n"));
    assert_eq!(store.job(&waiting).unwrap().status, JobStatus::Canceled);
    assert!(store.job(&running).unwrap().cancel_requested);
    // Its process is gone: nobody is left to stop.
    drop(store);
    cancel(&[running.as_str()])
        .refused(2, &[running.as_str(), "is over, with the status canceled; allowed: "]);
    let shown = json(place.infill(&["jobs", "show", "--store", "kept", "--json", running.as_str()]));
    assert_eq!(shown["status"], "canceled");
}

#[test]
fn the_store_is_pruned() {
    let place = Place::new();
    let (init, mask) = (fixture("images/init.png"), fixture("images/mask.png"));
    let first = added(&place, &[&init]);
    let second = added(&place, &[&mask]);
    assets(&place, &["prune"]).refused(2, &["no limit is set", "--max-size", "--max-age"]);
    assets(&place, &["prune", "--max-size", "20 apples"])
        .refused(2, &["--max-size is \"20 apples\"", "20GB"]);
    let kept = |args: &[&str]| json(assets(&place, &[&["prune", "--json"][..], args].concat()));
    let nothing = kept(&["--max-size", "1GB", "--max-age", "30d"]);
    assert_eq!((&nothing["removed"], &nothing["kept"]), (&serde_json::json!([]), &2.into()));
    let size = fs::metadata(&mask).unwrap().len().to_string();
    let would = kept(&["--max-size", &size, "--dry-run"]);
    assert_eq!(would["removed"], serde_json::json!([first]));
    assets(&place, &["show", &first]).succeeded();
    let run = assets(&place, &["prune", "--max-size", &size]).succeeded();
    assert_eq!(run.stdout, format!("{first}\n"));
    assets(&place, &["show", &first]).refused(2, &["there is no asset"]);
    assets(&place, &["show", &second]).succeeded();
    // What a job that is not over needs stays.
    let store = Store::open(&place.path("kept")).unwrap();
    let needs: [AssetId; 1] = [second.parse().unwrap()];
    store.create_job(&NewJob { kind: "inference", input: "{}", needs: &needs, ..NewJob::default() }).unwrap();
    let aged = kept(&["--max-age", "0s"]);
    assert_eq!((&aged["kept"], &aged["jobs"]), (&1.into(), &0.into()));
    assets(&place, &["rm", &second]).refused(2, &[&second, "is needed by job_"]);
    // One that is over goes with its last picture.
    let jobs = store.job_ids().unwrap();
    store.cancel_job(&jobs[0]).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(5));
    assert_eq!(kept(&["--max-age", "0s", "--dry-run"])["jobs"], 1);
    let run = assets(&place, &["prune", "--max-age", "0s"]).succeeded();
    assert!(run.stderr.contains("1 picture and 1 job removed, 0 kept"), "{}", run.stderr);
    assert!(store.job_ids().unwrap().is_empty());
}

/// A picture that can't be added makes no store: a listing would then say that there is one.
#[test]
fn a_store_is_made_for_a_picture_alone() {
    let place = Place::new();
    assets(&place, &["add", "none.png"]).refused(2, &["none.png"]);
    assets(&place, &["list"]).refused(2, &["there is no store"]);
    assets(&place, &["prune", "--max-size", "-5"]).refused(2, &["--max-size is \"-5\"; allowed: "]);
}
