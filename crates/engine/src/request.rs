//! What is asked of the engine: plain parameters, and the checked request made of them.

use std::fmt::Display;
use std::ops::RangeInclusive;

use infill_networks::prompt::Prompt;
use serde_json::Value;

use crate::geometry::{MAX_SIDE, MIN_SIDE, Plan, STEP};
use crate::image::Picture;
use crate::image_prompt::{ADAPTERS, ImagePrompt};
use crate::mask::Mask;
use crate::noise::NoiseEra;
use crate::scheduler::SchedulerKind;
use crate::tile_size::VaeTileSize;
use crate::{Error, Result};

/// The denoising steps that can be asked for.
pub const STEPS: RangeInclusive<usize> = 1..=150;
/// The sides of the work picture that can be asked for, in pixels; multiples of 8.
pub const SIDES: RangeInclusive<u32> = MIN_SIDE..=MAX_SIDE;
/// The pictures that one request can ask for.
pub const SAMPLES: RangeInclusive<usize> = 1..=128;
/// The guidance scales that can be asked for.
pub const GUIDANCE: RangeInclusive<f64> = 0.0..=100.0;
/// The widest feather, in pixels.
pub const FEATHER: RangeInclusive<u32> = 0..=512;
/// The widest margin around a cropped mask, in pixels.
pub const CROP_PADDING: RangeInclusive<u32> = 0..=4096;
/// The last text-encoder layers that can be left out.
pub const CLIP_SKIP: RangeInclusive<usize> = 0..=31;

/// The only limit of a prompt that can be asked for: CLIP's 77 tokens, begin and end among them.
pub const PROMPT_LIMIT: usize = 77;

/// The longest prompt that can be asked for, in characters.
pub const PROMPT_CHARACTERS: usize = 10_000;
/// The heaviest weight that brackets can add up to, and its negative the lightest.
pub const PROMPT_WEIGHT: f64 = 100.0;

/// How the brackets of a prompt are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PromptSyntax {
    /// As weights, in AUTOMATIC1111's language: `(word)`, `[word]`, `(word:1.3)`, `BREAK`, escapes with `\`.
    #[default]
    Weighted,
    /// As characters among others, as diffusers reads them.
    Plain,
}

/// A change to the checkpoint's own scheduler.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SchedulerChoice {
    /// Another scheduler class, made "from" the checkpoint's configuration as diffusers' `from_config` does.
    pub kind: Option<SchedulerKind>,
    /// Configuration values that replace those of the checkpoint, by their names in `scheduler_config.json`.
    pub overrides: Vec<(String, Value)>,
}

/// SDXL's conditioning on sizes (Podell et al. 2023, arXiv 2307.01952, section 2.2). Sizes are (height, width),
/// coordinates (top, left), all in pixels; absent sizes are the work picture's.
#[derive(Debug, Clone, PartialEq)]
pub struct MicroConditioning {
    /// The size that the picture claims to have had before training resized it.
    pub original_size: Option<(u32, u32)>,
    /// Where the training crop claims to have begun.
    pub crops_coords_top_left: (u32, u32),
    /// The size that is aimed for.
    pub target_size: Option<(u32, u32)>,
    /// `original_size` of the unconditioned half.
    pub negative_original_size: Option<(u32, u32)>,
    /// `crops_coords_top_left` of the unconditioned half: read by the refiner alone, as in diffusers.
    pub negative_crops_coords_top_left: (u32, u32),
    /// `target_size` of the unconditioned half.
    pub negative_target_size: Option<(u32, u32)>,
    /// The refiner's aesthetic score.
    pub aesthetic_score: f64,
    /// The refiner's aesthetic score of the unconditioned half.
    pub negative_aesthetic_score: f64,
}

impl Default for MicroConditioning {
    fn default() -> Self {
        Self {
            original_size: None,
            crops_coords_top_left: (0, 0),
            target_size: None,
            negative_original_size: None,
            negative_crops_coords_top_left: (0, 0),
            negative_target_size: None,
            aesthetic_score: 6.0,
            negative_aesthetic_score: 2.5,
        }
    }
}

