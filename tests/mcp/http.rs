//! `infill serve --http`: the protocol, who may ask, and how it ends.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use infill_store::{AssetMeta, JobStatus, Store};
use serde_json::{Value, json};

use crate::client::{Http, NEWEST, Stream, answer, command, eventually};
use crate::harness::{TOOL, arguments, files, text};

/// Protocols with sessions.
const OLDER: [&str; 4] = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"];
const TOKEN: &str = "a-token-of-some-length";

fn call(arguments: &Value) -> Value {
    json!({"name": TOOL, "arguments": arguments, "_meta": {"progressToken": "p"}})
}

fn message(params: &Value) -> Value {
    json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params})
}

/// A call that is still at work when its test has ended.
fn endless() -> Value {
    call(&arguments(&json!({"numInferenceSteps": 150, "numSamples": 128, "strength": 1})))
}

fn until_step_two(stream: &mut Stream) {
    while !stream.message()["params"]["message"].as_str().is_some_and(|message| message.contains("step 2 ")) {
    }
}

#[test]
fn every_protocol_lists_calls_and_tells_progress() {
    let dir = tempfile::tempdir().unwrap();
    let server = Http::start(dir.path());
    let mut pictures = Vec::new();
    for protocol in OLDER.into_iter().chain([NEWEST]) {
        let session = (protocol != NEWEST).then(|| server.session(protocol));
        let session = session.as_deref();
        if session.is_none() {
            let about = server.request(protocol, session, "server/discover", &json!({}));
            assert!(
                about[0]["result"]["instructions"].as_str().unwrap().contains("a model that is here"),
                "{about:?}"
            );
        }
        let listed = server.request(protocol, session, "tools/list", &json!({}));
        let tools = listed.last().unwrap()["result"]["tools"].as_array().unwrap();
        assert!(tools.iter().any(|tool| tool["name"] == TOOL), "{protocol}");
        let told =
            server.request(protocol, session, "tools/call", &call(&arguments(&json!({"strength": 1}))));
        let (answer, progress) = told.split_last().unwrap();
        pictures.push(files(&answer["result"]));
        let values: Vec<f64> =
            progress.iter().map(|note| note["params"]["progress"].as_f64().unwrap()).collect();
        assert!(
            values.len() >= 3 && values.windows(2).all(|pair| pair[0] < pair[1]),
            "{protocol}: {values:?}"
        );
        if let Some(session) = session {
            let headers = [("Mcp-Session-Id", session), ("MCP-Protocol-Version", protocol)];
            let mut streamed = headers.to_vec();
            streamed.push(("Accept", "text/event-stream"));
            assert_eq!(server.begin("GET", "/mcp", &streamed, b"").status, 200, "{protocol}");
            assert_eq!(server.ask("DELETE", "/mcp", &headers, b"").status, 204, "{protocol}");
            eventually("the session is gone", || {
                server
                    .post(protocol, Some(session), &json!({"jsonrpc": "2.0", "id": 1, "method": "ping"}))
                    .status
                    == 404
            });
        }
    }
    // The same seed gave the same asset each time.
    assert!(pictures.windows(2).all(|pair| pair[0] == pair[1]), "{pictures:?}");
    let (status, said) = server.terminate();
    assert!(status.success() && said.is_empty(), "{status} {said}");
}

#[test]
fn other_names_and_other_sites_are_refused_everywhere() {
    let dir = tempfile::tempdir().unwrap();
    let server = Http::start(dir.path());
    let port = server.address.port();
    let own = format!("localhost:{port}");
    for path in ["/", "/mcp", "/healthz", "/metrics", "/assets/x", "/page/main.js", "/nothing"] {
        let foreign = server.ask("GET", path, &[("Host", "evil.example.com")], b"");
        assert_eq!(foreign.status, 403, "{path}");
        assert!(
            foreign.text().starts_with("the Host is \"evil.example.com\"; allowed: "),
            "{}",
            foreign.text()
        );
        for origin in ["http://example.com", "http://localhost:1", "null"] {
            let foreign = server.ask("GET", path, &[("Host", own.as_str()), ("Origin", origin)], b"");
            assert_eq!(foreign.status, 403, "{path} {origin}");
            assert!(foreign.text().starts_with("the Origin is "), "{}", foreign.text());
        }
    }
    let same = format!("http://{own}");
    assert_eq!(server.ask("GET", "/", &[("Host", own.as_str()), ("Origin", same.as_str())], b"").status, 200);
    let headers = [("Origin", "http://example.com"), ("Content-Type", "application/json"), ("Accept", "*/*")];
    assert_eq!(server.ask("POST", "/mcp", &headers, b"{}").status, 403);
}

