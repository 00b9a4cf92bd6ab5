#![allow(clippy::unwrap_used)]
use super::*;
use crate::unet::Place;
use candle_core::{DType, Device};
use std::collections::HashMap;

/// The widths of a UNet's layers, and that of its words.
const WIDTHS: [usize; 3] = [4, 8, 4];
const CONTEXT: usize = 6;

fn layers(widths: &[usize], context_width: usize) -> Vec<CrossAttention> {
    let layer = |&width| CrossAttention { name: "attn2".into(), place: Place::Mid, width, context_width };
    widths.iter().map(layer).collect()
}

fn ones(shape: &[usize]) -> Tensor {
    Tensor::ones(shape, DType::F32, &Device::Cpu).unwrap()
}

/// A file with these tensors beside the attention weights of `WIDTHS` under these numbers.
fn adapter(projection: &[(&str, &[usize])], numbers: [u32; 3]) -> Weights {
    let mut tensors: HashMap<String, Tensor> =
        projection.iter().map(|(name, shape)| (format!("image_proj.{name}"), ones(shape))).collect();
    for (number, width) in numbers.into_iter().zip(WIDTHS) {
        for side in ["k", "v"] {
            tensors.insert(format!("ip_adapter.{number}.to_{side}_ip.weight"), ones(&[width, CONTEXT]));
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("adapter.safetensors");
    candle_core::safetensors::save(&tensors, &file).unwrap();
    Weights::open("ip_adapter", &[file], str::to_owned, DType::F32, &Device::Cpu).unwrap()
}

const PLAIN: [(&str, &[usize]); 4] =
    [("proj.weight", &[12, 5]), ("proj.bias", &[12]), ("norm.weight", &[6]), ("norm.bias", &[6])];

fn refused(w: &Weights, widths: &[usize], context: usize) -> String {
    IpAdapter::new(w, &layers(widths, context)).err().unwrap().to_string()
}

#[test]
fn a_plain_adapter_has_as_many_tokens_as_fit_its_rows() {
    let w = adapter(&PLAIN, [1, 3, 5]);
    let ip_adapter = IpAdapter::new(&w, &layers(&WIDTHS, CONTEXT)).unwrap();
    w.finish().unwrap();
    assert_eq!(ip_adapter.project(&ones(&[2, 5])).unwrap().dims(), [2, 2, 6]);
    let config = |projection_dim| ClipVisionConfig { projection_dim, ..ClipVisionConfig::default() };
    ip_adapter.check_encoder(&config(5)).unwrap();
    let error = ip_adapter.check_encoder(&config(1280)).unwrap_err().to_string();
    assert!(error.contains("of projection_dim 5, this one has 1280"), "{error}");
}

#[test]
fn layers_go_by_the_order_of_their_numbers() {
    // As text, "10" stands before "2".
    let w = adapter(&PLAIN, [0, 2, 10]);
    let ip_adapter = IpAdapter::new(&w, &layers(&WIDTHS, CONTEXT)).unwrap();
    w.finish().unwrap();
    let widths =
        ip_adapter.layers().iter().map(|layer| layer.to_v_ip.forward(&ones(&[1, 6])).unwrap().dim(1));
    assert_eq!(widths.collect::<candle_core::Result<Vec<_>>>().unwrap(), [4, 8, 4]);
}

#[test]
fn another_unet_is_named() {
    let w = adapter(&PLAIN, [1, 3, 5]);
    assert!(refused(&w, &WIDTHS[..2], CONTEXT).contains("has 3 layers, this UNet 2 with cross-attention"));
    assert!(refused(&w, &WIDTHS, 2048).contains("tokens have 6 numbers, this UNet's words 2048"));
    IpAdapter::new(&w, &layers(&[4; 3], CONTEXT)).map(|_| ()).unwrap();
    let error = w.finish().unwrap_err().to_string();
    assert!(error.contains("ip_adapter.3.to_k_ip.weight is [8, 6], needs [4, 6]"), "{error}");
}

#[test]
fn what_is_no_projection_is_refused() {
    let error = refused(&adapter(&[("proj.0.weight", &[4, 4])], [1, 3, 5]), &WIDTHS, CONTEXT);
    assert!(error.contains("there is no projection"), "{error}");
    let uneven: [(&str, &[usize]); 2] = [("proj.weight", &[13, 5]), ("norm.weight", &[6])];
    let error = refused(&adapter(&uneven, [1, 3, 5]), &WIDTHS, CONTEXT);
    assert!(error.contains("13 rows for tokens of 6 numbers"), "{error}");
    let flat: [(&str, &[usize]); 1] = [("latents", &[4, 4])];
    let error = refused(&adapter(&flat, [1, 3, 5]), &WIDTHS, CONTEXT);
    assert!(error.contains("image_proj.latents is [4, 4], needs"), "{error}");
}

#[test]
fn the_resamplers_layers_are_counted_and_its_heads_whole() {
    let resampler = |rows: usize| -> Vec<(String, Vec<usize>)> {
        let mut tensors = vec![
            ("latents".to_owned(), vec![1, 3, 8]),
            ("proj_in.weight".to_owned(), vec![8, 7]),
            ("proj_in.bias".to_owned(), vec![8]),
            ("proj_out.weight".to_owned(), vec![6, 8]),
            ("proj_out.bias".to_owned(), vec![6]),
            ("norm_out.weight".to_owned(), vec![6]),
            ("norm_out.bias".to_owned(), vec![6]),
        ];
        for i in 0..2 {
            for (name, shape) in [
                ("0.norm1.weight", vec![8]),
                ("0.norm1.bias", vec![8]),
                ("0.norm2.weight", vec![8]),
                ("0.norm2.bias", vec![8]),
                ("0.to_q.weight", vec![rows, 8]),
                ("0.to_kv.weight", vec![2 * rows, 8]),
                ("0.to_out.weight", vec![8, rows]),
                ("1.0.weight", vec![8]),
                ("1.0.bias", vec![8]),
                ("1.1.weight", vec![16, 8]),
                ("1.3.weight", vec![8, 16]),
            ] {
                tensors.push((format!("layers.{i}.{name}"), shape));
            }
        }
        tensors
    };
    let build = |rows| {
        let tensors = resampler(rows);
        let tensors: Vec<(&str, &[usize])> =
            tensors.iter().map(|(n, s)| (n.as_str(), s.as_slice())).collect();
        adapter(&tensors, [1, 3, 5])
    };
    let w = build(128);
    let ip_adapter = IpAdapter::new(&w, &layers(&WIDTHS, CONTEXT)).unwrap();
    w.finish().unwrap();
    assert_eq!(ip_adapter.project(&ones(&[2, 4, 7])).unwrap().dims(), [2, 3, 6]);
    let error = refused(&build(100), &WIDTHS, CONTEXT);
    assert!(error.contains("to_q.weight has 100 rows, needs a multiple of 64"), "{error}");
}
