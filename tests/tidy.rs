//! The invariants of `docs/architecture.md`, checked on the files themselves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};

/// A text file of the project.
struct File {
    /// Relative to the root, with forward slashes.
    path: String,
    text: String,
}

impl File {
    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// True for what only tests, benches and examples compile.
    fn is_test(&self) -> bool {
        ["tests", "benches", "examples", "fuzz"]
            .iter()
            .any(|dir| self.path.split('/').any(|part| part == *dir))
            || self.path.ends_with("/tests.rs")
            || self.path.ends_with("/testing.rs")
            || self.path.ends_with("_tests.rs")
    }

    /// The numbered lines of code that is built into the product: comments and test modules are left out.
    fn product_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        let end = self.text.find("#[cfg(test)]\nmod ").unwrap_or(self.text.len());
        self.text[..end].lines().enumerate().map(|(i, line)| (i + 1, line)).filter(|(_, line)| {
            let line = line.trim_start();
            !line.starts_with("//")
        })
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file of the project, without build outputs.
fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
    const SKIPPED: [&str; 8] =
        [".git", "target", "oracle-work", "work", ".venv", "__pycache__", "node_modules", "corpus"];
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() && !SKIPPED.contains(&name) {
            walk(&path, found);
        } else if path.is_file() && !SKIPPED.contains(&name) {
            found.push(path);
        }
    }
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().to_str().unwrap().replace('\\', "/")
}

fn all_paths() -> Vec<PathBuf> {
    let mut found = Vec::new();
    walk(root(), &mut found);
    found.sort();
    found
}

fn text_files() -> Vec<File> {
    all_paths()
        .into_iter()
        .filter_map(|path| Some(File { path: relative(&path), text: fs::read_to_string(&path).ok()? }))
        .collect()
}

/// The Rust files of the product itself.
fn product() -> Vec<File> {
    let files: Vec<File> = text_files().into_iter().filter(|f| f.is_rust() && !f.is_test()).collect();
    assert!(files.len() > 20, "only {} source files were found", files.len());
    files
}

fn assert_none(rule: &str, violations: &[String]) {
    assert!(violations.is_empty(), "{rule}\n{}", violations.join("\n"));
}

/// Product lines of the files that `applies` picks and that hold one of `words`.
fn lines_with(applies: impl Fn(&File) -> bool, words: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for file in product().iter().filter(|f| applies(f)) {
        for (number, line) in file.product_lines() {
            let code = line.split(" // ").next().unwrap_or(line);
            for word in words.iter().filter(|word| code.contains(**word)) {
                found.push(format!("{}:{number}: `{word}` in `{}`", file.path, line.trim()));
            }
        }
    }
    found
}

/// The rooms of the architecture page, each with the rooms that it may name: `crates/engine -> networks, models`.
fn edges_of_the_page() -> BTreeMap<String, Option<BTreeSet<String>>> {
    let page = fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    let rooms = page.lines().filter(|line| line.starts_with("infill") && line.contains(" -> "));
    rooms
        .map(|line| {
            let (room, edges) = line.rsplit_once(" -> ").unwrap();
            let name = room.split_whitespace().next().unwrap().to_owned();
            let edges = match edges.trim() {
                "all below" => None,
                "none of ours" | "candle only" => Some(BTreeSet::new()),
                list => Some(list.split(", ").map(|e| format!("infill-{e}")).collect()),
            };
            (name, edges)
        })
        .collect()
}

/// The manifests of the workspace: package name, folder, parsed file.
fn manifests() -> Vec<(String, String, toml::Table)> {
    let parse = |path: &Path| fs::read_to_string(path).unwrap().parse::<toml::Table>().unwrap();
    let workspace = parse(&root().join("Cargo.toml"));
    let members = workspace["workspace"]["members"].as_array().unwrap();
    let folders = members.iter().map(|m| m.as_str().unwrap().to_owned()).chain([String::new()]);
    folders
        .map(|folder| {
            let manifest = parse(&root().join(&folder).join("Cargo.toml"));
            (manifest["package"]["name"].as_str().unwrap().to_owned(), folder, manifest)
        })
        .collect()
}

