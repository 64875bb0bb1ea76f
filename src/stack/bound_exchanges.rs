//! Limits concurrent exchanges: plain requests, and opening handshakes until their 101.
//!
//! Reads `MatchedRoute`, `Intent`, `Connection`, `Client`. Writes `UpstreamSocket`. Refuses with 429 a client that has
//! too many, and with 503 when the process has.

use std::{
    future::{Future, Ready, ready},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::future::Either;
use http::StatusCode;
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;
use tower::{Layer, Service};

use super::{
    Request, Response, chance,
    error::ProxyError,
    facts::{self, Client, MatchedRoute, UpstreamSocket},
};
use crate::{
    admission::{ExchangeLimits, ExchangePlace},
    config::model::{Endpoint, Protocol},
    downstream::Connection,
    protocol::{
        body::{Body, BodyError},
        upgrade::Intent,
    },
};

#[derive(Clone, Debug)]
pub(super) struct BoundExchangesLayer(pub(super) ExchangeLimits);

impl<S> Layer<S> for BoundExchangesLayer {
    type Service = BoundExchanges<S>;

    fn layer(&self, inner: S) -> Self::Service {
        BoundExchanges { limits: self.0.for_worker(), inner }
    }
}

#[derive(Clone, Debug)]
pub(super) struct BoundExchanges<S> {
    limits: ExchangeLimits,
    inner: S,
}

impl<S> Service<Request> for BoundExchanges<S>
where
    S: Service<Request, Response = Response, Error = ProxyError>,
    S::Future: Unpin,
{
    type Response = Response;
    type Error = ProxyError;
    type Future = Either<Counted<S::Future>, Ready<Result<Response, ProxyError>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ProxyError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        match enter(&self.limits, &mut request) {
            Ok(place) => Either::Left(Counted { answered: self.inner.call(request), place }),
            Err(error) => Either::Right(ready(Err(error))),
        }
    }
}

/// Whose drop ends an exchange.
#[derive(Debug)]
enum Place {
    Plain(#[expect(dead_code, reason = "held, never read")] ExchangePlace),
    /// The relay keeps it as the place of a live WebSocket.
    Opening(Arc<ExchangePlace>),
}

/// `None` for the embedded upstream, which uses no socket.
fn enter(limits: &ExchangeLimits, request: &mut Request) -> Result<Option<Place>, ProxyError> {
    let extensions = request.extensions();
    let MatchedRoute(route) = facts::expect(extensions)?;
    if route.upstream.endpoint == Endpoint::BuiltinEcho {
        return Ok(None);
    }
    let connection: Arc<Connection> = facts::expect(extensions)?;
    let Client { address: client, .. } = facts::expect(extensions)?;
    let intent: Intent = facts::expect(extensions)?;
    let entered = if client == connection.remote {
        limits.enter(connection.exchanges(|| limits.client(client)))
    } else {
        limits.enter(&limits.client(client))
    };
    let place = entered.map_err(|refusal| ProxyError::Limit { refusal, retry_after: chance::retry_after() })?;
    // WebSockets over HTTP/2 share their socket to the upstream.
    if intent == Intent::WebSocket && route.upstream.protocol == Protocol::Http1 {
        let place = Arc::new(place);
        request.extensions_mut().insert(UpstreamSocket(Arc::clone(&place)));
        return Ok(Some(Place::Opening(place)));
    }
    Ok(Some(Place::Plain(place)))
}

/// An exchange that is counted until its answer's body has ended, or until one of the two is dropped.
pub(super) struct Counted<F> {
    answered: F,
    place: Option<Place>,
}

impl<F: Future<Output = Result<Response, ProxyError>> + Unpin> Future for Counted<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let answered = ready!(Pin::new(&mut self.answered).poll(cx));
        let place = self.place.take();
        Poll::Ready(answered.map(|response| match place {
            Some(Place::Opening(place)) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                place.switch();
                response
            }
            Some(place) if !response.body().is_end_stream() => {
                response.map(|inner| CountedBody { inner, _place: place }.boxed_unsync())
            }
            _ => response,
        }))
    }
}

struct CountedBody {
    inner: Body,
    _place: Place,
}

impl http_body::Body for CountedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
