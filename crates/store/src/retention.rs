//! Retention: which assets and jobs go so that the store stays within limits of size and age.
//!
//! What an unfinished job needs or has made stays, whatever the limits say. A parent that goes does not take its
//! children along, nor do they hold it: a parent's id is a record of where a picture came from.

use std::collections::HashSet;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension};

use crate::assets::read_asset;
use crate::jobs::{OVER, needed};
use crate::{Asset, AssetId, JobId, Result, Store, now};

/// How much the store may hold, and for how long.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all assets together.
    pub max_bytes: Option<u64>,
    /// Since an asset was last put, or since a job was over.
    pub max_age: Option<Duration>,
    /// What was put within this time stays, whatever the limits say: its client has hardly seen it.
    pub spared: Duration,
}

/// What a pruning removed, or would remove.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Pruned {
    /// In the order in which they go.
    pub removed: Vec<Asset>,
    /// How many assets stay.
    pub kept: usize,
    /// Bytes of the assets that stay.
    pub kept_bytes: u64,
    /// How many jobs go: those that have been over for longer than the age, without a picture left.
    pub jobs: usize,
}

/// Rows that are removed in one transaction, so that other processes get their turn in between.
const BATCH: usize = 64;

impl Limits {
    /// True where nothing is ever too much.
    pub fn is_none(&self) -> bool {
        self.max_bytes.is_none() && self.max_age.is_none()
    }
}

impl Store {
    /// What [`Store::prune`] would remove now.
    ///
    /// # Errors
    /// A database that refuses.
    pub fn prunable(&self, limits: &Limits) -> Result<Pruned> {
        let mut pruned = self.prunable_assets(limits)?;
        pruned.jobs = forgettable(&self.connection(), limits, &pruned.removed)?.len();
        Ok(pruned)
    }

    fn prunable_assets(&self, limits: &Limits) -> Result<Pruned> {
        let connection = self.connection();
        // The previews of runs first, then what was not put for longest.
        let mut query = connection.prepare(&format!(
            "SELECT *, id IN (SELECT asset FROM ({})) AS held FROM assets ORDER BY passing DESC, used_at, id",
            needed()
        ))?;
        let rows = query.query_map([], |row| Ok((read_asset(row)?, row.get("held")?)))?;
        let rows: Vec<(Asset, bool)> = rows.collect::<rusqlite::Result<_>>()?;
        Ok(choose(rows, limits, now()))
    }

    /// Removes assets, those that were not put for longest first, until the rest is within the limits.
    ///
    /// An asset that comes into use in the meantime stays.
    ///
    /// # Errors
    /// A database that refuses or a file that can't be removed.
    pub fn prune(&self, limits: &Limits) -> Result<Pruned> {
        let mut pruned = self.prunable_assets(limits)?;
        let mut removed = Vec::new();
        for batch in pruned.removed.chunks(BATCH) {
            let gone = self.write(|connection| {
                let mut gone = Vec::new();
                for asset in batch {
                    if unchanged(connection, asset)? && holder(connection, &asset.id)?.is_none() {
                        connection.execute("DELETE FROM assets WHERE id = ?1", [asset.id.as_str()])?;
                        gone.push(asset.clone());
                    }
                }
                Ok(gone)
            })?;
            self.unlink(&gone)?;
            pruned.kept += batch.len() - gone.len();
            removed.extend(gone);
        }
        pruned.kept_bytes = pruned.kept_bytes + bytes_of(&pruned.removed) - bytes_of(&removed);
        pruned.removed = removed;
        let jobs = forgettable(&self.connection(), limits, &[])?;
        for batch in jobs.chunks(BATCH) {
            self.write(|connection| {
                let mut forget = connection.prepare_cached("DELETE FROM jobs WHERE id = ?1")?;
                batch.iter().try_for_each(|id| forget.execute([id]).map(|_| ()))?;
                Ok(())
            })?;
        }
        pruned.jobs = jobs.len();
        Ok(pruned)
    }

    /// The unfinished job that needs this asset or has made it.
    ///
    /// # Errors
    /// A database that refuses.
    pub fn needed_by(&self, id: &AssetId) -> Result<Option<JobId>> {
        holder(&self.connection(), id)
    }

