//! The one error type of the server: what keeps it from starting or ends it. What is wrong with a call is an answer
//! to that call, not an error here.

use std::path::PathBuf;

/// What can go wrong around the server.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A folder of the options that can't be used.
    #[error("{field} is {}; {reason}", path.display())]
    Folder {
        /// The option.
        field: &'static str,
        /// Its value.
        path: PathBuf,
        /// Why it can't be used, in words.
        reason: String,
    },
    /// An option that can't be used.
    #[error("{field} is {value}; allowed: {allowed}")]
    Refused {
        /// The option.
        field: &'static str,
        /// Its value, in words where it is a secret.
        value: String,
        /// What is allowed.
        allowed: String,
    },
    /// The address can't be listened on.
    #[error("{address} can't be listened on: {reason}")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// Why, in the system's words.
        reason: std::io::Error,
    },
    /// The runtime or the standard streams.
    #[error("the server can't run: {0}")]
    Runtime(#[from] std::io::Error),
    /// The client and the server could not agree to talk.
    #[error("the session could not begin: {0}")]
    Session(String),
    /// A tool's definition, which is built in, can't be read.
    #[error("the definition of the tool {name} is broken: {reason}")]
    Definition {
        /// The tool.
        name: &'static str,
        /// Why, in words.
        reason: String,
    },
    /// The store could not be opened.
    #[error(transparent)]
    Store(#[from] infill_store::Error),
    /// The engine could not start.
    #[error(transparent)]
    Engine(#[from] infill_engine::Error),
}

/// The result of a call into the server.
pub type Result<T> = std::result::Result<T, Error>;
