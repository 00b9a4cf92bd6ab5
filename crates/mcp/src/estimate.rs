//! What a call would cost, told without running it: time from earlier pictures on this machine, memory from a plan.

use infill_engine::memory::MemoryPlan;
use infill_engine::request::InpaintRequest;
use infill_models::{Checkpoint, Family};
use infill_store::{Runner, Timing};
use serde_json::{Value, json};

/// Decoding a picture takes about as long as this many steps, in the networks of either family.
const DECODING: f64 = 1.0;

/// Seconds that one picture takes, and how many earlier pictures say so.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Expected {
    seconds: f64,
    pictures: usize,
    /// They had the same steps and pixels; else they are scaled to these.
    alike: bool,
}

/// What a checked call would do.
pub(crate) struct Estimate<'a> {
    /// As the call names it.
    pub(crate) model: &'a str,
    pub(crate) checkpoint: &'a Checkpoint,
    pub(crate) request: &'a InpaintRequest,
    /// What it would be painted on.
    pub(crate) runner: Runner<'a>,
    pub(crate) memory: MemoryPlan,
    /// Of earlier pictures of this model there.
    pub(crate) timings: &'a [Timing],
}

impl Estimate<'_> {
    /// For people and models, a sentence or two on each line.
    pub(crate) fn lines(&self) -> Vec<String> {
        let work = self.request.plan().work;
        let family = match self.checkpoint.family() {
            Family::StableDiffusion => "SD 1.5",
            Family::StableDiffusionXl => "SDXL",
            Family::StableDiffusionXlRefiner => "SDXL refiner",
        };
        let kind = if self.checkpoint.is_inpaint() { "inpainting model" } else { "base model" };
        let (pictures, steps) = (counted(self.pictures(), "picture"), counted(self.steps(), "step"));
        let Runner { device, dtype } = self.runner;
        let here = format!("on this machine ({device}, {dtype})");
        let time = match self.expected() {
            None => format!("unknown, since this model has painted no picture {here} yet"),
            Some(Expected { seconds: each, pictures: earlier, alike }) => format!(
                "about {} in all and {} a picture, by {}{} {here}; loading the model comes on top",
                seconds(each * self.pictures() as f64),
                seconds(each),
                counted(earlier, "earlier picture"),
                if alike { "" } else { " of other sizes or steps" },
            ),
        };
        vec![
            format!(
                "Dry run: the arguments are fine and nothing was run. It would paint {pictures} of {}x{} pixels, {steps} \
                 each, with {} ({family}, {kind}).",
                work.width, work.height, self.model
            ),
            format!("Time: {time}."),
            format!("Memory: at most about {}, by plan.", bytes(self.memory.peak())),
        ]
    }

    /// For programs.
    pub(crate) fn value(&self) -> Value {
        let work = self.request.plan().work;
        json!({
            "modelId": self.model,
            "pictures": self.pictures(),
            "steps": self.steps(),
            "width": work.width,
            "height": work.height,
            "seconds": self.expected().map(|expected| expected.seconds * self.pictures() as f64),
            "peakMemoryBytes": self.memory.peak(),
            "device": self.runner.device,
            "dtype": self.runner.dtype,
        })
    }

    fn pictures(&self) -> usize {
        self.request.params().samples
    }

    fn steps(&self) -> usize {
        self.request.steps_after_strength()
    }

    fn expected(&self) -> Option<Expected> {
        let work = self.request.plan().work;
        expected(self.timings, self.steps(), u64::from(work.width) * u64::from(work.height))
    }
}

fn counted(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// What a picture of so many steps and pixels takes, if earlier ones of its model tell.
fn expected(timings: &[Timing], steps: usize, pixels: u64) -> Option<Expected> {
    let same = timings.iter().filter(|one| one.steps as usize == steps && one.pixels == pixels);
    let same: Vec<f64> = same.map(|one| one.seconds).collect();
    if let Some(seconds) = median(same.clone()) {
        return Some(Expected { seconds, pictures: same.len(), alike: true });
    }
    let work = |steps: f64, pixels: u64| (steps + DECODING) * pixels as f64;
    let usable = timings.iter().filter(|one| one.pixels > 0);
    let rates: Vec<f64> = usable.map(|one| one.seconds / work(f64::from(one.steps), one.pixels)).collect();
    let pictures = rates.len();
    median(rates).map(|rate| Expected { seconds: rate * work(steps as f64, pixels), pictures, alike: false })
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let (below, above) = (values.get(values.len().saturating_sub(1) / 2)?, values.get(values.len() / 2)?);
    Some((below + above) / 2.0)
}

/// A number of seconds as people say it.
fn seconds(value: f64) -> String {
    match value {
        v if v < 10.0 => format!("{v:.1} s"),
        v if v < 120.0 => format!("{v:.0} s"),
        v if v < 7200.0 => format!("{:.0} min", v / 60.0),
        v => format!("{:.1} h", v / 3600.0),
    }
}

/// A number of bytes as people say it.
fn bytes(value: u64) -> String {
    let value = value as f64;
    if value < 1e9 { format!("{:.0} MB", value / 1e6) } else { format!("{:.1} GB", value / 1e9) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timing(steps: u32, pixels: u64, seconds: f64) -> Timing {
        Timing { steps, pixels, seconds }
    }

    #[test]
    fn pictures_alike_count_before_all_others() {
        let timings = [timing(9, 100, 10.0), timing(9, 100, 12.0), timing(9, 100, 50.0), timing(1, 100, 2.0)];
        assert_eq!(expected(&timings, 9, 100), Some(Expected { seconds: 12.0, pictures: 3, alike: true }));
        let scaled = expected(&timings[3..], 19, 200);
        assert_eq!(scaled, Some(Expected { seconds: 40.0, pictures: 1, alike: false }));
        assert_eq!(expected(&[], 9, 100), None);
        assert_eq!(expected(&[timing(9, 0, 1.0)], 9, 100), None);
        let two = expected(&timings[..2], 9, 100);
        assert_eq!(two, Some(Expected { seconds: 11.0, pictures: 2, alike: true }));
    }

    #[test]
    fn amounts_are_short() {
        let times = [0.04, 9.96, 119.4, 3000.0, 9000.0].map(seconds);
        assert_eq!(times, ["0.0 s", "10.0 s", "119 s", "50 min", "2.5 h"]);
        assert_eq!([999_000_000, 6_040_000_000].map(bytes), ["999 MB", "6.0 GB"]);
    }
}
