//! What the server is started with.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use infill_engine::VaeTileSize;
use infill_engine::device::{DTypeChoice, DeviceChoice};
use infill_engine::pipeline::takes_scheduler_option;
use infill_engine::request::SchedulerChoice;
use infill_models::Checkpoint;
use infill_store::Limits;
use serde_json::json;

use crate::Error;

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

/// Where the steps of a run lie on the schedule: `timestep_spacing` of diffusers' schedulers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimestepSpacing {
    /// Multiples of a whole stride.
    Leading,
    /// From the last training timestep down: for Lightning, Turbo and Hyper models and LoRAs.
    Trailing,
    /// Evenly from the first to the last training timestep.
    Linspace,
}

impl TimestepSpacing {
    /// Its name in a scheduler's configuration.
    pub(crate) const KEY: &str = "timestep_spacing";
    const ALL: [(&str, Self); 3] =
        [("leading", Self::Leading), ("trailing", Self::Trailing), ("linspace", Self::Linspace)];

    /// Puts it into the choice of a scheduler that can be told.
    ///
    /// # Errors
    /// A scheduler's configuration that can't be read.
    pub(crate) fn put_into(
        self,
        choice: &mut SchedulerChoice,
        checkpoint: &Checkpoint,
    ) -> infill_engine::Result<()> {
        if takes_scheduler_option(checkpoint, choice, Self::KEY)? {
            let name = Self::ALL.iter().find(|(_, spacing)| *spacing == self).map(|(name, _)| *name);
            choice.overrides.push((Self::KEY.to_owned(), json!(name)));
        }
        Ok(())
    }
}

impl FromStr for TimestepSpacing {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let found = Self::ALL.iter().find(|(name, _)| *name == text);
        found.map(|(_, spacing)| *spacing).ok_or_else(|| Error::Refused {
            field: "timestep-spacing",
            value: text.to_owned(),
            allowed: Self::ALL.map(|(name, _)| name).join(", "),
        })
    }
}
