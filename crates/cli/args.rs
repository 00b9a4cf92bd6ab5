//! What was typed: the command line as clap reads it, not yet checked against anything but its own form.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;

use clap::builder::{NonEmptyStringValueParser, PossibleValuesParser};
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use infill_engine::request::{CLIP_SKIP, CROP_PADDING, FEATHER, PROMPT_LIMIT, SAMPLES, SIDES, STEPS};
use infill_engine::scheduler::{SchedulerKind, TimestepSpacing};
use serde_json::Value;

use crate::addition_args::{ConceptArgs, ReferenceGroups};
use crate::store_args::{AssetsArgs, JobsArgs, LimitArgs};

pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    failed while running
  2    refused: a flag, a picture, a mask, a settings file or a model that can't be used
  130  cancelled (Ctrl-C)";

/// Over the flags that say what is written: what is flattened before them has a heading of its own.
const OUTPUT: &str = "Output";

const INPAINT_NOTES: &str = "\
The picture is a PNG with its recipe inside. Its path goes to standard output, everything else to standard error. A \
file that is already at --out is replaced, once the new picture is complete; but IMAGE and MASK themselves are \
replaced only with --force. --samples above 1 writes NAME-0.png, NAME-1.png, ...; picture i has the seed SEED + i.

Settings that are not typed are taken from the environment (INFILL_MODEL, INFILL_MODELS, INFILL_DEVICE, \
INFILL_DTYPE, INFILL_VAE_TILE_SIZE, INFILL_NOISE_RULE), then from the settings file ($INFILL_CONFIG, else ~/.config/infill/config.toml: \
model, models, device, dtype, vae-tile-size, noise-rule). INFILL_LOG=info logs each stage.";

const SERVE_NOTES: &str = "\
Settings that are not typed are taken from the environment (INFILL_MODELS, INFILL_DEVICE, INFILL_DTYPE, \
INFILL_VAE_TILE_SIZE, INFILL_STORE, INFILL_MAX_SIZE, INFILL_MAX_AGE, INFILL_TOKEN), then from the settings file ($INFILL_CONFIG, else ~/.config/infill/config.toml: \
models, device, dtype, vae-tile-size, store, max-size, max-age, allow-dir).";

const NOISE_NOTES: &str = "\
The fingerprint is the SHA-256 of the values, widened to f32, as little-endian bytes in row-major order.";

/// Offline inpainting: image, mask and words in, picture out.
#[derive(Debug, Parser)]
#[command(name = "infill", version, after_help = EXIT_CODES, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Repaint the white part of a mask in a picture.
    Inpaint(Box<InpaintArgs>),
    /// Show what the built-in model can do, as one sheet of pictures.
    #[command(hide = !infill_models::embedded::is_there())]
    Demo(DemoArgs),
    /// Print a fingerprint of the noise that a seed gives, to compare engines.
    Noise(NoiseArgs),
    /// Serve the tools over MCP, on standard input and output or over HTTP.
    Serve(Box<ServeArgs>),
    /// List, show or fetch models.
    Models(ModelsArgs),
    /// Add, list, show, copy out, remove or prune the pictures of the store.
    Assets(AssetsArgs),
    /// List, show or cancel the jobs of the store.
    Jobs(JobsArgs),
    /// Print the completion script of a shell.
    Completions {
        /// The shell to complete for.
        shell: Shell,
    },
}

