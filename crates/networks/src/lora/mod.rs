//! Concepts: LoRAs and their relatives, read from the files that people have and merged into a model's weights.
//!
//! A file is taken apart by [`Lora::open`] or [`Lora::glance`] (by names and shapes), fitted to a model by [`Lora::changes`], and computed
//! weight by weight when [`Weights`](crate::weights::Weights) reads them: in f32 on the host, before the conversion to
//! the run's format. Without a change a weight is read exactly as ever, so leaving a concept out again is exact.
//!
//! Every tensor of a file must find its place; what does not is named. The meaning of each kind is its trainer's:
//! PEFT's and diffusers' for what they read, LyCORIS' for LoHa, LoKr and `dora_scale`.

mod change;
mod family;
mod key;
mod layout;
mod metadata;
mod module;
mod numbers;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

pub(crate) use change::Change;
pub use key::Network;
pub use layout::ModelLayout;

use crate::Result;
use crate::tensor_file::TensorFile;
use key::Spelling;
use metadata::Metadata;
use module::{Builder, ModuleChange, Parts};

/// The channels of the latents of Stable Diffusion.
const LATENT_CHANNELS: usize = 4;

/// How many names an error lists.
const NAMED: usize = 8;

/// An opened file, taken apart.
pub struct Lora {
    file: Arc<TensorFile>,
    modules: BTreeMap<(Option<Network>, Spelling), Parts>,
    /// Names that are none of a LoRA's.
    unknown: Vec<String>,
    /// Textual inversions that the file carries along.
    words: Vec<String>,
    metadata: Metadata,
}

/// The changes of one network's weights, by canonical name, in the order in which they are made.
#[derive(Default, Clone)]
pub struct Changes(BTreeMap<String, Vec<Change>>);

impl Changes {
    /// True where nothing is changed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds the changes of the next concept.
    pub fn append(&mut self, other: Self) {
        for (name, mut changes) in other.0 {
            self.0.entry(name).or_default().append(&mut changes);
        }
    }

    pub(crate) fn of(&self, name: &str) -> &[Change] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

impl Lora {
    /// Reads a safetensors file whole; `metadata` are the texts of its header.
    ///
    /// # Errors
    /// [`crate::Error::File`] when it can't be read, when two of its tensors say the same, or when its metadata ask for what is
    /// not implemented.
    pub fn open(path: &Path, metadata: &BTreeMap<String, String>) -> Result<Self> {
        Self::take_apart(TensorFile::read(path)?, metadata)
    }

    /// Reads a safetensors file's header, and of its tensors those that [`Lora::changes`] looks into: enough to tell
    /// whether it fits a model, however large it is.
    ///
    /// # Errors
    /// As [`Lora::open`].
    pub fn glance(path: &Path, metadata: &BTreeMap<String, String>) -> Result<Self> {
        Self::take_apart(TensorFile::glance(path)?, metadata)
    }

    fn take_apart(file: TensorFile, metadata: &BTreeMap<String, String>) -> Result<Self> {
        let metadata = Metadata::parse(metadata).map_err(|reason| file.error(reason))?;
        let mut lora =
            Self { file: Arc::new(file), modules: BTreeMap::new(), unknown: vec![], words: vec![], metadata };
        for name in lora.file.names() {
            if lora.metadata.is_word(&name) {
                lora.words.push(name);
                continue;
            }
            if let Some(word) = bundled_word(&name) {
                if !lora.words.iter().any(|known| known == word) {
                    lora.words.push(word.to_owned());
                }
                continue;
            }
            let Some(key) = key::parse(&name) else {
                lora.unknown.push(name);
                continue;
            };
            let parts = lora.modules.entry((key.network, key.module)).or_default();
            if let Some(other) = parts.insert(key.part, name.clone()) {
                return Err(lora.file.error(format!("says the same twice, as {other} and as {name}")));
            }
        }
        Ok(lora)
    }

    /// The words of its own that the file carries along as textual inversions.
    pub fn words(&self) -> &[String] {
        &self.words
    }

