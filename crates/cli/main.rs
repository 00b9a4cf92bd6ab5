//! `infill`: offline inpainting from the command line, and the MCP server.
//!
//! What was typed (`args`) becomes what it means (`settings`), then a command runs and reports.
//!
//! # Architecture invariant
//!
//! Only this crate writes standard output, and only through `stdout`, but for the server, whose wire it is. A command that fails leaves one sentence on
//! standard error, an exit code, and no half-written file.

mod addition_args;
mod additions;
mod amounts;
mod args;
mod attend;
mod cancel;
mod commands;
mod digest;
mod failure;
mod kept;
mod output;
mod panics;
mod pictures;
mod progress;
mod report;
mod scaled;
mod settings;
mod stderr;
mod stdout;
mod store_args;
mod strip;
mod table;
mod usage;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;
use tracing_subscriber::EnvFilter;

use crate::args::{Cli, Command, LogFormat};
use crate::failure::{Failure, Result};
use crate::settings::Settings;

fn main() -> ExitCode {
    panics::install();
    match panics::caught(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            stderr::line(&format!("error: {}", failure.sentence()));
            // Threads may still be at work on a run that was given up.
            cancel::abandon();
            failure.exit_code()
        }
    }
}

fn run() -> Result<()> {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    log_to_stderr(&cli.command)?;
    match &cli.command {
        Command::Inpaint(args) => commands::inpaint::run(args, &Settings::load()?),
        Command::Demo(args) => commands::demo::run(args, &Settings::load()?),
        Command::Noise(args) => commands::noise::run(args),
        Command::Serve(args) => commands::serve::run(args, &Settings::load()?),
        Command::Models(args) => commands::models::run(&args.command, &Settings::load()?),
        Command::Assets(args) => commands::assets::run(&args.command, &Settings::load()?),
        Command::Jobs(args) => commands::jobs::run(&args.command, &Settings::load()?),
        Command::Completions { shell } => commands::completions::run(*shell),
    }
}

/// Help and version are answers; the rest of what clap says is a refusal.
fn usage(error: &clap::Error) -> Result<()> {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            stdout::bytes(error.render().to_string().as_bytes())
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            stderr::line(error.render().to_string().trim_end());
            Err(Failure::Refused("a command is missing".to_owned()))
        }
        _ => {
            let command = std::env::args_os().nth(1).unwrap_or_default();
            Err(Failure::Refused(usage::sentence(error, &command.to_string_lossy())))
        }
    }
}

/// Logs go to standard error, as much as `INFILL_LOG` asks for; a server tells of warnings by itself, and over HTTP of
/// each request.
fn log_to_stderr(command: &Command) -> Result<()> {
    // What a client did wrong is an answer to that client.
    let (default, protocol, format) = match command {
        Command::Serve(args) if args.http.is_some() => ("warn,infill_mcp=info", "rmcp=off", args.log_format),
        Command::Serve(args) => ("warn", "rmcp=error", args.log_format),
        _ => ("off", "rmcp=off", LogFormat::Text),
    };
    let directives = std::env::var("INFILL_LOG").unwrap_or_else(|_| default.to_owned());
    // The protocol's library logs whole messages, with the pictures in them: only where it is asked for by name.
    let all =
        if directives.contains("rmcp") { directives.clone() } else { format!("{directives},{protocol}") };
    let filter = EnvFilter::try_new(all).map_err(|_| {
        Failure::value(
            "INFILL_LOG",
            format!("\"{directives}\""),
            "off, error, warn, info, debug, trace, or tracing's directives",
        )
    })?;
    let colours = std::io::stderr().is_terminal();
    let log =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours);
    match format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
    Ok(())
}
