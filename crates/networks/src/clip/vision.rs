//! CLIP's image encoder: a transformer over the patches of a picture, projected into the joint space.

use std::collections::BTreeMap;

use candle_core::Tensor;
use serde::Deserialize;
use serde_json::Value;

use super::encoder::{self, Activation, EncoderLayer, LayerShape};
use crate::layers::{Conv2d, Embedding, LayerNorm, Linear};
use crate::weights::Weights;
use crate::{Error, Result, bounds, config_json};

/// `config.json` of a `CLIPVisionModelWithProjection`, with transformers' names and defaults.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub struct ClipVisionConfig {
    /// Width of the hidden states.
    pub hidden_size: usize,
    /// Width within the feed-forward layers.
    pub intermediate_size: usize,
    /// Width of the joint space.
    pub projection_dim: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Heads of each attention.
    pub num_attention_heads: usize,
    /// Channels of a picture.
    pub num_channels: usize,
    /// Side of a picture in pixels.
    pub image_size: usize,
    /// Side of a patch in pixels.
    pub patch_size: usize,
    /// `quick_gelu` or `gelu`.
    pub hidden_act: String,
    /// Epsilon of every layer norm.
    pub layer_norm_eps: f64,
    /// Keys that are not in the mathematics, or not known.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

impl Default for ClipVisionConfig {
    fn default() -> Self {
        Self {
            hidden_size: 768,
            intermediate_size: 3072,
            projection_dim: 512,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            num_channels: 3,
            image_size: 224,
            patch_size: 32,
            hidden_act: "quick_gelu".into(),
            layer_norm_eps: 1e-5,
            other: BTreeMap::new(),
        }
    }
}

impl ClipVisionConfig {
    /// Reads and checks the `config.json` of `component`.
    ///
    /// # Errors
    /// [`Error::Config`] when it is no such configuration, [`Error::Unsupported`] naming the first key or value that
    /// is not implemented.
    pub fn from_json(component: &str, json: &Value) -> Result<Self> {
        let config: Self = config_json::read(component, json)?;
        Activation::read(component, &config.hidden_act)?;
        encoder::check_other(component, &config.other, "CLIPVisionConfig")?;
        if config.num_channels != 3 {
            return Err(Error::Unsupported {
                component: component.into(),
                key: "num_channels".into(),
                value: config.num_channels.to_string(),
                implemented: "3".into(),
            });
        }
        bounds::check(
            component,
            [
                ("hidden_size", config.hidden_size, bounds::WIDTH),
                ("intermediate_size", config.intermediate_size, bounds::INNER_WIDTH),
                ("projection_dim", config.projection_dim, bounds::WIDTH),
                ("num_hidden_layers", config.num_hidden_layers, bounds::LAYERS),
                ("image_size", config.image_size, bounds::PICTURE),
                ("patch_size", config.patch_size, 1..=config.image_size),
            ],
        )?;
        bounds::check(component, [("the number of patches", config.patches(), bounds::POSITIONS)])?;
        encoder::check_heads(component, config.hidden_size, config.num_attention_heads)?;
        Ok(config)
    }

    /// How many patches a picture is cut into; what is left over at its right and lower edge is not seen.
    pub fn patches(&self) -> usize {
        (self.image_size / self.patch_size).pow(2)
    }
}

/// What the image encoder gives.
pub struct ClipVisionOutput {
    /// The picture in the joint space, `(B,P)`.
    pub image_embeds: Tensor,
    /// The output of the layer before the last (transformers: `hidden_states[-2]`), `(B,N,D)`: the class token and then
    /// the patches, row by row.
    pub penultimate: Tensor,
}

/// The image encoder (transformers: `CLIPVisionModelWithProjection`).
pub struct ClipVisionModel {
    config: ClipVisionConfig,
    class_embedding: Tensor,
    patch_embedding: Conv2d,
    position_embedding: Embedding,
    pre_layrnorm: LayerNorm,
    layers: Vec<EncoderLayer>,
    post_layernorm: LayerNorm,
    visual_projection: Linear,
}

