//! CLIP's text encoder: a causal transformer over token ids, with or without the projection into the joint space.

use std::collections::BTreeMap;

use candle_core::{DType, Tensor};
use serde::Deserialize;
use serde_json::Value;

use super::encoder::{self, Activation, EncoderLayer, LayerShape};
use crate::layers::{Embedding, LayerNorm, Linear};
use crate::weights::Weights;
use crate::{Error, Result, bounds, config_json};

/// `config.json` of a `CLIPTextModel` or `CLIPTextModelWithProjection`, with transformers' names and defaults.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub struct ClipTextConfig {
    /// Entries of the token table.
    pub vocab_size: usize,
    /// Width of the hidden states.
    pub hidden_size: usize,
    /// Width within the feed-forward layers.
    pub intermediate_size: usize,
    /// Width of the joint space; read by the model with projection.
    pub projection_dim: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Heads of each attention.
    pub num_attention_heads: usize,
    /// The longest text, in tokens.
    pub max_position_embeddings: usize,
    /// `quick_gelu` or `gelu`.
    pub hidden_act: String,
    /// Epsilon of every layer norm.
    pub layer_norm_eps: f64,
    /// Whose position the pooled output is taken from; 2 is an old mistake that every published checkpoint keeps and
    /// means "the greatest id".
    pub eos_token_id: u32,
    /// Keys that are not in the mathematics, or not known.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

impl Default for ClipTextConfig {
    fn default() -> Self {
        Self {
            vocab_size: 49408,
            hidden_size: 512,
            intermediate_size: 2048,
            projection_dim: 512,
            num_hidden_layers: 12,
            num_attention_heads: 8,
            max_position_embeddings: 77,
            hidden_act: "quick_gelu".into(),
            layer_norm_eps: 1e-5,
            eos_token_id: 49407,
            other: BTreeMap::new(),
        }
    }
}

impl ClipTextConfig {
    /// Reads and checks the `config.json` of `component`.
    ///
    /// # Errors
    /// [`Error::Config`] when it is no such configuration, [`Error::Unsupported`] naming the first key or value that
    /// is not implemented.
    pub fn from_json(component: &str, json: &Value) -> Result<Self> {
        let config: Self = config_json::read(component, json)?;
        Activation::read(component, &config.hidden_act)?;
        encoder::check_other(component, &config.other, "CLIPTextConfig")?;
        bounds::check(
            component,
            [
                ("vocab_size", config.vocab_size, bounds::TOKENS),
                ("hidden_size", config.hidden_size, bounds::WIDTH),
                ("intermediate_size", config.intermediate_size, bounds::INNER_WIDTH),
                ("projection_dim", config.projection_dim, bounds::WIDTH),
                ("num_hidden_layers", config.num_hidden_layers, bounds::LAYERS),
                ("max_position_embeddings", config.max_position_embeddings, bounds::POSITIONS),
            ],
        )?;
        encoder::check_heads(component, config.hidden_size, config.num_attention_heads)?;
        Ok(config)
    }
}

/// What the text encoder gives.
#[derive(Clone)]
pub struct ClipTextOutput {
    /// The embeddings and then every layer's output, `(B,N,D)` each, before the final norm.
    pub hidden_states: Vec<Tensor>,
    /// The last layer's output after the final norm, `(B,N,D)`.
    pub last_hidden_state: Tensor,
    /// `last_hidden_state` at the end of the text, `(B,D)`.
    pub pooled: Tensor,
    /// `pooled` projected into the joint space, `(B,P)`, if the model has a projection.
    pub text_embeds: Option<Tensor>,
}

impl ClipTextOutput {
    /// `hidden_states[-from_end]`: 1 is the last layer's output, 2 the penultimate one's.
    ///
    /// # Errors
    /// There are not so many layers.
    pub fn hidden_state_from_end(&self, from_end: usize) -> Result<Tensor> {
        let count = self.hidden_states.len();
        let index = count.checked_sub(from_end).filter(|&i| i < count);
        index.map(|i| self.hidden_states[i].clone()).ok_or_else(|| {
            let message = format!(
                "{} layers can't be left out of {}",
                from_end.saturating_sub(1),
                count.saturating_sub(1)
            );
            Error::Tensor(candle_core::Error::Msg(message))
        })
    }
}

/// Where a text that holds added tokens ends, for a configuration whose `eos_token_id` is 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextEnd {
    /// At the greatest id of the token table proper, as if there were no added tokens (stable-diffusion-webui).
    OfTable,
    /// At the greatest id of all, which is an added token wherever there is one (transformers).
    OfAll,
}

