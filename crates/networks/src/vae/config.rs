//! The autoencoder's `config.json`, every key of it.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::{Error, Result, bounds, config_json};

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
    /// The UNet's latents are this many times the VAE's.
    pub scaling_factor: f64,
    /// Of newer families: what is subtracted before scaling. Refused unless it is 0.
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
        let config: Self = config_json::read(component, json)?;
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
        if let Some(shift) = self.shift_factor.filter(|shift| *shift != 0.0) {
            return refuse("shift_factor", shift.to_string(), "null, 0");
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
        bounds::check(component, self.sizes())?;
        bounds::check_groups(component, self.norm_num_groups, &self.block_out_channels)
    }

    fn sizes(&self) -> impl Iterator<Item = (&'static str, usize, std::ops::RangeInclusive<usize>)> {
        let single = [
            ("block_out_channels, in number,", self.block_out_channels.len(), bounds::LEVELS),
            ("in_channels", self.in_channels, bounds::WIDTH),
            ("out_channels", self.out_channels, bounds::WIDTH),
            ("latent_channels", self.latent_channels, bounds::WIDTH),
            ("layers_per_block", self.layers_per_block, bounds::LAYERS),
        ];
        let channels = self.block_out_channels.iter().map(|&c| ("block_out_channels", c, bounds::WIDTH));
        single.into_iter().chain(channels.collect::<Vec<_>>())
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
            ("shift_factor", json!(0.5)),
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
    fn sizes_that_no_network_has_are_refused_before_anything_is_allocated() {
        let cases = [
            (json!({ "block_out_channels": [0] }), "block_out_channels is 0; allowed: 1 to 8192"),
            (json!({ "latent_channels": 1e15 as u64 }), "latent_channels is 1000000000000000; allowed"),
            (json!({ "layers_per_block": u32::MAX }), "layers_per_block is 4294967295; allowed"),
            (json!({ "norm_num_groups": 0 }), "norm_num_groups 0 does not divide the 64"),
            (json!({ "norm_num_groups": 48 }), "norm_num_groups 48 does not divide the 64"),
        ];
        for (json, reason) in cases {
            let error = AutoencoderKlConfig::from_json("vae", &json).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
        let many = json!({
            "block_out_channels": vec![32; 70],
            "down_block_types": vec![DOWN_BLOCK; 70], "up_block_types": vec![UP_BLOCK; 70],
        });
        let error = AutoencoderKlConfig::from_json("vae", &many).unwrap_err().to_string();
        assert!(error.contains("block_out_channels, in number, is 70; allowed: 1 to 8"), "{error}");
    }

    #[test]
    fn an_empty_config_has_the_defaults() {
        let config =
            AutoencoderKlConfig::from_json("vae", &json!({ "_class_name": "AutoencoderKL" })).unwrap();
        assert_eq!((config.scaling_factor, config.force_upcast, config.scale()), (0.18215, true, 1));
    }
}
