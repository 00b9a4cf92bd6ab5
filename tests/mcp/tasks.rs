//! Jobs as tasks of the protocol, for the clients that may have them.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{PATIENCE, Server, TOOL, arguments, files, text};

/// What each request of the newest protocol says of its client.
fn meta(tasks: bool) -> Value {
    let extensions = if tasks { json!({"io.modelcontextprotocol/tasks": {}}) } else { json!({}) };
    json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {"extensions": extensions}
    })
}

fn ask(server: &mut Server, method: &str, mut params: Value) -> Value {
    params["_meta"] = meta(true);
    server.request(method, &params)
}

/// Begins a task and returns its id.
fn begin(server: &mut Server, call: &Value) -> String {
    let answer = ask(server, "tools/call", json!({"name": TOOL, "arguments": call}));
    let task = &answer["result"];
    assert_eq!((&task["resultType"], &task["status"]), (&json!("task"), &json!("working")), "{answer}");
    assert_eq!(task["ttlMs"], Value::Null, "{answer}");
    task["taskId"].as_str().unwrap().to_owned()
}

fn settled(server: &mut Server, id: &str) -> Value {
    let began = Instant::now();
    loop {
        let task = ask(server, "tasks/get", json!({ "taskId": id }))["result"].clone();
        if task["status"] != "working" {
            return task;
        }
        assert!(began.elapsed() < PATIENCE, "{task}");
        std::thread::sleep(Duration::from_millis(30));
    }
}

#[test]
fn a_client_that_may_have_tasks_gets_one_and_its_result() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start_silent(dir.path());
    let id = begin(&mut server, &arguments(&json!({})));
    let task = settled(&mut server, &id);
    assert_eq!(task["status"], "completed");
    assert_eq!(files(&task["result"]).len(), 1);
    assert_eq!(task["result"]["structuredContent"]["job"]["jobId"], id);

    // What is refused is no task.
    let answer = ask(&mut server, "tools/call", json!({"name": TOOL, "arguments": {"prompt": 1}}));
    assert_eq!(answer["result"]["isError"], true, "{answer}");

    let endless = arguments(&json!({"numInferenceSteps": 150, "numSamples": 128, "strength": 1}));
    let (first, second) = (begin(&mut server, &endless), begin(&mut server, &endless));
    for id in [&second, &first] {
        assert!(ask(&mut server, "tasks/cancel", json!({ "taskId": id }))["result"].is_object());
        assert_eq!(settled(&mut server, id)["status"], "cancelled");
    }
    // To cancel what is over changes nothing.
    assert!(ask(&mut server, "tasks/cancel", json!({ "taskId": id }))["result"].is_object());
    assert_eq!(settled(&mut server, &id)["status"], "completed");
    for (method, id) in
        [("tasks/get", "job_AAAAAAAAAAAAAAAAAAAAAA"), ("tasks/cancel", "7"), ("tasks/update", "7")]
    {
        let answer = ask(&mut server, method, json!({ "taskId": id, "inputResponses": {} }));
        assert_eq!(answer["error"]["code"], -32602, "{method}: {answer}");
    }
    assert!(server.finish().success());
}

#[test]
fn a_client_that_may_not_have_tasks_gets_its_pictures() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start_silent(dir.path());
    let params = json!({"name": TOOL, "arguments": arguments(&json!({})), "_meta": meta(false)});
    assert_eq!(files(&server.request("tools/call", &params)["result"]).len(), 1);
    assert!(server.finish().success());

    // One that declares them in a protocol without them.
    let mut server = Server::start_silent(dir.path());
    let capabilities = json!({"extensions": {"io.modelcontextprotocol/tasks": {}}});
    let client = json!({"name": "test", "version": "1"});
    let params = json!({"protocolVersion": "2025-11-25", "capabilities": capabilities, "clientInfo": client});
    server.request("initialize", &params);
    server.send(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
    let result = server.call(&arguments(&json!({})));
    assert_eq!(files(&result).len(), 1);
    assert!(text(&result).starts_with("Picture: asset_"), "{result}");
    assert!(server.finish().success());
}
