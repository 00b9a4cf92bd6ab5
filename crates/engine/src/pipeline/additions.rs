//! The loaded networks, brought into the state that a run's additions need.

use infill_models::Checkpoint;

use super::{Observer, Pipeline};
use crate::additions::Additions;
use crate::{Error, Result};

impl Pipeline {
    /// Applies exactly these additions, undoing those of the run before; cheap where nothing changed.
    ///
    /// # Errors
    /// A file that does not fit this model, by name; [`Error::Cancelled`] if the observer breaks.
    pub fn apply(
        &mut self,
        checkpoint: &Checkpoint,
        additions: &Additions,
        observer: &mut Observer<'_>,
    ) -> Result<()> {
        let refuse = |field, count: usize| match count {
            0 => Ok(()),
            _ => Err(Error::Refused { field, value: format!("{count} given"), allowed: "none".into() }),
        };
        refuse("embeddings", additions.embeddings.len())?;
        self.set_concepts(checkpoint, &additions.concepts, observer)?;
        self.set_ip_adapters(checkpoint, &additions.ip_adapters, observer)
    }
}
