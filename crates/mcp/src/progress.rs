//! Progress notifications: one per stage, and a heartbeat between them, so that no host loses patience.

use std::time::Duration;

use infill_engine::cost::Costs;
use infill_engine::pipeline::Progress;
use infill_store::AssetId;
use rmcp::RoleServer;
use rmcp::model::{ProgressNotificationParam, ProgressToken};
use rmcp::service::Peer;

/// The longest silence.
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(5);

/// What all of a run is, the same from the first word to the last.
const TOTAL: f64 = 100.0;
/// The share of a run in which it waits for the worker.
const WAITING: f64 = 0.01;
/// Loading a model counts as this many steps.
const LOADING: f64 = 1.0;

/// The stages of a job before it begins, each as long as it is likely to take, in steps.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Course {
    /// Pictures of the whole job.
    pub(crate) samples: usize,
    /// Those of them that were there before.
    pub(crate) before: usize,
    /// Steps of each picture.
    pub(crate) steps: usize,
    pub(crate) costs: Costs,
}

impl Course {
    fn picture(&self) -> f64 {
        self.steps as f64 + self.costs.decoding
    }

    /// From `done` steps on, for so many.
    fn stage(&self, done: f64, span: f64, message: String) -> Stage {
        let all = LOADING + self.costs.encoding + self.samples as f64 * self.picture();
        let scale = (1.0 - WAITING) / all;
        Stage { done: WAITING + done * scale, span: span * scale, message }
    }

    /// Where the run is. `progress` counts the pictures that were there before.
    pub(crate) fn at(&self, progress: Progress) -> Stage {
        let encoding = LOADING + self.costs.encoding;
        let earlier = self.before as f64 * self.picture();
        let pictures = |sample: usize| encoding + sample as f64 * self.picture();
        match progress {
            Progress::Loading { component } => self.stage(earlier, LOADING, format!("loading {component}")),
            Progress::Encoding => self.stage(earlier + LOADING, self.costs.encoding, "encoding".into()),
            Progress::Step { sample, samples, step, steps } => {
                // Some schedulers take a step more than was asked.
                let each = self.steps as f64 / steps.max(1) as f64;
                let message = format!("picture {} of {samples}: step {} of {steps}", sample + 1, step + 1);
                self.stage(pictures(sample) + step as f64 * each, each, message)
            }
            Progress::Decoding { sample, samples } => {
                let message = format!("picture {} of {samples}: decoding", sample + 1);
                self.stage(pictures(sample) + self.steps as f64, self.costs.decoding, message)
            }
        }
    }
}

/// Where a run is, as the client is told.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Stage {
    /// How much is done, in 0..=1.
    done: f64,
    /// How much this stage will add.
    span: f64,
    message: String,
}

impl Stage {
    /// A call that was taken and waits for its turn.
    pub(crate) fn waiting() -> Self {
        Self { done: 0.0, span: WAITING, message: "waiting for the worker".into() }
    }

    /// The same stage, with what its picture looks like.
    pub(crate) fn showing(&self, preview: &AssetId) -> Self {
        Self { message: format!("{}, preview {preview}", self.message), ..self.clone() }
    }

    /// How much is done, in 0..=1.
    pub(crate) fn fraction(&self) -> f64 {
        self.done
    }
}

/// Tells one client about one call.
pub(crate) struct Teller {
    client: Option<(Peer<RoleServer>, ProgressToken)>,
    stage: Stage,
    pulse: Pulse,
}

impl Teller {
    /// Silent without a token.
    pub(crate) fn new(peer: &Peer<RoleServer>, token: Option<ProgressToken>) -> Self {
        Self {
            client: token.map(|token| (peer.clone(), token)),
            stage: Stage::waiting(),
            pulse: Pulse::default(),
        }
    }

    /// Tells a new stage.
    pub(crate) async fn tell(&mut self, stage: Stage) {
        self.stage = stage;
        self.beat().await;
    }

    /// Tells the last stage again, a little further on.
    pub(crate) async fn beat(&mut self) {
        let Some((peer, token)) = &self.client else { return };
        let mut note = ProgressNotificationParam::new(token.clone(), TOTAL * self.pulse.next(&self.stage));
        note.total = Some(TOTAL);
        note.message = Some(self.stage.message.clone());
        if let Err(error) = peer.notify_progress(note).await {
            tracing::debug!(%error, "a progress notification was not sent");
        }
    }
}

/// Values that always grow, as the protocol wants, and never reach the next stage's.
#[derive(Debug, Default)]
struct Pulse {
    done: f64,
    /// Values since `done` grew.
    beats: u32,
}

impl Pulse {
    fn next(&mut self, stage: &Stage) -> f64 {
        if stage.done > self.done {
            *self = Self { done: stage.done, beats: 0 };
        }
        let value = self.done + stage.span * f64::from(self.beats) / (f64::from(self.beats) + 1.0);
        self.beats = self.beats.saturating_add(1);
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_always_grows_and_never_overtakes_the_next_stage() {
        let (samples, steps) = (3, 2);
        let course = Course { samples, before: 1, steps, costs: Costs { encoding: 2.0, decoding: 7.0 } };
        let mut stages = vec![Stage::waiting()];
        stages.extend(
            [
                Progress::Loading { component: "unet" },
                Progress::Loading { component: "vae" },
                Progress::Encoding,
            ]
            .map(|progress| course.at(progress)),
        );
        // One was there before; and a scheduler takes a step more than was asked.
        for sample in 1..samples {
            let step = |step| course.at(Progress::Step { sample, samples, step, steps: steps + 1 });
            stages.extend((0..=steps).map(step));
            stages.push(course.at(Progress::Decoding { sample, samples }));
        }
        let mut last = -1.0;
        let mut pulse = Pulse::default();
        for stage in &stages {
            for _ in 0..2000 {
                let next = pulse.next(stage);
                assert!(next > last, "{stage:?}");
                assert!(next < stage.done + stage.span, "{stage:?}");
                last = next;
            }
        }
        let Some(end) = stages.last() else { return };
        assert_eq!(end.message, "picture 3 of 3: decoding");
        // Seven of thirty steps are left.
        assert!((end.fraction() - (1.0 - 0.99 * 7.0 / 30.0)).abs() < 1e-9, "{end:?}");
    }
}
