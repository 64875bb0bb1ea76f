//! Refuses an upstream 101 that does not answer this handshake (RFC 6455 §4.1), or that nobody asked for, and what would
//! pass for one over HTTP/2.
//!
//! Reads `Intent`, `Opening`, `MatchedRoute`. Writes `Agreed` on the response. Refuses with 502.

use std::task::{Context, Poll};

use futures_util::{
    TryFutureExt,
    future::{AndThen, BoxFuture, Either, Ready, ready},
};
use http::{StatusCode, Version};
use tower::{Layer, Service};

use super::{
    Request, Response,
    error::ProxyError,
    facts::{self, Opening},
};
use crate::protocol::{
    upgrade::Intent,
    websocket::{self, AcceptError},
};

#[derive(Clone, Debug)]
pub(super) struct VerifyAcceptLayer;

impl<S> Layer<S> for VerifyAcceptLayer {
    type Service = VerifyAccept<S>;

    fn layer(&self, inner: S) -> Self::Service {
        VerifyAccept { inner }
    }
}

#[derive(Clone, Debug)]
pub(super) struct VerifyAccept<S> {
    inner: S,
}

impl<S> Service<Request> for VerifyAccept<S>
where
    S: Service<Request, Response = Response, Error = ProxyError>,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = ProxyError;
    /// Only an opening handshake has an answer that is more than looked at.
    type Future = Either<BoxFuture<'static, Result<Response, ProxyError>>, Plain<S::Future>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ProxyError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let intent = request.extensions().get::<Intent>().copied();
        let opening = facts::expect::<Opening>(request.extensions());
        let over_http2 = request.version() == Version::HTTP_2;
        let answered = self.inner.call(request);
        if intent != Some(Intent::WebSocket) {
            return Either::Right(answered.and_then(refuse_switch));
        }
        Either::Left(Box::pin(async move {
            let response = answered.await?;
            if response.status() != StatusCode::SWITCHING_PROTOCOLS {
                // Over HTTP/2 any 2xx would open a WebSocket that nobody carries (RFC 8441 section 5).
                let seems_open = over_http2 && response.status().is_success();
                return if seems_open { Err(AcceptError::Status.into()) } else { Ok(response) };
            }
            let Opening(opening) = opening?;
            let (mut parts, body) = response.into_parts();
            let agreed = opening.verify(&parts)?;
            for waiver in &agreed.used {
                tracing::info!(waiver = waiver.name(), "handshake check waived for the upstream");
            }
            websocket::drop_empty_lists(&mut parts.headers);
            parts.extensions.insert(agreed);
            Ok(Response::from_parts(parts, body))
        }))
    }
}

/// The answer to anything but an opening handshake.
type Plain<F> = AndThen<F, Ready<Result<Response, ProxyError>>, fn(Response) -> Ready<Result<Response, ProxyError>>>;

fn refuse_switch(response: Response) -> Ready<Result<Response, ProxyError>> {
    let switched = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    ready(if switched { Err(ProxyError::UnaskedSwitch) } else { Ok(response) })
}
