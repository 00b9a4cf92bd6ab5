//! A process that is killed while it writes leaves a store that opens, and every listed asset is whole.

#![allow(clippy::unwrap_used, missing_docs)]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use infill_store::{AssetMeta, JobStatus, NewJob, Runner, Store};

const FOLDER: &str = "INFILL_STORE_CRASH_TEST";

fn content(number: u32) -> Vec<u8> {
    let size = 40_000 + 7 * number as usize;
    number.to_le_bytes().into_iter().cycle().take(size).collect()
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// How many blobs a store has under their final names.
fn blobs(store: &Path) -> usize {
    let folders = entries(&store.join("blobs"));
    // Beside them lies the folder of those that are being written.
    let final_ones = folders.iter().filter(|folder| !folder.ends_with("incoming"));
    final_ones.map(|folder| entries(folder).len()).sum()
}

/// The process that is killed: in an ordinary run of the tests it has no folder and nothing to do.
#[test]
fn writer() {
    let Ok(folder) = std::env::var(FOLDER) else { return };
    let store = Store::open(Path::new(&folder)).unwrap();
    let meta = AssetMeta { media_type: "image/png".into(), ..AssetMeta::default() };
    for number in 0.. {
        let input = number.to_string();
        let new = NewJob { kind: "inference", input: &input, ..NewJob::default() };
        let job = store.create_job(&new).unwrap();
        store.begin_job(&job).unwrap();
        let runner = Runner { device: "cpu", dtype: "f32" };
        let asset = store.put(&content(number), &meta).unwrap();
        store.add_job_asset(&job, 0, &asset, 1.0, runner).unwrap();
        store.finish_job(&job).unwrap();
    }
}

#[test]
fn a_killed_writer_leaves_a_whole_store() {
    let dir = tempfile::tempdir().unwrap();
    let mut written = 0;
    for round in 0..6 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "writer", "--nocapture"])
            .env(FOLDER, dir.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        // However slow the machine is, something is written before the first kill: with a second blob the first has its
        // row. Then chance begins.
        let began = Instant::now();
        while blobs(dir.path()) < 2
            && began.elapsed() < Duration::from_secs(60)
            && child.try_wait().unwrap().is_none()
        {
            std::thread::sleep(Duration::from_millis(5));
        }
        std::thread::sleep(Duration::from_millis(150 + 37 * round));
        child.kill().unwrap();
        child.wait().unwrap();

        let store = Store::open(dir.path()).unwrap();
        let assets = store.list(true).unwrap();
        for asset in &assets {
            let bytes = store.bytes(&asset.id).unwrap();
            let number = u32::from_le_bytes(bytes[..4].try_into().unwrap());
            assert_eq!(bytes, content(number));
        }
        for job in store.jobs().unwrap() {
            match job.status {
                JobStatus::Success => assert_eq!(job.assets.len(), 1, "{}", job.id),
                status => assert_eq!(status, JobStatus::Queued, "{}", job.id),
            }
            // What a job lists is there whole, also where the job was interrupted.
            assert!(job.assets.iter().all(|asset| store.bytes(asset).is_ok()), "{}", job.id);
        }
        // At most the one job of each killed writer.
        assert!(store.adopt_jobs().unwrap().len() as u64 <= round + 1);
        written = assets.len();
    }
    assert!(written > 0, "no writer lived long enough to write");
}
