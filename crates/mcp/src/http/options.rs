//! Where the server listens, and to whom.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use hyper::Uri;
use hyper::http::uri::Authority;

use crate::{Error, Result};

/// A token is guessed at: shorter ones are found.
const SHORTEST_TOKEN: usize = 16;

/// Where the server listens, and to whom. An address that other machines reach always comes with a token.
#[derive(Debug, Clone)]
pub struct HttpOptions {
    pub(super) bind: SocketAddr,
    pub(super) token: Option<String>,
    pub(super) names: Vec<String>,
    pub(super) public: Option<Public>,
}

/// The address by which clients reach the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Public {
    /// It does not end in a slash.
    pub(super) url: String,
    /// The `Origin` that browsers send from there.
    pub(super) origin: String,
}

impl HttpOptions {
    /// `bind` is `IP:PORT`, `localhost:PORT` or a bare port; port 0 takes a free one. `token` is what every client must
    /// show; `names` are further host names under which clients reach the server, as behind a proxy.
    ///
    /// # Errors
    /// An address that is none, a token that is too short or no header can carry, or an address that other machines
    /// reach without a token.
    pub fn new(bind: &str, token: Option<&str>, names: &[String]) -> Result<Self> {
        let address = match (bind.parse::<u16>(), bind.strip_prefix("localhost:").map(str::parse::<u16>)) {
            (Ok(port), _) | (_, Some(Ok(port))) => Some(SocketAddr::from((Ipv4Addr::LOCALHOST, port))),
            _ => bind.parse().ok(),
        };
        let refused =
            |field: &'static str, value: String, allowed: String| Error::Refused { field, value, allowed };
        let Some(address) = address else {
            let allowed =
                "an address and a port, as 127.0.0.1:8765, or a port alone; port 0 takes a free one";
            return Err(refused("--http", format!("{bind:?}"), allowed.into()));
        };
        let token = token.map(str::trim).map(str::to_owned);
        if let Some(token) = &token {
            let visible = token.bytes().all(|byte| byte.is_ascii_graphic());
            if token.len() < SHORTEST_TOKEN || !visible {
                let value = format!(
                    "{} characters{}",
                    token.len(),
                    if visible { "" } else { ", not all visible ASCII" }
                );
                let allowed = format!("at least {SHORTEST_TOKEN} visible ASCII characters without a space");
                return Err(refused("the token", value, allowed));
            }
        } else if !address.ip().to_canonical().is_loopback() {
            let value = format!("{address}, which other machines can reach");
            let allowed = "a loopback address, as 127.0.0.1:8765, or any with a token (--token-file FILE or INFILL_TOKEN)";
            return Err(refused("--http", value, allowed.into()));
        }
        Ok(Self { bind: address, token, names: names.to_vec(), public: None })
    }

    /// The address by which clients reach the server, as behind a proxy: links lead there, and its host is one of the
    /// server's names. Without it links lead to files where the bound address is of this machine alone, else to the bound
    /// address, and to resources of the protocol where that is not what clients call the server: bound to `0.0.0.0`, to
    /// an address that holds within one link only, or behind a proxy with a name of its own.
    ///
    /// # Errors
    /// What is no `http://` or `https://` address, or has a query. An address that other machines reach, without a token.
    pub fn reached_at(mut self, url: &str) -> Result<Self> {
        let refused = |value, allowed: &str| {
            Err(Error::Refused { field: "--public-url", value, allowed: allowed.into() })
        };
        let uri = url.parse::<Uri>().ok().filter(|_| !url.contains('#'));
        let parts = uri.as_ref().and_then(|uri| match (uri.scheme_str(), uri.authority(), uri.query()) {
            (Some(scheme @ ("http" | "https")), Some(authority), None) => {
                Some((scheme, authority.host(), port(authority)?))
            }
            _ => None,
        });
        let Some((scheme, host, port)) = parts else {
            let allowed = "an address as https://example.com or http://example.com:8765";
            return refused(format!("{url:?}"), allowed);
        };
        // Wherever the server is bound: a proxy hands on what other machines ask.
        if self.token.is_none() && !is_here(host) {
            let allowed = "localhost or a loopback address, as http://localhost:8765, or any with a token (--token-file FILE or INFILL_TOKEN)";
            return refused(format!("{url:?}, which other machines can reach"), allowed);
        }
        // A browser leaves out the port that goes with the scheme.
        let origin = match (scheme, port) {
            (_, None) | ("http", Some(80)) | ("https", Some(443)) => format!("{scheme}://{host}"),
            (_, Some(port)) => format!("{scheme}://{host}:{port}"),
        };
        self.names.push(host.to_owned());
        self.public = Some(Public { url: url.trim_end_matches('/').to_owned(), origin });
        Ok(self)
    }
}