    /// Removes blobs that no row names, which a crash between the two left behind.
    ///
    /// # Errors
    /// A database that refuses or a folder that can't be read.
    pub fn sweep(&self) -> Result<usize> {
        let files = self.blobs.leftovers()?;
        if files.is_empty() {
            return Ok(0);
        }
        self.write(|connection| {
            let mut query = connection.prepare("SELECT file FROM assets")?;
            let named: HashSet<String> =
                query.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
            let orphans: Vec<&String> = files.iter().filter(|file| !named.contains(*file)).collect();
            orphans.iter().try_for_each(|file| self.blobs.remove(file))?;
            Ok(orphans.len())
        })
    }

    /// Removes the blobs of assets whose rows are gone; of one that was put again in the meantime it stays.
    ///
    /// [`Store::put`] looks for its blob after it has the same lock: one of the two sees what the other did.
    pub(crate) fn unlink(&self, assets: &[Asset]) -> Result<()> {
        self.write(|connection| {
            for asset in assets {
                let named: Option<String> = connection
                    .query_row("SELECT file FROM assets WHERE id = ?1", [asset.id.as_str()], |row| row.get(0))
                    .optional()?;
                if named.as_ref() != Some(&asset.file) {
                    self.blobs.remove(&asset.file)?;
                }
            }
            Ok(())
        })
    }
}

/// The unfinished job that needs this asset or has made it.
pub(crate) fn holder(connection: &Connection, id: &AssetId) -> Result<Option<JobId>> {
    let sql = format!("SELECT job FROM ({}) WHERE asset = ?1", needed());
    let found: Option<String> = connection.query_row(&sql, [id.as_str()], |row| row.get(0)).optional()?;
    found.map(|job| job.parse()).transpose()
}

/// Whether an asset is there and was not put again since it was read.
fn unchanged(connection: &Connection, asset: &Asset) -> Result<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM assets WHERE id = ?1 AND used_at = ?2)";
    Ok(connection.query_row(sql, (asset.id.as_str(), asset.used_at), |row| row.get(0))?)
}

/// Of all assets, in the order in which they would go and each with whether a job holds it, those that go.
fn choose(assets: Vec<(Asset, bool)>, limits: &Limits, now: i64) -> Pruned {
    let mut total: u64 = assets.iter().map(|(asset, _)| asset.size).sum();
    let age = |asset: &Asset| Duration::from_millis(u64::try_from(now - asset.used_at).unwrap_or(0));
    // Those that are too old go first: then fewer go for want of room.
    let (mut removed, mut rest) = (Vec::new(), Vec::new());
    for (asset, held) in assets {
        let free = !held && age(&asset) >= limits.spared;
        if free && limits.max_age.is_some_and(|max| age(&asset) > max) {
            total -= asset.size;
            removed.push(asset);
        } else {
            rest.push((asset, free));
        }
    }
    let mut kept = rest.len();
    for (asset, free) in rest {
        if free && limits.max_bytes.is_some_and(|max| total > max) {
            total -= asset.size;
            kept -= 1;
            removed.push(asset);
        }
    }
    Pruned { removed, kept, kept_bytes: total, jobs: 0 }
}

/// The jobs that are over, for longer than the age, and have no picture left once these are removed.
fn forgettable(connection: &Connection, limits: &Limits, removed: &[Asset]) -> Result<Vec<String>> {
    let Some(max_age) = limits.max_age else { return Ok(Vec::new()) };
    let age = i64::try_from(max_age.max(limits.spared).as_millis()).unwrap_or(i64::MAX);
    let removed = serde_json::Value::from_iter(removed.iter().map(|asset| asset.id.as_str()));
    let mut query = connection.prepare_cached(&format!(
        "SELECT id FROM jobs
         WHERE status IN {OVER} AND updated_at < ?1 AND NOT EXISTS (
             SELECT 1 FROM job_assets JOIN assets ON assets.id = asset
             WHERE job = jobs.id AND asset NOT IN (SELECT value FROM json_each(?2))
         )"
    ))?;
    let ids = query.query_map((now().saturating_sub(age), removed.to_string()), |row| row.get(0))?;
    Ok(ids.collect::<rusqlite::Result<_>>()?)
}