/// The text encoder.
pub struct ClipTextModel {
    token_embedding: Embedding,
    /// Rows behind the table's last: (tokens, width).
    added_tokens: Option<Tensor>,
    position_embedding: Embedding,
    layers: Vec<EncoderLayer>,
    final_layer_norm: LayerNorm,
    text_projection: Option<Linear>,
    eos_token_id: u32,
}

impl ClipTextModel {
    /// Reads the network from the root of its checkpoint; `with_projection` for `CLIPTextModelWithProjection`.
    ///
    /// # Errors
    /// A configuration value that is not implemented. Missing tensors are for [`Weights::finish`].
    pub fn new(component: &str, config: &ClipTextConfig, w: &Weights, with_projection: bool) -> Result<Self> {
        let shape = LayerShape {
            width: config.hidden_size,
            inner: config.intermediate_size,
            heads: config.num_attention_heads,
            eps: config.layer_norm_eps,
            activation: Activation::read(component, &config.hidden_act)?,
        };
        let model = w.sub("text_model");
        let embeddings = model.sub("embeddings");
        // A table of 0, 1, 2, ... that old checkpoints carry along.
        embeddings.ignore("position_ids");
        let width = config.hidden_size;
        let layers = model.sub("encoder").sub("layers");
        Ok(Self {
            token_embedding: Embedding::new(config.vocab_size, width, &embeddings.sub("token_embedding"))?,
            added_tokens: None,
            position_embedding: Embedding::new(
                config.max_position_embeddings,
                width,
                &embeddings.sub("position_embedding"),
            )?,
            layers: (0..config.num_hidden_layers)
                .map(|i| EncoderLayer::new(shape, &layers.sub(i)))
                .collect::<Result<_>>()?,
            final_layer_norm: LayerNorm::new(width, config.layer_norm_eps, &model.sub("final_layer_norm"))?,
            text_projection: with_projection
                .then(|| Linear::new(width, config.projection_dim, false, &w.sub("text_projection")))
                .transpose()?,
            eos_token_id: config.eos_token_id,
        })
    }

    /// The id of the first added token: the length of the token table.
    ///
    /// # Errors
    /// None in practice; the table is a matrix.
    pub fn vocab_size(&self) -> Result<usize> {
        Ok(self.token_embedding.weight().dim(0)?)
    }

    /// The width of a token's vector.
    ///
    /// # Errors
    /// None in practice; the table is a matrix.
    pub fn hidden_size(&self) -> Result<usize> {
        Ok(self.token_embedding.weight().dim(1)?)
    }

    /// Puts `vectors` (tokens, `hidden_size`) behind the table's last row, in place of those that stood there.
    ///
    /// # Errors
    /// Their width is not the table's.
    pub fn set_added_tokens(&mut self, vectors: Option<&Tensor>) -> Result<()> {
        let table = self.token_embedding.weight();
        let added = vectors.map(|vectors| {
            let (_, width) = vectors.dims2()?;
            if width != table.dim(1)? {
                let message = format!("vectors of width {width} for tokens of width {}", table.dim(1)?);
                return Err(Error::Tensor(candle_core::Error::Msg(message)));
            }
            Ok(vectors.to_dtype(table.dtype())?.to_device(table.device())?)
        });
        self.added_tokens = added.transpose()?;
        Ok(())
    }

    /// `ids` (B,N) of `u32` below `vocab_size` and the added tokens, with N up to `max_position_embeddings`.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] for a token or a length that the tables don't have; a device would read past their ends.
    pub fn forward(&self, ids: &Tensor, end: TextEnd) -> Result<ClipTextOutput> {
        let (_, count) = ids.dims2()?;
        self.check_ids(ids, count)?;
        let positions = self.position_embedding.weight().narrow(0, 0, count)?;
        let mut x = self.embed(ids)?.broadcast_add(&positions)?; // (B,N,D)
        let mask = causal_mask(count, &x)?;
        let mut hidden_states = vec![x.clone()];
        for layer in &self.layers {
            x = layer.forward(&x, Some(&mask))?;
            hidden_states.push(x.clone());
        }
        let last_hidden_state = self.final_layer_norm.forward(&x)?;
        let pooled = self.pool(ids, &last_hidden_state, end)?;
        let text_embeds = self.text_projection.as_ref().map(|p| p.forward(&pooled)).transpose()?;
        Ok(ClipTextOutput { hidden_states, last_hidden_state, pooled, text_embeds })
    }

