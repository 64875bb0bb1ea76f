//! Attacks in frames of HTTP/2, which the gate turns into HTTP/1.1 for its upstream (RFC 9113 §8, §10.3).

use tokio::{io::AsyncWriteExt, net::TcpStream};
use tokio_rustls::client::TlsStream;

use super::driver::{Recorder, Seen};
use crate::support::{Client, doors::Gate, within};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&[a, b, c, kind, flags][..], &stream.to_be_bytes(), payload].concat()
}

/// Fields in literals without an index and without Huffman coding (RFC 7541 §6.2.2): what is written is what is sent.
fn block(fields: &[(&[u8], &[u8])]) -> Vec<u8> {
    let text = |text: &[u8]| [&[u8::try_from(text.len()).unwrap().min(127)][..], text].concat();
    let literal = |(name, value): &(&[u8], &[u8])| {
        assert!(name.len() < 127 && value.len() < 127, "longer lengths have more bytes");
        [&[0][..], &text(name), &text(value)].concat()
    };
    fields.iter().flat_map(literal).collect()
}

type Field = (&'static [u8], &'static [u8]);

const GET: [Field; 4] =
    [(b":method", b"GET"), (b":scheme", b"https"), (b":path", b"/a"), (b":authority", b"gate.test")];
const POST: [Field; 4] =
    [(b":method", b"POST"), (b":scheme", b"https"), (b":path", b"/a"), (b":authority", b"gate.test")];

/// How the gate ends the stream of an attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// With this status.
    Status(u16),
    /// With RST_STREAM.
    Reset,
    /// With its connection.
    GoAway,
}

struct Attack {
    name: &'static str,
    source: &'static str,
    /// On stream 1.
    frames: Vec<u8>,
    end: End,
    seen: Seen,
}

/// A request without a body.
fn request(fields: &[Field]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(fields))
}

/// A request with a body.
fn with_body(fields: &[Field], body: &[u8]) -> Vec<u8> {
    let head = frame(HEADERS, END_HEADERS, 1, &block(&[&POST, fields].concat()));
    [head, frame(DATA, END_STREAM, 1, body)].concat()
}

/// A request with a body and trailers.
fn with_trailers(announced: &'static [u8], trailers: &[Field]) -> Vec<u8> {
    let fields: [Field; 1] = [(b"trailer", announced)];
    let head = frame(HEADERS, END_HEADERS, 1, &block(&[&POST, &fields[..]].concat()));
    let last = frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(trailers));
    [head, frame(DATA, 0, 1, b"hi"), last].concat()
}

/// `GET` with one pseudo-field of another value.
fn pseudo(name: &'static [u8], value: &'static [u8]) -> Vec<u8> {
    request(&GET.map(|field| if field.0 == name { (name, value) } else { field }))
}

/// `GET` without one pseudo-field.
fn without(name: &[u8]) -> Vec<u8> {
    request(&GET.into_iter().filter(|field| field.0 != name).collect::<Vec<_>>())
}

/// `GET` with a further field.
fn plus(name: &'static [u8], value: &'static [u8]) -> Vec<u8> {
    request(&[&GET[..], &[(name, value)]].concat())
}

const HOPS: &str = "X-Forwarded-Proto: https\r\nX-Forwarded-Host: gate.test\r\nX-Forwarded-For: 127.0.0.1\r\n\
    Forwarded: for=127.0.0.1;host=gate.test;proto=https\r\nVia: 2.0 switchgate\r\n";

fn arrived(line: &str, fields: &str, body: &str) -> String {
    format!("{line} HTTP/1.1\r\n{fields}Host: gate.test\r\n{HOPS}\r\n{body}")
}

fn arrived_chunked(line: &str, fields: &str, body: &str) -> String {
    format!("{line} HTTP/1.1\r\n{fields}Host: gate.test\r\n{HOPS}Transfer-Encoding: chunked\r\n\r\n{body}")
}

