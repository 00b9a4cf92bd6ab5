//! A call, checked: everything that can be refused is refused here, all of it at once.

use infill_engine::additions::{Additions, Concept, IpAdapterSource};
use infill_engine::geometry::{Size, other_proportions, own_work_size};
use infill_engine::image::{Limits, Picture};
use infill_engine::image_prompt::{AdapterBlocks, ImagePrompt, Reference};
use infill_engine::mask::Mask;
use infill_engine::pipeline::{check_concepts, check_run, place_timesteps};
use infill_engine::request::{InpaintParams, InpaintRequest};
use infill_models::Checkpoint;
use infill_models::adapters::AdapterPurpose;
use infill_store::{AssetId, AssetMeta, Store};
use serde_json::{Map, Value};

use crate::Ways;
use crate::arguments::show_text;
use crate::inference::Inputs;
use crate::pictures::Source;
use crate::sizes::sides;
use crate::studio::Studio;
use crate::tools::Kind;
use crate::tools::inpaint::Inpaint;

/// Pixels of all references of a call together: they are held decoded.
const REFERENCE_PIXELS: u64 = 256 << 20;

/// A call that can be run.
pub(crate) struct Prepared {
    pub(crate) inpaint: Inpaint,
    pub(crate) checkpoint: Checkpoint,
    pub(crate) request: InpaintRequest,
    pub(crate) additions: Additions,
    image: Encoded,
    mask: Encoded,
    references: Vec<Encoded>,
}

/// A picture as it came.
struct Encoded {
    bytes: Vec<u8>,
    /// It came out of the store.
    asset: Option<AssetId>,
}

impl Prepared {
    /// Stores the pictures, but for those that are in the store.
    ///
    /// # Errors
    /// A store that refuses.
    pub(crate) fn keep(&self, store: &Store) -> infill_store::Result<Inputs> {
        let Self { inpaint, request, image, mask, references, .. } = self;
        let own = sized(request.params().image.size());
        let hidden = AssetMeta { hidden: true, ..own.clone() };
        let shown = AssetMeta { parent: inpaint.image_parent.clone(), hidden: inpaint.image_hide, ..own };
        let prompts = request.params().image_prompts.iter().flat_map(|prompt| &prompt.references);
        let references = references.iter().zip(prompts).map(|(encoded, reference)| {
            encoded.keep(store, AssetMeta { hidden: true, ..sized(reference.picture.size()) })
        });
        Ok(Inputs {
            image: image.keep(store, shown)?,
            mask: mask.keep(store, hidden)?,
            references: references.collect::<infill_store::Result<_>>()?,
        })
    }
}

impl Encoded {
    fn keep(&self, store: &Store, mut meta: AssetMeta) -> infill_store::Result<AssetId> {
        // To name an asset changes nothing of it: one that is hidden stays so.
        if let Some(id) = &self.asset {
            return Ok(id.clone());
        }
        let format = image::guess_format(&self.bytes);
        meta.media_type =
            format.map_or("application/octet-stream", |format| format.to_mime_type()).to_owned();
        store.put(&self.bytes, &meta)
    }
}

fn sized(size: Size) -> AssetMeta {
    AssetMeta { width: Some(size.width), height: Some(size.height), ..AssetMeta::default() }
}

