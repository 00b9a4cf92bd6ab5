//! Jobs whose life depends on no client and on no process.

use std::fs;
use std::time::{Duration, Instant};

use infill_store::{AssetId, Cancel, Error, Job, JobId, JobStatus, NewJob, Store};
use serde_json::{Value, json};

use crate::folder::copy;
use crate::harness::{
    LET_GO, PATIENCE, REFERENCE_TOOL, Server, TOOL, arguments, files, fixture, one_of_three, pixels, text,
    url,
};

/// A run that is still at work when its test has ended.
fn endless() -> Value {
    arguments(&json!({"numInferenceSteps": 150, "numSamples": 128, "strength": 1}))
}

fn job_id(result: &Value) -> JobId {
    result["structuredContent"]["job"]["jobId"].as_str().unwrap().parse().unwrap()
}

fn look(server: &mut Server, id: &JobId) -> Value {
    server.call_tool("get-job-id", &json!({ "jobId": id.as_str() }))
}

/// Looks at a job until it is over.
fn outcome(server: &mut Server, id: &JobId) -> Value {
    let began = Instant::now();
    loop {
        let result = look(server, id);
        let status = result["structuredContent"]["job"]["status"].as_str().unwrap().to_owned();
        if ["success", "failure", "canceled"].contains(&status.as_str()) {
            return result;
        }
        assert!(began.elapsed() < PATIENCE, "{result}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Reads a job's row until it is as wanted.
#[track_caller]
fn until(store: &Store, id: &JobId, wanted: impl Fn(&Job) -> bool) -> Job {
    let began = Instant::now();
    loop {
        let job = store.job(id).unwrap();
        if wanted(&job) {
            return job;
        }
        assert!(began.elapsed() < PATIENCE, "{job:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn assets(result: &Value) -> Vec<AssetId> {
    let ids = result["structuredContent"]["job"]["metadata"]["assetIds"].as_array().unwrap();
    ids.iter().map(|id| id.as_str().unwrap().parse().unwrap()).collect()
}

#[test]
fn a_call_that_does_not_wait_is_answered_with_its_job() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start_waiting(dir.path(), 0);
    let call = arguments(&json!({"numSamples": 2, "imageId": "asset_AAAAAAAAAAAAAAAAAAAAAA"}));
    let begun = server.call(&call);
    assert_eq!(begun["isError"], false);
    let id = job_id(&begun);
    let told = text(&begun);
    assert!(told.contains(&format!("call get-job-id with jobId {id}")), "{told}");
    assert!(told.contains("Note: imageId has no effect"), "{told}");
    assert_eq!(begun["structuredContent"]["inference"]["seed"], "7");

    let done = outcome(&mut server, &id);
    assert_eq!(files(&done).len(), 2);
    let kinds: Vec<_> =
        done["content"].as_array().unwrap().iter().map(|block| block["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["text", "image", "image", "resource_link", "resource_link"]);
    assert!(text(&done).contains("Picture 2 of 2: asset_") && text(&done).contains("seed 8,"), "{done}");

    // A call that says itself how long it waits gets the same pictures and the same words at once.
    let params = json!({"name": TOOL, "arguments": call, "_meta": {"infill/waitSeconds": 170}});
    let waited = server.request("tools/call", &params)["result"].clone();
    assert_eq!(assets(&waited), assets(&done));
    assert_eq!(waited["content"].as_array().unwrap().len(), done["content"].as_array().unwrap().len());
    let params = json!({"name": TOOL, "arguments": call, "_meta": {"infill/waitSeconds": "long"}});
    assert_eq!(server.request("tools/call", &params)["error"]["code"], -32602);
    assert!(server.finish().success());
}

#[test]
fn an_interrupted_job_is_done_by_the_next_server_to_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let references = json!([url("images/coffee.png")]);
    let room = dir.path().join("models");
    copy(&fixture("models/tiny-sd15-inpaint"), &room.join("tiny-sd15-inpaint"));
    copy(&fixture("models/ip_adapter"), &room.join("ip-adapters"));
    // So many pictures that the second kill comes before the last, however late this test is to see the first.
    let call = arguments(&json!({
        "numSamples": 16, "numInferenceSteps": 40, "strength": 1, "ipAdapterImages": references, "seed": "18446744073709551614"
    }));
    let unbroken = {
        let mut server = Server::start_with_models(&dir.path().join("unbroken"), &room);
        let id = job_id(&server.call_tool(REFERENCE_TOOL, &call));
        let done = outcome(&mut server, &id);
        assert!(server.finish().success());
        assets(&done)
    };

    let path = dir.path().join("store");
    let store = Store::open(&path).unwrap();
    let params = json!({"name": REFERENCE_TOOL, "arguments": call, "_meta": {"infill/waitSeconds": 0}});
    let mut server = Server::start_with_models(&path, &room);
    let id = job_id(&server.request("tools/call", &params)["result"]);
    let behind = job_id(&server.request("tools/call", &params)["result"]);
    // In the first picture, then in a later one.
    until(&store, &id, |job| job.status == JobStatus::InProgress);
    server.kill();
    let server = Server::start_with_models(&path, &room);
    let job = until(&store, &id, |job| !job.assets.is_empty());
    server.kill();
    assert!(!job.status.is_final(), "the run is too short for this test");

    let mut server = Server::start_with_models(&path, &room);
    let done = outcome(&mut server, &id);
    assert_eq!(assets(&done), unbroken);
    // What was finished was not painted again.
    assert_eq!(store.job(&id).unwrap().seconds[0], job.seconds[0]);
    assert!(text(&done).contains("Picture 16 of 16: "), "{done}");
    assert_eq!(assets(&outcome(&mut server, &behind)), unbroken);
    for asset in store.list(true).unwrap() {
        store.bytes(&asset.id).unwrap();
    }
    assert!(server.finish().success());
}

/// A job keeps the ways of the server that took it: its bytes must not depend on who finishes it.
#[test]
fn a_job_is_done_in_the_ways_it_was_given_with() {
    let dir = tempfile::tempdir().unwrap();
    let call = arguments(&json!({
        "width": 160, "height": 128, "numInferenceSteps": 2, "seed": "3", "scheduler": "EulerDiscreteScheduler"
    }));
    let ways = [
        "--wait-seconds",
        "0",
        "--vae-tile-size",
        "128",
        "--match-colours",
        "--timestep-spacing",
        "trailing",
    ];
    let mut server = Server::start_with(dir.path(), &ways);
    let at_work = job_id(&server.call(&endless()));
    let queued = job_id(&server.call(&call));
    server.kill();
    let store = Store::open(dir.path()).unwrap();
    store.request_cancel(&at_work).unwrap();

    let mut server = Server::start(dir.path());
    let done = outcome(&mut server, &queued);
    let whole = server.call(&call);
    assert!(server.finish().success());
    let said = |result: &Value| {
        let png = std::fs::read(&files(result)[0]).unwrap();
        ["\"vaeTileSize\":128", "\"matchColours\":true", "\"timestepSpacing\":\"trailing\""]
            .map(|way| String::from_utf8_lossy(&png).contains(way))
    };
    assert_eq!((said(&done), said(&whole)), ([true; 3], [false; 3]));

    let other = tempfile::tempdir().unwrap();
    let mut server = Server::start_with(other.path(), &ways[2..]);
    assert_eq!(assets(&server.call(&call)), assets(&done));
    assert!(server.finish().success());
}

#[test]
fn a_session_that_ends_leaves_the_jobs_that_were_answered() {
    let (dir, (store, at_work, queued)) = one_of_three(|dir| {
        let mut server = Server::start_waiting(dir, 0);
        let at_work = job_id(&server.call(&endless()));
        let queued = job_id(&server.call(&arguments(&json!({}))));
        let store = Store::open(dir).unwrap();
        until(&store, &at_work, |job| job.status == JobStatus::InProgress);
        let gone = Instant::now();
        assert!(server.finish().success());
        let took = gone.elapsed();
        if took >= LET_GO {
            return Err(took);
        }
        // The server itself gave the first one back: this store was open before.
        let statuses = [&at_work, &queued].map(|id| store.job(id).unwrap().status);
        assert_eq!(statuses, [JobStatus::Queued; 2]);
        Ok((store, at_work, queued))
    });
    assert_eq!(store.request_cancel(&at_work).unwrap(), Cancel::Done);
    let mut server = Server::start(dir.path());
    assert_eq!(files(&outcome(&mut server, &queued)).len(), 1);
    assert!(server.finish().success());
}

#[test]
fn a_full_queue_refuses_and_keeps_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start_waiting(dir.path(), 0);
    let first = job_id(&server.call(&endless()));
    let store = Store::open(dir.path()).unwrap();
    until(&store, &first, |job| job.status != JobStatus::Queued);
    for before in 0..64 {
        let told = text(&server.call(&arguments(&json!({}))));
        let expected = if before == 0 { "1 job before it".into() } else { format!("{} jobs", before + 1) };
        assert!(told.contains(&expected), "{told}");
    }
    let refused = server.call(&arguments(&json!({})));
    assert_eq!(refused["isError"], true);
    assert!(text(&refused).starts_with("64 jobs are waiting"), "{refused}");
    assert_eq!(store.jobs().unwrap().len(), 65);
    server.kill();
}

#[test]
fn a_job_is_cancelled_wherever_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start_waiting(dir.path(), 170);
    let store = Store::open(dir.path()).unwrap();
    let jobs = || -> Vec<JobId> { store.jobs().unwrap().into_iter().map(|job| job.id).collect() };
    let begin = |server: &mut Server| {
        let before = jobs().len();
        let request = server.begin("tools/call", &json!({"name": TOOL, "arguments": endless()}));
        let began = Instant::now();
        while jobs().len() == before {
            assert!(began.elapsed() < PATIENCE);
            std::thread::sleep(Duration::from_millis(5));
        }
        (request, jobs().pop().unwrap())
    };
    let (at_work, first) = begin(&mut server);
    until(&store, &first, |job| job.status == JobStatus::InProgress);
    let (waits, second) = begin(&mut server);
    let (_, third) = begin(&mut server);
    let (_, fourth) = begin(&mut server);

    // By its own client, while it waits.
    let params = json!({"requestId": waits});
    server.send(&json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params}));
    until(&store, &second, |job| job.status == JobStatus::Canceled);
    // From another process, while it waits.
    assert_eq!(store.request_cancel(&third).unwrap(), Cancel::Done);
    assert_eq!(store.job(&first).unwrap().status, JobStatus::InProgress);
    // From another process, at work.
    assert_eq!(store.request_cancel(&first).unwrap(), Cancel::Asked);
    until(&store, &first, |job| job.status == JobStatus::Canceled);
    assert!(matches!(store.request_cancel(&first), Err(Error::Finished { .. })));
    let answer = server.answer_among(at_work);
    assert_eq!(answer["result"]["isError"], true);
    assert!(text(&answer["result"]).contains("was cancelled"), "{answer}");

    // The third call is answered too, in its own time.
    let params = json!({"name": "get-job-id", "arguments": {"jobId": second.as_str()}});
    let looked = server.begin("tools/call", &params);
    let answer = server.answer_among(looked);
    assert_eq!(text(&answer["result"]), format!("{second} was cancelled"));
    until(&store, &fourth, |job| job.status == JobStatus::InProgress);
    assert!(server.finish().success());
    assert_eq!(store.job(&fourth).unwrap().status, JobStatus::Canceled);
}

#[test]
fn a_job_whose_model_is_gone_or_another_fails_with_a_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let models = dir.path().join("models");
    let own = |name: &str| models.join(name);
    copy(&fixture("models/tiny-sd15-inpaint"), &own("kept"));
    copy(&fixture("models/tiny-sd15-inpaint"), &own("swapped"));
    copy(&fixture("models/tiny-sd15-inpaint"), &own("gone"));
    let path = dir.path().join("store");
    let mut server = Server::start_with_models(&path, &models);
    let begin = |server: &mut Server, call: &Value| {
        let params = json!({"name": TOOL, "arguments": call, "_meta": {"infill/waitSeconds": 0}});
        job_id(&server.request("tools/call", &params)["result"])
    };
    let mut long = endless();
    long["modelId"] = json!("kept");
    let first = begin(&mut server, &long);
    let ids =
        ["swapped", "gone", "kept"].map(|name| begin(&mut server, &arguments(&json!({"modelId": name}))));
    server.kill();
    fs::remove_dir_all(own("gone")).unwrap();
    fs::remove_dir_all(own("swapped")).unwrap();
    copy(&fixture("models/tiny-sd15-base"), &own("swapped"));
    Store::open(&path).unwrap().request_cancel(&first).unwrap();

    let mut server = Server::start_with_models(&path, &models);
    let results = ids.map(|id| outcome(&mut server, &id));
    assert!(
        text(&results[0]).contains("failed: modelId is swapped, which is another model"),
        "{}",
        results[0]
    );
    assert!(text(&results[1]).contains("failed: modelId is \"gone\""), "{}", results[1]);
    let error = results[1]["structuredContent"]["job"]["metadata"]["error"].as_str().unwrap();
    assert!(error.starts_with("modelId is \"gone\"; allowed: "), "{error}");
    assert_eq!(files(&results[2]).len(), 1);
    assert!(server.finish().success());
}

