//! Bodies over HTTP/2: what a client sends, read under its windows, and what it is sent.

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes};
use h2::{Reason, RecvStream, SendStream};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;
use thiserror::Error;
use tokio::time::timeout;

use crate::{
    net::timer::Timer,
    protocol::body::{Body, BodyError},
};

/// The client sent nothing of its body for too long.
#[derive(Debug, Error)]
#[error("the request body stopped for longer than {0:?} (limits.body_timeout)")]
struct Stalled(Duration);

/// The body of a request.
pub(super) struct RequestBody {
    stream: RecvStream,
    length: Option<u64>,
    limit: Duration,
    silence: Timer,
}

impl RequestBody {
    /// `length` is what `Content-Length` says; the connection sees to it that it is true.
    pub(super) fn new(stream: RecvStream, length: Option<u64>, limit: Duration) -> Self {
        Self { stream, length, limit, silence: Timer::default() }
    }

    fn poll_stream(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        if let Some(data) = ready!(self.stream.poll_data(cx)) {
            let data = data?;
            // Whoever asked takes it now: the window opens as fast as the upstream takes.
            self.stream.flow_control().release_capacity(data.len())?;
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        let trailers = ready!(self.stream.poll_trailers(cx))?;
        Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
    }
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Poll::Ready(polled) = self.poll_stream(cx) {
            self.silence.stop();
            return Poll::Ready(polled.map(|frame| frame.map_err(BodyError::new)));
        }
        let limit = self.limit;
        self.silence.start_if_idle(limit);
        if self.silence.poll_elapsed(cx) {
            return Poll::Ready(Some(Err(BodyError::new(Stalled(limit)))));
        }
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// Sends the body of a response to its end, or resets the stream when it breaks or the client takes nothing of it for
/// `limit`.
pub(super) async fn send(mut body: Body, mut stream: SendStream<Bytes>, limit: Duration) {
    loop {
        let next = tokio::select! {
            next = body.frame() => next,
            // Also while the upstream is silent.
            _gone = poll_fn(|cx| stream.poll_reset(cx)) => return,
        };
        let sent = match next {
            None => stream.send_data(Bytes::new(), true),
            Some(Err(_)) => {
                stream.send_reset(Reason::INTERNAL_ERROR);
                return;
            }
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => match send_data(&mut stream, data, body.is_end_stream(), limit).await {
                    Sent::More => continue,
                    Sent::All | Sent::Lost => return,
                },
                Err(frame) => match frame.into_trailers() {
                    Ok(trailers) => stream.send_trailers(trailers),
                    Err(_unknown) => continue,
                },
            },
        };
        // A stream that is gone takes nothing; its end is known to whoever serves the connection.
        let _gone = sent;
        return;
    }
}

enum Sent {
    More,
    All,
    Lost,
}

async fn send_data(stream: &mut SendStream<Bytes>, mut data: Bytes, last: bool, limit: Duration) -> Sent {
    while data.has_remaining() {
        stream.reserve_capacity(data.remaining());
        while stream.capacity() == 0 {
            match timeout(limit, poll_fn(|cx| stream.poll_capacity(cx))).await {
                Ok(Some(Ok(_))) => {}
                Ok(Some(Err(_)) | None) => return Sent::Lost,
                Err(_) => {
                    tracing::debug!(?limit, "the client took nothing of a response (limits.write_timeout)");
                    stream.send_reset(Reason::CANCEL);
                    return Sent::Lost;
                }
            }
        }
        let now = data.split_to(data.remaining().min(stream.capacity()));
        if stream.send_data(now, last && !data.has_remaining()).is_err() {
            return Sent::Lost;
        }
    }
    match last {
        true => Sent::All,
        false => Sent::More,
    }
}
