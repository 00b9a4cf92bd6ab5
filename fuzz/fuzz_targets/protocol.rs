//! Lines of a stranger on the wire: whatever stands between them, every request is answered.
#![no_main]

use std::collections::BTreeSet;
use std::sync::LazyLock;
use std::thread;
use std::time::Duration;

use infill_mcp::{ServeOptions, serve_streams};
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream, duplex};
use tokio::time::timeout;

const METHODS: [&str; 12] = [
    "initialize",
    "ping",
    "server/discover",
    "tools/list",
    "tools/call",
    "resources/list",
    "resources/read",
    "resources/templates/list",
    "prompts/list",
    "prompts/get",
    "completion/complete",
    "logging/setLevel",
];
const TOOLS: [&str; 4] =
    ["post-inpaint-inferences", "post-inpaint-ip-adapter-inferences", "get-job-id", "get-assets-by-asset-id"];
const FIELDS: [&str; 12] = [
    "modelId",
    "prompt",
    "image",
    "mask",
    "imageId",
    "seed",
    "strength",
    "width",
    "concepts",
    "jobId",
    "assetId",
    "ipAdapterImages",
];

/// How one line is made of a byte and of others.
type Line = (u8, u8, Vec<u8>);

/// What the bytes say as JSON, or else as text.
fn value(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap_or_else(|_| String::from_utf8_lossy(bytes).into())
}

/// The line, and whether it is a request with this id.
fn line(id: usize, (kind, which, bytes): &Line) -> (Vec<u8>, bool) {
    let pick = |names: &[&'static str]| names[usize::from(*which) % names.len()];
    let request = |method: &str, params: Value| {
        json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).to_string().into_bytes()
    };
    match kind % 4 {
        // Who cancels a request has no answer to expect.
        0 if bytes.windows(9).any(|word| word == b"cancelled") => (Vec::new(), false),
        0 => (bytes.iter().copied().filter(|byte| *byte != b'\n').collect(), false),
        1 => (request(pick(&METHODS), value(bytes)), true),
        2 => {
            let field = FIELDS[usize::from(kind / 4) % FIELDS.len()];
            let given = json!({"modelId": "none", "prompt": "", "image": "asset_", "mask": "asset_", field: value(bytes)});
            (request("tools/call", json!({"name": pick(&TOOLS), "arguments": given})), true)
        }
        _ => {
            let mut whole = request("tools/call", json!({"name": pick(&TOOLS), "arguments": value(bytes)}));
            whole.truncate(whole.len() * usize::from(*which) / 256);
            (whole, false)
        }
    }
}

/// Sends the lines and waits until every request is answered.
async fn converse(wire: DuplexStream, lines: &[Line]) {
    let (answers, mut to) = tokio::io::split(wire);
    let client = json!({"name": "fuzz", "version": "1"});
    let hello = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client});
    let mut sent =
        json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": hello}).to_string().into_bytes();
    let mut owed = BTreeSet::from([0]);
    for (index, one) in lines.iter().enumerate() {
        let (line, is_request) = line(index + 1, one);
        owed.extend(is_request.then_some(index + 1));
        sent.push(b'\n');
        sent.extend(line);
    }
    sent.push(b'\n');
    let write = async { to.write_all(&sent).await.unwrap() };
    let read = async {
        let mut answers = BufReader::new(answers).lines();
        while !owed.is_empty() {
            let answer = answers.next_line().await.unwrap().expect("the server ended");
            let answer: Value = serde_json::from_str(&answer).expect("an answer that is no JSON");
            if answer.get("method").is_none()
                && let Some(id) = answer["id"].as_u64()
            {
                owed.remove(&(id as usize));
            }
        }
    };
    tokio::join!(write, read);
}

fuzz_target!(|lines: Vec<Line>| {
    static FOLDER: LazyLock<TempDir> = LazyLock::new(|| tempfile::tempdir().unwrap());
    let (wire, end) = duplex(1 << 16);
    let server = thread::spawn(move || {
        let (input, output) = tokio::io::split(end);
        let options = ServeOptions {
            store_dir: FOLDER.path().join("store"),
            models_dir: Some(FOLDER.path().to_owned()),
            ..ServeOptions::default()
        };
        serve_streams(&options, input, output)
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        timeout(Duration::from_secs(20), converse(wire, &lines)).await.expect("a request was never answered");
    });
    server.join().unwrap().unwrap();
});
