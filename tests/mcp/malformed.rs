//! Calls as nobody should make them, each over a server that has had many before: every one is answered, none ends the
//! server, and none makes it grow. A few dozen here; `scripts/mcp-soak` runs a thousand on each transport.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::Shutdown;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, RngSeed, TestRunner};
use serde_json::{Map, Value, json};

use crate::client::{Http, NEWEST, Reply, introduce};
use crate::harness::{LARGEST_REPLY, REFERENCE_TOOL, Server, arguments, fixture, memory, text, url};

/// How many calls each test makes, the same each time, unless `INFILL_MALFORMED` says how many, which then differ.
const CALLS: u32 = 48;
/// A text this long is read, and refused for what it says.
const LONGEST: u32 = 24;

/// Messages that are none.
const ENVELOPES: [&str; 25] = [
    r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#,
    r#"{"jsonrpc":"2.0","id":1.5,"method":"ping"}"#,
    r#"{"jsonrpc":"2.0","id":[1],"method":"ping"}"#,
    r#"{"jsonrpc":"2.0","id":{"id":1},"method":"tools/list"}"#,
    r#"{"jsonrpc":"2.0","id":true,"method":"tools/list"}"#,
    r#"{"jsonrpc":"2.0","id":1e400,"method":"tools/list"}"#,
    r#"{"jsonrpc":"2.0","id":-99999999999999999999999,"method":"tools/list"}"#,
    r#"{"jsonrpc":"2.0","id":ID,"method":null}"#,
    r#"{"jsonrpc":"2.0","id":ID,"method":["tools/call"]}"#,
    r#"{"jsonrpc":"2.0","id":ID,"method":"no/such"}"#,
    r#"{"jsonrpc":"2.0","id":ID,"method":""}"#,
    r#"{"jsonrpc":"2.0","id":ID}"#,
    r#"{"jsonrpc":"1.0","id":ID,"method":"ping"}"#,
    r#"{"jsonrpc":2,"id":ID,"method":"ping"}"#,
    r#"{"id":ID,"method":"ping"}"#,
    r#"{"jsonrpc":"2.0","id":ID,"method":"tools/call","params":NaN}"#,
    r#"{"jsonrpc":"2.0","id":ID,"method":"tools/call","params":{"name":"\ud800"}}"#,
    r#"{"jsonrpc":"2.0","id":ID,"method":"tools/call","params":{},}"#,
    r#"{'jsonrpc':'2.0','id':ID,'method':'ping'}"#,
    r#"[{"jsonrpc":"2.0","id":ID,"method":"ping"}]"#,
    "[]",
    "{}",
    "null",
    "7",
    "\"ping\"",
];
/// Members that name something, of the parameters of a method; nothing for the method itself.
const NAMES: [Option<(&str, &str)>; 5] = [
    None,
    Some(("tools/call", "name")),
    Some(("prompts/get", "name")),
    Some(("resources/read", "uri")),
    Some(("resources/list", "cursor")),
];
/// What stands before the data of a data URL that is none.
const HEADS: [&str; 5] = ["data:image/png;base64", "data:,", "data:image/png,", "date:image/png;base64,", ""];

/// What is wrong with a message. Small, so that a failure shows all of it.
#[derive(Debug, Clone)]
enum Bad {
    /// Parameters of any kind and form.
    Values(Vec<(String, Value)>),
    /// A text of two to this power letters.
    Long { name: String, letter: char, power: u32 },
    /// A data URL that holds no picture.
    Picture { name: String, wrong: Wrong },
    /// A way out of the allowed folders.
    Path { name: String, path: String },
    /// A name of two to this power letters: this member of that method's parameters, or the method itself.
    Name { of: Option<(&'static str, &'static str)>, letter: char, power: u32 },
    /// So many parameters that there are not.
    Many(u32),
    /// Brackets in brackets, two to this power, closed or not.
    Deep { object: bool, power: u32, closed: bool },
    /// A message that ends after so many thousandths of its length.
    Cut(usize),
    /// A message whose members are of no such kind; what it says of its id is its own.
    Envelope(String),
    /// Parameters that no call has.
    Params(Value),
    /// Any bytes.
    Noise(Vec<u8>),
}

