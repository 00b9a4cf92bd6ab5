#![allow(clippy::unwrap_used)]
use super::*;
use crate::AssetMeta;

const PLAIN: NewJob<'_> = NewJob { kind: "inference", input: "{}", needs: &[], notes: &[], work: None };

const CPU: Runner<'_> = Runner { device: "cpu", dtype: "f32" };

fn put(store: &Store, bytes: &[u8]) -> AssetId {
    store.put(bytes, &AssetMeta { media_type: "image/png".into(), ..AssetMeta::default() }).unwrap()
}

#[test]
fn a_job_goes_its_way_and_keeps_its_history() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let note = ["the mask is small".to_owned()];
    let id = store.create_job(&NewJob { notes: &note, ..PLAIN }).unwrap();
    store.begin_job(&id).unwrap();
    assert!(!store.advance_job(&id, JobStatus::InProgress, 0.2).unwrap());
    assert!(!store.advance_job(&id, JobStatus::InProgress, 0.5).unwrap());
    assert_eq!(store.job(&id).unwrap().progress, 0.5);
    let made = [put(&store, b"0"), put(&store, b"1")];
    store.add_job_asset(&id, 1, &made[1], 2.5, CPU).unwrap();
    store.add_job_asset(&id, 0, &put(&store, b"torn"), 9.0, CPU).unwrap();
    store.add_job_asset(&id, 0, &made[0], 1.5, CPU).unwrap();
    store.add_job_note(&id, "the mask is small").unwrap();
    store.add_job_note(&id, "so is the picture").unwrap();
    store.finish_job(&id).unwrap();
    let job = store.job(&id).unwrap();
    let statuses: Vec<_> = job.history.iter().map(|(status, _)| status.as_str()).collect();
    assert_eq!(statuses, ["queued", "warming-up", "in-progress", "success"]);
    assert_eq!((job.status, job.progress, job.assets.as_slice()), (JobStatus::Success, 1.0, &made[..]));
    assert_eq!(job.seconds, [1.5, 2.5]);
    assert_eq!(job.notes, ["the mask is small", "so is the picture"]);
    assert_eq!(store.jobs().unwrap(), [job]);
}

#[test]
fn what_is_over_stays_over() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let failed = store.create_job(&PLAIN).unwrap();
    store.fail_job(&failed, "the UNet has no tensor conv_in.weight").unwrap();
    let canceled = store.create_job(&PLAIN).unwrap();
    store.cancel_job(&canceled).unwrap();
    for id in [&failed, &canceled] {
        let before = store.job(id).unwrap();
        assert!(matches!(store.begin_job(id), Err(Error::Finished { .. })));
        assert!(matches!(store.advance_job(id, JobStatus::InProgress, 0.1), Err(Error::Finished { .. })));
        assert!(matches!(
            store.add_job_asset(id, 0, &AssetId::of(b"0"), 1.0, CPU),
            Err(Error::Finished { .. })
        ));
        assert!(matches!(store.add_job_note(id, "late"), Err(Error::Finished { .. })));
        assert!(matches!(store.finish_job(id), Err(Error::Finished { .. })));
        assert!(matches!(store.release_job(id), Err(Error::Finished { .. })));
        assert!(matches!(store.request_cancel(id), Err(Error::Finished { .. })));
        assert_eq!(store.job(id).unwrap(), before);
    }
    assert_eq!(store.job(&failed).unwrap().error.as_deref(), Some("the UNet has no tensor conv_in.weight"));
    assert!(matches!(store.job(&JobId::random()), Err(Error::UnknownJob(_))));
    assert!(matches!(store.request_cancel(&JobId::random()), Err(Error::UnknownJob(_))));
    assert!(store.adopt_jobs().unwrap().is_empty());
}

