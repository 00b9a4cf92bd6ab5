//! A prompt from anywhere: every text is one, and what is said about it can be quoted.
#![no_main]

use infill_networks::prompt::{Part, Prompt};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let prompt = Prompt::weighted(text);
    for note in prompt.notes() {
        assert!(text.get(note.place.clone()).is_some());
    }
    let characters = prompt.parts().iter().map(|part| match part {
        Part::Run(run) => run.text.chars().count(),
        Part::Break => 0,
    });
    assert!(characters.sum::<usize>() <= text.chars().count());
});
