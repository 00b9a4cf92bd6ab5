//! Jobs: a row before it is work.

use std::str::FromStr;

use rusqlite::{Connection, OptionalExtension, Row, TransactionBehavior, params};

use crate::assets::read_id;
use crate::{AssetId, Error, JobId, Result, Store, now};

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
    /// The pictures it made, in order.
    pub assets: Vec<AssetId>,
    /// Each status it had, with the time, oldest first.
    pub history: Vec<(JobStatus, i64)>,
    /// Milliseconds since 1970.
    pub created_at: i64,
    /// Milliseconds since 1970.
    pub updated_at: i64,
}

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

impl Store {
    /// Writes the row of a new job, queued and owned by this process.
    ///
    /// # Errors
    /// A database that refuses.
    pub fn create_job(&self, kind: &str, input: &str) -> Result<JobId> {
        let id = JobId::random();
        self.write(|connection| {
            connection.execute(
                "INSERT INTO jobs (id, kind, status, progress, input, instance, created_at, updated_at)
                 VALUES (?1, ?2, ?3, 0, ?4, ?5, ?6, ?6)",
                params![id.as_str(), kind, JobStatus::Queued.as_str(), input, self.instance.name(), now()],
            )?;
            add_history(connection, &id, JobStatus::Queued)
        })?;
        Ok(id)
    }

    /// Sets where an unfinished job stands. To finish it, see [`Store::finish_job`], [`Store::fail_job`] and
    /// [`Store::cancel_job`].
    ///
    /// # Errors
    /// [`Error::UnknownJob`]; [`Error::Finished`] if it is over.
    pub fn set_job_status(&self, id: &JobId, status: JobStatus) -> Result<()> {
        self.write(|connection| change_status(connection, id, status))
    }

    /// Sets how much of an unfinished job is done, in 0..=1.
    ///
    /// # Errors
    /// [`Error::UnknownJob`]; [`Error::Finished`] if it is over.
    pub fn set_job_progress(&self, id: &JobId, progress: f64) -> Result<()> {
        self.write(|connection| {
            unfinished(connection, id)?;
            connection.execute(
                "UPDATE jobs SET progress = ?2, updated_at = ?3 WHERE id = ?1",
                params![id.as_str(), progress.clamp(0.0, 1.0), now()],
            )?;
            Ok(())
        })
    }

    /// Ends a job well, with the pictures it made.
    ///
    /// # Errors
    /// [`Error::UnknownJob`]; [`Error::Finished`] if it is over already.
    pub fn finish_job(&self, id: &JobId, assets: &[AssetId]) -> Result<()> {
        self.write(|connection| {
            change_status(connection, id, JobStatus::Success)?;
            connection.execute("UPDATE jobs SET progress = 1 WHERE id = ?1", [id.as_str()])?;
            for (position, asset) in assets.iter().enumerate() {
                connection.execute(
                    "INSERT INTO job_assets (job, position, asset) VALUES (?1, ?2, ?3)",
                    params![id.as_str(), position as i64, asset.as_str()],
                )?;
            }
            Ok(())
        })
    }

    /// Ends a job with what went wrong.
    ///
    /// # Errors
    /// [`Error::UnknownJob`]; [`Error::Finished`] if it is over already.
    pub fn fail_job(&self, id: &JobId, error: &str) -> Result<()> {
        self.write(|connection| {
            change_status(connection, id, JobStatus::Failure)?;
            connection.execute("UPDATE jobs SET error = ?2 WHERE id = ?1", [id.as_str(), error])?;
            Ok(())
        })
    }

    /// Ends a job because its client no longer wants it.
    ///
    /// # Errors
    /// [`Error::UnknownJob`]; [`Error::Finished`] if it is over already.
    pub fn cancel_job(&self, id: &JobId) -> Result<()> {
        self.write(|connection| change_status(connection, id, JobStatus::Canceled))
    }

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

