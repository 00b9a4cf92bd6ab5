//! The database file: its settings and its versions.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, TransactionBehavior};

use crate::{Error, Result};

/// One step per version, in order; a step that has been released is never changed.
const MIGRATIONS: [&str; 5] = [
    "
    CREATE TABLE assets (
        id         TEXT PRIMARY KEY,
        hash       TEXT NOT NULL,
        file       TEXT NOT NULL,
        size       INTEGER NOT NULL,
        media_type TEXT NOT NULL,
        width      INTEGER,
        height     INTEGER,
        parent     TEXT,
        hidden     INTEGER NOT NULL,
        recipe     TEXT,
        created_at INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE jobs (
        id         TEXT PRIMARY KEY,
        kind       TEXT NOT NULL,
        status     TEXT NOT NULL,
        progress   REAL NOT NULL,
        input      TEXT NOT NULL,
        error      TEXT,
        instance   TEXT,
        created_at INTEGER NOT NULL,
        updated_at INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE job_history (
        job    TEXT NOT NULL REFERENCES jobs(id) ON DELETE CASCADE,
        status TEXT NOT NULL,
        at     INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX job_history_job ON job_history(job);
    CREATE TABLE job_assets (
        job      TEXT NOT NULL REFERENCES jobs(id) ON DELETE CASCADE,
        position INTEGER NOT NULL,
        asset    TEXT NOT NULL,
        PRIMARY KEY (job, position)
    ) STRICT;
",
    "
    ALTER TABLE jobs ADD COLUMN cancel_requested INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE jobs ADD COLUMN attempts INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE jobs ADD COLUMN model TEXT;
    ALTER TABLE jobs ADD COLUMN steps INTEGER;
    ALTER TABLE jobs ADD COLUMN pixels INTEGER;
    ALTER TABLE job_assets ADD COLUMN seconds REAL NOT NULL DEFAULT 0;
    CREATE TABLE job_needs (
        job   TEXT NOT NULL REFERENCES jobs(id) ON DELETE CASCADE,
        asset TEXT NOT NULL,
        PRIMARY KEY (job, asset)
    ) STRICT;
    CREATE TABLE job_notes (
        job  TEXT NOT NULL REFERENCES jobs(id) ON DELETE CASCADE,
        note TEXT NOT NULL,
        PRIMARY KEY (job, note)
    ) STRICT;
",
    "
    ALTER TABLE assets ADD COLUMN passing INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE assets ADD COLUMN used_at INTEGER NOT NULL DEFAULT 0;
    UPDATE assets SET used_at = created_at;
    CREATE TABLE job_previews (
        job      TEXT NOT NULL REFERENCES jobs(id) ON DELETE CASCADE,
        position INTEGER NOT NULL,
        asset    TEXT NOT NULL,
        PRIMARY KEY (job, position)
    ) STRICT;
    CREATE INDEX job_needs_asset ON job_needs(asset);
    CREATE INDEX job_assets_asset ON job_assets(asset);
",
    "
    CREATE INDEX assets_newest ON assets(created_at DESC, id) WHERE hidden = 0;
    CREATE INDEX jobs_newest ON jobs(created_at DESC, id);
",
    "
    ALTER TABLE job_assets ADD COLUMN device TEXT;
    ALTER TABLE job_assets ADD COLUMN dtype TEXT;
",
];

/// Beside the database: held by the process that opens it.
const OPENING: &str = "db.opening";

/// Opens the file and brings it to the newest version. One process at a time: of two that turn a new database to
/// write-ahead logging at once, SQLite refuses one as busy without waiting, whatever the time limit.
pub(crate) fn open(path: &Path) -> Result<Connection> {
    let opening = path.with_extension(OPENING);
    let lock = File::create(&opening).map_err(|e| Error::file(&opening, &e))?;
    lock.lock().map_err(|e| Error::file(&opening, &e))?;
    let mut connection = Connection::open(path)?;
    connection.busy_timeout(Duration::from_secs(10))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found: i64 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let known = MIGRATIONS.len() as i64;
    let done = usize::try_from(found).ok().filter(|done| *done <= MIGRATIONS.len());
    let Some(done) = done else { return Err(Error::Newer { found, known }) };
    for step in &MIGRATIONS[done..] {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "user_version", known)?;
    transaction.commit()?;
    Ok(connection)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_database_of_a_newer_version_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("infill.db");
        open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
        let message = open(&path).unwrap_err().to_string();
        assert!(message.contains("99"), "{message}");
    }

    #[test]
    fn rows_of_the_first_version_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let old = Connection::open(dir.path().join("infill.db")).unwrap();
        old.execute_batch(MIGRATIONS[0]).unwrap();
        old.execute_batch(
            "INSERT INTO jobs VALUES ('job_GTrL3mq4SXWyMxkOHRxlpw', 'inference', 'success', 1, '{}', NULL, NULL, 5, 6);
             INSERT INTO job_assets VALUES ('job_GTrL3mq4SXWyMxkOHRxlpw', 0, 'asset_GTrL3mq4SXWyMxkOHRxlpw');
             PRAGMA user_version = 1;",
        )
        .unwrap();
        drop(old);
        let jobs = crate::Store::open(dir.path()).unwrap().jobs().unwrap();
        assert_eq!((jobs.len(), jobs[0].assets.len(), jobs[0].attempts), (1, 1, 0));
        assert_eq!((jobs[0].seconds.as_slice(), jobs[0].cancel_requested), (&[0.0][..], false));
    }

    #[test]
    fn pictures_of_a_version_that_noted_no_device_say_nothing_of_any() {
        use crate::{AssetId, NewJob, Runner, Store, Work};

        let dir = tempfile::tempdir().unwrap();
        let old = Connection::open(dir.path().join("infill.db")).unwrap();
        MIGRATIONS[..4].iter().for_each(|step| old.execute_batch(step).unwrap());
        old.execute_batch(
            "INSERT INTO jobs (id, kind, status, progress, input, created_at, updated_at, model, steps, pixels)
             VALUES ('job_GTrL3mq4SXWyMxkOHRxlpw', 'inference', 'success', 1, '{}', 5, 6, 'sdxl', 30, 4096);
             INSERT INTO job_assets VALUES ('job_GTrL3mq4SXWyMxkOHRxlpw', 0, 'asset_GTrL3mq4SXWyMxkOHRxlpw', 2.5);
             PRAGMA user_version = 4;",
        )
        .unwrap();
        drop(old);
        let store = Store::open(dir.path()).unwrap();
        assert_eq!(store.jobs().unwrap()[0].seconds, [2.5]);
        let runner = Runner { device: "cpu", dtype: "f32" };
        assert!(store.timings("sdxl", runner).unwrap().is_empty());
        let work = Work { model: "sdxl", steps: 30, pixels: 4096 };
        let id = store.create_job(&NewJob { work: Some(work), ..NewJob::default() }).unwrap();
        let made: AssetId = store.put(b"new", &crate::AssetMeta::default()).unwrap();
        store.add_job_asset(&id, 0, &made, 1.5, runner).unwrap();
        store.finish_job(&id).unwrap();
        assert_eq!(store.timings("sdxl", runner).unwrap().len(), 1);
    }

    #[test]
    fn processes_that_make_the_database_at_once_all_get_it() {
        for _ in 0..30 {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("infill.db");
            let start = std::sync::Barrier::new(6);
            std::thread::scope(|scope| {
                for _ in 0..6 {
                    scope.spawn(|| {
                        start.wait();
                        open(&path).unwrap();
                    });
                }
            });
        }
    }

    #[test]
    fn a_file_that_is_no_database_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("infill.db");
        std::fs::write(&path, vec![7; 8192]).unwrap();
        assert!(matches!(open(&path), Err(Error::Database(_))));
    }
}
