//! The body of a request, with an end to patience: so many bytes, so long a silence, so long in all.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::body::{Body, Bytes, Frame, SizeHint};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep, sleep_until};

/// The largest body: as long as a line on stdio.
pub(crate) const MOST_BYTES: usize = crate::stdio::MAX_LINE;
/// What is read of a body that is too large before it is refused: a client that is still writing would not see the
/// refusal.
const MOST_DRAINED: usize = 4 * MOST_BYTES;
/// The longest silence of a client that owes more of its body.
const SILENCE: Duration = Duration::from_secs(10);
/// The longest that a body may take: 64 MiB at 0.5 MB/s.
const WHOLE: Duration = Duration::from_secs(150);

/// What was wrong with a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Fault {
    /// More than [`MOST_BYTES`].
    TooLarge = 1,
    /// Longer than [`SILENCE`] or [`WHOLE`].
    TooSlow = 2,
    /// The connection broke.
    Broken = 3,
}

/// The fault of a body, for after it was read.
#[derive(Debug, Clone, Default)]
pub(crate) struct Found(Arc<AtomicU8>);

impl Found {
    pub(crate) fn fault(&self) -> Option<Fault> {
        match self.0.load(Ordering::Acquire) {
            1 => Some(Fault::TooLarge),
            2 => Some(Fault::TooSlow),
            3 => Some(Fault::Broken),
            _ => None,
        }
    }

    fn set(&self, fault: Fault) -> BodyError {
        self.0.store(fault as u8, Ordering::Release);
        BodyError
    }
}

/// A body that can't be read; [`Found`] says why.
#[derive(Debug, thiserror::Error)]
#[error("the body can't be read")]
pub(crate) struct BodyError;

/// A body under watch.
pub(crate) struct Watched<B> {
    inner: B,
    read: usize,
    silence: Duration,
    silent_until: Pin<Box<Sleep>>,
    end: Instant,
    found: Found,
    _permit: Option<OwnedSemaphorePermit>,
}

impl<B: Body<Data = Bytes> + Unpin> Watched<B> {
    /// The permit is given back with the body: as soon as it was read.
    pub(crate) fn new(inner: B, permit: Option<OwnedSemaphorePermit>) -> (Self, Found) {
        Self::patient(inner, permit, SILENCE, WHOLE)
    }

    fn patient(
        inner: B,
        permit: Option<OwnedSemaphorePermit>,
        silence: Duration,
        whole: Duration,
    ) -> (Self, Found) {
        let (found, now) = (Found::default(), Instant::now());
        let silent_until = Box::pin(sleep_until(now + silence));
        (
            Self {
                inner,
                read: 0,
                silence,
                silent_until,
                end: now + whole,
                found: found.clone(),
                _permit: permit,
            },
            found,
        )
    }

    fn is_too_large(&self) -> bool {
        let announced = usize::try_from(self.inner.size_hint().lower()).unwrap_or(usize::MAX);
        self.read.saturating_add(announced) > MOST_BYTES
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Watched<B> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            let too_large = self.is_too_large();
            let late = if too_large { Fault::TooLarge } else { Fault::TooSlow };
            let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(context) else {
                ready!(self.silent_until.as_mut().poll(context));
                return Poll::Ready(Some(Err(self.found.set(late))));
            };
            let frame = match frame {
                Some(Ok(frame)) => frame,
                Some(Err(_)) => return Poll::Ready(Some(Err(self.found.set(Fault::Broken)))),
                None if too_large => return Poll::Ready(Some(Err(self.found.set(Fault::TooLarge)))),
                None => return Poll::Ready(None),
            };
            let now = Instant::now();
            if now >= self.end {
                return Poll::Ready(Some(Err(self.found.set(late))));
            }
            let until = (now + self.silence).min(self.end);
            self.silent_until.as_mut().reset(until);
            self.read = self.read.saturating_add(frame.data_ref().map_or(0, Bytes::len));
            if !self.is_too_large() {
                return Poll::Ready(Some(Ok(frame)));
            }
            // From here on the body is read and forgotten.
            if self.read > MOST_DRAINED {
                return Poll::Ready(Some(Err(self.found.set(Fault::TooLarge))));
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::VecDeque;

    use http_body_util::BodyExt as _;
    use tokio::time::sleep;

    use super::*;

    /// Frames with a pause before each.
    struct Slow {
        frames: VecDeque<(Duration, usize)>,
        pause: Option<Pin<Box<Sleep>>>,
    }

    impl Body for Slow {
        type Data = Bytes;
        type Error = std::io::Error;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
            let Some((pause, length)) = self.frames.front().copied() else { return Poll::Ready(None) };
            let waiting = self.pause.get_or_insert_with(|| Box::pin(sleep(pause)));
            ready!(waiting.as_mut().poll(context));
            self.pause = None;
            self.frames.pop_front();
            Poll::Ready(Some(Ok(Frame::data(vec![0; length].into()))))
        }
    }

    /// With so little patience that its end can be waited for.
    fn read(frames: &[(u64, usize)]) -> Result<usize, Fault> {
        read_within(Duration::from_millis(400), Duration::from_millis(1500), frames)
    }

    /// With a server's patience, which a busy machine does not use up.
    fn read_patiently(frames: &[(u64, usize)]) -> Result<usize, Fault> {
        read_within(SILENCE, WHOLE, frames)
    }

    fn read_within(silence: Duration, whole: Duration, frames: &[(u64, usize)]) -> Result<usize, Fault> {
        let frames = frames.iter().map(|(pause, length)| (Duration::from_millis(*pause), *length)).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        runtime.unwrap().block_on(async {
            let (body, found) = Watched::patient(Slow { frames, pause: None }, None, silence, whole);
            let read = body.collect().await;
            read.map(|body| body.to_bytes().len()).map_err(|_| found.fault().unwrap())
        })
    }

    #[test]
    fn a_body_ends_in_time_and_within_its_size() {
        assert_eq!(read_patiently(&[]), Ok(0));
        assert_eq!(read_patiently(&[(10, 10), (50, 10)]), Ok(20));
        // So long a silence that a thread that was stalled does not wake up after it.
        let silent = read_within(Duration::from_millis(400), WHOLE, &[(10, 10), (60_000, 10)]);
        assert_eq!(silent, Err(Fault::TooSlow));
        assert_eq!(read(&[(100, 1); 30]), Err(Fault::TooSlow));
        assert_eq!(read_patiently(&[(0, MOST_BYTES)]), Ok(MOST_BYTES));
        assert_eq!(read_patiently(&[(0, MOST_BYTES), (0, 1), (0, MOST_BYTES)]), Err(Fault::TooLarge));
        assert_eq!(read_patiently(&[(0, MOST_BYTES); 9]), Err(Fault::TooLarge));
        assert_eq!(read(&[(0, MOST_BYTES), (0, 1), (5000, 1)]), Err(Fault::TooLarge));
    }
}