#[test]
fn a_job_that_ends_its_process_each_time_or_cannot_be_read_fails() {
    let dir = tempfile::tempdir().unwrap();
    let new = NewJob { kind: "inference", input: "{}", ..NewJob::default() };
    let store = Store::open(dir.path()).unwrap();
    let fatal = store.create_job(&new).unwrap();
    drop(store);
    for _ in 0..10 {
        let store = Store::open(dir.path()).unwrap();
        store.adopt_jobs().unwrap();
        store.begin_job(&fatal).unwrap();
    }
    let store = Store::open(dir.path()).unwrap();
    let unread = store.create_job(&new).unwrap();
    drop(store);
    let mut server = Server::start(dir.path());
    let told = [fatal, unread].map(|id| text(&outcome(&mut server, &id)));
    assert!(told[0].contains("failed: the server ended 10 times while it was at work"), "{}", told[0]);
    assert!(told[1].contains("in a form that this version of infill does not read"), "{}", told[1]);
    assert!(server.finish().success());
}

#[test]
fn pictures_and_jobs_are_looked_up_by_their_ids() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path());
    let made = server.call(&arguments(&json!({"hideResults": true})));
    let id = assets(&made)[0].clone();
    let result = server.call_tool("get-assets-by-asset-id", &json!({"assetId": id.as_str()}));
    assert_eq!(pixels(&result), pixels(&made));
    let kinds: Vec<_> =
        result["content"].as_array().unwrap().iter().map(|block| block["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["text", "image", "resource_link"]);
    assert_eq!(result["content"][2]["name"], format!("{id}.png"));
    let asset = &result["structuredContent"]["asset"];
    let input = &made["structuredContent"]["inference"]["imageId"];
    assert_eq!((&asset["metadata"]["parentId"], &asset["privacy"]), (input, &json!("unlisted")));
    assert_eq!(
        (&asset["metadata"]["prompt"], &asset["metadata"]["seed"]),
        (&json!("a red hat"), &json!("7"))
    );
    let told = text(&result);
    assert!(told.contains("seed \"7\"") && told.contains("kept out of listings"), "{told}");

    // To work on a hidden picture shows it to nobody.
    let next = server.call(&arguments(&json!({"image": id.as_str()})));
    assert_eq!(next["isError"], false);
    let uploaded = server.call_tool("get-assets-by-asset-id", &json!({ "assetId": input }));
    assert_eq!(uploaded["structuredContent"]["asset"]["source"], "uploaded");

    for (tool, given, expected) in [
        ("get-job-id", json!({}), "jobId is missing"),
        ("get-job-id", json!({"jobId": 7}), "jobId is 7; allowed: a string"),
        ("get-job-id", json!({"jobId": "job_7"}), "jobId: \"job_7\" is no job id"),
        (
            "get-job-id",
            json!({"jobId": "job_AAAAAAAAAAAAAAAAAAAAAA"}),
            "jobId is job_AAAAAAAAAAAAAAAAAAAAAA; allowed: ",
        ),
        ("get-job-id", json!({"jobId": id.as_str()}), "jobId: "),
        ("get-assets-by-asset-id", json!({"assetId": "x", "more": 1}), "more is not a parameter"),
        (
            "get-assets-by-asset-id",
            json!({"assetId": "asset_AAAAAAAAAAAAAAAAAAAAAA"}),
            "assetId is asset_AAAA",
        ),
    ] {
        let result = server.call_tool(tool, &given);
        assert!(result["isError"] == true && text(&result).starts_with(expected), "{given}: {result}");
    }
    assert!(server.finish().success());
    let store = Store::open(dir.path()).unwrap();
    assert!(store.get(&id).unwrap().meta.hidden);
    store.remove(&id).unwrap();
    let mut server = Server::start(dir.path());
    let result = look(&mut server, &job_id(&made));
    assert!(text(&result).contains("picture 1 was removed from the store"), "{result}");
    assert!(server.finish().success());
}