    /// The norm after the last layer, for hidden states that are taken from before it.
    pub fn final_layer_norm(&self, x: &Tensor) -> Result<Tensor> {
        self.final_layer_norm.forward(x)
    }

    /// `(B,N)` to `(B,N,D)`.
    fn embed(&self, ids: &Tensor) -> Result<Tensor> {
        let entries = self.vocab_size()? as u32;
        let Some(added) = &self.added_tokens else { return self.token_embedding.forward(ids) };
        let all = ids.flatten_all()?.to_vec1::<u32>()?;
        let (shape, device) = (ids.shape(), ids.device());
        let of_table = all.iter().map(|&id| if id < entries { id } else { 0 }).collect();
        let of_table = self.token_embedding.forward(&Tensor::from_vec::<_, u32>(of_table, shape, device)?)?;
        // The looked-up states and the added rows, one below the other; then each from where it stands.
        let rows = Tensor::cat(&[&of_table.flatten_to(1)?, added], 0)?;
        let places: Vec<u32> = (0u32..)
            .zip(&all)
            .map(|(at, &id)| if id < entries { at } else { all.len() as u32 + (id - entries) })
            .collect();
        let places = Tensor::from_vec(places, all.len(), device)?;
        Ok(rows.index_select(&places, 0)?.reshape(of_table.shape())?)
    }

    fn check_ids(&self, ids: &Tensor, count: usize) -> Result<()> {
        let added = self.added_tokens.as_ref().map_or(Ok(0), |rows| rows.dim(0))?;
        let entries = self.vocab_size()? + added;
        let longest = self.position_embedding.weight().dim(0)?;
        if count > longest {
            return Err(Error::Tokenizer(format!(
                "a text has {count} tokens; the text encoder reads up to {longest}"
            )));
        }
        match ids.flatten_all()?.to_vec1::<u32>()?.into_iter().find(|&id| id as usize >= entries) {
            None => Ok(()),
            Some(id) => Err(Error::Tokenizer(format!(
                "token {id} is beyond the {entries} that the text encoder knows"
            ))),
        }
    }

    /// Each text's state at its end-of-text token: `(B,N,D)` to `(B,D)`.
    fn pool(&self, ids: &Tensor, states: &Tensor, end: TextEnd) -> Result<Tensor> {
        let entries = self.vocab_size()? as u32;
        let mut rows = ids.to_vec2::<u32>()?;
        if end == TextEnd::OfTable {
            rows.iter_mut().flatten().for_each(|id| *id = if *id < entries { *id } else { 0 });
        }
        let picked: Vec<Tensor> = rows
            .iter()
            .enumerate()
            .map(|(b, row)| Ok(states.get(b)?.get(end_of_text(row, self.eos_token_id))?))
            .collect::<Result<_>>()?;
        Ok(Tensor::stack(&picked, 0)?)
    }
}

/// The first position of the end-of-text token; of the greatest id where the configuration says 2.
fn end_of_text(ids: &[u32], eos_token_id: u32) -> usize {
    let eos = if eos_token_id == 2 { ids.iter().copied().max().unwrap_or(0) } else { eos_token_id };
    ids.iter().position(|&id| id == eos).unwrap_or(0)
}

