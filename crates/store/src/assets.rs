//! Assets: pictures that came in or were made, each a row and a blob.

use rusqlite::{OptionalExtension, Row, params};

use crate::blobs::Blobs;
use crate::retention::holder;
use crate::{AssetId, Error, Result, Store, now};

/// What is known of an asset besides its bytes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AssetMeta {
    /// The media type, as `image/png`.
    pub media_type: String,
    /// In pixels.
    pub width: Option<u32>,
    /// In pixels.
    pub height: Option<u32>,
    /// The asset that this one was made from.
    pub parent: Option<AssetId>,
    /// Kept out of listings.
    pub hidden: bool,
    /// How it was made, as JSON.
    pub recipe: Option<String>,
    /// A preview of a run, of little use once the run is over: the first to go for want of room.
    pub passing: bool,
}

/// A stored asset.
#[derive(Debug, Clone, PartialEq)]
pub struct Asset {
    /// Its name.
    pub id: AssetId,
    /// What was said of it when it was put.
    pub meta: AssetMeta,
    /// Its bytes.
    pub size: u64,
    /// Milliseconds since 1970.
    pub created_at: i64,
    /// When it was last put, in milliseconds since 1970.
    pub used_at: i64,
    /// Its file within the folder of blobs.
    pub(crate) file: String,
}

impl Store {
    /// Stores these bytes: the blob first, then its row, so that what is listed can be read whatever happens between.
    ///
    /// The same bytes are the same asset: putting them again changes nothing, except that it counts as used now, that an
    /// asset put once for all to see is no longer hidden, one put once to be kept no longer passing, and that a damaged
    /// blob is made whole.
    ///
    /// # Errors
    /// A file that can't be written or a database that refuses.
    pub fn put(&self, bytes: &[u8], meta: &AssetMeta) -> Result<AssetId> {
        let hash = blake3::hash(bytes);
        let id = AssetId::from_hash(&hash);
        // The row that exists knows the file's name: its media type may be another.
        let file = match self.find(&id)? {
            Some(asset) => asset.file,
            None => Blobs::file_name(&hash, &meta.media_type),
        };
        self.blobs.write(&file, bytes, &hash)?;
        self.write(|connection| {
            connection.execute(
                "INSERT INTO assets (id, hash, file, size, media_type, width, height, parent, hidden, recipe, passing,
                                     created_at, used_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?12)
                 ON CONFLICT (id) DO UPDATE SET
                     hidden = min(hidden, excluded.hidden),
                     passing = min(passing, excluded.passing),
                     used_at = CASE WHEN used_at - excluded.used_at BETWEEN 0 AND 1000
                               THEN used_at + 1 ELSE excluded.used_at END",
                params![
                    id.as_str(),
                    hash.to_hex().as_str(),
                    file,
                    bytes.len() as i64,
                    meta.media_type,
                    meta.width,
                    meta.height,
                    meta.parent.as_ref().map(AssetId::as_str),
                    meta.hidden,
                    meta.recipe,
                    meta.passing,
                    now(),
                ],
            )?;
            // Whoever removes a blob holds this lock too, and may have done so since it was written above.
            if !self.blobs.has(&file, bytes.len() as u64) {
                self.blobs.write(&file, bytes, &hash)?;
            }
            Ok(())
        })?;
        Ok(id)
    }

    /// The asset of this name.
    ///
    /// # Errors
    /// [`Error::UnknownAsset`] if there is none.
    pub fn get(&self, id: &AssetId) -> Result<Asset> {
        self.find(id)?.ok_or_else(|| Error::UnknownAsset(id.clone()))
    }

    /// The bytes of an asset, as they were put.
    ///
    /// # Errors
    /// [`Error::UnknownAsset`]; [`Error::Damaged`] if the file is gone or holds anything else.
    pub fn bytes(&self, id: &AssetId) -> Result<Vec<u8>> {
        let damaged = |reason: &str| Error::Damaged { id: id.clone(), reason: reason.to_owned() };
        let mut found = self.blobs.read(&self.get(id)?.file)?;
        if found.is_none() {
            // It may have been removed since its row was read, and put again.
            found = self.blobs.read(&self.get(id)?.file)?;
        }
        let bytes = found.ok_or_else(|| damaged("its file is gone"))?;
        if AssetId::of(&bytes) != *id {
            return Err(damaged("its file holds other bytes than were put"));
        }
        Ok(bytes)
    }

    /// All assets, oldest first; the hidden ones only if asked for.
    ///
    /// # Errors
    /// A database that refuses.
    pub fn list(&self, with_hidden: bool) -> Result<Vec<Asset>> {
        let connection = self.connection();
        let mut query =
            connection.prepare("SELECT * FROM assets WHERE hidden = 0 OR ?1 ORDER BY created_at, id")?;
        let assets = query.query_map([with_hidden], read_asset)?.collect::<rusqlite::Result<_>>()?;
        Ok(assets)
    }

    /// The assets that are not hidden, newest first and of one moment by id: at most `limit` of those behind `after`.
    ///
    /// # Errors
    /// A database that refuses.
    pub fn newest(&self, after: Option<Moment<'_>>, limit: usize) -> Result<Vec<Asset>> {
        let connection = self.connection();
        let mut query = connection.prepare_cached(
            "SELECT * FROM assets WHERE hidden = 0 AND (created_at < ?1 OR (created_at = ?1 AND id > ?2))
             ORDER BY created_at DESC, id LIMIT ?3",
        )?;
        let assets = query.query_map(bounds(after, limit), read_asset)?.collect::<rusqlite::Result<_>>()?;
        Ok(assets)
    }

    /// Removes an asset: the row first, then the blob.
    ///
    /// # Errors
    /// [`Error::UnknownAsset`] if there is none; [`Error::Needed`] if an unfinished job needs it.
    pub fn remove(&self, id: &AssetId) -> Result<()> {
        let asset = self.get(id)?;
        self.write(|connection| {
            if let Some(job) = holder(connection, id)? {
                return Err(Error::Needed { id: id.clone(), job });
            }
            connection.execute("DELETE FROM assets WHERE id = ?1", [id.as_str()])?;
            Ok(())
        })?;
        self.unlink(std::slice::from_ref(&asset))
    }

    fn find(&self, id: &AssetId) -> Result<Option<Asset>> {
        let connection = self.connection();
        let mut query = connection.prepare_cached("SELECT * FROM assets WHERE id = ?1")?;
        Ok(query.query_row([id.as_str()], read_asset).optional()?)
    }
}