impl ClipVisionModel {
    /// Reads the network from the root of its checkpoint.
    ///
    /// # Errors
    /// A configuration value that is not implemented. Missing tensors are for [`Weights::finish`].
    pub fn new(config: ClipVisionConfig, w: &Weights) -> Result<Self> {
        let (width, eps) = (config.hidden_size, config.layer_norm_eps);
        let shape = LayerShape {
            width,
            inner: config.intermediate_size,
            heads: config.num_attention_heads,
            eps,
            activation: Activation::read(w.component(), &config.hidden_act)?,
        };
        let model = w.sub("vision_model");
        let embeddings = model.sub("embeddings");
        // A table of 0, 1, 2, ... that old checkpoints carry along.
        embeddings.ignore("position_ids");
        let layers = model.sub("encoder").sub("layers");
        Ok(Self {
            class_embedding: embeddings.get("class_embedding", &[width])?,
            patch_embedding: Conv2d::without_bias(
                config.num_channels,
                width,
                config.patch_size,
                config.patch_size,
                0,
                &embeddings.sub("patch_embedding"),
            )?,
            position_embedding: Embedding::new(
                config.patches() + 1,
                width,
                &embeddings.sub("position_embedding"),
            )?,
            // The spelling of the checkpoints.
            pre_layrnorm: LayerNorm::new(width, eps, &model.sub("pre_layrnorm"))?,
            layers: (0..config.num_hidden_layers)
                .map(|i| EncoderLayer::new(shape, &layers.sub(i)))
                .collect::<Result<_>>()?,
            post_layernorm: LayerNorm::new(width, eps, &model.sub("post_layernorm"))?,
            visual_projection: Linear::new(width, config.projection_dim, false, &w.sub("visual_projection"))?,
            config,
        })
    }

    /// The configuration that the network was built from.
    pub fn config(&self) -> &ClipVisionConfig {
        &self.config
    }

    /// An embedding of zeros (1,P): what stands for no picture where embeddings are read.
    ///
    /// # Errors
    /// [`Error::Tensor`] when it can't be allocated.
    pub fn zero_embeds(&self) -> Result<Tensor> {
        let like = &self.class_embedding;
        Ok(Tensor::zeros((1, self.config.projection_dim), like.dtype(), like.device())?)
    }

    /// A picture (1,3,S,S) whose values are zero, CLIP's mean colour: what stands for no picture where hidden states
    /// are read.
    ///
    /// # Errors
    /// [`Error::Tensor`] when it can't be allocated.
    pub fn zero_picture(&self) -> Result<Tensor> {
        let (side, like) = (self.config.image_size, &self.class_embedding);
        Ok(Tensor::zeros((1, self.config.num_channels, side, side), like.dtype(), like.device())?)
    }

