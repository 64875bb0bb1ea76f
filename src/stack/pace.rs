//! A response body that may be slow, and silent only as long as its upstream's `body_timeout` allows.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::{
    net::timer::Timer,
    protocol::{body::BodyError, trailers},
    upstream::UpstreamError,
};

/// Forwards the body; ends with an error when the upstream sends none of it for `limit`, if set.
pub(super) struct Paced<B> {
    inner: B,
    limit: Option<Duration>,
    silence: Timer,
}

impl<B> Paced<B> {
    pub(super) fn new(inner: B, limit: Option<Duration>) -> Self {
        Self { inner, limit, silence: Timer::default() }
    }
}

impl<B: Body<Data = Bytes, Error = BodyError> + Unpin> Body for Paced<B> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let mut polled = Pin::new(&mut this.inner).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &mut polled {
            trailers::trim(frame);
        }
        if polled.is_ready() {
            this.silence.stop();
            return polled;
        }
        let Some(limit) = this.limit else { return Poll::Pending };
        this.silence.start_if_idle(limit);
        if this.silence.poll_elapsed(cx) {
            return Poll::Ready(Some(Err(BodyError::new(UpstreamError::BodyTimeout(limit)))));
        }
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