/// Everything that can be asked, as plain values. Begin with [`InpaintParams::new`] and change what you need.
#[derive(Debug, Clone)]
pub struct InpaintParams {
    /// The photograph.
    pub image: Picture,
    /// Where to paint: white.
    pub mask: Mask,
    /// What to paint.
    pub prompt: String,
    /// Other words for SDXL's second text encoder; `prompt` where absent or empty.
    pub prompt_2: Option<String>,
    /// What not to paint. `None` and the empty string differ for SDXL: absent means zeroed embeddings.
    pub negative_prompt: Option<String>,
    /// Other negative words for SDXL's second text encoder.
    pub negative_prompt_2: Option<String>,
    /// How the brackets of all prompts are read.
    pub prompt_syntax: PromptSyntax,
    /// `None`: a long prompt is read whole, in chunks of 75 tokens. [`PROMPT_LIMIT`]: it is cut there, as diffusers does.
    pub prompt_limit: Option<usize>,
    /// The seed of the first picture; picture i uses `seed + i`.
    pub seed: u64,
    /// How many pictures, each from a generator of its own.
    pub samples: usize,
    /// How many pictures are drawn together from one generator, as diffusers' `num_images_per_prompt`.
    pub num_images_per_prompt: usize,
    /// Denoising steps before `strength` shortens them.
    pub num_inference_steps: usize,
    /// How much of the schedule is run, in (0, 1]; 1 starts from pure noise.
    pub strength: f64,
    /// Classifier-free guidance; where absent the checkpoint's own, else 6 for SDXL and 7.5 for SD 1.5.
    pub guidance_scale: Option<f64>,
    /// How far guidance is rescaled, in 0..=1.
    pub guidance_rescale: f64,
    /// DDIM's and TCD's share of fresh noise, in 0..=1.
    pub eta: f64,
    /// Last layers of the text encoder to leave out.
    pub clip_skip: Option<usize>,
    /// Reference pictures: the i-th for the i-th adapter of [`Additions`](crate::Additions).
    pub image_prompts: Vec<ImagePrompt>,
    /// A change to the checkpoint's scheduler.
    pub scheduler: SchedulerChoice,
    /// The work picture's width; the picture's own, rounded to 8, where absent.
    pub width: Option<u32>,
    /// The work picture's height; the picture's own, rounded to 8, where absent.
    pub height: Option<u32>,
    /// Crop around the mask with this margin in pixels, as diffusers' `padding_mask_crop`.
    pub padding_mask_crop: Option<u32>,
    /// Larger pictures go through the VAE in overlapping tiles of this side, which takes less memory and changes them a
    /// little; `None`: in one piece.
    pub vae_tile_size: Option<VaeTileSize>,
    /// Put the input's own pixels back outside the mask.
    pub merge: bool,
    /// The width of the ramp around the mask, in pixels of the input.
    pub feather: u32,
    /// Bring the painted colours to those around the mask before they are merged, so that no seam is seen.
    pub match_colours: bool,
    /// SDXL's size conditioning.
    pub micro_conditioning: MicroConditioning,
    /// The share of the whole schedule to leave out at its start; replaces `strength`. In (0, 1).
    pub denoising_start: Option<f64>,
    /// The share of the whole schedule after which to stop, in (0, 1).
    pub denoising_end: Option<f64>,
    /// Which torch's half-precision noise a half-precision run draws.
    pub noise_era: NoiseEra,
    /// Run even if the mask marks nothing.
    pub allow_empty_mask: bool,
}

impl InpaintParams {
    /// The tool schema's defaults: 30 steps, strength 0.75, one picture, merged, no feather.
    pub fn new(image: Picture, mask: Mask, prompt: impl Into<String>) -> Self {
        Self {
            image,
            mask,
            prompt: prompt.into(),
            prompt_2: None,
            negative_prompt: None,
            negative_prompt_2: None,
            prompt_syntax: PromptSyntax::default(),
            prompt_limit: None,
            seed: 0,
            samples: 1,
            num_images_per_prompt: 1,
            num_inference_steps: 30,
            strength: 0.75,
            guidance_scale: None,
            guidance_rescale: 0.0,
            eta: 0.0,
            clip_skip: None,
            image_prompts: Vec::new(),
            scheduler: SchedulerChoice::default(),
            width: None,
            height: None,
            padding_mask_crop: None,
            vae_tile_size: None,
            merge: true,
            feather: 0,
            match_colours: false,
            micro_conditioning: MicroConditioning::default(),
            denoising_start: None,
            denoising_end: None,
            noise_era: NoiseEra::default(),
            allow_empty_mask: false,
        }
    }
}

