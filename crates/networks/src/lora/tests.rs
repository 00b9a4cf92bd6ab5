#![allow(clippy::unwrap_used, clippy::panic)]
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};

use super::key::{Key, Part, Spelling, parse};
use super::*;
use crate::weights::Weights;

fn path(network: Option<Network>, module: &str, part: Part) -> Option<Key> {
    Some(Key { network, module: Spelling::Path(module.into()), part })
}

#[test]
fn every_dialect_is_taken_apart() {
    use Network::{TextEncoder, TextEncoder2, Unet};
    let attention = "down_blocks.1.attentions.0.transformer_blocks.0.attn1";
    let flat = attention.replace('.', "_");
    for (name, network, module, part) in [
        (format!("lora_unet_{flat}_to_q.lora_down.weight"), Some(Unet), format!("{flat}_to_q"), Part::Down),
        (format!("lora_unet_{flat}_to_q.alpha"), Some(Unet), format!("{flat}_to_q"), Part::Alpha),
        (format!("lycoris_{flat}_to_q.hada_w1_a"), Some(Unet), format!("{flat}_to_q"), Part::HadaW1A),
        (format!("unet.{attention}.to_q.lora_A.weight"), Some(Unet), format!("{attention}.to_q"), Part::Down),
        (
            format!("unet.{attention}.to_q.lora_B.default.weight"),
            Some(Unet),
            format!("{attention}.to_q"),
            Part::Up,
        ),
        (
            format!("base_model.model.{attention}.to_q.lora_A.weight"),
            None,
            format!("{attention}.to_q"),
            Part::Down,
        ),
        (
            format!("unet.base_model.model.{attention}.to_q.lora_magnitude_vector"),
            Some(Unet),
            format!("{attention}.to_q"),
            Part::Magnitude,
        ),
        (
            format!("unet.{attention}.to_q.lora_magnitude_vector.default.weight"),
            Some(Unet),
            format!("{attention}.to_q"),
            Part::Magnitude,
        ),
        (
            format!("unet.{attention}.processor.to_out_lora.up.weight"),
            Some(Unet),
            format!("{attention}.to_out"),
            Part::Up,
        ),
        (
            format!("{attention}.processor.to_q_lora.down.weight"),
            None,
            format!("{attention}.to_q"),
            Part::Down,
        ),
        (
            format!("unet.{attention}.to_out.0.lora.down.weight"),
            Some(Unet),
            format!("{attention}.to_out.0"),
            Part::Down,
        ),
        (
            "text_encoder_2.text_model.encoder.layers.0.mlp.fc1.lora_linear_layer.up.weight".into(),
            Some(TextEncoder2),
            "text_model.encoder.layers.0.mlp.fc1".into(),
            Part::Up,
        ),
        (
            "text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora_linear_layer.alpha".into(),
            Some(TextEncoder),
            "text_model.encoder.layers.0.self_attn.q_proj".into(),
            Part::Alpha,
        ),
        (
            "lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_up.weight".into(),
            Some(TextEncoder),
            "text_model_encoder_layers_0_mlp_fc1".into(),
            Part::Up,
        ),
        (
            "lora_te_text_model_encoder_layers_0_mlp_fc1.lokr_w2_b".into(),
            Some(TextEncoder),
            "text_model_encoder_layers_0_mlp_fc1".into(),
            Part::LokrW2B,
        ),
        (
            "diffusion_model.input_blocks.4.1.proj_in.lora_up.weight".into(),
            Some(Unet),
            "input_blocks.4.1.proj_in".into(),
            Part::Up,
        ),
        ("unet.conv_in.lora_B.bias".into(), Some(Unet), "conv_in".into(), Part::UpBias),
    ] {
        assert_eq!(parse(&name), path(network, &module, part), "{name}");
    }
    let numbered = Key { network: Some(Unet), module: Spelling::Number(17), part: Part::Up };
    assert_eq!(parse("unet:17:up"), Some(numbered));
}

