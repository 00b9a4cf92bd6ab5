//! What a job's row holds: everything that is needed to run it, now or after a crash.
//!
//! Every job is run from its row, so that the way that matters after a crash is the way of every day.

use infill_engine::VaeTileSize;
use infill_engine::scheduler::TimestepSpacing;
use infill_models::Checkpoint;
use infill_store::AssetId;
use serde_json::{Map, Value, json};

use crate::Ways;
use crate::inference::{Inputs, inference, recipe};
use crate::prepare::Prepared;
use crate::tools::Kind;

/// Where the recipe has the side of the VAE's tiles.
const VAE_TILE_SIZE: &str = "vaeTileSize";
const MATCH_COLOURS: &str = "matchColours";
const TIMESTEP_SPACING: &str = "timestepSpacing";

/// A checked call.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Order {
    /// The tool that was called.
    pub(crate) kind: Kind,
    /// Its arguments with an asset id for each picture, and all that was drawn or chosen for the call. Checked again,
    /// they mean the same.
    pub(crate) arguments: Map<String, Value>,
    /// The call as replies tell it, with asset ids in place of links.
    pub(crate) inference: Value,
    /// What the pictures carry.
    pub(crate) recipe: Map<String, Value>,
    /// The model that `arguments` name: a name may come to mean another one.
    model_digest: String,
}

impl Order {
    /// # Errors
    /// A file of the model or the additions that can't be read.
    pub(crate) fn new(
        given: &Map<String, Value>,
        prepared: &Prepared,
        inputs: &Inputs,
    ) -> infill_engine::Result<Self> {
        let Prepared { inpaint, checkpoint, request, additions, .. } = prepared;
        let inference = inference(inpaint, checkpoint, inputs);
        let mut recipe = recipe(inpaint, &inference, additions)?;
        if let Some(size) = request.params().vae_tile_size {
            recipe.insert(VAE_TILE_SIZE.into(), json!(size.pixels()));
        }
        if request.params().match_colours {
            recipe.insert(MATCH_COLOURS.into(), json!(true));
        }
        let mut overrides = request.params().scheduler.overrides.iter();
        if let Some((_, spacing)) = overrides.find(|(key, _)| key == TimestepSpacing::KEY) {
            recipe.insert(TIMESTEP_SPACING.into(), spacing.clone());
        }
        Ok(Self {
            kind: inpaint.kind,
            arguments: arguments(given, prepared, inputs, &inference["guidance"]),
            recipe,
            inference,
            model_digest: checkpoint.digest()?,
        })
    }

    /// How many pictures were asked for.
    pub(crate) fn samples(&self) -> usize {
        self.inference["numSamples"].as_u64().and_then(|samples| usize::try_from(samples).ok()).unwrap_or(1)
    }

    /// The ways of the server that took the order.
    pub(crate) fn ways(&self) -> Ways {
        let pixels = self.recipe.get(VAE_TILE_SIZE).and_then(Value::as_u64);
        let side = pixels.and_then(|pixels| u32::try_from(pixels).ok());
        let spacing = self.recipe.get(TIMESTEP_SPACING).and_then(Value::as_str);
        Ways {
            vae_tile_size: side.and_then(|side| VaeTileSize::new(side).ok()),
            match_colours: self.recipe.get(MATCH_COLOURS).is_some_and(|matched| *matched == true),
            timestep_spacing: spacing.and_then(TimestepSpacing::named),
        }
    }

    /// The arguments that give the pictures after the first `done`: each has a seed of its own.
    pub(crate) fn arguments_after(&self, done: usize) -> Map<String, Value> {
        let mut arguments = self.arguments.clone();
        let seed = self.inference["seed"].as_str().and_then(|seed| seed.parse::<u64>().ok()).unwrap_or(0);
        arguments.insert("seed".into(), json!(seed.wrapping_add(done as u64).to_string()));
        arguments.insert("numSamples".into(), json!(self.samples().saturating_sub(done)));
        arguments
    }

    /// That what the order names is what it named when it was given.
    ///
    /// # Errors
    /// Something else has taken its place, or can't be read: one sentence.
    pub(crate) fn check(&self, prepared: &Prepared) -> Result<(), String> {
        let Prepared { inpaint, checkpoint, additions, .. } = prepared;
        if digest(checkpoint)? != self.model_digest {
            return Err(format!(
                "modelId is {}, which is another model now than when the job was given",
                inpaint.model_id.as_deref().unwrap_or_default()
            ));
        }
        let now = recipe(inpaint, &self.inference, additions).map_err(|error| error.to_string())?;
        for (name, what) in
            [("concepts", "a concept"), ("embeddings", "an embedding"), ("ipAdapter", "the adapter")]
        {
            if now.get(name) != self.recipe.get(name) {
                return Err(format!("{what} of the job is another file now than when the job was given"));
            }
        }
        Ok(())
    }

