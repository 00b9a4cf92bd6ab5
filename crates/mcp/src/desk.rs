//! The jobs of this process that are not over: those that wait, in the order in which they came, and the one at work.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use infill_store::JobId;
use tokio::sync::broadcast;

use crate::progress::Stage;

/// Jobs that may wait at once.
const QUEUE: usize = 64;
/// Stages that a listener may be behind before it misses some.
const HEARD: usize = 256;

/// What those who wait for a job are told.
#[derive(Debug, Clone)]
pub(crate) enum Told {
    /// Where it is now.
    Stage(Stage),
    /// Nothing more will come: the store says how it ended.
    Over,
}

/// A job of this process that is not over.
#[derive(Debug)]
pub(crate) struct Ticket {
    pub(crate) id: JobId,
    cancelled: AtomicBool,
    told: broadcast::Sender<Told>,
}

impl Ticket {
    fn new(id: JobId) -> Arc<Self> {
        Arc::new(Self { id, cancelled: AtomicBool::new(false), told: broadcast::channel(HEARD).0 })
    }

    /// Its client no longer wants it.
    pub(crate) fn cancel(&self) {
        self.cancelled.store(true, Ordering::Release);
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }

    /// Everything that is told from now on.
    pub(crate) fn listen(&self) -> broadcast::Receiver<Told> {
        self.told.subscribe()
    }

    pub(crate) fn tell(&self, told: Told) {
        // Nobody may be listening.
        let _ = self.told.send(told);
    }
}

/// Where jobs wait for the worker.
#[derive(Debug, Default)]
pub(crate) struct Desk {
    state: Mutex<State>,
    changed: Condvar,
    closing: Arc<AtomicBool>,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Arc<Ticket>>,
    /// Places that are promised and not taken yet.
    promised: usize,
    /// All that are not over.
    live: HashMap<JobId, Arc<Ticket>>,
    /// The one that is at work.
    at_work: Option<JobId>,
}

/// What there is to do next.
#[derive(Debug)]
pub(crate) enum Turn {
    /// This job, which is at work until it [leaves](Desk::leave).
    Job(Arc<Ticket>),
    /// Nothing came.
    Nothing,
    /// The desk is closed.
    Closed,
}

/// What a job is doing in this process.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Whereabouts {
    /// So many jobs come before it.
    Waiting(usize),
    AtWork,
    /// Over, or another process has it.
    Elsewhere,
}

/// A place among those who wait; given back unless it is taken.
#[derive(Debug)]
pub(crate) struct Place<'a>(&'a Desk);

