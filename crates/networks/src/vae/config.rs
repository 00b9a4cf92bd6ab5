//! The autoencoder's `config.json`, every key of it.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::{Error, Result};

/// `config.json` of an `AutoencoderKL`. Keys, meanings and defaults are those of diffusers 0.42.1
/// (`autoencoders/autoencoder_kl.py`).
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
#[allow(missing_docs)] // Documented at the source named above.
pub struct AutoencoderKlConfig {
    pub in_channels: usize,
    pub out_channels: usize,
    pub down_block_types: Vec<String>,
    pub up_block_types: Vec<String>,
    pub block_out_channels: Vec<usize>,
    pub layers_per_block: usize,
    pub act_fn: String,
    pub latent_channels: usize,
    pub norm_num_groups: usize,
    /// Size of the pictures it was trained on; a hint for tiling only.
    pub sample_size: Value,
    /// The UNet's latents are `(z - shift_factor) * scaling_factor`.
    pub scaling_factor: f64,
    pub shift_factor: Option<f64>,
    pub latents_mean: Option<Vec<f64>>,
    pub latents_std: Option<Vec<f64>>,
    /// Overflows in `f16`: to be run in a wider format.
    pub force_upcast: bool,
    pub use_quant_conv: bool,
    pub use_post_quant_conv: bool,
    pub mid_block_add_attention: bool,
    /// What diffusers' signature does not have: refused, unless it begins with an underscore (bookkeeping).
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

impl Default for AutoencoderKlConfig {
    fn default() -> Self {
        Self {
            in_channels: 3,
            out_channels: 3,
            down_block_types: vec![DOWN_BLOCK.to_owned()],
            up_block_types: vec![UP_BLOCK.to_owned()],
            block_out_channels: vec![64],
            layers_per_block: 1,
            act_fn: "silu".to_owned(),
            latent_channels: 4,
            norm_num_groups: 32,
            sample_size: Value::from(32),
            scaling_factor: 0.18215,
            shift_factor: None,
            latents_mean: None,
            latents_std: None,
            force_upcast: true,
            use_quant_conv: true,
            use_post_quant_conv: true,
            mid_block_add_attention: true,
            other: BTreeMap::new(),
        }
    }
}

const DOWN_BLOCK: &str = "DownEncoderBlock2D";
const UP_BLOCK: &str = "UpDecoderBlock2D";

impl AutoencoderKlConfig {
    /// Reads and checks the `config.json` of `component`.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] when it is not an autoencoder's configuration, [`Error::Unsupported`] naming the first value
    /// that is not implemented.
    pub fn from_json(component: &str, json: &Value) -> Result<Self> {
        let config: Self = serde_json::from_value(json.clone())
            .map_err(|e| Error::Config { component: component.to_owned(), reason: e.to_string() })?;
        config.check(component)?;
        Ok(config)
    }

    /// Refuses every value that changes the mathematics and is not implemented.
    pub(crate) fn check(&self, component: &str) -> Result<()> {
        let refuse = |key: &str, value: String, implemented: &str| {
            Err(Error::Unsupported {
                component: component.to_owned(),
                key: key.to_owned(),
                value,
                implemented: implemented.to_owned(),
            })
        };
        if !matches!(&*self.act_fn, "silu" | "swish") {
            return refuse("act_fn", self.act_fn.clone(), "silu");
        }
        if let Some(block) = self.down_block_types.iter().find(|b| *b != DOWN_BLOCK) {
            return refuse("down_block_types", block.clone(), DOWN_BLOCK);
        }
        if let Some(block) = self.up_block_types.iter().find(|b| *b != UP_BLOCK) {
            return refuse("up_block_types", block.clone(), UP_BLOCK);
        }
        for (key, values) in [("latents_mean", &self.latents_mean), ("latents_std", &self.latents_std)] {
            if let Some(values) = values {
                return refuse(key, format!("{values:?}"), "null");
            }
        }
        if let Some((key, value)) = self.other.iter().find(|(key, _)| !key.starts_with('_')) {
            return refuse(key, value.to_string(), "the keys of diffusers' AutoencoderKL");
        }
        let config = |reason: String| Err(Error::Config { component: component.to_owned(), reason });
        let blocks = self.block_out_channels.len();
        if blocks == 0 || self.down_block_types.len() != blocks || self.up_block_types.len() != blocks {
            return config(format!(
                "block types do not have one entry for each of the {blocks} block_out_channels"
            ));
        }
        if self.norm_num_groups == 0 {
            return config("norm_num_groups is 0".to_owned());
        }
        Ok(())
    }

    /// A picture is this many times as high and wide as its latents.
    pub fn scale(&self) -> usize {
        1 << (self.block_out_channels.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn every_value_that_is_not_implemented_is_refused_by_name() {
        let cases = [
            ("act_fn", json!("gelu")),
            ("down_block_types", json!(["AttnDownEncoderBlock2D"])),
            ("up_block_types", json!(["AttnUpDecoderBlock2D"])),
            ("latents_mean", json!([0.5])),
            ("latents_std", json!([0.5])),
            ("temporal", json!(true)),
        ];
        for (key, value) in cases {
            let message =
                AutoencoderKlConfig::from_json("vae", &json!({ key: value })).unwrap_err().to_string();
            assert!(message.starts_with(&format!("vae: {key} is ")), "{key}: {message}");
        }
        let error =
            AutoencoderKlConfig::from_json("vae", &json!({ "block_out_channels": [8, 8] })).unwrap_err();
        assert!(error.to_string().contains("each of the 2"), "{error}");
    }

    #[test]
    fn an_empty_config_has_the_defaults() {
        let config =
            AutoencoderKlConfig::from_json("vae", &json!({ "_class_name": "AutoencoderKL" })).unwrap();
        assert_eq!((config.scaling_factor, config.force_upcast, config.scale()), (0.18215, true, 1));
    }
}
