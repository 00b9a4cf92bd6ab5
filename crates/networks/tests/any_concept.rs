//! Files that nobody trained: any parts of any shapes are merged or refused by name, and nothing panics.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use infill_networks::lora::{Lora, ModelLayout, Network};
use infill_networks::weights::Weights;
use proptest::prelude::*;

const MATRIX: &str = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k";
const CONVOLUTION: &str = "down_blocks.0.resnets.0.conv1";

fn save(path: &Path, tensors: &[(String, Tensor)]) {
    let tensors: HashMap<&str, Tensor> = tensors.iter().map(|(n, t)| (n.as_str(), t.clone())).collect();
    candle_core::safetensors::save(&tensors, path).unwrap();
}

fn full(shape: &[usize], value: f32) -> Tensor {
    Tensor::full(value, shape, &Device::Cpu).unwrap()
}

/// What the file made of a model of two modules, or the words that it is refused with.
fn merged(
    tensors: &[(String, Tensor)],
    texts: &BTreeMap<String, String>,
    scale: f64,
) -> Result<Vec<f32>, String> {
    let dir = tempfile::tempdir().unwrap();
    let (base, concept) = (dir.path().join("base.safetensors"), dir.path().join("concept.safetensors"));
    let own = [
        (format!("{MATRIX}.weight"), full(&[4, 3], 0.5)),
        (format!("{CONVOLUTION}.weight"), full(&[4, 2, 3, 3], 0.5)),
        (format!("{CONVOLUTION}.bias"), full(&[4], 0.5)),
    ];
    save(&base, &own);
    save(&concept, tensors);
    let open = || {
        Weights::open("unet", std::slice::from_ref(&base), str::to_owned, DType::F32, &Device::Cpu).unwrap()
    };
    let mut layout = ModelLayout::default();
    layout.add(Network::Unet, &open());
    let read = || -> infill_networks::Result<Vec<f32>> {
        let mut changes = Lora::open(&concept, texts)?.changes(&layout, scale)?;
        let weights = open().with_changes(changes.remove(&Network::Unet).unwrap_or_default())?;
        let mut all = Vec::new();
        for (name, tensor) in &own {
            let read = weights.get(name, tensor.dims())?;
            assert_eq!(read.dims(), tensor.dims());
            all.extend(read.flatten_all()?.to_vec1::<f32>()?);
        }
        weights.finish()?;
        Ok(all)
    };
    read().map_err(|e| e.to_string())
}

const PARTS: [&str; 28] = [
    "lora_A.weight",
    "lora_B.weight",
    "lora_B.bias",
    "lora_down.weight",
    "lora_up.weight",
    "lora_mid.weight",
    "alpha",
    "dora_scale",
    "lora_magnitude_vector",
    "hada_w1_a",
    "hada_w1_b",
    "hada_w2_a",
    "hada_w2_b",
    "hada_t1",
    "hada_t2",
    "lokr_w1",
    "lokr_w1_a",
    "lokr_w1_b",
    "lokr_w2",
    "lokr_w2_a",
    "lokr_w2_b",
    "lokr_t2",
    "diff",
    "diff_b",
    "w_norm",
    "b_norm",
    "oft_blocks",
    "weight",
];

/// One part with the shape that it has.
type Shaped = (&'static str, &'static [usize]);

/// Whole changes of the matrix (4, 3), which are then damaged or not.
const OF_MATRIX: [&[Shaped]; 7] = [
    &[("lora_A.weight", &[2, 3]), ("lora_B.weight", &[4, 2])],
    &[("lora_down.weight", &[2, 3]), ("lora_up.weight", &[4, 2]), ("alpha", &[]), ("dora_scale", &[4, 1])],
    &[("lora_A.weight", &[1, 3, 1, 1]), ("lora_B.weight", &[4, 1, 1, 1]), ("lora_magnitude_vector", &[4])],
    &[
        ("hada_w1_a", &[4, 2]),
        ("hada_w1_b", &[2, 3]),
        ("hada_w2_a", &[4, 2]),
        ("hada_w2_b", &[2, 3]),
        ("alpha", &[1]),
    ],
    &[("lokr_w1", &[2, 1]), ("lokr_w2", &[2, 3]), ("alpha", &[])],
    &[("lokr_w1", &[4, 3]), ("lokr_w2_a", &[1, 2]), ("lokr_w2_b", &[2, 1]), ("dora_scale", &[1, 3])],
    &[("diff", &[4, 3])],
];

