//! What the server is started with.

use std::path::PathBuf;
use std::time::Duration;

use infill_engine::VaeTileSize;
use infill_engine::device::{DTypeChoice, DeviceChoice};
use infill_engine::scheduler::TimestepSpacing;
use infill_store::Limits;

/// What the server is started with.
#[derive(Debug, Clone, Default)]
pub struct ServeOptions {
    /// The folder of the database and the pictures; made if absent.
    pub store_dir: PathBuf,
    /// Folders under which `file://` pictures and model folders may lie. None: neither is allowed.
    pub allow_dirs: Vec<PathBuf>,
    /// A folder of model folders, each found by its name, besides the catalogue.
    pub models_dir: Option<PathBuf>,
    /// How long a call waits for its job before it is answered with the job as it is; zero: at once.
    pub wait: Duration,
    /// How much the store may hold.
    pub limits: Limits,
    /// The device that the worker runs on.
    pub device: DeviceChoice,
    /// The number format of the networks.
    pub dtype: DTypeChoice,
    /// How pictures are made.
    pub ways: Ways,
}

/// What no call says, but the server: a job keeps those of the server that took it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ways {
    /// The side of the tiles in which large pictures go through the VAE, if they do.
    pub vae_tile_size: Option<VaeTileSize>,
    /// Whether painted colours are brought to those around the mask.
    pub match_colours: bool,
    /// Where the steps lie on the schedule, of schedulers that can be told.
    pub timestep_spacing: Option<TimestepSpacing>,
}
