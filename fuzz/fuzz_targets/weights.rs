//! A safetensors file from anywhere: its header may lie about lengths, shapes and offsets.
#![no_main]

use std::io::Write;

use candle_core::{DType, Device};
use infill_networks::weights::Weights;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut file = tempfile::NamedTempFile::with_suffix(".safetensors").unwrap();
    file.write_all(bytes).unwrap();
    let files = [file.path().to_path_buf()];
    if let Ok(weights) = Weights::open("fuzzed", &files, str::to_owned, DType::F32, &Device::Cpu) {
        let _ = weights.get("weight", &[2, 2]);
        let _ = weights.finish();
    }
});
