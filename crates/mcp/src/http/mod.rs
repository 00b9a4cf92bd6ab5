//! The server over HTTP: the protocol at `/mcp`, a page for people at `/`, and what an operator asks.
//!
//! One worker, one store and one set of models serve every session. Protocols before 2026-07-28 get a session each,
//! that one needs none; the SDK tells them apart.

mod body;
mod guard;
mod line;
mod metrics;
mod options;
mod page;
mod patient;
mod site;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use rmcp::transport::streamable_http_server::session::local::{LocalSessionManager, SessionConfig};
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, timeout};

pub use options::HttpOptions;

use crate::call::MOST_WAIT_IN_SESSION;
use crate::links::Links;
use crate::server::Server;
use crate::studio::Studio;
use crate::{Error, Result, ServeOptions, tools};
use guard::Guard;
use patient::Patient;
use site::Site;

/// Connections that are open at once; further ones wait to be taken.
const MOST_CONNECTIONS: usize = 512;
/// How long a client may take for the head of a request, and keep a connection open without one.
const HEAD: Duration = Duration::from_secs(15);
/// How long a session lives without a message in either direction: a call that reports no progress may be long, and
/// [waits for less](crate::call::MOST_WAIT_IN_SESSION).
const IDLE_SESSION: Duration = Duration::from_secs(2 * 60 * 60);
const _: () = assert!(MOST_WAIT_IN_SESSION.as_secs() < IDLE_SESSION.as_secs());
/// How long the jobs may take to stop once the server is told to end.
const GRACE: Duration = Duration::from_secs(15);
/// How long connections may take to end after that.
const CLOSING: Duration = Duration::from_secs(2);

/// Serves over HTTP until the process is told to end (SIGINT, SIGTERM). Calls that wait are cancelled then, and other
/// jobs left for the next server over the store. `on_listening` is told the address.
///
/// Blocks: it makes its own runtime, so don't call it from within another one.
///
/// # Errors
/// A folder, a store or an address that can't be used. A device that can't be opened is the error of each call.
pub fn serve_http(
    options: &ServeOptions,
    http: &HttpOptions,
    on_listening: impl FnOnce(SocketAddr),
) -> Result<()> {
    let (open, ended) = watch::channel(());
    let listen = |reason| Error::Listen { address: http.bind, reason };
    // Bound first: links may lead there.
    let listener = std::net::TcpListener::bind(http.bind).map_err(listen)?;
    let bound = listener.local_addr().map_err(listen)?;
    listener.set_nonblocking(true).map_err(listen)?;
    let public = http.public.as_ref().map(|public| public.url.as_str());
    let studio = Studio::open(options, Links::over_http(bound, public, &http.names))?;
    let server = Server::new(studio.clone(), tools::all()?, ended);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build()?;
    let served = runtime.block_on(serve(studio, server, http, listener, open, on_listening));
    // What still runs is found in the store's rows when it is next opened.
    runtime.shutdown_background();
    served
}

async fn serve(
    studio: Arc<Studio>,
    server: Server,
    http: &HttpOptions,
    listener: std::net::TcpListener,
    open: watch::Sender<()>,
    on_listening: impl FnOnce(SocketAddr),
) -> Result<()> {
    let listen = |reason| Error::Listen { address: http.bind, reason };
    let listener = TcpListener::from_std(listener).map_err(listen)?;
    let bound = listener.local_addr().map_err(listen)?;
    let mut signals = Signals::take()?;

    let mut sessions = LocalSessionManager::default();
    let mut lifetimes = SessionConfig::default();
    lifetimes.keep_alive = Some(IDLE_SESSION);
    sessions.session_config = lifetimes;
    let sessions = Arc::new(sessions);
    // Host and Origin are checked before, for every route.
    let config = StreamableHttpServerConfig::default()
        .disable_allowed_hosts()
        .with_max_request_body_bytes(body::MOST_BYTES);
    let stop = config.cancellation_token.clone();
    let running = server.running();
    let mcp = StreamableHttpService::new(move || Ok(server.clone()), sessions.clone(), config);
    let origin = http.public.as_ref().map(|public| public.origin.clone());
    let guard = Guard::new(bound, &http.names, origin, http.token.clone());
    let site = Arc::new(Site::new(guard, studio.clone(), mcp, sessions, running.clone()));

    // Before anything is logged: whoever started the server reads where it is from the first line.
    on_listening(bound);
    tracing::info!(%bound, token = http.token.is_some(), "listening");
    Studio::start(&studio)?;
    let graceful = GracefulShutdown::new();
    tokio::select! {
        () = accept(&listener, &site, &graceful) => {}
        () = signals.next() => {}
    }
    drop(listener);
    let at_work = running.load(Ordering::Acquire);
    tracing::info!(at_work, "ending");
    // Every call that waits is cancelled with it, and answered where its client still listens.
    drop(open);
    let deadline = Instant::now() + GRACE;
    let stopped = async {
        while running.load(Ordering::Acquire) > 0 && Instant::now() < deadline {
            sleep(Duration::from_millis(10)).await;
        }
        // Any other job is left for the next server.
        if let Err(error) = spawn_blocking(move || studio.desk.close(deadline.into_std())).await {
            tracing::error!(%error, "the worker was not stopped");
        }
    };
    tokio::select! {
        () = stopped => {}
        // Asked twice: not a moment longer.
        () = signals.next() => {}
    }
    let closed = async {
        let stop_sessions = async {
            // The answers to the calls go out first.
            sleep(Duration::from_millis(100)).await;
            stop.cancel();
        };
        tokio::join!(graceful.shutdown(), stop_sessions);
    };
    if timeout(CLOSING, closed).await.is_err() {
        tracing::warn!("connections were cut off");
    }
    tracing::info!("ended");
    Ok(())
}

/// Takes connections for ever.
async fn accept(listener: &TcpListener, site: &Arc<Site>, graceful: &GracefulShutdown) {
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => connect(stream, place, site.clone(), graceful),
            Err(error) => {
                // Out of file descriptors, most likely: others have to end first.
                tracing::warn!(%error, "a connection could not be taken");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

fn connect(stream: TcpStream, place: OwnedSemaphorePermit, site: Arc<Site>, graceful: &GracefulShutdown) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection without TCP_NODELAY");
    }
    let answering = site.clone();
    let service = service_fn(move |request| {
        let site = answering.clone();
        async move { Ok::<_, Infallible>(site.answer(request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .serve_connection(TokioIo::new(Patient::new(stream)), service);
    let connection = graceful.watch(connection);
    tokio::spawn(async move {
        let _place = place;
        let _open = site.metrics.connections.enter();
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection broke");
        }
    });
}

/// The signals that ask the process to end.
struct Signals {
    #[cfg(unix)]
    taken: [tokio::signal::unix::Signal; 2],
}

impl Signals {
    #[cfg(unix)]
    fn take() -> Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { taken: [signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?] })
    }

    #[cfg(unix)]
    async fn next(&mut self) {
        let [interrupt, terminate] = &mut self.taken;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    }

    #[cfg(not(unix))]
    fn take() -> Result<Self> {
        Ok(Self {})
    }

    #[cfg(not(unix))]
    async fn next(&mut self) {
        if let Err(error) = tokio::signal::ctrl_c().await {
            tracing::error!(%error, "Ctrl-C can't be waited for");
            std::future::pending::<()>().await;
        }
    }
}