/// Whole changes of the convolution (4, 2, 3, 3).
const OF_CONVOLUTION: [&[Shaped]; 6] = [
    &[("lora_down.weight", &[2, 2, 3, 3]), ("lora_up.weight", &[4, 2, 1, 1]), ("lora_B.bias", &[4])],
    &[
        ("lora_down.weight", &[2, 2, 1, 1]),
        ("lora_up.weight", &[4, 2, 1, 1]),
        ("lora_mid.weight", &[2, 2, 3, 3]),
    ],
    &[
        ("hada_w1_a", &[2, 4]),
        ("hada_w1_b", &[2, 2]),
        ("hada_w2_a", &[2, 4]),
        ("hada_w2_b", &[2, 2]),
        ("hada_t1", &[2, 2, 3, 3]),
        ("hada_t2", &[2, 2, 3, 3]),
    ],
    &[("lokr_w1", &[2, 2]), ("lokr_w2", &[2, 1, 3, 3]), ("alpha", &[])],
    &[("lokr_w1", &[2, 2]), ("lokr_w2_a", &[2, 2]), ("lokr_w2_b", &[2, 1]), ("lokr_t2", &[2, 2, 3, 3])],
    &[("diff", &[4, 2, 3, 3]), ("diff_b", &[4])],
];

fn side() -> impl Strategy<Value = usize> {
    prop_oneof![8 => 1usize..5, 1 => Just(0usize), 1 => Just(9usize)]
}

fn value() -> impl Strategy<Value = f32> {
    prop_oneof![
        30 => -2f32..2.0,
        1 => prop_oneof![Just(f32::NAN), Just(f32::INFINITY), Just(3e38f32), Just(0f32), Just(1e-40f32)]
    ]
}

/// A part as it should be, or damaged in its shape.
fn shaped((part, shape): Shaped) -> impl Strategy<Value = (&'static str, Vec<usize>)> {
    prop_oneof![
        9 => Just((part, shape.to_vec())),
        1 => proptest::collection::vec(side(), 0..5).prop_map(move |shape| (part, shape)),
    ]
}

