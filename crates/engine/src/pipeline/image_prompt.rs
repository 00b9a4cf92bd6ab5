//! Reference pictures to image tokens: image encoder, projection, and the keys and values of every layer.

use std::sync::{Arc, OnceLock};

use infill_models::Checkpoint;
use infill_models::adapter::AdapterKind;
use infill_networks::clip::vision::{ClipVisionConfig, ClipVisionModel};
use infill_networks::ip_adapter::IpAdapter;
use infill_networks::unet::{AdapterTokens, ImagePrompts, RegionMask};
use infill_networks::weights::Weights;
use infill_networks::{Device, Tensor};

use super::{Observer, Pipeline, Progress, adapter_blocks};
use crate::additions::IpAdapterSource;
use crate::guidance::Guidance;
use crate::image::clip_pixel_values;
use crate::image_prompt::Reference;
use crate::request::InpaintRequest;
use crate::{Error, Result};

/// An adapter on the device, with the encoder that it reads through.
pub(super) struct LoadedAdapter {
    /// Of the adapter's file and of the encoder's folder.
    digests: (String, String),
    kind: AdapterKind,
    network: IpAdapter,
    image_encoder: Arc<ClipVisionModel>,
    /// The features of no picture: the same in every run.
    negative: OnceLock<Tensor>,
}

impl Pipeline {
    /// Brings exactly these adapters onto the device, each with its image encoder; what is there already stays.
    ///
    /// # Errors
    /// An adapter or an encoder that does not fit, by name; [`Error::Cancelled`] if the observer breaks or its interrupt says so. The adapters of
    /// the run before are then still there.
    pub(super) fn set_ip_adapters(
        &mut self,
        checkpoint: &Checkpoint,
        sources: &[IpAdapterSource],
        observer: &mut Observer<'_>,
    ) -> Result<()> {
        let mut loaded: Vec<Arc<LoadedAdapter>> = Vec::with_capacity(sources.len());
        for source in sources {
            let digests = (source.file.digest()?, source.image_encoder.digest()?);
            let known = || self.ip_adapters.iter().chain(&loaded);
            if let Some(adapter) = known().find(|adapter| adapter.digests == digests).cloned() {
                loaded.push(adapter);
                continue;
            }
            source.file.check_model(checkpoint)?;
            source.file.check_encoder(&source.image_encoder)?;
            let encoder = known().find(|adapter| adapter.digests.1 == digests.1);
            let image_encoder = match encoder.map(|adapter| adapter.image_encoder.clone()) {
                Some(encoder) => encoder,
                None => Arc::new(self.load_image_encoder(source, observer)?),
            };
            let network = self.load_ip_adapter(source, observer)?;
            network.check_encoder(image_encoder.config())?;
            let (kind, negative) = (source.file.kind(), OnceLock::new());
            loaded.push(Arc::new(LoadedAdapter { digests, kind, network, image_encoder, negative }));
        }
        self.ip_adapters = loaded;
        Ok(())
    }

    fn load_ip_adapter(&self, source: &IpAdapterSource, observer: &mut Observer<'_>) -> Result<IpAdapter> {
        observer.report(Progress::Loading { component: "ip_adapter" })?;
        let path = source.file.path();
        // Several may be loaded: errors name the file.
        let name = path.file_name().map_or_else(|| "ip_adapter".into(), |name| name.to_string_lossy());
        let weights =
            Weights::open(&name, &[path.to_owned()], str::to_owned, self.dtype, &self.device)?.finite();
        let weights = weights.with_interrupt(observer.interrupt().clone())?;
        let network = IpAdapter::new(&weights, &self.unet()?.cross_attentions())?;
        weights.finish()?;
        Ok(network)
    }

