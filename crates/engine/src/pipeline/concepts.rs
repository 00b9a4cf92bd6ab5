//! Concepts in the weights of the loaded networks, and out of them again.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use infill_models::Checkpoint;
use infill_networks::lora::{Changes, Lora, ModelLayout, Network};
use infill_networks::{DType, Device, Interrupt};

use super::load::Loader;
use super::{Observer, Pipeline, Progress};
use crate::additions::Concept;
use crate::{Error, Result};

/// The scales that a concept may have.
pub const CONCEPT_SCALE: RangeInclusive<f64> = -2.0..=2.0;

/// The digest of a concept's file and the bits of its scale.
type Ingredient = (String, u64);

/// Which concepts the weights of each network hold, in order.
pub(super) struct Merged {
    /// All of them; `None` after a call that was stopped on its way, so that the next one looks at every network.
    all: Option<Vec<Ingredient>>,
    networks: BTreeMap<Network, Vec<Ingredient>>,
    /// The embeddings that their files carry along.
    pub(super) words: Vec<String>,
}

impl Default for Merged {
    /// The checkpoint's own weights.
    fn default() -> Self {
        Self { all: Some(Vec::new()), networks: BTreeMap::new(), words: Vec::new() }
    }
}

/// What a network is to become.
#[derive(Default)]
struct Target {
    ingredients: Vec<Ingredient>,
    changes: Changes,
}

/// Whether these concepts fit a checkpoint, told before anything of its weights is read: names and shapes against names
/// and shapes. Those with the scale 0 are as if they were not there.
///
/// # Errors
/// The networks' words for a file that does not fit, or that can't be read.
pub fn check_concepts(checkpoint: &Checkpoint, concepts: &[Concept]) -> Result<()> {
    let concepts: Vec<&Concept> = concepts.iter().filter(|concept| concept.scale != 0.0).collect();
    if concepts.is_empty() {
        return Ok(());
    }
    let (device, interrupt) = (Device::Cpu, Interrupt::default());
    let loader = Loader { checkpoint, device: &device, dtype: DType::F32, interrupt };
    let layout = layout(&loader, &networks(|component| checkpoint.component(component).is_some()))?;
    for concept in concepts {
        Lora::glance(concept.file.path(), concept.file.texts())?.changes(&layout, concept.scale)?;
    }
    Ok(())
}

/// What these networks have to be changed.
fn layout(loader: &Loader<'_>, networks: &[Network]) -> Result<ModelLayout> {
    let mut layout = ModelLayout::default();
    for network in networks {
        layout.add(*network, &loader.mapped(network.component())?);
    }
    Ok(layout)
}

/// The networks that concepts may change, of those that are there.
fn networks(is_here: impl Fn(&str) -> bool) -> Vec<Network> {
    let all = [Network::TextEncoder, Network::TextEncoder2, Network::Unet];
    all.into_iter().filter(|network| is_here(network.component())).collect()
}