impl Desk {
    /// Promises a place, so that what is written down as a job will be worked on.
    ///
    /// # Errors
    /// All places are taken: one sentence.
    pub(crate) fn reserve(&self) -> Result<Place<'_>, String> {
        let mut state = self.state();
        if state.waiting.len() + state.promised >= QUEUE {
            return Err(format!(
                "{QUEUE} jobs are waiting, which is all that may; nothing was started, call again once some are done"
            ));
        }
        state.promised += 1;
        Ok(Place(self))
    }

    /// Queues a job that an earlier process left; it has its place already.
    pub(crate) fn adopt(&self, id: JobId) {
        self.push(&mut self.state(), id);
    }

    fn push(&self, state: &mut State, id: JobId) -> Arc<Ticket> {
        let ticket = Ticket::new(id.clone());
        state.waiting.push_back(ticket.clone());
        state.live.insert(id, ticket.clone());
        self.changed.notify_all();
        ticket
    }

    /// Waits for the next job, so long at most.
    pub(crate) fn next(&self, patience: Duration) -> Turn {
        let until = Instant::now() + patience;
        let mut state = self.state();
        loop {
            if self.closing.load(Ordering::Acquire) {
                return Turn::Closed;
            }
            if let Some(ticket) = state.waiting.pop_front() {
                state.at_work = Some(ticket.id.clone());
                return Turn::Job(ticket);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left == Duration::ZERO {
                return Turn::Nothing;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// A job is over, or given up: whoever waits for it is told.
    pub(crate) fn leave(&self, id: &JobId) {
        let mut state = self.state();
        let ticket = state.live.remove(id);
        if state.at_work.as_ref() == Some(id) {
            state.at_work = None;
        }
        self.changed.notify_all();
        drop(state);
        if let Some(ticket) = ticket {
            ticket.tell(Told::Over);
        }
    }

    /// Cancels a job of this process. One that waits is taken out of the queue, and has to [leave](Desk::leave) once
    /// that is written down, or to [return](Desk::put_back) where it can't be; one at work stops in the middle of a step.
    pub(crate) fn cancel(&self, id: &JobId) -> Whereabouts {
        let mut state = self.state();
        let Some(ticket) = state.live.get(id).cloned() else { return Whereabouts::Elsewhere };
        ticket.cancel();
        let Some(before) = state.waiting.iter().position(|one| one.id == *id) else {
            return Whereabouts::AtWork;
        };
        state.waiting.remove(before);
        Whereabouts::Waiting(before)
    }

    /// Queues a cancelled job again, before all others: its end is written down in its turn.
    pub(crate) fn put_back(&self, id: &JobId) {
        let mut state = self.state();
        if let Some(ticket) = state.live.get(id).cloned() {
            state.waiting.push_front(ticket);
            self.changed.notify_all();
        }
    }

    /// As [`Desk::cancel`], without waiting for anything: whose turn comes sees it.
    pub(crate) fn cancel_in_turn(&self, id: &JobId) {
        if let Some(ticket) = self.state().live.get(id) {
            ticket.cancel();
        }
    }

    pub(crate) fn find(&self, id: &JobId) -> Whereabouts {
        let state = self.state();
        match state.waiting.iter().position(|one| one.id == *id) {
            Some(before) => Whereabouts::Waiting(before + usize::from(state.at_work.is_some())),
            None if state.live.contains_key(id) => Whereabouts::AtWork,
            None => Whereabouts::Elsewhere,
        }
    }

    /// True as soon as the desk is being closed.
    pub(crate) fn closing(&self) -> Arc<AtomicBool> {
        self.closing.clone()
    }

    /// Lets no further job begin, stops the one at work in the middle of a step, and waits for that until the deadline.
    pub(crate) fn close(&self, deadline: Instant) {
        self.closing.store(true, Ordering::Release);
        let mut state = self.state();
        self.changed.notify_all();
        while state.at_work.is_some() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left == Duration::ZERO {
                return;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// What is locked is only moved about, so a panic leaves it whole.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place<'_> {
    /// Queues the job here.
    pub(crate) fn take(self, id: JobId) -> broadcast::Receiver<Told> {
        let mut state = self.0.state();
        // Under the lock, so that the worker has not yet said anything.
        self.0.push(&mut state, id).listen()
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.state().promised -= 1;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn next(desk: &Desk) -> Arc<Ticket> {
        let turn = desk.next(Duration::from_secs(60));
        let Turn::Job(ticket) = turn else { unreachable!("{turn:?}") };
        ticket
    }

    #[test]
    fn jobs_leave_in_the_order_in_which_they_came() {
        let desk = Desk::default();
        let ids: Vec<JobId> = (0..4).map(|_| JobId::random()).collect();
        desk.adopt(ids[0].clone());
        for id in &ids[1..] {
            desk.reserve().unwrap().take(id.clone());
        }
        assert_eq!(desk.find(&ids[2]), Whereabouts::Waiting(2));
        assert_eq!(desk.cancel(&ids[1]), Whereabouts::Waiting(1));
        desk.leave(&ids[1]);
        assert_eq!(desk.cancel(&ids[1]), Whereabouts::Elsewhere);
        let first = next(&desk);
        assert_eq!((&first.id, desk.find(&ids[0])), (&ids[0], Whereabouts::AtWork));
        assert_eq!(desk.find(&ids[2]), Whereabouts::Waiting(1));
        assert_eq!(desk.cancel(&ids[0]), Whereabouts::AtWork);
        assert!(first.is_cancelled());
        let mut heard = first.listen();
        desk.leave(&first.id);
        assert!(matches!(heard.try_recv(), Ok(Told::Over)));
        assert_eq!(desk.find(&ids[0]), Whereabouts::Elsewhere);
        assert_eq!(next(&desk).id, ids[2]);
    }

    #[test]
    fn whose_cancellation_is_not_written_comes_first() {
        let desk = Desk::default();
        assert!(matches!(desk.next(Duration::ZERO), Turn::Nothing));
        let ids = [JobId::random(), JobId::random()];
        ids.iter().for_each(|id| desk.adopt(id.clone()));
        assert_eq!(desk.cancel(&ids[1]), Whereabouts::Waiting(1));
        desk.put_back(&ids[1]);
        let first = next(&desk);
        assert_eq!((&first.id, first.is_cancelled()), (&ids[1], true));
    }

    #[test]
    fn a_full_desk_refuses_and_a_place_that_is_not_taken_comes_back() {
        let desk = Desk::default();
        let places: Vec<_> = (0..QUEUE).map(|_| desk.reserve().unwrap()).collect();
        assert!(desk.reserve().unwrap_err().starts_with("64 jobs are waiting"));
        drop(places);
        for _ in 0..QUEUE {
            desk.reserve().unwrap().take(JobId::random());
        }
        assert!(desk.reserve().is_err());
        next(&desk);
        assert!(desk.reserve().is_ok());
    }

    #[test]
    fn a_closed_desk_begins_nothing_and_waits_for_the_job_at_work() {
        let desk = Desk::default();
        for _ in 0..2 {
            desk.reserve().unwrap().take(JobId::random());
        }
        let at_work = next(&desk);
        let began = Instant::now();
        desk.close(began + Duration::from_millis(30));
        assert!(began.elapsed() >= Duration::from_millis(30));
        std::thread::scope(|scope| {
            scope.spawn(|| desk.close(Instant::now() + Duration::from_secs(60)));
            desk.leave(&at_work.id);
        });
        assert!(began.elapsed() < Duration::from_secs(60));
        assert!(matches!(desk.next(Duration::from_secs(60)), Turn::Closed));
    }
}
