//! The MCP server of infill: the reference's tools over the engine, spoken on stdin and stdout or over HTTP.
//!
//! # Architecture invariant
//!
//! Only this crate knows the protocol. On stdio, stdout is the wire: nothing else is ever written there, and logs go
//! to `tracing`, which the command line sends to stderr.

mod arguments;
mod call;
mod completion;
mod desk;
mod envelope;
mod error;
mod estimate;
mod holdings;
mod http;
mod inference;
mod inside;
mod links;
mod options;
mod order;
mod percent;
mod pictures;
mod prepare;
mod preview;
mod progress;
mod prompts;
mod reply;
mod report;
mod resources;
mod run;
mod server;
mod sizes;
mod stdio;
mod studio;
mod tasks;
mod tools;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rmcp::ServiceExt;
use rmcp::service::ServerInitializeError;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

use links::Links;
use server::Server;
use stdio::LineTransport;
use studio::Studio;

pub use error::{Error, Result};
pub use http::{HttpOptions, serve_http};
pub use options::{ServeOptions, Ways};

/// How long jobs may take to stop once the session has ended.
const CLOSING: Duration = Duration::from_secs(2);

/// Serves one client on stdin and stdout until stdin ends. The job of a call that is not answered is canceled then; any
/// other that is not done is left for the next server over the store.
///
/// Blocks: it makes its own runtime, so don't call it from within another one.
///
/// # Errors
/// A folder or a store that can't be used, or a client that does not speak the protocol. A device that can't be
/// opened is the error of each call.
pub fn serve_stdio(options: &ServeOptions) -> Result<()> {
    serve_streams(options, tokio::io::stdin(), tokio::io::stdout())
}

/// As [`serve_stdio`], on any two streams.
///
/// # Errors
/// As [`serve_stdio`].
pub fn serve_streams(
    options: &ServeOptions,
    input: impl AsyncRead + Send + Unpin + 'static,
    output: impl AsyncWrite + Send + Unpin + 'static,
) -> Result<()> {
    // Nothing is ever sent: the channel closes with the input.
    let (input_open, input_ended) = watch::channel(());
    let studio = Studio::open(options, Links::Files)?;
    Studio::start(&studio)?;
    let server = Server::new(studio.clone(), tools::all()?, input_ended);
    let running = server.running();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let served = runtime.block_on(async {
        let transport = LineTransport::new(input, output, input_open);
        match server.serve(transport).await {
            Ok(session) => session.waiting().await.map(|_| ()).map_err(|e| Error::Session(e.to_string())),
            // A client that leaves before it has said anything did nothing wrong.
            Err(ServerInitializeError::ConnectionClosed(_)) => Ok(()),
            Err(error) => Err(Error::Session(error.to_string())),
        }
    });
    let deadline = Instant::now() + CLOSING;
    while running.load(Ordering::Acquire) > 0 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
    }
    studio.desk.close(deadline);
    // What still runs is found in the store's rows when it is next opened.
    runtime.shutdown_background();
    served
}