/// What is wrong with a data URL.
#[derive(Debug, Clone)]
enum Wrong {
    /// Another text before the data.
    Head(String),
    /// This letter at that thousandth of the base64.
    Letter(usize, char),
    /// The base64 ends there.
    Cut(usize),
    /// Other bytes at that thousandth of the PNG, in place of what was there.
    Bytes(usize, Vec<u8>),
    /// A header that announces a picture this large.
    Bomb(u32, u32),
}

impl Wrong {
    fn url(&self) -> String {
        let png = std::fs::read(fixture("images/init.png")).unwrap();
        let head = "data:image/png;base64,";
        let at = |length: usize, thousandth: usize| length * thousandth / 1000;
        let text = STANDARD.encode(&png);
        match self {
            Self::Head(other) => format!("{other}{text}"),
            Self::Letter(place, letter) => {
                let (before, after) = text.split_at(at(text.len(), *place));
                format!("{head}{before}{letter}{after}")
            }
            Self::Cut(place) => format!("{head}{}", &text[..at(text.len(), *place)]),
            Self::Bytes(place, bytes) => {
                let mut png = png;
                let start = at(png.len(), *place);
                let end = png.len().min(start + bytes.len());
                png[start..end].copy_from_slice(&bytes[..end - start]);
                format!("{head}{}", STANDARD.encode(png))
            }
            Self::Bomb(width, height) => format!("{head}{}", STANDARD.encode(bomb(*width, *height))),
        }
    }
}

/// A PNG whose header alone is sound.
fn bomb(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width.max(1), height.max(1));
    encoder.set_color(png::ColorType::Rgb);
    drop(encoder.write_header().unwrap());
    bytes
}

impl Bad {
    /// The message, with this id wherever it has one.
    fn bytes(&self, id: u64) -> Vec<u8> {
        let call = |mut changes: Value| {
            // Whatever else is said, the call is never run.
            changes["no such parameter"] = json!(1);
            let params = json!({"name": REFERENCE_TOOL, "arguments": arguments(&changes)});
            json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params})
        };
        match self {
            Self::Values(values) => {
                let changes: Map<String, Value> = values.iter().cloned().collect();
                call(changes.into()).to_string().into_bytes()
            }
            Self::Long { name, letter, power } => {
                call(json!({ name: letter.to_string().repeat(1 << power) })).to_string().into_bytes()
            }
            Self::Picture { name, wrong } => call(json!({ name: wrong.url() })).to_string().into_bytes(),
            Self::Path { name, path } => call(json!({ name: path })).to_string().into_bytes(),
            Self::Name { of, letter, power } => {
                let name = letter.to_string().repeat(1 << power);
                let (method, params) = match of {
                    Some((method, member)) => (*method, json!({ *member: name })),
                    None => (name.as_str(), json!({})),
                };
                json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})
                    .to_string()
                    .into_bytes()
            }
            Self::Many(count) => {
                let changes: Map<String, Value> = (0..*count).map(|n| (format!("p{n}"), json!(n))).collect();
                call(changes.into()).to_string().into_bytes()
            }
            Self::Deep { object, power, closed } => {
                let (open, close) = if *object { ("{\"a\":", "}") } else { ("[", "]") };
                let close =
                    if *closed { format!("1{}}}}}}}", close.repeat(1 << power)) } else { String::new() };
                let head = format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"tools/call\",\"params\":");
                let call = format!("{{\"name\":{REFERENCE_TOOL:?},\"arguments\":{{\"prompt\":");
                format!("{head}{call}{}{close}", open.repeat(1 << power)).into_bytes()
            }
            Self::Cut(thousandth) => {
                let mut whole = call(json!({})).to_string().into_bytes();
                whole.truncate(1 + (whole.len() - 2) * thousandth / 1000);
                whole
            }
            Self::Envelope(text) => text.replace("ID", &id.to_string()).into_bytes(),
            Self::Params(params) => {
                json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params})
                    .to_string()
                    .into_bytes()
            }
            Self::Noise(bytes) => {
                bytes.iter().map(|byte| if *byte == b'\n' { b' ' } else { *byte }).collect()
            }
        }
    }

    /// The parameter that the refusal must name.
    fn fault(&self) -> Option<&str> {
        match self {
            // A deprecated id counts for nothing beside the picture itself.
            Self::Path { name, .. } => {
                Some(name.as_str()).filter(|name| !["imageId", "maskId"].contains(name))
            }
            Self::Picture { name, wrong: Wrong::Head(_) | Wrong::Cut(_) | Wrong::Bomb(..) } => Some(name),
            _ => None,
        }
    }

    /// Whether the answer must carry the id of the request.
    fn keeps_its_id(&self) -> bool {
        !matches!(self, Self::Cut(_) | Self::Envelope(_) | Self::Noise(_))
    }
}

