//! Where models and caches lie on this machine.

use std::path::{Path, PathBuf};

fn variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

fn home() -> Option<PathBuf> {
    variable("HOME").or_else(|| variable("USERPROFILE"))
}

/// The user's models folder: `INFILL_MODELS`, else `infill/models` in the data folder (`XDG_DATA_HOME` or
/// `~/.local/share`).
pub fn models_dir() -> Option<PathBuf> {
    variable("INFILL_MODELS").or_else(|| {
        let data = variable("XDG_DATA_HOME").or_else(|| Some(home()?.join(".local/share")))?;
        Some(data.join("infill/models"))
    })
}

/// Where this program may keep what it can make again: `infill` in `XDG_CACHE_HOME` or `~/.cache`.
pub(crate) fn cache_dir() -> Option<PathBuf> {
    Some(user_cache()?.join("infill"))
}

/// The cache of the Hugging Face hub: `HF_HUB_CACHE`, else `hub` in `HF_HOME`, else in `huggingface` of the user's
/// cache folder.
pub fn hub_cache() -> Option<PathBuf> {
    variable("HF_HUB_CACHE")
        .or_else(|| Some(variable("HF_HOME")?.join("hub")))
        .or_else(|| Some(user_cache()?.join("huggingface/hub")))
}

fn user_cache() -> Option<PathBuf> {
    variable("XDG_CACHE_HOME").or_else(|| Some(home()?.join(".cache")))
}

/// The newest snapshot of a repository in a hub cache: `models--org--name/snapshots/<commit>`.
///
/// `revision` is a commit, or a branch whose commit stands in `refs/`. Without one it is the branch `main`, or the only
/// snapshot there is.
pub(crate) fn snapshot(cache: &Path, repository: &str, revision: Option<&str>) -> Option<PathBuf> {
    let folder = cache.join(format!("models--{}", repository.replace('/', "--")));
    let snapshots = folder.join("snapshots");
    let there = |commit: &str| Some(snapshots.join(commit)).filter(|dir| dir.is_dir());
    if let Some(found) = revision.and_then(there) {
        return Some(found);
    }
    let main = std::fs::read_to_string(folder.join("refs/main")).ok();
    if let Some(found) = main.as_deref().map(str::trim).filter(|commit| is_commit(commit)).and_then(there) {
        return Some(found);
    }
    let mut entries: Vec<PathBuf> =
        std::fs::read_dir(&snapshots).ok()?.flatten().map(|e| e.path()).filter(|p| p.is_dir()).collect();
    (entries.len() == 1).then(|| entries.pop())?
}

/// Whether a line of `refs/` is a commit and not a way out of the folder.
fn is_commit(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn snapshots_of_the_hub_cache() {
        let cache = tempfile::tempdir().unwrap();
        let find = |revision| snapshot(cache.path(), "org/name", revision);
        assert_eq!(find(None), None);
        let folder = cache.path().join("models--org--name");
        let make = |commit: &str| {
            let dir = folder.join("snapshots").join(commit);
            std::fs::create_dir_all(&dir).unwrap();
            dir
        };
        let a = make("aaa");
        assert_eq!(find(None), Some(a.clone()));
        let b = make("bbb");
        assert_eq!(find(None), None, "which of the two?");
        assert_eq!(find(Some("aaa")), Some(a.clone()));
        std::fs::create_dir_all(folder.join("refs")).unwrap();
        std::fs::write(folder.join("refs/main"), "bbb\n").unwrap();
        assert_eq!(find(None), Some(b.clone()));
        assert_eq!(find(Some("ccc")), Some(b));
        std::fs::write(folder.join("refs/main"), "../../..").unwrap();
        assert_eq!(find(None), None);
    }
}
