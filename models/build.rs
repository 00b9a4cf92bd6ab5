//! Makes the table of the embedded model's files: each line of `infill-mini/SHA256SUMS` becomes an entry with the
//! file's contents. Without that file the table is empty and the build has no model of its own.

use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

const SUMS: &str = "infill-mini/SHA256SUMS";

fn main() -> Result<(), Box<dyn Error>> {
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?).join("embedded_files.rs");
    let sums = match fs::read_to_string(SUMS) {
        Ok(sums) => {
            println!("cargo::rerun-if-changed={SUMS}");
            sums
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // A file that is not there can't be watched: cargo would run this again for every build.
            println!("cargo::rerun-if-changed=.");
            String::new()
        }
        Err(error) => return Err(format!("{SUMS} can't be read: {error}").into()),
    };
    fs::write(out, table(&sums)?)?;
    Ok(())
}

fn table(sums: &str) -> Result<String, Box<dyn Error>> {
    let mut code = String::from("&[\n");
    for line in sums.lines() {
        let entry = line.split_once("  ").filter(|(hash, path)| is_hash(hash) && is_plain(path));
        let Some((hash, path)) = entry else {
            return Err(
                format!("{SUMS}: {line:?} is not a SHA-256, two spaces and a path in the folder").into()
            );
        };
        if !Path::new("infill-mini").join(path).is_file() {
            return Err(format!(
                "{SUMS} names {path}, which is not there; scripts/seal-model writes it anew"
            )
            .into());
        }
        writeln!(
            code,
            "    EmbeddedFile {{ path: {path:?}, sha256: {hash:?}, bytes: \
             include_bytes!(concat!(env!(\"CARGO_MANIFEST_DIR\"), \"/infill-mini/{path}\")) }},"
        )?;
    }
    code.push_str("]\n");
    Ok(code)
}

fn is_hash(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// Relative, within the folder, of characters that need no quoting anywhere.
fn is_plain(path: &str) -> bool {
    let plain = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
    };
    path.split('/').all(plain)
}