#[test]
fn what_is_no_name_of_a_lora_is_left_alone() {
    for name in [
        "",
        ".",
        "..",
        "alpha",
        ".alpha",
        "lora_A.weight",
        "unet:1",
        "unet:x:up",
        "unet:1:up:2",
        "vae:1:up",
        "<s1>",
        "lora_unet_a.b.lora_up.weight",
        "unet.a.oft_blocks",
        "unet.a.lora_up",
        "unet.a.down.weight",
        "a.b.weight",
        "unet.a.lora_A.weight.weight",
        "text_encoder.",
        "unet..alpha",
    ] {
        assert_eq!(parse(name), None, "{name}");
    }
}

/// A UNet's and two text encoders' modules, of the few kinds that names are made for.
struct Model {
    _dir: tempfile::TempDir,
    files: BTreeMap<Network, PathBuf>,
}

const WIDTH: usize = 8;
const WORDS: usize = 6;

fn numbers(shape: &[usize], seed: usize) -> Tensor {
    let count = shape.iter().product::<usize>();
    let values: Vec<f32> =
        (0..count).map(|i| (((i + 1) * (2 * seed + 3) * 7919) % 1009) as f32 / 504.5 - 1.0).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

fn save(path: &Path, tensors: &[(String, Tensor)]) {
    let tensors: HashMap<&str, Tensor> = tensors.iter().map(|(n, t)| (n.as_str(), t.clone())).collect();
    candle_core::safetensors::save(&tensors, path).unwrap();
}

fn unet_tensors(words: usize) -> Vec<(String, Vec<usize>)> {
    let mut tensors = Vec::new();
    let mut linear = |name: String, rows: usize, columns: usize| {
        tensors.push((format!("{name}.weight"), vec![rows, columns]));
    };
    linear("time_embedding.linear_1".into(), WIDTH, WIDTH);
    linear("add_embedding.linear_2".into(), WIDTH, WIDTH);
    let places = ["down_blocks.0", "down_blocks.1", "mid_block", "up_blocks.0", "up_blocks.1"];
    for place in places {
        let resnets = if place.starts_with("up") { 3 } else { 2 };
        for layer in 0..resnets {
            linear(format!("{place}.resnets.{layer}.time_emb_proj"), WIDTH, WIDTH);
            // The last level has no attention.
            if place == "down_blocks.1" || place == "up_blocks.0" || place == "mid_block" && layer == 0 {
                let block = format!("{place}.attentions.{layer}.transformer_blocks.0");
                for (attention, width) in [("attn1", WIDTH), ("attn2", words)] {
                    linear(format!("{block}.{attention}.to_q"), WIDTH, WIDTH);
                    linear(format!("{block}.{attention}.to_k"), WIDTH, width);
                    linear(format!("{block}.{attention}.to_v"), WIDTH, width);
                    linear(format!("{block}.{attention}.to_out.0"), WIDTH, WIDTH);
                }
                linear(format!("{block}.ff.net.0.proj"), 8 * WIDTH, WIDTH);
                linear(format!("{block}.ff.net.2"), WIDTH, 4 * WIDTH);
            }
        }
    }
    for name in [
        "conv_in",
        "down_blocks.0.downsamplers.0.conv",
        "up_blocks.0.upsamplers.0.conv",
        "up_blocks.0.resnets.0.conv1",
        "up_blocks.1.resnets.0.conv_shortcut",
        "up_blocks.1.upsamplers.0.conv",
    ] {
        let side = if name.ends_with("shortcut") { 1 } else { 3 };
        tensors.push((format!("{name}.weight"), vec![WIDTH, WIDTH, side, side]));
        tensors.push((format!("{name}.bias"), vec![WIDTH]));
    }
    tensors.push(("down_blocks.0.resnets.0.norm1.weight".into(), vec![WIDTH]));
    tensors.push(("down_blocks.0.resnets.0.norm1.bias".into(), vec![WIDTH]));
    tensors
}

fn text_tensors() -> Vec<(String, Vec<usize>)> {
    let mut tensors = vec![("text_projection.weight".to_owned(), vec![WORDS, WORDS])];
    for layer in 0..2 {
        let layer = format!("text_model.encoder.layers.{layer}");
        for name in ["q_proj", "k_proj", "v_proj", "out_proj"] {
            tensors.push((format!("{layer}.self_attn.{name}.weight"), vec![WORDS, WORDS]));
        }
        tensors.push((format!("{layer}.mlp.fc1.weight"), vec![4 * WORDS, WORDS]));
    }
    tensors
}

impl Model {
    fn new(networks: &[Network]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut files = BTreeMap::new();
        for network in networks {
            let shapes = if *network == Network::Unet { unet_tensors(WORDS) } else { text_tensors() };
            let tensors = shapes.into_iter().enumerate().map(|(i, (name, shape))| (name, numbers(&shape, i)));
            let path = dir.path().join(network.component());
            save(&path, &tensors.collect::<Vec<_>>());
            files.insert(*network, path);
        }
        Self { _dir: dir, files }
    }

    fn weights(&self, network: Network) -> Weights {
        let files = [self.files[&network].clone()];
        Weights::open(network.component(), &files, str::to_owned, DType::F32, &Device::Cpu).unwrap()
    }

    fn layout(&self) -> ModelLayout {
        let mut layout = ModelLayout::default();
        for network in self.files.keys() {
            layout.add(*network, &self.weights(*network));
        }
        layout
    }

    /// The changes of a file with these tensors.
    fn changes(
        &self,
        tensors: &[(String, Tensor)],
        texts: &BTreeMap<String, String>,
        scale: f64,
    ) -> std::result::Result<BTreeMap<Network, Changes>, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("concept.safetensors");
        save(&path, tensors);
        let changes = Lora::open(&path, texts).and_then(|lora| lora.changes(&self.layout(), scale));
        changes.map_err(|e| e.to_string())
    }

    /// A tensor as it is read with changes.
    fn read(&self, network: Network, name: &str, changes: &Changes) -> crate::Result<Tensor> {
        let weights = self.weights(network);
        let shape = weights.shapes()[name].clone();
        weights.with_changes(changes.clone())?.get(name, &shape)
    }
}

