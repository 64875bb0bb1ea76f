//! The one `Service` that every deciding layer shares: decide, then go on or refuse.

use std::{
    future::{Ready, ready},
    task::{Context, Poll},
};

use futures_util::future::Either;
use tower::{Layer, Service};

use super::{Request, Response, error::ProxyError};

/// A decision on a request, made without awaiting anything. It may write a fact.
pub(super) trait Check: Clone {
    /// Lets the request pass or says why not.
    fn check(&self, request: &mut Request) -> Result<(), ProxyError>;
}

/// Puts a [`Check`] in front of a service.
#[derive(Clone, Debug)]
pub(super) struct CheckLayer<C>(pub(super) C);

impl<C: Check, S> Layer<S> for CheckLayer<C> {
    type Service = Checked<C, S>;

    fn layer(&self, inner: S) -> Self::Service {
        Checked { check: self.0.clone(), inner }
    }
}

/// See [`CheckLayer`].
#[derive(Clone, Debug)]
pub(super) struct Checked<C, S> {
    check: C,
    inner: S,
}

impl<C, S> Service<Request> for Checked<C, S>
where
    C: Check,
    S: Service<Request, Response = Response, Error = ProxyError>,
{
    type Response = Response;
    type Error = ProxyError;
    type Future = Either<S::Future, Ready<Result<Response, ProxyError>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ProxyError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        match self.check.check(&mut request) {
            Ok(()) => Either::Left(self.inner.call(request)),
            Err(error) => Either::Right(ready(Err(error))),
        }
    }
}
