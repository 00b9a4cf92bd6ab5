//! The executable as a host runs it: one child process, JSON lines in both directions.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::schema;

/// Long enough for any answer on a slow machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);

/// Official clients end the process two seconds after they close its input.
pub(crate) const LET_GO: Duration = Duration::from_secs(2);

/// No message of the server is as long: some hosts would take no more.
pub(crate) const LARGEST_REPLY: usize = 1 << 20;

/// The first tool.
pub(crate) const TOOL: &str = "post-inpaint-inferences";
/// The tool that takes reference pictures.
pub(crate) const REFERENCE_TOOL: &str = "post-inpaint-ip-adapter-inferences";

/// A file of `tests/fixtures`.
pub(crate) fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(path)
}

/// The `file://` URL of a fixture.
pub(crate) fn url(path: &str) -> String {
    format!("file://{}", fixture(path).display())
}

/// A running server.
pub(crate) struct Server {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<Vec<u8>>,
    next_id: u64,
    /// The notifications that came so far.
    pub(crate) notifications: Vec<Value>,
    /// What the server says of itself.
    pub(crate) instructions: String,
    /// What each tool says of its replies.
    output_schemas: HashMap<String, Value>,
}

impl Server {
    /// Starts the server over this store and shakes hands.
    pub(crate) fn start(store: &Path) -> Self {
        Self::start_silent(store).greeted()
    }

    /// As [`Server::start`], with this wait limit.
    pub(crate) fn start_waiting(store: &Path, seconds: u32) -> Self {
        Self::start_with(store, &["--wait-seconds", &seconds.to_string()])
    }

    /// As [`Server::start`], with another models folder.
    pub(crate) fn start_with_models(store: &Path, models: &Path) -> Self {
        Self::start_over(store, models, &[]).greeted()
    }

    /// As [`Server::start`], with more on its command line.
    pub(crate) fn start_with(store: &Path, more: &[&str]) -> Self {
        Self::start_over(store, &fixture("models"), more).greeted()
    }

    fn greeted(self) -> Self {
        let mut server = self;
        let client = json!({"name": "test", "version": "1"});
        let params = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client});
        let answer = server.request("initialize", &params);
        assert_eq!(answer["result"]["protocolVersion"], "2025-11-25", "{answer}");
        server.instructions = answer["result"]["instructions"].as_str().unwrap().to_owned();
        server.send(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
        let listed = server.request("tools/list", &json!({}));
        let tools = listed["result"]["tools"].as_array().unwrap().iter();
        server.output_schemas = tools
            .map(|tool| (tool["name"].as_str().unwrap().to_owned(), tool["outputSchema"].clone()))
            .collect();
        server
    }

    /// Starts the server and says nothing.
    pub(crate) fn start_silent(store: &Path) -> Self {
        Self::start_over(store, &fixture("models"), &[])
    }

    fn start_over(store: &Path, models: &Path, more: &[&str]) -> Self {
        Self::run(Self::command(store, models).args(waiting(more)).args(more))
    }

    /// As [`Server::start_with_models`], where neither the user's cache nor a passing folder can be written to.
    pub(crate) fn start_without_cache(store: &Path, models: &Path) -> Self {
        let file = std::env::current_exe().unwrap();
        let mut command = Self::command(store, models);
        Self::run(command.args(waiting(&[])).env("XDG_CACHE_HOME", &file).env("TMPDIR", &file)).greeted()
    }

    fn command(store: &Path, models: &Path) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_infill"));
        command
            .arg("serve")
            .args(["--device", "cpu"])
            .arg("--store")
            .arg(store)
            .arg("--allow-dir")
            .arg(fixture("images"))
            .arg("--models")
            .arg(models)
            // None of the caller's settings and models.
            .env_remove("INFILL_CONFIG")
            .env("HF_HUB_CACHE", store)
            .env("XDG_CONFIG_HOME", store)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        command
    }

    /// Starts what a command says, whose input and output are pipes; not yet greeted.
    pub(crate) fn run(command: &mut Command) -> Self {
        let mut child = command.spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in output.split(b'\n') {
                if sender.send(line.unwrap()).is_err() {
                    return;
                }
            }
        });
        let input = child.stdin.take();
        Self {
            child,
            input,
            lines,
            next_id: 1,
            notifications: Vec::new(),
            instructions: String::new(),
            output_schemas: HashMap::new(),
        }
    }

    /// Sends bytes as they are.
    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        let input = self.input.as_mut().unwrap();
        input.write_all(bytes).unwrap();
        input.flush().unwrap();
    }

    /// Sends a line as it is.
    pub(crate) fn send_line(&mut self, line: &[u8]) {
        self.send_bytes(line);
        self.send_bytes(b"\n");
    }

    /// Ends the input, wherever it is.
    pub(crate) fn close_input(&mut self) {
        self.input.take();
    }

    pub(crate) fn send(&mut self, message: &Value) {
        self.send_line(message.to_string().as_bytes());
    }

    /// The next message, which must be one: whatever else is on stdout is a failure.
    pub(crate) fn receive(&mut self) -> Value {
        let line = self.lines.recv_timeout(PATIENCE).expect("the server says nothing");
        assert!(line.len() < LARGEST_REPLY, "{} bytes", line.len());
        let message: Value = serde_json::from_slice(&line).expect("a line on stdout is no JSON");
        assert_eq!(message["jsonrpc"], "2.0", "{message}");
        message
    }

    /// An id that no request has yet.
    pub(crate) fn next_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id - 1
    }

    /// Sends a request without waiting for its answer.
    pub(crate) fn begin(&mut self, method: &str, params: &Value) -> u64 {
        let id = self.next_id();
        self.send(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}));
        id
    }

    /// The answer to a request; notifications before it are kept.
    pub(crate) fn answer(&mut self, id: u64) -> Value {
        loop {
            let message = self.receive();
            if message["id"] == id {
                return message;
            }
            assert!(message.get("method").is_some(), "an answer to no request: {message}");
            self.notifications.push(message);
        }
    }

    /// The answer to a request while others are not answered; what else comes before it is kept or let go.
    pub(crate) fn answer_among(&mut self, id: u64) -> Value {
        loop {
            let message = self.receive();
            if message["id"] == id {
                return message;
            }
            if message.get("method").is_some() {
                self.notifications.push(message);
            }
        }
    }

    pub(crate) fn request(&mut self, method: &str, params: &Value) -> Value {
        let id = self.begin(method, params);
        self.answer(id)
    }

    /// Calls the first tool; the result, failed or not.
    pub(crate) fn call(&mut self, arguments: &Value) -> Value {
        self.call_tool(TOOL, arguments)
    }

    /// Calls a tool; the result, failed or not. One that did not fail holds what the tool says of it.
    pub(crate) fn call_tool(&mut self, name: &str, arguments: &Value) -> Value {
        let answer = self.request("tools/call", &json!({"name": name, "arguments": arguments}));
        assert!(answer.get("result").is_some(), "{answer}");
        let result = answer["result"].clone();
        match self.output_schemas.get(name) {
            Some(schema) if result["isError"] != true => {
                schema::check(&result["structuredContent"], schema, "structuredContent");
            }
            _ => {}
        }
        result
    }

    /// The process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Closes stdin and waits for the end.
    #[track_caller]
    pub(crate) fn finish(mut self) -> ExitStatus {
        self.input.take();
        ended(&mut self.child)
    }

    /// Kills the server as a crash would.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// How long calls wait, unless a test says so itself: a machine may be so slow that with the server's own limit they
