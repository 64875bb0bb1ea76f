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
use tokio::{io::ReadBuf, net::TcpStream};

use super::{ClientStream, Engine, ServerStream, TlsStream, invalid};

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
