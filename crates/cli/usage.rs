//! A command line that clap refuses, said in one sentence.

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// What is wrong with the line after `infill COMMAND`, in the form all of infill's refusals have.
pub(crate) fn sentence(error: &clap::Error, command: &str) -> String {
    let flag = text_of(error, ContextKind::InvalidArg).unwrap_or_else(|| "an argument".to_owned());
    let value = text_of(error, ContextKind::InvalidValue).unwrap_or_default();
    match error.kind() {
        ErrorKind::ValueValidation => {
            // The readers of `args` say what is allowed.
            let allowed = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
            format!("{} is \"{value}\"; allowed: {allowed}", bare(&flag))
        }
        ErrorKind::InvalidValue if value.is_empty() => format!("{} has no value", bare(&flag)),
        ErrorKind::InvalidValue => {
            let allowed = text_of(error, ContextKind::ValidValue).unwrap_or_default();
            format!("{} is \"{value}\"; allowed: {allowed}", bare(&flag))
        }
        ErrorKind::UnknownArgument => {
            let elsewhere = if command == "inpaint" { &ELSEWHERE[..] } else { &[] };
            let known = elsewhere.iter().find(|(names, _)| names.contains(&flag.as_str()));
            let near = known.map(|(_, own)| (*own).to_owned());
            let near = near.or_else(|| text_of(error, ContextKind::SuggestedArg));
            let near = near.map(|near| format!(", perhaps {near} was meant"));
            format!("{flag} is no argument of this command{}", near.unwrap_or_default())
        }
        ErrorKind::InvalidSubcommand => {
            let name = text_of(error, ContextKind::InvalidSubcommand).unwrap_or_default();
            format!("\"{name}\" is no command of infill; `infill --help` lists them")
        }
        ErrorKind::MissingRequiredArgument => {
            format!("missing: {flag}")
        }
        ErrorKind::ArgumentConflict => match text_of(error, ContextKind::PriorArg) {
            Some(prior) if prior != flag => {
                format!("{} can't be given together with {}", bare(&flag), bare(&prior))
            }
            _ => format!("{} is given more than once", bare(&flag)),
        },
        ErrorKind::InvalidUtf8 => "an argument is not UTF-8".to_owned(),
        _ => first_line(&error.to_string()),
    }
}

/// What diffusers, ComfyUI, InvokeAI and A1111 call arguments of `infill inpaint`, and what they are called here: by their
/// letters they would be taken for something else.
const ELSEWHERE: [(&[&str], &str); 11] = [
    (&["--guidance-scale", "--guidance_scale", "--cfg", "--cfg-scale", "--cfg_scale"], "--guidance"),
    (&["--sampler", "--sampler-name", "--sampler_name"], "--scheduler"),
    (
        &[
            "--batch",
            "--batch-size",
            "--num-images",
            "--n-iter",
            "--num-images-per-prompt",
            "--num_images_per_prompt",
        ],
        "--samples",
    ),
    (&["--num-inference-steps", "--num_inference_steps"], "--steps"),
    (&["--denoise", "--denoising-strength", "--denoising_strength"], "--strength"),
    (&["--checkpoint", "--ckpt"], "--model"),
    (&["--image", "--init-image", "--input", "-i"], "the picture's path without a flag"),
    (&["--output", "-o"], "--out"),
    (&["--ip-adapter-image", "--ip_adapter_image", "--reference", "--reference-image"], "--ip-image"),
    (&["-p"], "--prompt"),
    (&["--negative-prompt", "--negative_prompt"], "--negative"),
];

/// `--steps <N>` without its value's name.
fn bare(flag: &str) -> &str {
    flag.split_once(" <").map_or(flag, |(name, _)| name)
}

/// What clap noted of the error, lists with commas.
fn text_of(error: &clap::Error, kind: ContextKind) -> Option<String> {
    match error.get(kind)? {
        ContextValue::String(text) => Some(text.clone()),
        ContextValue::Strings(texts) if !texts.is_empty() => Some(texts.join(", ")),
        _ => None,
    }
}

/// clap's own words, where there are none of ours.
fn first_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::args::Cli;
    use clap::Parser;

    fn refused(line: &str) -> String {
        let command = line.split(' ').nth(1).unwrap();
        sentence(&Cli::try_parse_from(line.split(' ')).unwrap_err(), command)
    }

    #[test]
    fn every_refusal_is_one_sentence_that_names_the_flag_and_the_value() {
        let cases = [
            ("infill noise --shape 4 --seed ten", "--seed is \"ten\"; allowed: a whole number from"),
            ("infill noise --shape 0 --seed 1", "--shape is \"0\"; allowed: positive whole numbers"),
            ("infill noise --shape 4 --seed 1 --dtype f64", "--dtype is \"f64\"; allowed: f32, f16, bf16"),
            ("infill noise --shape 4", "missing: --seed <N>"),
            ("infill noise --shape 4 --seed", "--seed has no value"),
            ("infill noise --shape 4 --seed 1 --seed 2", "--seed is given more than once"),
            ("infill noise --shap 4", "--shap is no argument of this command, perhaps --shape was meant"),
            ("infill noses", "\"noses\" is no command of infill"),
            (
                "infill inpaint a --mask b --prompt c --out d --guidance-scale 7",
                "--guidance-scale is no argument of this command, perhaps --guidance was meant",
            ),
            (
                "infill inpaint --image a --mask b",
                "--image is no argument of this command, perhaps the picture's path without a flag was meant",
            ),
            ("infill inpaint a --mask b --prompt c --out d --model=", "--model has no value"),
            (
                "infill inpaint a --mask b --prompt c --out d --no-merge --feather 3",
                "--no-merge can't be given together with --feather",
            ),
        ];
        for (line, expected) in cases {
            let message = refused(line);
            assert!(message.starts_with(expected) && !message.contains('\n'), "{line}: {message}");
        }
    }

    #[test]
    fn other_programs_names_are_known_to_inpaint_alone() {
        assert!(!refused("infill models list --checkpoint a").contains("--model"));
    }
}