/// The port of an authority, if it has one. `None`: it has no host, names a user, or its port is none.
fn port(authority: &Authority) -> Option<Option<u16>> {
    let (text, host) = (authority.as_str(), authority.host());
    let rest = text.strip_prefix(host).filter(|_| !host.is_empty())?;
    match rest.strip_prefix(':') {
        Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => Some(Some(port.parse().ok()?)),
        None if rest.is_empty() => Some(None),
        _ => None,
    }
}

/// True for a host that only clients on this machine can mean.
fn is_here(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost")
        || address.is_ok_and(|address| address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const TOKEN: &str = "0123456789abcdef";

    #[test]
    fn an_address_is_read() {
        for (text, address) in [
            ("8765", "127.0.0.1:8765"),
            ("localhost:0", "127.0.0.1:0"),
            ("127.0.0.1:80", "127.0.0.1:80"),
            ("[::1]:80", "[::1]:80"),
        ] {
            assert_eq!(HttpOptions::new(text, None, &[]).unwrap().bind, address.parse().unwrap(), "{text}");
        }
        for text in ["", "localhost", "127.0.0.1", "example.com:80", "127.0.0.1:70000", "::1"] {
            let sentence = HttpOptions::new(text, Some(TOKEN), &[]).unwrap_err().to_string();
            assert!(sentence.starts_with("--http is ") && sentence.contains("; allowed: "), "{sentence}");
        }
    }

    #[test]
    fn other_machines_need_a_token() {
        for text in ["0.0.0.0:80", "[::]:80", "192.168.0.7:80", "[::ffff:192.168.0.7]:80"] {
            let sentence = HttpOptions::new(text, None, &[]).unwrap_err().to_string();
            assert!(sentence.contains("which other machines can reach"), "{sentence}");
            assert!(HttpOptions::new(text, Some(TOKEN), &[]).is_ok(), "{text}");
        }
        assert!(HttpOptions::new("[::ffff:127.0.0.1]:80", None, &[]).is_ok());
    }

    #[test]
    fn a_public_address_is_one_of_the_servers_names() {
        let reached_at = |url| HttpOptions::new("80", Some(TOKEN), &["a".into()]).unwrap().reached_at(url);
        for (given, url, origin, name) in [
            ("https://example.com/", "https://example.com", "https://example.com", "example.com"),
            ("http://example.com:8765", "http://example.com:8765", "http://example.com:8765", "example.com"),
            ("https://example.com:443", "https://example.com:443", "https://example.com", "example.com"),
            ("http://[fd00::7]:81/infill/", "http://[fd00::7]:81/infill", "http://[fd00::7]:81", "[fd00::7]"),
        ] {
            let options = reached_at(given).unwrap();
            let public = Public { url: url.into(), origin: origin.into() };
            assert_eq!(
                (options.public, options.names),
                (Some(public), vec!["a".to_owned(), name.to_owned()])
            );
        }
        for url in [
            "",
            "/",
            "example.com",
            "ftp://a",
            "http://",
            "http://a/?b",
            "http://a/#b",
            "http://b@a/",
            "http://a b",
            "http://:80",
            "http://a:",
            "http://a:+80",
            "http://a:70000",
            "http://a:b",
        ] {
            let sentence = reached_at(url).unwrap_err().to_string();
            assert!(
                sentence.starts_with("--public-url is ") && sentence.contains("; allowed: "),
                "{sentence}"
            );
        }
    }

    #[test]
    fn a_public_address_that_others_reach_needs_a_token() {
        let reached_at = |host: &str| {
            let url = format!("http://{host}/a");
            (HttpOptions::new("80", None, &[]).unwrap().reached_at(&url), url)
        };
        for host in ["localhost:8765", "LOCALHOST", "127.0.0.2", "[::1]:80"] {
            assert!(reached_at(host).0.is_ok(), "{host}");
        }
        for host in ["example.com", "localhost.example.com", "[fd00::7]", "0.0.0.0"] {
            let (options, url) = reached_at(host);
            let sentence = options.unwrap_err().to_string();
            let start = format!("--public-url is {url:?}, which other machines can reach; allowed: ");
            assert!(sentence.starts_with(&start) && sentence.contains("with a token"), "{sentence}");
        }
    }

    #[test]
    fn a_token_is_long_and_fits_a_header() {
        assert_eq!(
            HttpOptions::new("80", Some("0123456789abcdef\n"), &[]).unwrap().token.as_deref(),
            Some(TOKEN)
        );
        for token in ["", "short", "0123456789 abcdef", "0123456789abcdé0"] {
            let sentence = HttpOptions::new("80", Some(token), &[]).unwrap_err().to_string();
            assert!(sentence.starts_with("the token is ") && !sentence.contains("0123"), "{sentence}");
        }
    }
}
