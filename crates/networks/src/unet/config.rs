//! The UNet's `config.json`, every key of it.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use serde::Deserialize;
use serde_json::Value;

use crate::{Error, Result, bounds, config_json};

/// One value for all blocks or one for each.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(untagged)]
pub enum PerBlock<T> {
    /// A value for each, in the order of `down_block_types`.
    Each(Vec<T>),
    /// The same for all.
    All(T),
}

impl<T: Clone> PerBlock<T> {
    /// The values of `count` blocks; `None` when a list has another length.
    pub fn expand(&self, count: usize) -> Option<Vec<T>> {
        match self {
            Self::All(value) => Some(vec![value.clone(); count]),
            Self::Each(values) => (values.len() == count).then(|| values.clone()),
        }
    }
}

/// `config.json` of a `UNet2DConditionModel`. Keys, meanings and defaults are those of diffusers 0.42.1
/// (`unets/unet_2d_condition.py`).
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
#[allow(missing_docs)] // Documented at the source named above.
pub struct UNet2DConditionConfig {
    /// Of the latents, in pixels of theirs; the pipeline's default size.
    pub sample_size: Option<PerBlock<usize>>,
    pub in_channels: usize,
    pub out_channels: usize,
    pub center_input_sample: bool,
    pub flip_sin_to_cos: bool,
    pub freq_shift: f64,
    pub down_block_types: Vec<String>,
    pub mid_block_type: Option<String>,
    pub up_block_types: Vec<String>,
    pub only_cross_attention: PerBlock<bool>,
    pub block_out_channels: Vec<usize>,
    pub layers_per_block: PerBlock<usize>,
    pub downsample_padding: usize,
    pub mid_block_scale_factor: f64,
    /// Without effect outside training.
    pub dropout: f64,
    pub act_fn: String,
    pub norm_num_groups: Option<usize>,
    pub norm_eps: f64,
    pub cross_attention_dim: PerBlock<usize>,
    pub transformer_layers_per_block: PerBlock<PerBlock<usize>>,
    pub reverse_transformer_layers_per_block: Option<Vec<PerBlock<usize>>>,
    pub encoder_hid_dim: Option<usize>,
    pub encoder_hid_dim_type: Option<String>,
    /// In truth the number of heads: an early misnomer that every published checkpoint keeps.
    pub attention_head_dim: PerBlock<usize>,
    pub num_attention_heads: Option<PerBlock<usize>>,
    pub dual_cross_attention: bool,
    pub use_linear_projection: bool,
    pub class_embed_type: Option<String>,
    pub addition_embed_type: Option<String>,
    pub addition_time_embed_dim: Option<usize>,
    pub num_class_embeds: Option<usize>,
    /// SDXL writes `null`, which means no.
    pub upcast_attention: Option<bool>,
    pub resnet_time_scale_shift: String,
    pub resnet_skip_time_act: bool,
    pub resnet_out_scale_factor: f64,
    pub time_embedding_type: String,
    pub time_embedding_dim: Option<usize>,
    pub time_embedding_act_fn: Option<String>,
    pub timestep_post_act: Option<String>,
    pub time_cond_proj_dim: Option<usize>,
    pub conv_in_kernel: usize,
    pub conv_out_kernel: usize,
    pub projection_class_embeddings_input_dim: Option<usize>,
    pub attention_type: String,
    pub class_embeddings_concat: bool,
    /// Only read by a middle block that is refused here.
    pub mid_block_only_cross_attention: Option<bool>,
    pub cross_attention_norm: Option<String>,
    /// Only read by `addition_embed_type` `text`, which is refused here.
    pub addition_embed_type_num_heads: usize,
    /// What diffusers' signature does not have: refused, unless it is bookkeeping.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

impl Default for UNet2DConditionConfig {
    fn default() -> Self {
        let names = |names: [&str; 4]| names.map(str::to_owned).to_vec();
        let (cross_down, cross_up) = ("CrossAttnDownBlock2D", "CrossAttnUpBlock2D");
        Self {
            sample_size: None,
            in_channels: 4,
            out_channels: 4,
            center_input_sample: false,
            flip_sin_to_cos: true,
            freq_shift: 0.0,
            down_block_types: names([cross_down, cross_down, cross_down, "DownBlock2D"]),
            mid_block_type: Some("UNetMidBlock2DCrossAttn".to_owned()),
            up_block_types: names(["UpBlock2D", cross_up, cross_up, cross_up]),
            only_cross_attention: PerBlock::All(false),
            block_out_channels: vec![320, 640, 1280, 1280],
            layers_per_block: PerBlock::All(2),
            downsample_padding: 1,
            mid_block_scale_factor: 1.0,
            dropout: 0.0,
            act_fn: "silu".to_owned(),
            norm_num_groups: Some(32),
            norm_eps: 1e-5,
            cross_attention_dim: PerBlock::All(1280),
            transformer_layers_per_block: PerBlock::All(PerBlock::All(1)),
            reverse_transformer_layers_per_block: None,
            encoder_hid_dim: None,
            encoder_hid_dim_type: None,
            attention_head_dim: PerBlock::All(8),
            num_attention_heads: None,
            dual_cross_attention: false,
            use_linear_projection: false,
            class_embed_type: None,
            addition_embed_type: None,
            addition_time_embed_dim: None,
            num_class_embeds: None,
            upcast_attention: None,
            resnet_time_scale_shift: "default".to_owned(),
            resnet_skip_time_act: false,
            resnet_out_scale_factor: 1.0,
            time_embedding_type: "positional".to_owned(),
            time_embedding_dim: None,
            time_embedding_act_fn: None,
            timestep_post_act: None,
            time_cond_proj_dim: None,
            conv_in_kernel: 3,
            conv_out_kernel: 3,
            projection_class_embeddings_input_dim: None,
            attention_type: "default".to_owned(),
            class_embeddings_concat: false,
            mid_block_only_cross_attention: None,
            cross_attention_norm: None,
            addition_embed_type_num_heads: 64,
            other: BTreeMap::new(),
        }
    }
}

/// The shape of one block of the way down; the way up mirrors it.
pub(crate) struct Level {
    pub(crate) channels: usize,
    pub(crate) layers: usize,
    pub(crate) heads: usize,
    pub(crate) context_width: usize,
    /// Transformer blocks after each resnet: one entry per layer, on the way down.
    pub(crate) depth: PerBlock<usize>,
    /// The same on the way up.
    pub(crate) depth_up: PerBlock<usize>,
}

impl UNet2DConditionConfig {
    /// Reads and checks the `config.json` of `component`.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] when it is not a UNet's configuration, [`Error::Unsupported`] naming the first value that is
    /// not implemented.
    pub fn from_json(component: &str, json: &Value) -> Result<Self> {
        let config: Self = config_json::read(component, json)?;
        config.check(component)?;
        Ok(config)
    }

