//! Progress notifications: one per stage, and a heartbeat between them, so that no host loses patience.

use std::time::Duration;

use infill_engine::pipeline::Progress;
use infill_store::AssetId;
use rmcp::RoleServer;
use rmcp::model::{ProgressNotificationParam, ProgressToken};
use rmcp::service::Peer;

/// The longest silence.
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(5);

/// Where a run is, as the client is told.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Stage {
    /// Stages that are done.
    done: f64,
    /// How many there will be, once that is known.
    total: Option<f64>,
    message: String,
}

impl Stage {
    /// A call that was taken and waits for its turn.
    pub(crate) fn waiting() -> Self {
        Self { done: 0.0, total: None, message: "waiting for the worker".into() }
    }

    /// Loading and encoding count as one stage each; a picture as its steps and its decoding.
    pub(crate) fn of(progress: Progress, before: &Self) -> Self {
        let (done, total, message) = match progress {
            Progress::Loading { component } => (0.0, None, format!("loading {component}")),
            Progress::Encoding => (1.0, None, "encoding".into()),
            Progress::Step { sample, samples, step, steps } => (
                (2 + sample * (steps + 1) + step) as f64,
                Some((2 + samples * (steps + 1)) as f64),
                format!("picture {} of {samples}: step {} of {steps}", sample + 1, step + 1),
            ),
            Progress::Decoding { sample, samples } => {
                let total = before.total;
                let per_picture = total.map_or(1.0, |total| (total - 2.0) / samples as f64);
                let done = 1.0 + (sample + 1) as f64 * per_picture;
                (done, total, format!("picture {} of {samples}: decoding", sample + 1))
            }
        };
        Self { done, total, message }
    }

    /// The same stage, with what its picture looks like.
    pub(crate) fn showing(&self, preview: &AssetId) -> Self {
        Self { message: format!("{}, preview {preview}", self.message), ..self.clone() }
    }

    /// How much is done, in 0..=1.
    pub(crate) fn fraction(&self) -> f64 {
        self.total.map_or(0.0, |total| self.done / total)
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
        let mut note = ProgressNotificationParam::new(token.clone(), self.pulse.next(self.stage.done));
        note.total = self.stage.total;
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
    fn next(&mut self, done: f64) -> f64 {
        if done > self.done {
            *self = Self { done, beats: 0 };
        }
        let value = self.done + f64::from(self.beats) / (f64::from(self.beats) + 1.0);
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
        let mut stages = vec![Stage::waiting()];
        let mut push = |progress| {
            let stage = Stage::of(progress, stages.last().unwrap_or(&Stage::default()));
            stages.push(stage);
        };
        push(Progress::Loading { component: "unet" });
        push(Progress::Loading { component: "vae" });
        push(Progress::Encoding);
        for sample in 0..samples {
            for step in 0..steps {
                push(Progress::Step { sample, samples, step, steps });
            }
            push(Progress::Decoding { sample, samples });
        }
        let mut last = -1.0;
        let mut pulse = Pulse::default();
        for stage in &stages {
            for _ in 0..2000 {
                let next = pulse.next(stage.done);
                assert!(next > last, "{stage:?}");
                assert!(next < stage.done + 1.0, "{stage:?}");
                last = next;
            }
        }
        let end = stages.last().cloned().unwrap_or_default();
        assert_eq!((end.done, end.total), (10.0, Some(11.0)));
        assert!(end.fraction() < 1.0);
        assert_eq!(end.message, "picture 3 of 3: decoding");
    }
}