#[test]
fn a_token_is_asked_for_and_an_open_address_needs_one() {
    let dir = tempfile::tempdir().unwrap();
    let server = Http::start_with(dir.path(), Some(TOKEN), &[]);
    for path in ["/mcp", "/metrics", "/assets/asset_AAAAAAAAAAAAAAAAAAAAAA", "/nothing"] {
        let reply = server.get(path);
        assert_eq!((reply.status, reply.header("www-authenticate")), (401, Some("Bearer")), "{path}");
        let wrong = server.ask("GET", path, &[("Authorization", "Bearer a-token-of-some-lengtH")], b"");
        assert_eq!(wrong.status, 401, "{path}");
    }
    // What shows nobody's pictures: the page, which asks for the token, and whether the server lives.
    assert_eq!((server.get("/").status, server.get("/healthz").status), (200, 200));
    let bearer = format!("Bearer {TOKEN}");
    assert_eq!(server.ask("GET", "/metrics", &[("Authorization", bearer.as_str())], b"").status, 200);
    let listed = server.request(NEWEST, None, "tools/list", &json!({}));
    assert!(listed[0]["result"]["tools"].is_array());
    let log = server.log.lock().unwrap().clone();
    assert!(!log.contains(TOKEN), "the token is in the log: {log}");

    let short = dir.path().join("short.txt");
    std::fs::write(&short, "short\n").unwrap();
    let file = short.to_str().unwrap();
    for (flags, sentence) in [
        (
            vec!["--http", "127.0.0.1:0", "--public-url", "paint.example.com"],
            "error: --public-url is \"paint.example.com\"; allowed: ",
        ),
        (
            vec!["--http", "127.0.0.1:0", "--public-url", "https://example.com"],
            "error: --public-url is \"https://example.com\", which other machines can reach; allowed: ",
        ),
        (
            vec!["--http", "0.0.0.0:0"],
            "error: --http is 0.0.0.0:0, which other machines can reach; allowed: ",
        ),
        (vec!["--http", "[::]:0"], "error: --http is [::]:0, which other machines can reach; allowed: "),
        (vec!["--http", "somewhere"], "error: --http is \"somewhere\"; allowed: "),
        (vec!["--http", "0", "--token-file", file], "error: the token is 5 characters; allowed: "),
        (vec!["--http", "0", "--token-file", "none.txt"], "error: --token-file is none.txt"),
        (vec!["--token-file", file], "error: "),
    ] {
        let output =
            command(dir.path()).arg("serve").arg("--store").arg(dir.path()).args(&flags).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{flags:?}: {said}");
        assert!(
            said.starts_with(sentence) && said.lines().count() == 1 && output.stdout.is_empty(),
            "{said}"
        );
    }
}

