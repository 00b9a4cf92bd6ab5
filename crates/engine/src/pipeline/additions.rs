//! The loaded networks, brought into the state that a run's additions need.

use infill_models::Checkpoint;

use super::{Observer, Pipeline};
use crate::Result;
use crate::additions::Additions;

impl Pipeline {
    /// Applies exactly these additions, undoing those of the run before; cheap where nothing changed.
    ///
    /// # Errors
    /// A file that does not fit this model, by name; [`crate::Error::Cancelled`] if the observer breaks or its interrupt says so.
    pub fn apply(
        &mut self,
        checkpoint: &Checkpoint,
        additions: &Additions,
        observer: &mut Observer<'_>,
    ) -> Result<()> {
        self.set_concepts(checkpoint, &additions.concepts, observer)?;
        self.set_ip_adapters(checkpoint, &additions.ip_adapters, observer)?;
        self.set_embeddings(&additions.embeddings)
    }
}
