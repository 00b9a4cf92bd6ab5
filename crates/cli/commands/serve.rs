//! `infill serve`: the tools over MCP, on standard input and output or over HTTP.

use std::env;
use std::io::IsTerminal;
use std::time::Duration;

use infill_engine::device::DeviceChoice;
use infill_engine::scheduler::TimestepSpacing;
use infill_mcp::{HttpOptions, ServeOptions, Ways, serve_http, serve_stdio};

use crate::args::ServeArgs;
use crate::failure::{Failure, Result};
use crate::settings::Settings;
use crate::stderr;

const TOKEN: &str = "INFILL_TOKEN";
/// What the store keeps in any case: a client may not have fetched it yet.
const SPARED: Duration = Duration::from_secs(60 * 60);

pub(crate) fn run(args: &ServeArgs, settings: &Settings) -> Result<()> {
    let options = ServeOptions {
        store_dir: settings.store_dir(args.store.as_deref())?,
        allow_dirs: settings.allow_dirs(&args.allow_dirs)?,
        models_dir: settings.models_dir(args.device.models.as_deref())?,
        wait: Duration::from_secs(args.wait_seconds.into()),
        limits: settings.limits(&args.limits, SPARED)?,
        device: settings.device(args.device.device.as_deref())?,
        dtype: settings.dtype(args.device.dtype.as_deref())?,
        ways: Ways {
            vae_tile_size: settings.vae_tile_size(args.device.vae_tile_size.as_deref())?,
            match_colours: args.match_colours,
            timestep_spacing: args.timestep_spacing.as_deref().and_then(TimestepSpacing::named),
        },
    };
    if !matches!(options.device, DeviceChoice::Auto | DeviceChoice::Cpu) {
        // No client could mend it.
        options.device.open()?;
    }
    let Some(address) = &args.http else {
        if std::io::stdin().is_terminal() {
            stderr::line(
                "note: this speaks MCP on standard input and output and is started by an MCP host; Ctrl-D ends it",
            );
        }
        return serve_stdio(&options).map_err(failure);
    };
    let mut http = HttpOptions::new(address, token(args)?.as_deref(), &args.allow_hosts).map_err(failure)?;
    if let Some(url) = &args.public_url {
        http = http.reached_at(url).map_err(failure)?;
    }
    let listening = |address| {
        stderr::line(&format!(
            "listening on http://{address}/mcp, with a page for people at http://{address}/"
        ));
    };
    serve_http(&options, &http, listening).map_err(failure)
}

/// What clients must show, from the file or else the environment; never from the command line, which everybody sees.
fn token(args: &ServeArgs) -> Result<Option<String>> {
    let Some(path) = &args.token_file else {
        return Ok(env::var(TOKEN).ok().filter(|token| !token.is_empty()));
    };
    let read = std::fs::read_to_string(path).map_err(|e| {
        Failure::value("--token-file", format!("{} ({e})", path.display()), "a file that can be read")
    })?;
    Ok(Some(read))
}

fn failure(error: infill_mcp::Error) -> Failure {
    match error {
        infill_mcp::Error::Folder { .. } | infill_mcp::Error::Refused { .. } => {
            Failure::Refused(error.to_string())
        }
        infill_mcp::Error::Store(error) => Failure::Refused(format!("the store can't be opened: {error}")),
        infill_mcp::Error::Engine(error) => error.into(),
        other => Failure::Failed(other.to_string()),
    }
}
