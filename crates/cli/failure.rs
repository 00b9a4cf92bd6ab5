//! How a command ends when it does not end well: one sentence and an exit code.

use std::fmt::Display;
use std::process::ExitCode;

/// The result of a command.
pub(crate) type Result<T> = std::result::Result<T, Failure>;

/// Why a command gave nothing.
#[derive(Debug)]
pub(crate) enum Failure {
    /// What was given can't be used: exit code 2.
    Refused(String),
    /// It was good and failed while running: exit code 1.
    Failed(String),
    /// The user stopped it: exit code 130, as shells have it for SIGINT.
    Cancelled,
}

impl Failure {
    /// A value that was refused, in the form every refusal has.
    pub(crate) fn value(name: &str, value: impl Display, allowed: impl Display) -> Self {
        Self::Refused(format!("{name} is {value}; allowed: {allowed}"))
    }

    /// The number for the shell.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Failed(_) => 1,
            Self::Refused(_) => 2,
            Self::Cancelled => 130,
        }
    }

    /// The exit code that `main` returns.
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code())
    }

    /// The sentence for standard error.
    pub(crate) fn sentence(&self) -> String {
        match self {
            Self::Refused(text) | Self::Failed(text) => one_line(text),
            Self::Cancelled => "cancelled".to_owned(),
        }
    }
}

impl Failure {
    /// An error of a run whose model is loaded: from there on the networks refuse nothing, they fail.
    pub(crate) fn running(error: infill_engine::Error) -> Self {
        match error {
            infill_engine::Error::Networks(error) => Self::Failed(error.to_string()),
            other => other.into(),
        }
    }
}

impl From<infill_engine::Error> for Failure {
    fn from(error: infill_engine::Error) -> Self {
        use infill_engine::Error as E;
        match error {
            E::Cancelled => Self::Cancelled,
            E::Refused { field, value, allowed } => Self::value(&flag_of(field), value, allowed),
            E::Models(error) => error.into(),
            E::Unreadable { .. } | E::Networks(_) => Self::Refused(error.to_string()),
            E::Encode(_) | E::Tensor(_) | E::NoNumbers { .. } | E::Panicked(_) | E::Busy { .. } => {
                Self::Failed(error.to_string())
            }
        }
    }
}

impl From<infill_models::Error> for Failure {
    fn from(error: infill_models::Error) -> Self {
        match error {
            infill_models::Error::Hub { .. } => Self::Failed(error.to_string()),
            _ => Self::Refused(error.to_string()),
        }
    }
}

impl From<infill_store::Error> for Failure {
    fn from(error: infill_store::Error) -> Self {
        use infill_store::Error as E;
        match error {
            E::Id { .. }
            | E::UnknownAsset(_)
            | E::UnknownJob(_)
            | E::Finished { .. }
            | E::NoStore(_)
            | E::Needed { .. }
            | E::Newer { .. } => Self::Refused(error.to_string()),
            E::Damaged { .. } | E::File { .. } | E::Database(_) => Self::Failed(error.to_string()),
        }
    }
}

/// The flag that sets a field of the engine's request; other names stand for themselves.
fn flag_of(field: &str) -> String {
    match field {
        "adapter scale" => "the scale of --ip-image".to_owned(),
        "adapter blocks" => "--ip-blocks".to_owned(),
        "references" => "--ip-image".to_owned(),
        "reference mask" => "--ip-mask".to_owned(),
        "mask" | "scheduler" | "steps" | "samples" | "strength" | "guidance" | "guidance_rescale" | "eta"
        | "clip_skip" | "prompt_limit" | "feather" | "crop_padding" | "width" | "height" | "device"
        | "dtype" => {
            format!("--{}", field.replace('_', "-"))
        }
        other => other.to_owned(),
    }
}

/// Messages of libraries may run over several lines, with a backtrace below: the lines above it, joined.
fn one_line(text: &str) -> String {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let message: Vec<&str> = lines.take_while(|line| !is_frame(line)).collect();
    message.join("; ")
}

/// A line of a backtrace, such as `0: core::panicking::panic`.
fn is_frame(line: &str) -> bool {
    line.split_once(": ")
        .is_some_and(|(number, _)| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line_without_its_backtrace() {
        let text = "shape mismatch\n  in matmul\n   0: candle_core::error\n             at src/error.rs:1\n";
        assert_eq!(one_line(text), "shape mismatch; in matmul");
        assert_eq!(one_line("plain"), "plain");
    }

    #[test]
    fn a_refused_field_is_named_as_its_flag() {
        let error =
            infill_engine::Error::Refused { field: "strength", value: "2".into(), allowed: "0 to 1".into() };
        let failure = Failure::from(error);
        assert_eq!((failure.code(), failure.sentence()), (2, "--strength is 2; allowed: 0 to 1".to_owned()));
    }
}
