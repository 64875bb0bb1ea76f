//! Sockets and TLS: bytes and addresses, no HTTP.

mod certificate_error;
pub mod certificate_names;
pub mod certificates;
pub mod challenges;
pub mod client_certificate;
pub mod crl;
pub mod development;
pub mod dial;
pub mod foreign_host;
pub mod handshakes;
mod hang_up;
pub mod key_log;
pub mod listener;
pub mod open_files;
mod pinned;
pub mod proxy_header;
pub mod proxy_protocol;
pub mod roots;
pub mod server_tls;
pub mod timer;
pub mod tls;
pub mod tls_client;
pub mod tls_failure;
pub mod tls_stream;
pub mod unix_listener;
mod wire;

use std::{fmt::Write, io};

use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream},
    net::{TcpStream, UnixStream},
};

use hang_up::hang_up;
pub use hang_up::{HANG_UP_CHECK, HangUp};
pub use wire::Wire;

/// A byte stream in both directions, whatever carries it.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {
    /// The error the kernel holds for this stream, if it has one, without reading a byte.
    ///
    /// It lets a relay that must not read (the other side is slow) still notice a reset.
    fn take_error(&self) -> Option<io::Error> {
        None
    }

    /// Returns whether the peer has ended its stream or reset the connection, without reading a byte. `None` also where
    /// the transport cannot tell.
    fn hang_up(&self) -> Option<HangUp> {
        None
    }

    /// The socket itself, where what is written goes onto the wire as it is.
    fn as_tcp(&self) -> Option<&TcpStream> {
        None
    }

    /// Gives up a stream whose own direction was shut down: what the peer may still send is not wanted.
    ///
    /// An HTTP/2 stream is reset with NO_ERROR behind its END_STREAM (RFC 9113 §8.1), and reads find the end of the
    /// stream from then on. Elsewhere nothing happens: a socket that is closed before its peer has ended may destroy
    /// what that one has not read yet.
    fn release(&mut self) {}

    /// Ends the stream with a reset, at the latest when it is dropped. What the peer has not taken yet may be lost.
    ///
    /// TCP sends RST, also below TLS, which then has no close_notify; an HTTP/2 stream is reset with CANCEL (RFC 8441 §5).
    /// Unix-domain sockets and pipes have no reset.
    fn reset(&mut self) {}
}

/// Makes the drop of this socket a reset.
fn reset_on_drop(stream: &TcpStream) {
    // It fails on a socket that has failed already: its peer knows.
    let _gone = stream.set_zero_linger();
}

fn pending_error(stream: &TcpStream) -> Option<io::Error> {
    stream.take_error().unwrap_or_else(Some)
}

/// In lower case.
fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        let _never_fails = write!(text, "{byte:02x}");
    }
    text
}

/// The probe's, which tells of certificates and wants no more than an exchange.
impl Io for tokio_rustls::client::TlsStream<TcpStream> {
    fn take_error(&self) -> Option<io::Error> {
        pending_error(self.get_ref().0)
    }

    fn hang_up(&self) -> Option<HangUp> {
        hang_up(self.get_ref().0)
    }

    fn reset(&mut self) {
        reset_on_drop(self.get_ref().0);
    }
}

impl Io for UnixStream {
    fn take_error(&self) -> Option<io::Error> {
        // The method of its own, which has the same name.
        Self::take_error(self).unwrap_or_else(Some)
    }

    fn hang_up(&self) -> Option<HangUp> {
        hang_up(self)
    }
}

impl Io for DuplexStream {}