impl Studio {
    /// Everything that can be refused, all of it at once.
    pub(crate) fn prepare(
        &self,
        kind: Kind,
        given: &Map<String, Value>,
        ways: Ways,
    ) -> std::result::Result<Prepared, Vec<String>> {
        // The model first: it says which sizes are allowed.
        let named = given.get("modelId").and_then(Value::as_str).map(|id| self.holdings.checkpoint(id));
        let family = named.as_ref().and_then(|found| found.as_ref().ok()).map(Checkpoint::family);
        let (mut inpaint, mut faults) = Inpaint::read(kind, given, family);
        if let Some(missing) = faults.iter_mut().find(|fault| fault.starts_with("modelId is missing")) {
            *missing = format!("modelId is missing; allowed: {}", self.holdings.models_here());
        }
        let checkpoint = named.and_then(|found| {
            found.map_err(|(value, allowed)| faults.push(fault("modelId", &value, &allowed))).ok()
        });
        let image = inpaint
            .image
            .take()
            .and_then(|source| self.picture("image", &source, &mut faults, Picture::decode));
        let mask =
            inpaint.mask.take().and_then(|source| self.picture("mask", &source, &mut faults, Mask::decode));
        let (references, image_prompt) = self.references(&mut inpaint, &mut faults).unzip();
        let additions = self.additions(&mut inpaint, checkpoint.as_ref(), &mut faults);
        let (Some(checkpoint), Some((image, picture)), Some((mask, mask_picture)), true) =
            (checkpoint, image, mask, faults.is_empty())
        else {
            return Err(faults);
        };
        let own = own_work_size(picture.size(), &sides(checkpoint.family()).0);
        let work =
            Size { width: inpaint.width.unwrap_or(own.width), height: inpaint.height.unwrap_or(own.height) };
        (inpaint.width, inpaint.height) = (Some(work.width), Some(work.height));
        inpaint.warnings.extend(other_proportions(picture.size(), work));
        if !checkpoint.is_inpaint() {
            inpaint.warnings.push(
                "the model was not trained to inpaint: it does not see what is around the mask as well as one that was"
                    .into(),
            );
        }
        let mut params =
            params(&inpaint, picture, mask_picture, image_prompt).map_err(|error| vec![sentence(&error)])?;
        let Ways { vae_tile_size, match_colours, timestep_spacing } = ways;
        if let Some(spacing) = timestep_spacing {
            place_timesteps(&checkpoint, spacing, &mut params.scheduler)
                .map_err(|error| vec![sentence(&error)])?;
        }
        // Where nothing is merged no seam can be.
        let match_colours = match_colours && params.merge;
        let request = InpaintRequest::checked(InpaintParams { vae_tile_size, match_colours, ..params })
            .map_err(|faults| faults.iter().map(sentence).collect::<Vec<_>>())?;
        check_run(&checkpoint, &request).map_err(|error| vec![sentence(&error)])?;
        let references = references.unwrap_or_default();
        Ok(Prepared { inpaint, checkpoint, request, additions, image, mask, references })
    }

    /// The reference pictures of a call that has any, encoded and as the engine takes them.
    fn references(
        &self,
        inpaint: &mut Inpaint,
        faults: &mut Vec<String>,
    ) -> Option<(Vec<Encoded>, ImagePrompt)> {
        let given = inpaint.references.as_mut()?;
        let (mut encoded, mut references, mut pixels) = (Vec::new(), Vec::new(), 0_u64);
        for ((name, source), &scale) in std::mem::take(&mut given.pictures).iter().zip(&given.scales) {
            let decoded = self.picture(name, source, faults, Picture::decode);
            let Some((bytes, picture)) = decoded else { continue };
            let size = picture.size();
            pixels += u64::from(size.width) * u64::from(size.height);
            if pixels > REFERENCE_PIXELS {
                let allowed = format!("up to {REFERENCE_PIXELS} pixels in all references together");
                faults.push(fault(name, &format!("{}x{} pixels", size.width, size.height), &allowed));
                break;
            }
            encoded.push(bytes);
            references.push(Reference { picture, scale, mask: None });
        }
        let blocks = match given.purpose {
            AdapterPurpose::Style => AdapterBlocks::Style,
            AdapterPurpose::Character => AdapterBlocks::All,
        };
        Some((encoded, ImagePrompt { references, blocks }))
    }

