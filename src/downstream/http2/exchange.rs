//! One request over HTTP/2 and its answer, or the WebSocket that it becomes.

use std::{
    convert::Infallible,
    future::poll_fn,
    pin::pin,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream, server::SendResponse};
use http::{
    HeaderValue, Method, Request, Response, StatusCode,
    header::{CONTENT_LENGTH, DATE, EXPECT},
};
use http_body::Body as _;
use http_body_util::BodyExt;
use tokio::sync::{Notify, oneshot};
use tower::{Service, ServiceExt};

use super::super::{Connection, ConnectionLimits, Malformed, switch::PendingSwitch};
use crate::{
    http2::{
        Http2Stream,
        body::{self, Inbound, SendError},
    },
    net::Wire,
    protocol::{
        body::{self as bodies, Body},
        http2 as protocol,
        http2::Asked,
        request_framing::FramingError,
        token_list,
    },
};

/// Serves one stream to the end of its response; a WebSocket goes on by itself.
pub(super) async fn serve<S>(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    connection: Arc<Connection>,
    limits: Arc<ConnectionLimits>,
    service: S,
) where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Send,
    S::Future: Send,
{
    let is_head = request.method() == Method::HEAD;
    let (mut head, stream) = request.into_parts();
    let protocol = head.extensions.remove::<h2::ext::Protocol>();
    let protocol = protocol.as_ref().map(h2::ext::Protocol::as_str);
    let translated = match random() {
        Some(nonce) => protocol::translate_request(&mut head, protocol, nonce, limits.max_header_count),
        // A system without random bytes has no keys either.
        None => return respond.send_reset(Reason::INTERNAL_ERROR),
    };
    let asked = match translated {
        Ok(asked) => asked,
        Err(error) => {
            head.extensions.insert(Malformed::Framing(error));
            Asked::Response
        }
    };
    head.extensions.insert(connection);
    // A client that waits for a 100 is told once its body is asked for (RFC 9110 section 10.1.1): a refusal spares it.
    let mut waits = token_list::contains(&head.headers, &EXPECT, "100-continue");
    let wanted = Arc::new(Notify::new());
    let (switch, pending) = oneshot::channel();
    let (request, stream) = match asked {
        Asked::Response => {
            let body = Inbound::new(&head.headers, stream).within(limits.body_timeout).telling(&wanted);
            let body = if body.is_end_stream() { bodies::empty() } else { body.boxed_unsync() };
            (Request::from_parts(head, body), None)
        }
        Asked::WebSocket => {
            head.extensions.insert(PendingSwitch::new(pending));
            (Request::from_parts(head, bodies::empty()), Some(stream))
        }
        // It will be refused; what it sends is not looked at.
        Asked::Tunnel => {
            if protocol.is_some() {
                head.extensions.insert(Malformed::Framing(FramingError::UnknownProtocol));
            }
            (Request::from_parts(head, bodies::empty()), Some(stream))
        }
    };
    let mut answer = pin!(service.oneshot(request));
    let answered = loop {
        tokio::select! {
            answered = &mut answer => break answered,
            // Taken back before its answer: whatever is done for it ends here.
            _gone = poll_fn(|cx| respond.poll_reset(cx)) => return,
            () = wanted.notified(), if waits => {
                waits = false;
                let mut go_on = Response::new(());
                *go_on.status_mut() = StatusCode::CONTINUE;
                // A stream that is gone shows above.
                let _gone = respond.send_informational(go_on);
            }
        }
    };
    let response = match answered {
        Ok(response) => response,
        Err(never) => match never {},
    };
    let switched = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    let (mut head, body) = response.into_parts();
    protocol::translate_response(&mut head, asked);
    if switched {
        // Everything else in the answer is for hops of HTTP/1.1.
        if let (Some(stream), Ok(send)) = (stream, reply(&mut respond, head, false)) {
            // Nobody waits for it when a stop has cut the handshake; then the stream is reset by its end.
            let _cut = switch.send(Wire::boxed(Http2Stream::new(send, stream)));
        }
        return;
    }
    let ends = is_head || body.is_end_stream();
    if let Some(length) = body.size_hint().exact().filter(|_| !ends) {
        head.headers.entry(CONTENT_LENGTH).or_insert_with(|| HeaderValue::from(length));
    }
    if let Ok(send) = reply(&mut respond, head, ends)
        && !ends
    {
        match body::send(body, send, limits.write_timeout).await {
            Ok(()) | Err(SendError::Lost) => {}
            // The event of the request says so.
            Err(SendError::Body(_)) => {}
            Err(SendError::Stalled(limit)) => {
                tracing::debug!(?limit, "the client took nothing of a response (limits.write_timeout)");
            }
        }
    }
}

fn reply(
    respond: &mut SendResponse<Bytes>,
    mut head: http::response::Parts,
    ends: bool,
) -> Result<SendStream<Bytes>, h2::Error> {
    if !head.headers.contains_key(DATE)
        && let Some(date) = date(SystemTime::now())
    {
        head.headers.insert(DATE, date);
    }
    respond.send_response(Response::from_parts(head, ()), ends).inspect_err(|error| {
        tracing::debug!(%error, "a response could not be sent");
        respond.send_reset(Reason::INTERNAL_ERROR);
    })
}

/// Whoever has a clock says when, where an upstream did not (RFC 9110 section 6.6.1); hyper does it over HTTP/1.1.
///
/// `None` where the clock is not set: the format knows the years 1970 to 9999.
fn date(now: SystemTime) -> Option<HeaderValue> {
    const END: Duration = Duration::from_secs(253_402_300_800);
    now.duration_since(UNIX_EPOCH).ok().filter(|since| *since < END)?;
    HeaderValue::try_from(httpdate::fmt_http_date(now)).ok()
}

fn random() -> Option<[u8; 16]> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).is_ok().then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_told_by_a_clock_that_is_set() {
        let at = |secs| date(UNIX_EPOCH + Duration::from_secs(secs));
        assert_eq!(at(784_111_777).unwrap(), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(at(253_402_300_799).unwrap(), "Fri, 31 Dec 9999 23:59:59 GMT");
        assert_eq!(at(253_402_300_800), None);
        assert_eq!(date(UNIX_EPOCH - Duration::from_secs(1)), None);
    }
}
