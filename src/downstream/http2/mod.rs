//! One HTTP/2 connection of a client (RFC 9113), with WebSockets among its streams (RFC 8441).

mod exchange;
mod metered_io;
mod streams;

use std::{
    convert::Infallible,
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use h2::{Reason, server};
use http::{Request, Response};
use tokio::time::timeout;
use tower::Service;

use super::{Connection, ConnectionLimits};
use crate::{
    admission::Seldom,
    drain::Tracker,
    http2::{Batch, BatchedIo, STREAM_WINDOW},
    net::{Wire, timer::Timer},
    protocol::{
        body::Body,
        http2_meter::{Fault, Meter},
        log_text::Escaped,
    },
};
use metered_io::{MeteredIo, Verdict};
use streams::LiveStreams;

/// Streams that a client may make us reset in a connection's life, those beyond `max_streams` among them; then it ends.
const MAX_RESET_BY_US: usize = 128;

/// What DATA frames of less than 256 bytes that nobody has taken yet may lack to that size, all together: it costs about
/// as much again to hold them. Each message of a WebSocket may be one: it is enough for what 32 hold of 50 bytes each.
const SMALL_FRAMES: usize = 8 * 1024 * 1024;

/// How long a connection that is told to go may take to hear it.
const FAREWELL: Duration = Duration::from_secs(2);

/// Largest header list that is decoded, in bytes. One beyond `max_head_size` is answered with 431; the library's own 431
/// ends its stream with PROTOCOL_ERROR, which clients take for a lost response.
const MAX_HEADER_LIST: u32 = 256 * 1024;

/// How long a reset stream is remembered: frames that the client sent before it learned of the reset are not an error.
/// Full network buffers delay them by seconds.
const RESET_MEMORY: Duration = Duration::from_secs(10);

/// What a listener allows over HTTP/2.
#[derive(Clone, Debug)]
pub struct Http2Options {
    /// Most streams at a time on one connection.
    pub max_streams: u32,
    /// Whether to offer WebSockets.
    pub websocket: bool,
    /// Throttle of the log line for connections that reach `max_streams`.
    pub limit_reached: Arc<Seldom>,
}

/// Serves one connection until it closes or `tracker` says that it is over.
pub async fn serve_http2<S>(
    io: Wire,
    connection: Connection,
    limits: Arc<ConnectionLimits>,
    options: Http2Options,
    service: S,
    tracker: &Tracker,
) where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let verdict = Verdict::default();
    let meter = Meter::new(options.max_streams, STREAM_WINDOW);
    let (io, batch) = BatchedIo::new(MeteredIo::new(io, meter, verdict.clone(), &limits));
    let remote = connection.remote;
    let begun = tokio::select! {
        begun = timeout(limits.head_timeout, builder(&options).handshake(io)) => begun,
        () = tracker.draining() => return,
    };
    let http2 = match begun {
        Ok(Ok(http2)) => http2,
        Ok(Err(error)) => return tracing::debug!(%remote, error = %Escaped(error), "no HTTP/2 connection"),
        Err(_) => return tracing::debug!(%remote, "no HTTP/2 preface within limits.head_timeout"),
    };
    let mut idle = Timer::default();
    // The first request has as long as it would have in HTTP/1.1; from then on it is a wait for a further one.
    idle.start(limits.head_timeout);
    batch.gather();
    let mut session = Session {
        http2,
        batch,
        exchanges: FuturesUnordered::new(),
        streams: LiveStreams::new(options),
        connection: Arc::new(connection),
        limits,
        service,
        verdict,
        idle,
        going: false,
        farewell: Timer::default(),
    };
    let mut draining = false;
    let ended = loop {
        tokio::select! {
            biased;
            () = tracker.cut() => return,
            () = tracker.draining(), if !draining => {
                draining = true;
                session.go();
            }
            ended = poll_fn(|cx| session.poll(cx)) => break ended,
        }
    };
    match ended {
        Ended::Closed => {}
        Ended::Broken(error) => tracing::debug!(%remote, error = %Escaped(error), "downstream connection ended early"),
        Ended::Hostile(Hostile { rule, why, .. }) => {
            let listener = &session.connection.listener;
            tracing::info!(%listener, client = %remote, rule, why, "HTTP/2 connection ended");
        }
    }
}

fn builder(options: &Http2Options) -> server::Builder {
    let mut builder = server::Builder::new();
    let streams = usize::try_from(options.max_streams).unwrap_or(usize::MAX);
    builder
        .max_concurrent_streams(options.max_streams)
        .initial_window_size(STREAM_WINDOW)
        // That of all streams together, or a few that are held back would hold back the others. One connection may be
        // that of a balancer, and its streams those of many clients.
        .initial_connection_window_size(STREAM_WINDOW.saturating_mul(options.max_streams))
        .max_send_buffer_size(usize::try_from(STREAM_WINDOW).unwrap_or(usize::MAX))
        .max_header_list_size(MAX_HEADER_LIST)
        .data_frame_budget(SMALL_FRAMES)
        // What came and was taken back in one piece: a page that is left does so with all its requests. The meter knows
        // when it is too often.
        .max_pending_accept_reset_streams(streams)
        // All streams may be refused at once, and the client may learn of it late.
        .max_concurrent_reset_streams(streams)
        .reset_stream_duration(RESET_MEMORY)
        .max_local_error_reset_streams(Some(MAX_RESET_BY_US));
    if options.websocket {
        builder.enable_connect_protocol();
    }
    builder
}