fn pair(down: &str, up: &str, rows: usize, columns: usize) -> [(String, Tensor); 2] {
    [(down.into(), numbers(&[2, columns], 5)), (up.into(), numbers(&[rows, 2], 6))]
}

fn none() -> BTreeMap<String, String> {
    BTreeMap::new()
}

#[test]
fn every_spelling_finds_its_module() {
    let model = Model::new(&[Network::Unet, Network::TextEncoder]);
    let block = "transformer_blocks.0";
    for (down, up, network, module) in [
        (
            "lora_unet_input_blocks_4_1_{b}_attn1_to_q.lora_down.weight",
            ".lora_up.weight",
            Network::Unet,
            format!("down_blocks.1.attentions.0.{block}.attn1.to_q"),
        ),
        (
            "lora_unet_middle_block_1_{b}_attn1_to_out_0.lora_down.weight",
            ".lora_up.weight",
            Network::Unet,
            format!("mid_block.attentions.0.{block}.attn1.to_out.0"),
        ),
        (
            "lora_unet_output_blocks_2_1_{b}_attn2_to_q.lora_down.weight",
            ".lora_up.weight",
            Network::Unet,
            format!("up_blocks.0.attentions.2.{block}.attn2.to_q"),
        ),
        (
            "lora_unet_input_blocks_1_0_emb_layers_1.lora_down.weight",
            ".lora_up.weight",
            Network::Unet,
            "down_blocks.0.resnets.0.time_emb_proj".into(),
        ),
        (
            "lora_unet_middle_block_2_emb_layers_1.lora_down.weight",
            ".lora_up.weight",
            Network::Unet,
            "mid_block.resnets.1.time_emb_proj".into(),
        ),
        (
            "lora_unet_output_blocks_5_0_emb_layers_1.lora_down.weight",
            ".lora_up.weight",
            Network::Unet,
            "up_blocks.1.resnets.2.time_emb_proj".into(),
        ),
        (
            "lora_unet_time_embed_0.lora_down.weight",
            ".lora_up.weight",
            Network::Unet,
            "time_embedding.linear_1".into(),
        ),
        (
            "lora_unet_label_emb_0_2.lora_down.weight",
            ".lora_up.weight",
            Network::Unet,
            "add_embedding.linear_2".into(),
        ),
        (
            "lora_unet_up_blocks_0_attentions_1_{b}_attn1_to_v.lora_down.weight",
            ".lora_up.weight",
            Network::Unet,
            format!("up_blocks.0.attentions.1.{block}.attn1.to_v"),
        ),
        (
            "down_blocks.1.attentions.0.{b.}.attn1.processor.to_out_lora.down.weight",
            ".up.weight",
            Network::Unet,
            format!("down_blocks.1.attentions.0.{block}.attn1.to_out.0"),
        ),
        (
            "text_encoder.encoder.layers.1.self_attn.q_proj.lora_A.weight",
            ".lora_B.weight",
            Network::TextEncoder,
            "text_model.encoder.layers.1.self_attn.q_proj".into(),
        ),
        (
            "text_encoder.text_model.encoder.layers.1.self_attn.to_out_lora.down.weight",
            ".up.weight",
            Network::TextEncoder,
            "text_model.encoder.layers.1.self_attn.out_proj".into(),
        ),
        (
            "lora_te_text_model_encoder_layers_0_self_attn_k_proj.lora_down.weight",
            ".lora_up.weight",
            Network::TextEncoder,
            "text_model.encoder.layers.0.self_attn.k_proj".into(),
        ),
    ] {
        let down = down.replace("{b}", &block.replace('.', "_")).replace("{b.}", block);
        let stem = ["lora_down.weight", "down.weight", "lora_A.weight"]
            .iter()
            .find_map(|end| down.strip_suffix(end));
        let up = format!("{}{}", stem.unwrap().trim_end_matches('.'), up);
        let side = if network == Network::Unet { WIDTH } else { WORDS };
        let changes =
            model.changes(&pair(&down, &up, side, side), &none(), 1.0).unwrap_or_else(|e| panic!("{e}"));
        let names: Vec<&str> = changes[&network].names().collect();
        assert_eq!(names, [format!("{module}.weight")], "{down}");
    }
    // Convolutions, with and without an attention before them.
    for (name, module) in [
        ("lora_unet_input_blocks_0_0", "conv_in"),
        ("lora_unet_input_blocks_3_0_op", "down_blocks.0.downsamplers.0.conv"),
        ("lora_unet_output_blocks_2_2_conv", "up_blocks.0.upsamplers.0.conv"),
        ("lora_unet_output_blocks_5_1_conv", "up_blocks.1.upsamplers.0.conv"),
        ("lora_unet_output_blocks_0_0_in_layers_2", "up_blocks.0.resnets.0.conv1"),
        ("lora_unet_output_blocks_3_0_skip_connection", "up_blocks.1.resnets.0.conv_shortcut"),
    ] {
        let side = if module.ends_with("shortcut") { 1 } else { 3 };
        let tensors = [
            (format!("{name}.lora_down.weight"), numbers(&[2, WIDTH, side, side], 1)),
            (format!("{name}.lora_up.weight"), numbers(&[WIDTH, 2, 1, 1], 2)),
        ];
        let changes = model.changes(&tensors, &none(), 1.0).unwrap_or_else(|e| panic!("{e}"));
        let names: Vec<&str> = changes[&Network::Unet].names().collect();
        assert_eq!(names, [format!("{module}.weight")], "{name}");
    }
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

const TO_Q: &str = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q";

#[test]
fn alpha_over_rank_times_scale_is_added() {
    let model = Model::new(&[Network::Unet]);
    let [down, up] =
        pair(&format!("unet.{TO_Q}.lora_A.weight"), &format!("unet.{TO_Q}.lora_B.weight"), WIDTH, WIDTH);
    let product = up.1.matmul(&down.1).unwrap();
    let name = format!("{TO_Q}.weight");
    let plain = model.read(Network::Unet, &name, &Changes::default()).unwrap();
    let alpha = (format!("unet.{TO_Q}.alpha"), Tensor::new(3f32, &Device::Cpu).unwrap());
    let texts = |text: &str| BTreeMap::from([("lora_adapter_metadata".to_owned(), text.to_owned())]);
    let adapter = r#"{"unet.r": 2, "unet.lora_alpha": 5, "unet.alpha_pattern": {"attn2.to_q": 9}}"#;
    let patterned = r#"{"unet.lora_alpha": 5, "unet.alpha_pattern": {"attn1.to_q": 8}}"#;
    let rooted = r#"{"unet.lora_alpha": 5, "unet.use_rslora": true}"#;
    for (tensors, texts, factor) in [
        (vec![down.clone(), up.clone()], none(), 1.0),
        (vec![down.clone(), up.clone(), alpha], none(), 1.5),
        (vec![down.clone(), up.clone()], texts(adapter), 2.5),
        (vec![down.clone(), up.clone()], texts(patterned), 4.0),
        (vec![down.clone(), up.clone()], texts(rooted), 5.0 / 2f64.sqrt()),
    ] {
        let changes = model.changes(&tensors, &texts, -0.5).unwrap();
        let read = model.read(Network::Unet, &name, &changes[&Network::Unet]).unwrap();
        let expected = (&plain + (&product * (factor * -0.5)).unwrap()).unwrap();
        for (a, b) in values(&read).iter().zip(values(&expected)) {
            assert!((a - b).abs() < 1e-5, "factor {factor}: {a}, expected {b}");
        }
    }
}

/// Many LoRAs were trained on a UNet that sees latents alone: their first convolution has 4 inputs, that of one for
/// inpainting 9, of which the first 4 are the latents.
#[test]
fn the_first_convolution_of_a_plain_model_is_added_to_the_latents_inputs() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("unet");
    save(&path, &[("conv_in.weight".into(), numbers(&[WIDTH, 9, 3, 3], 1))]);
    let model = Model { _dir: dir, files: BTreeMap::from([(Network::Unet, path)]) };
    let plain = model.read(Network::Unet, "conv_in.weight", &Changes::default()).unwrap();
    let (down, up) = (numbers(&[2, 4, 3, 3], 5), numbers(&[WIDTH, 2, 1, 1], 6));
    let product = up.flatten_from(1).unwrap().matmul(&down.flatten_from(1).unwrap()).unwrap();
    let product = product.reshape((WIDTH, 4, 3, 3)).unwrap();
    let pair = [
        ("lora_unet_conv_in.lora_down.weight".to_owned(), down),
        ("lora_unet_conv_in.lora_up.weight".to_owned(), up),
    ];
    let full = [("lora_unet_conv_in.diff".to_owned(), product.clone())];
    for tensors in [&pair[..], &full] {
        let changes = model.changes(tensors, &none(), 0.5).unwrap();
        let read = model.read(Network::Unet, "conv_in.weight", &changes[&Network::Unet]).unwrap();
        let latents = (plain.narrow(1, 0, 4).unwrap() + (&product * 0.5).unwrap()).unwrap();
        for (a, b) in values(&read.narrow(1, 0, 4).unwrap()).iter().zip(values(&latents)) {
            assert!((a - b).abs() < 1e-5, "{a}, expected {b}");
        }
        let rest = |tensor: &Tensor| values(&tensor.narrow(1, 4, 5).unwrap());
        assert_eq!(rest(&read), rest(&plain));
    }
    let wide = [("lora_unet_conv_in.diff".to_owned(), numbers(&[WIDTH, 5, 3, 3], 1))];
    assert!(model.changes(&wide, &none(), 1.0).err().unwrap().contains("5, 3, 3], the model's is"));
    let lengths =
        [pair.as_slice(), &[("lora_unet_conv_in.dora_scale".to_owned(), numbers(&[1, 4, 1, 1], 2))]].concat();
    let refused = model.changes(&lengths, &none(), 1.0).err().unwrap();
    assert!(refused.contains("conv_in"), "{refused}");
}

