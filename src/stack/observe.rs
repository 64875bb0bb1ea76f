//! Request id, span, one event for each plain request and one for each refusal.
//!
//! Writes `RequestId`. The events of a WebSocket are written by `switch`, which knows when it ends.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{
    StatusCode,
    header::{AUTHORIZATION, COOKIE},
};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::time::Instant;
use tower::{Layer, Service};
use tracing::{Instrument, Span, field};

use super::{Request, Response, facts::RequestId, respond::Refused, shown};
use crate::{
    config::model::LogOptions,
    downstream::Malformed,
    protocol::{
        body::{Body, BodyError},
        log_text::Escaped,
        log_throttle::{LogThrottles, WarningKey},
    },
};

/// Throttles of the warnings about requests, which a client can cause at will. Each kind is a warning at most once per
/// interval and info in between, so that every request keeps its event.
type Warnings = LogThrottles<WarningKey>;

#[derive(Clone, Debug)]
pub(super) struct ObserveLayer {
    pub(super) options: LogOptions,
    pub(super) next_id: Arc<AtomicU64>,
    pub(super) warnings: Arc<Warnings>,
}

impl<S> Layer<S> for ObserveLayer {
    type Service = Observe<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Observe { config: self.clone(), inner }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Observe<S> {
    config: ObserveLayer,
    inner: S,
}

impl<S> Service<Request> for Observe<S>
where
    S: Service<Request, Response = Response, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let id = RequestId(self.config.next_id.fetch_add(1, Ordering::Relaxed));
        let begun = Instant::now();
        request.extensions_mut().insert(id);
        let warnings = Arc::clone(&self.config.warnings);
        let span = self.config.span(&request, id);
        let answered = span.in_scope(|| self.inner.call(request)).instrument(span.clone());
        Box::pin(async move {
            let mut pending = Pending { span, begun, answered: false };
            let mut response = answered.await?;
            pending.answered = true;
            let span = pending.span.clone();
            if let Some(refused) = response.extensions_mut().remove::<Refused>() {
                span.in_scope(|| log_refusal(&refused, response.status(), begun, &warnings));
                return Ok(response);
            }
            if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                return Ok(response);
            }
            let status = response.status();
            Ok(response
                .map(|inner| Logged { inner, span, status, begun, bytes: 0, fault: None, warnings }.boxed_unsync()))
        })
    }
}

impl ObserveLayer {
    fn span(&self, request: &Request, id: RequestId) -> Span {
        let headers = request.headers();
        let span = tracing::info_span!(
            "request",
            %id,
            client = field::Empty,
            peer = field::Empty,
            client_subject = field::Empty,
            method = field::Empty,
            host = field::Empty,
            path = field::Empty,
            route = field::Empty,
            upstream = field::Empty,
            origin = field::Empty,
            own_origin = field::Empty,
            cookie = field::Empty,
            authorization = field::Empty,
        );
        if span.is_disabled() {
            // Nobody will read it: nothing is put together for it.
            return span;
        }
        if request.extensions().get::<Malformed>().is_some() {
            // What is here stands in for a head that could not be read: none of it is the client's.
            return span;
        }
        span.record("method", field::display(request.method()));
        span.record("path", field::display(shown::path(request.uri(), self.options)));
        if let Some(host) = shown::field(headers, &http::header::HOST) {
            span.record("host", field::display(host));
        }
        if let Some(cookie) = shown::field(headers, &COOKIE).filter(|_| self.options.cookies) {
            span.record("cookie", field::display(cookie));
        }
        if let Some(authorization) = shown::field(headers, &AUTHORIZATION).filter(|_| self.options.authorization) {
            span.record("authorization", field::display(authorization));
        }
        span
    }
}

/// Writes the event of a request that is given up before there is an answer: the client left, or a stop cut it.
struct Pending {
    span: Span,
    begun: Instant,
    answered: bool,
}

impl Drop for Pending {
    fn drop(&mut self) {
        if !self.answered {
            let duration_ms = millis_since(self.begun);
            self.span.in_scope(|| tracing::info!(duration_ms, "request; gone before its answer"));
        }
    }
}

fn millis_since(begun: Instant) -> u64 {
    u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX)
}

fn log_refusal(refused: &Refused, status: StatusCode, begun: Instant, warnings: &Warnings) {
    let duration_ms = millis_since(begun);
    let Refused { rule, side, why } = refused;
    // The error of an upstream may quote what it sent.
    let why = Escaped(why);
    let ours = status == StatusCode::INTERNAL_SERVER_ERROR;
    let status = status.as_u16();
    let suppressed = || warnings.note((rule, Box::default()), Instant::now().into_std());
    match *side {
        "upstream" => match suppressed() {
            Some(suppressed) => {
                tracing::warn!(status, duration_ms, rule, side, %why, suppressed, "upstream failed");
            }
            None => tracing::info!(status, duration_ms, rule, side, %why, "upstream failed"),
        },
        "switchgate" if ours => match suppressed() {
            Some(suppressed) => tracing::error!(status, duration_ms, rule, side, %why, suppressed, "failed"),
            None => tracing::info!(status, duration_ms, rule, side, %why, "failed"),
        },
        // Also what nobody is to blame for: a stop, a loop.
        _ => tracing::info!(status, duration_ms, rule, side, %why, "refused"),
    }
}

/// Writes the request's event when its body has been sent or given up.
struct Logged {
    inner: Body,
    span: Span,
    status: StatusCode,
    begun: Instant,
    bytes: u64,
    fault: Option<String>,
    warnings: Arc<Warnings>,
}

impl http_body::Body for Logged {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                let count = frame.data_ref().map_or(0, Bytes::len);
                self.bytes = self.bytes.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
            }
            Poll::Ready(Some(Err(error))) => self.fault = Some(Escaped(error).to_string()),
            Poll::Ready(None) | Poll::Pending => {}
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

impl Drop for Logged {
    fn drop(&mut self) {
        let (status, bytes) = (self.status.as_u16(), self.bytes);
        let duration_ms = millis_since(self.begun);
        self.span.in_scope(|| match &self.fault {
            None => tracing::info!(status, bytes, duration_ms, "request"),
            Some(fault) => {
                const MESSAGE: &str = "request; its response body broke off";
                match self.warnings.note(("response-body", Box::default()), Instant::now().into_std()) {
                    Some(suppressed) => tracing::warn!(status, bytes, duration_ms, fault, suppressed, "{MESSAGE}"),
                    None => tracing::info!(status, bytes, duration_ms, fault, "{MESSAGE}"),
                }
            }
        });
    }
}