enum Ended {
    Closed,
    Broken(h2::Error),
    Hostile(Hostile),
}

impl Ended {
    /// Some floods the library finds by itself: header blocks without end, and resets that it is made to send.
    fn by(error: h2::Error) -> Self {
        let is_flood = error.is_library() && error.reason() == Some(Reason::ENHANCE_YOUR_CALM);
        if is_flood { Self::Hostile(Hostile::flood(error.to_string())) } else { Self::Broken(error) }
    }
}

/// A client that is disconnected for abuse, with the reason.
struct Hostile {
    rule: &'static str,
    why: String,
    /// Code of the GOAWAY.
    code: Reason,
}

impl Hostile {
    fn flood(why: String) -> Self {
        Self { rule: "http2-flood", why, code: Reason::ENHANCE_YOUR_CALM }
    }
}

impl From<Fault> for Hostile {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Flood => Self::flood("too many frames that carry neither a request nor data".to_owned()),
            Fault::Overrun => {
                let why = "more data than the window of its stream allows (RFC 9113 section 6.9.1)".to_owned();
                Self { rule: "http2-window", why, code: Reason::FLOW_CONTROL_ERROR }
            }
            Fault::Stalled => {
                let why =
                    "header block or frame not completed in time (limits.head_timeout, limits.body_timeout)".to_owned();
                Self { rule: "http2-stalled", why, code: Reason::ENHANCE_YOUR_CALM }
            }
        }
    }
}

/// A connection at work. All its requests run in its task; a WebSocket leaves it for a task of its own.
struct Session<S> {
    http2: server::Connection<BatchedIo<MeteredIo>, Bytes>,
    batch: Batch<MeteredIo>,
    exchanges: FuturesUnordered<BoxFuture<'static, ()>>,
    streams: LiveStreams,
    connection: Arc<Connection>,
    limits: Arc<ConnectionLimits>,
    service: S,
    verdict: Verdict,
    /// Runs while there is no stream.
    idle: Timer,
    /// Whether the client was told to go.
    going: bool,
    /// Runs once it was, and there is no stream to wait for.
    farewell: Timer,
}

impl<S> Session<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    /// Tells the client to take further requests elsewhere (RFC 9113 §6.8); streams go on.
    fn go(&mut self) {
        if !self.going {
            self.going = true;
            self.http2.graceful_shutdown();
        }
    }

    /// Takes what has come; answers how the connection ended, if it has.
    fn poll_http2(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        loop {
            let accepted = self.http2.poll_accept(cx);
            if let Some(fault) = self.verdict.fault() {
                return self.poll_hostile(fault.into(), cx);
            }
            match accepted {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => return Poll::Ready(Ended::Closed),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Ended::by(error)),
                Poll::Ready(Some(Ok((request, respond)))) => {
                    self.idle.stop();
                    // It was on its way when the client was told to go, and is waited for like the others.
                    self.farewell.stop();
                    let exchange = exchange::serve(
                        request,
                        respond,
                        self.streams.enter(&self.connection),
                        Arc::clone(&self.connection),
                        Arc::clone(&self.limits),
                        self.service.clone(),
                    );
                    self.exchanges.push(Box::pin(exchange));
                }
            }
        }
    }

    fn poll_hostile(&mut self, hostile: Hostile, cx: &mut Context<'_>) -> Poll<Ended> {
        if self.farewell.start_if_idle(FAREWELL) {
            // The streams end with the connection; nothing more is done for them.
            self.exchanges.clear();
            self.http2.abrupt_shutdown(hostile.code);
        }
        if self.http2.poll_closed(cx).is_ready() || self.farewell.poll_elapsed(cx) {
            return Poll::Ready(Ended::Hostile(hostile));
        }
        Poll::Pending
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        let ended = self.poll_streams(cx);
        let all_sent = self.batch.send(cx);
        if ended.is_ready() || !all_sent || self.http2.has_streams() || !self.exchanges.is_empty() {
            return ended;
        }
        self.poll_rest(cx)
    }

    fn poll_streams(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        if let Poll::Ready(ended) = self.poll_http2(cx) {
            return Poll::Ready(ended);
        }
        // What these send wakes the connection, which is this same task, to write it.
        while let Poll::Ready(Some(())) = self.exchanges.poll_next_unpin(cx) {}
        Poll::Pending
    }

    /// Nothing is under way, and nothing is left to be sent.
    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        self.idle.start_if_idle(self.limits.keep_alive_timeout);
        if !self.going && self.idle.poll_elapsed(cx) {
            self.go();
            cx.waker().wake_by_ref();
        }
        if self.going {
            self.farewell.start_if_idle(FAREWELL);
        }
        if self.farewell.poll_elapsed(cx) { Poll::Ready(Ended::Closed) } else { Poll::Pending }
    }
}

#[cfg(test)]
mod tests;