fn bytes_of(assets: &[Asset]) -> u64 {
    assets.iter().map(|asset| asset.size).sum()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::path::Path;

    use proptest::prelude::*;
    use rusqlite::params;

    use super::*;
    use crate::{AssetMeta, Error, NewJob, Runner};

    const CPU: Runner<'_> = Runner { device: "cpu", dtype: "f32" };

    const HOUR: u64 = 60 * 60;

    fn put(store: &Store, bytes: &[u8], passing: bool, hours_ago: u64) -> AssetId {
        let meta = AssetMeta { media_type: "image/png".into(), passing, ..AssetMeta::default() };
        let id = store.put(bytes, &meta).unwrap();
        let then = now() - i64::try_from(hours_ago * HOUR * 1000).unwrap();
        let sql = "UPDATE assets SET used_at = ?2 WHERE id = ?1";
        store.connection().execute(sql, params![id.as_str(), then]).unwrap();
        id
    }

    fn limits(max_bytes: Option<u64>, max_hours: Option<u64>, spared_hours: u64) -> Limits {
        let hours = |hours| Duration::from_secs(hours * HOUR);
        Limits { max_bytes, max_age: max_hours.map(hours), spared: hours(spared_hours) }
    }

    fn ids(assets: &[Asset]) -> Vec<AssetId> {
        assets.iter().map(|asset| asset.id.clone()).collect()
    }

    fn files(dir: &Path) -> usize {
        let entries = |dir: &Path| std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
        entries(&dir.join("blobs")).map(|folder| entries(&folder).count()).sum()
    }

    #[test]
    fn the_oldest_goes_first_and_previews_before_all() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let young = put(&store, &[1; 100], false, 2);
        let old = put(&store, &[2; 100], false, 9);
        let preview = put(&store, &[3; 100], true, 1);
        let all = store.prunable(&limits(Some(0), None, 0)).unwrap();
        assert_eq!(ids(&all.removed), [preview.clone(), old.clone(), young.clone()]);
        assert_eq!((all.kept, all.kept_bytes), (0, 0));
        assert!(store.prunable(&limits(Some(300), None, 0)).unwrap().removed.is_empty());
        let pruned = store.prune(&limits(Some(299), None, 0)).unwrap();
        assert_eq!((ids(&pruned.removed), pruned.kept, pruned.kept_bytes), (vec![preview], 2, 200));
        // An age beyond the limit makes room enough: nothing more goes.
        let pruned = store.prune(&limits(Some(100), Some(5), 0)).unwrap();
        assert_eq!((ids(&pruned.removed), pruned.kept), (vec![old], 1));
        assert_eq!(ids(&store.list(true).unwrap()), [young]);
        assert_eq!(files(dir.path()), 1);
    }

    #[test]
    fn what_is_put_again_is_young_again() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let id = put(&store, b"seen again", false, 99);
        assert_eq!(
            ids(&store.prunable(&limits(None, Some(9), 0)).unwrap().removed),
            std::slice::from_ref(&id)
        );
        store.put(b"seen again", &AssetMeta::default()).unwrap();
        assert!(store.prune(&limits(None, Some(9), 0)).unwrap().removed.is_empty());
        // And once for all to keep is no preview any more.
        assert!(!store.get(&id).unwrap().meta.passing);
    }

    #[test]
    fn what_an_unfinished_job_needs_or_made_stays() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let input = put(&store, b"input", false, 99);
        let made = put(&store, b"made", false, 99);
        let job =
            store.create_job(&NewJob { needs: std::slice::from_ref(&input), ..NewJob::default() }).unwrap();
        store.add_job_asset(&job, 0, &made, 1.0, CPU).unwrap();
        let none = limits(Some(0), Some(1), 0);
        assert!(store.prune(&none).unwrap().removed.is_empty());
        for id in [&input, &made] {
            assert_eq!(store.needed_by(id).unwrap(), Some(job.clone()));
            let message = store.remove(id).unwrap_err().to_string();
            assert!(message.contains(id.as_str()) && message.contains(job.as_str()), "{message}");
        }
        store.finish_job(&job).unwrap();
        assert_eq!(store.prune(&none).unwrap().removed.len(), 2);
        assert_eq!(store.job(&job).unwrap().assets, [made]);
    }

    #[test]
    fn jobs_that_are_long_over_go_with_their_last_picture() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let picture = |bytes: &[u8]| put(&store, bytes, false, 0);
        let pictures = [picture(b"old"), picture(b"young")];
        let job = |pictures: &[AssetId], over: bool| {
            let id = store.create_job(&NewJob::default()).unwrap();
            for (position, picture) in pictures.iter().enumerate() {
                store.add_job_asset(&id, position, picture, 1.0, CPU).unwrap();
            }
            if over {
                store.finish_job(&id).unwrap();
            }
            id
        };
        let ended = |sql: &str, id: &str, hours_ago: u64| {
            let then = now() - i64::try_from(hours_ago * HOUR * 1000).unwrap();
            store.connection().execute(sql, params![id, then]).unwrap();
        };
        let gone = [job(&pictures[..1], true), job(&[], true)];
        let [both, open] = [job(&pictures, true), job(&[], false)];
        for id in gone.iter().chain([&both, &open]) {
            ended("UPDATE jobs SET updated_at = ?2 WHERE id = ?1", id.as_str(), 99);
        }
        let late = job(&pictures[..1], true);
        ended("UPDATE assets SET used_at = ?2 WHERE id = ?1", pictures[0].as_str(), 99);
        assert_eq!(store.prunable(&limits(Some(0), None, 0)).unwrap().jobs, 0, "no age, no end");
        assert_eq!(store.prune(&limits(None, Some(200), 0)).unwrap().jobs, 0);
        assert_eq!(store.prune(&limits(None, Some(9), 200)).unwrap().jobs, 0, "what is young is spared");
        let nine_hours = limits(None, Some(9), 0);
        let told = store.prunable(&nine_hours).unwrap();
        let pruned = store.prune(&nine_hours).unwrap();
        assert_eq!((told.jobs, pruned.jobs), (2, 2));
        assert_eq!(ids(&pruned.removed), pictures[..1]);
        assert_eq!(store.job_ids().unwrap(), [both, open, late]);
        let left = |table: &str| {
            let sql = format!("SELECT count(*) FROM {table} WHERE job NOT IN (SELECT id FROM jobs)");
            store.connection().query_row(&sql, [], |row| row.get::<_, i64>(0)).unwrap()
        };
        assert_eq!(["job_history", "job_assets"].map(left), [0, 0]);
    }

    #[test]
    fn what_a_job_read_and_made_is_young_when_the_job_is_over() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        for end in [0, 1, 2] {
            let (input, made) = (put(&store, b"input", false, 0), put(&store, b"made", false, 0));
            let needs = std::slice::from_ref(&input);
            let job = store.create_job(&NewJob { needs, ..NewJob::default() }).unwrap();
            store.add_job_asset(&job, 0, &made, 1.0, CPU).unwrap();
            // It has been at work for three hours.
            store.connection().execute("UPDATE assets SET used_at = used_at - 10800000", []).unwrap();
            match end {
                0 => store.finish_job(&job),
                1 => store.fail_job(&job, "no"),
                _ => store.cancel_job(&job),
            }
            .unwrap();
            assert!(store.prune(&limits(Some(0), Some(1), 1)).unwrap().removed.is_empty(), "{end}");
        }
    }

    #[test]
    fn blobs_without_rows_are_swept_once_they_are_old() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let (kept, torn) = (put(&store, b"kept", false, 0), put(&store, b"torn", false, 0));
        let path = store.path(&store.get(&torn).unwrap());
        // As a crash leaves it between the row and the blob.
        store.connection().execute("DELETE FROM assets WHERE id = ?1", [torn.as_str()]).unwrap();
        assert_eq!((store.sweep().unwrap(), path.exists()), (0, true));
        let long_ago = std::time::SystemTime::now() - 2 * crate::LEFTOVER;
        for path in [&path, &store.path(&store.get(&kept).unwrap())] {
            std::fs::File::options().write(true).open(path).unwrap().set_modified(long_ago).unwrap();
        }
        assert_eq!((store.sweep().unwrap(), path.exists()), (1, false));
        assert_eq!(store.bytes(&kept).unwrap(), b"kept");
    }

    #[test]
    fn puts_and_removals_at_once_leave_no_row_without_its_blob() {
        let dir = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let store = Store::open(dir.path()).unwrap();
                    for _ in 0..150 {
                        store.prune(&limits(Some(0), None, 0)).unwrap();
                    }
                });
            }
            let store = Store::open(dir.path()).unwrap();
            for round in 0..150 {
                let bytes = [round % 3; 64];
                let id = store.put(&bytes, &AssetMeta::default()).unwrap();
                match store.bytes(&id) {
                    Ok(found) => assert_eq!(found, bytes),
                    Err(error) => assert!(matches!(error, Error::UnknownAsset(_)), "{error}"),
                }
            }
        });
        let store = Store::open(dir.path()).unwrap();
        for asset in store.list(true).unwrap() {
            store.bytes(&asset.id).unwrap();
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// Whatever the store holds: the limits are kept as far as may be, in order, and no further than needed.
        #[test]
        fn limits_are_kept_and_nothing_goes_without_need(
            given in prop::collection::vec((1_u64..400, 0_u64..20, any::<bool>(), 0_u8..4), 0..12),
            max_bytes in prop::option::of(0_u64..2000),
            max_hours in prop::option::of(0_u64..20),
            spared in 0_u64..4,
        ) {
            let dir = tempfile::tempdir().unwrap();
            let store = Store::open(dir.path()).unwrap();
            // Ages lie between whole hours, so that the time of the test itself decides nothing.
            let limits = limits(max_bytes, max_hours, spared);
            let mut assets = Vec::new();
            for (number, (size, hours, passing, held)) in given.into_iter().enumerate() {
                let bytes = [vec![number as u8], vec![0; size as usize]].concat();
                let id = put(&store, &bytes, passing, hours);
                let shifted = "UPDATE assets SET used_at = used_at - 1800000 WHERE id = ?1";
                store.connection().execute(shifted, [id.as_str()]).unwrap();
                if held == 0 {
                    store.create_job(&NewJob { needs: std::slice::from_ref(&id), ..NewJob::default() }).unwrap();
                }
                assets.push((id, bytes, hours, passing, held == 0));
            }
            let pruned = store.prune(&limits).unwrap();
            let gone = ids(&pruned.removed);
            let fixed = |hours: u64, held: bool| held || hours < spared;
            let aged = |hours: u64| max_hours.is_some_and(|max| hours >= max);
            let mut left = 0;
            for (id, bytes, hours, _, held) in &assets {
                if gone.contains(id) {
                    prop_assert!(!fixed(*hours, *held));
                    prop_assert!(matches!(store.bytes(id), Err(Error::UnknownAsset(_))));
                } else {
                    prop_assert_eq!(&store.bytes(id).unwrap(), bytes);
                    prop_assert!(fixed(*hours, *held) || !aged(*hours));
                    left += bytes.len() as u64;
                }
            }
            prop_assert_eq!((pruned.kept_bytes, pruned.kept), (left, assets.len() - gone.len()));
            prop_assert_eq!(files(dir.path()), pruned.kept);
            if let Some(max) = max_bytes {
                let all_fixed = assets.iter().all(|(id, _, hours, _, held)| gone.contains(id) || fixed(*hours, *held));
                prop_assert!(left <= max || all_fixed);
            }
            // Those that went for want of room: none too many, and none before one that would go first.
            let for_room: Vec<_> = assets.iter().filter(|a| gone.contains(&a.0) && !aged(a.2)).collect();
            if let (Some(last), Some(max)) = (pruned.removed.last().filter(|_| !for_room.is_empty()), max_bytes) {
                prop_assert!(left + last.size > max);
            }
            for (_, _, hours, passing, _) in &for_room {
                let passed_over = assets.iter().find(|(id, _, other, other_passing, held)| {
                    !gone.contains(id) && !fixed(*other, *held) && (*other_passing, *other) > (*passing, *hours)
                });
                prop_assert_eq!(passed_over, None);
            }
        }
    }
}
