//! Which kind of model a LoRA was made for, where it does not fit: one sentence instead of a thousand names.

use super::key::{Network, Spelling};
use super::layout::{ModelLayout, NetworkLayout};
use super::{Lora, bundled_word};

/// Names that only another kind of file has.
const OTHERS: [(&str, &str); 17] = [
    ("double_blocks", "is made for Flux, whose network has no UNet"),
    ("single_blocks", "is made for Flux, whose network has no UNet"),
    ("single_transformer_blocks", "is made for Flux, whose network has no UNet"),
    ("joint_blocks", "is made for Stable Diffusion 3, whose network has no UNet"),
    ("lora_te3_", "is made for Stable Diffusion 3 or Flux, whose networks have no UNet"),
    ("text_encoder_3.", "is made for Stable Diffusion 3, whose network has no UNet"),
    ("lora_transformer_", "is made for a transformer such as Stable Diffusion 3 or Flux, not for a UNet"),
    (
        "transformer.transformer_blocks.",
        "is made for a transformer such as Stable Diffusion 3 or Flux, not for a UNet",
    ),
    ("lora_prior_", "is made for Stable Cascade"),
    ("lora_controlnet", "is a Control-LoRA, which takes a picture of its own and is not implemented"),
    ("image_proj.", "is an IP-Adapter, not a LoRA"),
    ("ip_adapter.", "is an IP-Adapter, not a LoRA"),
    ("emb_params", "is a textual inversion, not a LoRA"),
    ("string_to_param", "is a textual inversion, not a LoRA"),
    ("first_stage_model.", "is a whole checkpoint, not a LoRA"),
    ("cond_stage_model.", "is a whole checkpoint, not a LoRA"),
    ("conditioner.embedders.", "is a whole checkpoint, not a LoRA"),
];

/// Parts of changes that are known and not read.
const UNREAD: [(&str, &str); 9] = [
    ("oft_blocks", "OFT"),
    ("oft_diag", "OFT"),
    ("oft_R", "OFT"),
    (".a1.weight", "GLoRA"),
    ("on_input", "(IA)3"),
    ("ia3_l", "(IA)3"),
    ("lora_embedding_", "a LoRA of an embedding table"),
    ("vera_lambda", "VeRA"),
    ("set_weight", "a replaced weight"),
];

/// A kind of change that these names show and that is not implemented.
pub(super) fn unread_kind(names: &[&str]) -> Option<&'static str> {
    UNREAD.iter().find(|(mark, _)| names.iter().any(|name| name.contains(mark))).map(|(_, kind)| *kind)
}

/// Refuses what is made for another kind of model.
///
/// # Errors
/// For which, in words.
pub(super) fn check(lora: &Lora, model: &ModelLayout) -> Result<(), String> {
    let names = lora.file.names().into_iter().filter(|name| bundled_word(name).is_none());
    let names: Vec<String> = names.collect();
    if let Some((_, what)) = OTHERS.iter().find(|(mark, _)| names.iter().any(|name| name.contains(mark))) {
        return Err((*what).to_owned());
    }
    let of_unet = lora.modules().filter(|(network, ..)| network.is_none_or(|n| n == Network::Unet));
    let own = { of_unet }.find_map(|(_, module, builder)| to_words(module).then(|| builder.inputs())?);
    let wanted = model.network(Network::Unet).and_then(words_width);
    if let (Some(own), Some(wanted)) = (own, wanted)
        && own != wanted
    {
        let this = family(wanted).map_or(String::new(), |name| format!(", {name},"));
        return Err(format!(
            "is made for {}: it changes attention to words of width {own}, and this model{this} has words of width {wanted}",
            family(own).unwrap_or("another kind of model"),
        ));
    }
    for network in [Network::TextEncoder, Network::TextEncoder2] {
        let count = lora.modules.keys().filter(|(of, _)| *of == Some(network)).count();
        if count > 0 && model.network(network).is_none() {
            return Err(format!(
                "changes {count} modules of a {}, which this model does not have",
                network.component()
            ));
        }
    }
    Ok(())
}

/// Whether a module reads words in a UNet.
fn to_words(module: &Spelling) -> bool {
    match module {
        Spelling::Path(path) => path.ends_with("attn2.to_k") || path.ends_with("attn2_to_k"),
        // The keys from the words, in the order that is read.
        Spelling::Number(number) => number % 9 == 6,
    }
}

fn words_width(unet: &NetworkLayout) -> Option<usize> {
    let (_, shape) = unet.tensors().find(|(name, _)| name.ends_with("attn2.to_k.weight"))?;
    shape.get(1).copied()
}

fn family(width: usize) -> Option<&'static str> {
    match width {
        768 => Some("Stable Diffusion 1"),
        1024 => Some("Stable Diffusion 2"),
        1280 => Some("the SDXL refiner"),
        2048 => Some("SDXL"),
        _ => None,
    }
}
