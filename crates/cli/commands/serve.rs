//! `infill serve`: the tools over MCP on standard input and output.

use std::io::IsTerminal;

use infill_mcp::{ServeOptions, serve_stdio};

use crate::args::ServeArgs;
use crate::failure::{Failure, Result};
use crate::settings::Settings;
use crate::stderr;

pub(crate) fn run(args: &ServeArgs, settings: &Settings) -> Result<()> {
    if std::io::stdin().is_terminal() {
        stderr::line(
            "note: this speaks MCP on standard input and output and is started by an MCP host; Ctrl-D ends it",
        );
    }
    let options = ServeOptions {
        store_dir: settings.store_dir(args.store.as_deref())?,
        allow_dirs: settings.allow_dirs(&args.allow_dirs)?,
        models_dir: settings.models_dir(args.device.models.as_deref())?,
        device: settings.device(args.device.device.as_deref())?,
        dtype: settings.dtype(args.device.dtype.as_deref())?,
    };
    serve_stdio(&options).map_err(|error| match error {
        infill_mcp::Error::Folder { .. } => Failure::Refused(error.to_string()),
        infill_mcp::Error::Store(error) => Failure::Refused(format!("the store can't be opened: {error}")),
        infill_mcp::Error::Engine(error) => error.into(),
        other => Failure::Failed(other.to_string()),
    })
}
