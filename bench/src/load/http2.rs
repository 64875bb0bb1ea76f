//! Echoes on WebSockets over HTTP/2 (RFC 8441): several share a connection, one message under way on each.
//!
//! The h2 crate is polled from the same loop as everything else. Each event polls all of its connection, so there is
//! nobody to wake.

use std::{
    future::poll_fn,
    io,
    ops::ControlFlow,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use h2::{
    RecvStream, SendStream,
    client::{self, Connection, ResponseFuture},
};
use http::{Request, StatusCode};
use mio::Token;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    exchange::Exchange,
    link::{Dialler, Link, Received},
    round::Round,
};
use crate::{Result, clock};

/// WebSockets on each connection.
pub(crate) const SOCKETS_EACH: usize = 10;

/// A connection, and the WebSockets on it.
pub(super) struct Carrier {
    connection: Connection<Link>,
    sockets: Vec<Socket>,
}

struct Socket {
    send: SendStream<Bytes>,
    receive: RecvStream,
    /// When the message under way began, and how much of its echo has come.
    began: Option<u64>,
    received: usize,
}

/// What has come of an echo.
#[derive(PartialEq, Eq)]
enum Echo {
    Nothing,
    Part,
    Whole { began: u64 },
}

/// Opens `count` WebSockets, [`SOCKETS_EACH`] on a connection.
pub(super) fn open(round: &mut Round, dialler: &Dialler, count: usize) -> Result<Vec<Carrier>> {
    let mut openings = Vec::new();
    for first in (0..count).step_by(SOCKETS_EACH) {
        let link = dialler.dial(round.registry(), Token(openings.len()))?;
        openings.push(Some(Box::pin(open_one(link, SOCKETS_EACH.min(count - first)))));
    }
    let mut opened: Vec<Option<Carrier>> = openings.iter().map(|_| None).collect();
    let mut missing = openings.len();
    if missing > 0 {
        round.drive("opening connections", |at, _, _| {
            if let (Some(place), Some(kept)) = (openings.get_mut(at), opened.get_mut(at))
                && let Some(opening) = place
                && let Poll::Ready(carrier) = opening.as_mut().poll(&mut Context::from_waker(Waker::noop()))
            {
                *kept = Some(carrier?);
                *place = None;
                missing -= 1;
            }
            Ok(if missing == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
    }
    Ok(opened.into_iter().flatten().collect())
}

async fn open_one(link: Link, count: usize) -> Result<Carrier> {
    let (mut requests, mut connection) = client::handshake(link).await?;
    poll_fn(|cx| match advance(&mut connection, cx) {
        Ok(()) if !requests.is_extended_connect_protocol_enabled() => Poll::Pending,
        done => Poll::Ready(done),
    })
    .await?;
    let mut answers = Vec::new();
    let mut sockets = Vec::new();
    for _ in 0..count {
        let (answer, send) = requests.send_request(opening()?, false)?;
        answers.push((answer, Some(send)));
    }
    poll_fn(|cx| {
        advance(&mut connection, cx)?;
        for (answer, send) in &mut answers {
            if send.is_some()
                && let Poll::Ready(receive) = poll_answer(answer, cx)
                && let Some(send) = send.take()
            {
                sockets.push(Socket { send, receive: receive?, began: None, received: 0 });
            }
        }
        if sockets.len() == count { Poll::Ready(Result::Ok(())) } else { Poll::Pending }
    })
    .await?;
    Ok(Carrier { connection, sockets })
}

/// An opening handshake with what a browser sends and a gate checks.
fn opening() -> Result<Request<()>> {
    let mut request = Request::connect("https://localhost/")
        .header("origin", "https://app.example.com")
        .header("user-agent", "bench")
        .header("sec-websocket-version", "13")
        .body(())?;
    request.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
    Ok(request)
}

fn poll_answer(answer: &mut ResponseFuture, cx: &mut Context<'_>) -> Poll<Result<RecvStream>> {
    Pin::new(answer).poll(cx).map(|answered| {
        let (head, receive) = answered?.into_parts();
        match head.status {
            StatusCode::OK => Ok(receive),
            status => Err(format!("an extended CONNECT was answered with {status}").into()),
        }
    })
}

/// Reads and writes all that the connection can.
fn advance(connection: &mut Connection<Link>, cx: &mut Context<'_>) -> Result<()> {
    match Pin::new(connection).poll(cx) {
        Poll::Pending => Ok(()),
        Poll::Ready(Ok(())) => Err("an HTTP/2 connection was closed".into()),
        Poll::Ready(Err(error)) => Err(error.into()),
    }
}

/// Runs exchanges on all WebSockets at once, each as soon as its last echo is back, until so many `messages` were
/// begun; `took` gets the nanoseconds of each.
pub(super) fn run(
    round: &mut Round,
    carriers: &mut [Carrier],
    exchange: &Exchange,
    messages: usize,
    took: &mut Vec<u64>,
) -> Result<()> {
    // What is sent is shared, not copied.
    let request = Bytes::copy_from_slice(&exchange.request);
    let cx = &mut Context::from_waker(Waker::noop());
    let mut to_begin = messages;
    for carrier in &mut *carriers {
        for socket in carrier.sockets.iter_mut().take(to_begin) {
            socket.begin(&request)?;
            to_begin -= 1;
        }
        advance(&mut carrier.connection, cx)?;
    }
    let mut to_finish = messages;
    if to_finish == 0 {
        return Ok(());
    }
    round.drive("echo over HTTP/2", |at, _, _| {
        let Some(Carrier { connection, sockets }) = carriers.get_mut(at) else { return Ok(ControlFlow::Continue(())) };
        loop {
            // Once more after something came: what follows from it, a message or a window that opens, is written here,
            // and what is read with it brings no event.
            advance(connection, cx)?;
            let mut stirred = false;
            for socket in &mut *sockets {
                let echo = socket.poll_echo(cx, &exchange.reply)?;
                stirred |= echo != Echo::Nothing;
                let Echo::Whole { began } = echo else { continue };
                took.push(clock::now().saturating_sub(began));
                to_finish -= 1;
                if to_begin > 0 {
                    to_begin -= 1;
                    socket.begin(&request)?;
                }
            }
            if !stirred {
                break;
            }
        }
        Ok(if to_finish == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })
}

impl Socket {
    fn begin(&mut self, request: &Bytes) -> Result<()> {
        self.began = Some(clock::now());
        self.received = 0;
        Ok(self.send.send_data(request.clone(), false)?)
    }

    /// Takes what has come.
    fn poll_echo(&mut self, cx: &mut Context<'_>, reply: &[u8]) -> Result<Echo> {
        let mut echo = Echo::Nothing;
        while let Poll::Ready(came) = self.receive.poll_data(cx) {
            let bytes = came.ok_or("closed in the middle of an exchange")??;
            self.receive.flow_control().release_capacity(bytes.len())?;
            if self.began.is_none() || reply.get(self.received..self.received + bytes.len()) != Some(&bytes) {
                return Err("what came back is not what was sent".into());
            }
            self.received += bytes.len();
            echo = Echo::Part;
            if self.received == reply.len()
                && let Some(began) = self.began.take()
            {
                return Ok(Echo::Whole { began });
            }
        }
        Ok(echo)
    }
}

// For h2. Nobody is woken: the next event polls again.

impl AsyncRead for Link {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut().receive(buffer.initialize_unfilled()).map_err(io::Error::other)? {
            Received::Bytes(count) => buffer.advance(count),
            Received::Nothing => return Poll::Pending,
            Received::End => {}
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Link {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut().send(bytes).map_err(io::Error::other)? {
            0 => Poll::Pending,
            count => Poll::Ready(Ok(count)),
        }
    }

    /// A frame is written at once, head and all: one TLS record, as browsers make it.
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut bytes = Vec::new();
        for slice in slices {
            bytes.extend_from_slice(slice);
        }
        self.poll_write(cx, &bytes)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut().flush().map_err(io::Error::other)? {
            true => Poll::Ready(Ok(())),
            false => Poll::Pending,
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}
