//! A job's way from its first row to its end. Each step is one transaction.

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use super::{Cancel, Job, JobStatus, NewJob, OVER, Runner, read_status};
use crate::assets::read_id;
use crate::{AssetId, Error, JobId, Result, Store, now};

impl Store {
    /// Writes the rows of a new job, queued and owned by this process.
    ///
    /// # Errors
    /// [`Error::UnknownAsset`] if an asset that it needs is gone.
    pub fn create_job(&self, new: &NewJob<'_>) -> Result<JobId> {
        let id = JobId::random();
        self.write(|connection| {
            connection.execute(
                "INSERT INTO jobs
                 (id, kind, status, progress, input, instance, model, steps, pixels, created_at, updated_at)
                 VALUES (?1, ?2, ?3, 0, ?4, ?5, ?6, ?7, ?8, ?9, ?9)",
                params![
                    id.as_str(),
                    new.kind,
                    JobStatus::Queued.as_str(),
                    new.input,
                    self.instance.name(),
                    new.work.map(|work| work.model),
                    new.work.map(|work| work.steps),
                    new.work.map(|work| i64::try_from(work.pixels).unwrap_or(i64::MAX)),
                    now(),
                ],
            )?;
            for asset in new.needs {
                use_asset(connection, asset)?;
                connection.execute(
                    "INSERT OR IGNORE INTO job_needs (job, asset) VALUES (?1, ?2)",
                    [id.as_str(), asset.as_str()],
                )?;
            }
            for note in new.notes {
                add_note(connection, &id, note)?;
            }
            add_history(connection, &id, JobStatus::Queued)
        })?;
        Ok(id)
    }

    /// Takes an owned job out of the queue: work on it begins, once more where it was interrupted.
    ///
    /// # Errors
    /// [`Error::UnknownJob`]; [`Error::Finished`] if it is over, as after a cancellation.
    pub fn begin_job(&self, id: &JobId) -> Result<()> {
        self.write(|connection| {
            change_status(connection, id, JobStatus::WarmingUp)?;
            connection.execute("UPDATE jobs SET attempts = attempts + 1 WHERE id = ?1", [id.as_str()])?;
            Ok(())
        })
    }

    /// Sets where a job at work stands, and how much of it is done, in 0..=1. True if its client no longer wants it.
    /// To finish it, see [`Store::finish_job`], [`Store::fail_job`] and [`Store::cancel_job`].
    ///
    /// # Errors
    /// [`Error::UnknownJob`]; [`Error::Finished`] if it is over.
    pub fn advance_job(&self, id: &JobId, status: JobStatus, progress: f64) -> Result<bool> {
        self.write(|connection| {
            change_status(connection, id, status)?;
            Ok(connection.query_row(
                "UPDATE jobs SET progress = ?2, updated_at = ?3 WHERE id = ?1 RETURNING cancel_requested",
                params![id.as_str(), progress.clamp(0.0, 1.0), now()],
                |row| row.get(0),
            )?)
        })
    }

    /// Whether the client of a job at work no longer wants it: as [`Store::advance_job`] tells, without writing.
    ///
    /// # Errors
    /// [`Error::UnknownJob`]; [`Error::Finished`] if it is over.
    pub fn is_unwanted(&self, id: &JobId) -> Result<bool> {
        let connection = self.connection();
        unfinished(&connection, id)?;
        let sql = "SELECT cancel_requested FROM jobs WHERE id = ?1";
        Ok(connection.query_row(sql, [id.as_str()], |row| row.get(0))?)
    }

    /// Adds a picture to a job at work, at this place in its order, with the seconds that it took there; whatever stood
    /// there before is replaced.
    ///
    /// # Errors
    /// [`Error::UnknownJob`]; [`Error::Finished`] if it is over; [`Error::UnknownAsset`] if the picture is gone again.
    pub fn add_job_asset(
        &self,
        id: &JobId,
        position: usize,
        asset: &AssetId,
        seconds: f64,
        runner: Runner<'_>,
    ) -> Result<()> {
        self.write(|connection| {
            unfinished(connection, id)?;
            use_asset(connection, asset)?;
            connection.execute(
                "INSERT OR REPLACE INTO job_assets (job, position, asset, seconds, device, dtype)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![id.as_str(), position as i64, asset.as_str(), seconds, runner.device, runner.dtype],
            )?;
            connection.execute("UPDATE jobs SET attempts = 0 WHERE id = ?1", [id.as_str()])?;
            Ok(())
        })
    }