#[test]
fn the_jobs_of_a_process_that_is_gone_are_taken_over_and_those_of_a_living_one_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let gone = Store::open(dir.path()).unwrap();
    let left = gone.create_job(&NewJob { input: "{\"prompt\":\"left\"}", ..PLAIN }).unwrap();
    gone.begin_job(&left).unwrap();
    gone.advance_job(&left, JobStatus::InProgress, 0.7).unwrap();
    gone.add_job_asset(&left, 0, &put(&gone, b"0"), 1.0, CPU).unwrap();
    let waiting = gone.create_job(&PLAIN).unwrap();
    let unwanted = gone.create_job(&PLAIN).unwrap();
    gone.begin_job(&unwanted).unwrap();
    assert_eq!(gone.request_cancel(&unwanted).unwrap(), Cancel::Asked);
    let done = gone.create_job(&PLAIN).unwrap();
    gone.finish_job(&done).unwrap();
    drop(gone);

    let living = Store::open(dir.path()).unwrap();
    let running = living.create_job(&PLAIN).unwrap();
    living.begin_job(&running).unwrap();

    let store = Store::open(dir.path()).unwrap();
    let taken = store.adopt_jobs().unwrap();
    assert_eq!(taken.iter().map(|job| &job.id).collect::<Vec<_>>(), [&left, &waiting]);
    assert_eq!((taken[0].status, taken[0].progress), (JobStatus::Queued, 0.0));
    assert_eq!(taken[0].input, "{\"prompt\":\"left\"}");
    assert_eq!(taken[0].assets, [AssetId::of(b"0")]);
    assert_eq!(store.job(&unwanted).unwrap().status, JobStatus::Canceled);
    assert_eq!(store.job(&running).unwrap().status, JobStatus::WarmingUp);
    assert_eq!(store.job(&done).unwrap().status, JobStatus::Success);
    // They are owned now.
    assert!(living.adopt_jobs().unwrap().is_empty() && store.adopt_jobs().unwrap().is_empty());
    store.release_job(&left).unwrap();
    assert_eq!(living.adopt_jobs().unwrap().len(), 1);
}

#[test]
fn of_many_that_start_at_once_one_gets_a_job() {
    let dir = tempfile::tempdir().unwrap();
    let gone = Store::open(dir.path()).unwrap();
    for _ in 0..5 {
        let id = gone.create_job(&PLAIN).unwrap();
        gone.begin_job(&id).unwrap();
    }
    drop(gone);
    let taken: Vec<JobId> = std::thread::scope(|scope| {
        let starting: Vec<_> = (0..6)
            .map(|_| {
                scope.spawn(|| {
                    let store = Store::open(dir.path()).unwrap();
                    let taken = store.adopt_jobs().unwrap();
                    (store, taken)
                })
            })
            .collect();
        // All of them live until all have asked.
        let started: Vec<_> = starting.into_iter().map(|thread| thread.join().unwrap()).collect();
        started.into_iter().flat_map(|(_, taken)| taken).map(|job| job.id).collect()
    });
    let different: std::collections::BTreeSet<_> = taken.iter().collect();
    assert_eq!((taken.len(), different.len()), (5, 5));
}

#[test]
fn a_wish_to_cancel_reaches_a_job_from_another_process() {
    let dir = tempfile::tempdir().unwrap();
    let (owner, other) = (Store::open(dir.path()).unwrap(), Store::open(dir.path()).unwrap());
    let waiting = owner.create_job(&PLAIN).unwrap();
    assert_eq!(other.request_cancel(&waiting).unwrap(), Cancel::Done);
    assert!(matches!(owner.begin_job(&waiting), Err(Error::Finished { .. })));

    let running = owner.create_job(&PLAIN).unwrap();
    owner.begin_job(&running).unwrap();
    assert!(!owner.advance_job(&running, JobStatus::InProgress, 0.1).unwrap());
    assert!(!owner.is_unwanted(&running).unwrap());
    assert_eq!(other.request_cancel(&running).unwrap(), Cancel::Asked);
    assert!(owner.is_unwanted(&running).unwrap());
    assert!(owner.job(&running).unwrap().cancel_requested);
    assert!(owner.advance_job(&running, JobStatus::InProgress, 0.2).unwrap());
    owner.cancel_job(&running).unwrap();
    assert!(matches!(owner.is_unwanted(&running), Err(Error::Finished { .. })));

    let orphan = owner.create_job(&PLAIN).unwrap();
    owner.begin_job(&orphan).unwrap();
    drop(owner);
    assert_eq!(other.request_cancel(&orphan).unwrap(), Cancel::Done);
}

