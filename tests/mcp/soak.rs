//! Many clients at once, calls that are cancelled, and servers that are killed at any moment: every call gets its own
//! pictures, in its client's order, and of what was taken on nothing is lost and nothing torn. A small part of it here;
//! `scripts/mcp-soak` runs 200 calls of 20 clients, 50 cancellations and 50 kills, with a tiny model of noise or with
//! one that paints.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use infill_store::{AssetId, Job, JobStatus, Store};
use serde_json::{Value, json};

use crate::client::{Http, NEWEST, Stream};
use crate::harness::{TOOL, arguments, memory};

const WITH_SESSIONS: &str = "2025-11-25";
/// Calls that a client has open at once; those of all clients fit the queue.
const OPEN: usize = 3;
/// Jobs that killed servers may leave before the next calls wait for some of them: the queue holds the calls too.
const LEFT: usize = 24;
/// The longest that all jobs may take to end: no more than [`LEFT`] wait and some of the last calls, of a minute each.
const END: Duration = Duration::from_secs(1800);
/// MiB that the second half of the calls may add to what the first half left.
const GROWTH: u64 = 24;
/// After so long a silence a call's first word may be a sign of life, and not that its job has its place.
const SIGN_OF_LIFE: Duration = Duration::from_secs(5);

/// How much is done.
struct Size {
    clients: u64,
    calls: u64,
    rounds: u64,
}

impl Size {
    fn chosen() -> Self {
        match std::env::var("INFILL_SOAK").as_deref() {
            Ok("full") => Self { clients: 20, calls: 10, rounds: 50 },
            _ => Self { clients: 4, calls: 4, rounds: 3 },
        }
    }
}

/// Chance that is the same each time.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    fn pause(&mut self, longest: u64) {
        thread::sleep(Duration::from_millis(self.below(longest)));
    }
}

/// What each call asks for, beside its seed: a picture of the tiny model, or of the one that is named.
fn work() -> Value {
    let Ok(model) = std::env::var("INFILL_SOAK_MODEL") else { return json!({}) };
    let side = std::env::var("INFILL_SOAK_SIDE").map_or(512, |side| side.parse::<u32>().unwrap());
    json!({"modelId": model, "width": side, "height": side, "numInferenceSteps": 4})
}

/// A call for one picture of this seed, which is the message's id too.
fn message(seed: u64) -> Value {
    let mut given = arguments(&work());
    given["seed"] = seed.to_string().into();
    let params = json!({"name": TOOL, "arguments": given, "_meta": {"progressToken": seed}});
    json!({"jsonrpc": "2.0", "id": seed, "method": "tools/call", "params": params})
}

/// The answer to a call, or nothing where the stream breaks off before.
fn answer(mut stream: Stream) -> Option<Value> {
    loop {
        let message = stream.message_or_end()?;
        if message.get("method").is_none() {
            return Some(message);
        }
    }
}

/// The only picture of a job, or nothing where it did not end well.
fn picture(job: &Value) -> Option<AssetId> {
    let assets = job["metadata"]["assetIds"].as_array()?;
    (job["status"] == "success" && assets.len() == 1).then(|| assets[0].as_str()?.parse().ok())?
}

/// The picture that a call gave, however long it took.
fn settled(server: &Http, protocol: &str, session: Option<&str>, stream: Stream) -> AssetId {
    let mut result = answer(stream).expect("the stream broke off")["result"].clone();
    loop {
        assert_eq!(result["isError"], false, "{result}");
        let job = &result["structuredContent"]["job"];
        if let Some(picture) = picture(job) {
            return picture;
        }
        assert!(
            ["queued", "warming-up", "in-progress", "finalizing"].iter().any(|s| job["status"] == *s),
            "{job}"
        );
        thread::sleep(Duration::from_millis(200));
        let params = json!({"name": "get-job-id", "arguments": {"jobId": job["jobId"]}});
        let told = server.request(protocol, session, "tools/call", &params);
        result = told.last().unwrap()["result"].clone();
    }
}

/// The pictures of these seeds, each painted when nothing else is, in a store of their own.
fn alone(seeds: impl IntoIterator<Item = u64>) -> BTreeMap<u64, AssetId> {
    let dir = tempfile::tempdir().unwrap();
    let server = Http::start(dir.path());
    seeds
        .into_iter()
        .map(|seed| (seed, settled(&server, NEWEST, None, server.post(NEWEST, None, &message(seed)))))
        .collect()
}

/// What a client had of its calls.
#[derive(Default)]
struct Had {
    /// The pictures, by their seeds.
    made: Vec<(u64, AssetId)>,
    /// The seeds of those whose job surely had its place before the next call was sent.
    placed: Vec<u64>,
}

