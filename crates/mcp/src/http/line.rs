//! The log's line for a request, written once its answer is through: a call answers at once and streams its pictures later.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use hyper::Method;
use hyper::body::{Body, Frame, SizeHint};

/// What the line says; it is written when this is dropped.
pub(super) struct Line {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) status: u16,
    pub(super) began: Instant,
}

impl Drop for Line {
    fn drop(&mut self) {
        let Self { method, path, status, began } = self;
        let milliseconds = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        tracing::info!(%method, path, status, milliseconds, "answered");
    }
}

/// The body of an answer with its line: it is dropped with its last byte, or with its connection.
pub(super) struct Logged<B> {
    pub(super) body: B,
    pub(super) _line: Line,
}

impl<B: Body + Unpin> Body for Logged<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