    fn load_image_encoder(
        &self,
        source: &IpAdapterSource,
        observer: &mut Observer<'_>,
    ) -> Result<ClipVisionModel> {
        let name = "image_encoder";
        observer.report(Progress::Loading { component: name })?;
        let component = source.image_encoder.component();
        let config = ClipVisionConfig::from_json(name, &component.config)?;
        let weights = Weights::open(name, &component.weight_files, str::to_owned, self.dtype, &self.device)?
            .with_interrupt(observer.interrupt().clone())?;
        let model = ClipVisionModel::new(config, &weights)?;
        weights.finish()?;
        Ok(model)
    }

    /// For each adapter, how much each cross-attention layer listens to it.
    ///
    /// # Errors
    /// [`Error::Refused`] if there is not one image prompt for each adapter, or the UNet lacks a block.
    pub(super) fn listening(&self, request: &InpaintRequest) -> Result<Vec<Vec<f64>>> {
        let prompts = &request.params().image_prompts;
        if prompts.len() != self.ip_adapters.len() {
            return Err(Error::Refused {
                field: "image_prompts",
                value: format!("{} given", prompts.len()),
                allowed: format!("{}, one for each adapter", self.ip_adapters.len()),
            });
        }
        let layers = self.unet()?.cross_attentions();
        let style = self.style_blocks.as_ref();
        let weights = |blocks| adapter_blocks::weights(blocks, style, self.family, &layers);
        prompts.iter().map(|prompt| weights(&prompt.blocks)).collect()
    }

    /// The request's reference pictures, as the `listening` layers read them; `None` where nothing is to be followed, so
    /// that such a run is the run without a reference, bit for bit.
    pub(super) fn encode_image_prompts(
        &self,
        request: &InpaintRequest,
        listening: Vec<Vec<f64>>,
        guidance: Guidance,
        observer: &mut Observer<'_>,
    ) -> Result<Option<ImagePrompts>> {
        let params = request.params();
        let (mut adapters, mut calls) = (Vec::new(), 0);
        let prompts = params.image_prompts.iter().zip(&self.ip_adapters).zip(listening);
        for (index, ((prompt, adapter), weights)) in prompts.enumerate() {
            let followed: Vec<&Reference> = prompt.references.iter().filter(|r| r.scale != 0.0).collect();
            if followed.is_empty() || weights.iter().all(|weight| *weight == 0.0) {
                continue;
            }
            let features = self.encode_references(adapter, &followed, guidance, &mut calls, observer)?;
            let batch = params.num_images_per_prompt;
            observer.tap(&format!("cond/image_embeds.{index}"), &for_batch(&features, batch)?);
            let tokens = for_batch(&project(&adapter.network, &features)?, batch)?;
            observer.tap(&format!("cond/ip_tokens.{index}"), &tokens);
            adapters.push(AdapterTokens {
                layers: adapter.network.layers(),
                tokens,
                scales: followed.iter().map(|reference| reference.scale).collect(),
                weights,
                masks: followed.iter().map(|reference| region(reference, request)).collect(),
            });
        }
        if adapters.is_empty() {
            return Ok(None);
        }
        let (work, factor) = (request.plan().work, self.vae.config().scale());
        let (height, width) = (work.height as usize / factor, work.width as usize / factor);
        Ok(Some(self.unet()?.image_prompts(&adapters, height, width)?))
    }

    /// Pictures through an adapter's image encoder: (halves, pictures, ..), the unconditioned half first where guidance is
    /// on. The pictures are seen whole, whatever the request crops. `calls` counts diffusers' calls of the encoder.
    fn encode_references(
        &self,
        adapter: &LoadedAdapter,
        references: &[&Reference],
        guidance: Guidance,
        calls: &mut usize,
        observer: &mut Observer<'_>,
    ) -> Result<Tensor> {
        let side = adapter.image_encoder.config().image_size;
        let pixels = references.iter().map(|reference| {
            let values = clip_pixel_values(&reference.picture, side as u32);
            Tensor::from_vec(values, (1, 3, side, side), &Device::Cpu)
        });
        let pixel_values = Tensor::cat(&pixels.collect::<candle_core::Result<Vec<_>>>()?, 0)?;
        let pixel_values = pixel_values.to_dtype(self.dtype)?.to_device(&self.device)?;
        observer.tap_at("img_enc", *calls, "pixel_values", &pixel_values);
        let looks_at_zeros = guidance.is_on() && adapter.kind != AdapterKind::Plain;
        *calls += 1 + usize::from(looks_at_zeros);
        let features = adapter.network.features(&adapter.image_encoder, &pixel_values)?.unsqueeze(0)?;
        if !guidance.is_on() {
            return Ok(features);
        }
        let negative = adapter.negative_features()?.unsqueeze(0)?.broadcast_as(features.shape())?;
        Ok(Tensor::cat(&[negative, features], 0)?)
    }
}