/// Which model runs, and on what.
#[derive(Debug, Args)]
pub(crate) struct DeviceArgs {
    /// Where to run: auto, cpu, cuda, cuda:N or metal [default: auto]
    #[arg(long, value_name = "DEVICE")]
    pub(crate) device: Option<String>,
    /// Number format: auto, f32, f16 or bf16 [default: auto, f32 on the CPU and f16 elsewhere]
    #[arg(long, value_name = "FORMAT", hide_possible_values = true)]
    #[arg(value_parser = PossibleValuesParser::new(["auto", "f32", "f16", "bf16"]))]
    pub(crate) dtype: Option<String>,
    /// Let pictures larger than PX x PX pixels through the VAE in overlapping tiles of that size: less memory, slightly
    /// other pixels; a multiple of 32 from 128 to 4096 [default: in one piece]
    #[arg(long, value_name = "PX", allow_negative_numbers = true)]
    pub(crate) vae_tile_size: Option<String>,
    /// Folder in which models, adapters, LoRAs and embeddings are looked up by name [default:
    /// ~/.local/share/infill/models]
    #[arg(long, value_name = "DIR")]
    pub(crate) models: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = format!("{INPAINT_NOTES}\n\n{EXIT_CODES}"))]
pub(crate) struct InpaintArgs {
    /// The picture to change: PNG, JPEG or WebP
    #[arg(value_name = "IMAGE")]
    pub(crate) image: PathBuf,
    /// The mask, of the picture's size: white is repainted, black is kept
    #[arg(long, value_name = "MASK")]
    pub(crate) mask: PathBuf,
    /// What to paint
    #[arg(long, value_name = "TEXT")]
    pub(crate) prompt: String,
    /// What to paint, for the second text encoder of SDXL [default: the prompt]
    #[arg(long, value_name = "TEXT")]
    pub(crate) prompt_2: Option<String>,
    /// What not to paint
    #[arg(long, value_name = "TEXT")]
    pub(crate) negative: Option<String>,
    /// What not to paint, for the second text encoder of SDXL [default: the negative prompt]
    #[arg(long, value_name = "TEXT")]
    pub(crate) negative_2: Option<String>,
    /// The model: a folder in diffusers' layout, or an id of `infill models list`
    #[arg(long, value_name = "ID|DIR", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) model: Option<String>,
    /// Any 64-bit number, also hexadecimal (0x...) or negative, which is a seed like any other and reported as it is
    /// without a sign [default: random, and reported]
    #[arg(long, value_name = "N", value_parser = seed, allow_hyphen_values = true)]
    pub(crate) seed: Option<u64>,
    /// Denoising steps, 1 to 150; the picture gets STEPS x STRENGTH of them [default: 30]
    #[arg(long, value_name = "N", value_parser = whole(STEPS), allow_negative_numbers = true)]
    pub(crate) steps: Option<usize>,
    /// How much of the picture under the mask is noised away, above 0 and up to 1 [default: 0.75]
    #[arg(long, value_name = "X", value_parser = real("a number above 0, up to 1"), allow_negative_numbers = true)]
    pub(crate) strength: Option<f64>,
    /// How strongly the prompt guides each step, 0 to 100; up to 1 guidance is off and --negative does nothing [default:
    /// the model's own, else 6 for SDXL and 7.5 for SD 1.5]
    #[arg(long, value_name = "X", value_parser = real("a number from 0 to 100"), allow_negative_numbers = true)]
    pub(crate) guidance: Option<f64>,
    /// How far guidance keeps the unguided contrast, 0 to 1 [default: 0]
    #[arg(long, value_name = "X", value_parser = real("a number from 0 to 1"), allow_negative_numbers = true)]
    pub(crate) guidance_rescale: Option<f64>,
    /// diffusers' class name of the scheduler [default: the model's own]
    #[arg(long, value_name = "CLASS")]
    #[arg(value_parser = PossibleValuesParser::new(SchedulerKind::ALL.map(SchedulerKind::name)))]
    pub(crate) scheduler: Option<String>,
    /// Where the steps lie on the schedule; trailing for Lightning, Turbo and Hyper models [default: the model's own]
    #[arg(long, value_name = "WHERE")]
    #[arg(value_parser = PossibleValuesParser::new(TimestepSpacing::ALL.map(|(name, _)| name)))]
    pub(crate) timestep_spacing: Option<String>,
    /// Another value of the scheduler's configuration, by diffusers' name, such as use_karras_sigmas=true; may be repeated
    #[arg(long = "scheduler-option", value_name = "KEY=VALUE", value_parser = key_value)]
    pub(crate) scheduler_options: Vec<(String, Value)>,
    /// Noise that DDIM and TCD add at each step, 0 to 1 [default: 0]
    #[arg(long, value_name = "X", value_parser = real("a number from 0 to 1"), allow_negative_numbers = true)]
    pub(crate) eta: Option<f64>,
    /// Cut longer prompts at 77 tokens, as diffusers does, and say what was cut [default: read them whole]
    #[arg(long, value_name = "N", value_parser = prompt_limit, allow_negative_numbers = true)]
    pub(crate) prompt_limit: Option<usize>,
    /// How brackets are read: weighted, so that (word) and (word:1.3) count more and [word] less, or plain [default:
    /// weighted]
    #[arg(long, value_name = "SYNTAX", hide_possible_values = true)]
    #[arg(value_parser = PossibleValuesParser::new(["weighted", "plain"]))]
    pub(crate) prompt_syntax: Option<String>,
    /// Last layers of the text encoders to leave out; the most depends on the model, and a refusal names it [default: 0]
    #[arg(long, value_name = "N", value_parser = whole(CLIP_SKIP), allow_negative_numbers = true)]
    pub(crate) clip_skip: Option<usize>,
    /// Width to work at, a multiple of 8 from 64 to 4096 [default: the picture's, rounded to 8]
    #[arg(long, value_name = "N", value_parser = side, allow_negative_numbers = true)]
    pub(crate) width: Option<u32>,
    /// Height to work at, a multiple of 8 from 64 to 4096 [default: the picture's, rounded to 8]
    #[arg(long, value_name = "N", value_parser = side, allow_negative_numbers = true)]
    pub(crate) height: Option<u32>,
    /// Work only on the mask's surroundings, this many pixels beyond it, 0 to 4096, the soft edge at least [default: the
    /// whole picture]
    #[arg(long, value_name = "PX", value_parser = whole(CROP_PADDING), allow_negative_numbers = true)]
    pub(crate) crop_padding: Option<u32>,
    /// Pictures to make, from consecutive seeds, 1 to 128 [default: 1]
    #[arg(long, value_name = "N", value_parser = whole(SAMPLES), allow_negative_numbers = true)]
    pub(crate) samples: Option<usize>,
    /// Give the model's whole picture, also outside the mask
    #[arg(long)]
    pub(crate) no_merge: bool,
    /// Width of the soft edge around the mask, 0 to 512 pixels [default: 0]
    #[arg(long, value_name = "PX", value_parser = whole(FEATHER), allow_negative_numbers = true, conflicts_with = "no_merge")]
    pub(crate) feather: Option<u32>,
    /// Bring the painted colours to those around the mask, so that no seam is seen
    #[arg(long, alias = "match-colors", conflicts_with = "no_merge")]
    pub(crate) match_colours: bool,
    /// Whose noise in half precision: torch (2.12 and newer) or torch-2.11 (and older) [default: torch]
    #[arg(long, value_name = "RULE", hide_possible_values = true)]
    #[arg(value_parser = PossibleValuesParser::new(["torch", "torch-2.11"]))]
    pub(crate) noise_rule: Option<String>,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
    #[command(flatten)]
    pub(crate) references: ReferenceGroups,
    #[command(flatten)]
    pub(crate) concepts: ConceptArgs,
    /// Where the picture goes, a name ending in .png
    #[arg(long, value_name = "PATH", help_heading = OUTPUT)]
    pub(crate) out: PathBuf,
    /// Also write the picture before, the mask and the result side by side, to a name ending in .png
    #[arg(long, value_name = "PATH", help_heading = OUTPUT)]
    pub(crate) strip: Option<PathBuf>,
    /// Let --out and --strip replace IMAGE or MASK
    #[arg(long, help_heading = OUTPUT)]
    pub(crate) force: bool,
    /// Print one JSON object on standard output instead of the paths
    #[arg(long, help_heading = OUTPUT)]
    pub(crate) json: bool,
    /// No progress, no notes and no warnings on standard error
    #[arg(long, short, help_heading = OUTPUT)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct DemoArgs {
    /// Where the sheet goes, a name ending in .png; what is there is replaced
    #[arg(long, value_name = "PATH", default_value = "infill-demo.png")]
    pub(crate) out: PathBuf,
    /// Denoising steps of each picture, 2 to 150
    #[arg(long, value_name = "N", value_parser = whole(STEPS), allow_negative_numbers = true, default_value = "14")]
    pub(crate) steps: usize,
    /// Any 64-bit number, also negative or hexadecimal (0x...)
    #[arg(long, value_name = "N", value_parser = seed, allow_hyphen_values = true, default_value = "1")]
    pub(crate) seed: u64,
    /// Where to run: auto, cpu, cuda, cuda:N or metal [default: auto]
    #[arg(long, value_name = "DEVICE")]
    pub(crate) device: Option<String>,
    /// Number format: auto, f32, f16 or bf16 [default: auto, f32 on the CPU and f16 elsewhere]
    #[arg(long, value_name = "FORMAT", hide_possible_values = true)]
    #[arg(value_parser = PossibleValuesParser::new(["auto", "f32", "f16", "bf16"]))]
    pub(crate) dtype: Option<String>,
    /// Print one JSON object on standard output instead of the path
    #[arg(long)]
    pub(crate) json: bool,
    /// No progress on standard error
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Args)]
#[command(after_help = format!("{NOISE_NOTES}\n\n{EXIT_CODES}"))]
pub(crate) struct NoiseArgs {
    /// Any 64-bit number, also negative or hexadecimal (0x...)
    #[arg(long, value_name = "N", value_parser = seed, allow_hyphen_values = true)]
    pub(crate) seed: u64,
    /// The tensor's shape, such as 1,4,64,64
    #[arg(long, value_name = "N,N,...", value_parser = shape, allow_hyphen_values = true)]
    pub(crate) shape: Shape,
    /// Number format
    #[arg(long, value_name = "FORMAT", default_value = "f32")]
    pub(crate) dtype: NoiseFormat,
    /// Whose noise in half precision: torch (2.12 and newer) or torch-2.11 (and older)
    #[arg(long, value_name = "RULE", default_value = "torch")]
    pub(crate) rule: HalfRule,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = format!("{SERVE_NOTES}\n\n{EXIT_CODES}"))]
