//! Jobs: a row before it is work.

mod life;
mod statistics;
#[cfg(test)]
mod tests;

use std::str::FromStr;

use rusqlite::{Connection, OptionalExtension, Row};

use crate::assets::{Moment, bounds, read_id};
use crate::{AssetId, Error, JobId, Result, Store};

pub use statistics::{Statistics, Timing};

/// The statuses of jobs that are over, as a list in SQL: those for which [`JobStatus::is_final`] is true.
pub(crate) const OVER: &str = "('success', 'failure', 'canceled')";

/// The query for the assets that unfinished jobs read or have made, with the jobs: nothing may take them away.
pub(crate) fn needed() -> String {
    let of = |table: &str| {
        format!("SELECT asset, job FROM {table} JOIN jobs ON jobs.id = job WHERE status NOT IN {OVER}")
    };
    format!("{} UNION {}", of("job_needs"), of("job_assets"))
}

/// Where a job stands, in the reference's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum JobStatus {
    /// Waiting for its turn.
    Queued,
    /// The model is being loaded.
    WarmingUp,
    /// Pictures are being made.
    InProgress,
    /// The last picture is being stored.
    Finalizing,
    /// Done, with its assets.
    Success,
    /// Over, with an error.
    Failure,
    /// Stopped by its client.
    Canceled,
}

impl JobStatus {
    const ALL: [Self; 7] = [
        Self::Queued,
        Self::WarmingUp,
        Self::InProgress,
        Self::Finalizing,
        Self::Success,
        Self::Failure,
        Self::Canceled,
    ];

    /// The reference's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::WarmingUp => "warming-up",
            Self::InProgress => "in-progress",
            Self::Finalizing => "finalizing",
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Canceled => "canceled",
        }
    }

    /// True where nothing more will happen.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Success | Self::Failure | Self::Canceled)
    }
}

impl FromStr for JobStatus {
    type Err = ();

    fn from_str(text: &str) -> std::result::Result<Self, ()> {
        Self::ALL.into_iter().find(|status| status.as_str() == text).ok_or(())
    }
}

/// What is known of a job before it is one.
#[derive(Debug, Clone, Copy, Default)]
pub struct NewJob<'a> {
    /// What kind of work it is, in the reference's words: `inference`.
    pub kind: &'a str,
    /// Everything that is needed to run it, now or after a crash, as JSON.
    pub input: &'a str,
    /// The assets that it reads: they are kept until it is over.
    pub needs: &'a [AssetId],
    /// What its client should know, in sentences.
    pub notes: &'a [String],
    /// How large each of its pictures is.
    pub work: Option<Work<'a>>,
}

/// The work of one picture, for estimates of others.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Work<'a> {
    /// The model that paints it.
    pub model: &'a str,
    /// Denoising steps.
    pub steps: u32,
    /// Pixels that are worked on.
    pub pixels: u64,
}

/// What a picture was painted on: what it took says nothing of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Runner<'a> {
    /// The device as reports name it: `cpu`, `cuda`, `metal`.
    pub device: &'a str,
    /// The number format as reports name it: `f32`, `f16`, `bf16`.
    pub dtype: &'a str,
}

/// What became of the wish to cancel a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancel {
    /// Nobody was at work on it: it is canceled.
    Done,
    /// A living process is at work on it and will see the wish at its next step.
    Asked,
}

/// One job as its rows say.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// Its name.
    pub id: JobId,
    /// What kind of work it is, in the reference's words: `inference`.
    pub kind: String,
    /// Where it stands.
    pub status: JobStatus,
    /// How much is done, in 0..=1.
    pub progress: f64,
    /// What was asked, as JSON.
    pub input: String,
    /// What went wrong.
    pub error: Option<String>,
    /// Its client no longer wants it.
    pub cancel_requested: bool,
    /// How often work on it began since it last made a picture.
    pub attempts: u32,
    /// The assets that it reads.
    pub needs: Vec<AssetId>,
    /// The pictures it made so far, in order.
    pub assets: Vec<AssetId>,
    /// What they looked like on the way, in order, as far as it is still there.
    pub previews: Vec<AssetId>,
    /// What each of them took, in the same order.
    pub seconds: Vec<f64>,
    /// What its client should know, in sentences.
    pub notes: Vec<String>,
    /// Each status it had, with the time, oldest first.
    pub history: Vec<(JobStatus, i64)>,
    /// Milliseconds since 1970.
    pub created_at: i64,
    /// Milliseconds since 1970.
    pub updated_at: i64,
}

