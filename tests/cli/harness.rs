//! A fresh folder, the executable, and what it answered.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// A file of `tests/fixtures`.
pub(crate) fn fixture(path: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(path).to_str().unwrap().to_owned()
}

/// A tiny committed checkpoint.
pub(crate) fn model(name: &str) -> String {
    fixture(&format!("models/{name}"))
}

/// A fresh folder in which the executable runs, with a home of its own and none of the caller's settings.
pub(crate) struct Place {
    dir: TempDir,
}

/// What a run answered.
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Place {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("home")).unwrap();
        Self { dir }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }

    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), bytes).unwrap();
    }

    pub(crate) fn picture(&self, name: &str) -> image::DynamicImage {
        image::open(self.path(name)).unwrap()
    }

    /// The names in the folder, hidden ones too, without the home.
    pub(crate) fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.dir.path()).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|name| name != "home");
        names.sort();
        names
    }

    /// The executable, ready to be given arguments.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_infill"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("INFILL_") || name.to_string_lossy().starts_with("XDG_") {
                command.env_remove(name);
            }
        }
        command
            .current_dir(self.dir.path())
            .env("HOME", self.path("home"))
            .env_remove("HF_HOME")
            .env_remove("HF_HUB_CACHE")
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn infill(&self, args: &[&str]) -> Run {
        Run::of(&self.command().args(args).output().unwrap())
    }

    /// `infill inpaint` of a small drawing with a tiny SD 1.5 inpainting model; `more` must hold `--out`.
    pub(crate) fn inpaint(&self, more: &[&str]) -> Run {
        Run::of(&self.inpaint_command().args(more).output().unwrap())
    }

    pub(crate) fn inpaint_command(&self) -> Command {
        let mut command = self.command();
        command.args(["inpaint", &fixture("images/init.png"), "--mask", &fixture("images/mask.png")]);
        command.args(["--prompt", "a red door", "--model", &model("tiny-sd15-inpaint")]);
        command.args(["--seed", "7", "--device", "cpu", "--width", "64", "--height", "64"]);
        command
    }
}

impl Run {
    pub(crate) fn of(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        Self { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }

    #[track_caller]
    pub(crate) fn succeeded(self) -> Self {
        assert_eq!(self.code, Some(0), "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }

    /// One sentence on standard error that says each of `parts`, nothing on standard output.
    #[track_caller]
    pub(crate) fn refused(&self, code: i32, parts: &[&str]) {
        assert_eq!(self.code, Some(code), "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        assert_eq!(self.stdout, "");
        let sentence = self.stderr.strip_suffix('\n').unwrap_or_else(|| panic!("no line: {:?}", self.stderr));
        assert!(sentence.starts_with("error: ") && !sentence.contains('\n'), "{sentence}");
        assert!(!sentence.contains("panicked") && !sentence.contains("has a fault"), "{sentence}");
        for part in parts {
            assert!(sentence.contains(part), "{part:?} is not in {sentence:?}");
        }
    }
}
