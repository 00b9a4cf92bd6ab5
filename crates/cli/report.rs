//! What a run tells: the recipe inside each picture, the JSON object for machines, the notes for people.

use std::path::Path;

use infill_engine::geometry::Size;
use infill_engine::request::InpaintParams;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::additions::AdditionsRecipe;
use crate::progress::Seconds;

/// The model that ran, without the path of this machine's copy.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Model {
    /// The catalogue's id, or the folder's own name.
    pub(crate) name: String,
    pub(crate) family: &'static str,
    pub(crate) digest: String,
    /// True for a UNet that sees the mask; false where the known region is put back after each step.
    pub(crate) inpainting: bool,
    /// True where a second text encoder has a prompt of its own.
    #[serde(skip)]
    pub(crate) two_encoders: bool,
}

/// Twice the side that SDXL was trained at.
const LARGE: u32 = 2048;

/// Those whose steps draw as much noise as `eta` says.
const SCHEDULERS_WITH_ETA: [&str; 2] = ["DDIMScheduler", "TCDScheduler"];

/// What all pictures of a run have in common, after every default.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Recipe {
    pub(crate) software: &'static str,
    pub(crate) model: Model,
    pub(crate) prompt: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) prompt_2: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) negative_prompt: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) negative_prompt_2: Option<String>,
    /// Where it is not the default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) prompt_syntax: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) prompt_limit: Option<usize>,
    #[serde(flatten)]
    pub(crate) additions: AdditionsRecipe,
    pub(crate) scheduler: String,
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub(crate) scheduler_options: Map<String, Value>,
    pub(crate) steps: usize,
    pub(crate) strength: f64,
    pub(crate) guidance: f64,
    pub(crate) guidance_rescale: f64,
    pub(crate) eta: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) clip_skip: Option<usize>,
    /// Of the picture the networks worked on.
    pub(crate) width: u32,
    pub(crate) height: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) crop_padding: Option<u32>,
    pub(crate) merge: bool,
    pub(crate) feather: u32,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) match_colours: bool,
    pub(crate) device: String,
    pub(crate) dtype: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) vae_tile_size: Option<u32>,
    pub(crate) noise_rule: &'static str,
}

/// The recipe of one picture, as it stands in its PNG. Nothing in it differs from run to run.
#[derive(Debug, Serialize)]
pub(crate) struct PictureRecipe<'a> {
    pub(crate) seed: u64,
    #[serde(flatten)]
    pub(crate) recipe: &'a Recipe,
}

/// One written picture.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Image {
    pub(crate) path: String,
    pub(crate) seed: u64,
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) seconds: f64,
}

/// The JSON object of `--json`.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) images: Vec<Image>,
    /// The picture of `--strip`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) strip: Option<String>,
    #[serde(flatten)]
    pub(crate) recipe: Recipe,
    pub(crate) seconds: Seconds,
    pub(crate) warnings: Vec<String>,
}

/// What a user may not have meant.
pub(crate) fn warnings(params: &InpaintParams, recipe: &Recipe) -> Vec<String> {
    let mut warnings = Vec::new();
    if !recipe.model.inpainting {
        warnings.push(format!(
            "{} is not an inpainting model: the kept part is put back after each step, and edges may show",
            recipe.model.name
        ));
    }
    let second = params.prompt_2.is_some() || params.negative_prompt_2.is_some();
    if second && !recipe.model.two_encoders {
        warnings.push(format!(
            "{} has one text encoder: --prompt-2 and --negative-2 do nothing",
            recipe.model.name
        ));
    }
    if recipe.eta > 0.0 && !SCHEDULERS_WITH_ETA.contains(&recipe.scheduler.as_str()) {
        warnings.push(format!(
            "eta does nothing with {}; with {} it does",
            recipe.scheduler,
            SCHEDULERS_WITH_ETA.join(" and ")
        ));
    }
    warnings
}

/// What to know before a run that may take hours, where the models were trained at 512 and 1024.
pub(crate) fn large_work(work: Size) -> Option<String> {
    (work.width.max(work.height) > LARGE).then(|| {
        format!(
            "the networks work at {}x{} pixels, which takes long and much memory; --width and --height set a smaller \
             size, --crop-padding works on the mask's surroundings alone, --vae-tile-size takes less memory for the VAE",
            work.width, work.height
        )
    })
}

/// A path as the reports give it.
pub(crate) fn path_text(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_large_work_is_told() {
        assert_eq!(large_work(Size { width: 2048, height: 2048 }), None);
        let note = large_work(Size { width: 64, height: 2056 }).unwrap_or_default();
        assert!(note.starts_with("the networks work at 64x2056 pixels"), "{note}");
    }
}
