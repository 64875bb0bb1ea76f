//! On a verified 101: pairs both byte streams and hands them to the relay.
//!
//! Reads `MatchedRoute`, `Intent`, `Connection`, `RequestId`, `Agreed`. Refuses with 502 when the upstream's half is
//! lost before anything went downstream.

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::BoxFuture;
use http::{StatusCode, header::CONTENT_LENGTH};
use hyper::upgrade::OnUpgrade;
use tower::{Layer, Service};

use super::{
    Request, Response,
    error::ProxyError,
    facts::{self, MatchedRoute, RequestId},
    shown,
};
use crate::{
    config::model::Route,
    downstream::{self, Connection},
    drain::Tracker,
    net::{BoxedIo, Io},
    protocol::{
        body, hop_by_hop,
        upgrade::{self, Intent},
        websocket::Agreed,
    },
    relay::{self, Leg, Link, Report},
    upstream,
};

impl Link for BoxedIo {
    fn take_error(&self) -> Option<std::io::Error> {
        Io::take_error(&**self)
    }
}

#[derive(Clone, Debug)]
pub(super) struct SwitchLayer {
    pub(super) tracker: Tracker,
}

impl<S> Layer<S> for SwitchLayer {
    type Service = Switch<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Switch { tracker: self.tracker.clone(), inner }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Switch<S> {
    tracker: Tracker,
    inner: S,
}

impl<S> Service<Request> for Switch<S>
where
    S: Service<Request, Response = Response, Error = ProxyError>,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = ProxyError;
    type Future = BoxFuture<'static, Result<Response, ProxyError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ProxyError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        // Taken out by this layer alone: what is left in the extensions could be cloned.
        let downstream = hyper::upgrade::on(&mut request);
        let opened = Opened::of(&request);
        let intent = facts::expect::<Intent>(request.extensions());
        let answered = self.inner.call(request);
        let tracker = self.tracker.clone();
        Box::pin(async move {
            let mut response = answered.await?;
            if response.status() != StatusCode::SWITCHING_PROTOCOLS || intent? != Intent::WebSocket {
                return Ok(response);
            }
            // The upstream's half is taken before the 101 leaves: until then a failure can still be a 502.
            let upgraded =
                hyper::upgrade::on(&mut response).await.map_err(|error| ProxyError::SwitchLost(Some(error)))?;
            let upstream = upstream::take_stream(upgraded).map_err(|_| ProxyError::SwitchLost(None))?;
            let agreed = response.extensions_mut().remove::<Agreed>();
            let opened = opened?.agreed(agreed);
            let own = tracker.clone();
            tracker.relay(async move { opened.carry(downstream, upstream, &own).await });
            Ok(switching(response))
        })
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

/// What the events of one WebSocket say of it.
struct Opened {
    id: RequestId,
    connection: Arc<Connection>,
    route: Arc<Route>,
    origin: String,
    subprotocol: Option<String>,
}

impl Opened {
    fn of(request: &Request) -> Result<Self, ProxyError> {
        let extensions = request.extensions();
        let MatchedRoute(route) = facts::expect(extensions)?;
        Ok(Self {
            id: facts::expect(extensions)?,
            connection: facts::expect(extensions)?,
            route,
            origin: shown::origin(request.headers()),
            subprotocol: None,
        })
    }

    fn agreed(mut self, agreed: Option<Agreed>) -> Self {
        self.subprotocol = agreed.and_then(|agreed| agreed.subprotocol);
        self
    }

    async fn carry(self, downstream: OnUpgrade, upstream: (BoxedIo, bytes::Bytes), tracker: &Tracker) {
        let stream = tokio::select! {
            upgraded = downstream => upgraded.ok().and_then(|upgraded| downstream::take_stream(upgraded).ok()),
            () = tracker.cut() => None,
        };
        let Some(stream) = stream else {
            tracing::info!(id = %self.id, route = %self.route.name, client = %self.connection.remote, "client left before its 101");
            return;
        };
        self.log_open();
        let leg = |(stream, early)| Leg { stream, early };
        let report = relay::relay(leg(stream), leg(upstream), self.route.idle_timeout, tracker.cut()).await;
        self.log_end(&report);
    }

    fn log_open(&self) {
        tracing::info!(
            id = %self.id,
            route = %self.route.name,
            client = %self.connection.remote,
            tls = self.connection.tls,
            origin = %self.origin,
            upstream = %self.route.upstream.name,
            subprotocol = self.subprotocol.as_deref().unwrap_or("none"),
            "websocket opened"
        );
    }

    fn log_end(&self, report: &Report) {
        let who = report.first_to_end.map_or("switchgate", |side| match side {
            relay::Side::Downstream => "downstream",
            relay::Side::Upstream => "upstream",
        });
        let detail = match &report.end {
            relay::End::Failed(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => None,
            relay::End::Failed(error) => Some(error.to_string()),
            relay::End::Idle(limit) => Some(format!("idle_timeout {limit:?}")),
            relay::End::Closed | relay::End::Stopped => None,
        };
        tracing::info!(
            id = %self.id,
            route = %self.route.name,
            client = %self.connection.remote,
            origin = %self.origin,
            upstream = %self.route.upstream.name,
            subprotocol = self.subprotocol.as_deref().unwrap_or("none"),
            bytes_to_upstream = report.to_upstream,
            bytes_to_client = report.to_downstream,
            duration_ms = millis(report.duration),
            closed_by = who,
            reason = report.end.reason(),
            detail,
            "websocket ended"
        );
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