pub(crate) struct ServeArgs {
    /// Serve over HTTP, with a page for people at /, on IP:PORT or a bare port of this machine; port 0 takes a free
    /// one [default: standard input and output]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) http: Option<String>,
    /// File with the token that clients must show (or INFILL_TOKEN); needed where other machines reach the address
    #[arg(long, value_name = "FILE", requires = "http")]
    pub(crate) token_file: Option<PathBuf>,
    /// Further host name under which clients reach the server, as behind a proxy; may be repeated
    #[arg(long = "allow-host", value_name = "NAME", requires = "http")]
    pub(crate) allow_hosts: Vec<String>,
    /// Address by which clients reach the server, such as https://example.com: links to pictures lead there, and
    /// its host is allowed [default: files on this machine; else the bound address, or asset:// links on 0.0.0.0]
    #[arg(long, value_name = "URL", requires = "http")]
    pub(crate) public_url: Option<String>,
    /// Form of the log on standard error
    #[arg(long, value_enum, value_name = "FORM", default_value_t = LogFormat::Text)]
    pub(crate) log_format: LogFormat,
    /// Folder whose files the tools may read as file:// links; may be repeated [default: none]
    #[arg(long = "allow-dir", value_name = "DIR")]
    pub(crate) allow_dirs: Vec<PathBuf>,
    /// Folder where pictures and jobs are kept [default: the user's data folder]
    #[arg(long, value_name = "DIR")]
    pub(crate) store: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) limits: LimitArgs,
    /// How long a call waits for its pictures before it is answered with the job, which goes on; 0: not at all
    #[arg(long, value_name = "SECONDS", default_value_t = 45, value_parser = wait_seconds, allow_negative_numbers = true)]
    pub(crate) wait_seconds: u32,
    /// Bring painted colours to those around the mask, so that no seam is seen
    #[arg(long, alias = "match-colors")]
    pub(crate) match_colours: bool,
    /// Where the steps of every run lie on the schedule; trailing for Lightning, Turbo and Hyper LoRAs [default: the
    /// model's own]
    #[arg(long, value_name = "WHERE")]
    #[arg(value_parser = PossibleValuesParser::new(TimestepSpacing::ALL.map(|(name, _)| name)))]
    pub(crate) timestep_spacing: Option<String>,
    #[command(flatten)]
    pub(crate) device: DeviceArgs,
}

