//! The whole network on zero weights: names, shapes, and what the image tokens add.
#![allow(clippy::unwrap_used)]
use super::*;
use crate::embeddings::guidance_scale_embedding;
use crate::layers::Linear;
use candle_core::{Device, safetensors};
use serde_json::json;
use std::collections::HashMap;

/// A small SDXL-shaped network, its weights all zero, with the names of the tensors it asked for.
fn network() -> (UNet2DConditionModel, String) {
    let json = json!({
        "block_out_channels": [8, 16, 16], "norm_num_groups": 4, "layers_per_block": 1,
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        "attention_head_dim": [1, 2, 4], "transformer_layers_per_block": [1, 1, 2],
        "cross_attention_dim": 12, "use_linear_projection": true, "upcast_attention": null,
        "addition_embed_type": "text_time", "addition_time_embed_dim": 4,
        "projection_class_embeddings_input_dim": 34,
    });
    build(&json)
}

/// The network of a configuration, its weights all zero, with the names of the tensors it asked for.
fn build(json: &serde_json::Value) -> (UNet2DConditionModel, String) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("empty.safetensors");
    safetensors::save(&HashMap::<String, Tensor>::new(), &file).unwrap();
    let w = Weights::open("unet", &[file], str::to_owned, DType::F32, &Device::Cpu).unwrap();
    let config = UNet2DConditionConfig::from_json("unet", json).unwrap();
    let unet = UNet2DConditionModel::new(config, &w).unwrap();
    (unet, w.finish().unwrap_err().to_string())
}

fn ones(shape: &[usize]) -> Tensor {
    Tensor::ones(shape, DType::F32, &Device::Cpu).unwrap()
}

#[test]
fn an_empty_checkpoint_lacks_every_tensor_by_name() {
    let (_, error) = network();
    for name in [
        "add_embedding.linear_1.weight",
        "down_blocks.0.downsamplers.0.conv.bias",
        "down_blocks.2.attentions.0.transformer_blocks.1.attn2.to_out.0.bias",
        "mid_block.resnets.1.time_emb_proj.weight",
        "up_blocks.1.resnets.0.conv_shortcut.weight",
        "up_blocks.0.attentions.1.transformer_blocks.0.ff.net.0.proj.weight",
        "conv_norm_out.weight",
    ] {
        assert!(error.contains(name), "{name}");
    }
    assert!(!error.contains("down_blocks.0.attentions") && !error.contains("down_blocks.2.downsamplers"));
}

#[test]
fn odd_sides_come_back_and_every_layer_is_reported_once() {
    let (unet, _) = network();
    let added = AddedConditions { text_embeds: ones(&[2, 10]), time_ids: ones(&[2, 6]) };
    let words = ones(&[2, 7, 12]);
    let conditions = Conditions { added: Some(&added), ..Conditions::new(&words) };
    let mut names = Vec::new();
    let out = unet
        .forward_tapped(&ones(&[2, 4, 9, 13]), 500.5, &conditions, &mut |name, _| {
            names.push(name.to_owned());
        })
        .unwrap();
    assert_eq!(out.dims(), [2, 4, 9, 13]);
    assert_eq!(names.first().unwrap(), "time_embedding");
    assert_eq!(names.last().unwrap(), "conv_out");
    assert!(names.contains(&"up_blocks.1.upsamplers.0".to_owned()));
    let count = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), count);
}

#[test]
fn a_missing_condition_is_an_error() {
    let (unet, _) = network();
    let (words, embedding) = (ones(&[1, 7, 12]), ones(&[1, 8]));
    let error = |conditions| unet.forward(&ones(&[1, 4, 8, 8]), 1.0, &conditions).unwrap_err().to_string();
    assert!(error(Conditions::new(&words)).contains("text_embeds and time_ids"));
    let distilled = Conditions { timestep_cond: Some(&embedding), ..Conditions::new(&words) };
    assert!(error(distilled).contains("timestep_cond needs time_cond_proj_dim"));
}

