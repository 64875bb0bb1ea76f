//! On a verified 101: pairs both byte streams and hands them to the relay.
//!
//! Reads `MatchedRoute`, `Intent`, `Connection`, `Client`, `RequestId`, `Admitted`,
//! `UpstreamSocket`, `Agreed`. Refuses with 502 when the
//! upstream's half is lost before anything went downstream.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::future::{BoxFuture, Either};
use http::{StatusCode, header::CONTENT_LENGTH};
use tokio::net::TcpStream;
use tower::{Layer, Service};

use super::{
    Request, Response, chance,
    error::ProxyError,
    facts::{self, Admitted, Client, MatchedRoute, RequestId, UpstreamSocket},
    shown,
};
use crate::{
    config::{model::Route, relay_policy::Lifetime},
    downstream::{self, Connection, OnSwitch, Place},
    drain::Tracker,
    net::{Io, Wire},
    protocol::{
        address::PeerAddress,
        body, hop_by_hop, log_text,
        log_text::Escaped,
        upgrade::{self, Intent},
        websocket::{Agreed, close, frame::Extensions},
    },
    registry::{self, Entry, Listed, Registry},
    relay::{self, Goodbye, Leg, Link, Relay, Report, Session, Side},
    upstream,
};

impl Link for Wire {
    fn take_error(&self) -> Option<std::io::Error> {
        Io::take_error(self)
    }

    fn as_tcp(&self) -> Option<&TcpStream> {
        Io::as_tcp(self)
    }

    fn release(&mut self) {
        Io::release(self);
    }

    fn reset(&mut self) {
        Io::reset(self);
    }
}

#[derive(Clone, Debug)]
pub(super) struct SwitchLayer {
    pub(super) tracker: Tracker,
    pub(super) registry: Registry,
}

impl<S> Layer<S> for SwitchLayer {
    type Service = Switch<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Switch { own: self.clone(), inner }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Switch<S> {
    own: SwitchLayer,
    inner: S,
}

impl<S> Service<Request> for Switch<S>
where
    S: Service<Request, Response = Response, Error = ProxyError>,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = ProxyError;
    type Future = Either<BoxFuture<'static, Result<Response, ProxyError>>, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ProxyError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        if request.extensions().get::<Intent>() != Some(&Intent::WebSocket) {
            return Either::Right(self.inner.call(request));
        }
        // Taken out by this layer alone: what is left in the extensions could be cloned.
        let downstream = downstream::on_switch(&mut request);
        let opened = Opened::of(&request);
        let answered = self.inner.call(request);
        let SwitchLayer { tracker, registry } = self.own.clone();
        Either::Left(Box::pin(async move {
            let mut response = answered.await?;
            if response.status() != StatusCode::SWITCHING_PROTOCOLS {
                return Ok(response);
            }
            // The upstream's half is taken before the 101 leaves: until then a failure can still be a 502.
            let upstream = upstream::take_stream(&mut response).ok_or(ProxyError::SwitchLost)?;
            let agreed = response.extensions_mut().remove::<Agreed>();
            let opened = opened?.agreed(agreed);
            let own = tracker.clone();
            // Still a connection, and no relay before both streams are there: one WebSocket is never counted twice.
            tracker.connection(async move { opened.carry(downstream, upstream, own, registry).await });
            Ok(switching(response))
        }))
    }
}

fn switching(response: Response) -> Response {
    let (mut parts, _) = response.into_parts();
    hop_by_hop::remove(&mut parts.headers);
    // A 101 has no body, so no length either (RFC 9110 section 8.6).
    parts.headers.remove(CONTENT_LENGTH);
    upgrade::write_pair(&mut parts.headers);
    parts.extensions.clear();
    Response::from_parts(parts, body::empty())
}

/// What is known of a WebSocket before both its streams are there.
struct Opened {
    id: RequestId,
    connection: Arc<Connection>,
    client: PeerAddress,
    route: Arc<Route>,
    origin: Option<Box<str>>,
    subprotocol: Option<Box<str>>,
    session: Session,
    admitted: Option<Admitted>,
    socket: Option<UpstreamSocket>,
}

impl Opened {
    fn of(request: &Request) -> Result<Self, ProxyError> {
        let extensions = request.extensions();
        let MatchedRoute(route) = facts::expect(extensions)?;
        let Client { address: client, .. } = facts::expect(extensions)?;
        let origin_fields = facts::origin_fields(extensions);
        let headers = request.headers();
        Ok(Self {
            id: facts::expect(extensions)?,
            client,
            connection: facts::expect(extensions)?,
            session: Session { extensions: Extensions::None, max_lifetime: route.relay.max_lifetime.map(lifetime) },
            route,
            origin: origin_fields.first(headers).map(|_| shown::origin(headers, origin_fields).into()),
            subprotocol: None,
            admitted: extensions.get().cloned(),
            socket: extensions.get().cloned(),
        })
    }

