//! The ONE place where a `ProxyError` becomes an HTTP response.

use std::{
    convert::Infallible,
    task::{Context, Poll},
};

use futures_util::future::BoxFuture;
use http::{
    HeaderValue, StatusCode,
    header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, LOCATION, RETRY_AFTER, UPGRADE},
};
use tower::{Layer, Service};

use super::{
    Request, Response,
    error::ProxyError,
    facts::{self, RequestId},
};
use crate::{
    admission::Refusal,
    downstream::Malformed,
    protocol::{body, websocket::HandshakeError},
    relay::Side,
    upstream::UpstreamError,
};

/// Left on a response of our own, for the log. A response extension.
#[derive(Clone, Debug)]
pub(super) struct Refused {
    pub(super) rule: &'static str,
    pub(super) side: &'static str,
    pub(super) why: String,
}

#[derive(Clone, Debug)]
pub(super) struct RespondLayer;

impl<S> Layer<S> for RespondLayer {
    type Service = Respond<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Respond { inner }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Respond<S> {
    inner: S,
}

impl<S> Service<Request> for Respond<S>
where
    S: Service<Request, Response = Response, Error = ProxyError>,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // Every service further in is always ready; there is no error here that could be answered.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let id = facts::expect::<RequestId>(request.extensions());
        let answered = self.inner.call(request);
        Box::pin(async move {
            Ok(match answered.await {
                Ok(response) => response,
                Err(error) => answer(&error, id.ok()),
            })
        })
    }
}

fn status(error: &ProxyError) -> StatusCode {
    match error {
        ProxyError::Malformed(Malformed::Framing(framing)) => framing.status(),
        ProxyError::Malformed(Malformed::Slow(_)) => StatusCode::REQUEST_TIMEOUT,
        ProxyError::Connect => StatusCode::METHOD_NOT_ALLOWED,
        ProxyError::Trace => StatusCode::NOT_IMPLEMENTED,
        ProxyError::Target(_) | ProxyError::AmbiguousPath | ProxyError::OtherUpgrade => StatusCode::BAD_REQUEST,
        ProxyError::Redirect { .. } => StatusCode::PERMANENT_REDIRECT,
        ProxyError::NoRoute => StatusCode::NOT_FOUND,
        ProxyError::Misdirected => StatusCode::MISDIRECTED_REQUEST,
        ProxyError::WebSocketNotAllowed | ProxyError::Origin(_) => StatusCode::FORBIDDEN,
        ProxyError::Handshake(handshake) => match handshake {
            HandshakeError::Method => StatusCode::METHOD_NOT_ALLOWED,
            HandshakeError::Version => StatusCode::UPGRADE_REQUIRED,
            _ => StatusCode::BAD_REQUEST,
        },
        ProxyError::Draining { .. } => StatusCode::SERVICE_UNAVAILABLE,
        ProxyError::Limit { refusal, .. } => match refusal {
            Refusal::ClientRate { .. } | Refusal::ClientFull | Refusal::ClientExchanges => {
                StatusCode::TOO_MANY_REQUESTS
            }
            Refusal::OriginFull | Refusal::RouteFull | Refusal::RouteRate | Refusal::Exchanges | Refusal::OpenFiles => {
                StatusCode::SERVICE_UNAVAILABLE
            }
        },
        ProxyError::Loop => StatusCode::LOOP_DETECTED,
        ProxyError::Upstream(upstream) => match upstream {
            UpstreamError::Dial(crate::net::dial::DialError::Timeout { .. })
            | UpstreamError::ResponseTimeout(_)
            | UpstreamError::WriteTimeout(_)
            | UpstreamError::BodyTimeout(_) => StatusCode::GATEWAY_TIMEOUT,
            UpstreamError::Dial(_)
            | UpstreamError::Interim(_)
            | UpstreamError::Framing(_)
            | UpstreamError::NoExtendedConnect
            | UpstreamError::Refused(_)
            | UpstreamError::Garbage(_)
            | UpstreamError::Closed(_) => StatusCode::BAD_GATEWAY,
            UpstreamError::RequestBody(_) => StatusCode::BAD_REQUEST,
        },
        ProxyError::Accept(_) | ProxyError::UnaskedSwitch | ProxyError::SwitchLost => StatusCode::BAD_GATEWAY,
        ProxyError::MissingFact(_) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// What the client is told: its own faults by rule and section, ours and the upstream's in one fixed sentence.
fn sentence(error: &ProxyError, status: StatusCode) -> String {
    match (error.side(), status) {
        (Some(Side::Downstream), _) => error.to_string(),
        (Some(Side::Upstream), StatusCode::GATEWAY_TIMEOUT) => "the upstream did not answer in time".to_owned(),
        (Some(Side::Upstream), _) => "the upstream gave no valid answer".to_owned(),
        (None, StatusCode::LOOP_DETECTED | StatusCode::SERVICE_UNAVAILABLE) => error.to_string(),
        (None, _) => "the proxy failed".to_owned(),
    }
}

fn answer(error: &ProxyError, id: Option<RequestId>) -> Response {
    let status = status(error);
    let id = id.map(|id| format!("\nrequest {id}")).unwrap_or_default();
    let mut response = Response::new(body::full(format!("{status}\n{}{id}\n", sentence(error, status))));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    match error {
        ProxyError::Connect => {
            headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"));
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        ProxyError::Handshake(HandshakeError::Method) => {
            headers.insert(ALLOW, HeaderValue::from_static("GET"));
        }
        ProxyError::Handshake(HandshakeError::Version) => {
            headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
            headers.insert("sec-websocket-version", HeaderValue::from_static("13"));
        }
        ProxyError::Redirect { location: Some(location) } => {
            headers.insert(LOCATION, location.clone());
        }
        ProxyError::Draining { retry_after } => {
            headers.insert(RETRY_AFTER, HeaderValue::from(*retry_after));
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        ProxyError::Limit { retry_after, .. } => {
            headers.insert(RETRY_AFTER, HeaderValue::from(*retry_after));
            if status == StatusCode::SERVICE_UNAVAILABLE {
                // A crowd that is sent away must not keep the places of its listener while it waits. One client alone
                // may: its next attempt needs no further TLS handshake.
                headers.insert(CONNECTION, HeaderValue::from_static("close"));
            }
        }
        ProxyError::Malformed(_) | ProxyError::Trace | ProxyError::Upstream(UpstreamError::RequestBody(_)) => {
            // Where one message was not understood, no further one can be found in the stream.
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        _ => {}
    }
    if matches!(error, ProxyError::Redirect { .. }) {
        // Nothing was refused: it is logged as the answer that it is.
        return response;
    }
    let side = match error.side() {
        Some(Side::Downstream) => "downstream",
        Some(Side::Upstream) => "upstream",
        None => "switchgate",
    };
    response.extensions_mut().insert(Refused { rule: error.rule(), side, why: error.chain() });
    response
}