#[test]
fn cross_attentions_are_numbered_down_up_middle() {
    let (unet, _) = network();
    let layers = unet.cross_attentions();
    let count = |place| layers.iter().filter(|layer| layer.place == place).count();
    assert_eq!(layers.len(), 1 + 2 + 2 * 2 + 2 + 2);
    assert_eq!(layers[0].name, "down_blocks.1.attentions.0.transformer_blocks.0.attn2");
    assert_eq!(layers[3].place, Place::Up { level: 0, transformer: 0 });
    assert_eq!(count(Place::Up { level: 0, transformer: 1 }), 2);
    assert_eq!(layers.last().unwrap().name, "mid_block.attentions.0.transformer_blocks.1.attn2");
    assert!(layers.iter().all(|layer| (layer.width, layer.context_width) == (16, 12)));
}

/// An adapter of ones for every layer of `unet`.
fn adapter(unet: &UNet2DConditionModel) -> Vec<ImageAttention> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("adapter.safetensors");
    let tensors: HashMap<_, _> = unet
        .cross_attentions()
        .iter()
        .enumerate()
        .flat_map(|(i, layer)| {
            let shape = [layer.width, layer.context_width];
            [(format!("{i}.k.weight"), ones(&shape)), (format!("{i}.v.weight"), ones(&shape))]
        })
        .collect();
    safetensors::save(&tensors, &file).unwrap();
    let w = Weights::open("adapter", &[file], str::to_owned, DType::F32, &Device::Cpu).unwrap();
    let linear = |i: usize, name: &str| Linear::new(12, 16, false, &w.sub(i).sub(name)).unwrap();
    (0..unet.cross_attentions().len())
        .map(|i| ImageAttention { to_k_ip: linear(i, "k"), to_v_ip: linear(i, "v") })
        .collect()
}

#[test]
fn only_layers_with_a_weight_listen_and_counts_are_checked() {
    let (unet, _) = network();
    let layers = adapter(&unet);
    let mut weights = vec![0.0; layers.len()];
    let make = |weights: &[f64], scales: &[f64]| {
        let (weights, scales) = (weights.to_vec(), scales.to_vec());
        let masks = vec![None, RegionMask::new(2, vec![1.0; 4])];
        let tokens = AdapterTokens { layers: &layers, tokens: ones(&[2, 2, 3, 12]), scales, weights, masks };
        unet.image_prompts(&[tokens], 9, 13)
    };
    assert!(make(&weights, &[1.0, 0.5]).unwrap().is_empty());
    weights[3] = 2.0;
    let prompts = make(&weights, &[1.0, 0.5]).unwrap();
    let name = &unet.cross_attentions()[3].name;
    let [first, second] = prompts.of(name) else { unreachable!() };
    // Ones through ones are 12 everywhere; times the picture's scale, times the layer's weight.
    assert_eq!(first.v.flatten_all().unwrap().to_vec1::<f32>().unwrap(), vec![24.0; 2 * 3 * 16]);
    assert_eq!(second.v.flatten_all().unwrap().to_vec1::<f32>().unwrap(), vec![12.0; 2 * 3 * 16]);
    // Two levels down, 9 x 13 is 3 x 4.
    assert_eq!(second.mask.as_ref().unwrap().dims(), [1, 1, 3 * 4, 1]);
    assert!(first.mask.is_none() && prompts.of(&unet.cross_attentions()[2].name).is_empty());
    assert!(make(&weights[1..], &[1.0, 0.5]).is_err());
    assert!(make(&weights, &[1.0]).is_err());
}

/// Zero weights leave nothing of words and time: what is left is whether the embedding is asked for and read.
#[test]
fn a_network_distilled_for_guidance_needs_its_scale() {
    let json = json!({
        "block_out_channels": [8], "norm_num_groups": 4, "layers_per_block": 1, "attention_head_dim": 1,
        "down_block_types": ["CrossAttnDownBlock2D"], "up_block_types": ["CrossAttnUpBlock2D"],
        "cross_attention_dim": 12, "time_cond_proj_dim": 6,
    });
    let (unet, faults) = build(&json);
    assert!(faults.contains("time_embedding.cond_proj.weight") && !faults.contains("cond_proj.bias"));
    let (words, sample) = (ones(&[1, 7, 12]), ones(&[1, 4, 8, 8]));
    let error = unet.forward(&sample, 1.0, &Conditions::new(&words)).unwrap_err();
    assert!(error.to_string().contains("needs timestep_cond"), "{error}");
    let embedding = guidance_scale_embedding(8.0, 6).unwrap();
    let conditions = Conditions { timestep_cond: Some(&embedding), ..Conditions::new(&words) };
    unet.forward(&sample, 1.0, &conditions).unwrap();
}
