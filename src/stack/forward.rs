//! The innermost service: one exchange with the upstream.
//!
//! Reads `MatchedRoute`, `Intent`; for an upstream that is told of its client also `Client`, `RequestId`, `Connection`.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Extensions, HeaderValue, header::CONTENT_TYPE};
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
    config::model::Upstream,
    downstream::Connection,
    interim::Interims,
    net::proxy_header::OnBehalfOf,
    protocol::{
        body::{self, BodyError},
        upgrade::Intent,
    },
    upstream::{DownstreamBodyError, Exchanges},
};

#[derive(Clone)]
pub(super) struct Forward {
    pub(super) exchanges: Exchanges,
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
        Box::pin(async move {
            let MatchedRoute(route) = facts::expect(request.extensions())?;
            let intent: Intent = facts::expect(request.extensions())?;
            let whom = match route.upstream.proxy_protocol {
                Some(_) => Some(on_behalf_of(request.extensions())?),
                None => None,
            };
            let whom = whom.as_ref();
            let (mut parts, body) = request.into_parts();
            let interims = parts.extensions.remove::<Interims>();
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
                Intent::WebSocket => paced(exchanges.upgrade(&route.upstream, request, whom).await?, &route.upstream),
                Intent::None | Intent::Other => {
                    let answer = exchanges.plain(&route.upstream, request, whom, interims.as_ref()).await?;
                    paced(answer, &route.upstream)
                }
            })
        })
    }
}

/// Whom the request comes from, for an upstream that is told so before HTTP begins.
fn on_behalf_of(facts: &Extensions) -> Result<OnBehalfOf, ProxyError> {
    let Client { address: client, .. } = facts::expect(facts)?;
    let id: RequestId = facts::expect(facts)?;
    let connection: Arc<Connection> = facts::expect(facts)?;
    let server_name = connection.tls.as_ref().and_then(|tls| tls.server_name.clone());
    Ok(OnBehalfOf { client, local: connection.local, server_name, request: id.to_string().into() })
}

fn paced<B>(response: http::Response<B>, upstream: &Upstream) -> Response
where
    B: http_body::Body<Data = Bytes, Error = BodyError> + Send + Unpin + 'static,
{
    let is_event_stream = response.headers().get(CONTENT_TYPE).is_some_and(is_event_stream);
    let limit = if is_event_stream { upstream.event_stream_timeout } else { upstream.body_timeout };
    response.map(|body| if body.is_end_stream() { body::empty() } else { Paced::new(body, limit).boxed_unsync() })
}

/// Whether this is the media type of server-sent events, whatever its parameters (RFC 9110 §8.3.1).
fn is_event_stream(content_type: &HeaderValue) -> bool {
    let media_type = content_type.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
    media_type.trim_ascii().eq_ignore_ascii_case(b"text/event-stream")
}

#[cfg(test)]
mod tests {
    use std::{path::Path, time::Duration};

    use http_body::Frame;
    use http_body_util::StreamBody;
    use tokio::time::Instant;

    use super::*;

    /// How long a body of this type may be silent; a day stands for ever.
    async fn patience(keys: &str, content_type: &'static str) -> Option<u64> {
        let text = format!(
            "[[listener]]\nlisten = \"127.0.0.1:0\"\n[[route]]\nupstream = \"u\"\n\
             [upstream.u]\nurl = \"http://127.0.0.1:9\"\n{keys}\n[limits]\nbody_timeout = \"1s\"\n"
        );
        let model = crate::config::parse(&text, Path::new("proxy.toml")).unwrap();
        let silence = StreamBody::new(futures_util::stream::pending::<Result<Frame<Bytes>, BodyError>>());
        let response = http::Response::builder().header(CONTENT_TYPE, content_type).body(silence).unwrap();
        let (begun, mut body) = (Instant::now(), paced(response, &model.upstreams[0]).into_body());
        let ended = tokio::time::timeout(Duration::from_secs(86_400), body.frame()).await;
        ended.is_ok_and(|frame| frame.unwrap().is_err()).then(|| begun.elapsed().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_limited_by_the_upstream_and_in_event_streams_only_where_that_is_set() {
        for (keys, text, events) in
            [("", Some(60), None), ("body_timeout = \"5s\"", Some(5), Some(5)), ("body_timeout = \"off\"", None, None)]
        {
            assert_eq!(patience(keys, "text/plain").await, text, "{keys}");
            assert_eq!(patience(keys, "text/event-stream").await, events, "{keys}");
        }
    }

    #[test]
    fn event_streams_are_known_by_their_media_type() {
        for (value, expected) in [
            ("text/event-stream", true),
            ("Text/Event-Stream ; charset=utf-8", true),
            ("text/event-stream;charset=utf-8", true),
            ("text/event-streams", false),
            ("text/plain; text/event-stream", false),
            ("", false),
        ] {
            assert_eq!(is_event_stream(&HeaderValue::from_static(value)), expected, "{value}");
        }
    }
}