/// A request that can be run: every value checked against what is allowed, the geometry planned.
#[derive(Debug, Clone)]
pub struct InpaintRequest {
    params: InpaintParams,
    plan: Plan,
    steps_after_strength: usize,
}

impl InpaintRequest {
    /// Checks everything that needs no model.
    ///
    /// # Errors
    /// [`Error::Refused`] with the first parameter that is out of range.
    pub fn new(params: InpaintParams) -> Result<Self> {
        match Self::faults(&params).into_iter().next() {
            Some(first) => Err(first),
            None => Self::planned(params),
        }
    }

    /// As [`InpaintRequest::new`], with everything that is out of range.
    ///
    /// # Errors
    /// [`Error::Refused`] for each parameter; what only the crop tells comes once nothing else is wrong.
    pub fn checked(params: InpaintParams) -> std::result::Result<Self, Vec<Error>> {
        let faults = Self::faults(&params);
        if faults.is_empty() { Self::planned(params).map_err(|error| vec![error]) } else { Err(faults) }
    }

    /// Parameters without faults, with their crop.
    fn planned(params: InpaintParams) -> Result<Self> {
        let steps_after_strength = steps_after_strength(&params)?;
        let size = params.image.size();
        let plan = match (params.padding_mask_crop, params.mask.bounds(size)) {
            (Some(padding), Some(painted)) => {
                // What is blended in is within the crop, all of it.
                let padding = if params.merge { padding.max(params.feather) } else { padding };
                Plan::around(size, painted, padding, params.width, params.height)?
            }
            _ => Plan::whole(size, params.width, params.height)?,
        };
        check_mask_of_latents(&params, &plan)?;
        check_reference_masks(&params.image_prompts, &plan)?;
        Ok(Self { params, plan, steps_after_strength })
    }

    /// What is out of range, all of it, but for what only the crop tells.
    fn faults(params: &InpaintParams) -> Vec<Error> {
        let mut faults = word_faults(params);
        let mut check = |checked: Result<()>| faults.extend(checked.err());
        check(within("steps", params.num_inference_steps, &STEPS));
        check(within("samples", params.samples, &SAMPLES));
        check(within("num_images_per_prompt", params.num_images_per_prompt, &SAMPLES));
        check(if params.strength > 0.0 && params.strength <= 1.0 {
            steps_after_strength(params).map(|_| ())
        } else {
            Err(refused("strength", params.strength, "a number above 0, up to 1"))
        });
        check(params.guidance_scale.map_or(Ok(()), |scale| within("guidance", scale, &GUIDANCE)));
        check(within("guidance_rescale", params.guidance_rescale, &(0.0..=1.0)));
        check(within("eta", params.eta, &(0.0..=1.0)));
        check(params.clip_skip.map_or(Ok(()), |skip| within("clip_skip", skip, &CLIP_SKIP)));
        check(within("feather", params.feather, &FEATHER));
        check(
            params.padding_mask_crop.map_or(Ok(()), |padding| within("crop_padding", padding, &CROP_PADDING)),
        );
        check(check_side("width", params.width));
        check(check_side("height", params.height));
        check(check_denoising_range(params));
        check(check_mask(params));
        check(within("image_prompts", params.image_prompts.len(), &ADAPTERS));
        params.image_prompts.iter().for_each(|prompt| check(prompt.check()));
        faults
    }

    /// The checked parameters.
    pub fn params(&self) -> &InpaintParams {
        &self.params
    }

    /// The crop, the work size and the paste box.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The seed of sample `index`: seeds wrap around at 2^64.
    pub fn seed_of(&self, index: usize) -> u64 {
        self.params.seed.wrapping_add(index as u64)
    }