impl Pipeline {
    /// Brings the weights into the state that exactly these concepts make, in this order.
    ///
    /// Each network whose concepts are others than before is read anew from `checkpoint`, which must be the one that the
    /// pipeline was loaded from; so a run without a concept is, bit for bit, what it was before one. A scale of 0 is
    /// no concept. The same concepts again read nothing.
    ///
    /// # Errors
    /// [`Error::Refused`] for a scale out of range, the networks' and models' words for a file that does not fit this
    /// model: the pipeline then has its old state or no concepts. [`Error::Cancelled`] if the observer breaks or its
    /// interrupt stops the reading: some networks may then have other concepts than the rest, or the UNet may be
    /// absent, until the next call.
    pub fn set_concepts(
        &mut self,
        checkpoint: &Checkpoint,
        concepts: &[Concept],
        observer: &mut Observer<'_>,
    ) -> Result<()> {
        let mut wanted = Vec::new();
        for concept in concepts {
            if !CONCEPT_SCALE.contains(&concept.scale) {
                return Err(Error::Refused {
                    field: "the scale of a concept",
                    value: concept.scale.to_string(),
                    allowed: format!("{} to {}", CONCEPT_SCALE.start(), CONCEPT_SCALE.end()),
                });
            }
            if concept.scale != 0.0 {
                wanted.push((concept, (concept.file.digest()?, concept.scale.to_bits())));
            }
        }
        let all = wanted.iter().map(|(_, ingredient)| ingredient.clone()).collect::<Vec<_>>();
        if self.unet.is_some() && self.merged.all.as_ref() == Some(&all) {
            return Ok(());
        }
        let (device, dtype) = (self.device.clone(), self.dtype);
        let interrupt = observer.interrupt().clone();
        let loader = Loader { checkpoint, device: &device, dtype, interrupt };
        let (targets, words) = self.targets(&loader, &wanted, observer)?;
        match self.read_networks(&loader, targets, observer) {
            Ok(()) => {
                (self.merged.all, self.merged.words) = (Some(all), words);
                Ok(())
            }
            Err(Error::Cancelled) => {
                // Whoever wants to end does not wait for a way back.
                (self.merged.all, self.merged.words) = (None, vec![]);
                Err(Error::Cancelled)
            }
            Err(error) => {
                // What the first networks have got, the others lack: back to the checkpoint's own weights. Where that
                // fails too, the UNet is given up, so that the next call looks at every network again.
                (self.merged.all, self.merged.words) = (Some(vec![]), vec![]);
                let plain = self.networks().into_iter().map(|network| (network, Target::default())).collect();
                if self.read_networks(&loader, plain, &mut Observer::silent()).is_err() {
                    self.unet = None;
                }
                Err(error)
            }
        }
    }

    /// What each network is to become, and the embeddings that the files carry along. Everything about the files that
    /// shows without computing is checked here.
    fn targets(
        &self,
        loader: &Loader<'_>,
        wanted: &[(&Concept, Ingredient)],
        observer: &mut Observer<'_>,
    ) -> Result<(BTreeMap<Network, Target>, Vec<String>)> {
        let mut words = Vec::new();
        let mut targets: BTreeMap<Network, Target> =
            self.networks().into_iter().map(|network| (network, Target::default())).collect();
        if wanted.is_empty() {
            return Ok((targets, words));
        }
        let layout = layout(loader, &self.networks())?;
        for (concept, ingredient) in wanted {
            observer.report(Progress::Loading { component: "concepts" })?;
            let lora = Lora::open(concept.file.path(), concept.file.texts())?;
            words.extend_from_slice(lora.words());
            for (network, changes) in lora.changes(&layout, concept.scale)? {
                let target = targets.entry(network).or_default();
                target.ingredients.push(ingredient.clone());
                target.changes.append(changes);
            }
        }
        Ok((targets, words))
    }

    fn read_networks(
        &mut self,
        loader: &Loader<'_>,
        targets: BTreeMap<Network, Target>,
        observer: &mut Observer<'_>,
    ) -> Result<()> {
        for (network, Target { ingredients, changes }) in targets {
            let present = self.merged.networks.get(&network).map_or(&[][..], Vec::as_slice);
            let loaded = network != Network::Unet || self.unet.is_some();
            if loaded && present == ingredients {
                continue;
            }
            let component = network.component();
            observer.report(Progress::Loading { component })?;
            if network == Network::Unet {
                // The old one goes before the new one comes: both may not fit.
                self.unet = None;
                self.unet = Some(loader.unet(changes)?);
            } else {
                let model = loader.text_model(component, changes)?;
                if let Some(encoder) = self.text_encoders.iter_mut().find(|e| e.component == component) {
                    encoder.model = model;
                }
            }
            self.merged.networks.insert(network, ingredients);
        }
        Ok(())
    }

    /// The networks that concepts may change.
    fn networks(&self) -> Vec<Network> {
        let has_encoder = |component: &str| self.text_encoders.iter().any(|e| e.component == component);
        networks(|component| component == Network::Unet.component() || has_encoder(component))
    }
}
