//! Bodies over HTTP/2, each under its window.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes};
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, header::CONTENT_LENGTH};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;
use thiserror::Error;
use tokio::{
    sync::{Notify, oneshot},
    time::timeout,
};

use super::Lease;
use crate::{
    net::timer::Timer,
    protocol::{
        body::{Body, BodyError},
        http2::fields_size,
        request_framing::HeadLimits,
    },
};

/// The peer sent nothing of a body for too long.
#[derive(Debug, Error)]
#[error("the body stopped for longer than {0:?} (limits.body_timeout)")]
struct Stalled(Duration);

/// The trailers of a body are over the limit of a head.
#[derive(Debug, Error)]
#[error("the trailers exceed limits.max_head_size or limits.max_header_count")]
struct TrailersTooLarge;

/// The body of a message that comes in.
#[derive(Debug)]
pub struct Inbound {
    stream: Option<RecvStream>,
    length: Option<u64>,
    trailers: Option<HeadLimits>,
    limit: Option<Duration>,
    silence: Timer,
    wanted: Option<Arc<Notify>>,
    upload: Option<oneshot::Sender<()>>,
    unread: Option<oneshot::Sender<RecvStream>>,
    _lease: Option<Lease>,
}

impl Drop for Inbound {
    fn drop(&mut self) {
        // A response may end before its request does; one that is given up takes the request with it.
        if let Some(upload) = self.upload.take().filter(|_| self.is_end_stream()) {
            let _ended_meanwhile = upload.send(());
        }
        if let Some(unread) = self.unread.take()
            && let Some(stream) = self.stream.take().filter(|stream| !stream.is_end_stream())
        {
            let _nobody_waits = unread.send(stream);
        }
    }
}

impl Inbound {
    /// A body of nothing.
    pub fn none() -> Self {
        Self {
            stream: None,
            length: Some(0),
            trailers: None,
            limit: None,
            silence: Timer::default(),
            wanted: None,
            upload: None,
            unread: None,
            _lease: None,
        }
    }

    /// Without a limit on its silence. The length is what the head says; the connection sees to it that it is true.
    pub fn new(head: &HeaderMap, stream: RecvStream) -> Self {
        let length = head.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        let mut body = Self::none();
        body.stream = Some(stream);
        body.length = length;
        body
    }

    /// The same that keeps its connection from being taken for idle.
    #[must_use]
    pub fn holding(mut self, lease: Lease) -> Self {
        self._lease = Some(lease);
        self
    }

    /// The same that tells when it is asked for the first time.
    #[must_use]
    pub fn telling(mut self, wanted: &Arc<Notify>) -> Self {
        self.wanted = Some(Arc::clone(wanted));
        self
    }

    /// The same beside an upload, which ends where its sender is dropped: with this body, unless that was read to its
    /// end.
    #[must_use]
    pub fn beside(mut self, upload: oneshot::Sender<()>) -> Self {
        self.upload = Some(upload);
        self
    }

    /// The same that hands its stream over when it is dropped before its end.
    #[must_use]
    pub fn returning(mut self, unread: oneshot::Sender<RecvStream>) -> Self {
        self.unread = Some(unread);
        self
    }

    /// The same that breaks when nothing comes for `limit`.
    #[must_use]
    pub fn within(mut self, limit: Duration) -> Self {
        self.limit = Some(limit);
        self
    }

    /// The same that breaks when its trailers are over these limits.
    #[must_use]
    pub fn trailers_within(mut self, limits: HeadLimits) -> Self {
        self.trailers = Some(limits);
        self
    }

    fn poll_stream(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(stream) = &mut self.stream else { return Poll::Ready(None) };
        if let Some(wanted) = self.wanted.take() {
            wanted.notify_one();
        }
        if let Some(data) = ready!(stream.poll_data(cx)) {
            let data = data.map_err(BodyError::new)?;
            // Whoever asked takes it now: the window opens as fast as the other side takes.
            stream.flow_control().release_capacity(data.len()).map_err(BodyError::new)?;
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        let trailers = ready!(stream.poll_trailers(cx)).map_err(BodyError::new)?;
        let over = |limits: HeadLimits, trailers| {
            fields_size(trailers) > limits.max_bytes || trailers.len() > limits.max_fields
        };
        if self.trailers.zip(trailers.as_ref()).is_some_and(|(limits, trailers)| over(limits, trailers)) {
            return Poll::Ready(Some(Err(BodyError::new(TrailersTooLarge))));
        }
        Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
    }
}

impl http_body::Body for Inbound {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Poll::Ready(polled) = self.poll_stream(cx) {
            self.silence.stop();
            return Poll::Ready(polled);
        }
        if let Some(limit) = self.limit {
            self.silence.start_if_idle(limit);
            if self.silence.poll_elapsed(cx) {
                return Poll::Ready(Some(Err(BodyError::new(Stalled(limit)))));
            }
        }
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        self.stream.as_ref().is_none_or(RecvStream::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// Why a body was not sent to its end. The stream is reset then.
#[derive(Debug)]
pub enum SendError {
    /// It broke on its way here.
    Body(BodyError),
    /// The peer took nothing of it for so long.
    Stalled(Duration),
    /// The stream ended first.
    Lost,
}

/// Sends a body to its end.
///
/// # Errors
/// See [`SendError`]; the peer may take nothing for `limit`.
pub async fn send(mut body: Body, mut stream: SendStream<Bytes>, limit: Duration) -> Result<(), SendError> {
    loop {
        let next = tokio::select! {
            next = body.frame() => next,
            // Also while the body is silent.
            _gone = poll_fn(|cx| stream.poll_reset(cx)) => return Err(SendError::Lost),
        };
        let frame = match next {
            None => return stream.send_data(Bytes::new(), true).map_err(|_| SendError::Lost),
            Some(Ok(frame)) => frame,
            Some(Err(error)) => {
                stream.send_reset(Reason::INTERNAL_ERROR);
                return Err(SendError::Body(error));
            }
        };
        match frame.into_data() {
            Ok(data) => {
                let last = body.is_end_stream();
                send_data(&mut stream, data, last, limit).await?;
                if last {
                    return Ok(());
                }
            }
            // There is nothing else.
            Err(frame) => {
                if let Ok(trailers) = frame.into_trailers() {
                    return stream.send_trailers(trailers).map_err(|_| SendError::Lost);
                }
            }
        }
    }
}

async fn send_data(
    stream: &mut SendStream<Bytes>,
    mut data: Bytes,
    last: bool,
    limit: Duration,
) -> Result<(), SendError> {
    loop {
        stream.reserve_capacity(data.remaining());
        while data.has_remaining() && stream.capacity() == 0 {
            match timeout(limit, poll_fn(|cx| stream.poll_capacity(cx))).await {
                Ok(Some(Ok(_))) => {}
                Ok(Some(Err(_)) | None) => return Err(SendError::Lost),
                Err(_) => {
                    stream.send_reset(Reason::CANCEL);
                    return Err(SendError::Stalled(limit));
                }
            }
        }
        let now = data.split_to(data.remaining().min(stream.capacity()));
        let ends = last && !data.has_remaining();
        stream.send_data(now, ends).map_err(|_| SendError::Lost)?;
        if !data.has_remaining() {
            return Ok(());
        }
    }
}