/// A place in a list that begins with the newest: when the row was made, and its id.
pub type Moment<'a> = (i64, &'a str);

/// What a query for `limit` rows behind `after` in such a list is given.
pub(crate) fn bounds(after: Option<Moment<'_>>, limit: usize) -> (i64, &str, i64) {
    let (at, id) = after.unwrap_or((i64::MAX, ""));
    (at, id, i64::try_from(limit).unwrap_or(i64::MAX))
}

pub(crate) fn read_asset(row: &Row<'_>) -> rusqlite::Result<Asset> {
    let parent: Option<String> = row.get("parent")?;
    Ok(Asset {
        id: read_id(&row.get::<_, String>("id")?)?,
        meta: AssetMeta {
            media_type: row.get("media_type")?,
            width: row.get("width")?,
            height: row.get("height")?,
            parent: parent.as_deref().map(read_id).transpose()?,
            hidden: row.get("hidden")?,
            recipe: row.get("recipe")?,
            passing: row.get("passing")?,
        },
        size: u64::try_from(row.get::<_, i64>("size")?).unwrap_or(0),
        created_at: row.get("created_at")?,
        used_at: row.get("used_at")?,
        file: row.get("file")?,
    })
}

/// An id out of a row.
pub(crate) fn read_id<I: std::str::FromStr<Err = Error>>(text: &str) -> rusqlite::Result<I> {
    text.parse().map_err(|e: Error| {
        rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(e))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn meta(hidden: bool) -> AssetMeta {
        AssetMeta {
            media_type: "image/png".into(),
            width: Some(3),
            height: Some(2),
            hidden,
            ..AssetMeta::default()
        }
    }

    #[test]
    fn the_newest_come_in_pages() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        for n in 0..7u8 {
            let id = store.put(&[n], &meta(n == 3)).unwrap();
            let made = i64::from(n / 2);
            store
                .connection()
                .execute("UPDATE assets SET created_at = ?1 WHERE id = ?2", (made, id.as_str()))
                .unwrap();
        }
        let mut wanted: Vec<_> =
            store.list(false).unwrap().into_iter().map(|one| (-one.created_at, one.id)).collect();
        wanted.sort();
        let mut found: Vec<Asset> = Vec::new();
        for length in [2, 2, 2, 0] {
            let last = found.last().cloned();
            let page = store.newest(last.as_ref().map(|one| (one.created_at, one.id.as_str())), 2).unwrap();
            assert_eq!(page.len(), length);
            found.extend(page);
        }
        let found: Vec<_> = found.into_iter().map(|one| (-one.created_at, one.id)).collect();
        assert_eq!(found, wanted);
    }

    #[test]
    fn the_same_bytes_are_the_same_asset() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let first = store.put(b"pixels", &meta(true)).unwrap();
        let mut before = store.get(&first).unwrap();
        assert_eq!(store.put(b"pixels", &meta(true)).unwrap(), first);
        let after = store.get(&first).unwrap();
        // Whoever looked before sees that it was used since, however soon that was.
        assert!(after.used_at > before.used_at);
        before.used_at = after.used_at;
        assert_eq!(after, before);
        assert_eq!(store.list(true).unwrap(), std::slice::from_ref(&before));
        assert_eq!(std::fs::read(store.path(&before)).unwrap(), b"pixels");
        assert!(store.list(false).unwrap().is_empty());
        store.put(b"pixels", &meta(false)).unwrap();
        assert_eq!(store.list(false).unwrap().len(), 1);
    }

    #[test]
    fn all_that_was_said_of_an_asset_comes_back_after_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let said = AssetMeta {
            parent: Some(AssetId::of(b"parent")),
            recipe: Some("{\"seed\":\"7\"}".into()),
            ..meta(false)
        };
        let id = Store::open(dir.path()).unwrap().put(b"child", &said).unwrap();
        let store = Store::open(dir.path()).unwrap();
        let asset = store.get(&id).unwrap();
        assert_eq!((asset.meta, asset.size), (said, 5));
        store.remove(&id).unwrap();
        assert!(matches!(store.bytes(&id), Err(Error::UnknownAsset(_))));
        assert!(matches!(store.remove(&id), Err(Error::UnknownAsset(_))));
    }

    #[test]
    fn a_torn_blob_is_found_out_and_made_whole_by_putting_it_again() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let id = store.put(b"all the pixels", &meta(false)).unwrap();
        let path = store.path(&store.get(&id).unwrap());
        for torn in [&b"all the"[..], b"", b"all the pixelz", b"all the pixels and more"] {
            std::fs::write(&path, torn).unwrap();
            assert!(matches!(store.bytes(&id), Err(Error::Damaged { .. })), "{torn:?}");
        }
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(store.bytes(&id), Err(Error::Damaged { .. })));
        assert_eq!(store.put(b"all the pixels", &meta(false)).unwrap(), id);
        assert_eq!(store.bytes(&id).unwrap(), b"all the pixels");
    }

    #[test]
    fn a_blob_without_a_row_is_no_asset_and_no_obstacle() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let hash = blake3::hash(b"orphan");
        store.blobs.write(&Blobs::file_name(&hash, "image/png"), b"orphan", &hash).unwrap();
        assert!(store.list(true).unwrap().is_empty());
        let id = store.put(b"orphan", &meta(false)).unwrap();
        assert_eq!(store.bytes(&id).unwrap(), b"orphan");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// Any run of puts, removals and reopenings leaves what a map would hold.
        #[test]
        fn a_store_is_a_map(steps in prop::collection::vec((0u8..4, 0u8..5, any::<bool>()), 1..24)) {
            let dir = tempfile::tempdir().unwrap();
            let mut store = Store::open(dir.path()).unwrap();
            let mut model: BTreeMap<AssetId, (Vec<u8>, bool)> = BTreeMap::new();
            for (step, content, hidden) in steps {
                let bytes = vec![content; 1000 * usize::from(content)];
                let id = AssetId::of(&bytes);
                match step {
                    0 | 1 => {
                        prop_assert_eq!(&store.put(&bytes, &meta(hidden)).unwrap(), &id);
                        let seen = model.entry(id).or_insert((bytes, hidden));
                        seen.1 &= hidden;
                    }
                    2 => prop_assert_eq!(store.remove(&id).is_ok(), model.remove(&id).is_some()),
                    _ => {
                        drop(store);
                        store = Store::open(dir.path()).unwrap();
                    }
                }
                let mut listed: Vec<_> = store.list(true).unwrap().into_iter().map(|a| (a.id, a.meta.hidden)).collect();
                listed.sort();
                let expected: Vec<_> = model.iter().map(|(id, (_, hidden))| (id.clone(), *hidden)).collect();
                prop_assert_eq!(listed, expected);
                for (id, (bytes, _)) in &model {
                    prop_assert_eq!(&store.bytes(id).unwrap(), bytes);
                }
            }
        }
    }
}
