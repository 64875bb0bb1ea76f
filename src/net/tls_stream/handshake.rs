//! From a socket to a TLS stream.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use rustls::{
    ClientConfig, ServerConfig, client::UnbufferedClientConnection, pki_types::ServerName,
    server::UnbufferedServerConnection,
};
use thiserror::Error;
use tokio::{io::ReadBuf, net::TcpStream};

use super::{ClientStream, Engine, Reading, ServerStream, TlsStream, Writing, invalid};

/// The peer began with a request in clear.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("the client speaks HTTP in clear to a TLS port")]
pub struct Plaintext;

/// The first bytes of requests in clear.
const REQUESTS: [&[u8]; 10] =
    [b"GET /", b"HEAD ", b"POST ", b"PUT /", b"PATCH", b"DELET", b"OPTIO", b"CONNE", b"TRACE", b"PRI *"];

/// All the HTTP that is known here, for a person who has typed the wrong scheme.
const ANSWER: &[u8] = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: text/plain; charset=utf-8\r\n\
    Cache-Control: no-store\r\nContent-Length: 39\r\n\r\nThis port speaks TLS: say https or wss\n";

/// Whether bytes that are no record begin a request in clear; `None` where more of them have to come first.
pub(super) fn is_plaintext(bytes: &[u8]) -> Option<bool> {
    if REQUESTS.iter().any(|request| bytes.starts_with(request)) {
        return Some(true);
    }
    let may_become_one = !bytes.is_empty() && REQUESTS.iter().any(|request| request.starts_with(bytes));
    if may_become_one { None } else { Some(false) }
}

/// Takes the peer's handshake. What came behind it is not lost: the stream gives it first.
///
/// # Errors
/// What the socket said, `UnexpectedEof`, or `InvalidData` around a [`rustls::Error`], of which the peer was told.
pub async fn accept(config: Arc<ServerConfig>, socket: TcpStream) -> io::Result<Box<ServerStream>> {
    let engine = UnbufferedServerConnection::new(config).map_err(invalid)?;
    Handshake::new(socket, engine)?.await
}

/// Offers the peer a handshake, and expects a certificate for `name`.
///
/// # Errors
/// See [`accept`].
pub async fn connect(
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    socket: TcpStream,
) -> io::Result<Box<ClientStream>> {
    let engine = UnbufferedClientConnection::new(config, name).map_err(invalid)?;
    Handshake::new(socket, engine)?.await
}

/// A stream on its way; boxed, since the tasks that wait here for long would be larger by it.
struct Handshake<E>(Option<Box<TlsStream<E>>>);

impl<E: Engine> Handshake<E> {
    fn new(socket: TcpStream, engine: E) -> io::Result<Self> {
        Ok(Self(Some(Box::new(TlsStream::new(socket, engine)?))))
    }
}

impl<E: Engine> Future for Handshake<E> {
    type Output = io::Result<Box<TlsStream<E>>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(stream) = &mut self.0 else {
            return Poll::Pending;
        };
        ready!(stream.poll_handshake(cx))?;
        self.0.take().map_or(Poll::Pending, |stream| Poll::Ready(Ok(stream)))
    }
}

impl<E: Engine> TlsStream<E> {
    /// Ends the connection and says why, so that somebody who does not speak TLS understands it.
    pub(super) fn fail_in_clear(&mut self) {
        self.reading = Reading::Failed(Some(io::Error::new(io::ErrorKind::InvalidData, Plaintext)));
        self.writing = Writing::Closed;
        self.inbound = Vec::new();
        self.outbound.bytes.extend_from_slice(ANSWER);
        self.offer();
    }

    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let handshaking = self.engine.common().is_handshaking();
            if let Some(end) = handshaking.then(|| self.end()).flatten() {
                // Told first: what the peer did wrong says more than that it does not listen.
                return Poll::Ready(end.and(Err(io::ErrorKind::UnexpectedEof.into())));
            }
            ready!(self.poll_drain(cx))?;
            if !handshaking {
                return Poll::Ready(Ok(()));
            }
            // No reader yet: plaintext behind the handshake waits in the stream.
            ready!(self.poll_open(cx, &mut ReadBuf::new(&mut [])))?;
        }
    }
}
