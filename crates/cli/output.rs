//! Where the pictures go: checked before any work, written whole or not at all.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::cancel::{self, Unfinished};
use crate::failure::{Failure, Result};

const ALLOWED: &str = "a path that ends in .png, in a folder that exists and can be written to";

/// The names of the pictures of one run.
#[derive(Debug)]
pub(crate) struct Output {
    targets: Vec<PathBuf>,
}

impl Output {
    /// Checks the path that `flag` gives for so many pictures. `inputs` are never replaced without `force`.
    pub(crate) fn check(
        flag: &str,
        out: &Path,
        samples: usize,
        inputs: &[&Path],
        force: bool,
    ) -> Result<Self> {
        let refused = |why: &str| Failure::value(flag, format!("{} ({why})", out.display()), ALLOWED);
        if out
            .as_os_str()
            .as_encoded_bytes()
            .last()
            .is_some_and(|end| std::path::is_separator(char::from(*end)))
        {
            return Err(refused("a folder by its last character"));
        }
        let is_png = out.extension().is_some_and(|ext| ext.eq_ignore_ascii_case("png"));
        if !is_png {
            return Err(refused("not a PNG by its name"));
        }
        let targets = names(out, samples);
        let folder = folder_of(out);
        if !folder.is_dir() {
            return Err(refused("its folder does not exist"));
        }
        for target in &targets {
            if target.exists() && !target.is_file() {
                let why = format!("{} is not a file", target.display());
                return Err(refused(&why));
            }
            if !force && let Some(input) = inputs.iter().find(|input| same_file(target, input)) {
                return Err(Failure::Refused(format!(
                    "{flag} would replace the input {}; allowed: another path, or --force",
                    input.display()
                )));
            }
        }
        // Permission bits don't tell the truth on every file system; creating a file does.
        Unfinished::create(&folder.join("probe")).map_err(|e| refused(&e.to_string()))?;
        Ok(Self { targets })
    }

    /// Whether a picture of this run would replace one of the other.
    pub(crate) fn meets(&self, other: &Self) -> bool {
        let place = |path: &Path| {
            let folder = folder_of(path);
            (
                folder.canonicalize().unwrap_or_else(|_| folder.to_owned()),
                path.file_name().map(OsString::from),
            )
        };
        self.targets.iter().any(|ours| other.targets.iter().any(|theirs| place(ours) == place(theirs)))
    }

    /// The path of picture `index`.
    pub(crate) fn target(&self, index: usize) -> Result<&Path> {
        let target = self.targets.get(index).map(PathBuf::as_path);
        target.ok_or_else(|| Failure::Failed(format!("there is no name for picture {index}")))
    }

    /// Writes picture `index`: under a passing name first, so that a full disk or Ctrl-C leaves no half of it.
    pub(crate) fn write(&self, index: usize, bytes: &[u8]) -> Result<&Path> {
        let name = self.target(index)?;
        write_whole(name, bytes)?;
        Ok(name)
    }
}

/// Writes a file whole or not at all, replacing what is there.
pub(crate) fn write_whole(name: &Path, bytes: &[u8]) -> Result<()> {
    // A link stays a link: the file it leads to is replaced.
    let target = name.canonicalize().unwrap_or_else(|_| name.to_owned());
    let failed = |e: io::Error| Failure::Failed(format!("{} can't be written: {e}", name.display()));
    let (unfinished, mut file) = Unfinished::create(&target).map_err(failed)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(failed)?;
    cancel::check()?;
    unfinished.rename(&target).map_err(failed)
}

/// `a.png` for one picture, `a-0.png`, `a-1.png`, ... for several.
fn names(out: &Path, samples: usize) -> Vec<PathBuf> {
    if samples <= 1 {
        return vec![out.to_owned()];
    }
    let stem = out.file_stem().unwrap_or_default();
    let extension = out.extension().unwrap_or_default();
    let name = |i: usize| {
        let mut name = stem.to_owned();
        name.push(format!("-{i}."));
        name.push(extension);
        out.with_file_name(name)
    };
    (0..samples).map(name).collect()
}

/// The folder that a path lies in.
pub(crate) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn same_file(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn listing(folder: &Path) -> Vec<OsString> {
        let mut names: Vec<_> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        names
    }

    #[test]
    fn several_pictures_are_numbered() {
        assert_eq!(names(Path::new("d/a.png"), 1), [PathBuf::from("d/a.png")]);
        assert_eq!(
            names(Path::new("d/a.b.PNG"), 2),
            [PathBuf::from("d/a.b-0.PNG"), PathBuf::from("d/a.b-1.PNG")]
        );
    }

    #[test]
    fn a_check_leaves_nothing_and_a_write_leaves_only_the_pictures() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("a.png");
        let output = Output::check("--out", &out, 2, &[], false).unwrap();
        assert!(listing(dir.path()).is_empty());
        output.write(0, &[1]).unwrap();
        output.write(1, &[2, 3]).unwrap();
        assert!(output.write(2, &[]).is_err());
        assert_eq!(listing(dir.path()), ["a-0.png", "a-1.png"]);
        assert_eq!(std::fs::read(dir.path().join("a-1.png")).unwrap(), [2, 3]);
    }

    #[test]
    fn what_a_killed_process_of_the_same_number_left_is_no_hindrance() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a.png", "probe"] {
            let left = format!(".{name}.{}-0.part", std::process::id());
            std::fs::write(dir.path().join(left), "half").unwrap();
        }
        let out = dir.path().join("a.png");
        Output::check("--out", &out, 1, &[], false).unwrap().write(0, b"whole").unwrap();
        assert_eq!(std::fs::read(&out).unwrap(), b"whole");
        assert_eq!(listing(dir.path()).len(), 3);
    }

    #[test]
    fn an_earlier_result_is_replaced_but_an_input_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("a.png");
        std::fs::write(&out, "old").unwrap();
        Output::check("--out", &out, 1, &[], false).unwrap().write(0, b"new").unwrap();
        assert_eq!(std::fs::read(&out).unwrap(), b"new");
        let message = Output::check("--out", &out, 1, &[&out], false).unwrap_err().sentence();
        assert!(message.contains("--force"), "{message}");
        assert!(Output::check("--out", &out, 1, &[&out], true).is_ok());
    }

    #[test]
    fn other_names_and_places_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("folder.png")).unwrap();
        for (name, why) in [
            ("a.jpg", "not a PNG"),
            ("a", "not a PNG"),
            ("a.png/", "a folder by its last character"),
            ("none/a.png", "its folder does not exist"),
            ("folder.png", "is not a file"),
        ] {
            let message =
                Output::check("--out", &dir.path().join(name), 1, &[], false).unwrap_err().sentence();
            assert!(message.starts_with("--out is ") && message.contains(why), "{message}");
        }
    }
}