/// One client's calls, several open at once.
fn client(server: &Http, number: u64, calls: std::ops::Range<u64>) -> Had {
    let protocol = if number.is_multiple_of(2) { NEWEST } else { WITH_SESSIONS };
    let session = (protocol == WITH_SESSIONS).then(|| server.session(protocol));
    let session = session.as_deref();
    let (mut open, mut had) = (VecDeque::new(), Had::default());
    for call in calls {
        let seed = 1000 * number + call;
        let sent = Instant::now();
        let mut stream = server.post(protocol, session, &message(seed));
        // The first word is that the job has its place: only then is the next call a later one. Where it comes so late
        // that it may be a sign of life, the two can't be told apart.
        let word = stream.message_or_end().expect("the stream broke off");
        if sent.elapsed() < SIGN_OF_LIFE {
            had.placed.push(seed);
        }
        assert_eq!(word["params"]["progressToken"], seed, "{word}");
        open.push_back((seed, stream));
        if open.len() == OPEN {
            let (seed, stream) = open.pop_front().unwrap();
            had.made.push((seed, settled(server, protocol, session, stream)));
        }
    }
    had.made
        .extend(open.into_iter().map(|(seed, stream)| (seed, settled(server, protocol, session, stream))));
    had
}

/// When a job was done.
fn ended(job: &Job) -> i64 {
    job.history.last().unwrap().1
}

/// The seed that a job was asked for.
fn seed_of(job: &Job) -> u64 {
    fn find(value: &Value) -> Option<u64> {
        let members = value.as_object()?;
        let own = members.get("seed").and_then(Value::as_str).and_then(|seed| seed.parse().ok());
        own.or_else(|| members.values().find_map(find))
    }
    find(&serde_json::from_str(&job.input).unwrap()).unwrap_or_else(|| panic!("no seed in {}", job.input))
}

#[test]
fn many_clients_get_their_own_pictures_in_order() {
    let size = Size::chosen();
    let dir = tempfile::tempdir().unwrap();
    let server = Http::start(dir.path());
    let began = Instant::now();
    // One at first, so that no call of the others waits for the model's files so long that its first word is a sign of
    // life and not that it has its place.
    let first = settled(&server, NEWEST, None, server.post(NEWEST, None, &message(0)));
    let (mut made, mut placed, mut held) = (BTreeMap::from([(0, first)]), BTreeSet::<u64>::new(), Vec::new());
    let half = size.calls / 2;
    for calls in [0..half, half..size.calls] {
        thread::scope(|scope| {
            let clients: Vec<_> = (1..=size.clients)
                .map(|number| {
                    let (server, calls) = (&server, calls.clone());
                    scope.spawn(move || client(server, number, calls))
                })
                .collect();
            for client in clients {
                let had = client.join().unwrap();
                made.extend(had.made);
                placed.extend(had.placed);
            }
        });
        held.push(memory(server.id()));
    }
    let calls = size.clients * size.calls;
    let seconds = began.elapsed().as_secs();
    eprintln!(
        "{calls} calls of {} clients in {seconds} s, {} sure of their place; MiB held after each half: {held:?}",
        size.clients,
        placed.len()
    );
    assert_eq!(made.len() as u64, 1 + calls);
    assert!(!placed.is_empty(), "no call was sure of its place: nothing would be said of the order");
    assert!(held[1] <= held[0] + GROWTH, "{held:?}");
    assert_eq!(made, alone(made.keys().copied()));

    let jobs = Store::open(dir.path()).unwrap().jobs().unwrap();
    assert!(jobs.iter().all(|job| job.status == JobStatus::Success), "{jobs:?}");
    for number in 1..=size.clients {
        let own: BTreeMap<u64, i64> = jobs.iter().map(|job| (seed_of(job), ended(job))).collect();
        let own: Vec<(u64, i64)> =
            own.range(1000 * number..1000 * (number + 1)).map(|(seed, ended)| (*seed, *ended)).collect();
        assert_eq!(own.len() as u64, size.calls);
        for (at, (seed, ended)) in own.iter().enumerate().filter(|(_, (seed, _))| placed.contains(seed)) {
            assert!(
                own[at..].iter().all(|(_, later)| ended <= later),
                "client {number}, call {seed}: {own:?}"
            );
        }
    }
}

