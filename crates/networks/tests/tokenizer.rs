//! Token ids against those of transformers, from the real vocabulary in every form that it is published in.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use infill_networks::prompt::{Chunks, Limit, Prompt};
use infill_networks::tokenizer::ClipTokenizer;
use serde_json::{Value, json};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(name)
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// A folder with the real vocabulary and the published settings of one of a model's tokenizers.
fn folder(model: &str, tokenizer: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for file in ["vocab.json", "merges.txt"] {
        std::fs::copy(fixture("clip-tokenizer").join(file), dir.path().join(file)).unwrap();
    }
    for file in ["tokenizer_config.json", "special_tokens_map.json"] {
        let from = fixture("configs").join(model).join(tokenizer).join(file);
        std::fs::copy(from, dir.path().join(file)).unwrap();
    }
    dir
}

fn vectors(kind: &str) -> Vec<(String, Vec<u32>)> {
    let all = read(&fixture("tokens/token_vectors.json"));
    let rows = all[kind].as_array().unwrap();
    assert!(rows.len() > 50);
    rows.iter()
        .map(|row| {
            (row["prompt"].as_str().unwrap().to_owned(), serde_json::from_value(row["ids"].clone()).unwrap())
        })
        .collect()
}

fn check(dir: &Path, kind: &str, pad: u32) {
    let tokenizer = ClipTokenizer::open(dir).unwrap();
    assert_eq!((tokenizer.pad_token_id(), tokenizer.model_max_length()), (pad, 77));
    let mut different = Vec::new();
    for (prompt, ids) in vectors(kind) {
        let own = tokenizer.encode(&prompt).unwrap();
        if own != ids {
            different.push((prompt.clone(), ids.clone(), own));
        }
        let mut padded = ids.clone();
        if ids.len() > 77 {
            padded.truncate(76);
            padded.push(49407);
        }
        padded.resize(77, pad);
        let Chunks { chunks, cut } = Prompt::plain(&prompt).chunks(&tokenizer, &[], Limit::OneChunk).unwrap();
        let cut = cut.map_or(0, |cut| cut.tokens);
        assert_eq!((&chunks[0].ids, cut), (&padded, ids.len().saturating_sub(77)), "{prompt:?}");
        assert_eq!((chunks.len(), &chunks[0].weights), (1, &None));
    }
    assert!(different.is_empty(), "{different:#?}");
}

#[test]
fn sdxl_first_tokenizer() {
    check(folder("sdxl-base-1.0", "tokenizer").path(), "pads_with_end", 49407);
}

#[test]
fn sdxl_second_tokenizer() {
    check(folder("sdxl-base-1.0", "tokenizer_2").path(), "pads_with_bang", 0);
}

#[test]
fn stable_diffusion_tokenizer() {
    check(folder("sd-1.5", "tokenizer").path(), "pads_with_end", 49407);
}

#[test]
fn one_file_instead_of_two() {
    let dir = folder("sdxl-base-1.0", "tokenizer_2");
    let at = |name: &str| dir.path().join(name);
    let merges = std::fs::read_to_string(at("merges.txt")).unwrap();
    let merges: Vec<Vec<&str>> = merges.lines().skip(1).map(|line| line.split(' ').collect()).collect();
    let added = json!([
        {"id": 0, "content": "!", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
         "special": true},
        {"id": 49407, "content": "<|endoftext|>", "single_word": false, "lstrip": false, "rstrip": false,
         "normalized": true, "special": true},
    ]);
    let whole = json!({"added_tokens": added, "model": {"type": "BPE", "vocab": read(&at("vocab.json")), "merges": merges}});
    std::fs::write(at("tokenizer.json"), whole.to_string()).unwrap();
    for file in ["vocab.json", "merges.txt", "special_tokens_map.json"] {
        std::fs::remove_file(at(file)).unwrap();
    }
    check(dir.path(), "pads_with_bang", 0);
}

#[test]
fn the_cut_text_is_what_was_written() {
    let dir = folder("sdxl-base-1.0", "tokenizer");
    let tokenizer = ClipTokenizer::open(dir.path()).unwrap();
    let prompt = format!("{}A TIGER, écru", "word ".repeat(75));
    let cut = Prompt::plain(&prompt).chunks(&tokenizer, &[], Limit::OneChunk).unwrap().cut.unwrap();
    assert_eq!(&prompt[cut.from..], "A TIGER, écru");
    assert_eq!(cut.tokens, tokenizer.encode("A TIGER, écru").unwrap().len() - 2);
}

#[test]
fn the_map_of_special_tokens_wins_over_the_settings() {
    let dir = folder("sdxl-base-1.0", "tokenizer_2");
    let path = dir.path().join("tokenizer_config.json");
    let mut config = read(&path);
    config["pad_token"] = json!("<|endoftext|>");
    std::fs::write(&path, config.to_string()).unwrap();
    assert_eq!(ClipTokenizer::open(dir.path()).unwrap().pad_token_id(), 0);
    config["added_tokens_decoder"] = json!({"49407": {"content": "<|endoftext|>", "normalized": true}});
    std::fs::write(&path, config.to_string()).unwrap();
    assert_eq!(ClipTokenizer::open(dir.path()).unwrap().pad_token_id(), 49407);
}

#[test]
fn damaged_folders_are_refused_with_the_file() {
    let dir = folder("sdxl-base-1.0", "tokenizer");
    let path = |name: &str| dir.path().join(name);
    let refused = |part: &str| {
        let error = ClipTokenizer::open(dir.path()).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    };
    let spoil = |name: &str, text: &str, part: &str| {
        let whole = std::fs::read(path(name)).unwrap();
        std::fs::write(path(name), text).unwrap();
        refused(part);
        std::fs::write(path(name), whole).unwrap();
    };
    spoil("vocab.json", "{", "vocab.json: is not a JSON object");
    spoil("vocab.json", r#"{"a": -1}"#, r#"gives token "a" the id -1"#);
    let highest = r#"{"<|startoftext|>": 0, "a": 4294967295}"#;
    spoil(
        "vocab.json",
        highest,
        r#"gives token "a" the id 4294967295; needed: a whole number from 0 to 262143"#,
    );
    spoil("vocab.json", r#"{"a": 1}"#, "out of vocabulary");
    spoil("merges.txt", "#version: 0.2\na b c\n", r#"has the merge "a b c""#);
    spoil("merges.txt", "#version: 0.2\nnot there\n", "out of vocabulary");
    spoil("tokenizer_config.json", "{}", "gives model_max_length as null; allowed: 3 to 4096");
    spoil("special_tokens_map.json", r#"{"pad_token": 3}"#, "gives pad_token as 3");
    spoil("special_tokens_map.json", "[]", "special_tokens_map.json: is not a JSON object");
    std::fs::remove_file(path("merges.txt")).unwrap();
    refused("merges.txt: can't be read");
}