    /// The changes that it makes to a model, times `scale`.
    ///
    /// # Errors
    /// [`crate::Error::File`] saying why it is for another kind of model, or naming the tensors that fit nothing.
    pub fn changes(&self, model: &ModelLayout, scale: f64) -> Result<BTreeMap<Network, Changes>> {
        family::check(self, model).map_err(|reason| self.file.error(reason))?;
        let mut placed = BTreeMap::<(Network, &str), (&Spelling, &Parts)>::new();
        let mut lost: Vec<&str> = self.unknown.iter().map(String::as_str).collect();
        let home = self.home_of_unnamed(model)?;
        for ((network, module), parts) in &self.modules {
            match model.find(network.or(home), module) {
                None => lost.extend(parts.values().map(String::as_str)),
                Some(place) => {
                    if let Some((_, other)) = placed.insert(place, (module, parts))
                        && !self.same(other, parts)?
                    {
                        return Err(self.file.error(format!(
                            "changes {} twice, as {} and as {}",
                            place.1,
                            first_name(other),
                            first_name(parts)
                        )));
                    }
                }
            }
        }
        if !lost.is_empty() {
            return Err(self.file.error(format!(
                "has {} of {} tensors that fit nothing in this model: {}{}",
                lost.len(),
                self.file.len(),
                some_of(&lost),
                family::unread_kind(&lost)
                    .map_or(String::new(), |kind| format!("; {kind} is not implemented")),
            )));
        }
        self.metadata.check_numbers(&self.modules, model).map_err(|reason| self.file.error(reason))?;
        let mut changes = BTreeMap::<Network, Changes>::new();
        let mut faults = Vec::new();
        for ((network, module), (_, parts)) in placed {
            match self.build(network, module, parts, model, scale) {
                Ok(change) => {
                    let network = changes.entry(network).or_default();
                    for (tensor, change) in [("weight", change.weight), ("bias", change.bias)] {
                        network.0.extend(change.map(|change| (format!("{module}.{tensor}"), vec![change])));
                    }
                }
                Err(reason) => faults.push(format!("{} {reason}", stem(first_name(parts)))),
            }
        }
        match faults.is_empty() {
            true => Ok(changes),
            false => {
                let faults: Vec<&str> = faults.iter().map(String::as_str).collect();
                Err(self.file.error(format!("does not fit this model: {}", some_of(&faults))))
            }
        }
    }

    /// The one network that all modules fit whose names say none, as those of a file that PEFT saved of one network
    /// alone: its first layers may have namesakes in another. `None` where there are no such modules or no such network.
    fn home_of_unnamed(&self, model: &ModelLayout) -> Result<Option<Network>> {
        let unnamed: Vec<_> = self.modules.iter().filter(|((network, _), _)| network.is_none()).collect();
        let fits = |network: &Network| {
            unnamed.iter().all(|((_, module), parts)| {
                model
                    .find(Some(*network), module)
                    .is_some_and(|(network, module)| self.build(network, module, parts, model, 1.0).is_ok())
            })
        };
        let homes: Vec<Network> = match unnamed.is_empty() {
            true => Vec::new(),
            false => model.networks().filter(fits).collect(),
        };
        match homes.as_slice() {
            [] => Ok(None),
            [one] => Ok(Some(*one)),
            [first, second, ..] => Err(self.file.error(format!(
                "says of no module whose it is, and fits {} and {} alike; put the network's name before each",
                first.component(),
                second.component()
            ))),
        }
    }

    fn build(
        &self,
        network: Network,
        module: &str,
        parts: &Parts,
        model: &ModelLayout,
        scale: f64,
    ) -> std::result::Result<ModuleChange, String> {
        let shape = |tensor| model.network(network)?.shape(&format!("{module}.{tensor}"));
        let factor = |rank| self.metadata.factor(network, module, rank);
        let first_inputs = (network == Network::Unet && module == "conv_in").then_some(LATENT_CHANNELS);
        let builder = Builder { file: &self.file, parts, scale, factor: &factor, first_inputs };
        builder.build(shape("weight"), shape("bias"))
    }

    /// Whether two spellings of one module hold the same numbers, as files do that name everything in two ways.
    fn same(&self, one: &Parts, other: &Parts) -> Result<bool> {
        if !one.keys().eq(other.keys()) {
            return Ok(false);
        }
        for (a, b) in one.values().zip(other.values()) {
            if self.file.shape(a) != self.file.shape(b) || self.file.bytes(a)? != self.file.bytes(b)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// All modules with what they are made of.
    fn modules(&self) -> impl Iterator<Item = (Option<Network>, &Spelling, Builder<'_>)> {
        self.modules.iter().map(|((network, module), parts)| {
            (
                *network,
                module,
                Builder { file: &self.file, parts, scale: 1.0, factor: &|_| None, first_inputs: None },
            )
        })
    }
}

/// The word of its own that a tensor belongs to, in a file that bundles textual inversions with a LoRA as A1111 reads
/// them: `bundle_emb.NAME.string_to_param.*` and the like.
fn bundled_word(name: &str) -> Option<&str> {
    let rest = name.strip_prefix("bundle_emb.")?;
    Some(rest.split_once('.').map_or(rest, |(word, _)| word))
}

fn first_name(parts: &Parts) -> &str {
    parts.values().next().map_or("", String::as_str)
}

/// A tensor's name without its part, which stands for the whole module.
fn stem(name: &str) -> &str {
    name.find(".lora").or_else(|| name.rfind(['.', ':'])).map_or(name, |end| &name[..end])
}

/// The first few of a list, and how many more there are.
fn some_of(names: &[&str]) -> String {
    let first = names[..names.len().min(NAMED)].join(", ");
    match names.len().saturating_sub(NAMED) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}
