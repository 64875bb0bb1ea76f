//! A body that may be slow but not silent.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::time::{Sleep, sleep};

use crate::{
    protocol::{
        body::{Body, BodyError},
        trailers,
    },
    upstream::UpstreamError,
};

/// Passes on what may pass, and ends with an error when the upstream sends nothing of the body for `limit`.
pub(super) struct Paced {
    inner: Body,
    limit: Duration,
    silence: Option<Pin<Box<Sleep>>>,
}

impl Paced {
    pub(super) fn new(inner: Body, limit: Duration) -> Self {
        Self { inner, limit, silence: None }
    }
}

impl http_body::Body for Paced {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let mut polled = Pin::new(&mut this.inner).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &mut polled {
            trailers::trim(frame);
        }
        if polled.is_ready() {
            this.silence = None;
            return polled;
        }
        let limit = this.limit;
        let silence = this.silence.get_or_insert_with(|| Box::pin(sleep(limit)));
        if silence.as_mut().poll(cx).is_ready() {
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
