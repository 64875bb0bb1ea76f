//! Sends the bytes of one attack and records what the upstream gets.

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};

use crate::support::{Client, within};

/// What the upstream gets of an attack.
#[derive(Clone, Debug)]
pub(super) enum Seen {
    /// It is not even dialled.
    Nothing,
    /// These bytes and no others, over all its connections.
    Exactly(String),
    /// A beginning of these bytes, which is no whole message: the body broke off.
    CutShort(String),
}

impl Seen {
    /// Whether the upstream has seen this; `None` when it was not dialled.
    pub(super) fn is(&self, seen: Option<&str>) -> bool {
        match (self, seen) {
            (Self::Nothing | Self::CutShort(_), None) => true,
            (Self::Exactly(expected), Some(seen)) => joined(seen) == joined(expected),
            (Self::CutShort(expected), Some(seen)) => {
                let (expected, seen) = (joined(expected), joined(seen));
                expected.starts_with(&seen) && seen != expected
            }
            (Self::Nothing, Some(_)) | (Self::Exactly(_), None) => false,
        }
    }
}

/// Messages without the sizes of their chunks: how a body is cut into chunks depends on how it arrives. Everything else
/// stays byte for byte.
fn joined(mut text: &str) -> String {
    let mut out = String::new();
    while let Some((head, rest)) = text.split_once("\r\n\r\n") {
        out.extend([head, "\r\n\r\n"]);
        text = rest;
        if !head.contains("Transfer-Encoding: chunked") {
            // What belongs to a body of this length is taken along with the next head.
            continue;
        }
        while let Some((size, rest)) = text.split_once("\r\n") {
            let size = usize::from_str_radix(size, 16).unwrap();
            text = rest;
            if size == 0 {
                out.push_str("(last chunk)");
                break;
            }
            out.push_str(&text[..size.min(text.len())]);
            text = text.get(size..).and_then(|rest| rest.strip_prefix("\r\n")).unwrap_or_default();
        }
    }
    out + text
}

/// How the bytes arrive.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pace {
    Whole,
    /// Each byte in a segment of its own.
    Bytes,
}

impl Pace {
    pub(super) const ALL: [Self; 2] = [Self::Whole, Self::Bytes];

    pub(super) async fn send(self, stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) {
        let pieces = match self {
            Self::Whole => bytes.len().max(1),
            Self::Bytes => 1,
        };
        for piece in bytes.chunks(pieces) {
            // The gate may have hung up by now, and is right to.
            if stream.write_all(piece).await.is_err() || stream.flush().await.is_err() {
                return;
            }
            tokio::task::yield_now().await;
        }
    }
}

/// An upstream that writes down all it gets. It answers each whole message with 200, the first one with `answer` if there
/// is one.
pub(super) struct Recorder {
    pub(super) url: String,
    record: watch::Sender<Record>,
}

/// Counts of connections and messages, and the bytes of all connections in the order in which they came.
#[derive(Debug, Default)]
struct Record {
    begun: usize,
    ended: usize,
    messages: usize,
    bytes: Vec<u8>,
}

pub(super) const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

impl Recorder {
    pub(super) async fn start(answer: Option<Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (record, _) = watch::channel(Record::default());
        let recorded = record.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                recorded.send_modify(|record| record.begun += 1);
                let (recorded, answer) = (recorded.clone(), answer.clone());
                tokio::spawn(async move {
                    serve(stream, &recorded, answer).await;
                    recorded.send_modify(|record| record.ended += 1);
                });
            }
        });
        Self { url, record }
    }

    /// Everything it got; `None` when it was not dialled. The gate has stopped by now.
    pub(super) async fn seen(self) -> Option<String> {
        // Connections are accepted in order: when this one has ended, so have all others.
        let address = self.url.trim_start_matches("http://");
        let before = self.record.borrow().begun;
        drop(TcpStream::connect(address).await.unwrap());
        let mut record = self.record.subscribe();
        let ended = record.wait_for(|record| record.begun > before && record.ended == record.begun);
        let record = within("end of the connections upstream", ended).await.unwrap();
        (record.begun > 1).then(|| String::from_utf8_lossy(&record.bytes).into_owned())
    }
}

/// What the first message is answered with.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) bytes: Vec<u8>,
    pub(super) pace: Pace,
    /// Whether the connection ends after it.
    pub(super) ends: bool,
}

async fn serve(mut stream: TcpStream, record: &watch::Sender<Record>, answer: Option<Answer>) {
    let mut unread = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        while let Some(length) = message(&unread) {
            unread.drain(..length);
            record.send_modify(|record| record.messages += 1);
            let number = record.borrow().messages;
            match answer.as_ref().filter(|_| number == 1) {
                Some(Answer { bytes, pace, ends }) => {
                    pace.send(&mut stream, bytes).await;
                    if *ends {
                        return;
                    }
                }
                None => Pace::Whole.send(&mut stream, OK).await,
            }
        }
        let Ok(count @ 1..) = stream.read(&mut chunk).await else { return };
        record.send_modify(|record| record.bytes.extend(&chunk[..count]));
        unread.extend(&chunk[..count]);
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

/// The length of the first whole message. What the gate writes is plain enough for this.
fn message(bytes: &[u8]) -> Option<usize> {
    let head = find(bytes, b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&bytes[..head]).to_lowercase();
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    if field("transfer-encoding:").is_some() {
        let body = &bytes[head..];
        let last = if body.starts_with(b"0\r\n") { Some(0) } else { find(body, b"\r\n0\r\n").map(|at| at + 2) }?;
        let end = find(&body[last..], b"\r\n\r\n")?;
        return Some(head + last + end + 4);
    }
    let length = field("content-length:").map_or(0, |length| length.parse().unwrap());
    (bytes.len() >= head + length).then_some(head + length)
}

/// A request that must never be served as anything but itself, and that ends the connection.
pub(super) const NEXT: &str = "GET /next HTTP/1.1\r\nHost: gate.test\r\nConnection: close\r\n\r\n";

/// What the upstream gets of the client of HTTP/1.1, after its own fields.
pub(super) const HOPS: &str = "X-Forwarded-Proto: http\r\nX-Forwarded-Host: gate.test\r\nX-Forwarded-For: 127.0.0.1\r\n\
    Forwarded: for=127.0.0.1;host=gate.test;proto=http\r\nVia: 1.1 switchgate\r\n";

/// A message as the upstream gets it.
pub(super) fn arrived(line: &str, fields: &str, body: &str) -> String {
    format!("{line}\r\nHost: gate.test\r\n{fields}{HOPS}\r\n{body}")
}

/// One with a chunked body.
pub(super) fn arrived_chunked(line: &str, fields: &str, body: &str) -> String {
    format!("{line}\r\nHost: gate.test\r\n{fields}{HOPS}Transfer-Encoding: chunked\r\n\r\n{body}")
}

pub(super) fn arrived_next() -> String {
    arrived("GET /next HTTP/1.1", "", "")
}

/// Sends bytes and [`NEXT`]; the statuses of all responses, and everything that came.
pub(super) async fn exchange(
    client: &mut Client<impl AsyncRead + AsyncWrite + Unpin>,
    sent: &[u8],
    pace: Pace,
) -> (Vec<u16>, String) {
    let all = [sent, NEXT.as_bytes()].concat();
    within("end of sending", pace.send(&mut client.stream, &all)).await;
    let text = String::from_utf8_lossy(&client.rest().await).into_owned();
    let statuses = text.match_indices("HTTP/1.").filter_map(|(at, _)| text.get(at + 9..at + 12)?.parse().ok());
    (statuses.collect(), text)
}
