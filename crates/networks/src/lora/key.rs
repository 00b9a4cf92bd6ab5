//! The names that trainers give the tensors of a LoRA, taken apart: network, module, part.
//!
//! Nothing here knows a model. A name is cut at the segment that says which part of a change it is (`lora_down`,
//! `hada_w1_a`, `.processor.to_q_lora.down`, ...); what stands before it is the module, in the trainer's spelling.

/// A network that a LoRA may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Network {
    /// The first text encoder.
    TextEncoder,
    /// The second text encoder.
    TextEncoder2,
    /// The UNet.
    Unet,
}

impl Network {
    /// Its folder in a checkpoint.
    pub fn component(self) -> &'static str {
        match self {
            Self::Unet => "unet",
            Self::TextEncoder => "text_encoder",
            Self::TextEncoder2 => "text_encoder_2",
        }
    }
}

/// A module as a trainer spells it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Spelling {
    /// The module's path, with dots (PEFT, diffusers) or with underscores for dots (kohya, LyCORIS).
    Path(String),
    /// The module's number in a walk through the network.
    Number(usize),
}

/// What a tensor is to the change of its module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    Down,
    Up,
    Mid,
    UpBias,
    Alpha,
    /// DoRA as PEFT writes it.
    Magnitude,
    /// DoRA as LyCORIS writes it.
    DoraScale,
    HadaW1A,
    HadaW1B,
    HadaW2A,
    HadaW2B,
    HadaT1,
    HadaT2,
    LokrW1,
    LokrW1A,
    LokrW1B,
    LokrW2,
    LokrW2A,
    LokrW2B,
    LokrT2,
    Diff,
    DiffBias,
}

impl Part {
    /// As it stands in errors.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Down => "lora_down (lora_A)",
            Self::Up => "lora_up (lora_B)",
            Self::Mid => "lora_mid",
            Self::UpBias => "lora_B.bias",
            plain => PLAIN.iter().find(|(_, part)| *part == plain).map_or("a part", |(name, _)| name),
        }
    }
}

/// The name of one tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key {
    /// Where the name says so.
    pub(super) network: Option<Network>,
    pub(super) module: Spelling,
    pub(super) part: Part,
}

/// Segments that are a part by themselves, or with the name of a PEFT adapter after them.
const PLAIN: [(&str, Part); 20] = [
    ("alpha", Part::Alpha),
    ("lora_magnitude_vector", Part::Magnitude),
    ("dora_scale", Part::DoraScale),
    ("hada_w1_a", Part::HadaW1A),
    ("hada_w1_b", Part::HadaW1B),
    ("hada_w2_a", Part::HadaW2A),
    ("hada_w2_b", Part::HadaW2B),
    ("hada_t1", Part::HadaT1),
    ("hada_t2", Part::HadaT2),
    ("lokr_w1", Part::LokrW1),
    ("lokr_w1_a", Part::LokrW1A),
    ("lokr_w1_b", Part::LokrW1B),
    ("lokr_w2", Part::LokrW2),
    ("lokr_w2_a", Part::LokrW2A),
    ("lokr_w2_b", Part::LokrW2B),
    ("lokr_t2", Part::LokrT2),
    ("diff", Part::Diff),
    ("diff_b", Part::DiffBias),
    // A norm's own change is a difference like any other (LyCORIS, `modules/norms.py`).
    ("w_norm", Part::Diff),
    ("b_norm", Part::DiffBias),
];

/// Segments that end in `.weight`.
const MATRICES: [(&str, Part); 5] = [
    ("lora_down", Part::Down),
    ("lora_up", Part::Up),
    ("lora_mid", Part::Mid),
    ("lora_A", Part::Down),
    ("lora_B", Part::Up),
];

/// Takes a name apart, or says that it is none that is known.
///
/// Total over all texts.
pub(super) fn parse(name: &str) -> Option<Key> {
    if let Some(key) = numbered(name) {
        return Some(key);
    }
    let segments: Vec<&str> = name.split('.').collect();
    let (module, part) = (1..segments.len()).rev().find_map(|at| {
        let (module, tail) = segments.split_at(at);
        Some((module, part(module, tail)?))
    })?;
    let (network, path) = network(&module.join("."))?;
    let path = without_marks(&path);
    (!path.is_empty()).then_some(Key { network, module: Spelling::Path(path), part })
}

