//! Where a client finds a stored picture.

use std::net::SocketAddr;

use infill_store::{Asset, Store};

use crate::pictures::file_url;

/// Where a client finds a stored picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Links {
    /// As a file: the client is on this machine.
    Files,
    /// Over HTTP, below this address, which does not end in a slash.
    Site(String),
    /// As a resource: nobody said by which address clients reach the server.
    Resources,
}

impl Links {
    /// For clients that reach the server over HTTP: by the public address if one was given, else by the bound one.
    pub(crate) fn over_http(bound: SocketAddr, public: Option<&str>) -> Self {
        match public {
            Some(public) => Self::Site(public.to_owned()),
            None if bound.ip().to_canonical().is_loopback() => Self::Files,
            None if bound.ip().to_canonical().is_unspecified() => Self::Resources,
            None => Self::Site(format!("http://{bound}")),
        }
    }

    /// The URL of a picture.
    pub(crate) fn url(&self, store: &Store, asset: &Asset) -> String {
        match self {
            Self::Files => file_url(&store.path(asset)),
            Self::Site(address) => format!("{address}/assets/{}", asset.id),
            Self::Resources => format!("asset://{}", asset.id),
        }
    }

    /// The same for a line of text: a path is easier to use than its URL.
    pub(crate) fn place(&self, store: &Store, asset: &Asset) -> String {
        match self {
            Self::Files => store.path(asset).display().to_string(),
            Self::Site(_) | Self::Resources => self.url(store, asset),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use infill_store::AssetMeta;

    use super::*;
    use crate::pictures::Source;

    #[test]
    fn what_a_link_says_can_be_given_back() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let id = store.put(b"a picture", &AssetMeta::default()).unwrap();
        let asset = store.get(&id).unwrap();
        for (bound, public, expected) in [
            ("127.0.0.1:80", None, None),
            ("[::ffff:127.0.0.1]:80", None, None),
            ("0.0.0.0:80", None, Some(format!("asset://{id}"))),
            ("[fd00::7]:80", None, Some(format!("http://[fd00::7]:80/assets/{id}"))),
            (
                "127.0.0.1:80",
                Some("https://example.com/b"),
                Some(format!("https://example.com/b/assets/{id}")),
            ),
        ] {
            let links = Links::over_http(bound.parse().unwrap(), public);
            let (url, place) = (links.url(&store, &asset), links.place(&store, &asset));
            let path = store.path(&asset);
            match expected {
                Some(expected) => {
                    assert_eq!((&url, &place), (&expected, &expected), "{bound}");
                    assert_eq!(Source::read(&url), Ok(Source::Asset(id.clone())), "{bound}");
                }
                None => {
                    assert_eq!(place, path.display().to_string(), "{bound}");
                    assert_eq!(Source::read(&url), Ok(Source::File(path)), "{bound}");
                }
            }
        }
    }
}
