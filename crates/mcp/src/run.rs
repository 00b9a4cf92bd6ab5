//! A job at work: handed to the worker, watched, and its pictures stored as they come.

use std::ops::ControlFlow;
use std::sync::atomic::Ordering;
use std::sync::mpsc;

use infill_engine::additions::Additions;
use infill_engine::pipeline::{Painted, Progress};
use infill_engine::request::InpaintRequest;
use infill_engine::worker::{Event, Job};
use infill_models::Checkpoint;
use infill_store::{AssetId, AssetMeta, JobId, JobStatus};
use serde_json::{Map, Value, json};

use crate::preview;
use crate::progress::Stage;
use crate::reply::{self, Made};
use crate::studio::{Studio, Watch};
use crate::tools::inpaint::Inpaint;

/// A job at work.
pub(crate) struct Run<'a> {
    pub(crate) studio: &'a Studio,
    pub(crate) job: &'a JobId,
    pub(crate) inpaint: &'a Inpaint,
    /// What every picture carries besides its own seed.
    pub(crate) recipe: &'a Map<String, Value>,
    pub(crate) watch: &'a Watch,
}

impl Run<'_> {
    /// Hands the job to the worker and stores each picture as it comes. Returns the pictures and the warnings.
    pub(crate) fn paint(
        &self,
        checkpoint: Checkpoint,
        additions: Additions,
        request: InpaintRequest,
        image: &AssetId,
    ) -> infill_engine::Result<(Vec<Made>, Vec<String>)> {
        let (sender, events) = mpsc::channel();
        let cancelled = self.watch.cancelled.clone();
        let on_event = Box::new(move |event| {
            let heard = sender.send(event).is_ok();
            if heard && !cancelled.load(Ordering::Relaxed) {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        });
        self.studio.engine.submit(Job { checkpoint, additions, request, on_event })?;
        let mut stage = Stage::waiting();
        let (mut made, mut warnings) = (Vec::new(), Vec::new());
        for event in events {
            match event {
                Event::Progress(progress) => {
                    stage = Stage::of(progress, &stage);
                    self.note(progress, &stage);
                    // Nobody listens any more where the call was cancelled.
                    let _ = self.watch.stages.send(stage.clone());
                }
                Event::Warning(warning) => warnings.push(warning),
                Event::Painted(painted) => made.push(self.keep(&painted, image)?),
                Event::Finished(outcome) => return outcome.map(|()| (made, warnings)),
            }
        }
        Err(infill_engine::Error::Panicked("the worker ended in the middle of the job".into()))
    }

    /// Writes to the job's row where it stands. The pictures do not depend on it.
    fn note(&self, progress: Progress, stage: &Stage) {
        let status = match progress {
            Progress::Loading { .. } => JobStatus::WarmingUp,
            Progress::Decoding { sample, samples } if sample + 1 == samples => JobStatus::Finalizing,
            _ => JobStatus::InProgress,
        };
        let store = &self.studio.store;
        match store.advance_job(self.job, status, stage.fraction()) {
            Ok(true) => self.watch.cancelled.store(true, Ordering::Relaxed),
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, job = %self.job, "the job's progress was not written"),
        }
    }

    fn keep(&self, painted: &Painted, image: &AssetId) -> infill_engine::Result<Made> {
        let mut recipe = Value::Object(self.recipe.clone());
        recipe["seed"] = json!(painted.seed.to_string());
        recipe["numSamples"] = json!(1);
        let recipe = recipe.to_string();
        let png = painted.picture.encode_png(Some(&recipe))?;
        let size = painted.picture.size();
        let meta = AssetMeta {
            media_type: "image/png".into(),
            width: Some(size.width),
            height: Some(size.height),
            parent: Some(image.clone()),
            hidden: self.inpaint.hide_results,
            recipe: Some(recipe),
        };
        let store = &self.studio.store;
        let kept = store.put(&png, &meta).and_then(|id| store.get(&id));
        let added = kept.and_then(|asset| {
            store.add_job_asset(self.job, painted.index, &asset.id, painted.seconds)?;
            Ok(asset)
        });
        let asset = added.map_err(|error| infill_engine::Error::Encode(error.to_string()))?;
        let budget = reply::preview_budget(painted.index, self.inpaint.samples as usize);
        Ok(Made {
            path: store.path(&asset),
            id: asset.id,
            bytes: asset.size,
            width: size.width,
            height: size.height,
            seed: painted.seed,
            seconds: painted.seconds,
            preview: preview::jpeg(&painted.picture.to_rgb8(), budget),
        })
    }
}
