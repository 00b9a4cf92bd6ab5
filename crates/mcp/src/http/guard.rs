//! Who may ask: the Host, the Origin and the token of a request.
//!
//! A web page of somebody else can make a browser send requests to this server: either openly, which the Origin tells,
//! or under a name of its own that it lets point here (DNS rebinding), which the Host tells.

use std::net::{IpAddr, SocketAddr};

use constant_time_eq::constant_time_eq;
use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, HOST, HeaderName, ORIGIN};

/// Why a request is refused.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It came under a name that is not this server's, or from another site's page: 403.
    Foreign(String),
    /// It has not the token: 401.
    Unauthorized(&'static str),
}

/// What a request is checked against.
#[derive(Debug)]
pub(crate) struct Guard {
    bound: SocketAddr,
    /// Further names under which the server is reached, each with or without a port.
    names: Vec<String>,
    /// The Origin of the page where clients know the server by another address.
    origin: Option<String>,
    token: Option<String>,
}

impl Guard {
    pub(crate) fn new(
        bound: SocketAddr,
        names: &[String],
        origin: Option<String>,
        token: Option<String>,
    ) -> Self {
        let names = names.iter().map(|name| name.to_ascii_lowercase()).collect();
        Self { bound, names, origin, token }
    }

    /// Host and Origin.
    pub(crate) fn check_source(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let Some(host) = single(headers, &HOST).filter(|host| self.is_own(host)) else {
            return Err(Refusal::Foreign(format!(
                "the Host is {}; allowed: {}",
                shown(headers, &HOST),
                self.allowed()
            )));
        };
        // A browser's page may ask its own server only: port and name are those that it was fetched from.
        let same = |origin: &str| {
            let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
            authority.is_some_and(|authority| authority.eq_ignore_ascii_case(host))
                // A proxy may have written another Host.
                || self.origin.as_ref().is_some_and(|own| own.eq_ignore_ascii_case(origin))
        };
        if headers.contains_key(ORIGIN) && !single(headers, &ORIGIN).is_some_and(same) {
            return Err(Refusal::Foreign(format!(
                "the Origin is {}; allowed: none, or this server's own page",
                shown(headers, &ORIGIN)
            )));
        }
        Ok(())
    }

    /// The token, where one is set.
    pub(crate) fn check_token(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let Some(token) = &self.token else { return Ok(()) };
        let given = single(headers, &AUTHORIZATION).and_then(|value| {
            let (scheme, given) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| given.trim())
        });
        let Some(given) = given else {
            return Err(Refusal::Unauthorized(
                "a token is needed; allowed: the header Authorization: Bearer TOKEN",
            ));
        };
        if constant_time_eq(given.as_bytes(), token.as_bytes()) {
            Ok(())
        } else {
            Err(Refusal::Unauthorized("the token is another one than this server's"))
        }
    }

    fn is_own(&self, host: &str) -> bool {
        let host = host.to_ascii_lowercase();
        let (name, _) = split_port(&host);
        if self.names.iter().any(|own| *own == host || own == name) {
            return true;
        }
        let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        match (self.bound.ip().to_canonical(), address.map(|address| address.to_canonical())) {
            // Rebinding needs a name: an address can't be made to point elsewhere.
            (bound, Ok(address)) if bound.is_unspecified() => !address.is_multicast(),
            (bound, Ok(address)) if bound.is_loopback() => address.is_loopback(),
            (bound, Ok(address)) => address == bound,
            (bound, Err(_)) => name == "localhost" && (bound.is_loopback() || bound.is_unspecified()),
        }
    }

    fn allowed(&self) -> String {
        let bound = self.bound.ip().to_canonical();
        let mut allowed = if bound.is_unspecified() {
            "an address of this machine, localhost".to_owned()
        } else if bound.is_loopback() {
            "localhost, a loopback address".to_owned()
        } else {
            bound.to_string()
        };
        for name in &self.names {
            allowed.push_str(", ");
            allowed.push_str(name);
        }
        allowed
    }
}

/// The value of a header that is there once.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then(|| value.trim())
}

fn shown(headers: &HeaderMap, name: &HeaderName) -> String {
    match headers.get(name) {
        None => "missing".into(),
        Some(value) => {
            let text: String = String::from_utf8_lossy(value.as_bytes()).chars().take(80).collect();
            format!("{text:?}")
        }
    }
}