    /// Steps that are left after strength; without meaning where `denoising_start` stands in for strength.
    pub fn steps_after_strength(&self) -> usize {
        self.steps_after_strength
    }
}

/// Steps that are left after strength, in diffusers' own float arithmetic: 50 steps at 0.58 leave 28, not 29.
fn steps_after_strength(params: &InpaintParams) -> Result<usize> {
    let steps = params.num_inference_steps;
    let left = ((steps as f64 * params.strength) as usize).min(steps);
    if left == 0 && params.denoising_start.is_none() {
        let least = (1..=1000).map(|n| f64::from(n) / 1000.0).find(|s| (steps as f64 * s) as usize > 0);
        return Err(refused(
            "strength",
            params.strength,
            format!(
                "{} or more with {steps} steps, since steps * strength must leave at least one step",
                least.unwrap_or(1.0)
            ),
        ));
    }
    Ok(left)
}

fn check_denoising_range(params: &InpaintParams) -> Result<()> {
    let open = |field, value: Option<f64>| match value {
        Some(v) if !(v > 0.0 && v < 1.0) => Err(refused(field, v, "a number above 0 and below 1")),
        _ => Ok(()),
    };
    open("denoising_start", params.denoising_start)?;
    open("denoising_end", params.denoising_end)?;
    match (params.denoising_start, params.denoising_end) {
        (Some(start), Some(end)) if start >= end => {
            Err(refused("denoising_start", start, format!("less than denoising_end, which is {end}")))
        }
        _ => Ok(()),
    }
}

fn check_side(field: &'static str, side: Option<u32>) -> Result<()> {
    match side {
        Some(side) if !(SIDES.contains(&side) && side.is_multiple_of(STEP)) => {
            Err(refused(field, side, format!("multiples of 8 from {} to {}", SIDES.start(), SIDES.end())))
        }
        _ => Ok(()),
    }
}

fn word_faults(params: &InpaintParams) -> Vec<Error> {
    let mut faults = Vec::new();
    if let Some(limit) = params.prompt_limit.filter(|limit| *limit != PROMPT_LIMIT) {
        let allowed = format!("{PROMPT_LIMIT}, or no limit: a longer prompt is then read in chunks");
        faults.push(refused("prompt_limit", limit, allowed));
    }
    for (field, text) in [
        ("prompt", Some(&params.prompt)),
        ("prompt_2", params.prompt_2.as_ref()),
        ("negative_prompt", params.negative_prompt.as_ref()),
        ("negative_prompt_2", params.negative_prompt_2.as_ref()),
    ] {
        let text = text.map_or("", String::as_str);
        let characters = text.chars().count();
        if characters > PROMPT_CHARACTERS {
            let value = format!("{characters} characters long");
            faults.push(refused(field, value, format!("up to {PROMPT_CHARACTERS}")));
            continue;
        }
        if params.prompt_syntax == PromptSyntax::Plain {
            continue;
        }
        let within = |weight: &f64| weight.abs() <= PROMPT_WEIGHT;
        if let Some(weight) = Prompt::weighted(text).weights().find(|weight| !within(weight)) {
            let allowed = format!("weights from -{PROMPT_WEIGHT} to {PROMPT_WEIGHT}");
            faults.push(refused(field, format!("weighted by {weight:.4}"), allowed));
        }
    }
    faults
}

fn check_mask(params: &InpaintParams) -> Result<()> {
    let (picture, mask) = (params.image.size(), params.mask.size());
    if mask != picture {
        return Err(refused(
            "mask",
            format!("{}x{} pixels", mask.width, mask.height),
            format!("a mask of the picture's size, {}x{}", picture.width, picture.height),
        ));
    }
    if params.mask.is_empty() && !params.allow_empty_mask {
        let allowed = "a mask with white where to paint; what is transparent counts as black";
        return Err(refused("mask", "nowhere 128 or brighter", allowed));
    }
    Ok(())
}