impl LoadedAdapter {
    fn negative_features(&self) -> Result<Tensor> {
        if let Some(features) = self.negative.get() {
            return Ok(features.clone());
        }
        let features = self.network.negative_features(&self.image_encoder)?;
        Ok(self.negative.get_or_init(|| features).clone())
    }
}

/// (halves, pictures, ..) to the tokens (halves, pictures, N, D).
fn project(network: &IpAdapter, features: &Tensor) -> Result<Tensor> {
    let (halves, pictures) = (features.dim(0)?, features.dim(1)?);
    let tokens = network.project(&features.flatten(0, 1)?)?;
    let (_, count, width) = tokens.dims3()?;
    Ok(tokens.reshape((halves, pictures, count, width))?)
}

/// Each half, `batch` times in a row: (halves, ..) to (halves x batch, ..), as the UNet's batch is laid out.
fn for_batch(x: &Tensor, batch: usize) -> Result<Tensor> {
    if batch == 1 {
        return Ok(x.clone());
    }
    let halves =
        (0..x.dim(0)?).flat_map(|half| std::iter::repeat_n(half, batch)).map(|half| x.narrow(0, half, 1));
    Ok(Tensor::cat(&halves.collect::<candle_core::Result<Vec<_>>>()?, 0)?)
}

/// Where a picture is followed, at the work picture's size.
fn region(reference: &Reference, request: &InpaintRequest) -> Option<RegionMask> {
    let mask = reference.mask.as_ref()?.to_work(request.plan());
    RegionMask::new(mask.size().width as usize, mask.values())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::image::Picture;
    use crate::mask::Mask;
    use crate::request::InpaintParams;
    use image::{GrayImage, Luma, RgbImage};

    #[test]
    fn a_crop_crops_a_pictures_mask_as_it_crops_the_picture() {
        let spot = GrayImage::from_fn(200, 120, |x, y| Luma([if x > 150 && y < 60 { 255 } else { 0 }]));
        let (picture, mask) = (Picture::from_rgb8(RgbImage::new(200, 120)), Mask::from_luma8(spot));
        let reference = Reference { picture: picture.clone(), scale: 1.0, mask: Some(mask.clone()) };
        let params = InpaintParams::new(picture, mask, "");
        let request = |padding_mask_crop| {
            let sides = (Some(96), Some(64));
            let params =
                InpaintParams { padding_mask_crop, width: sides.0, height: sides.1, ..params.clone() };
            InpaintRequest::new(params).unwrap()
        };
        let (whole, cropped) = (request(None), request(Some(0)));
        let values = |request: &InpaintRequest| request.params().mask.to_work(request.plan()).values();
        assert_eq!(region(&reference, &whole), RegionMask::new(96, values(&whole)));
        assert_eq!(region(&reference, &cropped), RegionMask::new(96, values(&cropped)));
        assert_ne!(region(&reference, &whole), region(&reference, &cropped));
        assert_eq!(region(&Reference { mask: None, ..reference }, &whole), None);
    }

    #[test]
    fn each_half_is_repeated_by_itself() {
        let x = Tensor::new(&[[0f32], [1.0]], &Device::Cpu).unwrap();
        let rows = for_batch(&x, 3).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(rows, [0.0, 0.0, 0.0, 1.0, 1.0, 1.0]);
    }
}
