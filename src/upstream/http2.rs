//! An upstream that speaks HTTP/2: requests and WebSockets share connections (RFC 9113, RFC 8441).
//!
//! Each thread has connections of its own, and opens one more when none has room. What an upstream can do is never
//! assumed: a WebSocket is asked for where its settings allow it.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use h2::{
    Ping, Reason,
    client::{self, ResponseFuture, SendRequest},
};
use http::{Request, Response, StatusCode, request, uri::Scheme};
use http_body::Body as _;
use http_body_util::BodyExt;
use tokio::{
    sync::{Notify, oneshot},
    time::{sleep, timeout},
};

use super::{
    error::{DownstreamBodyError, UpstreamError, WriteTimeout, in_time},
    opening::Switched,
    pool::MAX_BUFFER,
};
use crate::{
    config::model::Upstream,
    drain::Tracker,
    http2::{
        BatchedIo, Http2Stream, Lease, STREAM_WINDOW,
        body::{self, Inbound, SendError},
    },
    interim::Interims,
    net::{
        Wire,
        dial::{DialError, Stage},
    },
    protocol::{
        body::{self as bodies, Body, BoxError},
        http2::{self as translation, Key},
        interim::{Budget, Interim, size},
        log_text::Escaped,
        response_framing, trailers,
    },
};

/// Most exchanges at a time on one connection, whatever the upstream would allow: its loss takes all of them with it.
const MOST_STREAMS: u32 = 100;

/// The connections of one thread to one upstream. Clones share them.
#[derive(Clone)]
pub(super) struct Sessions(Arc<Shared>);

struct Shared {
    upstream: Arc<Upstream>,
    write_limit: Duration,
    tracker: Tracker,
    live: Mutex<Vec<Session>>,
    /// Held by whoever opens one: the others wait and find it.
    opening: tokio::sync::Mutex<()>,
    next: AtomicU64,
}

#[derive(Clone)]
struct Session {
    number: u64,
    requests: SendRequest<Bytes>,
    lease: Lease,
    /// Ends the connection at once, and all its streams with it.
    cut: Arc<Notify>,
}

impl Session {
    fn streams(&self) -> usize {
        // One is its own, in the list.
        Arc::strong_count(&self.lease).saturating_sub(1)
    }

    /// Whether another stream may begin.
    fn has_room(&self) -> bool {
        let most = usize::try_from(MOST_STREAMS).unwrap_or(usize::MAX);
        self.streams() < self.requests.current_max_send_streams().min(most)
    }
}

impl Sessions {
    /// `write_limit`: the longest time in which the upstream takes not one byte.
    pub(super) fn new(upstream: Arc<Upstream>, write_limit: Duration, tracker: Tracker) -> Self {
        let (live, opening, next) = (Mutex::default(), tokio::sync::Mutex::default(), AtomicU64::default());
        Self(Arc::new(Shared { upstream, write_limit, tracker, live, opening, next }))
    }

    /// None yet, to the same upstream.
    pub(super) fn another(&self) -> Self {
        Self::new(Arc::clone(&self.0.upstream), self.0.write_limit, self.0.tracker.clone())
    }