#[test]
fn links_lead_to_the_address_that_clients_know() {
    let dir = tempfile::tempdir().unwrap();
    let site = "https://example.com/infill";
    let large = Store::open(dir.path()).unwrap().put(&[7; 1 << 20], &AssetMeta::default()).unwrap();
    let server = Http::start_with(dir.path(), Some(TOKEN), &["--public-url", site]);
    let called = |tool: &str, arguments: &Value| {
        let params = json!({"name": tool, "arguments": arguments});
        let answers = server.request(NEWEST, None, "tools/call", &params);
        answers.last().unwrap()["result"].clone()
    };
    let painted = called(TOOL, &arguments(&json!({})));
    let link = painted["content"].as_array().unwrap().last().unwrap()["uri"].as_str().unwrap();
    let id = link.strip_prefix(site).and_then(|path| path.strip_prefix("/assets/")).expect(link);
    assert!(text(&painted).contains(link), "{}", text(&painted));
    let input = painted["structuredContent"]["inference"]["image"].as_str().unwrap();
    assert!(input.starts_with(&format!("{site}/assets/asset_")), "{input}");
    let tells_no_path = |reply: &Value| {
        assert!(!reply.to_string().contains(dir.path().to_str().unwrap()), "a path of the server: {reply}");
    };
    tells_no_path(&painted);

    let shown = called("get-assets-by-asset-id", &json!({"assetId": id}));
    assert_eq!(shown["structuredContent"]["asset"]["url"], link);
    let last = shown["content"].as_array().unwrap().last().unwrap();
    assert_eq!((&last["uri"], &last["name"]), (&json!(link), &json!(format!("{id}.png"))));
    tells_no_path(&shown);
    let read = |uri: &str| {
        let answers = server.request(NEWEST, None, "resources/read", &json!({ "uri": uri }));
        let answer = answers.last().unwrap();
        tells_no_path(answer);
        let contents = answer["result"]["contents"].as_array().unwrap_or_else(|| panic!("{answer}")).clone();
        let about: Value = serde_json::from_str(contents.last().unwrap()["text"].as_str().unwrap()).unwrap();
        (contents[0]["blob"].clone(), about)
    };
    let (picture, about) = read(&format!("asset://{id}"));
    assert_eq!((&about["id"], &about["url"], about.get("path")), (&json!(id), &json!(link), None));
    assert!(picture.is_string());
    assert_eq!(read(link), (picture, about));
    let note = read(&format!("{site}/assets/{large}")).1["note"].clone();
    assert!(
        note.as_str().unwrap().ends_with(&format!("; it is whole at /assets/{large} of this server.")),
        "{note}"
    );
    let bearer = format!("Bearer {TOKEN}");
    let picture = server.ask("GET", &format!("/assets/{id}"), &[("Authorization", &bearer)], b"");
    assert_eq!((picture.status, picture.header("content-type")), (200, Some("image/png")));
    // What a reply names can be given back, whatever the server is called by then.
    let again = called(TOOL, &arguments(&json!({"image": link.replace("example.com", "other.example.com")})));
    assert_eq!(again["isError"], false, "{}", text(&again));
    let outside = called(TOOL, &arguments(&json!({"image": "/nowhere.png"})));
    assert!(text(&outside).starts_with("image is /nowhere.png; allowed: "), "{}", text(&outside));
    tells_no_path(&outside);
    let none = link.replace(id, "asset_AAAAAAAAAAAAAAAAAAAAAA");
    assert!(text(&called(TOOL, &arguments(&json!({"image": none})))).starts_with("image is asset_AAAA"));
}