impl Store {
    /// The job of this name.
    ///
    /// # Errors
    /// [`Error::UnknownJob`] if there is none.
    pub fn job(&self, id: &JobId) -> Result<Job> {
        let connection = self.connection();
        let job =
            connection.query_row("SELECT * FROM jobs WHERE id = ?1", [id.as_str()], read_job).optional()?;
        let mut job = job.ok_or_else(|| Error::UnknownJob(id.clone()))?;
        fill(&connection, &mut job)?;
        Ok(job)
    }

    /// The names of all jobs, oldest first.
    ///
    /// # Errors
    /// A database that refuses.
    pub fn job_ids(&self) -> Result<Vec<JobId>> {
        let connection = self.connection();
        let mut query = connection.prepare_cached("SELECT id FROM jobs ORDER BY created_at, rowid")?;
        let ids = query.query_map([], |row| read_id(&row.get::<_, String>(0)?))?;
        Ok(ids.collect::<rusqlite::Result<_>>()?)
    }

    /// All jobs, oldest first.
    ///
    /// # Errors
    /// A database that refuses.
    pub fn jobs(&self) -> Result<Vec<Job>> {
        let connection = self.connection();
        let mut query = connection.prepare("SELECT * FROM jobs ORDER BY created_at, rowid")?;
        let mut jobs: Vec<Job> = query.query_map([], read_job)?.collect::<rusqlite::Result<_>>()?;
        for job in &mut jobs {
            fill(&connection, job)?;
        }
        Ok(jobs)
    }

    /// The jobs, newest first and of one moment by id: at most `limit` of those behind `after`.
    ///
    /// # Errors
    /// A database that refuses.
    pub fn newest_jobs(&self, after: Option<Moment<'_>>, limit: usize) -> Result<Vec<Job>> {
        let connection = self.connection();
        let mut query = connection.prepare_cached(
            "SELECT * FROM jobs WHERE created_at < ?1 OR (created_at = ?1 AND id > ?2)
             ORDER BY created_at DESC, id LIMIT ?3",
        )?;
        let mut jobs: Vec<Job> =
            query.query_map(bounds(after, limit), read_job)?.collect::<rusqlite::Result<_>>()?;
        for job in &mut jobs {
            fill(&connection, job)?;
        }
        Ok(jobs)
    }
}

/// What of a job has tables of its own.
fn fill(connection: &Connection, job: &mut Job) -> Result<()> {
    let ids = |sql: &str| -> Result<Vec<AssetId>> {
        let mut query = connection.prepare_cached(sql)?;
        let ids = query.query_map([job.id.as_str()], |row| read_id(&row.get::<_, String>(0)?))?;
        Ok(ids.collect::<rusqlite::Result<_>>()?)
    };
    job.assets = ids("SELECT asset FROM job_assets WHERE job = ?1 ORDER BY position")?;
    job.previews = ids(
        "SELECT asset FROM job_previews JOIN assets ON assets.id = asset WHERE job = ?1 ORDER BY position",
    )?;
    job.needs = ids("SELECT asset FROM job_needs WHERE job = ?1 ORDER BY rowid")?;
    let mut query =
        connection.prepare_cached("SELECT seconds FROM job_assets WHERE job = ?1 ORDER BY position")?;
    job.seconds = query.query_map([job.id.as_str()], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    let mut query = connection.prepare_cached("SELECT note FROM job_notes WHERE job = ?1 ORDER BY rowid")?;
    job.notes = query.query_map([job.id.as_str()], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    let mut query =
        connection.prepare_cached("SELECT status, at FROM job_history WHERE job = ?1 ORDER BY rowid")?;
    let history =
        query.query_map([job.id.as_str()], |row| Ok((read_status(row, "status")?, row.get("at")?)))?;
    job.history = history.collect::<rusqlite::Result<_>>()?;
    Ok(())
}

fn read_job(row: &Row<'_>) -> rusqlite::Result<Job> {
    Ok(Job {
        id: read_id(&row.get::<_, String>("id")?)?,
        kind: row.get("kind")?,
        status: read_status(row, "status")?,
        progress: row.get("progress")?,
        input: row.get("input")?,
        error: row.get("error")?,
        cancel_requested: row.get("cancel_requested")?,
        attempts: row.get("attempts")?,
        needs: Vec::new(),
        assets: Vec::new(),
        previews: Vec::new(),
        seconds: Vec::new(),
        notes: Vec::new(),
        history: Vec::new(),
        created_at: row.get("created_at")?,
        updated_at: row.get("updated_at")?,
    })
}

fn read_status(row: &Row<'_>, column: &str) -> rusqlite::Result<JobStatus> {
    let text: String = row.get(column)?;
    text.parse().map_err(|()| {
        let reason = format!("{text} is no status of a job");
        rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, reason.into())
    })
}
