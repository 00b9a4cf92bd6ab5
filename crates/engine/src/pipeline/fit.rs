//! Whether the components of a checkpoint fit together and to the pipeline, asked before weights are read.
//!
//! Each network checks its own configuration. What only shows between two of them would else be a tensor operation
//! that fails in the middle of a run.

use std::fmt::Display;

use infill_models::Family;
use infill_networks::clip::text::ClipTextConfig;
use infill_networks::tokenizer::ClipTokenizer;
use infill_networks::unet::UNet2DConditionConfig;
use infill_networks::vae::AutoencoderKlConfig;

use crate::geometry::STEP;
use crate::{Error, Result};

/// What the text encoders of a checkpoint hand to its UNet.
pub(super) struct Words {
    family: Family,
    /// How many numbers SDXL's size conditioning has: 6, or 5 with an aesthetic score.
    time_ids: usize,
    /// The width of the joined hidden states.
    width: usize,
    /// The width of the pooled and projected text.
    projection: Option<usize>,
}

impl Words {
    pub(super) fn new(family: Family, requires_aesthetics_score: bool) -> Self {
        Self { family, time_ids: if requires_aesthetics_score { 5 } else { 6 }, width: 0, projection: None }
    }

    /// One more text encoder.
    pub(super) fn add(&mut self, config: &ClipTextConfig, with_projection: bool) {
        self.width += config.hidden_size;
        self.projection = with_projection.then_some(config.projection_dim);
    }
}

/// The text encoder reads every text that its tokenizer makes.
pub(super) fn check_tokenizer(
    component: &'static str,
    tokenizer: &ClipTokenizer,
    config: &ClipTextConfig,
) -> Result<()> {
    let (length, positions) = (tokenizer.model_max_length(), config.max_position_embeddings);
    if length > positions {
        return Err(Error::Refused {
            field: "the tokenizer's model_max_length",
            value: length.to_string(),
            allowed: format!("up to max_position_embeddings of {component}, {positions}"),
        });
    }
    let ids = [tokenizer.bos_token_id(), tokenizer.eos_token_id(), tokenizer.pad_token_id()];
    match ids.into_iter().find(|id| *id as usize >= config.vocab_size) {
        None => Ok(()),
        Some(id) => Err(Error::Refused {
            field: "a special token's id",
            value: id.to_string(),
            allowed: format!("below vocab_size of {component}, {}", config.vocab_size),
        }),
    }
}

/// The UNet takes latents as the pipeline makes them, and what the text encoders give.
pub(super) fn check_unet(unet: &UNet2DConditionConfig, words: &Words) -> Result<()> {
    if unet.in_channels != 4 && unet.in_channels != 9 {
        let allowed = "9 (an inpainting model) or 4 (a base model)";
        return refuse("unet in_channels", unet.in_channels, allowed);
    }
    if unet.out_channels != 4 {
        return refuse("unet out_channels", unet.out_channels, "4");
    }
    let blocks = unet.block_out_channels.len();
    let widths = unet.cross_attention_dim.expand(blocks).unwrap_or_default();
    if let Some(width) = widths.into_iter().find(|width| *width != words.width) {
        let allowed = format!("{}, the width of the text encoders", words.width);
        return refuse("unet cross_attention_dim", width, allowed);
    }
    if words.family == Family::StableDiffusion {
        return match &unet.addition_embed_type {
            None => Ok(()),
            Some(kind) => refuse("unet addition_embed_type", kind, "null in Stable Diffusion 1 and 2"),
        };
    }
    let (Some(time), Some(taken)) =
        (unet.addition_time_embed_dim, unet.projection_class_embeddings_input_dim)
    else {
        return refuse("unet addition_embed_type", "null", "text_time in SDXL");
    };
    let Some(projection) = words.projection else {
        return refuse("text_encoder_2", "without a projection", "CLIPTextModelWithProjection");
    };
    let given = words.time_ids * time + projection;
    if taken == given {
        return Ok(());
    }
    let allowed = format!(
        "{given}: {} time ids of {time} each and the pooled text's {projection} (requires_aesthetics_score in \
         model_index.json says how many ids)",
        words.time_ids
    );
    refuse("unet projection_class_embeddings_input_dim", taken, allowed)
}