/// How a log line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub(crate) struct ModelsArgs {
    #[command(subcommand)]
    pub(crate) command: ModelsCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ModelsCommand {
    /// List the known models, and the adapters, LoRAs and embeddings that are here.
    List {
        #[command(flatten)]
        place: ModelsPlace,
    },
    /// Show what is in a model.
    Show {
        /// The model: a folder in diffusers' layout, or an id of `infill models list`
        #[arg(value_name = "ID|DIR")]
        model: String,
        #[command(flatten)]
        place: ModelsPlace,
    },
    /// Fetch a model into the hub's cache (in builds with the feature `hub`).
    Pull {
        /// An id of `infill models list`
        #[arg(value_name = "ID")]
        model: String,
        /// Fetch the weights in half precision where there are such: half the bytes
        #[arg(long)]
        fp16: bool,
        /// Print one JSON value
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct ModelsPlace {
    /// Folder in which models are looked up by their id [default: ~/.local/share/infill/models]
    #[arg(long, value_name = "DIR")]
    pub(crate) models: Option<PathBuf>,
    /// Print one JSON value
    #[arg(long)]
    pub(crate) json: bool,
}

/// Number formats of `infill noise`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum NoiseFormat {
    F32,
    F16,
    Bf16,
}

/// Which torch the half-precision noise follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum HalfRule {
    Torch,
    #[value(name = "torch-2.11")]
    Torch211,
}

