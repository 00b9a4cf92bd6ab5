//! The order in which the first trainer of LoRAs for pictures numbered the modules (github.com/cloneofsimo/lora).
//!
//! It walked through torch's module tree, in the order in which the modules had been made: a UNet's middle block after
//! its way up; in each transformer block the attention among the tokens, the feed-forward's first layer and the
//! attention to the words; in a text encoder's attention the keys first. The file says which classes it looked for; the
//! shapes of every module are checked, so another order does not fit.

use super::key::Network;

/// The classes that it looked for by default, sorted.
pub(super) const UNET_CLASSES: [&str; 3] = ["Attention", "CrossAttention", "GEGLU"];
/// The classes that it looked for in a text encoder.
pub(super) const TEXT_CLASSES: [&str; 1] = ["CLIPAttention"];

const BLOCK: [&str; 9] = [
    "attn1.to_q",
    "attn1.to_k",
    "attn1.to_v",
    "attn1.to_out.0",
    "ff.net.0.proj",
    "attn2.to_q",
    "attn2.to_k",
    "attn2.to_v",
    "attn2.to_out.0",
];

const ATTENTION: [&str; 4] = ["k_proj", "v_proj", "q_proj", "out_proj"];

/// The numbered modules of a network, from 0.
pub(super) fn modules(network: Network, modules: &[&str]) -> Vec<String> {
    let (last, parts): (&str, &[&str]) = match network {
        Network::Unet => (".attn1.to_q", &BLOCK),
        Network::TextEncoder | Network::TextEncoder2 => (".k_proj", &ATTENTION),
    };
    let mut blocks: Vec<&str> = modules.iter().filter_map(|module| module.strip_suffix(last)).collect();
    blocks.sort_by_key(|block| order(block));
    blocks.iter().flat_map(|block| parts.iter().map(move |part| format!("{block}.{part}"))).collect()
}

/// Down, up, then the middle; numbers as numbers.
fn order(block: &str) -> (bool, Vec<(usize, &str)>) {
    let segment = |segment| match str::parse::<usize>(segment) {
        Ok(number) => (number, ""),
        Err(_) => (0, segment),
    };
    (block.starts_with("mid_block"), block.split('.').map(segment).collect())
}
