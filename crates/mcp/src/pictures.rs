//! Where a picture comes from: a data URL, an asset, or a file under an allowed folder.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use infill_store::{AssetId, Store};

use crate::arguments::show_text;
use crate::{Error, Result, percent};

/// The most bytes of an encoded picture.
const MOST_BYTES: u64 = 64 << 20;

/// The longest path that is shown whole, in bytes.
const LONGEST_PATH: usize = 1024;

/// Base64 as data URLs are found: some writers leave the padding out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A value and what is allowed in its place.
pub(crate) type Refusal = (String, String);

/// Where a picture comes from.
#[derive(Debug, PartialEq)]
pub(crate) enum Source {
    /// The bytes of a data URL.
    Data(Vec<u8>),
    /// An asset of the store.
    Asset(AssetId),
    /// A file, not yet checked against the allowed folders.
    File(PathBuf),
}

impl Source {
    /// What a picture may be.
    pub(crate) const ALLOWED: &str = "an asset id or a link to one, a file:// URL, an absolute path, or a data URL of a PNG, JPEG or WebP picture in base64";
    /// What a picture may be where a model has to repeat it.
    pub(crate) const SHORT: &str = "an asset id or a link to one, a file:// URL or an absolute path";

    /// Reads a picture parameter.
    pub(crate) fn read(text: &str) -> std::result::Result<Self, Refusal> {
        if let Some(rest) = strip_scheme(text, "data:") {
            return read_data_url(rest).map(Self::Data).map_err(|reason| (show_text(text), reason));
        }
        if let Some(rest) = strip_scheme(text, "file:") {
            return match read_file_url(rest) {
                Some(path) => Ok(Self::File(path)),
                None => Err((show_text(text), "a file:// URL of an absolute path on this machine".into())),
            };
        }
        if let Some(id) = asset_of(text) {
            return id
                .parse()
                .map(Self::Asset)
                .map_err(|e: infill_store::Error| (show_text(text), e.to_string()));
        }
        if Path::new(text).is_absolute() {
            return Ok(Self::File(text.into()));
        }
        if strip_scheme(text, "http:").is_some() || strip_scheme(text, "https:").is_some() {
            let offline =
                "this server works offline, and takes only links of its own, which end in /assets/ID";
            return Err((show_text(text), format!("{}; {offline}", Self::ALLOWED)));
        }
        Err((show_text(text), Self::ALLOWED.into()))
    }

    /// The bytes of the picture, still encoded.
    pub(crate) fn fetch(
        &self,
        store: &Store,
        folders: &AllowedFolders,
    ) -> std::result::Result<Vec<u8>, Refusal> {
        match self {
            Self::Data(bytes) => Ok(bytes.clone()),
            Self::Asset(id) => {
                store.bytes(id).map_err(|e| (id.to_string(), format!("an asset of this server; {e}")))
            }
            Self::File(path) => folders.read(path),
        }
    }
}

/// The id in a text that names an asset: itself, or a link to it (whose host says nothing: the id is made of the bytes).
pub(crate) fn asset_of(text: &str) -> Option<&str> {
    let id = if let Some(rest) = strip_scheme(text, "asset:") {
        rest.strip_prefix("//")?
    } else if strip_scheme(text, "http:").is_some() || strip_scheme(text, "https:").is_some() {
        text.rsplit_once("/assets/")?.1
    } else {
        text
    };
    id.starts_with("asset_").then_some(id)
}

fn strip_scheme<'a>(text: &'a str, scheme: &str) -> Option<&'a str> {
    let head = text.get(..scheme.len())?;
    head.eq_ignore_ascii_case(scheme).then(|| &text[scheme.len()..])
}

