//! The opening handshake with an upstream (RFC 6455 §4.1), over a connection of its own.
//!
//! A 101 needs neither a task nor a channel: one head goes out, one comes back, and the stream is the relay's. Whatever
//! else is answered may have a body, and hyper reads it (`replay_io.rs`).

use std::{
    future::{Future, poll_fn},
    io,
    mem::MaybeUninit,
    pin::{Pin, pin},
    sync::{Arc, Mutex},
    task::{Context, Poll, ready},
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body_util::BodyExt;
use httparse::{ParserConfig, Status};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWrite};

use super::{
    error::{UpstreamError, failed},
    pool::MAX_BUFFER,
    replay_io::ReplayIo,
};
use crate::{
    drain::Tracker,
    net::Wire,
    protocol::{
        body::{self, Body, BodyError, BoxError},
        interim::{Budget, TooManyInterim},
        log_text::Escaped,
        response_framing,
        websocket::capitals,
    },
};

/// As many fields as hyper takes in a head.
const MAX_FIELDS: usize = 100;

/// Holds nearly every request head, with the fields that are added here.
const USUAL_REQUEST: usize = 2 * 1024;

/// Holds nearly every 101, with a first frame behind it.
const USUAL_ANSWER: usize = 2 * 1024;

/// The upstream's stream beside its 101. Extensions can be cloned; what is in here is taken once.
#[derive(Clone)]
pub(super) struct Switched(Arc<Mutex<Option<(Wire, Bytes)>>>);

impl Switched {
    /// The stream, and what was read of it already.
    pub(super) fn new(wire: Wire, early: Bytes) -> Self {
        Self(Arc::new(Mutex::new(Some((wire, early)))))
    }
}

/// Takes the upstream's stream from its 101, with what it had sent after that.
///
/// There is none in an answer to anything but an upgrade request, or when it was taken before.
pub fn take_stream<B>(response: &mut Response<B>) -> Option<(Wire, Bytes)> {
    let Switched(place) = response.extensions_mut().remove()?;
    place.lock().ok()?.take()
}

/// Sends an upgrade request, which has no body, and waits for the final answer, however long that takes.
///
/// `name` is the upstream's, for the log.
///
/// # Errors
/// `Closed`, `Garbage`, `Framing`.
pub(super) async fn open(
    wire: Wire,
    request: Request<Body>,
    tracker: &Tracker,
    name: &str,
) -> Result<Response<Body>, UpstreamError> {
    let method = request.method().clone();
    let mut opening = Opening::new(wire, request_head(&request));
    drop(request);
    match opening.final_head().await? {
        Some((head, length)) => opening.switch(head, length).await,
        // Boxed: hardly any handshake comes here, and every one would carry its size.
        None => Box::pin(refusal(opening, method, tracker, name)).await,
    }
}

/// One head on its way out, and one on its way in.
pub(super) struct Opening {
    wire: Wire,
    request: Vec<u8>,
    sent: usize,
    heard: BytesMut,
    /// How many bytes may still come before the final head is whole.
    room: usize,
    /// Interim responses are not forwarded here: many WebSocket clients read one head only.
    interim: Budget,
}

impl Opening {
    fn new(wire: Wire, request: Vec<u8>) -> Self {
        Self {
            wire,
            request,
            sent: 0,
            heard: BytesMut::with_capacity(USUAL_ANSWER),
            room: MAX_BUFFER,
            interim: Budget::default(),
        }
    }

    /// Reads up to the final head: a 101 and its length, or nothing where `heard` begins with another final answer.
    async fn final_head(&mut self) -> Result<Option<(Response<Body>, usize)>, UpstreamError> {
        // So much of the present head is known to be no whole one.
        let mut partial = 0;
        loop {
            self.hear().await?;
            loop {
                if drop_empty_lines(&mut self.heard) {
                    partial = 0;
                }
                if !may_be_whole(&self.heard, partial) {
                    break;
                }
                match parse(&self.heard)? {
                    Parsed::Partial => break,
                    Parsed::Interim(length) => {
                        self.interim.take(length)?;
                        self.heard.advance(length);
                        partial = 0;
                    }
                    Parsed::Switch(head, length) => return Ok(Some((head, length))),
                    Parsed::Other => return Ok(None),
                }
            }
            partial = self.heard.len();
        }
    }

    async fn hear(&mut self) -> Result<(), UpstreamError> {
        if self.room == 0 && self.interim.is_used() {
            return Err(TooManyInterim.into());
        }
        if self.room == 0 {
            return Err(garbage("the response head is too large"));
        }
        if self.heard.len() == self.heard.capacity() {
            self.heard.reserve(self.heard.len().clamp(USUAL_ANSWER, MAX_BUFFER));
        }
        match poll_fn(|cx| self.poll_hear(cx)).await {
            Ok(0) => Err(closed(io::ErrorKind::UnexpectedEof.into())),
            Ok(count) => {
                self.room = self.room.saturating_sub(count);
                Ok(())
            }
            Err(error) => Err(closed(error)),
        }
    }

    /// Writes the rest of the request while it waits: a refusal may come before the upstream has read all of it.
    fn poll_hear(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let sent = self.poll_send(cx);
        let mut within = (&mut self.heard).limit(self.room);
        match (pin!(self.wire.read_buf(&mut within)).poll(cx), sent) {
            // Nothing more can be asked, and what was said before that has been read.
            (Poll::Pending, Poll::Ready(Err(error))) => Poll::Ready(Err(error)),
            (heard, _) => heard,
        }
    }

