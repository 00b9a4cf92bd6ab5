//! One UNet forward pass with guidance: both halves in one batch.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::{checkpoint, noise, side, weights};
use criterion::{Criterion, criterion_group, criterion_main};
use infill_models::dialect;
use infill_networks::unet::{AddedConditions, Conditions, UNet2DConditionConfig, UNet2DConditionModel};

fn unet_step(c: &mut Criterion) {
    let checkpoint = checkpoint();
    let json = &checkpoint.component("unet").unwrap().config;
    let config = UNet2DConditionConfig::from_json("unet", json).unwrap();
    let size = |key: &str| json[key].as_u64().map(|n| n as usize);
    let (channels, context) = (size("in_channels").unwrap(), size("cross_attention_dim").unwrap());
    let w = weights(&checkpoint, "unet", dialect::unet_key);
    let unet = UNet2DConditionModel::new(config, &w).unwrap();
    w.finish().unwrap();

    let latent = side() / 8;
    let sample = noise(&[2, channels, latent, latent]);
    let states = noise(&[2, 77, context]);
    let added = size("projection_class_embeddings_input_dim").map(|width| {
        let (ids, each) = (6, size("addition_time_embed_dim").unwrap());
        AddedConditions { text_embeds: noise(&[2, width - ids * each]), time_ids: noise(&[2, ids]) }
    });
    let conditions = Conditions { added: added.as_ref(), ..Conditions::new(&states) };
    let mut group = c.benchmark_group("unet_step");
    group.sample_size(10);
    group.bench_function(format!("{0}x{0}", side()), |b| {
        b.iter(|| unet.forward(&sample, 500.0, &conditions).unwrap());
    });
    group.finish();
}

criterion_group!(benches, unet_step);
criterion_main!(benches);