/// The VAE takes pictures, and gives latents of the size and depth that the pipeline plans with.
pub(super) fn check_vae(vae: &AutoencoderKlConfig) -> Result<()> {
    let rules = [
        ("vae in_channels", vae.in_channels, 3),
        ("vae out_channels", vae.out_channels, 3),
        ("vae latent_channels", vae.latent_channels, 4),
        ("vae scale", vae.scale(), STEP as usize),
    ];
    match rules.into_iter().find(|(_, value, needed)| value != needed) {
        None => Ok(()),
        Some((field, value, needed)) => refuse(field, value, needed.to_string()),
    }
}

fn refuse(field: &'static str, value: impl Display, allowed: impl Into<String>) -> Result<()> {
    Err(Error::Refused { field, value: value.to_string(), allowed: allowed.into() })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::{Value, json};

    fn words(family: Family, aesthetics: bool, encoders: &[(usize, Option<usize>)]) -> Words {
        let mut words = Words::new(family, aesthetics);
        for &(hidden_size, projection) in encoders {
            let config = ClipTextConfig {
                hidden_size,
                projection_dim: projection.unwrap_or(1),
                ..ClipTextConfig::default()
            };
            words.add(&config, projection.is_some());
        }
        words
    }

    fn unet(json: &Value) -> UNet2DConditionConfig {
        UNet2DConditionConfig::from_json("unet", json).unwrap()
    }

    #[test]
    fn the_published_models_fit() {
        let xl = json!({
            "cross_attention_dim": 2048, "addition_embed_type": "text_time", "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 2816,
        });
        let xl_words = words(Family::StableDiffusionXl, false, &[(768, None), (1280, Some(1280))]);
        check_unet(&unet(&xl), &xl_words).unwrap();
        let refiner = json!({
            "cross_attention_dim": 1280, "addition_embed_type": "text_time", "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 2560,
        });
        let refiner_words = words(Family::StableDiffusionXlRefiner, true, &[(1280, Some(1280))]);
        check_unet(&unet(&refiner), &refiner_words).unwrap();
        let sd_words = words(Family::StableDiffusion, false, &[(768, None)]);
        check_unet(&unet(&json!({ "in_channels": 9, "cross_attention_dim": 768 })), &sd_words).unwrap();

        let refused = |json: &Value, words: &Words| check_unet(&unet(json), words).unwrap_err().to_string();
        let forgotten = words(Family::StableDiffusionXlRefiner, false, &[(1280, Some(1280))]);
        let message = refused(&refiner, &forgotten);
        assert!(message.contains("input_dim is 2560; allowed: 2816: 6 time ids"), "{message}");
        assert!(refused(&xl, &sd_words).contains("cross_attention_dim is 2048; allowed: 768"));
        assert!(refused(&json!({ "cross_attention_dim": 2048 }), &xl_words).contains("text_time in SDXL"));
        assert!(
            refused(&json!({ "out_channels": 8 }), &sd_words).contains("unet out_channels is 8; allowed: 4")
        );
        assert!(
            refused(&json!({ "in_channels": 5 }), &sd_words).contains("unet in_channels is 5; allowed: 9")
        );
    }

    #[test]
    fn a_vae_of_another_depth_or_scale_is_refused() {
        let four =
            json!(["DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D", "DownEncoderBlock2D"]);
        let up = json!(["UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D"]);
        let mut config = json!({
            "block_out_channels": [128, 256, 512, 512], "down_block_types": four, "up_block_types": up,
        });
        let check = |json: &_| check_vae(&AutoencoderKlConfig::from_json("vae", json).unwrap());
        check(&config).unwrap();
        config["latent_channels"] = json!(16);
        assert!(check(&config).unwrap_err().to_string().contains("vae latent_channels is 16; allowed: 4"));
        assert!(check(&json!({})).unwrap_err().to_string().contains("vae scale is 1; allowed: 8"));
    }
}