    /// Refuses every value that changes the mathematics and is not implemented.
    pub(crate) fn check(&self, component: &str) -> Result<()> {
        let json = |value: &Option<String>| value.as_ref().map_or("null".to_owned(), Clone::clone);
        let flag = |value: bool| value.to_string();
        let given = |value: &dyn std::fmt::Debug| format!("{value:?}");
        let only_self = self.only_cross_attention != PerBlock::All(true)
            && !matches!(&self.only_cross_attention, PerBlock::Each(v) if v.contains(&true));
        let kernel = |k: usize| k % 2 == 1;
        #[rustfmt::skip]
        let rules = [
            ("act_fn", matches!(&*self.act_fn, "silu" | "swish"), self.act_fn.clone(), "silu"),
            ("norm_num_groups", self.norm_num_groups.is_some_and(|n| n > 0), given(&self.norm_num_groups), "a positive number"),
            ("only_cross_attention", only_self, given(&self.only_cross_attention), "false"),
            ("encoder_hid_dim", self.encoder_hid_dim.is_none(), given(&self.encoder_hid_dim), "null"),
            ("encoder_hid_dim_type", self.encoder_hid_dim_type.is_none(), json(&self.encoder_hid_dim_type), "null"),
            ("num_attention_heads", self.num_attention_heads.is_none(), given(&self.num_attention_heads), "null (attention_head_dim holds the number of heads)"),
            ("dual_cross_attention", !self.dual_cross_attention, flag(self.dual_cross_attention), "false"),
            ("class_embed_type", self.class_embed_type.is_none(), json(&self.class_embed_type), "null"),
            ("num_class_embeds", self.num_class_embeds.is_none(), given(&self.num_class_embeds), "null"),
            ("class_embeddings_concat", !self.class_embeddings_concat, flag(self.class_embeddings_concat), "false"),
            ("addition_embed_type", matches!(self.addition_embed_type.as_deref(), None | Some("text_time")), json(&self.addition_embed_type), "null, text_time"),
            ("resnet_time_scale_shift", self.resnet_time_scale_shift == "default", self.resnet_time_scale_shift.clone(), "default"),
            ("resnet_skip_time_act", !self.resnet_skip_time_act, flag(self.resnet_skip_time_act), "false"),
            ("resnet_out_scale_factor", self.resnet_out_scale_factor == 1.0, self.resnet_out_scale_factor.to_string(), "1"),
            ("time_embedding_type", self.time_embedding_type == "positional", self.time_embedding_type.clone(), "positional"),
            ("time_embedding_act_fn", self.time_embedding_act_fn.is_none(), json(&self.time_embedding_act_fn), "null"),
            ("timestep_post_act", self.timestep_post_act.is_none(), json(&self.timestep_post_act), "null"),
            ("conv_in_kernel", kernel(self.conv_in_kernel), self.conv_in_kernel.to_string(), "an odd number"),
            ("conv_out_kernel", kernel(self.conv_out_kernel), self.conv_out_kernel.to_string(), "an odd number"),
            ("attention_type", self.attention_type == "default", self.attention_type.clone(), "default"),
            ("cross_attention_norm", self.cross_attention_norm.is_none(), json(&self.cross_attention_norm), "null"),
            ("mid_block_type", matches!(self.mid_block_type.as_deref(), None | Some("UNetMidBlock2DCrossAttn" | "UNetMidBlock2D")), json(&self.mid_block_type), "UNetMidBlock2DCrossAttn, UNetMidBlock2D, null"),
        ];
        let refuse = |key: &str, value: String, implemented: &str| {
            Err(Error::Unsupported {
                component: component.to_owned(),
                key: key.to_owned(),
                value,
                implemented: implemented.to_owned(),
            })
        };
        for (key, implemented, value, what) in rules {
            if !implemented {
                return refuse(key, value, what);
            }
        }
        if let Some(block) = self.down_block_types.iter().find(|b| !is_one_of(b, DOWN_BLOCKS)) {
            return refuse("down_block_types", block.clone(), &DOWN_BLOCKS.join(", "));
        }
        if let Some(block) = self.up_block_types.iter().find(|b| !is_one_of(b, UP_BLOCKS)) {
            return refuse("up_block_types", block.clone(), &UP_BLOCKS.join(", "));
        }
        if let Some((key, value)) = self.other.iter().find(|(key, _)| !is_bookkeeping(key)) {
            return refuse(key, value.to_string(), "the keys of diffusers' UNet2DConditionModel");
        }
        self.check_lengths(component)?;
        bounds::check(
            component,
            [("layers_per_block with transformer_layers_per_block, in all,", self.blocks(), bounds::BLOCKS)],
        )?;
        bounds::check_groups(component, self.groups(), &self.block_out_channels)
    }