fn attacks() -> Vec<Attack> {
    let length = "RFC 9113 §8.1.1";
    let value = "RFC 9113 §8.2.1";
    let connection = "RFC 9113 §8.2.2";
    let pseudos = "RFC 9113 §8.3";
    let requests = "RFC 9113 §8.3.1";
    let refused = |name, source, frames| Attack { name, source, frames, end: End::Reset, seen: Seen::Nothing };
    // The library takes these for errors of compression, and ends the connection.
    let cut = |name, source, frames| Attack { name, source, frames, end: End::GoAway, seen: Seen::Nothing };
    let answered =
        |name, source, frames, status| Attack { name, source, frames, end: End::Status(status), seen: Seen::Nothing };
    let served = |name, source, frames, arrives| Attack {
        name,
        source,
        frames,
        end: End::Status(200),
        seen: Seen::Exactly(arrives),
    };
    vec![
        refused(
            "H2.CL: a length longer than the body",
            "CVE-2021-21295",
            with_body(&[(b"content-length", b"5")], b"hi"),
        ),
        refused(
            "H2.CL: a length shorter than the body",
            "CVE-2021-21295",
            with_body(&[(b"content-length", b"1")], b"hi"),
        ),
        refused("H2.CL: a length of nothing before a body", length, with_body(&[(b"content-length", b"0")], b"hi")),
        refused(
            "H2.CL: a length without a body",
            "CVE-2021-21409",
            request(&[&POST[..], &[(b"content-length", b"5")]].concat()),
        ),
        answered("two lengths", length, with_body(&[(b"content-length", b"2"), (b"content-length", b"2")], b"hi"), 400),
        refused(
            "two lengths that differ",
            length,
            with_body(&[(b"content-length", b"2"), (b"content-length", b"0")], b"hi"),
        ),
        refused("a length with a plus", length, with_body(&[(b"content-length", b"+2")], b"hi")),
        refused("a list of lengths", length, with_body(&[(b"content-length", b"2, 2")], b"hi")),
        served(
            "a length with zeros before it",
            "RFC 9110 §8.6",
            with_body(&[(b"content-length", b"002")], b"hi"),
            arrived("POST /a", "Content-Length: 2\r\n", "hi"),
        ),
        answered("a look-alike of the length", "RFC 3875 §4.1.18", with_body(&[(b"content_length", b"0")], b"hi"), 400),
        refused(
            "H2.TE",
            "PortSwigger, HTTP/2: The Sequel is Always Worse (2021)",
            with_body(&[(b"transfer-encoding", b"chunked")], b"0\r\n\r\n"),
        ),
        answered(
            "a look-alike of H2.TE",
            "RFC 3875 §4.1.18",
            with_body(&[(b"transfer.encoding", b"chunked")], b"0\r\n\r\n"),
            400,
        ),
        refused("connection", connection, plus(b"connection", b"close")),
        refused("keep-alive", connection, plus(b"keep-alive", b"5")),
        refused("proxy-connection", connection, plus(b"proxy-connection", b"keep-alive")),
        refused("upgrade", connection, plus(b"upgrade", b"websocket")),
        refused("TE other than trailers", connection, plus(b"te", b"chunked")),
        cut(
            "CRLF in a value",
            "PortSwigger, HTTP/2: The Sequel is Always Worse (2021)",
            plus(b"x", b"a\r\nTransfer-Encoding: chunked"),
        ),
        cut(
            "CRLF and a request in a value",
            "PortSwigger, HTTP/2: The Sequel is Always Worse (2021)",
            plus(b"x", b"a\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: gate.test"),
        ),
        cut("LF in a value", value, plus(b"x", b"a\nb")),
        cut("CR in a value", value, plus(b"x", b"a\rb")),
        cut("NUL in a value", value, plus(b"x", b"a\0b")),
        answered("a space before a value", value, plus(b"x", b" a"), 400),
        answered("a tab after a value", value, plus(b"x", b"a\t"), 400),
        answered("white space for a value", value, plus(b"x", b" "), 400),
        cut("CRLF in a name", value, plus(b"x: a\r\ntransfer-encoding", b"chunked")),
        cut("a colon in a name", value, plus(b"transfer-encoding: chunked\r\nx", b"1")),
        cut("a space in a name", value, plus(b"x y", b"1")),
        cut("capitals in a name", value, plus(b"Transfer-Encoding", b"chunked")),
        cut("an empty name", value, plus(b"", b"1")),
        refused(
            "a pseudo-field after a field",
            pseudos,
            request(&[(&b"x"[..], &b"1"[..])].into_iter().chain(GET).collect::<Vec<_>>()),
        ),
        cut("an unknown pseudo-field", pseudos, plus(b":x", b"1")),
        refused("a pseudo-field of responses", pseudos, plus(b":status", b"200")),
        refused("two paths", requests, plus(b":path", b"/strict")),
        refused("two methods", requests, plus(b":method", b"POST")),
        refused("two authorities", requests, plus(b":authority", b"other.test")),
        refused("no method", requests, without(b":method")),
        refused("no path", requests, without(b":path")),
        refused("no scheme", requests, without(b":scheme")),
        refused("an empty path", requests, pseudo(b":path", b"")),
        refused("a path without a slash", requests, pseudo(b":path", b"a")),
        refused(
            "a request line in the path",
            "CVE-2021-33193",
            pseudo(b":path", b"/a HTTP/1.1\r\nHost: gate.test\r\n\r\nGET /smuggled"),
        ),
        refused("a space in the path", requests, pseudo(b":path", b"/a HTTP/1.1")),
        cut("a request line in the method", "CVE-2021-33193", pseudo(b":method", b"GET /smuggled HTTP/1.1")),
        refused("a path in the authority", requests, pseudo(b":authority", b"gate.test/x")),
        answered("a user in the authority", requests, pseudo(b":authority", b"gate.test@other.test"), 400),
        refused("CRLF in the authority", requests, pseudo(b":authority", b"gate.test\r\nX: y")),
        refused(
            "a URL in the scheme",
            "PortSwigger, HTTP/2: The Sequel is Always Worse (2021)",
            pseudo(b":scheme", b"https://other.test/x?"),
        ),
        answered("another host beside the authority", requests, plus(b"host", b"other.test"), 400),
        answered("a look-alike of the host", "RFC 3875 §4.1.18", plus(b"host_", b"other.test"), 400),
        answered("a backslash in the path", "RFC 3986 §3.3", pseudo(b":path", b"/a\\b"), 400),
        answered("dot segments in the path", "RFC 3986 §5.2.4", pseudo(b":path", b"/a/%2e%2e/b"), 400),
        refused("a protocol without CONNECT", "RFC 8441 §4", plus(b":protocol", b"websocket")),
        served(
            "a forwarded address with dots",
            "RFC 3875 §4.1.18",
            plus(b"x.forwarded.for", b"6.6.6.6"),
            arrived("GET /a", "", ""),
        ),
        served(
            "cookies one by one",
            "RFC 9113 §8.2.3",
            request(&[&GET[..], &[(b"cookie", b"a=b"), (b"cookie", b"c=d")]].concat()),
            arrived("GET /a", "Cookie: a=b; c=d\r\n", ""),
        ),
        served(
            "a request in the body",
            length,
            with_body(&[], b"GET /smuggled HTTP/1.1\r\nHost: gate.test\r\n\r\n"),
            arrived_chunked("POST /a", "", "2B\r\nGET /smuggled HTTP/1.1\r\nHost: gate.test\r\n\r\n\r\n0\r\n\r\n"),
        ),
        served(
            "framing in trailers",
            "RFC 9110 §6.5.1",
            with_trailers(b"content-length, x-sum", &[(b"content-length", b"9"), (b"x-sum", b"1")]),
            arrived_chunked("POST /a", "Trailer: content-length, x-sum\r\n", "2\r\nhi\r\n0\r\nX-Sum: 1\r\n\r\n"),
        ),
        served(
            "a look-alike in trailers",
            "RFC 3875 §4.1.18",
            with_trailers(b"x!real!ip", &[(b"x!real!ip", b"6.6.6.6")]),
            arrived_chunked("POST /a", "Trailer: x!real!ip\r\n", "2\r\nhi\r\n0\r\n\r\n"),
        ),
        served(
            "a pseudo-field in trailers",
            "RFC 9113 §8.1",
            with_trailers(b"x", &[(b":path", b"/strict")]),
            arrived_chunked("POST /a", "Trailer: x\r\n", "2\r\nhi\r\n0\r\n\r\n"),
        ),
        Attack {
            name: "CRLF in a trailer",
            source: value,
            frames: with_trailers(b"x", &[(b"x", b"a\r\n\r\nGET /smuggled HTTP/1.1")]),
            end: End::GoAway,
            seen: Seen::CutShort(arrived_chunked("POST /a", "Trailer: x\r\n", "2\r\nhi\r\n0\r\n\r\n")),
        },
        Attack {
            name: "a frame of another stream within a header block",
            source: "RFC 9113 §4.3",
            frames: [frame(HEADERS, END_STREAM, 1, &block(&GET)), frame(DATA, END_STREAM, 1, b"x")].concat(),
            end: End::GoAway,
            seen: Seen::Nothing,
        },
        Attack {
            name: "a header block that goes on after its end",
            source: "RFC 9113 §6.10",
            frames: [plus(b"x", b"y"), frame(CONTINUATION, END_HEADERS, 1, &block(&[(b"x", b"z")]))].concat(),
            end: End::GoAway,
            seen: Seen::CutShort(arrived("GET /a", "X: y\r\n", "") + "."),
        },
    ]
}