    /// All jobs, oldest first.
    ///
    /// # Errors
    /// A database that refuses.
    pub fn jobs(&self) -> Result<Vec<Job>> {
        self.jobs_where("1 = 1")
    }

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
        // A job is at work from its first status after the queue on; one that was queued again began again.
        let milliseconds: i64 = connection.query_row(
            "SELECT coalesce(sum(jobs.updated_at - began.at), 0) FROM jobs JOIN (
                 SELECT job, min(at) AS at FROM job_history
                 WHERE status NOT IN ('queued', 'success', 'failure', 'canceled') GROUP BY job
             ) AS began ON began.job = jobs.id
             WHERE jobs.status IN ('success', 'failure', 'canceled')",
            [],
            |row| row.get(0),
        )?;
        Ok(Statistics { jobs, pictures, seconds: milliseconds as f64 / 1000.0 })
    }

    /// The queued jobs that no living process owns, oldest first: what crashes interrupted.
    ///
    /// # Errors
    /// A database that refuses.
    pub fn abandoned_jobs(&self) -> Result<Vec<Job>> {
        self.jobs_where("status = 'queued' AND instance IS NULL")
    }

    /// Queues again what processes that are gone left unfinished, and forgets those processes.
    pub(crate) fn requeue_unfinished(&self) -> Result<()> {
        self.write(|connection| {
            let mut query = connection.prepare(
                "SELECT id, instance FROM jobs
                 WHERE instance IS NOT NULL AND status NOT IN ('success', 'failure', 'canceled')",
            )?;
            let owned: Vec<(String, String)> = query
                .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect::<rusqlite::Result<_>>()?;
            for (id, instance) in owned {
                if self.instance.is_alive(&instance) {
                    continue;
                }
                let id: JobId = read_id(&id)?;
                change_status(connection, &id, JobStatus::Queued)?;
                connection
                    .execute("UPDATE jobs SET instance = NULL, progress = 0 WHERE id = ?1", [id.as_str()])?;
            }
            Ok(())
        })?;
        self.instance.sweep()
    }

    fn jobs_where(&self, condition: &str) -> Result<Vec<Job>> {
        let connection = self.connection();
        let mut query = connection
            .prepare(&format!("SELECT * FROM jobs WHERE {condition} ORDER BY created_at, rowid"))?;
        let mut jobs: Vec<Job> = query.query_map([], read_job)?.collect::<rusqlite::Result<_>>()?;
        for job in &mut jobs {
            fill(&connection, job)?;
        }
        Ok(jobs)
    }

    /// All of a change or nothing of it.
    fn write<T>(&self, change: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        let mut connection = self.connection();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let done = change(&transaction)?;
        transaction.commit()?;
        Ok(done)
    }
}

fn change_status(connection: &Connection, id: &JobId, status: JobStatus) -> Result<()> {
    if unfinished(connection, id)? == status {
        return Ok(());
    }
    connection.execute(
        "UPDATE jobs SET status = ?2, updated_at = ?3 WHERE id = ?1",
        params![id.as_str(), status.as_str(), now()],
    )?;
    add_history(connection, id, status)
}

/// The status of a job that is not over.
fn unfinished(connection: &Connection, id: &JobId) -> Result<JobStatus> {
    let status = connection
        .query_row("SELECT status FROM jobs WHERE id = ?1", [id.as_str()], |row| read_status(row, "status"))
        .optional()?
        .ok_or_else(|| Error::UnknownJob(id.clone()))?;
    if status.is_final() {
        return Err(Error::Finished { id: id.clone(), status: status.as_str() });
    }
    Ok(status)
}

fn add_history(connection: &Connection, id: &JobId, status: JobStatus) -> Result<()> {
    connection.execute(
        "INSERT INTO job_history (job, status, at) VALUES (?1, ?2, ?3)",
        params![id.as_str(), status.as_str(), now()],
    )?;
    Ok(())
}

