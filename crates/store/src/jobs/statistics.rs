//! What the jobs of a store come to, and how long their pictures took.

use super::{JobStatus, OVER, Runner, read_status};
use crate::{Result, Store};

/// Pictures that an estimate is made from.
const TIMINGS: u32 = 200;

/// What the jobs of a store come to.
#[derive(Debug, Clone, PartialEq)]
pub struct Statistics {
    /// How many jobs there are of each status.
    pub jobs: [(JobStatus, u32); 7],
    /// Pictures that jobs made.
    pub pictures: u32,
    /// From beginning to end, of all jobs that are over; waiting in the queue does not count.
    pub seconds: f64,
}

/// What one picture of an earlier job took.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Timing {
    /// Denoising steps.
    pub steps: u32,
    /// Pixels that were worked on.
    pub pixels: u64,
    /// Loading the model does not count.
    pub seconds: f64,
}

impl Store {
    /// How many jobs there are of each status, what they made and how long they took.
    ///
    /// # Errors
    /// A database that refuses.
    pub fn statistics(&self) -> Result<Statistics> {
        let connection = self.connection();
        let mut query =
            connection.prepare_cached("SELECT status, count(*) AS jobs FROM jobs GROUP BY status")?;
        let counted =
            query.query_map([], |row| Ok((read_status(row, "status")?, row.get::<_, u32>("jobs")?)))?;
        let counted: Vec<_> = counted.collect::<rusqlite::Result<_>>()?;
        let jobs = JobStatus::ALL.map(|status| {
            let found = counted.iter().find(|(counted, _)| *counted == status);
            (status, found.map_or(0, |(_, jobs)| *jobs))
        });
        let pictures = connection.query_row("SELECT count(*) FROM job_assets", [], |row| row.get(0))?;
        // A job is at work from its first status after it last was in the queue: one that a crash interrupted waited.
        let milliseconds: i64 = connection.query_row(
            &format!(
                "SELECT coalesce(sum(jobs.updated_at - began.at), 0) FROM jobs JOIN (
                     SELECT job, min(at) AS at FROM job_history AS worked
                     WHERE status != 'queued' AND status NOT IN {OVER} AND worked.rowid > (
                         SELECT max(rowid) FROM job_history WHERE job = worked.job AND status = 'queued'
                     ) GROUP BY job
                 ) AS began ON began.job = jobs.id
                 WHERE jobs.status IN {OVER}"
            ),
            [],
            |row| row.get(0),
        )?;
        Ok(Statistics { jobs, pictures, seconds: milliseconds as f64 / 1000.0 })
    }

    /// What the pictures of this model took on this device, in this format, in jobs that ended well, the latest first.
    ///
    /// # Errors
    /// A database that refuses.
    pub fn timings(&self, model: &str, runner: Runner<'_>) -> Result<Vec<Timing>> {
        let connection = self.connection();
        let mut query = connection.prepare_cached(
            "SELECT steps, pixels, seconds FROM job_assets JOIN jobs ON jobs.id = job
             WHERE model = ?1 AND device = ?2 AND dtype = ?3
                 AND status = 'success' AND seconds > 0 AND steps IS NOT NULL AND pixels IS NOT NULL
             ORDER BY jobs.updated_at DESC, jobs.rowid DESC, position DESC LIMIT ?4",
        )?;
        let timings = query.query_map((model, runner.device, runner.dtype, TIMINGS), |row| {
            Ok(Timing {
                steps: row.get("steps")?,
                pixels: u64::try_from(row.get::<_, i64>("pixels")?).unwrap_or(0),
                seconds: row.get("seconds")?,
            })
        })?;
        Ok(timings.collect::<rusqlite::Result<_>>()?)
    }
}
