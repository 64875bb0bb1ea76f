//! One request over HTTP/2 and its answer, or the WebSocket that it becomes.

use std::{
    convert::Infallible,
    future::poll_fn,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Waker},
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
use tokio::{
    sync::{Notify, oneshot},
    time::timeout,
};
use tower::{Service, ServiceExt};

use super::super::{Connection, ConnectionLimits, Malformed, switch::PendingSwitch};
use crate::{
    http2::{
        Http2Stream, Lease,
        body::{self, Inbound, SendError},
    },
    interim::Interims,
    net::Wire,
    protocol::{
        body::{self as bodies, Body},
        http2 as protocol,
        http2::Asked,
        interim::Interim,
        log_text::Escaped,
        request_framing::{FramingError, HeadLimits},
        token_list,
    },
};

/// Time and size limits for reading an unwanted body; the same as over HTTP/1.1.
const LINGER: (Duration, usize) = (Duration::from_secs(2), 1024 * 1024);

/// Serves one stream to the end of its response; a WebSocket is handed to a separate task. `place` is held until the
/// stream has ended.
pub(super) async fn serve<S>(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    place: Lease,
    connection: Arc<Connection>,
    limits: Arc<ConnectionLimits>,
    service: S,
) where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Send,
    S::Future: Send,
{
    // The reset has come with the request: serving it would cost far more than it cost to send (CVE-2023-44487).
    if poll_fn(|cx| Poll::Ready(respond.poll_reset(cx).is_ready())).await {
        return;
    }
    let method = request.method().clone();
    let Some(Understood { mut request, asked, tunnel, wanted, unread }) = understand(request, connection, &limits)
    else {
        return respond.send_reset(Reason::INTERNAL_ERROR);
    };
    let interims = Interims::default();
    request.extensions_mut().insert(interims.clone());
    let answer = pin!(service.oneshot(request));
    let Some(response) = answered(answer, &mut respond, wanted, &interims).await else { return };
    let (mut head, body) = response.into_parts();
    let switched = head.status == StatusCode::SWITCHING_PROTOCOLS;
    protocol::translate_response(&mut head, asked);
    if switched {
        // Everything else in the answer is for hops of HTTP/1.1.
        if let Some(tunnel) = tunnel {
            tunnel.open(&mut respond, head, place);
        }
        return;
    }
    send(&mut respond, head, body, &method, limits.write_timeout).await;
    drop(place);
    if let Some(unread) = unread {
        linger(unread).await;
    }
}

/// Reads the rest of a request body after an early response.
///
/// Otherwise a RST_STREAM follows the response at once. Its code is NO_ERROR (RFC 9113 §8.1), but clients that are
/// still sending, such as curl 7.88, then lose the response.
async fn linger(unread: oneshot::Receiver<RecvStream>) {
    let rest = async {
        // A body that was read to its end is not handed over.
        let Ok(mut stream) = unread.await else { return };
        let mut left = LINGER.1;
        while let Some(Ok(data)) = poll_fn(|cx| stream.poll_data(cx)).await {
            let Some(rest) = left.checked_sub(data.len()) else { return };
            left = rest;
            if stream.flow_control().release_capacity(data.len()).is_err() {
                return;
            }
        }
    };
    let _in_time = timeout(LINGER.0, rest).await;
}

/// A request in the terms of HTTP/1.1.
struct Understood {
    request: Request<Body>,
    asked: Asked,
    /// The stream, where it is no body.
    tunnel: Option<Tunnel>,
    /// Told once the body is asked for, where the client waits for a 100.
    wanted: Option<Arc<Notify>>,
    /// The rest of a request body that is no longer read.
    unread: Option<oneshot::Receiver<RecvStream>>,
}

/// What the client sends after a request without a body, and who waits for it.
struct Tunnel {
    stream: RecvStream,
    switch: oneshot::Sender<Wire>,
}

impl Tunnel {
    /// Answers, and hands the stream over.
    fn open(self, respond: &mut SendResponse<Bytes>, head: http::response::Parts, place: Lease) {
        if let Ok(send) = reply(respond, head, false) {
            // Nobody waits for it when a stop has cut the handshake; then the stream is reset by its end.
            let _cut = self.switch.send(Wire::boxed(Http2Stream::new(send, self.stream).holding(place)));
        }
    }
}