#[test]
fn embeddings_that_are_bundled_with_a_lora_are_told_by_their_names() {
    let model = Model::new(&[Network::Unet]);
    let [down, up] =
        pair(&format!("unet.{TO_Q}.lora_A.weight"), &format!("unet.{TO_Q}.lora_B.weight"), WIDTH, WIDTH);
    let word = |name: &str| (format!("bundle_emb.{name}"), numbers(&[1, WORDS], 3));
    let tensors = [
        down,
        up,
        word("cat.string_to_param.*"),
        word("cat-2.emb_params"),
        word("toy.clip_l"),
        word("toy.clip_g"),
    ];
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("concept.safetensors");
    save(&path, &tensors);
    for lora in [Lora::open(&path, &none()), Lora::glance(&path, &none())].map(crate::Result::unwrap) {
        assert_eq!(lora.words(), ["cat-2", "cat", "toy"]);
        assert_eq!(lora.changes(&model.layout(), 1.0).unwrap().len(), 1);
    }
}

#[test]
fn a_file_that_is_written_anew_while_it_is_open_does_no_harm() {
    let model = Model::new(&[Network::Unet]);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("concept.safetensors");
    save(
        &path,
        &pair(&format!("unet.{TO_Q}.lora_A.weight"), &format!("unet.{TO_Q}.lora_B.weight"), WIDTH, WIDTH),
    );
    let changes = Lora::open(&path, &none()).unwrap().changes(&model.layout(), 1.0).unwrap();
    let name = format!("{TO_Q}.weight");
    let read = || values(&model.read(Network::Unet, &name, &changes[&Network::Unet]).unwrap());
    let before = read();
    // As a copy over it begins: what was mapped would be gone.
    std::fs::File::create(&path).unwrap();
    assert_eq!(read(), before);
}