    /// Writes and flushes what is left of the request head.
    pub(super) fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.request.get(self.sent..).filter(|rest| !rest.is_empty()) {
            let count = ready!(Pin::new(&mut self.wire).poll_write(cx, rest))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent = self.sent.saturating_add(count);
        }
        Pin::new(&mut self.wire).poll_flush(cx)
    }

    /// The stream, and what was heard of it.
    pub(super) fn stream(&mut self) -> (&mut Wire, &mut BytesMut) {
        (&mut self.wire, &mut self.heard)
    }

    async fn switch(mut self, mut head: Response<Body>, length: usize) -> Result<Response<Body>, UpstreamError> {
        response_framing::check(head.headers()).map_err(UpstreamError::Framing)?;
        // A 101 that came early must not let a frame into the middle of the request.
        poll_fn(|cx| self.poll_send(cx)).await.map_err(closed)?;
        self.heard.advance(length);
        // Without early bytes nothing keeps the buffer.
        let early = if self.heard.is_empty() { Bytes::new() } else { self.heard.freeze() };
        head.extensions_mut().insert(Switched::new(self.wire, early));
        Ok(head)
    }
}

/// Lets hyper read an answer that may have a body; the request it writes for that goes nowhere, ours went already.
async fn refusal(
    opening: Opening,
    method: Method,
    tracker: &Tracker,
    name: &str,
) -> Result<Response<Body>, UpstreamError> {
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_BUFFER)
        .handshake::<_, Body>(TokioIo::new(ReplayIo::new(opening)))
        .await
        .map_err(failed)?;
    let name = name.to_owned();
    tracker.background(async move {
        if let Err(error) = connection.await {
            tracing::debug!(upstream = %name, error = %Escaped(error), "upstream connection ended early");
        }
    });
    // Where a body ends depends on the method (RFC 9112 §6.3) and on nothing else of the request.
    let mut request = Request::new(body::empty());
    *request.method_mut() = method;
    let response = sender.send_request(request).await.map_err(failed)?;
    response_framing::check(response.headers()).map_err(UpstreamError::Framing)?;
    Ok(response.map(|body| body.map_err(BodyError::new).boxed_unsync()))
}

fn closed(error: io::Error) -> UpstreamError {
    UpstreamError::Closed(error.into())
}

fn garbage(error: impl Into<BoxError>) -> UpstreamError {
    UpstreamError::Garbage(error.into())
}

/// The request as it goes onto the wire, in the origin form (RFC 9112 §3.2.1).
fn request_head(request: &Request<Body>) -> Vec<u8> {
    let uri = request.uri();
    let mut head = Vec::with_capacity(USUAL_REQUEST);
    head.extend_from_slice(request.method().as_str().as_bytes());
    head.push(b' ');
    // An absolute URI of a query alone has the path "/" (RFC 9110 §4.2.3).
    head.extend_from_slice(uri.path().as_bytes());
    if let Some(query) = uri.query() {
        head.push(b'?');
        head.extend_from_slice(query.as_bytes());
    }
    head.extend_from_slice(b" HTTP/1.1\r\n");
    for (name, value) in request.headers() {
        capitals::write(&mut head, name.as_str());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    head
}

/// What stands at the beginning of an upstream's bytes.
enum Parsed {
    Partial,
    /// An interim response (RFC 9110 §15.2) of this length.
    Interim(usize),
    /// A 101, and its length.
    Switch(Response<Body>, usize),
    /// Any other final answer.
    Other,
}

fn parse(heard: &[u8]) -> Result<Parsed, UpstreamError> {
    let mut fields = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut head = httparse::Response::new(&mut []);
    let status = ParserConfig::default().parse_response_with_uninit_headers(&mut head, heard, &mut fields);
    let Status::Complete(length) = status.map_err(garbage)? else { return Ok(Parsed::Partial) };
    match head.code {
        Some(101) => {}
        Some(100..=199) => return Ok(Parsed::Interim(length)),
        _ => return Ok(Parsed::Other),
    }
    let mut headers = HeaderMap::with_capacity(head.headers.len());
    for field in head.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(garbage)?;
        headers.append(name, HeaderValue::from_bytes(field.value).map_err(garbage)?);
    }
    let mut response = Response::new(body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    // Whether HTTP/1.0 may switch is for those to say who verify the answer.
    *response.version_mut() = if head.version == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 };
    *response.headers_mut() = headers;
    Ok(Parsed::Switch(response, length))
}

/// Drops what the parser would skip each time it begins; `true` if there was any.
fn drop_empty_lines(heard: &mut BytesMut) -> bool {
    let whole = heard.len();
    loop {
        match heard.as_ref() {
            [b'\r', b'\n', ..] => heard.advance(2),
            [b'\n', ..] => heard.advance(1),
            _ => return heard.len() < whole,
        }
    }
}

/// Whether parsing can find more than it did when only `partial` bytes were there.
///
/// Garbage shows in the first bytes; after those a head is parsed again when it may have ended, so that one that comes
/// byte by byte costs no more than a few looks at each.
fn may_be_whole(heard: &[u8], partial: usize) -> bool {
    if partial == 0 {
        return !heard.is_empty();
    }
    let news = heard.get(partial.saturating_sub(2)..).unwrap_or_default();
    news.windows(2).any(|end| end == b"\n\n") || news.windows(3).any(|end| end == b"\n\r\n")
}

#[cfg(test)]
#[path = "opening_tests.rs"]
mod tests;
