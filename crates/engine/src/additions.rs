//! What a run puts on top of a checkpoint.

use infill_models::adapter::{AdapterFile, ImageEncoderFolder};
use infill_models::embedding::EmbeddingFile;
use infill_models::lora::LoraFile;

/// Everything that changes the loaded networks besides the checkpoint itself.
#[derive(Debug, Clone, Default)]
pub struct Additions {
    /// Concepts, merged into the weights in this order.
    pub concepts: Vec<Concept>,
    /// Adapters; the i-th reads the request's i-th image prompt.
    pub ip_adapters: Vec<IpAdapterSource>,
    /// Textual inversions that prompts may name.
    pub embeddings: Vec<EmbeddingFile>,
}

/// A LoRA and how strongly it works.
#[derive(Debug, Clone)]
pub struct Concept {
    /// The changes.
    pub file: LoraFile,
    /// Their factor, in -2..=2; 0 is as if it were not there.
    pub scale: f64,
}

/// An adapter with the encoder of its reference pictures.
#[derive(Debug, Clone)]
pub struct IpAdapterSource {
    /// Projection and attention weights.
    pub file: AdapterFile,
    /// What turns a picture into the features that the projection reads.
    pub image_encoder: ImageEncoderFolder,
}