/// The parameters of the tool that has most of them.
fn parameters() -> Vec<String> {
    let path = format!("{}/crates/mcp/src/tools/{REFERENCE_TOOL}.tool.json", env!("CARGO_MANIFEST_DIR"));
    let schema: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    schema["inputSchema"]["properties"].as_object().unwrap().keys().cloned().collect()
}

fn any_value() -> impl Strategy<Value = Value> {
    let number = prop_oneof![any::<i64>().prop_map(Value::from), any::<f64>().prop_map(Value::from)];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        number,
        any::<String>().prop_map(Value::from)
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((any::<String>(), inner), 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn any_wrong() -> impl Strategy<Value = Wrong> {
    prop_oneof![
        select(&HEADS[..]).prop_map(|head| Wrong::Head(head.into())),
        (0..1000_usize, select(&['!', '\0', '=', 'é', '"'][..]))
            .prop_map(|(place, letter)| Wrong::Letter(place, letter)),
        (0..900_usize).prop_map(Wrong::Cut),
        (0..900_usize, prop::collection::vec(any::<u8>(), 64..200))
            .prop_map(|(place, bytes)| Wrong::Bytes(place, bytes)),
        (1_u32..1 << 31, 1_u32..1 << 31).prop_map(|(width, height)| Wrong::Bomb(width, height)),
    ]
}

fn any_path() -> impl Strategy<Value = String> {
    let way = select(&["../", "..%2f", "%2e%2e/", "./", "//", "..\\", "images/", "%00", "~/"][..]);
    let end = select(
        &[
            "etc/passwd",
            "etc/shadow",
            "proc/self/environ",
            "dev/zero",
            "dev/stdin",
            "",
            ".",
            "proc/self/fd/0",
        ][..],
    );
    let start = prop_oneof![
        Just("/".to_owned()),
        Just("file:///".to_owned()),
        Just("file://localhost/".to_owned()),
        Just("file://elsewhere/".to_owned()),
        Just("asset_".to_owned()),
        Just(url("images/")),
        Just(String::new()),
    ];
    (start, prop::collection::vec(way, 0..12), end)
        .prop_map(|(start, ways, end)| format!("{start}{}{end}", ways.concat()))
}

fn any_bad() -> impl Strategy<Value = Bad> {
    let name = || select(parameters());
    let picture = || select(&["image", "mask", "ipAdapterImage"][..]).prop_map(str::to_owned);
    let place = select(
        &[
            "image",
            "mask",
            "imageId",
            "maskId",
            "modelId",
            "ipAdapterImage",
            "ipAdapterImageId",
            "imageParentId",
        ][..],
    );
    prop_oneof![
        4 => prop::collection::vec((name(), any_value()), 1..4).prop_map(Bad::Values),
        2 => (name(), select(&['a', 'é', '(', '/', '\u{1}'][..]), 10..LONGEST)
            .prop_map(|(name, letter, power)| Bad::Long { name, letter, power }),
        1 => (select(&NAMES[..]), select(&['a', '\u{1}'][..]), 10..LONGEST)
            .prop_map(|(of, letter, power)| Bad::Name { of, letter, power }),
        1 => (1..20_000_u32).prop_map(Bad::Many),
        3 => (picture(), any_wrong()).prop_map(|(name, wrong)| Bad::Picture { name, wrong }),
        3 => (place.prop_map(str::to_owned), any_path()).prop_map(|(name, path)| Bad::Path { name, path }),
        2 => (any::<bool>(), 5..21_u32, any::<bool>()).prop_map(|(object, power, closed)| Bad::Deep { object, power, closed }),
        3 => (0..1000_usize).prop_map(Bad::Cut),
        3 => select(&ENVELOPES[..]).prop_map(|text| Bad::Envelope(text.into())),
        1 => any_value().prop_map(Bad::Params),
        2 => prop::collection::vec(any::<u8>(), 1..300).prop_map(Bad::Noise),
    ]
}

/// A refusal that says why, of whatever kind; nothing in it is of a file that may not be read.
fn assert_refused(bad: &Bad, answer: &Value) {
    let result = &answer["result"];
    let said = match answer["error"]["message"].as_str() {
        Some(message) => message.to_owned(),
        None => {
            assert_eq!(result["isError"], true, "{bad:?}: {answer}");
            text(result)
        }
    };
    assert!(!said.is_empty() && said.len() < 100_000, "{bad:?}: {answer}");
    assert!(!said.contains("root:") && !said.contains("PATH="), "{bad:?}: {said}");
    if let Some(name) = bad.fault() {
        assert!(said.lines().any(|line| line.starts_with(name)), "{bad:?}: {said}");
    }
}

/// How many calls were asked for, if any were.
fn asked() -> Option<u32> {
    std::env::var("INFILL_MALFORMED").ok().map(|calls| calls.parse().unwrap())
}

/// Makes the calls; what the server holds must not grow from the first half of them to the second.
fn all(process: u32, mut one: impl FnMut(&Bad)) {
    const PARTS: u32 = 8;
    let asked = asked();
    let calls = asked.unwrap_or(CALLS);
    let held: Vec<u64> = (0..PARTS)
        .map(|part| {
            let mut config = Config { cases: calls / PARTS, failure_persistence: None, ..Config::default() };
            if asked.is_none() {
                // So few calls have a large one among them or not, early or late: not by chance.
                config.rng_seed = RngSeed::Fixed(part.into());
            }
            let one = RefCell::new(&mut one);
            let tried = TestRunner::new(config).run(&any_bad(), |bad| {
                (one.borrow_mut())(&bad);
                Ok(())
            });
            tried.unwrap();
            memory(process)
        })
        .collect();
    eprintln!("{calls} malformed calls; MiB held after each eighth: {held:?}");
    let most = |part: &[u64]| part.iter().copied().max().unwrap();
    let (first, second) = held.split_at(PARTS as usize / 2);
    assert!(most(second) < most(first) + GROWTH, "{held:?}");
}

/// MiB that the second half may add: what the allocator keeps of the largest messages, if they came late.
const GROWTH: u64 = 192;

#[test]
fn malformed_calls_are_answered_on_stdio() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(dir.path());
    let process = server.id();
    all(process, |bad| {
        let id = server.next_id();
        server.send_line(&bad.bytes(id));
        let answer = server.receive();
        assert!(answer["id"] == id || !bad.keeps_its_id(), "{bad:?}: {answer}");
        if answer["result"] != json!({}) {
            assert_refused(bad, &answer);
        }
        assert_eq!(server.request("ping", &json!({}))["result"], json!({}), "{bad:?}");
    });
    assert!(server.finish().success());
}

#[test]
fn malformed_calls_are_answered_over_http() {
    let dir = tempfile::tempdir().unwrap();
    let server = Http::start(dir.path());
    let session = server.session("2025-11-25");
    let mut id = 10;
    all(server.id(), |bad| {
        id += 1;
        let bytes = bad.bytes(id);
        for newest in [false, true] {
            let mut body = bytes.clone();
            let mut headers =
                vec![("Content-Type", "application/json"), ("Accept", "application/json, text/event-stream")];
            if newest {
                headers.extend([
                    ("MCP-Protocol-Version", NEWEST),
                    ("Mcp-Method", "tools/call"),
                    ("Mcp-Name", REFERENCE_TOOL),
                ]);
                // Else it would be refused for that alone.
                if let Ok(mut message) = serde_json::from_slice::<Value>(&bytes)
                    && message["params"].is_object()
                {
                    introduce(&mut message);
                    body = message.to_string().into_bytes();
                }
            } else {
                headers
                    .extend([("MCP-Protocol-Version", "2025-11-25"), ("Mcp-Session-Id", session.as_str())]);
            }
            assert_answered(bad, id, &server.ask("POST", "/mcp", &headers, &body));
        }
        assert_eq!(server.get("/healthz").text(), "ok\n", "{bad:?}");
    });
    assert!(server.terminate().0.success());
}

/// One message that refuses, or one sentence with a status.
fn assert_answered(bad: &Bad, id: u64, reply: &Reply) {
    assert!((200..500).contains(&reply.status), "{bad:?}: {}", reply.status);
    assert!(
        !reply.body.is_empty() && reply.body.len() < LARGEST_REPLY,
        "{bad:?}: {} bytes",
        reply.body.len()
    );
    if reply.status != 200 {
        return;
    }
    let messages = reply.messages();
    let answer = messages.last().unwrap();
    assert!(answer["id"] == id || !bad.keeps_its_id(), "{bad:?}: {answer}");
    if answer["result"] != json!({}) {
        assert_refused(bad, answer);
    }
}

#[test]
fn a_stream_that_breaks_off_ends_nothing_but_itself() {
    let whole = Bad::Values(Vec::new()).bytes(1);
    // The input ends within a message: what is there of it is answered, and the server ends well.
    for thousandth in [10, 400, 999] {
        let dir = tempfile::tempdir().unwrap();
        let mut server = Server::start(dir.path());
        server.send_bytes(&whole[..whole.len() * thousandth / 1000]);
        server.close_input();
        assert_eq!(server.receive()["error"]["code"], -32700);
        assert!(server.finish().success());
    }
    let dir = tempfile::tempdir().unwrap();
    let server = Http::start(dir.path());
    let head = |more: &str| {
        format!(
            "POST /mcp HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n\
             Accept: application/json, text/event-stream\r\n{more}\r\n\r\n",
            server.address
        )
    };
    let length = head(&format!("Content-Length: {}", whole.len()));
    let chunked = head("Transfer-Encoding: chunked");
    let size = format!("{:x}\r\n", whole.len());
    for sent in [
        length.as_bytes()[..length.len() / 2].to_vec(),
        length.as_bytes().to_vec(),
        [length.as_bytes(), &whole[..20]].concat(),
        [chunked.as_bytes(), size.as_bytes(), &whole[..20]].concat(),
        [chunked.as_bytes(), size.as_bytes(), &whole, b"\r\n"].concat(),
        [chunked.as_bytes(), b"zz\r\n", &whole].concat(),
    ] {
        let mut stream = server.connect();
        stream.write_all(&sent).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        // Refused or hung up on; never a call that runs.
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "), "{answer}");
        assert_eq!(server.get("/healthz").text(), "ok\n");
    }
}
