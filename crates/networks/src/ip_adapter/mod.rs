//! Image prompts: what turns a reference picture into tokens that the UNet's cross-attention reads beside the words
//! (IP-Adapter, Ye et al. 2023, arXiv 2308.06721).
//!
//! The files are those of the public adapters: `image_proj.*` and `ip_adapter.N.{to_k_ip,to_v_ip}.weight`. What a
//! projection looks like stands in no configuration, so every size is read from the shapes of its tensors
//! (diffusers: `loaders/unet.py`).

mod projection;
mod resampler;

use candle_core::Tensor;

use crate::clip::vision::{ClipVisionConfig, ClipVisionModel, ClipVisionOutput};
use crate::layers::Linear;
use crate::unet::{CrossAttention, ImageAttention};
use crate::weights::Weights;
use crate::{Error, Result};
pub use projection::{ImageProjection, IpAdapterFullImageProjection};
pub use resampler::IpAdapterPlusImageProjection;

/// An adapter: the projection of pictures to tokens, and the weights of every cross-attention layer.
pub struct IpAdapter {
    component: String,
    projection: Projection,
    layers: Vec<ImageAttention>,
}

enum Projection {
    Plain(ImageProjection),
    Plus(IpAdapterPlusImageProjection),
    FullFace(IpAdapterFullImageProjection),
}

impl IpAdapter {
    /// Reads an adapter from the root of its file for a UNet with these cross-attention layers
    /// ([`crate::unet::UNet2DConditionModel::cross_attentions`]).
    ///
    /// The layers of the published files are numbered 1, 3, 5, ..., since self-attention is counted with them; only the
    /// order of the numbers is read.
    ///
    /// # Errors
    /// [`Error::Weights`] when the file has no projection of a known kind, or is made for another UNet. Single missing,
    /// misshapen and surplus tensors are for [`Weights::finish`].
    pub fn new(w: &Weights, layers: &[CrossAttention]) -> Result<Self> {
        let image_proj = w.sub("image_proj");
        let projection = if image_proj.contains("proj.weight") {
            Projection::Plain(ImageProjection::new(&image_proj)?)
        } else if image_proj.contains("proj.3.weight") {
            Projection::FullFace(IpAdapterFullImageProjection::new(&image_proj)?)
        } else if image_proj.contains("latents") {
            Projection::Plus(IpAdapterPlusImageProjection::new(&image_proj)?)
        } else {
            let needed = "image_proj.proj.weight (plain), image_proj.latents (Plus) or image_proj.proj.3.weight (Full-Face)";
            return Err(unfit(w, format!("there is no projection: {needed}")));
        };
        let numbers = layer_numbers(&w.sub("ip_adapter"));
        let width = projection.output_width();
        if let Some(layer) = layers.iter().find(|layer| layer.context_width != width) {
            let context = layer.context_width;
            let reason = format!("the adapter's tokens have {width} numbers, this UNet's words {context}");
            return Err(unfit(w, format!("{reason}; it is made for another family of models")));
        }
        if numbers.len() != layers.len() {
            let (ours, theirs) = (numbers.len(), layers.len());
            let reason = format!("the adapter has {ours} layers, this UNet {theirs} with cross-attention");
            return Err(unfit(w, format!("{reason}; it is incomplete or made for another UNet")));
        }
        let layer = |(number, layer): (u32, &CrossAttention)| {
            let w = w.sub("ip_adapter").sub(number);
            let linear = |name| Linear::new(layer.context_width, layer.width, false, &w.sub(name));
            Ok(ImageAttention { to_k_ip: linear("to_k_ip")?, to_v_ip: linear("to_v_ip")? })
        };
        let layers = numbers.into_iter().zip(layers).map(layer).collect::<Result<_>>()?;
        Ok(Self { component: w.component().to_owned(), projection, layers })
    }

    /// The weights of each cross-attention layer, in the UNet's order.
    pub fn layers(&self) -> &[ImageAttention] {
        &self.layers
    }

