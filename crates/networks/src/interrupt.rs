//! Long work that somebody may no longer want.

use std::fmt;
use std::sync::Arc;

use crate::{Error, Result};

/// Asked between the parts of long work (tensors read, blocks run, tiles coded) whether it is still wanted. The default
/// always wants it.
#[derive(Clone, Default)]
pub struct Interrupt(Option<Arc<dyn Fn() -> bool + Send + Sync>>);

impl Interrupt {
    /// Stops the work once `stop` says true. It is asked often, so it should be cheap.
    pub fn new(stop: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(stop)))
    }

    /// Whether to go on.
    ///
    /// # Errors
    ///
    /// [`Error::Interrupted`] once the work is not wanted.
    pub fn check(&self) -> Result<()> {
        match &self.0 {
            Some(stop) if stop() => Err(Error::Interrupted),
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for Interrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Interrupt(..)" } else { "Interrupt(never)" })
    }
}
