//! The page for people: files that are built in, and what a browser is told about them.

use hyper::StatusCode;
use hyper::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, X_FRAME_OPTIONS};

use super::site::{Answer, whole};

/// Nothing from elsewhere, nothing inline, nobody's frame; pictures out of memory.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; \
connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const ICON: &str = "image/svg+xml";

/// A file of the page.
pub(super) struct File {
    path: &'static str,
    media_type: &'static str,
    text: &'static str,
}

macro_rules! files {
    ($($path:literal $media_type:ident $name:literal),* $(,)?) => {
        [$(File { path: $path, media_type: $media_type, text: include_str!(concat!("../page/", $name)) }),*]
    };
}

static FILES: [File; 9] = files![
    "/" HTML "index.html",
    "/page/icon.svg" ICON "icon.svg",
    "/page/style.css" CSS "style.css",
    "/page/main.js" SCRIPT "main.js",
    "/page/protocol.js" SCRIPT "protocol.js",
    "/page/easel.js" SCRIPT "easel.js",
    "/page/mask.js" SCRIPT "mask.js",
    "/page/results.js" SCRIPT "results.js",
    "/page/form.js" SCRIPT "form.js",
];

/// The file at a path.
pub(super) fn file(path: &str) -> Option<&'static File> {
    FILES.iter().find(|file| file.path == path)
}

/// The file for a browser, which asks again each time: another version of the server may have another page.
pub(super) fn answer(file: &File) -> Answer {
    let mut answer = whole(StatusCode::OK, file.text);
    for (name, value) in [
        (CONTENT_TYPE, file.media_type),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_FRAME_OPTIONS, "DENY"),
        (CACHE_CONTROL, "no-cache"),
    ] {
        answer.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    answer
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_page_needs_nothing_from_elsewhere_and_nothing_that_its_policy_forbids() {
        for file in &FILES {
            for elsewhere in ["http://", "https://", "url(//", "src=\"//", "@import"] {
                let allowed = file.text.replace("http://www.w3.org/2000/svg", "");
                assert!(!allowed.contains(elsewhere), "{}: {elsewhere}", file.path);
            }
            for inline in ["style=\"", "<style", "onclick=", "onload=", "javascript:", "eval(", "innerHTML"] {
                assert!(!file.text.contains(inline), "{}: {inline}", file.path);
            }
        }
        // Every file that the page asks for is there.
        let index = file("/").unwrap().text;
        for quoted in index.split(['"']).filter(|text| text.starts_with("/page/")) {
            assert!(file(quoted).is_some(), "{quoted}");
        }
        for script in FILES.iter().filter(|file| file.media_type == SCRIPT) {
            for name in script.text.split("from \"./").skip(1).filter_map(|rest| rest.split('"').next()) {
                assert!(file(&format!("/page/{name}")).is_some(), "{}: {name}", script.path);
            }
        }
        assert!(!index.split("<script").skip(1).any(|tag| !tag.contains("src=")), "an inline script");
    }

    #[test]
    fn the_policy_allows_no_other_host() {
        assert!(!POLICY.contains("unsafe") && !POLICY.contains("//") && !POLICY.contains('*'));
    }
}
