//! Each network by itself, fed with the reference's own inputs.

use candle_core::{DType, Device, Tensor};
use infill_models::{Checkpoint, dialect};
use infill_networks::clip::text::{ClipTextConfig, ClipTextModel, TextEnd};
use infill_networks::prompt::{Limit, Prompt};
use infill_networks::tokenizer::ClipTokenizer;
use infill_networks::unet::{AddedConditions, Conditions, UNet2DConditionConfig, UNet2DConditionModel};
use infill_networks::vae::{AutoencoderKl, AutoencoderKlConfig, Passage};
use infill_networks::weights::Weights;
use serde_json::Value;

use crate::case::{Case, Folders, device_and_dtype};
use crate::compare::{Report, assert_all_pass};

/// The cases that hold every layer, one for each model.
const DEEP: [&str; 5] = [
    "x9_sched_euler",
    "x4_strength_0.5_n10",
    "refiner_strength_0.3",
    "s9_strength_0.5_n10",
    "s4_strength_0.5_n10",
];

/// A component of a checkpoint, built by `new` from its configuration and its weights.
fn build<N>(
    checkpoint: &Checkpoint,
    component: &str,
    rename: fn(&str) -> String,
    dtype: DType,
    new: impl FnOnce(&Value, &Weights) -> infill_networks::Result<N>,
) -> N {
    let (device, _) = device_and_dtype();
    let part = checkpoint.component(component).unwrap_or_else(|| panic!("no {component}"));
    let weights = Weights::open(component, &part.weight_files, rename, dtype, &device).unwrap();
    let network = new(&part.config, &weights).unwrap();
    weights.finish().unwrap();
    network
}

/// Runs `check` for the deep case of each model and asserts that nothing differs.
fn for_each_model(check: impl Fn(&Case, &Checkpoint, &dyn Fn(&str) -> Tensor, &mut Report, DType)) {
    let folders = Folders::committed();
    let (device, dtype) = device_and_dtype();
    let reports: Vec<_> = DEEP
        .iter()
        .map(|name| Case::read(&folders, name))
        .filter(|case| case.covers(dtype))
        .map(|case| {
            let mut report = Report::default();
            let input = |name: &str| case.tensor(name).to_device(&device).unwrap();
            check(&case, &folders.checkpoint(&case.model), &input, &mut report, dtype);
            (case.name, report)
        })
        .collect();
    assert_all_pass(&reports);
}

/// The text encoders of a checkpoint: the name of their tensors, their folder, their tokenizer's.
fn text_encoders(checkpoint: &Checkpoint) -> Vec<(&'static str, &'static str, &'static str)> {
    [("te1", "text_encoder", "tokenizer"), ("te2", "text_encoder_2", "tokenizer_2")]
        .into_iter()
        .filter(|(_, encoder, _)| checkpoint.component(encoder).is_some())
        .collect()
}

#[test]
fn tokens() {
    let prompts = ["a photo of a tiger sitting on a bench, it's 3 o'clock", "blurry, low quality"];
    for_each_model(|case, checkpoint, _, report, dtype| {
        for (tap, _, tokenizer) in text_encoders(checkpoint) {
            let tokenizer = ClipTokenizer::open(&checkpoint.folder(tokenizer).unwrap()).unwrap();
            for (call, prompt) in prompts.iter().enumerate() {
                let chunks = Prompt::plain(prompt).chunks(&tokenizer, &[], Limit::OneChunk).unwrap();
                let ids = &chunks.chunks[0].ids;
                let ids = Tensor::from_slice(ids, (1, ids.len()), &Device::Cpu).unwrap();
                report.check(case, &format!("{tap}.{call}/input_ids"), &ids, dtype);
            }
        }
        assert_eq!(report.rows.len(), 2 * text_encoders(checkpoint).len());
    });
}

#[test]
fn text_encoders_from_the_references_tokens() {
    for_each_model(|case, checkpoint, input, report, dtype| {
        for (tap, encoder, _) in text_encoders(checkpoint) {
            let with_projection = encoder == "text_encoder_2";
            let model = build(checkpoint, encoder, dialect::text_encoder_key, dtype, |config, w| {
                ClipTextModel::new(encoder, &ClipTextConfig::from_json(encoder, config)?, w, with_projection)
            });
            for call in 0..2 {
                let name = |tensor: &str| format!("{tap}.{call}/{tensor}");
                let ids = input(&name("input_ids")).to_dtype(DType::U32).unwrap();
                let output = model.forward(&ids, TextEnd::OfAll).unwrap();
                report.check(case, &name("penultimate"), &output.hidden_state_from_end(2).unwrap(), dtype);
                report.check(case, &name("last_hidden_state"), &output.last_hidden_state, dtype);
                report.check(
                    case,
                    &name("pooled"),
                    output.text_embeds.as_ref().unwrap_or(&output.pooled),
                    dtype,
                );
            }
        }
        assert!(report.rows.len() >= 4 * text_encoders(checkpoint).len());
    });
}

#[test]
fn vae_encodes_and_decodes() {
    for_each_model(|case, checkpoint, input, report, dtype| {
        let upcast = checkpoint.component("vae").unwrap().config["force_upcast"].as_bool().unwrap_or(true);
        let vae_dtype = if upcast { DType::F32 } else { dtype };
        let vae = build(checkpoint, "vae", dialect::vae_key, vae_dtype, |config, w| {
            AutoencoderKl::new(AutoencoderKlConfig::from_json("vae", config)?, w)
        });
        for call in ["vae_enc.0", "vae_enc.1"] {
            let image = input(&format!("{call}/image")).to_dtype(vae_dtype).unwrap();
            let posterior = vae.encode(&image, &Passage::default()).unwrap();
            let moments = Tensor::cat(&[&posterior.mean, &posterior.logvar], 1).unwrap();
            report.check(case, &format!("{call}/moments"), &moments, dtype);
        }
        let z = input("vae_dec/z").to_dtype(vae_dtype).unwrap();
        report.check(case, "vae_dec/image", &vae.decode(&z, &Passage::default()).unwrap(), dtype);
        assert_eq!(report.rows.len(), 3);
    });
}

#[test]
fn unet_layer_by_layer() {
    for_each_model(|case, checkpoint, input, report, dtype| {
        let unet = build(checkpoint, "unet", dialect::unet_key, dtype, |config, w| {
            UNet2DConditionModel::new(UNet2DConditionConfig::from_json("unet", config)?, w)
        });
        let input = |name: &str| input(name).to_dtype(dtype).unwrap();
        let t = case.tensor("step.0/t").to_dtype(DType::F64).unwrap().to_device(&Device::Cpu).unwrap();
        let added = case.has("cond/text_embeds").then(|| AddedConditions {
            text_embeds: input("cond/text_embeds"),
            time_ids: input("cond/time_ids"),
        });
        let mut layers = Vec::new();
        let mut tap = |name: &str, tensor: &Tensor| {
            report.check(case, &format!("unet/{name}"), tensor, dtype);
            layers.push(name.to_owned());
        };
        let context = input("cond/encoder_hidden_states");
        let output = unet
            .forward_tapped(
                &input("step.0/unet_in"),
                t.to_scalar::<f64>().unwrap(),
                &Conditions { added: added.as_ref(), ..Conditions::new(&context) },
                &mut tap,
            )
            .unwrap();
        report.check(case, "step.0/unet_out", &output, dtype);
        for layer in ["conv_in", "mid_block", "down_blocks.0", "up_blocks.0"] {
            assert!(
                layers.iter().any(|l| l.starts_with(layer)),
                "{}: no tap in {layer}: {layers:?}",
                case.name
            );
        }
    });
}
