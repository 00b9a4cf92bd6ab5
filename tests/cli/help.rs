//! Help, version, completion scripts.

use crate::harness::Place;

#[test]
fn help_names_every_flag_and_the_exit_codes() {
    let place = Place::new();
    let help = place.infill(&["inpaint", "--help"]).succeeded();
    assert_eq!(help.stderr, "");
    for flag in [
        "<IMAGE>",
        "--mask",
        "--prompt",
        "--prompt-2",
        "--negative",
        "--negative-2",
        "--model",
        "--seed",
        "--steps",
        "--strength",
        "--guidance",
        "--guidance-rescale",
        "--scheduler",
        "--eta",
        "--clip-skip",
        "--timestep-spacing",
        "--scheduler-option",
        "--prompt-limit",
        "--prompt-syntax",
        "--ip-image",
        "--ip-type",
        "--ip-adapter",
        "--image-encoder",
        "--ip-mask",
        "--ip-blocks",
        "--lora",
        "--embedding",
        "--width",
        "--height",
        "--crop-padding",
        "--samples",
        "--no-merge",
        "--feather",
        "--noise-rule",
        "--device",
        "--dtype",
        "--vae-tile-size",
        "--models",
        "--out",
        "--force",
        "--json",
        "--quiet",
        "Exit codes",
        "130",
        "INFILL_MODEL",
        "config.toml",
    ] {
        assert!(help.stdout.contains(flag), "{flag} is not in\n{}", help.stdout);
    }
    let (before, output) = help.stdout.split_once("\nOutput:\n").unwrap();
    for flag in ["--out <PATH>", "--strip <PATH>", "--force", "--json", "-q, --quiet"] {
        let names = |text: &str| text.lines().any(|line| line.trim_start().starts_with(flag));
        assert!(names(output) && !names(before), "{flag}: {}", help.stdout);
    }
}

#[test]
fn every_command_has_help() {
    let place = Place::new();
    for command in ["inpaint", "demo", "noise", "serve", "models", "completions"] {
        let help = place.infill(&[command, "--help"]).succeeded();
        assert!(help.stdout.contains(&format!("infill {command}")), "{}", help.stdout);
        // A build without a model of its own has nothing to demonstrate.
        let listed = command != "demo" || infill_models::embedded::is_there();
        let line = format!("\n  {command} ");
        assert_eq!(place.infill(&["--help"]).succeeded().stdout.contains(&line), listed, "{command}");
    }
}

#[test]
fn the_version_is_the_crate_s() {
    let version = Place::new().infill(&["--version"]).succeeded();
    assert_eq!(version.stdout, concat!("infill ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn no_command_is_a_refusal_with_help() {
    let run = Place::new().infill(&[]);
    assert_eq!((run.code, run.stdout.as_str()), (Some(2), ""));
    assert!(run.stderr.contains("Usage:") && run.stderr.contains("inpaint"), "{}", run.stderr);
}

#[test]
fn every_shell_gets_its_script() {
    let place = Place::new();
    for (shell, mark) in [
        ("bash", "complete -F"),
        ("zsh", "#compdef infill"),
        ("fish", "complete -c infill"),
        ("powershell", "Register-ArgumentCompleter"),
        ("elvish", "edit:completion"),
    ] {
        let script = place.infill(&["completions", shell]).succeeded().stdout;
        assert!(
            script.contains(mark) && script.contains("inpaint") && script.contains("strength"),
            "{shell}"
        );
        let knows_values = ["UniPCMultistepScheduler", "bf16", "linspace", "character"]
            .iter()
            .all(|value| script.contains(value));
        // PowerShell's and elvish's scripts complete flags alone.
        assert!(knows_values || ["powershell", "elvish"].contains(&shell), "{shell}");
    }
    place.infill(&["completions", "cmd"]).refused(2, &["cmd", "bash", "fish"]);
}
