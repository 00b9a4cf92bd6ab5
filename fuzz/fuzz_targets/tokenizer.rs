//! A tokenizer.json from anywhere, and a prompt from anywhere.
#![no_main]

use infill_networks::tokenizer::ClipTokenizer;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&[u8], &str)| {
    let (bytes, prompt) = input;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("tokenizer.json"), bytes).unwrap();
    if let Ok(tokenizer) = ClipTokenizer::open(folder.path()) {
        if let Ok(encoding) = tokenizer.encode_padded(prompt) {
            assert_eq!(encoding.ids.len(), 77);
        }
    }
});
