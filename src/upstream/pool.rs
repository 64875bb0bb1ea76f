//! Keep-alive connections to one upstream: each carries one exchange at a time and waits here for the next.
//!
//! A request never waits for another one to end: where no connection is idle, a new one is opened.

use std::{
    collections::VecDeque,
    convert::Infallible,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header::TRANSFER_ENCODING};
use http_body::{Body as _, Frame, SizeHint};
use hyper::{
    body::Incoming,
    client::conn::{TrySendError, http1},
};
use hyper_util::rt::TokioIo;
use tokio::{
    sync::oneshot,
    time::{Instant, sleep_until},
};

use super::{
    error::{UpstreamError, failed},
    pooled_io::{PooledIo, Turns},
};
use crate::{
    config::model::Upstream,
    drain::Tracker,
    interim::Interims,
    net::{Wire, dial::DialError, timer::Timer},
    protocol::{
        body::{self, Body, BodyError},
        log_text::Escaped,
        response_framing, trailers,
    },
};

/// hyper's read buffer for one upstream connection, and so the largest response head.
pub(super) const MAX_BUFFER: usize = 64 * 1024;

/// The idle connections of one thread to one upstream.
pub(super) struct Pool(Arc<Shared>);

struct Shared {
    upstream: Arc<Upstream>,
    write_limit: Duration,
    tracker: Tracker,
    idle: Mutex<Idle>,
}

#[derive(Default)]
struct Idle {
    /// Since when each is idle; the latest is the last.
    connections: VecDeque<(Instant, Connection)>,
    /// Whether a task runs that closes them in time.
    watched: bool,
}

struct Connection {
    sender: http1::SendRequest<RequestBody>,
    turns: Turns,
    // Here and not with the request: armed once, it serves many exchanges. Until it goes off it may hold the task that
    // waited last, which is at most one for each idle connection and for as long as that may be idle.
    answer_timer: Timer,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.turns.abandon();
    }
}

impl Pool {
    /// `write_limit`: the longest time in which the upstream takes not one byte.
    pub(super) fn new(upstream: Arc<Upstream>, write_limit: Duration, tracker: Tracker) -> Self {
        Self(Arc::new(Shared { upstream, write_limit, tracker, idle: Mutex::default() }))
    }

    /// An empty one of the same kind.
    pub(super) fn another(&self) -> Self {
        Self::new(Arc::clone(&self.0.upstream), self.0.write_limit, self.0.tracker.clone())
    }

    /// One request and the head of its answer; the connection comes back here when the answer's body has ended.
    ///
    /// A request goes out a second time, over a new connection, when a reused one was found dead: if nothing of it had
    /// been written, or if it is idempotent, has no body and not a byte came back, an interim response included. Those
    /// go to `interims`.
    pub(super) async fn exchange<F>(
        &self,
        dial: impl Fn() -> F,
        mut request: Request<Body>,
        interims: Option<&Interims>,
    ) -> Result<Response<Answer>, UpstreamError>
    where
        F: Future<Output = Result<Wire, DialError>>,
    {
        let mut idle = self.0.take();
        loop {
            let reused = idle.is_some();
            let mut connection = match idle.take() {
                Some(connection) => connection,
                // Boxed: the way of few requests, and many times the size of the other.
                None => Box::pin(self.0.open(dial())).await?,
            };
            // Only what may be sent a second time is worth a copy.
            let repeatable = reused && request.method().is_idempotent() && request.body().is_end_stream();
            let (parts, body) = request.into_parts();
            let copy = repeatable.then(|| parts.clone());
            connection.turns.begin(interims.cloned());
            let limit = self.0.upstream.response_timeout;
            let mut error = match connection.send(Request::from_parts(parts, body), limit).await? {
                Ok(response) => return self.0.answered(connection, response),
                Err(error) => error,
            };
            let again = match error.take_message() {
                Some(unsent) if reused => Some(unsent.map(|body| body.inner)),
                Some(_) => None,
                None => copy
                    .filter(|_| connection.turns.died_unanswered_after_use())
                    .map(|parts| Request::from_parts(parts, body::empty())),
            };
            // Once at most: the next round has a connection that nobody has used.
            let Some(again) = again else { return Err(failed(error.into_error())) };
            tracing::debug!(upstream = %self.0.upstream.name, "reused connection died unanswered; trying a new one");
            request = again;
        }
    }
}