/// would be answered with a job that is not done.
pub(crate) fn waiting(more: &[&str]) -> &'static [&'static str] {
    if more.contains(&"--wait-seconds") { &[] } else { &["--wait-seconds", "170"] }
}

/// Waits for the end of a server, but not for ever.
#[track_caller]
pub(crate) fn ended(child: &mut Child) -> ExitStatus {
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if began.elapsed() > PATIENCE {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("the server did not end within {PATIENCE:?} and was killed");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Tries something that must be quick, up to three times, each in a fresh folder: a machine that is busy with other
/// work may make it late, but hardly each time, while a server that is slow by itself is late each time.
#[track_caller]
pub(crate) fn one_of_three<T>(attempt: impl Fn(&Path) -> Result<T, Duration>) -> (TempDir, T) {
    let mut late = Vec::new();
    for _ in 0..3 {
        let dir = tempfile::tempdir().unwrap();
        match attempt(dir.path()) {
            Ok(value) => return (dir, value),
            Err(took) => late.push(took),
        }
    }
    panic!("late each time: {late:?}");
}

/// Small arguments that run in a moment, with changes.
pub(crate) fn arguments(changes: &Value) -> Value {
    let mut arguments = json!({
        "modelId": "tiny-sd15-inpaint", "prompt": "a red hat", "seed": "7", "numSamples": 1, "numInferenceSteps": 3,
        "width": 64, "height": 64, "image": url("images/init.png"), "mask": url("images/mask.png")
    });
    arguments.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    arguments
}

/// All text of a result.
pub(crate) fn text(result: &Value) -> String {
    let blocks = result["content"].as_array().unwrap();
    let texts: Vec<&str> = blocks.iter().filter_map(|block| block["text"].as_str()).collect();
    texts.join("\n")
}

/// The files that a result links, in order.
pub(crate) fn files(result: &Value) -> Vec<PathBuf> {
    assert_eq!(result["isError"], false, "{result}");
    let links = result["content"].as_array().unwrap().iter().filter(|block| block["type"] == "resource_link");
    links.map(|link| link["uri"].as_str().unwrap().strip_prefix("file://").unwrap().into()).collect()
}

/// The pixels of each picture that a result links, in order.
pub(crate) fn pixels(result: &Value) -> Vec<image::RgbImage> {
    files(result).iter().map(|path| image::open(path).unwrap().to_rgb8()).collect()
}

/// The memory that a process holds, in MiB; 0 where the system does not tell.
pub(crate) fn memory(process: u32) -> u64 {
    let Ok(status) = std::fs::read_to_string(format!("/proc/{process}/status")) else { return 0 };
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() / 1024
}
