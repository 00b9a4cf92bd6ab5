//! The progress bar on standard error, and the seconds of each stage.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use infill_engine::cost::Costs;
use infill_engine::pipeline::Progress;
use serde::Serialize;

/// Seconds that each stage took; those of all pictures together.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Seconds {
    pub(crate) load: f64,
    pub(crate) encode: f64,
    pub(crate) denoise: f64,
    pub(crate) decode: f64,
    pub(crate) total: f64,
}

/// The bar counts in parts of a step: decoding takes no whole number of them.
const PARTS: f64 = 100.0;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Load,
    Encode,
    Denoise,
    Decode,
}

/// Follows a run. Draws only on a terminal.
#[derive(Debug)]
pub(crate) struct Watch {
    bar: ProgressBar,
    stage: Option<Stage>,
    begun: Instant,
    stage_begun: Instant,
    seconds: Seconds,
    /// Steps of one picture.
    steps: usize,
    /// A picture's decoding, in steps.
    decoding: f64,
    /// Stands before each message.
    about: String,
}

impl Watch {
    /// Starts the clock.
    pub(crate) fn start(quiet: bool) -> Self {
        let target = if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bar = ProgressBar::with_draw_target(None, target);
        // A step may take minutes: the clock must be seen to run.
        bar.enable_steady_tick(Duration::from_millis(200));
        let now = Instant::now();
        Self {
            bar,
            stage: None,
            begun: now,
            stage_begun: now,
            seconds: Seconds::default(),
            steps: 0,
            decoding: Costs::default().decoding,
            about: String::new(),
        }
    }

    /// A handle to the bar, for whoever has to clear it.
    pub(crate) fn bar(&self) -> ProgressBar {
        self.bar.clone()
    }

    /// How long decoding takes beside a step.
    pub(crate) fn weigh(&mut self, costs: Costs) {
        self.decoding = costs.decoding;
    }

    /// Where the bar stands before a step of a picture; its length where that is the first after all pictures.
    fn place(&self, sample: usize, step: usize) -> u64 {
        let done = sample as f64 * (self.steps as f64 + self.decoding) + step as f64;
        (done * PARTS) as u64
    }

    /// What the following stages are about, to stand before each message.
    pub(crate) fn about(&mut self, what: String) {
        self.about = what;
    }

    /// Takes note of a stage that begins.
    pub(crate) fn see(&mut self, progress: Progress) {
        match progress {
            Progress::Loading { component } => {
                self.enter(Stage::Load);
                self.say(&format!("loading {component}"));
            }
            Progress::Encoding => {
                self.enter(Stage::Encode);
                self.say("encoding");
            }
            Progress::Step { sample, samples, step, steps } => {
                self.say(&format!("painting{}, step {}/{steps}", which(sample, samples), step + 1));
                if self.enter(Stage::Denoise) {
                    self.steps = steps;
                    self.bar.set_length(self.place(samples, 0));
                    if sample == 0 && step == 0 {
                        // What came before tells nothing of the steps' pace, and neither does no step at all.
                        self.bar.reset_eta();
                        self.bar.set_style(steps_style("{elapsed}"));
                    }
                }
                if sample == 0 && step == 1 {
                    self.bar.set_style(steps_style("{elapsed}, {eta} left"));
                }
                self.bar.set_position(self.place(sample, step));
            }
            Progress::Decoding { sample, samples } => {
                self.enter(Stage::Decode);
                self.say(&format!("decoding{}", which(sample, samples)));
                self.bar.set_position(self.place(sample, self.steps));
            }
        }
    }

    /// Shows what is being done: in the bar, and in the log, where there is no terminal.
    fn say(&self, message: &str) {
        let message = format!("{}{message}", self.about);
        tracing::info!("{message}");
        self.bar.set_message(message);
    }

    /// Stops the clock and clears the bar.
    pub(crate) fn finish(&mut self) -> Seconds {
        self.close_stage();
        self.seconds.total = self.stage_begun.duration_since(self.begun).as_secs_f64();
        self.bar.finish_and_clear();
        self.seconds
    }

    /// True where the stage is a new one.
    fn enter(&mut self, stage: Stage) -> bool {
        if self.stage == Some(stage) {
            return false;
        }
        self.close_stage();
        self.stage = Some(stage);
        if matches!(stage, Stage::Load | Stage::Encode) {
            self.bar.set_style(waiting_style());
        }
        true
    }

    fn close_stage(&mut self) {
        let now = Instant::now();
        let passed = now.duration_since(self.stage_begun).as_secs_f64();
        self.stage_begun = now;
        match self.stage.take() {
            // What comes before the first stage is the checkpoint's opening.
            None | Some(Stage::Load) => self.seconds.load += passed,
            Some(Stage::Encode) => self.seconds.encode += passed,
            Some(Stage::Denoise) => self.seconds.denoise += passed,
            Some(Stage::Decode) => self.seconds.decode += passed,
        }
    }
}

/// The bar of a download.
#[cfg(feature = "hub")]
pub(crate) fn bytes_bar() -> ProgressBar {
    let template = "{spinner} {msg} [{bar:30}] {bytes}/{total_bytes}, {eta} left";
    let style = ProgressStyle::with_template(template).map(|style| style.progress_chars("=> "));
    ProgressBar::new(0)
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        .with_message("fetching")
}

fn waiting_style() -> ProgressStyle {
    ProgressStyle::with_template("{spinner} {msg} {elapsed}")
        .unwrap_or_else(|_| ProgressStyle::default_spinner())
}

fn steps_style(times: &str) -> ProgressStyle {
    ProgressStyle::with_template(&format!("{{spinner}} {{msg}} [{{bar:30}}] {times}"))
        .map(|style| style.progress_chars("=> "))
        .unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// Which picture, where there are several.
fn which(sample: usize, samples: usize) -> String {
    if samples > 1 { format!(" {}/{samples}", sample + 1) } else { String::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_is_not_full_while_a_picture_is_decoded() {
        let mut watch = Watch::start(true);
        watch.weigh(Costs { encoding: 6.0, decoding: 6.0 });
        for (sample, expected) in [(0, 200), (1, 1000)] {
            for step in 0..2 {
                watch.see(Progress::Step { sample, samples: 2, step, steps: 2 });
            }
            watch.see(Progress::Decoding { sample, samples: 2 });
            assert_eq!((watch.bar.position(), watch.bar.length()), (expected, Some(1600)));
        }
    }

    #[test]
    fn every_second_belongs_to_one_stage() {
        let mut watch = Watch::start(true);
        let pause = || std::thread::sleep(Duration::from_millis(5));
        for progress in [
            Progress::Loading { component: "unet" },
            Progress::Encoding,
            Progress::Step { sample: 0, samples: 1, step: 0, steps: 2 },
            Progress::Step { sample: 0, samples: 1, step: 1, steps: 2 },
            Progress::Decoding { sample: 0, samples: 1 },
        ] {
            watch.see(progress);
            pause();
        }
        let seconds = watch.finish();
        let sum = seconds.load + seconds.encode + seconds.denoise + seconds.decode;
        assert!((sum - seconds.total).abs() < 1e-6, "{seconds:?}");
        assert!(seconds.denoise >= 0.01 && seconds.decode >= 0.005, "{seconds:?}");
    }
}
