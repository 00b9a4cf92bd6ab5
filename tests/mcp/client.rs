//! `infill serve --http` and a plain client for it: HTTP/1.1 over a socket, nothing hidden.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{LARGEST_REPLY, PATIENCE, ended, fixture, waiting};

/// The newest protocol, which has no sessions.
pub(crate) const NEWEST: &str = "2026-07-28";

/// A running server.
pub(crate) struct Http {
    child: Child,
    pub(crate) address: SocketAddr,
    /// What it said on standard error, so far.
    pub(crate) log: Arc<Mutex<String>>,
    /// Writes the log, until the server has ended.
    reader: Option<JoinHandle<()>>,
    token: Option<String>,
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The messages of the body, be it JSON or an event stream.
    pub(crate) fn messages(&self) -> Vec<Value> {
        let text = self.text();
        if self.header("content-type").is_some_and(|form| form.starts_with("application/json")) {
            return vec![serde_json::from_str(&text).unwrap()];
        }
        let data = text.lines().filter_map(|line| line.strip_prefix("data:")).map(str::trim);
        data.filter(|data| !data.is_empty()).map(|data| serde_json::from_str(data).unwrap()).collect()
    }
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = head.lines().filter_map(|line| line.split_once(':'));
    lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

/// An answer as it comes.
pub(crate) struct Stream {
    reader: BufReader<TcpStream>,
    pub(crate) status: u16,
    pub(crate) head: String,
}

impl Stream {
    /// The next message of the event stream.
    pub(crate) fn message(&mut self) -> Value {
        self.message_or_end().expect("the stream ended")
    }

    /// The next message, or nothing where the stream ends or breaks.
    pub(crate) fn message_or_end(&mut self) -> Option<Value> {
        let mut line = String::new();
        loop {
            line.clear();
            if self.reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            // Sizes of chunks stand on lines of their own.
            if let Some(data) = line.strip_prefix("data:").map(str::trim).filter(|data| !data.is_empty()) {
                return serde_json::from_str(data).ok();
            }
        }
    }

    fn read(mut self) -> std::io::Result<Reply> {
        let mut body = Vec::new();
        match header(&self.head, "content-length") {
            Some(length) => {
                body.resize(length.parse().unwrap(), 0);
                self.reader.read_exact(&mut body)?;
            }
            None if header(&self.head, "transfer-encoding") == Some("chunked") => loop {
                let mut size = String::new();
                self.reader.read_line(&mut size)?;
                let size = usize::from_str_radix(size.trim(), 16).unwrap();
                let start = body.len();
                body.resize(start + size, 0);
                self.reader.read_exact(&mut body[start..])?;
                self.reader.read_exact(&mut [0; 2])?;
                if size == 0 {
                    break;
                }
            },
            None => {}
        }
        Ok(Reply { status: self.status, head: self.head, body })
    }
}

impl Http {
    /// Starts a server over this store, on a free port of loopback.
    pub(crate) fn start(store: &Path) -> Self {
        Self::start_with(store, None, &[])
    }

