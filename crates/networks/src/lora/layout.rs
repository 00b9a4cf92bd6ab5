//! The modules of a model, and every way in which trainers spell their names.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::key::{Network, Spelling};
use super::numbers;
use crate::weights::Weights;

/// What a LoRA may change in a model: the modules of its networks with the shapes of their tensors.
#[derive(Debug, Default)]
pub struct ModelLayout {
    networks: BTreeMap<Network, NetworkLayout>,
}

/// The modules of one network.
#[derive(Debug)]
pub(super) struct NetworkLayout {
    /// Canonical name of a tensor, such as `conv_in.weight`, to its shape.
    tensors: BTreeMap<String, Vec<usize>>,
    /// Every spelling of a module to its canonical name.
    spellings: HashMap<String, String>,
    /// Modules in the order in which the first trainer numbered them.
    numbers: Vec<String>,
}

impl ModelLayout {
    /// Adds a network by the names and shapes of its weights; nothing of them is read.
    pub fn add(&mut self, network: Network, weights: &Weights) {
        self.networks.insert(network, NetworkLayout::new(network, weights.shapes()));
    }

    pub(super) fn network(&self, network: Network) -> Option<&NetworkLayout> {
        self.networks.get(&network)
    }

    /// The networks that there are.
    pub(super) fn networks(&self) -> impl Iterator<Item = Network> {
        self.networks.keys().copied()
    }

    /// The module that a trainer's name means: the network is asked that the name says, or each in turn.
    pub(super) fn find(&self, network: Option<Network>, module: &Spelling) -> Option<(Network, &str)> {
        let asked = self.networks.iter().filter(|(n, _)| network.is_none_or(|network| network == **n));
        asked.filter_map(|(n, layout)| Some((*n, layout.find(module)?))).next()
    }
}

impl NetworkLayout {
    fn new(network: Network, tensors: BTreeMap<String, Vec<usize>>) -> Self {
        let modules: BTreeSet<&str> =
            tensors.keys().filter_map(|name| Some(name.rsplit_once('.')?.0)).collect();
        let modules: Vec<&str> = modules.into_iter().collect();
        let stability = StabilityNames::of(&modules);
        let mut spellings = HashMap::new();
        for module in &modules {
            let mut names = vec![(*module).to_owned()];
            match network {
                Network::Unet => names.extend(stability.name(module)),
                Network::TextEncoder | Network::TextEncoder2 => names.extend(old_projection(module)),
            }
            // diffusers once left the number out of an attention's output.
            names.extend(short_names(&names, |name| {
                name.strip_suffix(".to_out.0").map(|n| format!("{n}.to_out"))
            }));
            // transformers 5 writes a text encoder without its first level.
            names.extend(short_names(&names, |name| name.strip_prefix("text_model.").map(str::to_owned)));
            for name in names {
                // kohya's trainer writes underscores for dots.
                spellings.insert(name.replace('.', "_"), (*module).to_owned());
                spellings.insert(name, (*module).to_owned());
            }
        }
        let numbers = numbers::modules(network, &modules);
        Self { tensors, spellings, numbers }
    }

    /// The shape of a tensor by its canonical name.
    pub(super) fn shape(&self, tensor: &str) -> Option<&[usize]> {
        self.tensors.get(tensor).map(Vec::as_slice)
    }

    /// All canonical names of tensors.
    pub(super) fn tensors(&self) -> impl Iterator<Item = (&str, &[usize])> {
        self.tensors.iter().map(|(name, shape)| (name.as_str(), shape.as_slice()))
    }

    /// How many modules the first trainer numbered.
    pub(super) fn numbered(&self) -> usize {
        self.numbers.len()
    }

    fn find(&self, module: &Spelling) -> Option<&str> {
        match module {
            Spelling::Path(path) => self.spellings.get(path).map(String::as_str),
            Spelling::Number(number) => self.numbers.get(*number).map(String::as_str),
        }
    }
}

fn short_names(names: &[String], shorten: impl Fn(&str) -> Option<String>) -> Vec<String> {
    names.iter().filter_map(|name| shorten(name)).collect()
}