    /// One request and the head of its answer. A WebSocket that is accepted is answered with the 101 that it stands for.
    ///
    /// What the upstream has refused to look at goes out a second time, once and over another connection, where it has no
    /// body.
    ///
    /// # Errors
    /// See [`UpstreamError`].
    pub(super) async fn exchange<F>(
        &self,
        dial: impl Fn() -> F,
        request: Request<Body>,
        scheme: Scheme,
        interims: Option<&Interims>,
    ) -> Result<Response<Inbound>, UpstreamError>
    where
        F: Future<Output = Result<Wire, DialError>>,
    {
        let (mut head, mut body) = request.into_parts();
        let key = translation::request_to_http2(&mut head, scheme).map_err(|error| closed(error.to_string()))?;
        let mut repeatable = body.is_end_stream();
        loop {
            let session = self.0.session(&dial).await?;
            let copy = repeatable.then(|| head.clone());
            match self.0.send(session, head, body, key.as_ref(), interims).await {
                Ok(response) => return Ok(response),
                Err((UpstreamError::Refused(why), number)) => {
                    self.0.forget(number);
                    let Some(again) = copy else { return Err(UpstreamError::Refused(why)) };
                    tracing::debug!(upstream = %self.0.upstream.name, why = %Escaped(why), "refused unseen; trying another connection");
                    (head, body, repeatable) = (again, bodies::empty(), false);
                }
                Err((error, number)) => {
                    if matches!(error, UpstreamError::ResponseTimeout(_)) {
                        // It may be dead without a word; the next request finds out on a connection of its own.
                        self.0.forget(number);
                    }
                    return Err(error);
                }
            }
        }
    }
}

type Sent = Result<Response<Inbound>, (UpstreamError, u64)>;

impl Shared {
    fn live(&self) -> MutexGuard<'_, Vec<Session>> {
        // Nothing panics while it is held, and a list is whole after every step.
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One with room for another stream.
    fn pick(&self) -> Option<Session> {
        self.live().iter().find(|session| session.has_room()).cloned()
    }

    fn forget(&self, number: u64) {
        self.live().retain(|session| session.number != number);
    }

    async fn session<F>(self: &Arc<Self>, dial: &impl Fn() -> F) -> Result<Session, UpstreamError>
    where
        F: Future<Output = Result<Wire, DialError>>,
    {
        if let Some(session) = self.pick() {
            return Ok(session);
        }
        let limit = self.upstream.dial_timeout;
        let late = || DialError::Timeout { stage: Stage::Connection, address: self.upstream.name.clone(), limit };
        let _one_at_a_time = timeout(limit, self.opening.lock()).await.map_err(|_| late())?;
        match self.pick() {
            Some(session) => Ok(session),
            None => self.open(dial().await?).await,
        }
    }

    async fn open(self: &Arc<Self>, wire: Wire) -> Result<Session, UpstreamError> {
        let mut builder = client::Builder::new();
        builder
            .initial_window_size(STREAM_WINDOW)
            // That of all streams together: none that is held back holds back the others.
            .initial_connection_window_size(STREAM_WINDOW.saturating_mul(MOST_STREAMS))
            .max_send_buffer_size(usize::try_from(STREAM_WINDOW).unwrap_or(usize::MAX))
            .max_header_list_size(u32::try_from(MAX_BUFFER).unwrap_or(u32::MAX))
            .enable_push(false);
        let limit = self.upstream.dial_timeout;
        let (io, batch) = BatchedIo::new(wire);
        let begun = timeout(limit, builder.handshake::<_, Bytes>(io)).await;
        let (requests, mut connection) = match begun {
            Ok(begun) => begun.map_err(failed)?,
            Err(_) => return Err(UpstreamError::ResponseTimeout(limit)),
        };
        let mut pings = connection.ping_pong();
        let session = Session {
            number: self.next.fetch_add(1, Ordering::Relaxed),
            requests,
            lease: Lease::default(),
            cut: Arc::default(),
        };
        let (number, lease) = (session.number, Arc::downgrade(&session.lease));
        let cut = Arc::clone(&session.cut);
        let (told, why) = oneshot::channel();
        let (shared, name) = (Arc::downgrade(self), self.upstream.name.clone());
        let idle_limit = self.upstream.pool_idle_timeout;
        self.tracker.background(async move {
            let mut connection = pin!(batch.turns(connection));
            let ended = tokio::select! {
                ended = &mut connection => ended,
                // Gone with its last handle: with no stream left, the connection ends by itself.
                () = until_idle(&shared, number, &lease, idle_limit) => connection.as_mut().await,
                () = cut.notified() => return,
            };
            if let Err(error) = ended {
                tracing::debug!(upstream = %name, error = %Escaped(&error), "upstream connection ended early");
                let _nobody_waits = told.send(error);
            }
        });
        // The answer comes behind the settings, which say what the upstream can do (RFC 9113 §3.4, §6.7).
        if let Some(pings) = &mut pings {
            match timeout(limit, pings.ping(Ping::opaque())).await {
                Ok(Ok(_pong)) => {}
                Ok(Err(error)) => return Err(failed(why.await.unwrap_or(error))),
                Err(_) => return Err(UpstreamError::ResponseTimeout(limit)),
            }
        }
        self.live().push(session.clone());
        Ok(session)
    }