#[test]
fn the_rooms_have_the_edges_of_the_architecture_page() {
    let page = edges_of_the_page();
    let mut names = BTreeSet::new();
    for (name, _, manifest) in manifests() {
        let dependencies = manifest["dependencies"].as_table().unwrap();
        let ours: BTreeSet<String> =
            dependencies.keys().filter(|k| k.starts_with("infill")).cloned().collect();
        match page.get(&name) {
            None => panic!("{name} does not stand in docs/architecture.md"),
            Some(None) => {}
            Some(Some(allowed)) => {
                assert_eq!(&ours, allowed, "edges of {name}; docs/architecture.md says otherwise")
            }
        }
        names.insert(name);
    }
    assert_eq!(names, page.into_keys().collect(), "rooms of the workspace and of docs/architecture.md");
}

#[test]
fn every_room_states_its_invariant_and_takes_the_workspace_lints() {
    for (name, folder, manifest) in manifests() {
        assert_eq!(
            manifest["lints"]["workspace"].as_bool(),
            Some(true),
            "{name} does not take the workspace's lints"
        );
        let entry =
            if folder.is_empty() { "crates/cli/main.rs".into() } else { format!("{folder}/src/lib.rs") };
        let text = fs::read_to_string(root().join(&entry)).unwrap();
        assert!(text.starts_with("//! "), "{entry} does not begin with its purpose");
        assert!(text.contains("//! # Architecture invariant"), "{entry} states no architecture invariant");
    }
}

#[test]
fn only_the_server_knows_protocols_and_futures() {
    let asynchronous = ["tokio", "rmcp", "axum", "async fn", ".await", "std::net"];
    let inner = |f: &File| {
        ["crates/engine/", "crates/networks/", "crates/store/", "models/", "kernels/"]
            .iter()
            .any(|dir| f.path.starts_with(dir))
    };
    assert_none("protocols, sockets and futures belong to crates/mcp", &lines_with(inner, &asynchronous));
    let engine = |f: &File| f.path.starts_with("crates/engine/");
    let outside = ["std::fs", "std::path", "PathBuf", "AssetId", "std::env", "std::io::stdin"];
    assert_none("the engine sees no path, no file and no asset", &lines_with(engine, &outside));
}

#[test]
fn only_the_command_line_writes_to_stdout() {
    let others = |f: &File| !f.path.starts_with("crates/cli/") && !f.path.ends_with("build.rs");
    let words = ["println!", "print!(", "stdout()", "dbg!("];
    let mut found = lines_with(others, &words);
    // The one place where the server is handed the wire.
    found.retain(|line| !(line.starts_with("crates/mcp/src/lib.rs") && line.contains("tokio::io::stdout()")));
    assert_none("stdout is the wire of the server: only crates/cli writes there", &found);
}

#[test]
fn unsafe_code_stands_in_the_kernels_and_in_one_file() {
    let words = ["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern"];
    let permitted =
        |f: &File| f.path.starts_with("kernels/") || f.path == "crates/networks/src/tensor_file.rs";
    assert_none("unsafe belongs to kernels/ and tensor_file.rs", &lines_with(|f| !permitted(f), &words));
    let mut bare = Vec::new();
    for file in product() {
        let lines: Vec<&str> = file.text.lines().collect();
        for (number, line) in file.product_lines().filter(|(_, l)| words.iter().any(|word| l.contains(word)))
        {
            // A function states what its caller owes, a block why it is kept.
            let promise = if line.contains("unsafe fn") { "# Safety" } else { "SAFETY:" };
            if !lines[number.saturating_sub(9)..number].iter().any(|l| l.contains(promise)) {
                bare.push(format!("{}:{number}: {}", file.path, line.trim()));
            }
        }
    }
    assert_none("each unsafe block has a SAFETY: comment, each unsafe function a Safety section", &bare);
}

