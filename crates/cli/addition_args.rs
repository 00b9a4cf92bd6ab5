//! What was typed of the things that go on top of a model: reference pictures, concepts, embeddings.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

#[derive(Debug, Args)]
#[command(next_help_heading = "Reference pictures")]
pub(crate) struct ReferenceArgs {
    /// A picture that shows how the new part should look, and how strongly it is followed, 0 to 5; may be repeated
    /// [default scale: 0.9]
    #[arg(long = "ip-image", value_name = "FILE[:SCALE]")]
    pub(crate) images: Vec<String>,
    /// What to take over: colours, material and manner (style), the whole look by a Plus adapter (character), or all that
    /// the adapter sees (full) [default: style]
    #[arg(long = "ip-type", value_name = "TYPE", requires = "images")]
    pub(crate) kind: Option<IpType>,
    /// The adapter's .safetensors file [default: the model's own, or one that is known by its name]
    #[arg(long = "ip-adapter", value_name = "FILE", requires = "images")]
    pub(crate) adapter: Option<PathBuf>,
    /// The folder of the image encoder of --ip-adapter [default: one that fits, beside it or in a known place]
    #[arg(long, value_name = "DIR", requires = "adapter")]
    pub(crate) image_encoder: Option<PathBuf>,
    /// Where an --ip-image is followed: white; one for each, in their order [default: everywhere]
    #[arg(long = "ip-mask", value_name = "FILE", requires = "images")]
    pub(crate) masks: Vec<PathBuf>,
    /// The attention blocks that listen, over those of --ip-type: all, style, style-and-layout, or diffusers' map as JSON
    #[arg(long = "ip-blocks", value_name = "BLOCKS", requires = "images")]
    pub(crate) blocks: Option<String>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Concepts and words")]
pub(crate) struct ConceptArgs {
    /// A LoRA by its name in the models folder or by its file, and its weight, -2 to 2; may be repeated [default scale: 1]
    #[arg(long = "lora", value_name = "ID|FILE[:SCALE]")]
    pub(crate) loras: Vec<String>,
    /// A textual inversion, beside those in the models folder; the prompt names it by the file's name; may be repeated
    #[arg(long = "embedding", value_name = "FILE")]
    pub(crate) embeddings: Vec<PathBuf>,
}

/// What reference pictures are given for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum IpType {
    Style,
    Character,
    Full,
}

impl IpType {
    /// As it is typed.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Style => "style",
            Self::Character => "character",
            Self::Full => "full",
        }
    }
}