impl Shared {
    fn idle(&self) -> MutexGuard<'_, Idle> {
        // Nothing panics while it is held, and a list of connections is whole after every step.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The one that was used last, as it is the least likely to be closed by the upstream next.
    fn take(&self) -> Option<Connection> {
        let mut idle = self.idle();
        while let Some((since, connection)) = idle.connections.pop_back() {
            if since + self.upstream.pool_idle_timeout <= Instant::now() {
                // The thread was too busy to close it in time; the others are older still.
                idle.connections.clear();
                return None;
            }
            // The upstream may have closed it meanwhile.
            if connection.sender.is_ready() {
                return Some(connection);
            }
        }
        None
    }

    fn put(self: &Arc<Self>, connection: Connection) {
        let most = self.upstream.pool_max_idle;
        if most == 0 {
            return;
        }
        let now = Instant::now();
        let mut idle = self.idle();
        if idle.connections.len() >= most {
            // The one that was idle for longest has the least left to live.
            idle.connections.pop_front();
        }
        idle.connections.push_back((now, connection));
        if !idle.watched {
            idle.watched = true;
            let first = now + self.upstream.pool_idle_timeout;
            self.tracker.background(close_in_time(Arc::downgrade(self), first));
        }
    }

    /// Takes back a connection whose answer was read to its end.
    fn give_back(self: &Arc<Self>, mut connection: Connection) {
        if connection.sender.is_ready() {
            self.put(connection);
        } else if !connection.sender.is_closed() {
            // The answer came before the end of the request. What is left of that has its own deadlines.
            let pool = Arc::downgrade(self);
            self.tracker.background(async move {
                if connection.sender.ready().await.is_ok()
                    && let Some(pool) = pool.upgrade()
                {
                    pool.put(connection);
                }
            });
        }
    }

    /// Closes what has been idle for too long, and says when the next one will be; nothing when none is left.
    fn close_expired(&self) -> Option<Instant> {
        let now = Instant::now();
        let mut idle = self.idle();
        while let Some((since, _)) = idle.connections.front() {
            let end = *since + self.upstream.pool_idle_timeout;
            if end > now {
                return Some(end);
            }
            idle.connections.pop_front();
        }
        idle.watched = false;
        None
    }

    async fn open(&self, dial: impl Future<Output = Result<Wire, DialError>>) -> Result<Connection, UpstreamError> {
        let io = PooledIo::new(dial.await?, self.write_limit);
        let turns = io.turns();
        let (sender, connection) = http1::Builder::new()
            .title_case_headers(true)
            .max_buf_size(MAX_BUFFER)
            .handshake(TokioIo::new(io))
            .await
            .map_err(failed)?;
        let upstream = Arc::clone(&self.upstream);
        self.tracker.background(async move {
            if let Err(error) = connection.await {
                tracing::debug!(upstream = %upstream.name, error = %Escaped(error), "upstream connection ended early");
            }
        });
        Ok(Connection { sender, turns, answer_timer: Timer::default() })
    }

    fn answered(
        self: &Arc<Self>,
        connection: Connection,
        response: Response<Incoming>,
    ) -> Result<Response<Answer>, UpstreamError> {
        if let Err(why) = response_framing::check(response.headers()) {
            // Where such an answer ends is in doubt, and so is where the next one on its connection would begin: the
            // connection ends here.
            return Err(UpstreamError::Framing(why));
        }
        // A short body has been read together with the head; then the connection is free at once.
        let lent = if !response_framing::is_reusable(response.status(), response.headers()) {
            None
        } else if connection.sender.is_ready() || response.body().is_end_stream() {
            self.give_back(connection);
            None
        } else {
            Some(Lent { connection, pool: Arc::clone(self) })
        };
        Ok(response.map(|inner| Answer { inner, lent }))
    }
}

