//! Answers an ACME server that asks for a token of ours over plain HTTP (RFC 8555 §8.3).
//!
//! Reads `Connection`. What is not pending goes on as any other request: a backend may order certificates of its own.

use std::{
    future::{Ready, ready},
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::future::Either;
use http::{
    HeaderValue, Method,
    header::{CACHE_CONTROL, CONTENT_TYPE},
};
use tower::{Layer, Service};

use super::{Request, Response, error::ProxyError};
use crate::{downstream::Connection, net::challenges::Challenges, protocol::body};

#[derive(Clone, Debug)]
pub(super) struct AnswerChallengeLayer(pub(super) Arc<Challenges>);

impl<S> Layer<S> for AnswerChallengeLayer {
    type Service = AnswerChallenge<S>;

    fn layer(&self, inner: S) -> Self::Service {
        AnswerChallenge { challenges: Arc::clone(&self.0), inner }
    }
}

#[derive(Clone, Debug)]
pub(super) struct AnswerChallenge<S> {
    challenges: Arc<Challenges>,
    inner: S,
}

impl<S> Service<Request> for AnswerChallenge<S>
where
    S: Service<Request, Response = Response, Error = ProxyError>,
{
    type Response = Response;
    type Error = ProxyError;
    type Future = Either<S::Future, Ready<Result<Response, ProxyError>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ProxyError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        match decide(&self.challenges, &request) {
            Some(authorization) => Either::Right(ready(Ok(answer(&authorization)))),
            None => Either::Left(self.inner.call(request)),
        }
    }
}

fn decide(challenges: &Challenges, request: &Request) -> Option<Arc<str>> {
    let authorization = challenges.answer(request.uri().path())?;
    let plain = request.extensions().get::<Arc<Connection>>().is_some_and(|connection| connection.tls.is_none());
    (plain && request.method() == Method::GET).then_some(authorization)
}

fn answer(authorization: &str) -> Response {
    let mut response = Response::new(body::full(authorization.to_owned()));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