/// A tensor's shape: a type of its own, because clap reads a bare `Vec` as a flag given several times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shape(pub(crate) Vec<usize>);

// The readers below answer a refusal with what is allowed; `usage` puts the flag and the value before it.

/// A seed: decimal or hexadecimal, signed or not, of 64 bits; negative ones in two's complement, as torch takes them.
fn seed(text: &str) -> Result<u64, String> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let magnitude = match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some(hex) if hex.starts_with(|c: char| c.is_ascii_hexdigit()) => u64::from_str_radix(hex, 16).ok(),
        Some(_) => None,
        None if digits.starts_with(|c: char| c.is_ascii_digit()) => digits.parse().ok(),
        None => None,
    };
    match magnitude {
        Some(n) if !negative => Ok(n),
        Some(n) if n <= 1 << 63 => Ok(n.wrapping_neg()),
        _ => Err(format!("a whole number from {} to {}, also as 0x...", i64::MIN, u64::MAX)),
    }
}

/// Digits that are a number of this type.
fn digits<T: FromStr>(text: &str) -> Option<T> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// A whole number. Whether it lies within `range` is for whoever uses it to check; the refusal of what is none names it.
fn whole<T: FromStr + Display + Clone + Send + Sync + 'static>(
    range: RangeInclusive<T>,
) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static {
    move |text: &str| {
        digits(text).ok_or_else(|| format!("a whole number from {} to {}", range.start(), range.end()))
    }
}