    /// Every size, with what it may be, once the lists have their lengths.
    fn sizes(&self) -> Vec<(&'static str, usize, RangeInclusive<usize>)> {
        let blocks = self.block_out_channels.len();
        let mut sizes = vec![
            ("block_out_channels, in number,", blocks, bounds::LEVELS),
            ("in_channels", self.in_channels, bounds::WIDTH),
            ("out_channels", self.out_channels, bounds::WIDTH),
            ("conv_in_kernel", self.conv_in_kernel, bounds::KERNEL),
            ("conv_out_kernel", self.conv_out_kernel, bounds::KERNEL),
            ("downsample_padding", self.downsample_padding, 0..=*bounds::KERNEL.end()),
        ];
        let optional = [
            ("time_embedding_dim", self.time_embedding_dim),
            ("addition_time_embed_dim", self.addition_time_embed_dim),
            ("projection_class_embeddings_input_dim", self.projection_class_embeddings_input_dim),
        ];
        sizes.extend(optional.iter().filter_map(|&(key, size)| Some((key, size?, bounds::INNER_WIDTH))));
        // Below 4 its embedding would divide by zero.
        sizes.extend(
            self.time_cond_proj_dim.map(|size| ("time_cond_proj_dim", size, 4..=*bounds::INNER_WIDTH.end())),
        );
        let mut each = |key, values: Vec<usize>, allowed: RangeInclusive<usize>| {
            sizes.extend(values.into_iter().map(|value| (key, value, allowed.clone())));
        };
        let expand = |values: &PerBlock<usize>| values.expand(blocks).unwrap_or_default();
        each("block_out_channels", self.block_out_channels.clone(), bounds::WIDTH);
        each("layers_per_block", expand(&self.layers_per_block), bounds::LAYERS);
        each("cross_attention_dim", expand(&self.cross_attention_dim), bounds::WIDTH);
        for depth in self.depths_down().into_iter().chain(self.depths_up()).flatten() {
            let depths = match depth {
                PerBlock::All(depth) => vec![depth],
                PerBlock::Each(depths) => depths,
            };
            each("transformer_layers_per_block", depths, 0..=*bounds::LAYERS.end());
        }
        sizes
    }

