//! One request from its head to its answer: who may ask, how many at once, and which route it is.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use infill_store::{AssetId, Error as StoreError};
use rmcp::transport::streamable_http_server::StreamableHttpService;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::body::{Fault, Found, MOST_BYTES, Watched};
use super::guard::{Guard, Refusal};
use super::line::{Line, Logged};
use super::metrics::Metrics;
use super::page;
use crate::arguments::bounded;
use crate::server::Server;
use crate::studio::Studio;

/// Requests that are worked on at once; a call that streams its answer counts until it begins to.
const MOST_REQUESTS: usize = 256;
/// Bodies above [`LARGE`] that are read at once: each takes its memory several times over.
const MOST_LARGE: usize = 6;
const LARGE: u64 = 1 << 20;
/// A refusal of more bytes repeats what was sent.
const LONGEST_REFUSAL: u64 = 16 << 10;
/// How long a large body waits for its turn.
const TURN: Duration = Duration::from_secs(30);
/// Sessions that are open at once.
const MOST_SESSIONS: usize = 1000;
/// The first protocol that has no sessions.
const WITHOUT_SESSIONS: &str = "2026-07-28";

/// An answer, whole or streamed.
pub(super) type Answer = Response<BoxBody<Bytes, Infallible>>;

/// What all connections share.
pub(super) struct Site {
    pub(super) guard: Guard,
    pub(super) studio: Arc<Studio>,
    pub(super) mcp: StreamableHttpService<Server, LocalSessionManager>,
    pub(super) sessions: Arc<LocalSessionManager>,
    /// Calls at work.
    pub(super) running: Arc<AtomicUsize>,
    pub(super) metrics: Metrics,
    limits: Limits,
}

struct Limits {
    requests: Semaphore,
    large: Arc<Semaphore>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { requests: Semaphore::new(MOST_REQUESTS), large: Arc::new(Semaphore::new(MOST_LARGE)) }
    }
}

impl Site {
    pub(super) fn new(
        guard: Guard,
        studio: Arc<Studio>,
        mcp: StreamableHttpService<Server, LocalSessionManager>,
        sessions: Arc<LocalSessionManager>,
        running: Arc<AtomicUsize>,
    ) -> Self {
        let (metrics, limits) = (Metrics::default(), Limits::default());
        Self { guard, studio, mcp, sessions, running, metrics, limits }
    }

    /// Answers a request and counts it.
    pub(super) async fn answer(&self, request: Request<Incoming>) -> Answer {
        let _in_progress = self.metrics.in_progress.enter();
        let began = Instant::now();
        let (method, uri) = (request.method().clone(), request.uri().clone());
        let route = Route::of(uri.path());
        let mut answer = self.admitted(route, request).await;
        secure(answer.headers_mut());
        let status = answer.status().as_u16();
        self.metrics.count(route.name(), status);
        let path: String = uri.path().chars().take(80).collect();
        let line = Line { method, path, status, began };
        answer.map(|body| Logged { body, _line: line }.boxed())
    }

    async fn admitted(&self, route: Route<'_>, request: Request<Incoming>) -> Answer {
        let headers = request.headers();
        let checked = self
            .guard
            .check_source(headers)
            .and_then(|()| if route.is_open() { Ok(()) } else { self.guard.check_token(headers) });
        match checked {
            Ok(()) => {}
            Err(Refusal::Foreign(sentence)) => return refused(StatusCode::FORBIDDEN, &sentence),
            Err(Refusal::Unauthorized(sentence)) => {
                let mut answer = refused(StatusCode::UNAUTHORIZED, sentence);
                answer.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
                return answer;
            }
        }
        let Ok(_permit) = self.limits.requests.try_acquire() else {
            return busy(&format!(
                "{MOST_REQUESTS} requests are being worked on, which is all that may be at once"
            ));
        };
        if !matches!(route, Route::Mcp | Route::Unknown)
            && !matches!(*request.method(), Method::GET | Method::HEAD)
        {
            let mut answer =
                refused(StatusCode::METHOD_NOT_ALLOWED, "this can only be read; allowed: GET, HEAD");
            answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            return answer;
        }
        match route {
            Route::Page(file) => page::answer(file),
            Route::Health => text(StatusCode::OK, "ok\n"),
            Route::Metrics => self.metrics().await,
            Route::Asset(id) => self.asset(id, request.headers()).await,
            Route::Mcp => self.mcp(request).await,
            Route::Unknown => refused(
                StatusCode::NOT_FOUND,
                "there is nothing here; allowed: /, /mcp, /assets/ID, /healthz, /metrics",
            ),
        }
    }