#[test]
fn attempts_count_until_a_picture_comes() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    let id = store.create_job(&PLAIN).unwrap();
    for attempt in 1..4 {
        store.begin_job(&id).unwrap();
        drop(store);
        store = Store::open(dir.path()).unwrap();
        assert_eq!(store.adopt_jobs().unwrap()[0].attempts, attempt);
    }
    store.begin_job(&id).unwrap();
    store.add_job_asset(&id, 0, &put(&store, b"0"), 1.0, CPU).unwrap();
    assert_eq!(store.job(&id).unwrap().attempts, 0);
}

#[test]
fn what_a_job_needs_is_known_while_it_is_not_over() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let needs = [put(&store, b"image"), put(&store, b"mask"), put(&store, b"image")];
    let id = store.create_job(&NewJob { needs: &needs, ..PLAIN }).unwrap();
    assert_eq!(store.job(&id).unwrap().needs, needs[..2]);
    let made = put(&store, b"made");
    store.begin_job(&id).unwrap();
    store.add_job_asset(&id, 0, &made, 1.0, CPU).unwrap();
    let all = [needs[0].clone(), needs[1].clone(), made];
    assert!(all.iter().all(|asset| store.needed_by(asset).unwrap().as_ref() == Some(&id)));
    store.finish_job(&id).unwrap();
    assert!(all.iter().all(|asset| store.needed_by(asset).unwrap().is_none()));

    let gone = [AssetId::of(b"gone")];
    assert!(matches!(store.create_job(&NewJob { needs: &gone, ..PLAIN }), Err(Error::UnknownAsset(_))));
    assert_eq!(store.jobs().unwrap().len(), 1);
}

#[test]
fn previews_are_listed_as_long_as_they_are_there_and_never_needed() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let id = store.create_job(&PLAIN).unwrap();
    let (first, second) = (put(&store, b"first"), put(&store, b"second"));
    store.add_job_preview(&id, 1, &second).unwrap();
    store.add_job_preview(&id, 0, &second).unwrap();
    store.add_job_preview(&id, 0, &first).unwrap();
    assert_eq!(store.job(&id).unwrap().previews, [first.clone(), second.clone()]);
    store.remove(&first).unwrap();
    store.finish_job(&id).unwrap();
    assert_eq!(store.job(&id).unwrap().previews, std::slice::from_ref(&second));
    assert!(matches!(store.add_job_preview(&id, 2, &second), Err(Error::Finished { .. })));
}

#[test]
fn timings_are_those_of_pictures_of_the_model_on_the_device_in_the_format() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let work = Work { model: "sdxl", steps: 30, pixels: 1 << 20 };
    for (model, seconds, well) in [("sdxl", 4.0, true), ("sdxl", 5.0, false), ("sd15", 6.0, true)] {
        let id = store.create_job(&NewJob { work: Some(Work { model, ..work }), ..PLAIN }).unwrap();
        store.add_job_asset(&id, 0, &put(&store, b"0"), seconds, CPU).unwrap();
        store.add_job_asset(&id, 1, &put(&store, b"1"), seconds + 0.5, CPU).unwrap();
        if well { store.finish_job(&id) } else { store.fail_job(&id, "no") }.unwrap();
    }
    let timing = |seconds| Timing { steps: 30, pixels: 1 << 20, seconds };
    assert_eq!(store.timings("sdxl", CPU).unwrap(), [timing(4.5), timing(4.0)]);
    assert!(store.timings("flux", CPU).unwrap().is_empty());
    let (half, gpu) = (Runner { dtype: "bf16", ..CPU }, Runner { device: "cuda", ..CPU });
    for (runner, seconds) in [(half, 8.0), (gpu, 0.25)] {
        assert!(store.timings("sdxl", runner).unwrap().is_empty());
        let id = store.create_job(&NewJob { work: Some(work), ..PLAIN }).unwrap();
        store.add_job_asset(&id, 0, &put(&store, b"0"), seconds, runner).unwrap();
        store.finish_job(&id).unwrap();
        assert_eq!(store.timings("sdxl", runner).unwrap(), [timing(seconds)]);
    }
    assert_eq!(store.timings("sdxl", CPU).unwrap(), [timing(4.5), timing(4.0)]);
}