#[test]
fn what_is_too_large_or_no_message_is_told_and_the_server_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let server = Http::start(dir.path());
    let form = [("Content-Type", "application/json"), ("Accept", "application/json, text/event-stream")];
    let long = vec![b' '; (64 << 20) + 1];
    let announced = server.ask("POST", "/mcp", &form, &long);
    assert_eq!(announced.status, 413);
    assert!(announced.text().contains("more than 67108864 bytes"), "{}", announced.text());
    let mut chunked = Vec::new();
    for piece in long.chunks(1 << 20) {
        chunked.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        chunked.extend_from_slice(piece);
        chunked.extend_from_slice(b"\r\n");
    }
    chunked.extend_from_slice(b"0\r\n\r\n");
    let mut headers = form.to_vec();
    headers.push(("Transfer-Encoding", "chunked"));
    assert_eq!(server.ask("POST", "/mcp", &headers, &chunked).status, 413);

    for (body, code) in [(&b"hello"[..], -32700), (b"[1,2]", -32600), (b"\xff\xfe", -32700), (b"", -32700)] {
        let reply = server.ask("POST", "/mcp", &form, body);
        assert_eq!((reply.status, &reply.messages()[0]["error"]["code"]), (400, &json!(code)), "{body:?}");
    }
    let deep = "[".repeat(1 << 20);
    assert_eq!(server.ask("POST", "/mcp", &form, deep.as_bytes()).status, 400);
    for (method, path, status) in [
        ("POST", "/", 405),
        ("DELETE", "/healthz", 405),
        ("PUT", "/mcp", 405),
        ("GET", "/nothing", 404),
        ("GET", "/page/../secret", 404),
        ("GET", "/assets/..%2f..%2finfill.db", 404),
        ("GET", "/assets/asset_AAAAAAAAAAAAAAAAAAAAAA", 404),
        ("HEAD", "/", 200),
    ] {
        assert_eq!(server.begin(method, path, &[], b"").status, status, "{method} {path}");
    }
    let session = server.session("2025-11-25");
    let refused = server.request("2025-11-25", Some(&session), "tools/call", &json!({"name": "nothing"}));
    assert_eq!(refused[0]["error"]["code"], -32602);
    // The handshake went with the sessions, whatever its parameters.
    let gone = server.request(NEWEST, None, "initialize", &json!({}));
    assert_eq!(gone[0]["error"]["code"], -32601);
    assert_eq!(server.get("/healthz").text(), "ok\n");
}

#[test]
fn slow_clients_are_let_go() {
    let dir = tempfile::tempdir().unwrap();
    let server = Http::start(dir.path());
    let began = Instant::now();
    let mut half_a_head = server.connect();
    half_a_head.write_all(b"GET / HTTP/1.1\r\nHost: loc").unwrap();
    let mut half_a_body = server.connect();
    let head = format!(
        "POST /mcp HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n\
         Accept: application/json, text/event-stream\r\nContent-Length: 100\r\n\r\n{{",
        server.address
    );
    half_a_body.write_all(head.as_bytes()).unwrap();
    assert_eq!(answer(half_a_body).status, 408);
    assert!(began.elapsed() < Duration::from_secs(40), "{:?}", began.elapsed());
    // An answer or none: the connection ends.
    half_a_head.read_to_end(&mut Vec::new()).unwrap();
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    assert_eq!(server.get("/healthz").status, 200);
}

#[test]
fn a_call_ends_with_its_client_or_at_its_word() {
    let dir = tempfile::tempdir().unwrap();
    let server = Http::start(dir.path());
    // Without sessions whoever hangs up has cancelled.
    let mut gone = server.post(NEWEST, None, &message(&endless()));
    until_step_two(&mut gone);
    drop(gone);
    let session = server.session("2025-11-25");
    let mut told = server.post("2025-11-25", Some(&session), &message(&endless()));
    until_step_two(&mut told);
    let params = json!({"requestId": 1, "reason": "enough"});
    let word = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params});
    assert_eq!(server.post("2025-11-25", Some(&session), &word).status, 202);
    let next = server.request(NEWEST, None, "tools/call", &call(&arguments(&json!({}))));
    assert_eq!(files(&next.last().unwrap()["result"]).len(), 1);
    let statuses = || -> Vec<JobStatus> {
        Store::open(dir.path()).unwrap().jobs().unwrap().iter().map(|job| job.status).collect()
    };
    assert_eq!(statuses(), [JobStatus::Canceled, JobStatus::Canceled, JobStatus::Success]);

    // A session that is closed takes its calls with it.
    let mut closed = server.post("2025-11-25", Some(&session), &message(&endless()));
    until_step_two(&mut closed);
    let headers = [("Mcp-Session-Id", session.as_str()), ("MCP-Protocol-Version", "2025-11-25")];
    assert_eq!(server.ask("DELETE", "/mcp", &headers, b"").status, 204);
    eventually("the call of a closed session is cancelled", || statuses()[3] == JobStatus::Canceled);
}

