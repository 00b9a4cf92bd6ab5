//! Compiles `cuda/*.cu` with nvcc, where the feature `cuda` is on; without it, nothing.
//!
//! One fat binary a file, with machine code for `CUDA_COMPUTE_CAP` (80 where it is not set) and PTX that the driver
//! compiles for newer cards, unless the capability has a suffix (`90a`), which holds for that one alone. nvcc is `NVCC`, or `bin/nvcc` under `CUDA_HOME` or `CUDA_PATH`, or the one on the path.
#![allow(clippy::print_stdout)]

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

const SOURCES: [&str; 4] = ["attention", "elementwise", "group_norm", "layer_norm"];

fn main() -> Result<(), String> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=cuda");
    for name in ["CUDA_COMPUTE_CAP", "CUDA_HOME", "CUDA_PATH", "NVCC"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    if env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return Ok(());
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set: run this through cargo")?);
    let capability = env::var("CUDA_COMPUTE_CAP").unwrap_or_else(|_| "80".into()).replace('.', "");
    let digits = capability.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    if !digits.parse().is_ok_and(|number: u32| number >= 80) {
        return Err(format!("CUDA_COMPUTE_CAP is \"{capability}\": 80 (Ampere) or more is needed"));
    }
    println!("cargo::rustc-env=INFILL_CUDA_COMPUTE_CAP={digits}");
    let nvcc = nvcc();
    for source in SOURCES {
        compile(&nvcc, &capability, &Path::new("cuda").join(source).with_extension("cu"), &out)?;
    }
    Ok(())
}

fn nvcc() -> PathBuf {
    if let Some(nvcc) = env::var_os("NVCC") {
        return nvcc.into();
    }
    let homes = ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(env::var_os);
    let mut found = homes.map(|home| Path::new(&home).join("bin/nvcc")).filter(|nvcc| nvcc.exists());
    found.next().unwrap_or_else(|| "nvcc".into())
}

fn compile(nvcc: &Path, capability: &str, source: &Path, out: &Path) -> Result<(), String> {
    let name = source.file_stem().unwrap_or_default();
    let output = Command::new(nvcc)
        .args(["-std=c++17", "-O3", "-fatbin"])
        .arg(format!("-gencode=arch=compute_{capability},code=[sm_{capability},compute_{capability}]"))
        .arg("-o")
        .arg(out.join(name).with_extension("fatbin"))
        .arg(source)
        .output()
        .map_err(|e| {
            format!("{} can't be run ({e}): the feature `cuda` needs a CUDA toolkit", nvcc.display())
        })?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("nvcc: {}: {}", source.display(), String::from_utf8_lossy(&output.stderr)))
}
