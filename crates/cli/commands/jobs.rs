//! `infill jobs`: what was asked of the server, and how it went.

use infill_store::{AssetId, Cancel, Job, JobId, JobStatus, Store, iso};
use serde::Serialize;
use serde_json::Value;

use crate::failure::Result;
use crate::settings::Settings;
use crate::store_args::JobsCommand;
use crate::{kept, stderr, stdout, table};

/// Characters of the prompt in a list.
const PROMPT: usize = 40;

/// A job as `--json` prints it.
#[derive(Debug, Serialize)]
struct Told {
    id: String,
    kind: String,
    status: &'static str,
    progress: f64,
    error: Option<String>,
    assets: Vec<String>,
    notes: Vec<String>,
    created_at: String,
    updated_at: String,
    history: Vec<Moment>,
    input: Value,
}

/// When a job came to a status.
#[derive(Debug, Serialize)]
struct Moment {
    status: &'static str,
    at: String,
}

/// What became of the wish to cancel a job.
#[derive(Debug, Serialize)]
struct Cancelled {
    id: String,
    outcome: &'static str,
}

pub(crate) fn run(command: &JobsCommand, settings: &Settings) -> Result<()> {
    match command {
        JobsCommand::List { place } => {
            let jobs = kept::open(settings, place.store.as_deref())?.jobs()?;
            if place.json {
                return stdout::json(&jobs.iter().map(told).collect::<Vec<_>>());
            }
            if jobs.is_empty() {
                stderr::line("note: the store has no jobs");
                return Ok(());
            }
            let heading = ["ID", "STATUS", "DONE", "PICTURES", "CREATED (UTC)", "TOOK", "PROMPT"];
            let heading = heading.map(str::to_owned).to_vec();
            let rows: Vec<_> = std::iter::once(heading).chain(jobs.iter().map(row)).collect();
            table::lines(&rows).iter().try_for_each(|line| stdout::line(line))
        }
        JobsCommand::Cancel { ids, place } => {
            let store = kept::open(settings, place.store.as_deref())?;
            let cancelled = cancel(&store, ids)?;
            if place.json {
                return stdout::json(&cancelled);
            }
            cancelled.iter().try_for_each(|one| stdout::line(&format!("{}  {}", one.id, one.outcome)))
        }
        JobsCommand::Show { id, place } => {
            let job = kept::open(settings, place.store.as_deref())?.job(&id.parse()?)?;
            let told = told(&job);
            if place.json { stdout::json(&told) } else { stdout::line(&show_lines(&told)) }
        }
    }
}

/// Cancels jobs: all are looked up before the first is stopped.
fn cancel(store: &Store, ids: &[String]) -> Result<Vec<Cancelled>> {
    let mut found: Vec<JobId> = Vec::new();
    for text in ids {
        let job = store.job(&text.parse()?)?;
        if job.status.is_final() {
            let status = job.status.as_str();
            return Err(infill_store::Error::Finished { id: job.id, status }.into());
        }
        if !found.contains(&job.id) {
            found.push(job.id);
        }
    }
    let outcome = |id: JobId| {
        let outcome = match store.request_cancel(&id) {
            Ok(Cancel::Done) => "canceled",
            Ok(Cancel::Asked) => "stops at its next step",
            // Since the look above.
            Err(infill_store::Error::Finished { .. }) => "was over before it could be canceled",
            Err(error) => return Err(error.into()),
        };
        Ok(Cancelled { id: id.to_string(), outcome })
    };
    found.into_iter().map(outcome).collect()
}

fn told(job: &Job) -> Told {
    Told {
        id: job.id.to_string(),
        kind: job.kind.clone(),
        status: job.status.as_str(),
        progress: job.progress,
        error: job.error.clone(),
        assets: job.assets.iter().map(AssetId::to_string).collect(),
        notes: job.notes.clone(),
        created_at: iso(job.created_at),
        updated_at: iso(job.updated_at),
        history: job
            .history
            .iter()
            .map(|(status, at)| Moment { status: status.as_str(), at: iso(*at) })
            .collect(),
        // What was asked is JSON; were it not, it would be told as the text that it is.
        input: serde_json::from_str(&job.input).unwrap_or_else(|_| job.input.as_str().into()),
    }
}

fn row(job: &Job) -> Vec<String> {
    vec![
        job.id.to_string(),
        job.status.as_str().to_owned(),
        format!("{:.0} %", job.progress * 100.0),
        job.assets.len().to_string(),
        kept::minute(job.created_at),
        took(job).map_or_else(|| "-".to_owned(), |seconds| format!("{seconds:.1} s")),
        prompt(&told(job).input),
    ]
}

/// Seconds at work, of a job that is over; waiting in the queue does not count, nor what an interrupted attempt took.
fn took(job: &Job) -> Option<f64> {
    let queued = job.history.iter().rposition(|(status, _)| *status == JobStatus::Queued)?;
    let attempt = &job.history[queued + 1..];
    let began = attempt.iter().find(|(status, _)| !status.is_final())?;
    let ended = attempt.iter().find(|(status, _)| status.is_final())?;
    Some((ended.1 - began.1) as f64 / 1000.0)
}

/// The words that were asked for, on one line and cut where they are long.
fn prompt(input: &Value) -> String {
    let Some(words) = input.pointer("/inference/prompt").and_then(Value::as_str) else {
        return "-".to_owned();
    };
    let words = words.split_whitespace().collect::<Vec<_>>().join(" ");
    match words.char_indices().nth(PROMPT) {
        Some((end, _)) => format!("{}...", words.get(..end).unwrap_or_default()),
        None => words,
    }
}

fn show_lines(told: &Told) -> String {
    let mut lines = vec![
        told.id.clone(),
        format!("kind      {}", told.kind),
        format!("status    {}, {:.0} %", told.status, told.progress * 100.0),
    ];
    if let Some(error) = &told.error {
        lines.push(format!("error     {error}"));
    }
    lines.extend(told.history.iter().map(|moment| format!("history   {} {}", moment.at, moment.status)));
    lines.extend(told.assets.iter().map(|asset| format!("picture   {asset}")));
    lines.extend(told.notes.iter().map(|note| format!("note      {note}")));
    lines.push(format!("input     {:#}", told.input));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_prompt_in_a_list_is_short_and_on_one_line() {
        assert_eq!(prompt(&json!({ "inference": { "prompt": "a red\n door" } })), "a red door");
        assert_eq!(
            prompt(&json!({ "inference": { "prompt": "ä".repeat(50) } })),
            format!("{}...", "ä".repeat(PROMPT))
        );
        assert_eq!(prompt(&json!("no object")), "-");
    }
}