#[test]
fn nothing_is_left_undone_or_switched_off() {
    let undone = ["todo!(", "unimplemented!("];
    assert_none("nothing is left to do", &lines_with(|_| true, &undone));
    let abrupt = [".unwrap()", ".expect(\"", "panic!(", "unreachable!("];
    assert_none("an error is returned, not thrown", &lines_with(|_| true, &abrupt));
    let ignored = concat!("#[", "ignore");
    let found: Vec<_> =
        text_files().into_iter().filter(|f| f.is_rust() && f.text.contains(ignored)).collect();
    let found: Vec<String> = found.into_iter().map(|f| f.path).collect();
    assert_none("no test is switched off", &found);
}

#[test]
fn no_tensor_operation_draws_its_own_randomness() {
    let words =
        ["Tensor::randn", "Tensor::rand", "rand_like", "randn_like", "thread_rng", "rand::rng", "getrandom"];
    let inner = |f: &File| {
        f.path.starts_with("crates/engine/")
            || f.path.starts_with("crates/networks/")
            || f.path.starts_with("kernels/")
    };
    assert_none("noise comes from crates/engine/src/noise alone", &lines_with(inner, &words));
}

#[test]
fn every_forward_pass_states_its_shapes() {
    let mut silent = Vec::new();
    for file in product().iter().filter(|f| f.path.starts_with("crates/networks/")) {
        let lines: Vec<&str> = file.text.lines().collect();
        for (number, line) in file.product_lines() {
            if !line.trim_start().starts_with("pub fn forward") {
                continue;
            }
            let docs = lines[..number - 1].iter().rev().map(|l| l.trim_start());
            let mut docs = docs.take_while(|l| l.starts_with("///") || l.starts_with("#["));
            if !docs.any(|l| l.contains('(') && l.contains(',')) {
                silent.push(format!("{}:{number}", file.path));
            }
        }
    }
    assert_none("every public forward says `(B,..)` for what goes in and comes out", &silent);
}

#[test]
fn files_are_short_and_small() {
    let mut long = Vec::new();
    for file in text_files() {
        let code =
            ["rs", "cu", "cuh", "metal", "py", "sh"].iter().any(|e| file.path.ends_with(&format!(".{e}")));
        let lines = file.text.lines().count();
        if code && lines > 800 {
            long.push(format!("{}: {lines} lines", file.path));
        }
    }
    assert_none("a file has one subject, and at most 800 lines", &long);
    let large: Vec<String> = all_paths()
        .iter()
        .filter(|path| fs::metadata(path).unwrap().len() > 20 << 20)
        .map(|path| relative(path))
        .collect();
    assert_none("no file over 20 MiB", &large);
}

/// Hosts that the project's own text may point to. Anything else is somebody's machine or a slip.
const HOSTS: [&str; 7] =
    ["127.0.0.1", "localhost", "example.com", "github.com", "huggingface.co", "www.apache.org", "www.w3.org"];

#[test]
fn no_file_names_a_machine() {
    // In pieces, so that this file does not find itself.
    let homes =
        [("/ho", "me/"), ("/ro", "ot/"), ("/wo", "rk/"), ("/Use", "rs/"), ("/m", "nt/"), ("C:", "\\\\")];
    let homes = homes.map(|(a, b)| format!("{a}{b}"));
    let mut found = Vec::new();
    for file in text_files() {
        for (number, line) in file.text.lines().enumerate() {
            let at = |what: &str| format!("{}:{}: {what}", file.path, number + 1);
            found.extend(homes.iter().filter(|home| line.contains(*home)).map(|home| at(home)));
            for url in line.split("://").skip(1) {
                let host: String =
                    url.chars().take_while(|c| c.is_ascii_alphanumeric() || ".-".contains(*c)).collect();
                if host.contains('.') && !HOSTS.contains(&host.as_str()) {
                    found.push(at(&host));
                }
            }
        }
    }
    assert_none("no path of a machine, no unknown host", &found);
}

