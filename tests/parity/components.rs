//! Each network by itself, fed with the reference's own inputs.

use candle_core::{DType, Device, Tensor};
use infill_models::{Checkpoint, dialect};
use infill_networks::clip::text::{ClipTextConfig, ClipTextModel};
use infill_networks::tokenizer::ClipTokenizer;
use infill_networks::unet::{AddedConditions, UNet2DConditionModel};
use infill_networks::vae::AutoencoderKl;
use infill_networks::weights::Weights;
use serde::de::DeserializeOwned;

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
fn build<C: DeserializeOwned, N>(
    checkpoint: &Checkpoint,
    component: &str,
    rename: fn(&str) -> String,
    dtype: DType,
    new: impl FnOnce(C, &Weights) -> infill_networks::Result<N>,
) -> N {
    let (device, _) = device_and_dtype();
    let part = checkpoint.component(component).unwrap_or_else(|| panic!("no {component}"));
    let config = serde_json::from_value(part.config.clone()).unwrap();
    let weights = Weights::open(component, &part.weight_files, rename, dtype, &device).unwrap();
    let network = new(config, &weights).unwrap();
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

#[test]
fn tokens_and_text_encoders() {
    for_each_model(|case, checkpoint, _, report, dtype| {
        for (tap, encoder, tokenizer) in
            [("te1", "text_encoder", "tokenizer"), ("te2", "text_encoder_2", "tokenizer_2")]
        {
            if checkpoint.component(encoder).is_none() {
                continue;
            }
            let (device, _) = device_and_dtype();
            let tokenizer = ClipTokenizer::open(&checkpoint.folder(tokenizer).unwrap()).unwrap();
            let with_projection = encoder == "text_encoder_2";
            let model =
                build(checkpoint, encoder, dialect::text_encoder_key, dtype, |config: ClipTextConfig, w| {
                    ClipTextModel::new(encoder, config, w, with_projection)
                });
            let prompts = ["a photo of a tiger sitting on a bench, it's 3 o'clock", "blurry, low quality"];
            for (call, prompt) in prompts.iter().enumerate() {
                let ids = tokenizer.encode_padded(prompt).unwrap().ids;
                let ids = Tensor::from_slice(&ids, (1, ids.len()), &device).unwrap();
                report.check(case, &format!("{tap}.{call}/input_ids"), &ids, dtype);
                let output = model.forward(&ids).unwrap();
                let penultimate = &output.hidden_states[output.hidden_states.len() - 2];
                report.check(case, &format!("{tap}.{call}/penultimate"), penultimate, dtype);
                report.check(
                    case,
                    &format!("{tap}.{call}/last_hidden_state"),
                    &output.last_hidden_state,
                    dtype,
                );
                let pooled = output.text_embeds.as_ref().unwrap_or(&output.pooled);
                report.check(case, &format!("{tap}.{call}/pooled"), pooled, dtype);
            }
        }
        let encoders = case.names().iter().filter(|n| n.ends_with(".0/input_ids")).count();
        assert!(report.rows.len() >= 6 * encoders, "{}: {} tensors compared", case.name, report.rows.len());
    });
}

#[test]
fn vae_encodes_and_decodes() {
    for_each_model(|case, checkpoint, input, report, dtype| {
        let upcast = checkpoint.component("vae").unwrap().config["force_upcast"].as_bool().unwrap_or(true);
        let vae_dtype = if upcast { DType::F32 } else { dtype };
        let vae = build(checkpoint, "vae", dialect::vae_key, vae_dtype, AutoencoderKl::new);
        for call in ["vae_enc.0", "vae_enc.1"] {
            let image = input(&format!("{call}/image")).to_dtype(vae_dtype).unwrap();
            let posterior = vae.encode(&image).unwrap();
            let moments = Tensor::cat(&[&posterior.mean, &posterior.logvar], 1).unwrap();
            report.check(case, &format!("{call}/moments"), &moments, dtype);
        }
        let z = input("vae_dec/z").to_dtype(vae_dtype).unwrap();
        report.check(case, "vae_dec/image", &vae.decode(&z).unwrap(), dtype);
        assert_eq!(report.rows.len(), 3);
    });
}

#[test]
fn unet_layer_by_layer() {
    for_each_model(|case, checkpoint, input, report, dtype| {
        let unet = build(checkpoint, "unet", dialect::unet_key, dtype, UNet2DConditionModel::new);
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
                &context,
                added.as_ref(),
                Some(&mut tap),
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