    pub(crate) fn to_json(&self) -> String {
        json!({
            "tool": self.kind.name(),
            "arguments": self.arguments,
            "inference": self.inference,
            "recipe": self.recipe,
            "modelDigest": self.model_digest,
        })
        .to_string()
    }

    /// # Errors
    /// A row that another version wrote: one sentence.
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        Self::read_value(serde_json::from_str(text).unwrap_or_default()).ok_or_else(|| {
            "what was asked is written in a form that this version of infill does not read".to_owned()
        })
    }

    fn read_value(mut value: Value) -> Option<Self> {
        let mut take = |name: &str| value.get_mut(name).map(Value::take);
        let object = |value: Value| match value {
            Value::Object(object) => Some(object),
            _ => None,
        };
        Some(Self {
            kind: Kind::named(take("tool")?.as_str()?)?,
            arguments: object(take("arguments")?)?,
            inference: take("inference").filter(Value::is_object)?,
            recipe: object(take("recipe")?)?,
            model_digest: take("modelDigest")?.as_str()?.to_owned(),
        })
    }
}

fn digest(checkpoint: &Checkpoint) -> Result<String, String> {
    checkpoint.digest().map_err(|error| error.to_string())
}

/// The call's own arguments, with assets in place of pictures and everything settled that it left open.
fn arguments(
    given: &Map<String, Value>,
    prepared: &Prepared,
    inputs: &Inputs,
    guidance: &Value,
) -> Map<String, Value> {
    // Besides the pictures: what was said of a picture as it came in, and is in its row.
    const SETTLED: [&str; 12] = [
        "image",
        "imageId",
        "mask",
        "maskId",
        "ipAdapterImages",
        "ipAdapterImageIds",
        "ipAdapterImage",
        "ipAdapterImageId",
        "ipAdapterScale",
        "imageParentId",
        "imageHide",
        "dryRun",
    ];
    let kept = given.iter().filter(|(name, _)| !SETTLED.contains(&name.as_str()));
    let mut all: Map<String, Value> = kept.map(|(name, value)| (name.clone(), value.clone())).collect();
    let inpaint = &prepared.inpaint;
    all.insert("image".into(), json!(inputs.image.as_str()));
    all.insert("mask".into(), json!(inputs.mask.as_str()));
    all.insert("seed".into(), json!(inpaint.seed.to_string()));
    all.insert("numSamples".into(), json!(inpaint.samples));
    all.insert("numInferenceSteps".into(), json!(inpaint.steps));
    all.insert("guidance".into(), guidance.clone());
    all.insert("strength".into(), json!(inpaint.strength));
    all.insert("width".into(), json!(inpaint.width));
    all.insert("height".into(), json!(inpaint.height));
    if let Some(references) = &inpaint.references {
        let ids: Vec<&str> = inputs.references.iter().map(AssetId::as_str).collect();
        all.insert("ipAdapterImageIds".into(), json!(ids));
        all.insert("ipAdapterScales".into(), json!(references.scales));
    }
    all
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn order() -> Order {
        let object = |value: Value| value.as_object().unwrap().clone();
        Order {
            kind: Kind::InpaintIpAdapter,
            arguments: object(json!({ "prompt": "a hat", "seed": "18446744073709551615", "numSamples": 3 })),
            inference: json!({ "seed": "18446744073709551615", "numSamples": 3 }),
            recipe: object(json!({ "modelId": "sd-1.5" })),
            model_digest: "5e".into(),
        }
    }

    #[test]
    fn an_order_comes_back_out_of_its_row() {
        assert_eq!(Order::read(&order().to_json()), Ok(order()));
    }

    #[test]
    fn what_is_no_order_is_refused_in_one_sentence() {
        for text in ["", "{}", "[]", "{\"type\":\"inpaint\",\"seed\":\"7\"}", "{\"tool\":\"post-inpaint\"}"] {
            assert!(Order::read(text).unwrap_err().contains("does not read"), "{text}");
        }
    }

    #[test]
    fn what_is_left_begins_at_the_next_seed() {
        let left = order().arguments_after(1);
        assert_eq!(Value::Object(left), json!({ "prompt": "a hat", "seed": "0", "numSamples": 2 }));
        assert_eq!(order().arguments_after(0), order().arguments);
    }
}