    /// The files that the call puts on top of its model.
    fn additions(
        &self,
        inpaint: &mut Inpaint,
        checkpoint: Option<&Checkpoint>,
        faults: &mut Vec<String>,
    ) -> Additions {
        let mut additions = Additions::default();
        for (index, concept) in inpaint.concepts.iter().enumerate() {
            match self.holdings.concept(&concept.model_id, checkpoint) {
                Ok(file) => {
                    let found = Concept { file, scale: concept.scale };
                    let fits = checkpoint.map(|model| check_concepts(model, std::slice::from_ref(&found)));
                    if let Some(Err(error)) = fits {
                        let id = show_text(&concept.model_id);
                        faults.push(format!("concepts[{index}].modelId is {id}: {error}"));
                    }
                    additions.concepts.push(found);
                }
                Err((value, allowed)) => {
                    faults.push(fault(&format!("concepts[{index}].modelId"), &value, &allowed));
                }
            }
        }
        let Some(checkpoint) = checkpoint else { return additions };
        let prompts: Vec<&str> =
            [inpaint.prompt.as_str()].into_iter().chain(inpaint.negative_prompt.as_deref()).collect();
        match self.holdings.embeddings(&prompts, checkpoint.family()) {
            Ok((embeddings, notes)) => {
                additions.embeddings = embeddings;
                inpaint.warnings.extend(notes);
            }
            Err(error) => faults.push(error.to_string()),
        }
        if let Some(references) = &inpaint.references {
            match self.holdings.adapter(checkpoint, references.purpose) {
                Ok(found) => {
                    inpaint.warnings.extend(found.note);
                    additions
                        .ip_adapters
                        .push(IpAdapterSource { file: found.file, image_encoder: found.image_encoder });
                }
                Err(error) => faults.push(error.to_string()),
            }
        }
        additions
    }

    /// A picture parameter, encoded and decoded.
    fn picture<T>(
        &self,
        name: &str,
        source: &Source,
        faults: &mut Vec<String>,
        decode: impl Fn(&[u8], &Limits) -> infill_engine::Result<T>,
    ) -> Option<(Encoded, T)> {
        let bytes = match source.fetch(&self.store, &self.folders) {
            Ok(bytes) => bytes,
            Err((value, allowed)) => {
                faults.push(fault(name, &value, &allowed));
                return None;
            }
        };
        let (asset, limits) = match source {
            Source::Asset(id) => (Some(id.clone()), stored()),
            Source::Data(_) | Source::File(_) => (None, Limits::default()),
        };
        match decode(&bytes, &limits) {
            Ok(decoded) => Some((Encoded { bytes, asset }, decoded)),
            Err(error) => {
                faults.push(match error {
                    infill_engine::Error::Refused { value, allowed, .. } => fault(name, &value, &allowed),
                    infill_engine::Error::Unreadable { reason, .. } => {
                        format!("{name} can't be read: {reason}")
                    }
                    other => format!("{name}: {other}"),
                });
                None
            }
        }
    }
}

/// What a picture of the store may be: of any number of bytes, since results are larger than what comes in.
pub(crate) fn stored() -> Limits {
    Limits { bytes: usize::MAX, ..Limits::default() }
}

/// What the engine refuses, in the names of the tools' schemas.
fn sentence(error: &infill_engine::Error) -> String {
    let infill_engine::Error::Refused { field, value, allowed } = error else { return error.to_string() };
    let name = match *field {
        "negative_prompt" => "negativePrompt",
        "steps" => "numInferenceSteps",
        "samples" => "numSamples",
        "image_prompts" => "ipAdapterImages",
        other => other,
    };
    fault(name, value, allowed)
}

pub(crate) fn fault(name: &str, value: &str, allowed: &str) -> String {
    format!("{name} is {value}; allowed: {allowed}")
}

fn params(
    inpaint: &Inpaint,
    image: Picture,
    mask: Mask,
    image_prompt: Option<ImagePrompt>,
) -> infill_engine::Result<InpaintParams> {
    let mut params = InpaintParams::new(image, mask, &inpaint.prompt);
    params.image_prompts = image_prompt.into_iter().collect();
    params.negative_prompt = inpaint.negative_prompt.clone();
    params.seed = inpaint.seed;
    params.samples = inpaint.samples as usize;
    params.num_inference_steps = inpaint.steps as usize;
    params.strength = inpaint.strength;
    params.guidance_scale = inpaint.guidance;
    params.scheduler.kind = inpaint.scheduler.as_deref().map(str::parse).transpose()?;
    params.width = inpaint.width;
    params.height = inpaint.height;
    params.merge = inpaint.merge;
    Ok(params)
}
