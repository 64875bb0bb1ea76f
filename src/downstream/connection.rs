//! One downstream connection, from its first byte to its last or to the switch.

use std::{
    convert::Infallible,
    future::poll_fn,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::{Arc, OnceLock},
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response, StatusCode};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::{
    body::Incoming,
    server::conn::http1,
    service::{HttpService, service_fn},
    upgrade::{OnUpgrade, Upgraded},
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{io::AsyncWriteExt, sync::OwnedSemaphorePermit};
use tower::{Service, ServiceExt};

use super::{
    Malformed,
    state::{AnswerOnDrop, State},
    strict_io::StrictIo,
};
use crate::{
    admission::{ClientExchanges, ClientPlace},
    drain::Tracker,
    interim::Interims,
    net::{HANG_UP_CHECK, Wire, server_tls::ServerTls, timer::Timer, tls::TlsFacts},
    protocol::{
        address::PeerAddress,
        body::{self, Body, BodyError, BoxError},
        client_cert::Told,
        forwarded::Peer,
        log_text::Escaped,
    },
};

/// What is known of the connection a request came on. A request extension.
#[derive(Clone, Debug)]
pub struct Connection {
    /// Name of the listener.
    pub listener: Arc<str>,
    /// The peer's address.
    pub remote: PeerAddress,
    /// The address that the peer came to, our own or that of the balancer that tells so, where it has one.
    pub local: Option<SocketAddr>,
    /// The same as forwarding fields tell it.
    pub peer: Peer,
    /// What its TLS handshake told; `None` where it speaks in clear.
    pub tls: Option<TlsFacts>,
    /// The TLS of its listener, where it has some.
    pub offer: Option<Arc<ServerTls>>,
    /// What upstreams are told of the client's certificate.
    pub certificate: Option<Told>,
    /// Whether a balancer took TLS off it before it came here, and said so in a PROXY header.
    pub tls_before: bool,
    /// The port of https to which its requests are sent on, where the listener is there for nothing else.
    pub redirect: Option<u16>,
    exchanges: OnceLock<ClientExchanges>,
    place: Place,
}

/// The place that a connection takes in its listener's cap and among those of its client; free again when the last
/// clone is dropped.
#[derive(Clone, Debug)]
pub struct Place {
    _permit: Arc<OwnedSemaphorePermit>,
    _client: ClientPlace,
}

impl Connection {
    /// A connection that was just accepted, and the place it takes.
    pub fn new(listener: Arc<str>, remote: PeerAddress, tls: Option<TlsFacts>, permit: OwnedSemaphorePermit) -> Self {
        let client = tls.as_ref().and_then(|tls| tls.client.as_deref());
        let certificate = client
            .map(|client| Told::new(&client.der, client.subject.as_deref(), &client.alternatives, &client.fingerprint));
        let place = Place { _permit: Arc::new(permit), _client: ClientPlace::default() };
        Self {
            listener,
            remote,
            local: None,
            peer: remote.into(),
            tls,
            offer: None,
            certificate,
            tls_before: false,
            redirect: None,
            exchanges: OnceLock::new(),
            place,
        }
    }

    /// The same on a listener that sends requests on to this port of https, if it does.
    #[must_use]
    pub fn redirected(self, redirect: Option<u16>) -> Self {
        Self { redirect, ..self }
    }

    /// The subject of the client's certificate, for the log.
    pub fn client_subject(&self) -> Option<&str> {
        self.tls.as_ref()?.client.as_ref()?.subject.as_deref()
    }

    /// The same with the place it takes among the connections of its client.
    #[must_use]
    pub fn among(mut self, client: ClientPlace) -> Self {
        self.place._client = client;
        self
    }

    /// The exchanges of the peer's network; looked up once per connection.
    pub fn exchanges(&self, look_up: impl FnOnce() -> ClientExchanges) -> &ClientExchanges {
        self.exchanges.get_or_init(look_up)
    }

    /// Its places, for a relay that outlives it.
    pub fn place(&self) -> Place {
        self.place.clone()
    }

    /// `https` or `http`, as this connection was made to us, or to the balancer that passes it on.
    pub fn scheme(&self) -> &'static str {
        if self.tls.is_some() || self.tls_before { "https" } else { "http" }
    }
}