/// A projection of a text encoder's attention, as diffusers called it when it patched the encoder itself.
fn old_projection(module: &str) -> Option<String> {
    const PROJECTIONS: [(&str, &str); 4] =
        [("q_proj", "to_q"), ("k_proj", "to_k"), ("v_proj", "to_v"), ("out_proj", "to_out")];
    let (attention, projection) = module.rsplit_once('.')?;
    let (_, old) = PROJECTIONS.iter().find(|(present, _)| *present == projection)?;
    Some(format!("{attention}.{old}"))
}

/// Stability's names of a UNet's modules (`input_blocks.4.1...`): a level's residual blocks and its resampling are
/// numbered through, and an attention stands beside its residual block.
struct StabilityNames {
    /// Residual blocks of a level on the way down.
    layers_per_block: usize,
    /// Levels on the way up that have attention.
    attended: BTreeSet<usize>,
}

impl StabilityNames {
    fn of(modules: &[&str]) -> Self {
        let number = |text: &str| text.split('.').next()?.parse::<usize>().ok();
        let layers = modules.iter().filter_map(|m| number(m.strip_prefix("down_blocks.0.resnets.")?));
        let attended = modules.iter().filter_map(|module| {
            let (level, rest) = module.strip_prefix("up_blocks.")?.split_once('.')?;
            rest.starts_with("attentions.").then(|| level.parse().ok())?
        });
        Self { layers_per_block: layers.max().map_or(1, |last| last + 1), attended: attended.collect() }
    }

    fn name(&self, module: &str) -> Option<String> {
        const TOP: [(&str, &str); 7] = [
            ("conv_in", "input_blocks.0.0"),
            ("time_embedding.linear_1", "time_embed.0"),
            ("time_embedding.linear_2", "time_embed.2"),
            ("add_embedding.linear_1", "label_emb.0.0"),
            ("add_embedding.linear_2", "label_emb.0.2"),
            ("conv_norm_out", "out.0"),
            ("conv_out", "out.2"),
        ];
        if let Some((_, name)) = TOP.iter().find(|(present, _)| *present == module) {
            return Some((*name).to_owned());
        }
        let per_level = self.layers_per_block + 1;
        let mut segments = module.split('.');
        let direction = segments.next()?;
        let level = if direction == "mid_block" { 0 } else { segments.next()?.parse::<usize>().ok()? };
        let (kind, layer) = (segments.next()?, segments.next()?.parse::<usize>().ok()?);
        let inner = segments.collect::<Vec<_>>().join(".");
        let block = match (direction, kind) {
            ("down_blocks", "resnets") => format!("input_blocks.{}.0", 1 + level * per_level + layer),
            ("down_blocks", "attentions") => format!("input_blocks.{}.1", 1 + level * per_level + layer),
            ("down_blocks", "downsamplers") => format!("input_blocks.{}.0", (level + 1) * per_level),
            ("mid_block", "resnets") => format!("middle_block.{}", 2 * layer),
            ("mid_block", "attentions") => format!("middle_block.{}", 2 * layer + 1),
            ("up_blocks", "resnets") => format!("output_blocks.{}.0", level * per_level + layer),
            ("up_blocks", "attentions") => format!("output_blocks.{}.1", level * per_level + layer),
            ("up_blocks", "upsamplers") => {
                let place = if self.attended.contains(&level) { 2 } else { 1 };
                format!("output_blocks.{}.{place}", level * per_level + self.layers_per_block)
            }
            _ => return None,
        };
        let inner = match (kind, inner.as_str()) {
            ("resnets", "norm1") => "in_layers.0",
            ("resnets", "conv1") => "in_layers.2",
            ("resnets", "time_emb_proj") => "emb_layers.1",
            ("resnets", "norm2") => "out_layers.0",
            ("resnets", "conv2") => "out_layers.3",
            ("resnets", "conv_shortcut") => "skip_connection",
            ("downsamplers", "conv") => "op",
            (_, inner) => inner,
        };
        Some(format!("{block}.{inner}"))
    }
}
