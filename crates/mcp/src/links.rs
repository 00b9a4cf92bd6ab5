//! Where a client finds a stored picture.

use std::net::{IpAddr, SocketAddr};

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
    /// `names` are further host names under which they do.
    pub(crate) fn over_http(bound: SocketAddr, public: Option<&str>, names: &[String]) -> Self {
        if let Some(public) = public {
            return Self::Site(public.to_owned());
        }
        // It says which way out to take on one machine, and is no part of a URL.
        let is_scoped = matches!(bound, SocketAddr::V6(bound) if bound.scope_id() != 0);
        let address = bound.ip().to_canonical();
        match address {
            // Other names lead here through a proxy: the clients may be anywhere.
            _ if address.is_loopback() && names.is_empty() => Self::Files,
            _ if address.is_loopback() || address.is_unspecified() || is_scoped => Self::Resources,
            IpAddr::V6(address) if address.is_unicast_link_local() => Self::Resources,
            _ => Self::Site(format!("http://{}", SocketAddr::new(address, bound.port()))),
        }
    }

    /// True where clients are on this machine, and may be told of its folders.
    pub(crate) fn are_files(&self) -> bool {
        matches!(self, Self::Files)
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
        let resource = format!("asset://{id}");
        let site = |address: &str| Some(format!("{address}/assets/{id}"));
        let (public, named) = (Some("https://example.com/b"), &["a".to_owned()][..]);
        for (bound, public, names, expected) in [
            ("127.0.0.1:80", None, &[][..], None),
            ("[::1]:80", None, &[], None),
            ("[::ffff:127.0.0.1]:80", None, &[], None),
            ("127.0.0.1:80", None, named, Some(resource.clone())),
            ("[::ffff:127.0.0.1]:80", None, named, Some(resource.clone())),
            ("0.0.0.0:80", None, &[], Some(resource.clone())),
            ("[::]:80", None, named, Some(resource.clone())),
            ("[fe80::1]:80", None, &[], Some(resource.clone())),
            ("[fd00::7%2]:80", None, &[], Some(resource.clone())),
            ("[fd00::7]:80", None, &[], site("http://[fd00::7]:80")),
            ("192.168.0.7:80", None, named, site(&format!("http://{}", "192.168.0.7:80"))),
            ("[::ffff:192.168.0.7]:80", None, &[], site(&format!("http://{}", "192.168.0.7:80"))),
            ("127.0.0.1:80", public, &[], site("https://example.com/b")),
            ("[fe80::1]:80", public, named, site("https://example.com/b")),
        ] {
            let links = Links::over_http(bound.parse().unwrap(), public, names);
            assert_eq!(links.are_files(), expected.is_none(), "{bound}");
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
