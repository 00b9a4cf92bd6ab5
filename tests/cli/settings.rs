//! Where settings come from: the command line, the environment, the settings file.

use crate::harness::{Place, Run, fixture, model};

/// A run that is refused for its device before anything else happens.
fn device_refusal(place: &Place, env: &[(&str, &str)], args: &[&str]) -> Run {
    let mut command = place.command();
    command.args(["inpaint", &fixture("images/init.png"), "--mask", &fixture("images/mask.png")]);
    command.args(["--prompt", "x", "--out", "a.png"]).args(args).envs(env.iter().copied());
    Run::of(&command.output().unwrap())
}

#[test]
fn the_command_line_goes_first_then_the_environment_then_the_file() {
    let place = Place::new();
    std::fs::create_dir_all(place.path("home/.config/infill")).unwrap();
    place.write("home/.config/infill/config.toml", "device = \"of-the-file\"\n");
    device_refusal(&place, &[], &[])
        .refused(2, &["device in ", "config.toml is \"of-the-file\"; allowed: auto, cpu"]);
    let env = [("INFILL_DEVICE", "of-the-environment")];
    device_refusal(&place, &env, &[]).refused(2, &["INFILL_DEVICE is \"of-the-environment\""]);
    device_refusal(&place, &env, &["--device", "typed"]).refused(2, &["--device is \"typed\""]);
}

#[test]
fn unknown_keys_of_the_file_are_refused_by_name() {
    let place = Place::new();
    place.write("mine.toml", "devise = \"cpu\"\n");
    let env = [("INFILL_CONFIG", "mine.toml")];
    device_refusal(&place, &env, &[]).refused(2, &["mine.toml", "devise", "device"]);
    let env = [("INFILL_CONFIG", "none.toml")];
    device_refusal(&place, &env, &[]).refused(2, &["none.toml"]);
}

#[test]
fn without_a_model_the_ways_to_name_one_are_told() {
    if infill_models::embedded::is_there() {
        return;
    }
    let place = Place::new();
    device_refusal(&place, &[], &[]).refused(2, &["--model", "INFILL_MODEL", "settings file"]);
    assert!(place.names().is_empty(), "{:?}", place.names());
}

#[test]
fn the_environment_can_name_the_model() {
    let place = Place::new();
    let model = model("tiny-sd15-inpaint");
    let env = [("INFILL_MODEL", model.as_str()), ("INFILL_DEVICE", "cpu")];
    device_refusal(&place, &env, &["--steps", "2", "--width", "64", "--height", "64"]).succeeded();
    assert_eq!(place.names(), ["a.png"]);
}

#[test]
fn the_server_s_folders_are_checked() {
    let place = Place::new();
    place.infill(&["serve", "--allow-dir", "none"]).refused(2, &["--allow-dir is none", "folder"]);
    place.infill(&["serve", "--models", "none"]).refused(2, &["--models is none", "folder"]);
    place.write("file", "");
    place.infill(&["serve", "--store", "file"]).refused(2, &["the store can't be opened", "file"]);
    place.infill(&["serve", "--device", "tpu"]).refused(2, &["--device is \"tpu\"", "cuda:N"]);
}

#[test]
fn a_server_without_a_client_ends_in_silence() {
    let place = Place::new();
    let run = place.infill(&["serve", "--store", "kept", "--device", "cpu"]).succeeded();
    assert_eq!((run.stdout.as_str(), run.stderr.as_str()), ("", ""));
}