    /// How many residual and transformer blocks there are, at most: each layer of either direction has one of the first
    /// and as many of the second as its level says.
    fn blocks(&self) -> usize {
        let levels = self.block_out_channels.len();
        let layers = self.layers_per_block.expand(levels).unwrap_or_default();
        let count = |layers: usize, depth: PerBlock<usize>| match depth {
            PerBlock::All(depth) => layers * (1 + depth),
            PerBlock::Each(depths) => layers + depths.into_iter().sum::<usize>(),
        };
        let down = layers.iter().copied().zip(self.depths_down().unwrap_or_default());
        let up = layers.iter().rev().map(|layers| layers + 1).zip(self.depths_up().unwrap_or_default());
        down.chain(up).map(|(layers, depth)| count(layers, depth)).sum()
    }

    fn check_lengths(&self, component: &str) -> Result<()> {
        let config = |reason: String| Err(Error::Config { component: component.to_owned(), reason });
        let blocks = self.block_out_channels.len();
        let each = |values: &PerBlock<usize>| values.expand(blocks).map(|v| v.len());
        let lengths = [
            ("down_block_types", Some(self.down_block_types.len())),
            ("up_block_types", Some(self.up_block_types.len())),
            ("layers_per_block", each(&self.layers_per_block)),
            ("cross_attention_dim", each(&self.cross_attention_dim)),
            ("attention_head_dim", each(&self.attention_head_dim)),
            ("only_cross_attention", self.only_cross_attention.expand(blocks).map(|v| v.len())),
            (
                "transformer_layers_per_block",
                self.transformer_layers_per_block.expand(blocks).map(|v| v.len()),
            ),
            ("reverse_transformer_layers_per_block", self.depths_up().map(|v| v.len())),
        ];
        for (key, length) in lengths {
            if length != Some(blocks) || blocks == 0 {
                return config(format!(
                    "{key} does not have one entry for each of the {blocks} block_out_channels"
                ));
            }
        }
        // Before anything is counted up to one of them.
        bounds::check(component, self.sizes())?;
        let nested = |depths: &PerBlock<PerBlock<usize>>| matches!(depths, PerBlock::Each(v) if v.iter().any(|d| matches!(d, PerBlock::Each(_))));
        if nested(&self.transformer_layers_per_block) && self.reverse_transformer_layers_per_block.is_none() {
            return config(
                "transformer_layers_per_block with lists needs reverse_transformer_layers_per_block".into(),
            );
        }
        let layers = self.layers_per_block.expand(blocks).unwrap_or_default();
        for (depth, layers) in self.depths_down().unwrap_or_default().iter().zip(&layers) {
            if depth.expand(*layers).is_none() {
                return config(format!(
                    "transformer_layers_per_block: {depth:?} is not one entry per layer ({layers})"
                ));
            }
        }
        for (depth, layers) in self.depths_up().unwrap_or_default().iter().zip(layers.iter().rev()) {
            if depth.expand(layers + 1).is_none() {
                return config(format!(
                    "reverse_transformer_layers_per_block: {depth:?} is not one entry per layer ({})",
                    layers + 1
                ));
            }
        }
        for (&channels, &heads) in
            self.block_out_channels.iter().zip(&self.attention_head_dim.expand(blocks).unwrap_or_default())
        {
            if heads == 0 || channels < heads {
                return config(format!("attention_head_dim: {heads} heads do not fit {channels} channels"));
            }
        }
        if self.addition_embed_type.is_some()
            && (self.addition_time_embed_dim.is_none()
                || self.projection_class_embeddings_input_dim.is_none())
        {
            return config(
                "addition_embed_type text_time needs addition_time_embed_dim and projection_class_embeddings_input_dim"
                    .into(),
            );
        }
        Ok(())
    }