    async fn send(
        &self,
        mut session: Session,
        head: request::Parts,
        body: Body,
        key: Option<&Key>,
        interims: Option<&Interims>,
    ) -> Sent {
        let number = session.number;
        let at = |error| (error, number);
        poll_fn(|cx| session.requests.poll_ready(cx)).await.map_err(|error| at(UpstreamError::Refused(error)))?;
        let mut request = Request::from_parts(head, ());
        if key.is_some() {
            if !session.requests.is_extended_connect_protocol_enabled() {
                return Err(at(UpstreamError::NoExtendedConnect));
            }
            request.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
        }
        let ends = key.is_none() && body.is_end_stream();
        let sent = session.requests.send_request(request, ends);
        let (response, stream) = sent.map_err(|error| at(UpstreamError::Refused(error)))?;
        // Many WebSocket clients read one head only.
        let response = FinalHead::new(response, interims.filter(|_| key.is_none()), &session.cut);
        let limit = self.upstream.response_timeout;
        if key.is_some() || ends {
            let response = in_time(limit, response).await.map_err(at)?;
            return self.answered(response.map_err(at)?, stream, key, session.lease).map_err(at);
        }
        let (done, uploaded) = oneshot::channel();
        let (write_limit, body) = (self.write_limit, body.map_frame(trimmed).boxed_unsync());
        // Dropped with the exchange, which ends an upload that the upstream does not accept.
        let (wanted, mut unwanted) = oneshot::channel();
        self.tracker.background(async move {
            let mut sending = pin!(body::send(body, stream, write_limit));
            let sent = tokio::select! {
                sent = &mut sending => sent,
                wanted = &mut unwanted => match wanted {
                    Ok(()) => sending.await,
                    Err(_) => return,
                },
            };
            // Whoever waits may have its answer already.
            let _answered = done.send(sent);
        });
        let response = self.response(response, uploaded).await.map_err(at)?;
        sound(answer(response, session.lease).map(|body| body.beside(wanted))).map_err(at)
    }

    /// Waits for the head of an answer. The deadline counts from the end of the request's body: an upload may take its
    /// time.
    async fn response(
        &self,
        response: FinalHead<'_>,
        mut uploaded: oneshot::Receiver<Result<(), SendError>>,
    ) -> Result<Response<h2::RecvStream>, UpstreamError> {
        let mut response = pin!(response);
        tokio::select! {
            response = &mut response => return response,
            uploaded = &mut uploaded => match uploaded {
                Ok(Err(SendError::Body(error))) => return Err(UpstreamError::RequestBody(DownstreamBodyError(error))),
                Ok(Err(SendError::Stalled(limit))) => return Err(WriteTimeout(limit).into()),
                // The response reports a lost stream.
                Ok(Ok(()) | Err(SendError::Lost)) | Err(_) => {}
            },
        }
        in_time(self.upstream.response_timeout, response).await?
    }

    fn answered(
        &self,
        response: Response<h2::RecvStream>,
        stream: h2::SendStream<Bytes>,
        key: Option<&Key>,
        lease: Lease,
    ) -> Result<Response<Inbound>, UpstreamError> {
        let Some(key) = key.filter(|_| response.status().is_success()) else {
            return sound(answer(response, lease));
        };
        let (mut head, receive) = response.into_parts();
        translation::response_from_http2(&mut head, Some(key));
        let wire = Wire::boxed(Http2Stream::new(stream, receive).holding(lease));
        let mut response = Response::from_parts(head, Inbound::none());
        response.extensions_mut().insert(Switched::new(wire, Bytes::new()));
        Ok(response)
    }
}

