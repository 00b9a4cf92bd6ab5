//! How much memory a run takes, planned from the headers and configurations of its files: nothing is loaded.
//!
//! An estimate that is meant to be too large rather than too small. It counts every weight in the format that it runs
//! in, the largest file that is mapped while it is read, and a number of the largest tensors of the UNet and the VAE
//! that was found by measuring (docs/benchmarks.md).

use infill_models::{Checkpoint, Component, summarize};
use infill_networks::unet::UNet2DConditionConfig;
use infill_networks::vae::AutoencoderKlConfig;

use crate::additions::Additions;
use crate::pipeline::LoadOptions;
use crate::request::InpaintRequest;
use crate::{Result, VaeTileSize, guidance};

/// Bytes that a run takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryPlan {
    /// The networks, in the formats that they run in.
    pub weights: u64,
    /// Beside them while they are read: the largest of their files.
    pub loading: u64,
    /// Beside them while a picture is made.
    pub working: u64,
}

/// The program itself, its tokenizers, threads and pictures of common sizes.
const PROGRAM: u64 = 96 << 20;

/// Tensors as large as the widest feature map of the VAE's decoder that are held at once, copies of its convolutions
/// among them.
const VAE_TENSORS: u64 = 7;
/// Feature maps of the UNet's first level that are held at once, with the skips of all levels and the wide inner layer
/// of its transformers.
const UNET_TENSORS: u64 = 48;
/// What a convolution of 3 by 3 unfolds its input to, where there is no kernel that spares it.
const UNFOLDED: u64 = 9;
/// Attention scores where there is no kernel that spares them, with their softmax: three times 64 Mi of 4 bytes.
const SCORES: u64 = 3 * 4 * (64 << 20);

impl MemoryPlan {
    /// Plans this request on this model, as it is run with these options.
    ///
    /// # Errors
    /// A file of the model that can't be read or a configuration that is refused.
    pub fn new(
        checkpoint: &Checkpoint,
        additions: &Additions,
        request: &InpaintRequest,
        options: &LoadOptions,
    ) -> Result<Self> {
        let on_cpu = options.device.is_cpu();
        let width = options.dtype.size_in_bytes() as u64;
        let vae = AutoencoderKlConfig::from_json("vae", &checkpoint.required("vae")?.config)?;
        let unet = UNet2DConditionConfig::from_json("unet", &checkpoint.required("unet")?.config)?;
        let vae_width = if vae.force_upcast { 4 } else { width };

        let mut plan = Self { weights: 0, loading: 0, working: 0 };
        for (name, component) in checkpoint.components() {
            let width = match name {
                "vae" => vae_width,
                "unet" | "text_encoder" | "text_encoder_2" => width,
                _ => continue,
            };
            plan.add(name, component, width)?;
        }
        for adapter in &additions.ip_adapters {
            plan.add("image_encoder", adapter.image_encoder.component(), width)?;
            let parameters =
                parameters(adapter.file.tensors().values().map(|tensor| tensor.shape.as_slice()));
            plan.weights += parameters * width;
        }
        // A concept is added to the weights as they are read, and not kept.
        let concepts = additions.concepts.iter();
        plan.loading += concepts
            .flat_map(|concept| concept.file.tensors().values())
            .map(|tensor| tensor.bytes)
            .sum::<u64>();

        let params = request.params();
        let work = request.plan().work;
        let pixels = u64::from(work.width) * u64::from(work.height);
        let picture = params.image.size();
        let pictures = u64::from(picture.width) * u64::from(picture.height) * 24;
        let batch = params.num_images_per_prompt as u64;
        let guided = params.guidance_scale.unwrap_or_else(|| guidance::default_guidance_scale(checkpoint));
        let halves = if guided > 1.0 { 2 } else { 1 };

        let tile = params.vae_tile_size.map_or(u32::MAX, VaeTileSize::pixels);
        let decoded = u64::from(work.width.min(tile)) * u64::from(work.height.min(tile));
        let widest = widest_of_decoder(&vae.block_out_channels, decoded) * batch * vae_width;
        let decoding = widest * (VAE_TENSORS + if on_cpu { 0 } else { UNFOLDED });
        let factor = 1 << vae.block_out_channels.len().saturating_sub(1);
        let channels = unet.block_out_channels.first().copied().unwrap_or(0) as u64;
        let level = pixels / (factor * factor) * channels * batch * halves * width;
        // The last blocks read a skip beside what comes from below: twice the channels.
        let unfolded = if on_cpu { 0 } else { 2 * UNFOLDED * level + SCORES };
        plan.working = PROGRAM + pictures + decoding.max(level * UNET_TENSORS + unfolded);
        plan.loading += PROGRAM + pictures;
        Ok(plan)
    }

    /// The most that is held at any moment.
    pub fn peak(&self) -> u64 {
        self.weights + self.loading.max(self.working)
    }

    fn add(&mut self, name: &str, component: &Component, width: u64) -> Result<()> {
        let summary = summarize(name, component)?;
        self.weights += summary.parameters * width;
        self.loading = self.loading.max(summary.total_bytes());
        Ok(())
    }
}

fn parameters<'a>(shapes: impl Iterator<Item = &'a [usize]>) -> u64 {
    shapes.map(|shape| shape.iter().map(|&n| n as u64).product::<u64>()).sum()
}

/// Values of the decoder's widest feature map: each level is entered with the channels of the one below it.
fn widest_of_decoder(channels: &[usize], pixels: u64) -> u64 {
    let below = |level: usize| channels.get(level + 1).or(channels.last()).copied().unwrap_or(0) as u64;
    (0..channels.len()).map(|level| (pixels >> (2 * level)) * below(level)).max().unwrap_or(0)
}