/// The assets and the history of a job, which have tables of their own.
fn fill(connection: &Connection, job: &mut Job) -> Result<()> {
    let mut query =
        connection.prepare_cached("SELECT asset FROM job_assets WHERE job = ?1 ORDER BY position")?;
    let assets = query.query_map([job.id.as_str()], |row| read_id(&row.get::<_, String>(0)?))?;
    job.assets = assets.collect::<rusqlite::Result<_>>()?;
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
        assets: Vec::new(),
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_job_goes_its_way_and_keeps_its_history() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let id = store.create_job("inference", "{}").unwrap();
        store.set_job_status(&id, JobStatus::WarmingUp).unwrap();
        store.set_job_status(&id, JobStatus::InProgress).unwrap();
        store.set_job_status(&id, JobStatus::InProgress).unwrap();
        store.set_job_progress(&id, 0.5).unwrap();
        assert_eq!(store.job(&id).unwrap().progress, 0.5);
        let made = [AssetId::of(b"1"), AssetId::of(b"0")];
        store.finish_job(&id, &made).unwrap();
        let job = store.job(&id).unwrap();
        let statuses: Vec<_> = job.history.iter().map(|(status, _)| status.as_str()).collect();
        assert_eq!(statuses, ["queued", "warming-up", "in-progress", "success"]);
        assert_eq!((job.status, job.progress, job.assets.as_slice()), (JobStatus::Success, 1.0, &made[..]));
        assert_eq!(store.jobs().unwrap(), [job]);
    }

    #[test]
    fn what_is_over_stays_over() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let failed = store.create_job("inference", "{}").unwrap();
        store.fail_job(&failed, "the UNet has no tensor conv_in.weight").unwrap();
        let canceled = store.create_job("inference", "{}").unwrap();
        store.cancel_job(&canceled).unwrap();
        for id in [&failed, &canceled] {
            let before = store.job(id).unwrap();
            assert!(matches!(store.set_job_status(id, JobStatus::InProgress), Err(Error::Finished { .. })));
            assert!(matches!(store.set_job_progress(id, 0.1), Err(Error::Finished { .. })));
            assert!(matches!(store.finish_job(id, &[]), Err(Error::Finished { .. })));
            assert_eq!(store.job(id).unwrap(), before);
        }
        assert_eq!(
            store.job(&failed).unwrap().error.as_deref(),
            Some("the UNet has no tensor conv_in.weight")
        );
        assert!(matches!(store.job(&JobId::random()), Err(Error::UnknownJob(_))));
    }

    #[test]
    fn the_jobs_of_a_process_that_is_gone_are_queued_again_and_those_of_a_living_one_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let gone = Store::open(dir.path()).unwrap();
        let left = gone.create_job("inference", "{\"prompt\":\"left\"}").unwrap();
        gone.set_job_status(&left, JobStatus::InProgress).unwrap();
        gone.set_job_progress(&left, 0.7).unwrap();
        let done = gone.create_job("inference", "{}").unwrap();
        gone.finish_job(&done, &[]).unwrap();
        drop(gone);

        let living = Store::open(dir.path()).unwrap();
        let running = living.create_job("inference", "{}").unwrap();
        living.set_job_status(&running, JobStatus::InProgress).unwrap();

        let store = Store::open(dir.path()).unwrap();
        let abandoned = store.abandoned_jobs().unwrap();
        assert_eq!(abandoned.len(), 1);
        assert_eq!((&abandoned[0].id, abandoned[0].progress), (&left, 0.0));
        assert_eq!(abandoned[0].input, "{\"prompt\":\"left\"}");
        assert_eq!(store.job(&running).unwrap().status, JobStatus::InProgress);
        assert_eq!(store.job(&done).unwrap().status, JobStatus::Success);
    }

    #[test]
    fn statistics_count_what_was_done() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let none = store.statistics().unwrap();
        assert!(none.jobs.iter().all(|(_, jobs)| *jobs == 0));
        assert_eq!((none.jobs.len(), none.pictures, none.seconds), (JobStatus::ALL.len(), 0, 0.0));

        let done = store.create_job("inference", "{}").unwrap();
        store.set_job_status(&done, JobStatus::WarmingUp).unwrap();
        store.set_job_status(&done, JobStatus::InProgress).unwrap();
        store.finish_job(&done, &[AssetId::of(b"1"), AssetId::of(b"2")]).unwrap();
        let stopped = store.create_job("inference", "{}").unwrap();
        store.cancel_job(&stopped).unwrap();
        store.create_job("inference", "{}").unwrap();
        let move_to = |table: &str, column: &str, at: i64, of: &str| {
            let sql = format!("UPDATE {table} SET {column} = {at} WHERE {of}");
            store.connection().execute(&sql, []).unwrap();
        };
        move_to("job_history", "at", 1000, "status = 'queued'");
        move_to("job_history", "at", 3000, "status = 'warming-up'");
        move_to("job_history", "at", 4000, "status = 'in-progress'");
        move_to("jobs", "updated_at", 7500, "status = 'success'");
        let statistics = store.statistics().unwrap();
        let count = |status| statistics.jobs.iter().find(|(found, _)| *found == status).unwrap().1;
        assert_eq!([JobStatus::Queued, JobStatus::Success, JobStatus::Canceled].map(count), [1, 1, 1]);
        assert_eq!((statistics.pictures, statistics.seconds), (2, 4.5));
    }

    #[test]
    fn statuses_round_trip() {
        for status in JobStatus::ALL {
            assert_eq!(status.as_str().parse(), Ok(status));
        }
        assert_eq!("done".parse::<JobStatus>(), Err(()));
    }
}