/// The part that the last segments of a name say.
fn part(module: &[&str], tail: &[&str]) -> Option<Part> {
    let of = |table: &[(&str, Part)], segment: &str| {
        table.iter().find(|(name, _)| *name == segment).map(|(_, part)| *part)
    };
    // PEFT may put the adapter's own name before the last segment, or at the end of a parameter.
    let is_name = |segment: &str| !segment.is_empty() && segment != "weight" && segment != "bias";
    match tail {
        [segment] => of(&PLAIN, segment),
        ["lora_magnitude_vector", "weight"] => Some(Part::Magnitude),
        ["lora_magnitude_vector", name, "weight"] if is_name(name) => Some(Part::Magnitude),
        ["lora_B", "bias"] => Some(Part::UpBias),
        ["lora_B", name, "bias"] if is_name(name) => Some(Part::UpBias),
        // diffusers before PEFT: `to_q_lora.down.weight`, `to_q.lora.down.weight`, `lora_linear_layer.down.weight`.
        [direction @ ("down" | "up"), "weight"] => {
            let last = module.last()?;
            let marked = last.ends_with("_lora") || ["lora", "lora_linear_layer"].contains(last);
            marked.then_some(if *direction == "down" { Part::Down } else { Part::Up })
        }
        [segment, "weight"] => of(&MATRICES, segment),
        [segment @ ("lora_A" | "lora_B"), name, "weight"] if is_name(name) => of(&MATRICES, segment),
        [segment, name]
            if is_name(name) && (segment.starts_with("hada_") || segment.starts_with("lokr_")) =>
        {
            of(&PLAIN, segment)
        }
        ["lora_magnitude_vector", name] if is_name(name) => Some(Part::Magnitude),
        _ => None,
    }
}

/// Prefixes that name a network, and whether the module after them is spelled with underscores.
const NETWORKS: [(&str, Network, bool); 10] = [
    ("lora_unet_", Network::Unet, true),
    ("lora_te1_", Network::TextEncoder, true),
    ("lora_te2_", Network::TextEncoder2, true),
    ("lora_te_", Network::TextEncoder, true),
    // LyCORIS outside of kohya's trainer wraps the UNet alone.
    ("lycoris_", Network::Unet, true),
    ("unet.", Network::Unet, false),
    ("model.diffusion_model.", Network::Unet, false),
    ("diffusion_model.", Network::Unet, false),
    ("text_encoder.", Network::TextEncoder, false),
    ("text_encoder_2.", Network::TextEncoder2, false),
];

/// The network that a module's spelling begins with, and the rest. `None` for names with underscores and dots mixed.
fn network(module: &str) -> Option<(Option<Network>, String)> {
    // PEFT's own wrapper stands before or after the network's name.
    const WRAPPER: &str = "base_model.model.";
    let module = module.strip_prefix(WRAPPER).unwrap_or(module);
    for (prefix, network, underscores) in NETWORKS {
        let Some(rest) = module.strip_prefix(prefix) else { continue };
        if underscores && rest.contains('.') {
            return None;
        }
        return Some((Some(network), rest.strip_prefix(WRAPPER).unwrap_or(rest).to_owned()));
    }
    Some((None, module.to_owned()))
}

/// The path without what diffusers put into it before PEFT: `processor`, `_lora`, `lora`, `lora_linear_layer`.
fn without_marks(path: &str) -> String {
    let mut segments: Vec<&str> = path.split('.').filter(|segment| *segment != "processor").collect();
    match segments.last() {
        Some(&("lora" | "lora_linear_layer")) => {
            segments.pop();
        }
        Some(last) => {
            if let (Some(plain), Some(end)) = (last.strip_suffix("_lora"), segments.len().checked_sub(1)) {
                segments[end] = plain;
            }
        }
        None => {}
    }
    segments.join(".")
}

/// `unet:17:down`, as the first trainer of LoRAs for pictures wrote (github.com/cloneofsimo/lora).
fn numbered(name: &str) -> Option<Key> {
    let mut fields = name.split(':');
    let network = match fields.next()? {
        "unet" => Network::Unet,
        "text_encoder" => Network::TextEncoder,
        _ => return None,
    };
    let number = fields.next()?.parse().ok()?;
    let part = match fields.next()? {
        "down" => Part::Down,
        "up" => Part::Up,
        _ => return None,
    };
    fields.next().is_none().then_some(Key { network: Some(network), module: Spelling::Number(number), part })
}