    /// Whether an image encoder gives what this adapter reads.
    ///
    /// # Errors
    /// [`Error::Weights`] with the two widths.
    pub fn check_encoder(&self, encoder: &ClipVisionConfig) -> Result<()> {
        let (reads, needed, given) = match &self.projection {
            Projection::Plain(plain) => ("projection_dim", plain.input_width(), encoder.projection_dim),
            Projection::Plus(plus) => ("hidden_size", plus.input_width(), encoder.hidden_size),
            Projection::FullFace(full) => ("hidden_size", full.input_width(), encoder.hidden_size),
        };
        if needed == given {
            return Ok(());
        }
        let faults = format!("the adapter reads an image encoder of {reads} {needed}, this one has {given}");
        Err(Error::Weights { component: self.component.clone(), faults })
    }

    /// What this adapter reads of pictures: `pixel_values` (B,3,S,S) to the embeddings (B,P) for the plain kind, to the
    /// penultimate hidden states (B,M,D) for the others.
    ///
    /// # Errors
    /// [`Error::Tensor`] for pictures of another size than the encoder's.
    pub fn features(&self, encoder: &ClipVisionModel, pixel_values: &Tensor) -> Result<Tensor> {
        let ClipVisionOutput { image_embeds, penultimate } = encoder.forward(pixel_values)?;
        match &self.projection {
            Projection::Plain(_) => Ok(image_embeds),
            Projection::Plus(_) | Projection::FullFace(_) => Ok(penultimate),
        }
    }

    /// What this adapter reads in the unconditioned half, a batch of one: the plain kind an embedding of zeros, the
    /// others the hidden states of a picture whose values are zero (diffusers: `encode_image` of the pipelines).
    ///
    /// # Errors
    /// [`Error::Tensor`] when a tensor operation fails.
    pub fn negative_features(&self, encoder: &ClipVisionModel) -> Result<Tensor> {
        match &self.projection {
            Projection::Plain(_) => encoder.zero_embeds(),
            Projection::Plus(_) | Projection::FullFace(_) => self.features(encoder, &encoder.zero_picture()?),
        }
    }

    /// The tokens (B,N,D) of B pictures' features.
    ///
    /// # Errors
    /// [`Error::Tensor`] when they come from an encoder that [`Self::check_encoder`] refuses.
    pub fn project(&self, features: &Tensor) -> Result<Tensor> {
        match &self.projection {
            Projection::Plain(plain) => plain.forward(features),
            Projection::Plus(plus) => plus.forward(features),
            Projection::FullFace(full) => full.forward(features),
        }
    }
}

impl Projection {
    fn output_width(&self) -> usize {
        match self {
            Self::Plain(plain) => plain.output_width(),
            Self::Plus(plus) => plus.output_width(),
            Self::FullFace(full) => full.output_width(),
        }
    }
}

/// The numbers that layers stand under, least first.
fn layer_numbers(w: &Weights) -> Vec<u32> {
    let number = |name: &str| {
        let (number, rest) = name.split_once('.')?;
        // "01" would be read as a name that is not there.
        let number = number.parse::<u32>().ok().filter(|n| n.to_string() == number)?;
        ["to_k_ip.weight", "to_v_ip.weight"].contains(&rest).then_some(number)
    };
    let mut numbers: Vec<u32> = w.names().filter_map(number).collect();
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

/// The rows and columns of a stored matrix.
fn matrix(w: &Weights, name: &str) -> Result<(usize, usize)> {
    match w.shape(name).as_deref() {
        Some(&[rows, columns]) => Ok((rows, columns)),
        Some(other) => Err(unfit(w, format!("{name} is {other:?}, needs two dimensions"))),
        None => Err(unfit(w, format!("missing: {name}"))),
    }
}

fn unfit(w: &Weights, faults: String) -> Error {
    Error::Weights { component: w.component().to_owned(), faults }
}

#[cfg(test)]
mod tests;