#[test]
fn weights_of_any_format_take_a_change() {
    let dir = tempfile::tempdir().unwrap();
    let layout = |files: &[PathBuf]| {
        let weights = Weights::open("unet", files, str::to_owned, DType::F32, &Device::Cpu).unwrap();
        let mut layout = ModelLayout::default();
        layout.add(Network::Unet, &weights);
        (weights, layout)
    };
    let concept = dir.path().join("concept.safetensors");
    save(
        &concept,
        &pair(&format!("unet.{TO_Q}.lora_A.weight"), &format!("unet.{TO_Q}.lora_B.weight"), WIDTH, WIDTH),
    );
    let name = format!("{TO_Q}.weight");
    let mut read = Vec::new();
    for dtype in [DType::F32, DType::F64] {
        let file = dir.path().join(dtype.as_str());
        let tensors = unet_tensors(WORDS).into_iter().enumerate();
        let tensors = tensors.map(|(i, (name, shape))| (name, numbers(&shape, i).to_dtype(dtype).unwrap()));
        save(&file, &tensors.collect::<Vec<_>>());
        let (weights, layout) = layout(&[file]);
        let changes = Lora::open(&concept, &none()).unwrap().changes(&layout, 0.5).unwrap();
        let weights = weights.with_changes(changes[&Network::Unet].clone()).unwrap();
        read.push(values(&weights.get(&name, &[WIDTH, WIDTH]).unwrap()));
    }
    assert_eq!(read[0], read[1]);
}