/// RFC 2397, base64 alone; media type parameters are passed over, for the bytes say what they are.
fn read_data_url(rest: &str) -> std::result::Result<Vec<u8>, String> {
    let (head, data) = rest.split_once(',').ok_or("a data URL with a comma before its data")?;
    if !head.rsplit(';').next().is_some_and(|last| last.trim().eq_ignore_ascii_case("base64")) {
        return Err("a data URL that says ;base64 before its comma".into());
    }
    let bytes = if data.bytes().any(|b| b.is_ascii_whitespace() || b == b'%') {
        let plain: Vec<u8> = percent::decode(data).into_iter().filter(|b| !b.is_ascii_whitespace()).collect();
        BASE64.decode(plain)
    } else {
        BASE64.decode(data)
    };
    let bytes = bytes.map_err(|error| format!("a data URL in base64, whole and unbroken ({error})"))?;
    if bytes.is_empty() {
        return Err("a data URL that holds a picture".into());
    }
    Ok(bytes)
}

/// What follows `file:` (RFC 8089): no host, or this one.
fn read_file_url(rest: &str) -> Option<PathBuf> {
    let path = match rest.strip_prefix("//") {
        Some(after) => {
            let slash = after.find('/')?;
            let (host, path) = after.split_at(slash);
            (host.is_empty() || host.eq_ignore_ascii_case("localhost")).then_some(path)?
        }
        None => rest,
    };
    let bytes = percent::decode(path.split(['?', '#']).next()?);
    if bytes.contains(&0) {
        return None;
    }
    let mut text = String::from_utf8(bytes).ok()?;
    // file:///C:/x is C:/x where drives have letters.
    if cfg!(windows) && text.starts_with('/') {
        text.remove(0);
    }
    let path = PathBuf::from(text);
    path.is_absolute().then_some(path)
}

/// A path as a sentence shows it: whole where it can be a file's.
fn show_path(path: &Path) -> String {
    let text = path.display().to_string();
    if text.len() > LONGEST_PATH || text.contains(char::is_control) { show_text(&text) } else { text }
}

/// A path as a `file://` URL.
pub(crate) fn file_url(path: &Path) -> String {
    let text = path.to_string_lossy().replace('\\', "/");
    let mut url = String::from("file://");
    if !text.starts_with('/') {
        url.push('/');
    }
    url.push_str(&percent::encode(&text, "/:"));
    url
}

/// Folders that files may be read from, with every link in their own paths resolved.
#[derive(Debug, Clone)]
pub(crate) struct AllowedFolders {
    folders: Vec<PathBuf>,
    /// The store's pictures: what a reply names can be given back. Where they lie is not told.
    store: Option<PathBuf>,
    /// The store's database: what begins with this path is not read.
    closed: Option<PathBuf>,
    /// Whether a refusal may say which folders are allowed.
    told: bool,
}

impl AllowedFolders {
    /// `field` is the option that names them.
    ///
    /// # Errors
    /// A folder that can't be opened.
    pub(crate) fn new(field: &'static str, folders: &[PathBuf]) -> Result<Self> {
        let open = |folder: &PathBuf| {
            let refused = |reason: String| Error::Folder { field, path: folder.clone(), reason };
            let resolved = folder.canonicalize().map_err(|e| refused(format!("it can't be opened: {e}")))?;
            if !resolved.is_dir() {
                return Err(refused("it is not a folder".into()));
            }
            Ok(resolved)
        };
        let folders = folders.iter().map(open).collect::<Result<_>>()?;
        Ok(Self { folders, store: None, closed: None, told: true })
    }

    /// These and more.
    ///
    /// # Errors
    /// As [`AllowedFolders::new`].
    pub(crate) fn and(&self, field: &'static str, folders: &[PathBuf]) -> Result<Self> {
        let mut all = self.clone();
        all.folders.extend(Self::new(field, folders)?.folders);
        Ok(all)
    }

    /// These and the store's pictures.
    ///
    /// # Errors
    /// As [`AllowedFolders::new`].
    pub(crate) fn with_pictures_of(&self, store: &Store) -> Result<Self> {
        let store = Self::new("store", &[store.blobs_dir().to_owned()])?.folders.pop();
        Ok(Self { store, ..self.clone() })
    }

    /// These without the store's database, which may lie under one of them.
    pub(crate) fn without_database_of(mut self, store: &Store) -> Self {
        self.closed = Some(store.database().to_owned());
        self
    }

    /// These, which refusals tell by name only where clients may know of them.
    pub(crate) fn told(mut self, told: bool) -> Self {
        self.told = told;
        self
    }

