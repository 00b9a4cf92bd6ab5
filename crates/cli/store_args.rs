//! What was typed of the store: `infill assets` and `infill jobs`.

use std::path::PathBuf;

use std::time::Duration;

use clap::{Args, Subcommand};

use crate::amounts::{age, size};
use crate::args::EXIT_CODES;

/// How much the store may hold.
#[derive(Debug, Args)]
pub(crate) struct LimitArgs {
    /// Most that the store may hold, such as 20GB; previews of runs go first, then what was put in longest ago
    /// [default: no limit]
    #[arg(long, value_name = "SIZE", value_parser = size, allow_hyphen_values = true)]
    pub(crate) max_size: Option<u64>,
    /// How long the store keeps a picture after it was last put in, such as 30d [default: no limit]
    #[arg(long, value_name = "AGE", value_parser = age, allow_hyphen_values = true)]
    pub(crate) max_age: Option<Duration>,
}

/// Which store, and how the answer is written.
#[derive(Debug, Args)]
pub(crate) struct StorePlace {
    /// Folder where pictures and jobs are kept [default: the user's data folder]
    #[arg(long, value_name = "DIR")]
    pub(crate) store: Option<PathBuf>,
    /// Print one JSON value
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct AssetsArgs {
    #[command(subcommand)]
    pub(crate) command: AssetsCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AssetsCommand {
    /// Put pictures into the store, and print their ids.
    Add {
        /// Pictures: PNG, JPEG or WebP
        #[arg(value_name = "FILE", required = true)]
        files: Vec<PathBuf>,
        /// The asset that they were made from
        #[arg(long, value_name = "ID")]
        parent: Option<String>,
        /// Keep them out of listings
        #[arg(long)]
        hide: bool,
        #[command(flatten)]
        place: StorePlace,
    },
    /// List the pictures, oldest first.
    List {
        /// The hidden ones too
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        place: StorePlace,
    },
    /// Show what is known of a picture.
    Show {
        /// An id of `infill assets list`
        #[arg(value_name = "ID")]
        id: String,
        #[command(flatten)]
        place: StorePlace,
    },
    /// Copy a picture out of the store, byte for byte.
    Export {
        /// An id of `infill assets list`
        #[arg(value_name = "ID")]
        id: String,
        /// Where the copy goes [default: the id, in this folder]
        #[arg(long, short, value_name = "PATH")]
        out: Option<PathBuf>,
        /// Replace what is there
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        place: StorePlace,
    },
    /// Remove pictures from the store for good.
    Rm {
        /// Ids of `infill assets list`
        #[arg(value_name = "ID", required = true)]
        ids: Vec<String>,
        #[command(flatten)]
        place: StorePlace,
    },
    /// Remove what is beyond a size or an age, but nothing that an unfinished job needs.
    Prune {
        #[command(flatten)]
        limits: LimitArgs,
        /// Only say what would go
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        place: StorePlace,
    },
}

#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct JobsArgs {
    #[command(subcommand)]
    pub(crate) command: JobsCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum JobsCommand {
    /// List the jobs, oldest first.
    List {
        #[command(flatten)]
        place: StorePlace,
    },
    /// Stop jobs: at once where they wait, else at their next step.
    Cancel {
        /// Ids of `infill jobs list`
        #[arg(value_name = "ID", required = true)]
        ids: Vec<String>,
        #[command(flatten)]
        place: StorePlace,
    },
    /// Show what a job was asked and how it went.
    Show {
        /// An id of `infill jobs list`
        #[arg(value_name = "ID")]
        id: String,
        #[command(flatten)]
        place: StorePlace,
    },
}