/// Bounds of one downstream connection.
#[derive(Clone, Debug)]
pub struct ConnectionLimits {
    /// From the first byte of a head (or from the accept) to its end.
    pub head_timeout: Duration,
    /// Longest wait for a further request.
    pub keep_alive_timeout: Duration,
    /// Largest head, request line included.
    pub max_head_size: usize,
    /// Most field lines in a head.
    pub max_header_count: usize,
    /// Most bytes held that a client sends before its request is answered.
    pub max_early_bytes: usize,
    /// Longest silence inside a request body.
    pub body_timeout: Duration,
    /// Longest time in which the client takes not one byte.
    pub write_timeout: Duration,
}

/// Serves one connection until it closes, is switched, or `tracker` says that it is over.
pub async fn serve<S>(io: Wire, connection: Connection, limits: Arc<ConnectionLimits>, service: S, tracker: &Tracker)
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let state = State::default();
    let io = StrictIo::new(io, state.clone(), Arc::clone(&limits));
    let reader = state.clone();
    let connection = Arc::new(connection);
    let requests = service_fn(|request: Request<Incoming>| {
        let (state, service, connection) = (state.clone(), service.clone(), Arc::clone(&connection));
        async move {
            let mut request = request.map(|body| Upload::boxed(body, &state));
            request.extensions_mut().insert(connection);
            if let Some(malformed) = state.take_malformed() {
                request.extensions_mut().insert::<Malformed>(malformed);
            }
            if let Some(upgrade) = request.extensions().get::<OnUpgrade>() {
                state.keep_upgrade(upgrade.clone());
            }
            // HTTP/1.0 has no interim responses (RFC 9110 §15.2).
            let interims = (request.version() != http::Version::HTTP_10).then(Interims::default);
            if let Some(interims) = &interims {
                request.extensions_mut().insert(interims.clone());
            }
            let mut answer = pin!(service.oneshot(request));
            let response = poll_fn(|cx| {
                let answered = answer.as_mut().poll(cx);
                if let Some(interims) = &interims {
                    while let Poll::Ready(interim) = interims.poll_next(cx) {
                        state.send_interim(&interim);
                    }
                }
                answered
            });
            let response = response.await?;
            // hyper may still buffer the rest of the previous response, and appends this head to it.
            state.interims_sent().await;
            if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                state.switch();
            }
            // Not before its last byte: until then the wait for a further request has not begun.
            Ok::<_, Infallible>(response.map(|inner| Answering { inner, answered: AnswerOnDrop(state) }))
        }
    });
    // The strict reader has deadlines of its own, which answer and say why; hyper's is the net below them.
    let head_deadline = limits.keep_alive_timeout + limits.head_timeout + Duration::from_secs(1);
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head_deadline)
        .max_buf_size(HYPER_BUFFER.max(limits.max_head_size))
        .max_headers(limits.max_header_count)
        .title_case_headers(true)
        .serve_connection(TokioIo::new(io), requests)
        .with_upgrades();
    match run(served, &reader, tracker).await {
        Some(Ok(())) => {
            tokio::select! {
                biased;
                () = tracker.cut() => {}
                () = shut_down(&reader) => {}
            }
        }
        Some(Err(error)) => {
            tracing::debug!(remote = %connection.remote, error = %Escaped(Chain(&error)), "downstream connection ended early");
        }
        None => {}
    }
}