    /// Adds a picture of a job at work as it looks on the way, at this place in their order; whatever stood there
    /// before is replaced.
    ///
    /// # Errors
    /// [`Error::UnknownJob`]; [`Error::Finished`] if it is over.
    pub fn add_job_preview(&self, id: &JobId, position: usize, asset: &AssetId) -> Result<()> {
        self.write(|connection| {
            unfinished(connection, id)?;
            connection.execute(
                "INSERT OR REPLACE INTO job_previews (job, position, asset) VALUES (?1, ?2, ?3)",
                params![id.as_str(), position as i64, asset.as_str()],
            )?;
            Ok(())
        })
    }

    /// Adds a sentence that the job's client should know, unless it is there.
    ///
    /// # Errors
    /// [`Error::UnknownJob`]; [`Error::Finished`] if it is over.
    pub fn add_job_note(&self, id: &JobId, note: &str) -> Result<()> {
        self.write(|connection| {
            unfinished(connection, id)?;
            add_note(connection, id, note)
        })
    }

    /// Ends a job well, with the pictures that were added to it.
    ///
    /// # Errors
    /// [`Error::UnknownJob`]; [`Error::Finished`] if it is over already.
    pub fn finish_job(&self, id: &JobId) -> Result<()> {
        self.write(|connection| {
            change_status(connection, id, JobStatus::Success)?;
            connection.execute("UPDATE jobs SET progress = 1 WHERE id = ?1", [id.as_str()])?;
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

    /// Ends an owned job because its client no longer wants it. For any other job, see [`Store::request_cancel`].
    ///
    /// # Errors
    /// [`Error::UnknownJob`]; [`Error::Finished`] if it is over already.
    pub fn cancel_job(&self, id: &JobId) -> Result<()> {
        self.write(|connection| change_status(connection, id, JobStatus::Canceled))
    }

    /// Cancels a job of any process. One that waits, and one whose process is gone, is canceled at once; else its
    /// process sees the wish at its next step.
    ///
    /// # Errors
    /// [`Error::UnknownJob`]; [`Error::Finished`] if it is over already.
    pub fn request_cancel(&self, id: &JobId) -> Result<Cancel> {
        self.write(|connection| {
            let status = unfinished(connection, id)?;
            let owner: Option<String> =
                connection
                    .query_row("SELECT instance FROM jobs WHERE id = ?1", [id.as_str()], |row| row.get(0))?;
            let at_work = status != JobStatus::Queued && owner.is_some_and(|o| self.instance.is_alive(&o));
            if !at_work {
                change_status(connection, id, JobStatus::Canceled)?;
                return Ok(Cancel::Done);
            }
            connection.execute("UPDATE jobs SET cancel_requested = 1 WHERE id = ?1", [id.as_str()])?;
            Ok(Cancel::Asked)
        })
    }

    /// Queues an owned job again and gives it up: the next process to look for one may take it. One that its client no
    /// longer wants is canceled instead. Giving up in order is no failed attempt.
    ///
    /// # Errors
    /// [`Error::UnknownJob`]; [`Error::Finished`] if it is over already.
    pub fn release_job(&self, id: &JobId) -> Result<()> {
        self.write(|connection| {
            release(connection, id)?;
            connection
                .execute("UPDATE jobs SET attempts = max(attempts - 1, 0) WHERE id = ?1", [id.as_str()])?;
            Ok(())
        })
    }

    /// Whether there are unfinished jobs that this process does not own.
    ///
    /// # Errors
    /// A database that refuses.
    pub fn has_jobs_of_others(&self) -> Result<bool> {
        let sql =
            format!("SELECT EXISTS (SELECT 1 FROM jobs WHERE status NOT IN {OVER} AND instance IS NOT ?1)");
        Ok(self.connection().query_row(&sql, [self.instance.name()], |row| row.get(0))?)
    }

    /// Takes every unfinished job that no living process owns, oldest first, queued again. Of several processes that
    /// ask at once, one gets it.
    ///
    /// # Errors
    /// A database that refuses.
    pub fn adopt_jobs(&self) -> Result<Vec<Job>> {
        self.release_abandoned()?;
        let taken: Vec<JobId> = self.write(|connection| {
            let mut query = connection.prepare(
                "SELECT id FROM jobs WHERE status = 'queued' AND instance IS NULL ORDER BY created_at, rowid",
            )?;
            let ids = query.query_map([], |row| read_id(&row.get::<_, String>(0)?))?;
            let ids: Vec<JobId> = ids.collect::<rusqlite::Result<_>>()?;
            for id in &ids {
                connection.execute(
                    "UPDATE jobs SET instance = ?2 WHERE id = ?1",
                    [id.as_str(), self.instance.name()],
                )?;
            }
            Ok(ids)
        })?;
        taken.iter().map(|id| self.job(id)).collect()
    }

    /// Queues again what processes that are gone left unfinished, and forgets those processes.
    pub(crate) fn release_abandoned(&self) -> Result<()> {
        self.write(|connection| {
            let mut query = connection.prepare(&format!(
                "SELECT id, instance FROM jobs WHERE instance IS NOT NULL AND status NOT IN {OVER}"
            ))?;
            let owned: Vec<(String, String)> = query
                .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect::<rusqlite::Result<_>>()?;
            for (id, instance) in owned {
                if !self.instance.is_alive(&instance) {
                    release(connection, &read_id(&id)?)?;
                }
            }
            Ok(())
        })?;
        self.instance.sweep()
    }

    /// All of a change or nothing of it.
    pub(crate) fn write<T>(&self, change: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        let mut connection = self.connection();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let done = change(&transaction)?;
        transaction.commit()?;
        Ok(done)
    }
}

/// Queues a job again that nobody owns then, or cancels it where that was asked for.
fn release(connection: &Connection, id: &JobId) -> Result<()> {
    let unwanted =
        connection
            .query_row("SELECT cancel_requested FROM jobs WHERE id = ?1", [id.as_str()], |row| row.get(0));
    if unwanted.optional()? == Some(true) {
        return change_status(connection, id, JobStatus::Canceled);
    }
    change_status(connection, id, JobStatus::Queued)?;
    connection.execute("UPDATE jobs SET instance = NULL, progress = 0 WHERE id = ?1", [id.as_str()])?;
    Ok(())
}

fn change_status(connection: &Connection, id: &JobId, status: JobStatus) -> Result<()> {
    if unfinished(connection, id)? == status {
        return Ok(());
    }
    connection.execute(
        "UPDATE jobs SET status = ?2, updated_at = ?3 WHERE id = ?1",
        params![id.as_str(), status.as_str(), now()],
    )?;
    if status.is_final() {
        // From now on nothing holds them but their age, and the client has yet to hear of them.
        connection.execute(
            "UPDATE assets SET used_at = ?2 WHERE id IN
             (SELECT asset FROM job_assets WHERE job = ?1 UNION SELECT asset FROM job_needs WHERE job = ?1)",
            params![id.as_str(), now()],
        )?;
    }
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

/// Notes that an asset is in use, in the transaction that says by what: so none goes between the look and the use.
fn use_asset(connection: &Connection, asset: &AssetId) -> Result<()> {
    let there =
        connection.execute("UPDATE assets SET used_at = ?2 WHERE id = ?1", params![asset.as_str(), now()])?;
    if there == 0 { Err(Error::UnknownAsset(asset.clone())) } else { Ok(()) }
}

fn add_note(connection: &Connection, id: &JobId, note: &str) -> Result<()> {
    connection.execute("INSERT OR IGNORE INTO job_notes (job, note) VALUES (?1, ?2)", [id.as_str(), note])?;
    Ok(())
}