async fn close_in_time(pool: Weak<Shared>, first: Instant) {
    let mut next = Some(first);
    while let Some(end) = next {
        sleep_until(end).await;
        next = pool.upgrade().and_then(|pool| pool.close_expired());
    }
}

type Sent = Result<Response<Incoming>, TrySendError<Request<RequestBody>>>;

impl Connection {
    /// The answer's head, or nothing when it did not come in time.
    ///
    /// The deadline counts from the end of the request body: an upload may take its time.
    async fn send(&mut self, mut request: Request<Body>, limit: Option<Duration>) -> Result<Sent, UpstreamError> {
        let (signal, mut all_sent) = if request.body().is_end_stream() {
            self.answer_timer.start_within(limit);
            (None, None)
        } else {
            if request.body().size_hint().exact().is_none() {
                // Said aloud: with GET and HEAD hyper leaves out a body that the head does not announce.
                request.headers_mut().insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
            }
            let (signal, ended) = oneshot::channel();
            (Some(signal), Some(ended))
        };
        let mut uploading = Uploading(signal.as_ref().map(|_| self.turns.clone()));
        let turns = self.turns.clone();
        let request = request.map(|inner| RequestBody { inner, signal, turns });
        let mut answer = pin!(self.sender.try_send_request(request));
        let timer = &mut self.answer_timer;
        let sent = poll_fn(|cx| {
            if let Poll::Ready(sent) = answer.as_mut().poll(cx) {
                return Poll::Ready(Ok(sent));
            }
            if let Some(ended) = &mut all_sent {
                // Resolves when the sender is dropped: at the body's end, or when the body is given up.
                let _dropped = ready!(Pin::new(ended).poll(cx));
                all_sent = None;
                uploading.0 = None;
                timer.start_within(limit);
            }
            match limit {
                Some(limit) if timer.poll_elapsed(cx) => Poll::Ready(Err(UpstreamError::ResponseTimeout(limit))),
                _ => Poll::Pending,
            }
        })
        .await;
        uploading.0 = None;
        self.answer_timer.stop();
        sent
    }
}

/// Breaks the connection off when the exchange is given up in the middle of a request's body.
struct Uploading(Option<Turns>);

impl Drop for Uploading {
    fn drop(&mut self) {
        if let Some(turns) = &self.0 {
            turns.break_off();
        }
    }
}

/// The body of an answer; read to its end, it gives its connection back.
pub struct Answer {
    inner: Incoming,
    lent: Option<Lent>,
}

struct Lent {
    connection: Connection,
    pool: Arc<Shared>,
}

impl Drop for Answer {
    fn drop(&mut self) {
        if let Some(lent) = &self.lent {
            // Given up before its end.
            lent.connection.turns.break_off();
        }
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        let ended = match &polled {
            // Nobody asks for more after the last byte that was announced, or after trailers.
            Some(Ok(frame)) => frame.is_trailers() || self.inner.is_end_stream(),
            Some(Err(_)) => {
                self.lent = None;
                false
            }
            None => true,
        };
        if ended && let Some(Lent { connection, pool }) = self.lent.take() {
            pool.give_back(connection);
        }
        Poll::Ready(polled.map(|frame| frame.map_err(BodyError::new)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Drops its signal, where it has one, when the body has ended or is dropped.
struct RequestBody {
    inner: Body,
    signal: Option<oneshot::Sender<Infallible>>,
    turns: Turns,
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut polled = Pin::new(&mut self.inner).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &mut polled {
            trailers::trim(frame);
        }
        if matches!(polled, Poll::Ready(Some(Err(_)))) {
            self.turns.break_off();
        }
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) || self.inner.is_end_stream() {
            self.signal = None;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests;
