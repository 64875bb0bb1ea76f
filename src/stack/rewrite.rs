//! Drops hop-by-hop fields, restores the upgrade pair, adds forwarding fields (RFC 9110 §7.6) and the client's
//! certificate (RFC 9440).
//!
//! Reads `MatchedRoute`, `Intent`, `Target`, `Connection`, `Client`. Refuses a request that goes in a circle with 508.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::{
    TryFutureExt,
    future::{Either, MapOk, Ready, ready},
};
use http::{
    HeaderValue, StatusCode, Uri,
    header::{CONNECTION, CONTENT_LENGTH, HOST, TE, UPGRADE},
    uri::PathAndQuery,
};
use tower::{Layer, Service};

use super::{
    Request, Response,
    error::ProxyError,
    facts::{self, Client, MatchedRoute},
};
use crate::{
    config::model::{Endpoint, HostHeader, Upstream},
    downstream::Connection,
    protocol::{
        client_cert, content_length,
        forwarded::{self, Hop, Via},
        hop_by_hop,
        request_target::Target,
        token_list,
        upgrade::{self, Intent},
    },
};

/// How often our name may stand in `Via` already; a chain of honest gates is shorter.
const MAX_PASSES: usize = 8;

#[derive(Clone, Debug)]
pub(super) struct RewriteLayer {
    pub(super) via: Arc<Via>,
}

impl<S> Layer<S> for RewriteLayer {
    type Service = Rewrite<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Rewrite { config: self.clone(), inner }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Rewrite<S> {
    config: RewriteLayer,
    inner: S,
}

impl<S> Service<Request> for Rewrite<S>
where
    S: Service<Request, Response = Response, Error = ProxyError>,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = ProxyError;
    type Future = Either<MapOk<S::Future, fn(Response) -> Response>, Ready<Result<Response, ProxyError>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ProxyError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        if let Err(error) = self.config.rewrite_request(&mut request) {
            return Either::Right(ready(Err(error)));
        }
        Either::Left(self.inner.call(request).map_ok(rewrite_response))
    }
}

impl RewriteLayer {
    fn rewrite_request(&self, request: &mut Request) -> Result<(), ProxyError> {
        let MatchedRoute(route) = facts::expect(request.extensions())?;
        let intent: Intent = facts::expect(request.extensions())?;
        let target: Arc<Target> = facts::expect(request.extensions())?;
        let connection: Arc<Connection> = facts::expect(request.extensions())?;
        let Client { told, .. } = facts::expect(request.extensions())?;
        let version = request.version();
        *request.uri_mut() = origin_form(request.uri());
        *request.version_mut() = http::Version::HTTP_11;
        let headers = request.headers_mut();

        if self.via.count(headers) >= MAX_PASSES {
            return Err(ProxyError::Loop);
        }
        content_length::normalize(headers);
        let takes_trailers = token_list::contains(headers, &TE, "trailers");
        hop_by_hop::remove(headers);
        match intent {
            Intent::WebSocket => {
                // `Content-Length: 0` passed the check; a GET upstream needs no framing at all.
                headers.remove(CONTENT_LENGTH);
                upgrade::write_pair(headers);
            }
            Intent::None | Intent::Other if takes_trailers => {
                headers.insert(TE, HeaderValue::from_static("trailers"));
                headers.insert(CONNECTION, HeaderValue::from_static("te"));
            }
            Intent::None | Intent::Other => {}
        }
        let authority = target.authority.as_str();
        let hop = Hop { peer: &connection.peer, scheme: connection.scheme(), host: authority, told: &told };
        forwarded::apply(headers, &hop);
        client_cert::apply(headers, connection.certificate.as_ref());
        self.via.push(headers, version);
        let host = match upstream_host(&route.upstream) {
            Some(host) => HeaderValue::try_from(host),
            None => HeaderValue::from_str(authority),
        };
        if let Ok(host) = host {
            headers.insert(HOST, host);
        }
        Ok(())
    }
}

fn upstream_host(upstream: &Upstream) -> Option<String> {
    let (host, port, default) = match (&upstream.host_header, &upstream.endpoint) {
        (HostHeader::Preserve, _) | (_, Endpoint::BuiltinEcho) => return None,
        // A file name is no authority, and there has to be one.
        (HostHeader::Upstream, Endpoint::Unix { .. }) => return Some("localhost".to_owned()),
        (HostHeader::Upstream, Endpoint::Tcp { host, port }) => (host, *port, 80),
        (HostHeader::Upstream, Endpoint::Tls { host, port, .. }) => (host, *port, 443),
    };
    Some(if port == default { host.clone() } else { format!("{host}:{port}") })
}

/// The absolute form names an authority that has been taken into account; the upstream gets a path.
fn origin_form(uri: &Uri) -> Uri {
    let path = uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    Uri::from(path)
}

fn rewrite_response(mut response: Response) -> Response {
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        // Still to be verified, as it came; `switch` writes the downstream's 101.
        return response;
    }
    // The version is the hop's own; hyper answers an HTTP/1.0 client as it must.
    *response.version_mut() = http::Version::HTTP_11;
    let offered: Vec<HeaderValue> = response.headers().get_all(UPGRADE).iter().cloned().collect();
    hop_by_hop::remove(response.headers_mut());
    content_length::normalize(response.headers_mut());
    if response.status() == StatusCode::UPGRADE_REQUIRED {
        // A 426 without `Upgrade` says nothing (RFC 9110 section 15.5.22).
        for value in offered {
            response.headers_mut().append(UPGRADE, value);
        }
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
    }
    response
}