    async fn metrics(&self) -> Answer {
        let studio = self.studio.clone();
        let statistics = match tokio::task::spawn_blocking(move || studio.store.statistics()).await {
            Ok(Ok(statistics)) => statistics,
            Ok(Err(error)) => return broken(&error),
            Err(error) => return broken(&error),
        };
        let sessions = self.sessions.sessions.read().await.len();
        let calls = self.running.load(Ordering::Relaxed);
        let mut answer = text(StatusCode::OK, &self.metrics.render(&statistics, sessions, calls));
        let form = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
        answer.headers_mut().insert(header::CONTENT_TYPE, form);
        answer
    }

    /// The bytes of an asset. They never change: the id is made of them.
    async fn asset(&self, id: &str, headers: &HeaderMap) -> Answer {
        let id = match id.parse::<AssetId>() {
            Ok(id) => id,
            Err(error) => return refused(StatusCode::NOT_FOUND, &error.to_string()),
        };
        let tag = format!("\"{id}\"");
        let known =
            headers.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes());
        let (studio, asked) = (self.studio.clone(), id.clone());
        let read = tokio::task::spawn_blocking(move || {
            let asset = studio.store.get(&asked)?;
            let bytes = if known { Vec::new() } else { studio.store.bytes(&asked)? };
            Ok((asset.meta.media_type, bytes))
        });
        let (media_type, bytes) = match read.await {
            Ok(Ok(read)) => read,
            Ok(Err(error @ StoreError::UnknownAsset(_))) => {
                return refused(StatusCode::NOT_FOUND, &error.to_string());
            }
            Ok(Err(error)) => return broken(&error),
            Err(error) => return broken(&error),
        };
        // Whatever else came in is never shown by a browser as what it claims to be.
        let (media_type, extension) = match media_type.as_str() {
            "image/png" => ("image/png", ".png"),
            "image/jpeg" => ("image/jpeg", ".jpg"),
            "image/webp" => ("image/webp", ".webp"),
            _ => ("application/octet-stream", ""),
        };
        let mut answer = whole(if known { StatusCode::NOT_MODIFIED } else { StatusCode::OK }, bytes);
        let headers = answer.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
        let lasting = HeaderValue::from_static("private, max-age=31536000, immutable");
        headers.insert(header::CACHE_CONTROL, lasting);
        let name = format!("inline; filename=\"{id}{extension}\"");
        for (header, value) in [(header::ETAG, tag), (header::CONTENT_DISPOSITION, name)] {
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(header, value);
            }
        }
        answer
    }

    /// The protocol, once the body is known to be within its limits.
    async fn mcp(&self, request: Request<Incoming>) -> Answer {
        let headers = request.headers();
        let text_of = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        // What begins a session says so in its body alone, unless it names its method.
        let newest = text_of("mcp-protocol-version").is_some_and(|version| version >= WITHOUT_SESSIONS)
            && text_of("mcp-method").is_some_and(|method| method != "initialize");
        let opens = *request.method() == Method::POST && !headers.contains_key("mcp-session-id") && !newest;
        if opens && self.sessions.sessions.read().await.len() >= MOST_SESSIONS {
            return busy(&format!("{MOST_SESSIONS} sessions are open, which is all that may be at once"));
        }
        let is_json = text_of("content-type")
            .and_then(|value| value.split(';').next())
            .is_some_and(|value| value.trim().eq_ignore_ascii_case("application/json"));
        let Some(turn) = self.turn(request.body()).await else {
            return busy(&format!(
                "{MOST_LARGE} large requests are being read, which is all that may be at once"
            ));
        };
        let mut found = Found::default();
        let request = request.map(|body| {
            let (body, fault) = Watched::new(body, turn);
            found = fault;
            body
        });
        let closes = *request.method() == Method::DELETE;
        let mut answer = self.mcp.handle(request).await;
        // Clients take only these for a session that is closed: 200 and 204.
        if closes && answer.status() == StatusCode::ACCEPTED {
            *answer.status_mut() = StatusCode::NO_CONTENT;
        }
        match found.fault() {
            Some(Fault::TooLarge) => refused(
                StatusCode::PAYLOAD_TOO_LARGE,
                &format!(
                    "the request is more than {MOST_BYTES} bytes long; allowed: up to that; give a large picture as an \
                     asset id or a file:// URL"
                ),
            ),
            Some(Fault::TooSlow) => {
                refused(StatusCode::REQUEST_TIMEOUT, "the rest of the request did not come in time")
            }
            Some(Fault::Broken) => refused(StatusCode::BAD_REQUEST, "the request broke off"),
            None if answer.status() == StatusCode::UNSUPPORTED_MEDIA_TYPE && is_json => {
                no_message(answer).await
            }
            None if answer.status().is_client_error()
                && answer.body().size_hint().lower() > LONGEST_REFUSAL =>
            {
                shortened(answer).await
            }
            None => answer,
        }
    }

    /// Waits until a large body may be read; `None` where that took too long.
    async fn turn(&self, body: &Incoming) -> Option<Option<OwnedSemaphorePermit>> {
        if body.size_hint().upper().is_some_and(|upper| upper <= LARGE) {
            return Some(None);
        }
        timeout(TURN, self.limits.large.clone().acquire_owned()).await.ok()?.ok().map(Some)
    }
}