    /// `pixel_values` (B,3,S,S), S being `image_size`, with CLIP's mean and deviation taken out.
    ///
    /// # Errors
    /// [`Error::Tensor`] for pictures of another size.
    pub fn forward(&self, pixel_values: &Tensor) -> Result<ClipVisionOutput> {
        let (batch, _, height, width) = pixel_values.dims4()?;
        let side = self.config.image_size;
        if (height, width) != (side, side) {
            let message = format!("the image encoder sees {side} x {side} pixels, not {width} x {height}");
            return Err(Error::Tensor(candle_core::Error::Msg(message)));
        }
        let pixel_values = pixel_values.to_dtype(self.class_embedding.dtype())?;
        let patches = self.patch_embedding.forward(&pixel_values)?.flatten_from(2)?.transpose(1, 2)?; // (B,N-1,D)
        let class = self.class_embedding.expand((batch, 1, self.config.hidden_size))?;
        let x = Tensor::cat(&[&class, &patches], 1)?.broadcast_add(self.position_embedding.weight())?; // (B,N,D)
        let mut x = self.pre_layrnorm.forward(&x)?;
        let mut penultimate = x.clone();
        for layer in &self.layers {
            let y = layer.forward(&x, None)?;
            penultimate = std::mem::replace(&mut x, y);
        }
        let pooled = self.post_layernorm.forward(&x.narrow(1, 0, 1)?.squeeze(1)?.contiguous()?)?; // (B,D)
        Ok(ClipVisionOutput { image_embeds: self.visual_projection.forward(&pooled)?, penultimate })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use candle_core::{DType, Device};
    use serde_json::json;
    use std::collections::HashMap;

    fn tiny() -> Value {
        json!({
            "model_type": "clip_vision_model", "hidden_size": 8, "intermediate_size": 12, "projection_dim": 6,
            "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 9, "patch_size": 4, "hidden_act": "gelu",
        })
    }

    fn network(dir: &std::path::Path) -> (ClipVisionModel, Weights) {
        let file = dir.join("empty.safetensors");
        candle_core::safetensors::save(&HashMap::<String, Tensor>::new(), &file).unwrap();
        let w = Weights::open("image_encoder", &[file], str::to_owned, DType::F32, &Device::Cpu).unwrap();
        let config = ClipVisionConfig::from_json("image_encoder", &tiny()).unwrap();
        (ClipVisionModel::new(config, &w).unwrap(), w)
    }

    #[test]
    fn the_published_sizes_are_read() {
        let big_g = json!({
            "architectures": ["CLIPVisionModelWithProjection"], "_name_or_path": "x", "dropout": 0.0,
            "hidden_act": "gelu", "hidden_size": 1664, "intermediate_size": 8192, "num_attention_heads": 16,
            "num_hidden_layers": 48, "patch_size": 14, "projection_dim": 1280, "torch_dtype": "float16",
        });
        let config = ClipVisionConfig::from_json("image_encoder", &big_g).unwrap();
        assert_eq!((config.patches(), config.hidden_size / config.num_attention_heads), (256, 104));
        let defaults = ClipVisionConfig::from_json("image_encoder", &json!({})).unwrap();
        assert_eq!((defaults.hidden_size, defaults.patch_size, defaults.projection_dim), (768, 32, 512));
    }

    #[test]
    fn what_is_not_implemented_is_refused_by_name() {
        let refused = |key: &str, value: Value| {
            let mut config = tiny();
            config[key] = value;
            ClipVisionConfig::from_json("image_encoder", &config).unwrap_err().to_string()
        };
        assert!(refused("hidden_act", json!("gelu_new")).contains("hidden_act is gelu_new"));
        assert!(refused("rope_theta", json!(1)).contains("rope_theta is 1; implemented: the keys of"));
        assert!(refused("num_channels", json!(4)).contains("num_channels is 4; implemented: 3"));
        assert!(refused("num_attention_heads", json!(3)).contains("no multiple of num_attention_heads 3"));
        assert!(refused("image_size", json!([224, 224])).contains("image_size is [224,224]"));
        assert!(refused("patch_size", json!(0)).contains("patch_size is 0; allowed: 1 to 9"));
        assert!(refused("patch_size", json!(10)).contains("patch_size is 10; allowed: 1 to 9"));
        assert!(refused("image_size", json!(1_000_000)).contains("image_size is 1000000"));
        let mut many = tiny();
        (many["image_size"], many["patch_size"]) = (json!(512), json!(4));
        let many = ClipVisionConfig::from_json("image_encoder", &many).unwrap_err().to_string();
        assert!(many.contains("the number of patches is 16384; allowed: 1 to 4096"), "{many}");
    }

    #[test]
    fn the_checkpoints_own_names_are_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let (_, w) = network(dir.path());
        let error = w.finish().unwrap_err().to_string();
        for name in [
            "vision_model.embeddings.class_embedding",
            "vision_model.embeddings.patch_embedding.weight",
            "vision_model.embeddings.position_embedding.weight",
            "vision_model.pre_layrnorm.bias",
            "vision_model.encoder.layers.1.self_attn.out_proj.bias",
            "vision_model.post_layernorm.weight",
            "visual_projection.weight",
        ] {
            assert!(error.contains(name), "{name}");
        }
        assert!(!error.contains("patch_embedding.bias") && !error.contains("visual_projection.bias"));
    }

    #[test]
    fn pictures_of_another_size_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (model, _) = network(dir.path());
        let picture = |side| Tensor::zeros((2, 3, side, side), DType::F32, &Device::Cpu).unwrap();
        let output = model.forward(&picture(9)).unwrap();
        assert_eq!(output.image_embeds.dims(), [2, 6]);
        assert_eq!(output.penultimate.dims(), [2, 5, 8]);
        let error = model.forward(&picture(8)).err().unwrap().to_string();
        assert!(error.contains("sees 9 x 9 pixels, not 8 x 8"), "{error}");
    }
}