#[test]
fn many_clients_at_once_each_get_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let server = Http::start(dir.path());
    let pictures: Vec<Vec<String>> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..6)
            .map(|client| {
                let server = &server;
                scope.spawn(move || {
                    let protocol = if client % 2 == 0 { NEWEST } else { "2025-11-25" };
                    let session = (client % 2 == 1).then(|| server.session(protocol));
                    let run = |seed: u32| {
                        let given = call(&arguments(&json!({"seed": seed.to_string()})));
                        let told = server.request(protocol, session.as_deref(), "tools/call", &given);
                        let result = &told.last().unwrap()["result"];
                        assert!(text(result).contains(&format!("seed {seed},")), "{result}");
                        files(result)[0].display().to_string()
                    };
                    (client..client + 2).map(run).collect()
                })
            })
            .collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    // Neighbours share a seed, and so a picture.
    assert!(
        pictures.windows(2).all(|pair| pair[0][1] == pair[1][0] && pair[0][0] != pair[1][0]),
        "{pictures:?}"
    );
}

#[test]
fn pictures_and_numbers_can_be_fetched() {
    let dir = tempfile::tempdir().unwrap();
    let server = Http::start(dir.path());
    let told = server.request(NEWEST, None, "tools/call", &call(&arguments(&json!({}))));
    let result = &told.last().unwrap()["result"];
    let asset = result["structuredContent"]["job"]["metadata"]["assetIds"][0].as_str().unwrap();
    let path = format!("/assets/{asset}");
    let reply = server.get(&path);
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("image/png")));
    assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(reply.header("cross-origin-resource-policy"), Some("same-origin"));
    assert_eq!(reply.body, std::fs::read(&files(result)[0]).unwrap());
    let tag = reply.header("etag").unwrap().to_owned();
    assert_eq!(server.begin("GET", &path, &[("If-None-Match", tag.as_str())], b"").status, 304);

    let page = server.get("/");
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    let text = page.text();
    for file in text.split('"').filter(|quoted| quoted.starts_with("/page/")) {
        assert_eq!(server.get(file).status, 200, "{file}");
    }

    let metrics = server.get("/metrics");
    assert_eq!(metrics.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let metrics = metrics.text();
    for line in [
        "infill_jobs{status=\"success\"} 1",
        "infill_pictures 1",
        "infill_queue_length 0",
        "infill_http_requests_total{route=\"/mcp\",status=\"200\"} 1",
        "infill_http_requests_total{route=\"/assets\",status=\"304\"} 1",
        "infill_calls_in_progress 0",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line}\n{metrics}");
    }
    let seconds = metrics.lines().find_map(|line| line.strip_prefix("infill_job_seconds "));
    assert!(seconds.unwrap().parse::<f64>().unwrap() > 0.0, "{metrics}");
}

#[test]
fn it_ends_when_it_is_asked_to_and_leaves_no_job_open() {
    let dir = tempfile::tempdir().unwrap();
    let server = Http::start(dir.path());
    let mut stream = server.post(NEWEST, None, &message(&endless()));
    until_step_two(&mut stream);
    let session = server.session("2025-11-25");
    let headers = [("Accept", "text/event-stream"), ("Mcp-Session-Id", session.as_str())];
    let open = server.begin("GET", "/mcp", &headers, b"");
    assert_eq!(open.status, 200);
    let began = Instant::now();
    let log = server.log.clone();
    let (status, said) = server.terminate();
    assert!(status.success() && said.is_empty(), "{status} {said}");
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    let jobs = Store::open(dir.path()).unwrap().jobs().unwrap();
    assert_eq!(jobs.iter().map(|job| job.status).collect::<Vec<_>>(), [JobStatus::Canceled]);
    let log = log.lock().unwrap().clone();
    assert!(log.contains("ended") && !log.contains("cut off") && !log.contains("ERROR"), "{log}");
}