    fn agreed(mut self, agreed: Option<Agreed>) -> Self {
        if let Some(agreed) = agreed {
            self.session.extensions = Extensions::negotiated(agreed.extensions.iter().map(String::as_str));
            self.subprotocol = agreed.subprotocol.map(|name| log_text::escape(name.as_bytes()).into());
        }
        self
    }

    /// Waits for the downstream's half, then hands both to a task that holds nothing of the handshake any more.
    async fn carry(self, downstream: OnSwitch, upstream: (Wire, bytes::Bytes), tracker: Tracker, registry: Registry) {
        let stream = tokio::select! {
            stream = downstream.stream() => stream,
            () = tracker.cut() => None,
        };
        let Some(stream) = stream else {
            tracing::info!(id = %self.id, route = %self.route.name, client = %self.client, "client left before its 101");
            return;
        };
        let Self { id: RequestId(id), connection, client, route, origin, subprotocol, session, admitted, socket } =
            self;
        let policy = Arc::clone(&route.relay);
        let listed = registry.open(registry::Opening { id, client, route, origin, subprotocol });
        let leg = |(stream, early)| Leg { stream, early };
        log_open(listed.entry(), &connection);
        let relay = relay::relay(leg(stream), leg(upstream), policy, session, listed);
        tracker.relay(Carried { relay, _place: connection.place(), _admitted: admitted, _socket: socket });
    }
}

/// The life a relay gets: chance takes some of it, so that what began together does not end together.
fn lifetime(lifetime: Lifetime) -> Duration {
    lifetime.limit.saturating_sub(lifetime.jitter.mul_f64(chance::fraction()))
}

/// The task of one relay: its events, and its places: in the registry, in the listener's cap, among those of its
/// route and among the sockets to upstreams.
struct Carried {
    relay: Relay<Wire, Wire, Listed>,
    _place: Place,
    _admitted: Option<Admitted>,
    _socket: Option<UpstreamSocket>,
}

impl Future for Carried {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let report = ready!(Pin::new(&mut self.relay).poll(cx));
        let listed = self.relay.holder();
        listed.closed_with(Side::Downstream, code(report.downstream_close.as_ref()));
        listed.closed_with(Side::Upstream, code(report.upstream_close.as_ref()));
        log_end(listed.entry(), &report);
        Poll::Ready(())
    }
}

/// What stands for how a side said goodbye (RFC 6455 §7.4.1).
fn code(goodbye: Option<&Goodbye>) -> u16 {
    match goodbye {
        None => close::ABNORMAL,
        Some(goodbye) => goodbye.code.unwrap_or(close::NO_STATUS),
    }
}

fn log_open(entry: &Entry, connection: &Connection) {
    tracing::info!(
        id = %RequestId(entry.id),
        route = %entry.route.name,
        client = %entry.client,
        peer = (connection.remote != entry.client).then(|| tracing::field::display(connection.remote)),
        client_subject = connection.client_subject().map(log_text::cut),
        tls = connection.tls.is_some(),
        http2 = connection.tls.as_ref().is_some_and(|tls| tls.http2),
        origin = entry.origin.as_deref().unwrap_or("absent"),
        upstream = %entry.route.upstream.name,
        subprotocol = entry.subprotocol.as_deref().unwrap_or("none"),
        "websocket opened"
    );
}

fn log_end(entry: &Entry, report: &Report) {
    let side = |side: Option<Side>| side.map_or("switchgate", Side::as_str);
    let reason = |goodbye: &Option<Goodbye>| {
        let reason = goodbye.as_ref().map(|goodbye| &*goodbye.reason).filter(|reason| !reason.is_empty());
        reason.map(|reason| log_text::escape(reason.as_bytes()))
    };
    let detail = report.end.to_string();
    tracing::info!(
        id = %RequestId(entry.id),
        route = %entry.route.name,
        client = %entry.client,
        origin = entry.origin.as_deref().unwrap_or("absent"),
        upstream = %entry.route.upstream.name,
        subprotocol = entry.subprotocol.as_deref().unwrap_or("none"),
        bytes_to_upstream = report.to_upstream.bytes,
        bytes_to_client = report.to_downstream.bytes,
        messages_to_upstream = report.to_upstream.messages,
        messages_to_client = report.to_downstream.messages,
        duration_ms = millis(report.duration),
        closed_by = side(report.began),
        client_code = code(report.downstream_close.as_ref()),
        client_reason = reason(&report.downstream_close),
        upstream_code = code(report.upstream_close.as_ref()),
        upstream_reason = reason(&report.upstream_close),
        reason = report.end.reason(),
        detail = (!detail.is_empty()).then(|| Escaped(detail).to_string()),
        observed = report.observed.map(|(side, error)| Escaped(format_args!("{side}: {error}")).to_string()),
        "websocket ended"
    );
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