#[test]
fn links_in_the_documents_lead_somewhere() {
    let mut broken = Vec::new();
    for file in text_files().iter().filter(|f| f.path.ends_with(".md")) {
        let folder = root().join(&file.path).parent().unwrap().to_owned();
        for target in file.text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next()) {
            if !target.is_empty() && !target.contains("://") && !folder.join(target).exists() {
                broken.push(format!("{}: {target}", file.path));
            }
        }
    }
    assert_none("links lead to files that are there", &broken);
}

#[test]
fn without_the_hub_there_is_no_network_client() {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--workspace", "--edges", "normal,build", "--prefix", "none", "--format", "{p} | {f}"])
        .args(["--locked", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    let tree = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "cargo tree: {}", String::from_utf8_lossy(&output.stderr));
    let packages = tree.lines().filter_map(|line| line.split_once(" | "));
    let names: BTreeSet<&str> = packages
        .filter_map(|(package, features)| {
            let name = package.split_whitespace().next()?;
            let features = features.trim_end_matches("(*)").trim();
            // The server's own half of these is no client.
            let serves = matches!(name, "hyper" | "hyper-util")
                && !features.split(',').any(|feature| feature.starts_with("client"));
            (!serves).then_some(name)
        })
        .collect();
    assert!(names.contains("candle-core"), "cargo tree shows no candle-core:\n{tree}");
    let clients = [
        "attohttpc",
        "curl",
        "h2",
        "hf-hub",
        "hyper",
        "hyper-util",
        "isahc",
        "minreq",
        "native-tls",
        "openssl",
        "quinn",
        "reqwest",
        "rustls",
        "surf",
        "tungstenite",
        "ureq",
    ];
    let found: Vec<String> =
        clients.iter().filter(|c| names.contains(**c)).map(|c| (*c).to_owned()).collect();
    assert_none("network clients in the dependency tree of the default features", &found);
}

#[test]
fn the_served_schemas_are_the_published_ones() {
    let published = [
        (
            "crates/mcp/src/tools/post-inpaint-inferences.tool.json",
            "6162af345add358f98377e4a5a616c4411d4d6a7bc2da62dc9f00f39cd87d5c7",
        ),
        (
            "crates/mcp/src/tools/post-inpaint-ip-adapter-inferences.tool.json",
            "062120dc7b3be715e3a497eb5c0da71c51127bc82976d6247346a9e470912bbf",
        ),
    ];
    for (path, digest) in published {
        let bytes = fs::read(root().join(path)).unwrap();
        let found: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(found, digest, "{path} was changed");
    }
}

#[test]
fn every_parameter_of_the_tools_is_explained_and_shown() {
    let schema = |tool: &str| -> BTreeSet<String> {
        let path = root().join(format!("crates/mcp/src/tools/{tool}.tool.json"));
        let tool: serde_json::Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        tool["inputSchema"]["properties"].as_object().unwrap().keys().cloned().collect()
    };
    let (first, second) = (schema("post-inpaint-inferences"), schema("post-inpaint-ip-adapter-inferences"));
    assert_eq!((first.len(), second.len()), (26, 33));
    let page = fs::read_to_string(root().join("docs/parameters.md")).unwrap();
    let (both, references) = page.split_once("\n## Of reference pictures\n").unwrap();
    let tests: String = text_files().into_iter().filter(|f| f.is_rust()).map(|f| f.text).collect();
    let mut unshown = Vec::new();
    for (part, expected) in [(both, first.clone()), (references, &second - &first)] {
        let rows = part.lines().filter(|line| line.starts_with("| `"));
        let rows: BTreeMap<String, &str> = rows
            .map(|row| {
                let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
                assert_eq!(cells.len(), 3, "{row}");
                (cells[0].trim_matches('`').to_owned(), cells[2].trim_matches('`'))
            })
            .collect();
        assert_eq!(rows.keys().cloned().collect::<BTreeSet<_>>(), expected, "rows of docs/parameters.md");
        let is_test = |name: &str| tests.contains(&format!("#[test]\nfn {name}() {{"));
        unshown.extend(rows.iter().filter(|(_, test)| !is_test(test)).map(|row| format!("{row:?}")));
    }
    assert_none("docs/parameters.md names a test for each parameter", &unshown);
}