/// The final head of a response. Interim responses before it are counted, and go on to the client.
struct FinalHead<'a> {
    response: ResponseFuture,
    budget: Budget,
    interims: Option<&'a Interims>,
    cut: Arc<Notify>,
}

impl<'a> FinalHead<'a> {
    fn new(response: ResponseFuture, interims: Option<&'a Interims>, cut: &Arc<Notify>) -> Self {
        Self { response, budget: Budget::default(), interims, cut: Arc::clone(cut) }
    }

    /// A request with an interim response has been processed and is not retried.
    fn failed(&self, error: h2::Error) -> UpstreamError {
        match failed(error) {
            UpstreamError::Refused(error) if self.budget.is_used() => closed(error),
            error => error,
        }
    }

    fn take(&mut self, interim: Response<()>) -> Result<(), UpstreamError> {
        let (head, ()) = interim.into_parts();
        if let Err(error) = self.budget.take(size(&head.headers)) {
            // A reset of the stream alone would not suffice: the rest would still be read and discarded.
            self.cut.notify_one();
            return Err(error.into());
        }
        if let (Some(interims), Some(interim)) = (self.interims, Interim::forwarded(head.status, head.headers)) {
            interims.push(interim);
        }
        Ok(())
    }
}

impl Future for FinalHead<'_> {
    type Output = Result<Response<h2::RecvStream>, UpstreamError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        while let Poll::Ready(Some(interim)) = self.response.poll_informational(cx) {
            let interim = interim.map_err(|error| self.failed(error))?;
            self.take(interim)?;
        }
        let response = ready!(Pin::new(&mut self.response).poll(cx));
        Poll::Ready(response.map_err(|error| self.failed(error)))
    }
}

/// Resolves when the connection has had no stream for `limit`, and is no longer in the list; or when that is gone.
async fn until_idle(shared: &Weak<Shared>, number: u64, lease: &Weak<()>, limit: Duration) {
    let mut was_idle = false;
    loop {
        sleep(limit).await;
        let Some(shared) = shared.upgrade() else { return };
        // One is the one in the list.
        let is_idle = lease.strong_count() <= 1;
        if is_idle && was_idle {
            return shared.forget(number);
        }
        was_idle = is_idle;
    }
}

fn answer(response: Response<h2::RecvStream>, lease: Lease) -> Response<Inbound> {
    let (mut head, stream) = response.into_parts();
    translation::response_from_http2(&mut head, None);
    let body = Inbound::new(&head.headers, stream).holding(lease);
    Response::from_parts(head, body)
}

fn sound(response: Response<Inbound>) -> Result<Response<Inbound>, UpstreamError> {
    // What it says goes into HTTP/1.1 as it stands.
    response_framing::check(response.headers()).map_err(UpstreamError::Framing)?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Err(UpstreamError::Framing("HTTP/2 has no 101 (RFC 9113 section 8.6)"));
    }
    Ok(response)
}

fn trimmed(mut frame: http_body::Frame<Bytes>) -> http_body::Frame<Bytes> {
    trailers::trim(&mut frame);
    frame
}

fn closed(why: impl Into<BoxError>) -> UpstreamError {
    UpstreamError::Closed(why.into())
}

/// Sorts what went wrong: what the upstream has not looked at may be said again elsewhere.
fn failed(error: h2::Error) -> UpstreamError {
    let unseen = error.reason() == Some(Reason::REFUSED_STREAM) || error.is_go_away() && error.is_remote();
    match error {
        error if unseen => UpstreamError::Refused(error),
        error if error.is_library() => UpstreamError::Garbage(Box::new(error)),
        error => closed(error),
    }
}
