//! What was typed of the things that go on top of a model: reference pictures, concepts, embeddings.

use std::path::PathBuf;

use clap::builder::NonEmptyStringValueParser;
use clap::{ArgAction, ArgMatches, Args, Command, FromArgMatches, ValueEnum};

/// The reference pictures of each adapter. Where several adapters are named, what is typed from one `--ip-adapter` on to
/// the next belongs to it, and what is typed before the first belongs to the first.
#[derive(Debug)]
pub(crate) struct ReferenceGroups(pub(crate) Vec<ReferenceArgs>);

/// Reference pictures and the adapter that sees them.
#[derive(Debug, Args)]
#[command(next_help_heading = "Reference pictures")]
pub(crate) struct ReferenceArgs {
    /// A picture that shows how the new part should look, and how strongly it is followed, 0 to 5; may be repeated
    /// [default scale: 0.9]
    #[arg(long = "ip-image", value_name = "FILE[:SCALE]", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) images: Vec<String>,
    /// What to take over: colours, material and manner (style), the whole look by a Plus adapter (character), or all that
    /// the adapter sees (full) [default: style]
    #[arg(long = "ip-type", value_name = "TYPE", requires = "images", action = ArgAction::Append)]
    pub(crate) kind: Vec<IpType>,
    /// The adapter's .safetensors file; may be repeated, and what follows belongs to it [default: the model's own, or one
    /// that is known by its name]
    #[arg(long = "ip-adapter", value_name = "FILE", requires = "images", action = ArgAction::Append)]
    pub(crate) adapter: Vec<PathBuf>,
    /// The folder of the image encoder of --ip-adapter [default: one that fits, beside it or in a known place]
    #[arg(long, value_name = "DIR", requires = "adapter", action = ArgAction::Append)]
    pub(crate) image_encoder: Vec<PathBuf>,
    /// Where an --ip-image is followed: white; one for each, in their order [default: everywhere]
    #[arg(long = "ip-mask", value_name = "FILE", requires = "images")]
    pub(crate) masks: Vec<PathBuf>,
    /// The attention blocks that listen, over those of --ip-type: all, style, style-and-layout, or diffusers' map as JSON
    #[arg(long = "ip-blocks", value_name = "BLOCKS", requires = "images", action = ArgAction::Append)]
    pub(crate) blocks: Vec<String>,
}

impl Args for ReferenceGroups {
    fn augment_args(command: Command) -> Command {
        ReferenceArgs::augment_args(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        ReferenceArgs::augment_args_for_update(command)
    }
}

impl FromArgMatches for ReferenceGroups {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let all = ReferenceArgs::from_arg_matches(matches)?;
        if all.images.is_empty() {
            return Ok(Self(Vec::new()));
        }
        let starts = places(matches, "adapter");
        let group = |number: usize| ReferenceArgs {
            images: of_group(matches, &starts, number, "images", &all.images),
            kind: of_group(matches, &starts, number, "kind", &all.kind),
            adapter: of_group(matches, &starts, number, "adapter", &all.adapter),
            image_encoder: of_group(matches, &starts, number, "image_encoder", &all.image_encoder),
            masks: of_group(matches, &starts, number, "masks", &all.masks),
            blocks: of_group(matches, &starts, number, "blocks", &all.blocks),
        };
        Ok(Self((0..starts.len().max(1)).map(group).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// Where the values of an argument stand on the command line.
fn places(matches: &ArgMatches, argument: &str) -> Vec<usize> {
    matches.indices_of(argument).map(Iterator::collect).unwrap_or_default()
}

/// Those of an argument's values that belong to one of the groups that begin at `starts`.
fn of_group<T: Clone>(
    matches: &ArgMatches,
    starts: &[usize],
    number: usize,
    argument: &str,
    values: &[T],
) -> Vec<T> {
    let group = |place: usize| starts.iter().filter(|start| **start <= place).count().saturating_sub(1);
    let placed = places(matches, argument).into_iter().zip(values);
    placed.filter(|(place, _)| group(*place) == number).map(|(_, value)| value.clone()).collect()
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Concepts and words")]
pub(crate) struct ConceptArgs {
    /// A LoRA by its name in the models folder or by its file, and its weight, -2 to 2; may be repeated [default scale: 1]
    #[arg(long = "lora", value_name = "ID|FILE[:SCALE]", value_parser = NonEmptyStringValueParser::new())]
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