/// A host and its port, as `[::1]:80`; a bare IPv6 address is never in a header.
fn split_port(host: &str) -> (&str, Option<&str>) {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.ends_with(':') => {
            (name, Some(port))
        }
        _ => (host, None),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn guard(bound: &str, names: &[&str]) -> Guard {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        Guard::new(bound.parse().unwrap(), &names, None, Some("a-token-of-some-length".into()))
    }

    fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect()
    }

    fn passes(guard: &Guard, pairs: &[(HeaderName, &str)]) -> bool {
        guard.check_source(&headers(pairs)).is_ok()
    }

    #[test]
    fn only_own_names_are_answered() {
        let loopback = guard("127.0.0.1:8000", &["Paint.Example.com", "other.example.com:81"]);
        for host in
            ["127.0.0.1:8000", "localhost:8000", "LOCALHOST:9", "[::1]:8000", "localhost", "127.0.0.2"]
        {
            assert!(passes(&loopback, &[(HOST, host)]), "{host}");
        }
        for host in ["paint.example.com", "paint.example.com:443", "other.example.com:81"] {
            assert!(passes(&loopback, &[(HOST, host)]), "{host}");
        }
        for host in [
            "evil.example.com:8000",
            "localhost.example.com",
            "192.168.0.7:8000",
            "127.0.0.1.example.com",
            "other.example.com:82",
            "",
            "localhost:8000@evil.example.com",
            "evil.example.com, localhost",
        ] {
            assert!(!passes(&loopback, &[(HOST, host)]), "{host}");
        }
        assert!(!passes(&loopback, &[]));
        let twice = headers(&[(HOST, "localhost")]);
        let mut doubled = twice.clone();
        doubled.append(HOST, "localhost".parse().unwrap());
        assert!(loopback.check_source(&twice).is_ok() && loopback.check_source(&doubled).is_err());

        let everywhere = guard("0.0.0.0:8000", &[]);
        for (host, own) in [("192.168.0.7:8000", true), ("localhost:8000", true), ("evil.example.com", false)]
        {
            assert_eq!(passes(&everywhere, &[(HOST, host)]), own, "{host}");
        }
        let one = guard("192.168.0.7:8000", &[]);
        for (host, own) in [("192.168.0.7:8000", true), ("192.168.0.8", false), ("localhost", false)] {
            assert_eq!(passes(&one, &[(HOST, host)]), own, "{host}");
        }
    }

    #[test]
    fn only_the_own_page_may_ask_from_a_browser() {
        let guard = guard("127.0.0.1:8000", &[]);
        for (host, origin, own) in [
            ("localhost:8000", "http://localhost:8000", true),
            ("localhost:8000", "https://localhost:8000", true),
            ("127.0.0.1:8000", "http://localhost:8000", false),
            ("localhost:8000", "http://localhost:3000", false),
            ("localhost:8000", "http://localhost", false),
            ("localhost:8000", "http://example.com", false),
            ("localhost:8000", "null", false),
            ("localhost:8000", "", false),
            ("localhost:8000", "file://", false),
        ] {
            assert_eq!(passes(&guard, &[(HOST, host), (ORIGIN, origin)]), own, "{host} {origin}");
        }
        let refusal = guard.check_source(&headers(&[(HOST, "localhost"), (ORIGIN, "null")])).unwrap_err();
        assert_eq!(
            refusal,
            Refusal::Foreign("the Origin is \"null\"; allowed: none, or this server's own page".into())
        );
    }

    #[test]
    fn a_page_from_the_public_address_may_ask_whatever_the_host() {
        let names = ["example.com".to_owned()];
        let origin = "https://example.com:444".to_owned();
        let guard = Guard::new("127.0.0.1:8000".parse().unwrap(), &names, Some(origin), None);
        for (host, origin, own) in [
            ("127.0.0.1:8000", "https://example.com:444", true),
            ("example.com:444", "https://example.com:444", true),
            ("127.0.0.1:8000", "http://example.com:444", false),
            ("127.0.0.1:8000", "https://example.com", false),
            ("127.0.0.1:8000", "https://example.com:444/", false),
            ("evil.example.com", "https://example.com:444", false),
        ] {
            assert_eq!(passes(&guard, &[(HOST, host), (ORIGIN, origin)]), own, "{host} {origin}");
        }
    }

    #[test]
    fn a_token_that_is_set_is_asked_for() {
        let guard = guard("127.0.0.1:8000", &[]);
        let passes = |value: &str| guard.check_token(&headers(&[(AUTHORIZATION, value)])).is_ok();
        assert!(passes("Bearer a-token-of-some-length") && passes("bearer  a-token-of-some-length "));
        for value in [
            "",
            "Bearer",
            "Bearer ",
            "Bearer a-token",
            "Basic a-token-of-some-length",
            "a-token-of-some-length",
        ] {
            assert!(!passes(value), "{value}");
        }
        assert!(guard.check_token(&HeaderMap::new()).is_err());
        let open = Guard::new("127.0.0.1:8000".parse().unwrap(), &[], None, None);
        assert!(open.check_token(&HeaderMap::new()).is_ok());
    }
}