/// Where a path leads.
#[derive(Clone, Copy)]
enum Route<'a> {
    Page(&'static page::File),
    Health,
    Metrics,
    Asset(&'a str),
    Mcp,
    Unknown,
}

impl Route<'_> {
    fn of(path: &str) -> Route<'_> {
        match path {
            "/mcp" => Route::Mcp,
            "/healthz" => Route::Health,
            "/metrics" => Route::Metrics,
            _ => {
                let asset = path.strip_prefix("/assets/").map(Route::Asset);
                asset.or_else(|| page::file(path).map(Route::Page)).unwrap_or(Route::Unknown)
            }
        }
    }

    /// As it is counted.
    fn name(self) -> &'static str {
        match self {
            Self::Page(_) => "page",
            Self::Health => "/healthz",
            Self::Metrics => "/metrics",
            Self::Asset(_) => "/assets",
            Self::Mcp => "/mcp",
            Self::Unknown => "unknown",
        }
    }

    /// What says nothing of anybody's pictures needs no token: the page itself asks for it.
    fn is_open(self) -> bool {
        matches!(self, Self::Page(_) | Self::Health)
    }
}

/// The SDK has no JSON-RPC answer for a body that is no message.
async fn no_message(answer: Answer) -> Answer {
    let reason = answer.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let reason = String::from_utf8_lossy(&reason);
    let reason = reason.strip_prefix("fail to deserialize request body ").unwrap_or(&reason);
    // What is no JSON has a place where it stops being some; other JSON is only no message.
    let code = if reason.contains(" at line ") { -32700 } else { -32600 };
    let message = format!("the body is not one message of JSON-RPC 2.0: {reason}");
    let error = json!({ "jsonrpc": "2.0", "id": null, "error": { "code": code, "message": message } });
    let mut answer = whole(StatusCode::BAD_REQUEST, error.to_string().into_bytes());
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

/// The SDK repeats what it refuses, however long that is.
async fn shortened(answer: Answer) -> Answer {
    let status = answer.status();
    let body = answer.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let refusal: Value = serde_json::from_slice(&body).unwrap_or_default();
    let sentence = bounded(refusal["error"]["message"].as_str().unwrap_or("the request is refused"));
    let code = refusal["error"]["code"].as_i64().unwrap_or(-32600);
    let error =
        json!({ "jsonrpc": "2.0", "id": refusal["id"], "error": { "code": code, "message": sentence } });
    let mut answer = whole(status, error.to_string().into_bytes());
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

/// What every answer says to a browser.
fn secure(headers: &mut HeaderMap) {
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
}

/// A body that is there at once.
pub(super) fn whole(status: StatusCode, bytes: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(bytes.into()).boxed());
    *answer.status_mut() = status;
    answer
}

fn text(status: StatusCode, text: &str) -> Answer {
    let mut answer = whole(status, text.to_owned());
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    answer.headers_mut().insert(header::CONTENT_TYPE, plain);
    answer
}

/// One sentence.
fn refused(status: StatusCode, sentence: &str) -> Answer {
    text(status, &format!("{sentence}\n"))
}

fn busy(sentence: &str) -> Answer {
    let mut answer = refused(StatusCode::SERVICE_UNAVAILABLE, &format!("{sentence}; try again in a moment"));
    answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("2"));
    answer
}

fn broken(error: &dyn std::error::Error) -> Answer {
    tracing::error!(%error, "a request failed inside");
    refused(StatusCode::INTERNAL_SERVER_ERROR, "the request failed inside; see the server's log")
}