/// White that no latent sees would be painted by nobody: the networks see every eighth pixel of the mask.
fn check_mask_of_latents(params: &InpaintParams, plan: &Plan) -> Result<()> {
    let latents = plan.latents();
    if params.allow_empty_mask
        || params.mask.to_work(plan).to_latents(latents.height, latents.width).contains(&1.0)
    {
        return Ok(());
    }
    let (width, height) = (plan.work.width, plan.work.height);
    let value = format!("white on less than the networks see at {width}x{height} pixels");
    Err(refused("mask", value, "a larger white part; or work at a larger size, or at a crop around the mask"))
}

/// A mask whose white is all cropped or resized away would leave its picture without effect.
fn check_reference_masks(prompts: &[ImagePrompt], plan: &Plan) -> Result<()> {
    for (adapter, prompt) in prompts.iter().enumerate() {
        for (picture, reference) in prompt.references.iter().enumerate() {
            if reference.mask.as_ref().is_some_and(|mask| mask.to_work(plan).is_empty()) {
                let (adapter, picture, crop) = (adapter + 1, picture + 1, plan.crop);
                let value =
                    format!("black in all that is worked on, at picture {picture} of adapter {adapter}");
                let part = format!("{}x{} pixels from x {}, y {}", crop.width, crop.height, crop.x, crop.y);
                let allowed = format!("a mask with white within the {part}");
                return Err(refused("reference mask", value, allowed));
            }
        }
    }
    Ok(())
}

fn refused(field: &'static str, value: impl Display, allowed: impl Into<String>) -> Error {
    Error::Refused { field, value: format!("{value}"), allowed: allowed.into() }
}