/// Runs a connection to its end and drops it; `None` when a graceful shutdown has cut it.
async fn run<S>(
    served: http1::UpgradeableConnection<TokioIo<StrictIo>, S>,
    state: &State,
    tracker: &Tracker,
) -> Option<hyper::Result<()>>
where
    S: HttpService<Incoming, ResBody = Answering>,
    S::Error: Into<BoxError>,
{
    let mut served = pin!(served);
    let mut draining = false;
    let mut unread = Timer::default();
    loop {
        tokio::select! {
            // A drain is seen before the next answer goes out, so that this says `Connection: close`.
            biased;
            () = tracker.cut() => {
                state.cut();
                return None;
            }
            () = async { tracker.draining().await; state.between_heads().await }, if !draining => {
                draining = true;
                state.stop();
                served.as_mut().graceful_shutdown();
            }
            ended = poll_fn(|cx| poll_turn(served.as_mut(), state, &mut unread, cx)) => return Some(ended),
        }
    }
}

/// Polls a connection, and checks for a client reset while nothing is read. hyper does not read while an upload is
/// paused or its response is in progress, and the strict reader does not read while its buffer is full.
fn poll_turn<F: Future>(
    mut served: Pin<&mut F>,
    state: &State,
    unread: &mut Timer,
    cx: &mut Context<'_>,
) -> Poll<F::Output> {
    loop {
        state.begin_turn();
        if let Poll::Ready(ended) = served.as_mut().poll(cx) {
            return Poll::Ready(ended);
        }
        if state.is_read() {
            unread.stop();
            return Poll::Pending;
        }
        unread.start_if_idle(HANG_UP_CHECK);
        if !unread.poll_elapsed(cx) {
            return Poll::Pending;
        }
        unread.stop();
        state.look();
    }
}

/// Shuts down a stream that hyper has released without a protocol switch.
///
/// hyper treats a connection as upgraded once any request on it had `Upgrade` or was a CONNECT, whatever the response
/// was. It then does not shut down the stream. Without close_notify, or with unread bytes, the client may lose the
/// response.
async fn shut_down(state: &State) {
    let Some(upgrade) = state.take_upgrade() else { return };
    // hyper has ended: the stream is there already, or never will be.
    let Ok(upgraded) = upgrade.await else { return };
    let Ok(parts) = upgraded.downcast::<TokioIo<StrictIo>>() else { return };
    // The client has disconnected or does not read; the error has no recipient.
    let _gone = parts.io.into_inner().shutdown().await;
}

/// hyper's read buffer at its largest; a body passes through it in pieces of at most this size.
const HYPER_BUFFER: usize = 64 * 1024;

/// Takes a switched connection's stream out of hyper, with what the client had sent early. `None` where it did not come
/// from [`serve`].
pub(super) fn take_stream(upgraded: Upgraded) -> Option<(Wire, bytes::Bytes)> {
    let parts = upgraded.downcast::<TokioIo<StrictIo>>().ok()?;
    let (io, held) = parts.io.into_inner().into_parts();
    // The strict reader hands hyper nothing past the request, so `read_buf` is empty; were it not, it came first.
    if parts.read_buf.is_empty() {
        return Some((io, held));
    }
    let mut early = bytes::BytesMut::from(parts.read_buf);
    early.extend_from_slice(&held);
    Some((io, early.freeze()))
}

/// A response body that says when hyper is done with it.
struct Answering {
    inner: Body,
    answered: AnswerOnDrop,
}

impl http_body::Body for Answering {
    type Data = bytes::Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        if matches!(polled, Poll::Ready(Some(Err(_)))) {
            self.answered.0.break_off();
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

/// A request body that reports when it is dropped before its end.
struct Upload {
    /// Always there until it is dropped.
    inner: Option<Incoming>,
    state: State,
}

impl Upload {
    fn boxed(inner: Incoming, state: &State) -> Body {
        if inner.is_end_stream() {
            return body::empty();
        }
        Self { inner: Some(inner), state: state.clone() }.boxed_unsync()
    }
}

impl http_body::Body for Upload {
    type Data = bytes::Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        match &mut self.inner {
            Some(inner) => Pin::new(inner).poll_frame(cx).map_err(BodyError::new),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(SizeHint::default, http_body::Body::size_hint)
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let Some(inner) = self.inner.take_if(|inner| !inner.is_end_stream()) {
            self.state.keep_unread(inner);
        }
    }
}

struct Chain<'a>(&'a dyn std::error::Error);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