#[test]
fn a_file_that_names_no_network_belongs_to_the_one_that_it_fits() {
    let model = Model::new(&[Network::TextEncoder, Network::TextEncoder2]);
    // The second encoder of SDXL is wider, and its first layers have the names of the first one's.
    let wide = |name: &str| {
        let shape = model.weights(Network::TextEncoder).shapes()[name].clone();
        shape.into_iter().map(|side| 2 * side).collect::<Vec<_>>()
    };
    let second = model.files[&Network::TextEncoder2].clone();
    let names = text_tensors().into_iter().map(|(name, _)| name).enumerate();
    save(&second, &names.map(|(i, name)| (name.clone(), numbers(&wide(&name), i))).collect::<Vec<_>>());
    let module = "base_model.model.text_model.encoder.layers.0.self_attn.q_proj";
    let named = |columns| {
        pair(&format!("{module}.lora_A.weight"), &format!("{module}.lora_B.weight"), columns, columns)
    };
    for (columns, home) in [(WORDS, Network::TextEncoder), (2 * WORDS, Network::TextEncoder2)] {
        let changes = model.changes(&named(columns), &none(), 1.0).unwrap();
        assert_eq!(changes.into_keys().collect::<Vec<_>>(), [home]);
    }
    let error = model.changes(&named(3 * WORDS), &none(), 1.0).err().unwrap();
    assert!(error.contains("does not fit this model"), "{error}");
    let alike = Model::new(&[Network::TextEncoder, Network::TextEncoder2]);
    let error = alike.changes(&named(WORDS), &none(), 1.0).err().unwrap();
    assert!(error.contains("text_encoder and text_encoder_2 alike"), "{error}");
}