/// `(1,1,N,N)`: 0 where a token may look, minus infinity at what comes after it.
fn causal_mask(count: usize, like: &Tensor) -> Result<Tensor> {
    let values: Vec<f32> = (0..count)
        .flat_map(|query| (0..count).map(move |key| if key > query { f32::NEG_INFINITY } else { 0.0 }))
        .collect();
    Ok(Tensor::from_vec(values, (1, 1, count, count), like.device())?.to_dtype(DType::F32)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;
    use std::collections::HashMap;

    #[test]
    fn the_end_of_text_is_found_as_transformers_does() {
        assert_eq!(end_of_text(&[49406, 320, 49407, 49407], 2), 2);
        assert_eq!(end_of_text(&[49406, 320, 49407, 0], 49407), 2);
        assert_eq!(end_of_text(&[5, 6, 7], 49407), 0);
    }

    #[test]
    fn what_is_not_implemented_is_refused_by_name() {
        let refused = |json| ClipTextConfig::from_json("text_encoder", &json).unwrap_err().to_string();
        assert!(refused(json!({"hidden_act": "relu"})).contains("hidden_act is relu"));
        assert!(refused(json!({"rope_theta": 10000})).contains("rope_theta is 10000"));
        assert!(refused(json!({"hidden_size": 65})).contains("num_attention_heads 8"));
    }

    #[test]
    fn sizes_that_no_network_has_are_refused_before_anything_is_allocated() {
        let refused = |json| ClipTextConfig::from_json("text_encoder", &json).unwrap_err().to_string();
        assert!(
            refused(json!({"vocab_size": 1e15 as u64})).contains("vocab_size is 1000000000000000; allowed")
        );
        assert!(refused(json!({"hidden_size": 0})).contains("hidden_size is 0; allowed: 1 to 8192"));
        assert!(refused(json!({"num_hidden_layers": 1e9})).contains("num_hidden_layers"));
    }

    #[test]
    fn ids_beyond_the_tables_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("empty.safetensors");
        candle_core::safetensors::save(&HashMap::<String, Tensor>::new(), &file).unwrap();
        let cpu = candle_core::Device::Cpu;
        let w = Weights::open("text_encoder", &[file], str::to_owned, DType::F32, &cpu).unwrap();
        let config = json!({
            "vocab_size": 10, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
            "num_attention_heads": 2, "max_position_embeddings": 4,
        });
        let config = ClipTextConfig::from_json("text_encoder", &config).unwrap();
        let model = ClipTextModel::new("text_encoder", &config, &w, false).unwrap();
        let run = |ids: &[u32]| {
            model
                .forward(&Tensor::new(ids, &cpu).unwrap().unsqueeze(0).unwrap(), TextEnd::OfTable)
                .map(|_| ())
        };
        run(&[0, 9, 9, 9]).unwrap();
        let error = run(&[0, 10, 9, 9]).unwrap_err().to_string();
        assert!(error.contains("token 10 is beyond the 10"), "{error}");
        let error = run(&[0; 5]).unwrap_err().to_string();
        assert!(error.contains("has 5 tokens; the text encoder reads up to 4"), "{error}");
    }

    #[test]
    fn added_tokens_stand_behind_the_table() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("table.safetensors");
        let cpu = candle_core::Device::Cpu;
        let table = Tensor::arange(0f32, 80.0, &cpu).unwrap().reshape((10, 8)).unwrap();
        let name = "text_model.embeddings.token_embedding.weight".to_owned();
        candle_core::safetensors::save(&HashMap::from([(name, table.clone())]), &file).unwrap();
        let w = Weights::open("text_encoder", &[file], str::to_owned, DType::F32, &cpu).unwrap();
        let config = json!({
            "vocab_size": 10, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
            "num_attention_heads": 2, "max_position_embeddings": 8, "eos_token_id": 2,
        });
        let config = ClipTextConfig::from_json("text_encoder", &config).unwrap();
        let mut model = ClipTextModel::new("text_encoder", &config, &w, false).unwrap();
        let ids = Tensor::new(&[[1u32, 11, 10, 9, 3]], &cpu).unwrap();
        assert!(model.forward(&ids, TextEnd::OfAll).is_err());
        let added = Tensor::new(&[[-1f32; 8], [-2.0; 8]], &cpu).unwrap();
        model.set_added_tokens(Some(&added)).unwrap();
        let output = model.forward(&ids, TextEnd::OfAll).unwrap();
        let first: Vec<f32> = output.hidden_states[0]
            .get(0)
            .unwrap()
            .narrow(1, 0, 1)
            .unwrap()
            .flatten_all()
            .unwrap()
            .to_vec1()
            .unwrap();
        assert_eq!(first, [8.0, -2.0, -1.0, 72.0, 24.0]);
        assert_eq!(end_of_text(&[1, 11, 10, 9, 3], 2), 1);
        let wrong = Tensor::new(&[[0f32; 4]], &cpu).unwrap();
        assert!(model.set_added_tokens(Some(&wrong)).unwrap_err().to_string().contains("width 4"));
        model.set_added_tokens(None).unwrap();
        assert!(model.forward(&ids, TextEnd::OfTable).is_err());
    }

    #[test]
    fn the_mask_hides_what_comes_after() {
        let like = Tensor::zeros((1, 3, 4), DType::F32, &candle_core::Device::Cpu).unwrap();
        let mask = causal_mask(3, &like).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let hidden: Vec<bool> = mask.iter().map(|x| x.is_infinite()).collect();
        assert_eq!(hidden, [false, true, true, false, false, true, false, false, false]);
    }
}
