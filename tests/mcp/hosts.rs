//! The blocks of `docs/mcp.md` that hosts are given: each is read as its host reads it, and what it starts answers.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::client::command;
use crate::harness::Server;

/// The fenced blocks of the section on hosts: language and text.
fn blocks() -> Vec<(String, String)> {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/mcp.md")).unwrap();
    let section = page.split("\n## Hosts\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let fenced = section.split("```").skip(1).step_by(2);
    fenced
        .map(|block| {
            let (language, text) = block.split_once('\n').unwrap();
            (language.to_owned(), text.to_owned())
        })
        .collect()
}

/// The arguments of every entry within a value that starts infill.
fn entries(value: &Value, found: &mut Vec<Vec<String>>) {
    if value["command"] == "infill" {
        found.push(serde_json::from_value(value["args"].clone()).unwrap());
    }
    for inner in value.as_object().into_iter().flatten().map(|(_, inner)| inner) {
        entries(inner, found);
    }
}

/// What a host starts after reading the block.
fn started(language: &str, text: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    match language {
        "json" => entries(&serde_json::from_str(text).unwrap(), &mut found),
        "toml" => entries(&serde_json::to_value(text.parse::<toml::Table>().unwrap()).unwrap(), &mut found),
        "yaml" => {
            assert!(text.lines().any(|line| line.trim() == "cmd: infill"), "{text}");
            let list = text.lines().find_map(|line| line.trim().strip_prefix("args: [")).unwrap();
            found.push(
                list.trim_end_matches(']').split(", ").map(|arg| arg.trim_matches('"').to_owned()).collect(),
            );
        }
        "sh" => {
            let typed = text.lines().filter_map(|line| line.split_once(" -- infill "));
            found.extend(typed.map(|(_, rest)| rest.split(' ').map(str::to_owned).collect()));
        }
        other => panic!("there is no host that reads {other}"),
    }
    found
}

#[test]
fn what_hosts_are_told_to_start_answers() {
    let dir = tempfile::tempdir().unwrap();
    for folder in ["models", "pictures"] {
        fs::create_dir(dir.path().join(folder)).unwrap();
    }
    let all: Vec<Vec<String>> =
        blocks().iter().flat_map(|(language, text)| started(language, text)).collect();
    assert_eq!(all.len(), 6, "{all:?}");
    for args in all {
        // The places that the reader puts in.
        let real = |arg: &String| {
            let arg = arg.replace("${workspaceFolder}", "/path/to/pictures");
            arg.replace("/path/to", dir.path().to_str().unwrap())
        };
        let mut server = Server::run(
            command(dir.path())
                .args(args.iter().map(real))
                .arg("--store")
                .arg(dir.path().join("store"))
                .stdin(Stdio::piped())
                .stdout(Stdio::piped()),
        );
        let client = json!({"name": "test", "version": "1"});
        let params = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client});
        let message = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params});
        server.send(&message);
        let answer = server.receive();
        assert_eq!(answer["result"]["serverInfo"]["name"], "infill", "{args:?}: {answer}");
        assert!(server.finish().success(), "{args:?}");
    }
}
