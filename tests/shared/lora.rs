//! Small LoRAs and embeddings for the tiny SD 1.5 checkpoint, as bytes of their files. Shared by the tests of the command
//! line and of the server.

use std::collections::BTreeMap;

use safetensors::serialize;
use safetensors::tensor::{Dtype, TensorView};

/// Rank 2 on the attention of the first block, in kohya's names; large, so that it shows after three steps.
pub(crate) fn for_tiny_sd15() -> Vec<u8> {
    kohya("lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_v", 8, 32)
}

/// A module that no network of it has.
pub(crate) fn for_another_model() -> Vec<u8> {
    kohya("lora_te2_text_model_encoder_layers_0_self_attn_q_proj", 40, 40)
}

fn kohya(module: &str, rows: usize, columns: usize) -> Vec<u8> {
    const RANK: usize = 2;
    let wave = |count: usize, phase: f32| -> Vec<u8> {
        (0..count).flat_map(|i| (i as f32 * 0.7 + phase).sin().to_le_bytes()).collect()
    };
    let tensors = BTreeMap::from([
        (format!("{module}.lora_down.weight"), (vec![RANK, columns], wave(RANK * columns, 0.3))),
        (format!("{module}.lora_up.weight"), (vec![rows, RANK], wave(rows * RANK, 1.1))),
        (format!("{module}.alpha"), (vec![], 2.0_f32.to_le_bytes().to_vec())),
    ]);
    let views = tensors.iter().map(|(name, (shape, data))| {
        (name.clone(), TensorView::new(Dtype::F32, shape.clone(), data).unwrap())
    });
    serialize(views, None).unwrap()
}

/// A textual inversion of two vectors under this key.
pub(crate) fn embedding(key: &str, width: usize) -> Vec<u8> {
    let data: Vec<u8> = (0..2 * width).flat_map(|i| (i as f32 * 0.37).sin().to_le_bytes()).collect();
    let view = TensorView::new(Dtype::F32, vec![2, width], &data).unwrap();
    serialize([(key, view)], None).unwrap()
}