    pub(crate) fn start_with(store: &Path, token: Option<&str>, more: &[&str]) -> Self {
        let mut command = command(store);
        command.args(["serve", "--http", "127.0.0.1:0", "--device", "cpu", "--store"]).arg(store);
        command.arg("--allow-dir").arg(fixture("images")).arg("--models").arg(fixture("models"));
        command.args(waiting(more)).args(more);
        if let Some(token) = token {
            command.env("INFILL_TOKEN", token);
        }
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let log = Arc::new(Mutex::new(String::new()));
        let kept = log.clone();
        let (sender, first) = channel();
        let reader = std::thread::spawn(move || {
            let mut sender = Some(sender);
            for line in stderr.lines().map_while(Result::ok) {
                kept.lock().unwrap().push_str(&format!("{line}\n"));
                if let Some(sender) = sender.take() {
                    let _ = sender.send(line);
                }
            }
        });
        // The first line, whatever is logged.
        let line: Option<String> = first.recv_timeout(PATIENCE).ok();
        let rest = line.as_deref().and_then(|line| line.strip_prefix("listening on http://"));
        let Some(address) = rest.and_then(|rest| rest.split('/').next()?.parse::<SocketAddr>().ok()) else {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("the server says {line:?} at first");
        };
        Self { child, address, log, reader: Some(reader), token: token.map(str::to_owned) }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Sends a request and reads the head of its answer.
    pub(crate) fn begin(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Stream {
        let mut stream = self.connect();
        let mut head = format!("{method} {path} HTTP/1.1\r\n");
        if !headers.iter().any(|(name, _)| *name == "Host") {
            head.push_str(&format!("Host: {}\r\n", self.address));
        }
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !headers.iter().any(|(name, _)| *name == "Transfer-Encoding") {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        // A server that refuses early closes its side before it has read everything.
        match stream.write_all(body) {
            Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {}
            written => written.unwrap(),
        }
        answer(stream)
    }

    /// A request and its whole answer.
    pub(crate) fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        self.begin(method, path, headers, body).read().unwrap()
    }

    pub(crate) fn get(&self, path: &str) -> Reply {
        self.ask("GET", path, &[], b"")
    }

    /// Posts a message under a protocol, in a session if there is one.
    pub(crate) fn post(&self, protocol: &str, session: Option<&str>, message: &Value) -> Stream {
        let mut headers =
            vec![("Content-Type", "application/json"), ("Accept", "application/json, text/event-stream")];
        let bearer = self.token.as_ref().map(|token| format!("Bearer {token}"));
        headers.extend(bearer.as_ref().map(|bearer| ("Authorization", bearer.as_str())));
        headers.extend(session.map(|session| ("Mcp-Session-Id", session)));
        let method = message["method"].as_str().unwrap();
        if method != "initialize" || protocol == NEWEST {
            headers.push(("MCP-Protocol-Version", protocol));
        }
        let mut message = message.clone();
        if protocol == NEWEST {
            headers.push(("Mcp-Method", method));
            let name = message["params"]["name"].as_str().or(message["params"]["uri"].as_str());
            headers.extend(name.map(|name| ("Mcp-Name", name)).map(own_name));
            introduce(&mut message);
        }
        self.begin("POST", "/mcp", &headers, message.to_string().as_bytes())
    }

    /// The messages that answer a request, the answer last.
    pub(crate) fn request(
        &self,
        protocol: &str,
        session: Option<&str>,
        method: &str,
        params: &Value,
    ) -> Vec<Value> {
        let message = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let reply = self.post(protocol, session, &message).read().unwrap();
        assert!(reply.body.len() < LARGEST_REPLY, "{} bytes", reply.body.len());
        let messages = reply.messages();
        assert_eq!(messages.last().unwrap()["id"], 1, "{} {}", reply.status, reply.text());
        messages
    }

    /// Shakes hands; the session.
    pub(crate) fn session(&self, protocol: &str) -> String {
        let client = json!({"name": "test", "version": "1"});
        let params = json!({"protocolVersion": protocol, "capabilities": {}, "clientInfo": client});
        let message = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params});
        let reply = self.post(protocol, None, &message).read().unwrap();
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert_eq!(reply.messages()[0]["result"]["protocolVersion"], protocol, "{}", reply.text());
        let session = reply.header("mcp-session-id").unwrap().to_owned();
        let told = self.post(
            protocol,
            Some(&session),
            &json!({"jsonrpc": "2.0", "method": "notifications/initialized"}),
        );
        assert_eq!(told.status, 202);
        session
    }

    /// Asks the server to end, and waits; what it wrote on standard output, which must be nothing, comes too. The log
    /// is whole after that.
    #[track_caller]
    pub(crate) fn terminate(mut self) -> (ExitStatus, String) {
        let asked = Command::new("kill").args(["-TERM", &self.id().to_string()]).status().unwrap();
        assert!(asked.success());
        let status = ended(&mut self.child);
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        let mut said = String::new();
        self.child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        (status, said)
    }
}

impl Drop for Http {
    fn drop(&mut self) {
        // A test that failed leaves it behind.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The head of the answer that comes on a stream.
pub(crate) fn answer(stream: TcpStream) -> Stream {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    loop {
        let before = head.len();
        assert!(reader.read_line(&mut head).unwrap() > 0, "the server hung up: {head}");
        if head[before..].trim().is_empty() {
            break;
        }
    }
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Stream { reader, status, head }
}

/// Says in a message what the newest protocol wants to hear in each.
pub(crate) fn introduce(message: &mut Value) {
    let meta = &mut message["params"]["_meta"];
    meta["io.modelcontextprotocol/protocolVersion"] = json!(NEWEST);
    meta["io.modelcontextprotocol/clientInfo"] = json!({"name": "test", "version": "1"});
    meta["io.modelcontextprotocol/clientCapabilities"] = json!({});
}

/// Names of tools and resources are short: a header may borrow them for the length of a test.
fn own_name((header, name): (&'static str, &str)) -> (&'static str, &'static str) {
    (header, Box::leak(name.to_owned().into_boxed_str()))
}

/// The executable with none of the caller's settings.
pub(crate) fn command(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_infill"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("INFILL_") {
            command.env_remove(name);
        }
    }
    command.env("XDG_CONFIG_HOME", home).env("HOME", home).stdin(Stdio::null());
    command
}

/// Waits until something is so.
pub(crate) fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    let began = std::time::Instant::now();
    while !so() {
        assert!(began.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