/// `None` on a system without random bytes, which has no keys either.
fn understand(
    request: Request<RecvStream>,
    connection: Arc<Connection>,
    limits: &ConnectionLimits,
) -> Option<Understood> {
    let (mut head, stream) = request.into_parts();
    let protocol = head.extensions.remove::<h2::ext::Protocol>();
    let protocol = protocol.as_ref().map(h2::ext::Protocol::as_str);
    let head_limits = HeadLimits { max_bytes: limits.max_head_size, max_fields: limits.max_header_count };
    let asked = match protocol::translate_request(&mut head, protocol, random()?, head_limits) {
        Ok(asked) => asked,
        Err(error) => {
            head.extensions.insert(Malformed::Framing(error));
            Asked::Response
        }
    };
    head.extensions.insert(connection);
    // A client that waits for a 100 is told once its body is asked for (RFC 9110 section 10.1.1): a refusal spares it.
    let wanted = token_list::contains(&head.headers, &EXPECT, "100-continue").then(Arc::default);
    let (switch, pending) = oneshot::channel();
    let mut unread = None;
    let (body, tunnel) = match asked {
        Asked::Response => {
            let mut body = Inbound::new(&head.headers, stream).within(limits.body_timeout).trailers_within(head_limits);
            if let Some(wanted) = &wanted {
                body = body.telling(wanted);
            }
            let body = if body.is_end_stream() {
                bodies::empty()
            } else {
                let (rest, pending) = oneshot::channel();
                unread = Some(pending);
                body.returning(rest).boxed_unsync()
            };
            (body, None)
        }
        Asked::WebSocket => {
            head.extensions.insert(PendingSwitch::new(pending));
            (bodies::empty(), Some(Tunnel { stream, switch }))
        }
        // It will be refused; what it sends is not looked at.
        Asked::Tunnel => {
            if protocol.is_some() {
                head.extensions.insert(Malformed::Framing(FramingError::UnknownProtocol));
            }
            (bodies::empty(), Some(Tunnel { stream, switch }))
        }
    };
    Some(Understood { request: Request::from_parts(head, body), asked, tunnel, wanted, unread })
}

fn send_interim(respond: &mut SendResponse<Bytes>, interim: Interim) {
    let mut head = Response::new(());
    *head.status_mut() = interim.status;
    *head.headers_mut() = interim.headers;
    // A stream that is gone shows elsewhere.
    let _gone = respond.send_informational(head);
}

/// Waits for the answer; `None` when the request was taken back before.
async fn answered(
    mut answer: Pin<&mut impl Future<Output = Result<Response<Body>, Infallible>>>,
    respond: &mut SendResponse<Bytes>,
    mut wanted: Option<Arc<Notify>>,
    interims: &Interims,
) -> Option<Response<Body>> {
    loop {
        tokio::select! {
            // An interim response has come before the final one.
            biased;
            interim = poll_fn(|cx| interims.poll_next(cx)) => send_interim(respond, interim),
            answered = &mut answer => {
                let Ok(response) = answered;
                // Those that came together with it.
                while let Poll::Ready(interim) = interims.poll_next(&mut Context::from_waker(Waker::noop())) {
                    send_interim(respond, interim);
                }
                return Some(response);
            }
            // Whatever is done for it ends here.
            _gone = poll_fn(|cx| respond.poll_reset(cx)) => return None,
            () = async { if let Some(wanted) = &wanted { wanted.notified().await } }, if wanted.is_some() => {
                wanted = None;
                let mut go_on = Response::new(());
                *go_on.status_mut() = StatusCode::CONTINUE;
                // A stream that is gone shows above.
                let _gone = respond.send_informational(go_on);
            }
        }
    }
}

async fn send(
    respond: &mut SendResponse<Bytes>,
    mut head: http::response::Parts,
    body: Body,
    method: &Method,
    write_timeout: Duration,
) {
    let ends = method == Method::HEAD || body.is_end_stream();
    if let Some(length) = body.size_hint().exact().filter(|_| !ends) {
        head.headers.entry(CONTENT_LENGTH).or_insert_with(|| HeaderValue::from(length));
    }
    let Ok(send) = reply(respond, head, ends) else { return };
    if ends {
        return;
    }
    match body::send(body, send, write_timeout).await {
        Ok(()) | Err(SendError::Lost) => {}
        // The event of the request says so.
        Err(SendError::Body(_)) => {}
        Err(SendError::Stalled(limit)) => {
            tracing::debug!(?limit, "the client took nothing of a response (limits.write_timeout)");
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
        tracing::debug!(error = %Escaped(error), "a response could not be sent");
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