#[test]
fn nothing_is_lost_or_torn_by_cancellations_and_kills() {
    let size = Size::chosen();
    let dir = tempfile::tempdir().unwrap();
    let mut chance = Chance(0x9e37_79b9_7f4a_7c15);
    let (mut seed, mut unwanted, mut promised) = (0, BTreeSet::new(), BTreeMap::new());
    // What a server takes for its first picture: some kills come while it loads, the others as it paints or after that.
    let began = Instant::now();
    alone([seed]);
    let whole = u64::try_from(began.elapsed().as_millis()).unwrap().max(300);
    let store = Store::open(dir.path()).unwrap();
    let unfinished = || store.jobs().unwrap().iter().filter(|job| !job.status.is_final()).count();
    let (mut loading, mut painting) = (0, 0);
    for _ in 0..size.rounds {
        let server = Http::start(dir.path());
        wait_until(|| unfinished() <= LEFT, &store);
        let session = server.session(WITH_SESSIONS);
        let waiting: Vec<_> = (0..2 + chance.below(3))
            .map(|_| {
                seed += 1;
                let stream = server.post(WITH_SESSIONS, Some(&session), &message(seed));
                (seed, thread::spawn(move || answer(stream)))
            })
            .collect();
        let pause = if chance.below(3) == 0 { 300 } else { whole };
        chance.pause(pause);
        let (cancelled, _) = waiting[chance.below(waiting.len() as u64) as usize];
        unwanted.insert(cancelled);
        match chance.below(2) {
            0 => {
                let params = json!({"requestId": cancelled});
                let word = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params});
                assert_eq!(server.post(WITH_SESSIONS, Some(&session), &word).status, 202);
            }
            _ => cancel_from_here(dir.path(), cancelled),
        }
        chance.pause(2 * pause);
        drop(server);
        for job in store.jobs().unwrap() {
            loading += usize::from(job.status == JobStatus::WarmingUp);
            painting += usize::from([JobStatus::InProgress, JobStatus::Finalizing].contains(&job.status));
        }
        for (seed, waiting) in waiting {
            let told = waiting.join().unwrap();
            if let Some(picture) = told.and_then(|told| picture(&told["result"]["structuredContent"]["job"]))
            {
                promised.insert(seed, picture);
            }
        }
    }

    let taken = store.jobs().unwrap().len();
    let server = Http::start(dir.path());
    wait_until(|| unfinished() == 0, &store);
    drop(server);

    let jobs = store.jobs().unwrap();
    assert_eq!(jobs.len(), taken);
    let again = jobs.iter().filter(|job| times(job, JobStatus::WarmingUp) > 1).count();
    let canceled = jobs.iter().filter(|job| job.status == JobStatus::Canceled).count();
    eprintln!(
        "{} kills, {loading} of them while loading and {painting} while painting; {seed} calls, {taken} jobs taken on: \
         {canceled} of {} cancelled in time, {again} interrupted and run again",
        size.rounds,
        unwanted.len()
    );
    let mut made = BTreeMap::new();
    for job in &jobs {
        let seed = seed_of(job);
        match job.status {
            JobStatus::Success => {
                assert!(job.assets.len() == 1 && made.insert(seed, job.assets[0].clone()).is_none())
            }
            // Where the wish came too late the job was done before.
            JobStatus::Canceled => assert!(unwanted.contains(&seed), "{job:?}"),
            _ => panic!("{job:?}"),
        }
    }
    for (seed, picture) in &promised {
        assert_eq!(made.get(seed), Some(picture), "what was answered is gone");
    }
    assert_eq!(made, alone(made.keys().copied()));
    for asset in store.list(true).unwrap() {
        let bytes = store.bytes(&asset.id).unwrap();
        assert_eq!(AssetId::of(&bytes), asset.id);
        image::load_from_memory(&bytes).unwrap();
    }
    assert!(made.values().all(|picture| store.get(picture).is_ok()));
}

/// Waits for the jobs of a store.
fn wait_until(so: impl Fn() -> bool, store: &Store) {
    let began = Instant::now();
    while !so() {
        assert!(began.elapsed() < END, "{:?}", store.jobs().unwrap());
        thread::sleep(Duration::from_millis(100));
    }
}

/// How often a job had this status.
fn times(job: &Job, status: JobStatus) -> usize {
    job.history.iter().filter(|(had, _)| *had == status).count()
}

/// Cancels the job of a call as another process does, if the call has become one.
fn cancel_from_here(dir: &Path, seed: u64) {
    let store = Store::open(dir).unwrap();
    let jobs = store.jobs().unwrap();
    if let Some(job) = jobs.iter().find(|job| seed_of(job) == seed) {
        match store.request_cancel(&job.id) {
            Ok(_) | Err(infill_store::Error::Finished { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}