    fn depths_down(&self) -> Option<Vec<PerBlock<usize>>> {
        self.transformer_layers_per_block.expand(self.block_out_channels.len())
    }

    /// Transformer depths in the order of `up_block_types`.
    fn depths_up(&self) -> Option<Vec<PerBlock<usize>>> {
        match &self.reverse_transformer_layers_per_block {
            Some(depths) => Some(depths.clone()),
            None => self.depths_down().map(|depths| depths.into_iter().rev().collect()),
        }
    }

    /// The blocks from the top down, once [`Self::check`] has passed.
    pub(crate) fn levels(&self) -> Vec<Level> {
        let blocks = self.block_out_channels.len();
        let layers = self.layers_per_block.expand(blocks).unwrap_or_default();
        let heads = self.attention_head_dim.expand(blocks).unwrap_or_default();
        let widths = self.cross_attention_dim.expand(blocks).unwrap_or_default();
        let down = self.depths_down().unwrap_or_default();
        let up = self.depths_up().unwrap_or_default().into_iter().rev();
        let sizes = self.block_out_channels.iter().zip(layers).zip(heads).zip(widths);
        sizes
            .zip(down.into_iter().zip(up))
            .map(|((((&channels, layers), heads), context_width), (depth, depth_up))| Level {
                channels,
                layers,
                heads,
                context_width,
                depth,
                depth_up,
            })
            .collect()
    }

    pub(crate) fn groups(&self) -> usize {
        self.norm_num_groups.unwrap_or(1)
    }

