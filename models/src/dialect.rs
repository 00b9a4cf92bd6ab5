//! The names that a tensor has had over the years, taken to diffusers' present name.
//!
//! Each function is pure and leaves a present name as it is, so applying it twice is applying it once.

/// The present name of a VAE's tensor.
///
/// The attention of the middle block once called its projections `query`, `key`, `value` and `proj_attn` (diffusers
/// `models/modeling_utils.py`, where deprecated attention blocks are converted).
pub fn vae_key(key: &str) -> String {
    let segments: Vec<&str> = key.split('.').collect();
    let in_attention = segments.contains(&"attentions");
    let present = |segment| match segment {
        "query" if in_attention => "to_q",
        "key" if in_attention => "to_k",
        "value" if in_attention => "to_v",
        "proj_attn" if in_attention => "to_out.0",
        other => other,
    };
    segments.into_iter().map(present).collect::<Vec<_>>().join(".")
}

/// The present name of a text encoder's tensor.
///
/// transformers 4 writes everything but `text_projection` below `text_model.`; transformers 5 has no such level for
/// a text encoder without a projection. The name with the prefix is the canonical one here.
pub fn text_encoder_key(key: &str) -> String {
    let below = ["embeddings.", "encoder.", "final_layer_norm."];
    if below.iter().any(|start| key.starts_with(start)) {
        format!("text_model.{key}")
    } else {
        key.to_owned()
    }
}

/// The present name of a UNet's tensor: it has never changed in a published checkpoint.
pub fn unet_key(key: &str) -> String {
    key.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_attention_of_the_vae() {
        for (old, new) in [("query", "to_q"), ("key", "to_k"), ("value", "to_v"), ("proj_attn", "to_out.0")] {
            let present = format!("decoder.mid_block.attentions.0.{new}.weight");
            assert_eq!(vae_key(&format!("decoder.mid_block.attentions.0.{old}.weight")), present);
            assert_eq!(vae_key(&present), present);
        }
        for unchanged in
            ["decoder.mid_block.attentions.0.group_norm.bias", "quant_conv.weight", "encoder.key.bias"]
        {
            assert_eq!(vae_key(unchanged), unchanged);
        }
    }

    #[test]
    fn text_encoders_with_and_without_the_prefix() {
        for below in
            ["embeddings.token_embedding.weight", "encoder.layers.0.mlp.fc1.bias", "final_layer_norm.bias"]
        {
            let present = format!("text_model.{below}");
            assert_eq!(text_encoder_key(below), present);
            assert_eq!(text_encoder_key(&present), present);
        }
        assert_eq!(text_encoder_key("text_projection.weight"), "text_projection.weight");
    }

    #[test]
    fn names_of_the_unet_stay() {
        let key = "down_blocks.0.attentions.1.transformer_blocks.0.attn1.to_out.0.bias";
        assert_eq!(unet_key(key), key);
    }
}