#[test]
fn the_log_can_be_json() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = command(dir.path())
        .args(["serve", "--http", "0", "--log-format", "json", "--store"])
        .arg(dir.path())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stderr.take().unwrap()));
    let line = lines.find(|line| line.as_ref().unwrap().starts_with('{')).unwrap().unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let event: Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&event["level"], &event["message"]), (&json!("INFO"), &json!("listening")), "{line}");
}

#[test]
fn however_much_is_logged_a_picture_is_only_where_the_protocol_is_asked_for() {
    use std::io::Write;

    let picture = "UGljdHVyZQ".repeat(3);
    let call = call(&json!({"image": format!("data:image/png;base64,{picture}")}));
    let client = json!({"name": "test", "version": "1"});
    let hello = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client});
    let messages = [
        json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello}),
        json!({"jsonrpc": "2.0", "method": "notifications/initialized"}),
        json!({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": call}),
    ];
    for (level, told) in [("debug", false), ("debug,rmcp=debug", true)] {
        let dir = tempfile::tempdir().unwrap();
        let mut child = command(dir.path())
            .args(["serve", "--store"])
            .arg(dir.path())
            .env("INFILL_LOG", level)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = child.stdin.take().unwrap();
        messages.iter().for_each(|message| writeln!(input, "{message}").unwrap());
        drop(input);
        let output = child.wait_with_output().unwrap();
        let log = String::from_utf8_lossy(&output.stderr);
        assert_eq!(log.contains(&picture), told, "{level}: {log}");
    }
}

/// The inodes of a process's sockets, and each internet socket as the kernel lists it: local and remote address.
#[cfg(target_os = "linux")]
fn internet_sockets(process: u32) -> Vec<(String, String)> {
    let folder = format!("/proc/{process}/fd");
    let links =
        std::fs::read_dir(folder).unwrap().filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok());
    let inodes: Vec<String> = links
        .filter_map(|link| Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    let mut found = Vec::new();
    for table in ["tcp", "tcp6", "udp", "udp6", "raw", "raw6"] {
        let text = std::fs::read_to_string(format!("/proc/{process}/net/{table}")).unwrap_or_default();
        for line in text.lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            if fields.get(9).is_some_and(|inode| inodes.iter().any(|own| own == inode)) {
                found.push((fields[1].to_owned(), fields[2].to_owned()));
            }
        }
    }
    found
}

#[cfg(target_os = "linux")]
#[test]
fn without_the_flag_no_socket_is_opened_and_with_it_only_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let mut stdio = crate::harness::Server::start(dir.path());
    assert_eq!(files(&stdio.call(&arguments(&json!({})))).len(), 1);
    assert_eq!(internet_sockets(stdio.id()), []);
    assert!(stdio.finish().success());

    let server = Http::start(dir.path());
    let told = server.request(NEWEST, None, "tools/call", &call(&arguments(&json!({}))));
    assert_eq!(files(&told.last().unwrap()["result"]).len(), 1);
    let own = format!(":{:04X}", server.address.port());
    let sockets = internet_sockets(server.id());
    assert!(!sockets.is_empty());
    assert!(sockets.iter().all(|(local, _)| local == &format!("0100007F{own}")), "{sockets:?}");
}

#[test]
fn the_log_tells_how_long_the_whole_answer_took() {
    let dir = tempfile::tempdir().unwrap();
    let server = Http::start(dir.path());
    let given = arguments(&json!({"width": 256, "height": 256, "numInferenceSteps": 8, "strength": 1}));
    let told = server.request(NEWEST, None, "tools/call", &call(&given));
    let said = text(&told.last().unwrap()["result"]);
    // "... seed 7, 1.23 s."
    let seconds = said.lines().next().unwrap().strip_suffix(" s.").unwrap().rsplit(' ').next().unwrap();
    let least = (seconds.parse::<f64>().unwrap() * 1000.0) as u64;
    assert!(least > 20, "{said}");
    eventually("the call is logged with the time it took", || {
        let log = server.log.lock().unwrap();
        let times = log.lines().filter_map(|line| line.split_once("milliseconds=")?.1.trim().parse().ok());
        times.max().is_some_and(|longest: u64| longest + 10 >= least)
    });
}