    pub(crate) fn time_embed_dim(&self) -> usize {
        self.time_embedding_dim.unwrap_or(4 * self.block_out_channels[0])
    }
}

const DOWN_BLOCKS: &[&str] = &["DownBlock2D", "CrossAttnDownBlock2D"];
const UP_BLOCKS: &[&str] = &["UpBlock2D", "CrossAttnUpBlock2D"];

/// The state of diffusers' `EMAModel`, which it saves among the UNet's own keys; SDXL's inpainting UNet has it.
const EMA_STATE: &[&str] =
    &["decay", "inv_gamma", "min_decay", "optimization_step", "power", "update_after_step", "use_ema_warmup"];

/// Whether a key tells how the checkpoint came about and not how it is run.
fn is_bookkeeping(key: &str) -> bool {
    key.starts_with('_') || is_one_of(key, EMA_STATE)
}

fn is_one_of(name: &str, names: &[&str]) -> bool {
    names.contains(&name)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use serde_json::json;

    fn error(json: &Value) -> String {
        UNet2DConditionConfig::from_json("unet", json).unwrap_err().to_string()
    }

    #[test]
    fn an_empty_config_has_the_defaults() {
        let config = UNet2DConditionConfig::from_json("unet", &json!({ "_class_name": "x" })).unwrap();
        assert_eq!(config.time_embed_dim(), 1280);
        assert_eq!(config.levels().iter().map(|l| l.heads).collect::<Vec<_>>(), [8; 4]);
    }

    #[test]
    fn the_state_of_training_is_passed_over() {
        let json = json!({
            "decay": 0.9999, "inv_gamma": 1.0, "min_decay": 0.0, "optimization_step": 37000,
            "power": 0.666, "update_after_step": 0, "use_ema_warmup": false, "_name_or_path": "x",
        });
        UNet2DConditionConfig::from_json("unet", &json).unwrap();
    }

    #[test]
    fn a_network_of_too_many_blocks_is_refused() {
        let blocks = |layers: usize, depth: usize| {
            let json = json!({ "_class_name": "x", "layers_per_block": layers, "transformer_layers_per_block": depth });
            UNet2DConditionConfig::from_json("unet", &json)
        };
        blocks(2, 100).unwrap();
        let error = blocks(100, 100).unwrap_err().to_string();
        // Four levels of 100 layers down and 101 up, each with a residual and 100 transformer blocks.
        assert!(error.contains("in all, is 81204; allowed: 1 to 4096"), "{error}");
    }

    #[test]
    fn every_value_that_is_not_implemented_is_refused_by_name() {
        let cases = [
            ("act_fn", json!("gelu")),
            ("norm_num_groups", json!(null)),
            ("only_cross_attention", json!([true, true, true, false])),
            ("encoder_hid_dim", json!(768)),
            ("encoder_hid_dim_type", json!("image_proj")),
            ("num_attention_heads", json!(8)),
            ("dual_cross_attention", json!(true)),
            ("class_embed_type", json!("timestep")),
            ("num_class_embeds", json!(1000)),
            ("class_embeddings_concat", json!(true)),
            ("addition_embed_type", json!("image_hint")),
            ("resnet_time_scale_shift", json!("scale_shift")),
            ("resnet_skip_time_act", json!(true)),
            ("resnet_out_scale_factor", json!(1.4)),
            ("time_embedding_type", json!("fourier")),
            ("time_embedding_act_fn", json!("gelu")),
            ("timestep_post_act", json!("silu")),
            ("conv_in_kernel", json!(4)),
            ("conv_out_kernel", json!(2)),
            ("attention_type", json!("gated")),
            ("cross_attention_norm", json!("layer_norm")),
            ("mid_block_type", json!("UNetMidBlock2DSimpleCrossAttn")),
            ("down_block_types", json!(["DownBlock2D", "DownBlock2D", "DownBlock2D", "AttnDownBlock2D"])),
            ("up_block_types", json!(["UpBlock2D", "UpBlock2D", "UpBlock2D", "SkipUpBlock2D"])),
            ("freeu", json!(1)),
        ];
        for (key, value) in cases {
            let message = error(&json!({ key: value }));
            assert!(message.starts_with(&format!("unet: {key} is ")), "{key}: {message}");
        }
    }

    #[test]
    fn lists_of_another_length_are_refused() {
        assert!(error(&json!({ "attention_head_dim": [5, 10] })).contains("attention_head_dim"));
        assert!(error(&json!({ "up_block_types": ["UpBlock2D"] })).contains("up_block_types"));
        assert!(error(&json!({ "addition_embed_type": "text_time" })).contains("addition_time_embed_dim"));
        assert!(error(&json!({ "transformer_layers_per_block": [[1, 1], 1, 1, 1] })).contains("reverse_"));
        assert!(
            error(&json!({ "out_channels": 4, "in_channels": "nine" }))
                .contains("config.json can't be read: in_channels is \"nine\": ")
        );
        assert!(error(&json!([])).contains("config.json can't be read"));
    }

    #[test]
    fn sizes_that_no_network_has_are_refused_before_anything_is_allocated() {
        let cases = [
            (
                json!({ "layers_per_block": 1e15 as u64 }),
                "layers_per_block is 1000000000000000; allowed: 1 to 128",
            ),
            (
                json!({ "transformer_layers_per_block": u32::MAX }),
                "transformer_layers_per_block is 4294967295",
            ),
            (json!({ "block_out_channels": [0, 640, 1280, 1280] }), "block_out_channels is 0"),
            (json!({ "cross_attention_dim": 0 }), "cross_attention_dim is 0"),
            (json!({ "in_channels": 1e15 as u64 }), "in_channels is 1000000000000000"),
            (json!({ "conv_in_kernel": 99_999 }), "conv_in_kernel is 99999"),
            (json!({ "time_cond_proj_dim": 3 }), "time_cond_proj_dim is 3; allowed: 4 to 65536"),
            (json!({ "norm_num_groups": 7 }), "norm_num_groups 7 does not divide the 320"),
        ];
        for (json, reason) in cases {
            let message = error(&json);
            assert!(message.contains(reason), "{message}");
        }
        let many = json!({
            "block_out_channels": vec![32; 70], "attention_head_dim": 1,
            "down_block_types": vec!["DownBlock2D"; 70], "up_block_types": vec!["UpBlock2D"; 70],
        });
        assert!(error(&many).contains("block_out_channels, in number, is 70; allowed: 1 to 8"));
    }

    #[test]
    fn depths_may_be_lists_of_lists() {
        let config = UNet2DConditionConfig::from_json(
            "unet",
            &json!({
                "block_out_channels": [32, 64],
                "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
                "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
                "transformer_layers_per_block": [0, [2, 3]],
                "reverse_transformer_layers_per_block": [[4, 5, 6], 0],
            }),
        )
        .unwrap();
        let levels = config.levels();
        assert_eq!(levels[1].depth, PerBlock::Each(vec![2, 3]));
        assert_eq!(levels[1].depth_up, PerBlock::Each(vec![4, 5, 6]));
        assert_eq!(levels[0].depth_up, PerBlock::All(0));
    }
}