    fn contains(&self, path: &Path) -> bool {
        let bytes = path.as_os_str().as_encoded_bytes();
        let closed = |closed: &PathBuf| bytes.starts_with(closed.as_os_str().as_encoded_bytes());
        !self.closed.as_ref().is_some_and(closed)
            && self.folders.iter().chain(&self.store).any(|folder| path.starts_with(folder))
    }

    /// The path with its links resolved, if it lies under an allowed folder; else what is allowed. What lies elsewhere
    /// and what does not exist look the same.
    pub(crate) fn resolve(&self, path: &Path) -> std::result::Result<PathBuf, Refusal> {
        let resolved = path.canonicalize().ok();
        resolved.filter(|path| self.contains(path)).ok_or_else(|| {
            let folders: Vec<String> = self.folders.iter().map(|f| f.display().to_string()).collect();
            let allowed = match folders.as_slice() {
                [] => "no path, for no folder is allowed (infill serve --allow-dir DIR)".into(),
                _ if !self.told => "what exists under the server's allowed folders".into(),
                _ => format!("what exists under {}", folders.join(", ")),
            };
            (show_path(path), allowed)
        })
    }

    /// The bytes of a picture's file under an allowed folder.
    fn read(&self, path: &Path) -> std::result::Result<Vec<u8>, Refusal> {
        let elsewhere = |(path, allowed)| (path, format!("an asset id or a data URL; {allowed}"));
        let resolved = self.resolve(path).map_err(elsewhere)?;
        let refused = |allowed: String| (show_path(path), allowed);
        // Opening a pipe would wait for its writer.
        if !resolved.is_file() {
            return Err(refused("a file, not a folder or a device".into()));
        }
        let file = File::open(&resolved).map_err(|e| refused(format!("a file that can be read ({e})")))?;
        let mut bytes = Vec::new();
        let read = file.take(MOST_BYTES + 1).read_to_end(&mut bytes);
        read.map_err(|e| refused(format!("a file that can be read ({e})")))?;
        if bytes.len() as u64 > MOST_BYTES {
            return Err(refused(format!("a file of up to {MOST_BYTES} bytes")));
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn data_urls_are_read() {
        for url in [
            "data:image/png;base64,AAEC",
            "DATA:image/png;charset=utf-8;BASE64,AAEC",
            "data:;base64,AAEC",
            "data:image/png;base64,AA\n EC",
            "data:image/png;base64,AAE%43",
        ] {
            assert_eq!(Source::read(url), Ok(Source::Data(vec![0, 1, 2])), "{url}");
        }
        assert_eq!(Source::read("data:image/png;base64,AA"), Ok(Source::Data(vec![0])));
    }

    #[test]
    fn what_is_no_picture_is_refused() {
        for text in [
            "",
            "cat.png",
            "data:image/png",
            "data:image/png,AAEC",
            "data:image/png;base64,",
            "data:image/png;base64,A!",
            "asset_short",
            "https://example.com/cat.png",
            "file://example.com/cat.png",
            "file:cat.png",
            "file:///a%00b",
        ] {
            let (value, allowed) = Source::read(text).unwrap_err();
            assert!(!value.is_empty() && !allowed.is_empty() && !allowed.contains('\n'), "{text}");
        }
    }

    #[test]
    fn only_what_names_an_asset_is_one() {
        let id = AssetId::of(b"a picture");
        for text in [
            id.to_string(),
            format!("asset://{id}"),
            format!("http://127.0.0.1:80/assets/{id}"),
            format!("HTTPS://example.com/a/assets/{id}"),
        ] {
            assert_eq!(asset_of(&text), Some(id.as_str()), "{text}");
            assert_eq!(Source::read(&text), Ok(Source::Asset(id.clone())), "{text}");
        }
        for text in [
            format!("asset:{id}"),
            "asset://cat".into(),
            "https://a/assets/cat.png".into(),
            format!("https://a/{id}"),
            format!("/assets/{id}"),
            format!("ftp://a/assets/{id}"),
        ] {
            assert_eq!(asset_of(&text), None, "{text}");
        }
        for end in ["/", "?x", "#x", ".png", "/assets/cat.png"] {
            for start in ["", "asset://", "https://a/assets/"] {
                let text = format!("{start}{id}{end}");
                assert!(Source::read(&text).is_err(), "{text}");
            }
        }
        let (_, allowed) = Source::read("https://a/cat.png").unwrap_err();
        assert!(allowed.ends_with("takes only links of its own, which end in /assets/ID"), "{allowed}");
    }

    #[cfg(unix)]
    #[test]
    fn file_urls_are_read() {
        for (url, path) in [
            ("file:///a/b%20c.png", "/a/b c.png"),
            ("file://localhost/a", "/a"),
            ("FILE:/a/b", "/a/b"),
            ("/a/b%20c", "/a/b%20c"),
            ("file:///a/%C3%A9", "/a/é"),
            ("file:///a/100%", "/a/100%"),
        ] {
            assert_eq!(Source::read(url), Ok(Source::File(path.into())), "{url}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn only_files_under_an_allowed_folder_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let (inside, outside) = (dir.path().join("in"), dir.path().join("out"));
        std::fs::create_dir_all(inside.join("sub")).unwrap();
        std::fs::create_dir_all(&outside).unwrap();
        std::fs::write(inside.join("sub/a.png"), b"inside").unwrap();
        std::fs::write(outside.join("b.png"), b"outside").unwrap();
        std::fs::create_dir_all(dir.path().join("in-not")).unwrap();
        std::fs::write(dir.path().join("in-not/c.png"), b"neighbour").unwrap();
        std::os::unix::fs::symlink(outside.join("b.png"), inside.join("link.png")).unwrap();
        std::os::unix::fs::symlink(&outside, inside.join("way")).unwrap();
        let folders = AllowedFolders::new("allow-dir", std::slice::from_ref(&inside)).unwrap();
        assert_eq!(folders.read(&inside.join("sub/a.png")).unwrap(), b"inside");
        assert_eq!(folders.read(&inside.join("sub/../sub/a.png")).unwrap(), b"inside");
        for path in [
            "in/link.png",
            "in/way/b.png",
            "in/../out/b.png",
            "out/b.png",
            "in-not/c.png",
            "in/gone.png",
            "in/sub",
        ] {
            let (value, _) = folders.read(&dir.path().join(path)).unwrap_err();
            assert!(value.ends_with(path));
        }
        assert!(
            AllowedFolders::new("allow-dir", &[])
                .unwrap()
                .read(&inside.join("sub/a.png"))
                .unwrap_err()
                .1
                .contains("--allow-dir")
        );
        assert!(AllowedFolders::new("allow-dir", &[dir.path().join("gone")]).is_err());
        let (value, _) = folders.read(&inside.join("long".repeat(1 << 20))).unwrap_err();
        assert!(value.len() < 200, "{} bytes", value.len());
    }

    #[test]
    fn the_database_of_the_store_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        let id = store.put(b"picture", &infill_store::AssetMeta::default()).unwrap();
        let picture = store.path(&store.get(&id).unwrap());
        std::fs::write(dir.path().join("other.png"), b"other").unwrap();
        let folders = AllowedFolders::new("allow-dir", &[dir.path().to_owned()]).unwrap();
        let folders = folders.without_database_of(&store);
        assert_eq!(folders.read(&picture).unwrap(), b"picture");
        assert_eq!(folders.read(&dir.path().join("other.png")).unwrap(), b"other");
        for name in ["infill.db", "infill.db-wal"] {
            let path = dir.path().join("store").join(name);
            assert!(path.is_file() && folders.read(&path).is_err(), "{name}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text: String) {
            let _ = Source::read(&text);
            let _ = Source::read(&format!("file://{text}"));
            let _ = Source::read(&format!("data:{text}"));
        }

        #[cfg(unix)]
        #[test]
        fn the_url_of_a_path_is_read_back(name in "[^/\\\\\0]{1,20}") {
            let path = PathBuf::from(format!("/pictures/{name}"));
            prop_assert_eq!(Source::read(&file_url(&path)), Ok(Source::File(path)));
        }
    }
}
