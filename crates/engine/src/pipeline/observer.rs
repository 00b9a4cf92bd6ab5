//! How a run is watched and stopped.

use std::ops::ControlFlow;

use infill_networks::{Interrupt, Tensor};

use super::Preview;
use crate::{Error, Result};

/// Where a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// A component of the checkpoint is about to be loaded.
    Loading {
        /// Its folder's name: `unet`, `vae`, ...
        component: &'static str,
    },
    /// Words and pixels are being encoded.
    Encoding,
    /// A denoising step is about to begin.
    Step {
        /// The picture's number, from 0.
        sample: usize,
        /// How many pictures there will be.
        samples: usize,
        /// The step's number, from 0. Schedulers of order 2 take two network calls for most steps.
        step: usize,
        /// How many there will be.
        steps: usize,
    },
    /// The latents of a picture are being decoded.
    Decoding {
        /// The picture's number, from 0.
        sample: usize,
        /// How many pictures there will be.
        samples: usize,
    },
}

type OnProgress<'a> = &'a mut dyn FnMut(Progress) -> ControlFlow<()>;
type OnTensor<'a> = &'a mut dyn FnMut(&str, &Tensor);
type OnPreview<'a> = &'a mut dyn FnMut(Preview);

/// Sees each stage before it begins and may stop the run there; on request it is shown what the pictures look like on
/// the way, and every tensor between the stages, named as in the parity fixtures (`te1.0/penultimate`,
/// `step.3/unet_out`, ...).
#[derive(Default)]
pub struct Observer<'a> {
    progress: Option<OnProgress<'a>>,
    tensor: Option<OnTensor<'a>>,
    preview: Option<OnPreview<'a>>,
    interrupt: Interrupt,
}

impl<'a> Observer<'a> {
    /// An observer that only waits.
    pub fn silent() -> Self {
        Self::default()
    }

    /// An observer of the stages; [`ControlFlow::Break`] means cancelled.
    pub fn new(progress: OnProgress<'a>) -> Self {
        Self { progress: Some(progress), ..Self::default() }
    }

    /// Shows the tensors between the stages too.
    pub fn with_tensors(mut self, tensor: OnTensor<'a>) -> Self {
        self.tensor = Some(tensor);
        self
    }

    /// Shows each picture a few times before it is finished. The pictures do not depend on it.
    pub fn with_previews(mut self, preview: OnPreview<'a>) -> Self {
        self.preview = Some(preview);
        self
    }

    /// Stops the run in the middle of a stage too: between two tensors that are read, two blocks of the
    /// UNet or the VAE, two tiles.
    pub fn with_interrupt(mut self, interrupt: Interrupt) -> Self {
        self.interrupt = interrupt;
        self
    }

    /// For work that takes long.
    pub(crate) fn interrupt(&self) -> &Interrupt {
        &self.interrupt
    }

    /// Whether previews are worth making.
    pub(crate) fn wants_previews(&self) -> bool {
        self.preview.is_some()
    }

    /// Shows an unfinished picture.
    pub(crate) fn preview(&mut self, preview: Preview) {
        if let Some(f) = self.preview.as_mut() {
            f(preview);
        }
    }

    /// Reports a stage.
    ///
    /// # Errors
    /// [`Error::Cancelled`] if the observer breaks or its interrupt says so.
    pub(crate) fn report(&mut self, progress: Progress) -> Result<()> {
        self.interrupt.check()?;
        match self.progress.as_mut().map(|f| f(progress)) {
            Some(ControlFlow::Break(())) => Err(Error::Cancelled),
            _ => Ok(()),
        }
    }

    /// Shows a tensor.
    pub(crate) fn tap(&mut self, name: &str, tensor: &Tensor) {
        if let Some(f) = self.tensor.as_mut() {
            f(name, tensor);
        }
    }

    /// Shows the tensor of a numbered call or step.
    pub(crate) fn tap_at(&mut self, group: &str, index: usize, name: &str, tensor: &Tensor) {
        if let Some(f) = self.tensor.as_mut() {
            f(&format!("{group}.{index}/{name}"), tensor);
        }
    }
}
