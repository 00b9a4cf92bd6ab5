//! The autoencoder: a picture to latents and back.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::{checkpoint, noise, side, weights};
use criterion::{Criterion, criterion_group, criterion_main};
use infill_models::dialect;
use infill_networks::vae::{AutoencoderKl, AutoencoderKlConfig, Passage};

fn vae(c: &mut Criterion) {
    let checkpoint = checkpoint();
    let config = AutoencoderKlConfig::from_json("vae", &checkpoint.component("vae").unwrap().config).unwrap();
    let w = weights(&checkpoint, "vae", dialect::vae_key);
    let vae = AutoencoderKl::new(config, &w).unwrap();
    w.finish().unwrap();

    let mut group = c.benchmark_group("vae");
    group.sample_size(10);
    let (picture, latents) = (noise(&[1, 3, side(), side()]), noise(&[1, 4, side() / 8, side() / 8]));
    group.bench_function(format!("encode {0}x{0}", side()), |b| {
        b.iter(|| vae.encode(&picture, &Passage::default()).unwrap())
    });
    group.bench_function(format!("decode {0}x{0}", side()), |b| {
        b.iter(|| vae.decode(&latents, &Passage::default()).unwrap())
    });
    group.finish();
}

criterion_group!(benches, vae);
criterion_main!(benches);
