//! The innermost service: one exchange with the upstream.
//!
//! Reads `MatchedRoute`, `Intent`; for an upstream that is told of its client also `Client`, `RequestId`, `Connection`.

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::Extensions;
use http_body::Body as _;
use http_body_util::BodyExt;
use tower::Service;

use super::{
    Request, Response,
    error::ProxyError,
    facts::{self, Client, MatchedRoute, RequestId},
    pace::Paced,
};
use crate::{
    downstream::Connection,
    net::proxy_header::OnBehalfOf,
    protocol::{
        body::{self, Body, BodyError},
        upgrade::Intent,
    },
    upstream::{DownstreamBodyError, Exchanges},
};

#[derive(Clone)]
pub(super) struct Forward {
    pub(super) exchanges: Exchanges,
    pub(super) body_timeout: Duration,
}

impl Service<Request> for Forward {
    type Response = Response;
    type Error = ProxyError;
    type Future = BoxFuture<'static, Result<Response, ProxyError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ProxyError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let exchanges = self.exchanges.clone();
        let body_timeout = self.body_timeout;
        Box::pin(async move {
            let MatchedRoute(route) = facts::expect(request.extensions())?;
            let intent: Intent = facts::expect(request.extensions())?;
            let whom = match route.upstream.proxy_protocol {
                Some(_) => Some(on_behalf_of(request.extensions())?),
                None => None,
            };
            let whom = whom.as_ref();
            let (mut parts, body) = request.into_parts();
            // Facts end here: nothing of ours, and no second handle on the switch, goes further.
            parts.extensions.clear();
            let body = if body.is_end_stream() {
                // Most have none, and none needs no box.
                body::empty()
            } else {
                body.map_err(|error| BodyError::new(DownstreamBodyError(error))).boxed_unsync()
            };
            let request = Request::from_parts(parts, body);
            Ok(match intent {
                Intent::WebSocket => {
                    exchanges.upgrade(&route.upstream, request, whom).await?.map(|body| paced(body, body_timeout))
                }
                Intent::None | Intent::Other => {
                    exchanges.plain(&route.upstream, request, whom).await?.map(|body| paced(body, body_timeout))
                }
            })
        })
    }
}

/// Whom the request comes from, for an upstream that is told so before HTTP begins.
fn on_behalf_of(facts: &Extensions) -> Result<OnBehalfOf, ProxyError> {
    let Client(client) = facts::expect(facts)?;
    let id: RequestId = facts::expect(facts)?;
    let connection: Arc<Connection> = facts::expect(facts)?;
    let server_name = connection.tls.as_ref().and_then(|tls| tls.server_name.clone());
    Ok(OnBehalfOf { client, local: connection.local, server_name, request: id.to_string().into() })
}

fn paced<B>(body: B, limit: Duration) -> Body
where
    B: http_body::Body<Data = Bytes, Error = BodyError> + Send + Unpin + 'static,
{
    if body.is_end_stream() { body::empty() } else { Paced::new(body, limit).boxed_unsync() }
}
