//! What the rows of a job say, as replies: to the call that made it, and to whoever asks later.

use infill_engine::image::Picture;
use infill_store::{Asset, AssetId, Error as StoreError, Job, JobId, JobStatus, iso};
use rmcp::model::CallToolResult;
use serde_json::{Value, json};

use crate::desk::Whereabouts;
use crate::inference::linked;
use crate::order::Order;
use crate::prepare::stored;
use crate::preview;
use crate::reply::{self, Made};
use crate::studio::Studio;

/// Who is told of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum To {
    /// The call that made it: a job that failed is a call that failed.
    Caller,
    /// Whoever looked for it: to find that it failed is no failure.
    Asker,
}

impl Studio {
    /// Where a job stands, with its pictures once it is done.
    ///
    /// # Errors
    /// [`StoreError::UnknownJob`], and a store that can't be read.
    pub(crate) fn report(&self, id: &JobId, to: To) -> infill_store::Result<CallToolResult> {
        let job = self.store.job(id)?;
        let order = Order::read(&job.input);
        let structured = match to {
            To::Caller => {
                let mut all = json!({ "job": job_value(&job), "creativeUnitsCost": 0 });
                if let Ok(order) = &order {
                    all["inference"] = linked(order.inference.clone(), &self.store, &self.links);
                }
                all
            }
            To::Asker => json!({ "job": job_value(&job) }),
        };
        // What it painted before it ended is there, and nothing else may say so.
        let ended = |what: &str, sentence: &str| -> infill_store::Result<CallToolResult> {
            let (made, gone) = self.made(&job, false)?;
            let samples = order.as_ref().map_or(job.assets.len(), Order::samples);
            let painted = [reply::lines(&made, samples), reply::notes(&gone).collect()].concat();
            let first = match (to, painted.is_empty()) {
                (To::Caller, true) => sentence.to_owned(),
                (To::Caller, false) => format!("{sentence}\n{id} painted before that:"),
                (To::Asker, _) => format!("{id} {what}"),
            };
            let lines: Vec<String> = std::iter::once(first).chain(painted).collect();
            Ok(match to {
                To::Caller => reply::failure(&lines),
                To::Asker => reply::told(&lines, structured.clone()),
            })
        };
        Ok(match job.status {
            JobStatus::Success => {
                let (made, gone) = self.made(&job, true)?;
                let notes = [gone, job.notes].concat();
                reply::success(&made, job.assets.len(), &notes, structured)
            }
            JobStatus::Failure => {
                let error = job.error.as_deref().unwrap_or("the job failed");
                ended(&format!("failed: {error}"), error)?
            }
            JobStatus::Canceled => ended("was cancelled", &format!("{id} was cancelled"))?,
            _ => {
                let samples = order.as_ref().map_or(1, Order::samples);
                let mut lines = vec![self.under_way(&job, samples)];
                if let Some(preview) = job.previews.last() {
                    lines.push(format!("So far it looks like {preview}, small and without a recipe."));
                }
                lines.extend(reply::lines(&self.made(&job, false)?.0, samples));
                lines.extend(reply::notes(&job.notes));
                reply::told(&lines, structured)
            }
        })
    }

    /// A sentence on a job that is not over, and what to do for its pictures.
    fn under_way(&self, job: &Job, samples: usize) -> String {
        let id = &job.id;
        let stands = match (job.status, self.desk.find(id)) {
            (JobStatus::Queued, Whereabouts::Waiting(1)) => "is queued, with 1 job before it".to_owned(),
            (JobStatus::Queued, Whereabouts::Waiting(before)) => {
                format!("is queued, with {before} jobs before it")
            }
            (JobStatus::Queued, _) => "is queued".to_owned(),
            (status, _) => format!(
                "is {}, {:.0} % done, {} of {samples} pictures ready",
                status.as_str(),
                100.0 * job.progress,
                job.assets.len()
            ),
        };
        format!("{id} {stands}. It goes on by itself: call get-job-id with jobId {id} for its pictures.")
    }

    /// The pictures that a job has made so far, and a sentence for each that is gone.
    fn made(&self, job: &Job, with_previews: bool) -> infill_store::Result<(Vec<Made>, Vec<String>)> {
        let (mut made, mut gone) = (Vec::new(), Vec::new());
        for (index, (id, &seconds)) in job.assets.iter().zip(&job.seconds).enumerate() {
            let asset = match self.store.get(id) {
                Ok(asset) => asset,
                Err(StoreError::UnknownAsset(_)) => {
                    gone.push(format!("picture {} was removed from the store ({id})", index + 1));
                    continue;
                }
                Err(error) => return Err(error),
            };
            let budget = if with_previews { reply::preview_budget(index, job.assets.len()) } else { 0 };
            made.push(Made {
                index,
                seed: seed(&asset).unwrap_or_else(|| "unknown".into()),
                preview: self.preview(id, budget),
                place: self.links.place(&self.store, &asset),
                url: self.links.url(&self.store, &asset),
                id: asset.id,
                bytes: asset.size,
                width: asset.meta.width.unwrap_or(0),
                height: asset.meta.height.unwrap_or(0),
                seconds,
            });
        }
        Ok((made, gone))
    }

    /// A small JPEG of an asset; `None` where there is no room for one, or no picture.
    pub(crate) fn preview(&self, id: &AssetId, budget: usize) -> Option<Vec<u8>> {
        if budget == 0 {
            return None;
        }
        let picture = Picture::decode(&self.store.bytes(id).ok()?, &stored()).ok()?;
        preview::jpeg(&picture.to_rgb8(), budget)
    }
}

/// What a picture was drawn with, as its recipe says.
fn seed(asset: &Asset) -> Option<String> {
    let recipe: Value = serde_json::from_str(asset.meta.recipe.as_deref()?).ok()?;
    recipe["seed"].as_str().map(str::to_owned)
}

/// A job as the reference writes it, with what went wrong besides.
pub(crate) fn job_value(job: &Job) -> Value {
    let history: Vec<Value> = job
        .history
        .iter()
        .map(|(status, at)| json!({ "date": iso(*at), "status": status.as_str() }))
        .collect();
    let assets: Vec<&str> = job.assets.iter().map(AssetId::as_str).collect();
    let mut metadata = json!({ "assetIds": assets });
    if !job.previews.is_empty() {
        metadata["previewAssetIds"] = job.previews.iter().map(AssetId::as_str).collect();
    }
    if let Some(error) = &job.error {
        metadata["error"] = json!(error);
    }
    json!({
        "jobId": job.id.as_str(),
        "jobType": job.kind,
        "status": job.status.as_str(),
        "progress": job.progress,
        "statusHistory": history,
        "metadata": metadata,
        "createdAt": iso(job.created_at),
        "updatedAt": iso(job.updated_at),
    })
}
