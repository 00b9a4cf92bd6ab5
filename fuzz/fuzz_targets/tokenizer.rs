//! A tokenizer.json from anywhere, and a prompt from anywhere.
#![no_main]

use infill_networks::prompt::{Limit, Prompt};
use infill_networks::tokenizer::ClipTokenizer;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&[u8], &str)| {
    let (bytes, prompt) = input;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("tokenizer.json"), bytes).unwrap();
    if let Ok(tokenizer) = ClipTokenizer::open(folder.path()) {
        for limit in [Limit::None, Limit::OneChunk] {
            let Ok(chunks) = Prompt::weighted(prompt).chunks(&tokenizer, &[], limit) else { continue };
            for chunk in &chunks.chunks {
                assert_eq!(chunk.ids.len(), tokenizer.model_max_length());
            }
        }
    }
});