fn within<T: PartialOrd + Display>(field: &'static str, value: T, range: &RangeInclusive<T>) -> Result<()> {
    if range.contains(&value) {
        return Ok(());
    }
    Err(refused(field, value, format!("{} to {}", range.start(), range.end())))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use image::{GrayImage, Luma, RgbImage};

    use super::*;
    use crate::image_prompt::{AdapterBlocks, Reference};

    fn request(steps: usize, strength: f64, denoising_start: Option<f64>) -> Result<InpaintRequest> {
        let image = Picture::from_rgb8(RgbImage::new(64, 64));
        let mask = Mask::from_luma8(GrayImage::from_pixel(64, 64, Luma([255])));
        let params = InpaintParams::new(image, mask, "a cat");
        InpaintRequest::new(InpaintParams { num_inference_steps: steps, strength, denoising_start, ..params })
    }

    #[test]
    fn a_prompt_is_cut_at_77_tokens_or_nowhere() {
        let limited = |prompt_limit| {
            let params = request(3, 1.0, None).unwrap().params().clone();
            InpaintRequest::new(InpaintParams { prompt_limit, ..params }).map(|_| ())
        };
        limited(None).unwrap();
        limited(Some(77)).unwrap();
        let error = limited(Some(75)).unwrap_err().to_string();
        assert!(error.contains("prompt_limit is 75; allowed: 77, or no limit"), "{error}");
    }

    #[test]
    fn words_are_not_too_many_and_not_too_heavy() {
        let with = |prompt: &str, negative: &str, prompt_syntax| {
            let params = request(3, 1.0, None).unwrap().params().clone();
            let negative_prompt = Some(negative.to_owned());
            let params = InpaintParams { prompt: prompt.into(), negative_prompt, prompt_syntax, ..params };
            InpaintRequest::new(params).map(|_| ()).map_err(|e| e.to_string())
        };
        let (weighted, plain) = (PromptSyntax::Weighted, PromptSyntax::Plain);
        with("a ((cat)) (dog:-100)", &"ä".repeat(10_000), weighted).unwrap();
        let error = with("a cat", "((dog:99))", weighted).unwrap_err();
        assert!(
            error.contains("negative_prompt is weighted by 108.9") && error.contains("-100 to 100"),
            "{error}"
        );
        with("a cat", "((dog:99))", plain).unwrap();
        let error = with(&"a".repeat(10_001), "", plain).unwrap_err();
        assert_eq!(error, "prompt is 10001 characters long; allowed: up to 10000");
        let many = format!("{}a", "(".repeat(9_999));
        assert!(with(&many, "", weighted).unwrap_err().starts_with("prompt is weighted by "));
    }

    #[test]
    fn a_reference_mask_that_the_crop_leaves_black_is_refused() {
        let corner = |right: bool| {
            let white = |x: u32, y: u32| if (x >= 192) == right && y < 64 { 255 } else { 0 };
            Mask::from_luma8(GrayImage::from_fn(256, 256, |x, y| Luma([white(x, y)])))
        };
        let reference = |right| {
            let picture = Picture::from_rgb8(RgbImage::new(8, 8));
            Reference { picture, scale: 1.0, mask: Some(corner(right)) }
        };
        let with = |right, padding_mask_crop| {
            let references = vec![reference(true), reference(right)];
            let image = Picture::from_rgb8(RgbImage::new(256, 256));
            let mut params = InpaintParams::new(image, corner(true), "a cat");
            params.image_prompts = vec![ImagePrompt { references, blocks: AdapterBlocks::All }];
            params.padding_mask_crop = padding_mask_crop;
            (params.width, params.height) = (Some(64), Some(64));
            InpaintRequest::new(params).map(|_| ())
        };
        with(false, None).unwrap();
        with(true, Some(0)).unwrap();
        assert_eq!(
            with(false, Some(0)).unwrap_err().to_string(),
            "reference mask is black in all that is worked on, at picture 2 of adapter 1; \
             allowed: a mask with white within the 64x64 pixels from x 192, y 0"
        );
    }

    #[test]
    fn a_crop_holds_all_of_what_is_blended() {
        let with = |merge, feather| {
            let mask =
                GrayImage::from_fn(256, 256, |x, y| Luma([255 * u8::from(x / 16 == 8 && y / 16 == 8)]));
            let image = Picture::from_rgb8(RgbImage::new(256, 256));
            let params = InpaintParams::new(image, Mask::from_luma8(mask), "a cat");
            let params = InpaintParams {
                padding_mask_crop: Some(4),
                width: Some(64),
                height: Some(64),
                merge,
                feather,
                ..params
            };
            InpaintRequest::new(params).unwrap().plan().crop
        };
        let (narrow, wide) = (with(true, 0), with(true, 20));
        assert_eq!((narrow.x, narrow.width), (124, 24));
        assert_eq!((wide.x, wide.width), (108, 56));
        assert_eq!(with(false, 20), narrow);
    }

    #[test]
    fn white_that_no_latent_sees_is_refused() {
        let with = |at: u32, padding_mask_crop, allow_empty_mask| {
            let mask = GrayImage::from_fn(64, 64, |x, y| Luma([255 * u8::from(x / 4 == at && y / 4 == at)]));
            let image = Picture::from_rgb8(RgbImage::new(64, 64));
            let params = InpaintParams::new(image, Mask::from_luma8(mask), "a cat");
            InpaintRequest::new(InpaintParams { padding_mask_crop, allow_empty_mask, ..params }).map(|_| ())
        };
        with(2, None, false).unwrap();
        let error = with(3, None, false).unwrap_err().to_string();
        assert!(error.starts_with("mask is white on less than the networks see at 64x64 pixels"), "{error}");
        with(3, Some(0), false).unwrap();
        with(3, None, true).unwrap();
    }

    #[test]
    fn all_that_is_wrong_is_told() {
        let params = request(3, 1.0, None).unwrap().params().clone();
        let mask = Mask::from_luma8(GrayImage::new(32, 32));
        let prompt = "(a cat:500)".to_owned();
        let params = InpaintParams { prompt, mask, strength: 0.1, width: Some(65), ..params };
        let faults: Vec<String> = InpaintRequest::faults(&params).iter().map(Error::to_string).collect();
        let fields: Vec<&str> = faults.iter().filter_map(|fault| fault.split(' ').next()).collect();
        assert_eq!(fields, ["prompt", "strength", "width", "mask"], "{faults:?}");
    }

    #[test]
    fn strength_must_leave_a_step_unless_a_range_stands_in_for_it() {
        let error = request(3, 0.3, None).unwrap_err().to_string();
        assert!(error.contains("strength is 0.3") && error.contains("0.334 or more with 3 steps"), "{error}");
        request(3, 0.3, Some(0.5)).unwrap();
        assert_eq!(request(50, 0.58, None).unwrap().steps_after_strength(), 28);
    }
}