fn tensors() -> impl Strategy<Value = Vec<(String, Tensor)>> {
    let whole = |module: &'static str, kinds: &'static [&'static [Shaped]]| {
        (0..kinds.len())
            .prop_flat_map(move |kind| kinds[kind].iter().copied().map(shaped).collect::<Vec<_>>())
            .prop_map(move |parts| (module, parts))
    };
    let part =
        || (0..PARTS.len(), proptest::collection::vec(side(), 0..5)).prop_map(|(i, shape)| (PARTS[i], shape));
    let any = (
        prop_oneof![Just(MATRIX), Just(CONVOLUTION), Just("conv_in")],
        proptest::collection::vec(part(), 0..5),
    );
    prop_oneof![3 => whole(MATRIX, &OF_MATRIX), 3 => whole(CONVOLUTION, &OF_CONVOLUTION), 1 => any]
        .prop_flat_map(|(module, parts)| {
            proptest::collection::vec(value(), parts.len()).prop_map(move |values| {
                let numbered = parts.iter().zip(values);
                numbered.map(|((part, shape), v)| (format!("unet.{module}.{part}"), full(shape, v))).collect()
            })
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_parts_are_merged_or_refused(tensors in tensors(), scale in prop_oneof![Just(1f64), -2f64..2.0, Just(1e300)]) {
        match merged(&tensors, &BTreeMap::new(), scale) {
            Ok(values) => prop_assert!(values.iter().all(|value| value.is_finite())),
            Err(error) => prop_assert!(error.contains("concept.safetensors"), "{}", error),
        }
    }

    #[test]
    fn any_name_is_taken_or_refused(name in "[a-z_.:]{0,30}|unet\\.[a-z_.]{0,20}lora_[AB]\\.weight|.{0,20}", text in ".{0,40}") {
        let texts = BTreeMap::from([
            ("lora_adapter_metadata".to_owned(), text.clone()),
            ("unet".to_owned(), text),
        ]);
        let outcome = merged(&[(name.clone(), full(&[2, 2], 0.5))], &texts, 1.0);
        prop_assert!(outcome.is_err(), "{name}");
        let outcome = merged(&[(name.clone(), full(&[2, 2], 0.5))], &BTreeMap::new(), 1.0);
        prop_assert!(outcome.is_err(), "{name}");
    }
}

#[test]
fn what_is_whole_is_merged() {
    for (module, kinds) in [(MATRIX, &OF_MATRIX[..]), (CONVOLUTION, &OF_CONVOLUTION[..])] {
        for kind in kinds {
            let tensors: Vec<_> = kind
                .iter()
                .map(|(part, shape)| (format!("unet.{module}.{part}"), full(shape, 0.5)))
                .collect();
            merged(&tensors, &BTreeMap::new(), 1.0).unwrap_or_else(|e| panic!("{e}"));
        }
    }
}

/// Every way in which a single module can be wrong, by the words of its refusal.
#[test]
fn what_is_wrong_is_said() {
    let of = |module: &str, parts: &[(&str, &[usize], f32)]| -> Vec<(String, Tensor)> {
        parts
            .iter()
            .map(|(part, shape, value)| (format!("unet.{module}.{part}"), full(shape, *value)))
            .collect()
    };
    let pair = |down: &'static [usize], up: &'static [usize]| -> Vec<(&'static str, &'static [usize], f32)> {
        vec![("lora_A.weight", down, 0.5), ("lora_B.weight", up, 0.5)]
    };
    let with = |mut parts: Vec<(&'static str, &'static [usize], f32)>, part, shape, value| {
        parts.push((part, shape, value));
        parts
    };
    let good = || pair(&[2, 3], &[4, 2]);
    for (module, parts, words) in [
        (MATRIX, pair(&[2, 3], &[4, 1]), "lora_B.weight is [4, 1] and"),
        (MATRIX, pair(&[0, 3], &[4, 0]), "which has no rank"),
        (MATRIX, pair(&[2, 3], &[5, 2]), "makes a change of 5 x 3, the model's weight is [4, 3]"),
        (MATRIX, pair(&[2, 3, 3, 3], &[4, 2, 1, 1]), "makes a change of 4 x 3 with 9 pixels"),
        (MATRIX, pair(&[6], &[4, 2]), "lora_A.weight is [6]"),
        (MATRIX, vec![("lora_A.weight", &[2, 3][..], 0.5)], "has no lora_up (lora_B)"),
        (MATRIX, vec![("alpha", &[][..], 0.5)], "has alpha without what it belongs to"),
        (MATRIX, with(good(), "alpha", &[2], 1.0), "needed: one number"),
        (MATRIX, with(good(), "alpha", &[], f32::NAN), "has an alpha / rank of NaN"),
        (MATRIX, with(good(), "alpha", &[], f32::INFINITY), "has an alpha / rank of inf"),
        (MATRIX, with(good(), "dora_scale", &[3, 1], 1.0), "dora_scale of [3, 1] for a weight of [4, 3]"),
        (MATRIX, with(good(), "dora_scale", &[1, 4], 1.0), "dora_scale of [1, 4] for a weight of [4, 3]"),
        (MATRIX, with(good(), "lora_magnitude_vector", &[3], 1.0), "for a weight of [4, 3]"),
        (MATRIX, with(good(), "diff", &[4, 3], 1.0), "mixes LoRA, LoHa, LoKr or a full difference"),
        (MATRIX, with(good(), "lora_B.bias", &[4], 1.0), "the model's module has no bias"),
        (MATRIX, with(good(), "lora_B.weight.oft_blocks", &[4], 1.0), "fit nothing in this model"),
        (MATRIX, with(good(), "lora_down.weight", &[2, 3], 1.0), "says the same twice"),
        (
            MATRIX,
            vec![("lora_A.weight", &[1, 3][..], f32::NAN), ("lora_B.weight", &[4, 1][..], 1.0)],
            "no number",
        ),
        (
            MATRIX,
            vec![("lokr_w1", &[5, 1][..], 1.0), ("lokr_w2", &[2, 3][..], 1.0)],
            "makes a change of 10 x 3",
        ),
        (MATRIX, vec![("oft_blocks", &[2, 1][..], 1.0)], "OFT is not implemented"),
        (CONVOLUTION, vec![("diff", &[4, 2, 1, 1][..], 1.0)], "is [4, 2, 1, 1], the model's is [4, 2, 3, 3]"),
        (CONVOLUTION, vec![("diff_b", &[5][..], 1.0)], "is [5], the model's is [4]"),
        ("conv_in", good(), "has 2 of 2 tensors that fit nothing in this model: unet.conv_in.lora_A.weight"),
    ] {
        let error = merged(&of(module, &parts), &BTreeMap::new(), 1.0).unwrap_err();
        assert!(error.contains(words) && error.contains("concept.safetensors"), "{error}, expected {words}");
    }
}

#[test]
fn another_kind_of_file_is_named() {
    for (name, words) in [
        ("transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight", "made for Flux"),
        ("lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight", "made for Flux"),
        ("lora_unet_joint_blocks_0_x_block_attn_qkv.lora_down.weight", "made for Stable Diffusion 3"),
        ("lora_te3_encoder_block_0.lora_down.weight", "Stable Diffusion 3 or Flux"),
        ("transformer.transformer_blocks.0.attn.to_q.lora_A.weight", "transformer such as"),
        ("lora_controlnet", "Control-LoRA"),
        ("image_proj.proj.weight", "IP-Adapter"),
        ("emb_params", "textual inversion"),
        ("first_stage_model.encoder.conv_in.weight", "whole checkpoint"),
    ] {
        let error = merged(&[(name.to_owned(), full(&[2, 2], 0.5))], &BTreeMap::new(), 1.0).unwrap_err();
        assert!(error.contains(words), "{error}");
    }
    let widths = [("lora_A.weight", [2, 768]), ("lora_B.weight", [4, 2])];
    let words: Vec<_> =
        widths.iter().map(|(part, shape)| (format!("unet.{MATRIX}.{part}"), full(shape, 0.5))).collect();
    let error = merged(&words, &BTreeMap::new(), 1.0).unwrap_err();
    assert!(
        error.contains("is made for Stable Diffusion 1: it changes attention to words of width 768"),
        "{error}"
    );
}