/// The kind, flags, stream and payload of the next frame of the gate; `None` when it has ended.
async fn next(client: &mut Client<TlsStream<TcpStream>>) -> Option<(u8, u8, u32, Vec<u8>)> {
    let head = client.take_or_end(9).await?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
    let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
    Some((head[3], head[4], stream, client.take_or_end(length).await?))
}

/// How the gate ends a stream.
async fn end(client: &mut Client<TlsStream<TcpStream>>, stream: u32) -> End {
    let mut status = None;
    loop {
        let Some((kind, flags, on, payload)) = next(client).await else { return End::GoAway };
        match kind {
            GOAWAY => return End::GoAway,
            RST_STREAM if on == stream => return status.map_or(End::Reset, End::Status),
            // The statuses of the table, and 501 as a literal (RFC 7541 appendix A).
            HEADERS if on == stream => {
                status = Some(match payload[..] {
                    [0x88, ..] => 200,
                    [0x8c, ..] => 400,
                    _ => 0,
                });
            }
            _ => {}
        }
        if let Some(status) = status.filter(|_| on == stream && flags & END_STREAM != 0) {
            return End::Status(status);
        }
    }
}

#[tokio::test]
async fn frames_are_read_in_one_way() {
    let mut faults = Vec::new();
    let attacks = attacks();
    for Attack { name, source, frames, end: expected, seen: expected_seen } in &attacks {
        let recorder = Recorder::start(None).await;
        let gate = Gate::before(&recorder.url, "", "").await;
        let mut client = Client::new(gate.secure(&[b"h2"]).await);
        client.stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        client.stream.write_all(&[frame(SETTINGS, 0, 0, &[]), frames.clone()].concat()).await.unwrap();
        let ended = end(&mut client, 1).await;
        let mut goes_on = String::new();
        if ended != End::GoAway {
            // The connection is as it was: the next request is served as itself.
            let next = GET.map(|(name, value)| if name == b":path" { (name, &b"/next"[..]) } else { (name, value) });
            client.stream.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, 3, &block(&next))).await.unwrap();
            assert_eq!(end(&mut client, 3).await, End::Status(200), "{name}");
            goes_on = arrived("GET /next", "", "");
        }
        drop(client);
        within("stop", gate.proxy.stop()).await.unwrap();
        let seen = recorder.seen().await.unwrap_or_default();
        let right = seen
            .strip_suffix(&goes_on)
            .is_some_and(|seen| expected_seen.is(Some(seen).filter(|seen| !seen.is_empty())));
        if ended != *expected || !right {
            faults.push(format!(
                "{name} ({source}): {ended:?}, not {expected:?}\n  upstream {seen:?}\n  not {expected_seen:?}"
            ));
        }
    }
    assert!(faults.is_empty(), "{} of {}:\n{}", faults.len(), attacks.len(), faults.join("\n\n"));
}