#[test]
fn statistics_count_what_was_done() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let none = store.statistics().unwrap();
    assert!(none.jobs.iter().all(|(_, jobs)| *jobs == 0));
    assert_eq!((none.jobs.len(), none.pictures, none.seconds), (JobStatus::ALL.len(), 0, 0.0));

    let done = store.create_job(&PLAIN).unwrap();
    store.begin_job(&done).unwrap();
    store.advance_job(&done, JobStatus::InProgress, 0.5).unwrap();
    store.add_job_asset(&done, 0, &put(&store, b"1"), 1.0, CPU).unwrap();
    store.add_job_asset(&done, 1, &put(&store, b"2"), 1.0, CPU).unwrap();
    store.finish_job(&done).unwrap();
    let again = store.create_job(&PLAIN).unwrap();
    store.begin_job(&again).unwrap();
    store.release_job(&again).unwrap();
    store.begin_job(&again).unwrap();
    store.fail_job(&again, "no").unwrap();
    let stopped = store.create_job(&PLAIN).unwrap();
    store.cancel_job(&stopped).unwrap();
    store.create_job(&PLAIN).unwrap();
    let run = |sql: &str| store.connection().execute(sql, []).unwrap();
    run("UPDATE job_history SET at = 1000 WHERE status = 'queued'");
    run("UPDATE job_history SET at = 3000 WHERE status = 'warming-up'");
    run("UPDATE job_history SET at = 4000 WHERE status = 'in-progress'");
    // The interrupted attempt, and the wait after it, count for nothing.
    run("UPDATE job_history SET at = 7000 WHERE rowid = (
             SELECT max(rowid) FROM job_history WHERE status = 'warming-up')");
    run("UPDATE jobs SET updated_at = 7500 WHERE status IN ('success', 'failure')");
    let statistics = store.statistics().unwrap();
    let count = |status| statistics.jobs.iter().find(|(found, _)| *found == status).unwrap().1;
    assert_eq!([JobStatus::Queued, JobStatus::Success, JobStatus::Canceled].map(count), [1, 1, 1]);
    assert_eq!((statistics.pictures, statistics.seconds), (2, 5.0));
}

#[test]
fn statuses_round_trip() {
    for status in JobStatus::ALL {
        assert_eq!(status.as_str().parse(), Ok(status));
    }
    assert_eq!("done".parse::<JobStatus>(), Err(()));
    let over = JobStatus::ALL.into_iter().filter(|status| status.is_final());
    let over: Vec<String> = over.map(|status| format!("'{}'", status.as_str())).collect();
    assert_eq!(OVER, format!("({})", over.join(", ")));
}

#[test]
fn a_wish_to_cancel_outlives_the_process_that_heard_it_and_an_orderly_end() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let (released, left) = (store.create_job(&PLAIN).unwrap(), store.create_job(&PLAIN).unwrap());
    for id in [&released, &left] {
        store.begin_job(id).unwrap();
        assert_eq!(store.request_cancel(id).unwrap(), Cancel::Asked);
    }
    store.release_job(&released).unwrap();
    assert_eq!(store.job(&released).unwrap().status, JobStatus::Canceled);
    drop(store);
    let next = Store::open(dir.path()).unwrap();
    assert!(next.adopt_jobs().unwrap().is_empty());
    assert_eq!(next.job(&left).unwrap().status, JobStatus::Canceled);
}

#[test]
fn giving_up_in_order_is_no_failed_attempt() {
    let dir = tempfile::tempdir().unwrap();
    let id = {
        let store = Store::open(dir.path()).unwrap();
        let id = store.create_job(&PLAIN).unwrap();
        store.begin_job(&id).unwrap();
        store.release_job(&id).unwrap();
        assert_eq!(store.adopt_jobs().unwrap()[0].attempts, 0);
        store.begin_job(&id).unwrap();
        id
    };
    let next = Store::open(dir.path()).unwrap();
    assert_eq!(next.adopt_jobs().unwrap()[0].attempts, 1);
    assert_eq!(next.job_ids().unwrap(), [id]);
}

#[test]
fn a_picture_that_is_gone_again_is_not_added() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let id = store.create_job(&PLAIN).unwrap();
    let made = put(&store, b"0");
    store.remove(&made).unwrap();
    assert!(
        matches!(store.add_job_asset(&id, 0, &made, 1.0, CPU), Err(Error::UnknownAsset(gone)) if gone == made)
    );
    assert!(store.job(&id).unwrap().assets.is_empty());
}