/// A side of the work picture; the range is the engine's to check.
fn side(text: &str) -> Result<u32, String> {
    digits(text).ok_or_else(|| format!("multiples of 8 from {} to {}", SIDES.start(), SIDES.end()))
}

/// A limit in tokens; which one is the engine's to check.
fn prompt_limit(text: &str) -> Result<usize, String> {
    digits(text).ok_or_else(|| format!("{PROMPT_LIMIT}, or no limit: a longer prompt is then read in chunks"))
}

/// How long a call waits, in seconds.
fn wait_seconds(text: &str) -> Result<u32, String> {
    digits(text).filter(|seconds| WAIT_SECONDS.contains(seconds)).ok_or_else(|| {
        format!("a whole number of seconds from {} to {}", WAIT_SECONDS.start(), WAIT_SECONDS.end())
    })
}

/// A number that is not infinite and not NaN; the range is the engine's to check, and `allowed` names it.
fn real(allowed: &'static str) -> impl Fn(&str) -> Result<f64, String> + Clone + Send + Sync + 'static {
    move |text: &str| text.parse().ok().filter(|x: &f64| x.is_finite()).ok_or_else(|| allowed.to_owned())
}

/// A key and its value: JSON where it is such, else a word.
fn key_value(text: &str) -> Result<(String, Value), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => {
            let value = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
            Ok((key.to_owned(), value))
        }
        _ => Err("KEY=VALUE, such as use_karras_sigmas=true".to_owned()),
    }
}

/// A week at most.
const WAIT_SECONDS: RangeInclusive<u32> = 0..=604_800;

/// The most values that `infill noise` draws: a batch of 64 latents of 4096x4096 pixels.
const MOST_VALUES: usize = 1 << 26;

/// A shape of positive dimensions.
fn shape(text: &str) -> Result<Shape, String> {
    let allowed = || {
        format!(
            "positive whole numbers with commas between, such as 1,4,64,64, of at most {MOST_VALUES} values"
        )
    };
    let dims: Vec<usize> =
        text.split(',').map(|part| digits(part.trim())).collect::<Option<_>>().ok_or_else(allowed)?;
    let values = dims.iter().try_fold(1_usize, |product, &dim| product.checked_mul(dim));
    match values {
        Some(n) if n > 0 && n <= MOST_VALUES => Ok(Shape(dims)),
        _ => Err(allowed()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_commands_are_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn seeds_are_any_64_bit_value() {
        assert_eq!(seed("0"), Ok(0));
        assert_eq!(seed("18446744073709551615"), Ok(u64::MAX));
        assert_eq!(seed("-1"), Ok(u64::MAX));
        assert_eq!(seed("-9223372036854775808"), Ok(1 << 63));
        assert_eq!(seed("0xffffffffffffffff"), Ok(u64::MAX));
        assert_eq!(seed("-0x1"), Ok(u64::MAX));
        for bad in
            ["", "-", "--1", "+1", "0x", "0x+1", "18446744073709551616", "-9223372036854775809", "1.0", "ten"]
        {
            assert!(seed(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn shapes_are_positive_and_bounded() {
        assert_eq!(shape("1, 4,64,64").unwrap().0, [1, 4, 64, 64]);
        for bad in ["", "0", "1,,2", "-1", "1,x", "99999999,99999999,99999999", "67108865"] {
            assert!(shape(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn numbers_are_finite() {
        let real = real("a number");
        assert_eq!(real("0.75"), Ok(0.75));
        assert!(real("nan").is_err() && real("inf").is_err() && real("").is_err());
        let whole = whole(FEATHER);
        assert_eq!(whole("+3").unwrap_err(), "a whole number from 0 to 512");
        assert!(whole("4294967296").is_err() && whole("").is_err());
    }
}
