//! The kinds of hostile traffic: a config for the gate, what each connection begins with, and what follows.

use std::fmt::Write;

use super::{
    attack,
    http2::{
        self, CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PING, RST_STREAM, SETTINGS, WINDOW_UPDATE, frame,
        stream,
    },
    upstream::Manner,
};
use crate::compare::place::Place;

/// Bytes of a request to an upstream that sends interim responses at the same rate. The gate gives up on each exchange
/// after about as many.
const INTERIM: usize = 1100;

/// How the attacker comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Door {
    Clear,
    /// A TLS port, to which it writes bytes of its own.
    RawTls,
    /// HTTP/2 over TLS.
    Http2,
}

/// One kind of traffic.
pub(super) struct Kind {
    pub(super) name: &'static str,
    pub(super) door: Door,
    pub(super) upstream: Manner,
    /// Further keys of the listener, and further tables.
    listener: &'static str,
    rest: &'static str,
    pub(super) opening: Box<dyn Fn() -> Vec<u8>>,
    pub(super) piece: Box<dyn Fn(u32) -> Vec<u8>>,
    /// After so many pieces the attacker hangs up.
    pub(super) pieces: Option<u32>,
}

impl Kind {
    fn new(name: &'static str, door: Door, piece: impl Fn(u32) -> Vec<u8> + 'static) -> Self {
        let opening = if door == Door::Http2 { http2::opening } else { Vec::new };
        Self {
            name,
            door,
            upstream: Manner::Answers,
            listener: "",
            rest: "",
            opening: Box::new(opening),
            piece: Box::new(piece),
            pieces: None,
        }
    }

    /// Two hundred routes: a search through all of them for each reading of a path would show.
    pub(super) fn config(&self, place: &Place, port: u16, upstream: u16) -> String {
        let Self { listener, rest, .. } = self;
        let tls = match self.door {
            Door::Clear => String::new(),
            Door::RawTls | Door::Http2 => format!(
                "tls = {{ certificate = \"{}\", key = \"{}\" }}",
                place.file("certificate.pem").display(),
                place.file("key.pem").display()
            ),
        };
        let mut text = format!(
            "workers = 1\n{rest}\n[[listener]]\nlisten = \"127.0.0.1:{port}\"\n{tls}\n{listener}\n\
             [[route]]\nname = \"all\"\nupstream = \"u\"\n[upstream.u]\nurl = \"http://127.0.0.1:{upstream}\"\n"
        );
        for number in 0..200 {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "[[route]]\nname = \"r{number}\"\npath = \"/r{number}/a/b\"\nupstream = \"u\"");
        }
        text
    }
}

fn get(path: &str, fields: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n").into_bytes()
}

fn opening_handshake(fields: &str) -> Vec<u8> {
    get(
        "/",
        &format!(
            "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{fields}"
        ),
    )
}

/// Distinct short words with commas between them, in at most `room` bytes.
fn words(room: usize) -> String {
    let mut text = String::new();
    for number in 0.. {
        let word = format!("{number:x},");
        if text.len() + word.len() > room {
            break;
        }
        text += &word;
    }
    text.trim_end_matches(',').to_owned()
}

/// Every kind.
pub(super) fn all() -> Vec<Kind> {
    use Door::{Clear, Http2, RawTls};
    let list = words(15 * 1024);
    let (subprotocols, tokens, elements) = (list.clone(), list.clone(), list);
    let small = words(4000);
    let hello = attack::client_hello("aaa.a.a.a").unwrap_or_default();
    let by_address = replace(&hello, b"aaa.a.a.a", b"127.0.0.1");
    let mut kinds = vec![
        // Not hostile: what requests cost that are small and many.
        Kind::new("for comparison: plain requests", Clear, |number| get(&format!("/r{}", number % 200), "")),
        Kind::new("for comparison: plain requests, HTTP/2", Http2, |number| {
            frame(HEADERS, END_HEADERS | END_STREAM, stream(number), &http2::get())
        }),
        Kind::new("paths with many readings", Clear, |number| {
            get(&format!("/r{}/a;%2fb/%252f;x%5c/%25252fc;//d%3b%2f{number}", number % 200), "")
        }),
        Kind::new("long paths with many readings", Clear, |_| get(&"/a;b%2fc%5cd%253be".repeat(400), "")),
        Kind::new("look-alike fields", Clear, |_| {
            let fields: String = (0..90).map(|at| format!("X!Forwarded.For{at}: 1\r\n")).collect();
            get("/", &fields)
        }),
        Kind::new("distinct subprotocols", Clear, move |_| {
            opening_handshake(&format!("Sec-WebSocket-Protocol: {subprotocols}\r\n"))
        }),
        Kind::new("distinct subprotocols, HTTP/2 table", Http2, move |number| {
            frame(HEADERS, END_HEADERS | END_STREAM, stream(number), &http2::handshake(number, &small))
        }),
        Kind::new("extension parameters", Clear, |_| {
            let parameters: String = (0..1500).map(|at| format!(";p{at}=1")).collect();
            opening_handshake(&format!("Sec-WebSocket-Extensions: x{parameters}\r\n"))
        }),
        Kind::new("Connection tokens", Clear, move |_| get("/", &format!("Connection: {tokens}\r\n"))),
        Kind {
            rest: "trusted_proxies = [\"127.0.0.1\"]",
            ..Kind::new("forwarded elements", Clear, move |_| get("/", &format!("X-Forwarded-For: {elements}\r\n")))
        },
        Kind {
            listener: "proxy_protocol = { from = [\"127.0.0.1\"] }",
            pieces: Some(1),
            ..Kind::new("malformed PROXY headers", Clear, |_| {
                format!("PROXY TCP4 {}\r\n", "\u{202e}1.1.1.1\r".repeat(8)).into_bytes()
            })
        },
        Kind {
            upstream: Manner::Silent,
            pieces: Some(2),
            ..Kind::new("early bytes, then a reset", Clear, |number| match number {
                0 => opening_handshake(""),
                _ => vec![0; 80 * 1024],
            })
        },
        Kind {
            upstream: Manner::EndlessInterim,
            ..Kind::new("endless interim responses", Clear, |_| get("/", &format!("X: {}\r\n", "x".repeat(INTERIM))))
        },
        Kind { pieces: Some(1), ..Kind::new("an IP address as SNI", RawTls, move |_| by_address.clone()) },
        Kind {
            upstream: Manner::Silent,
            ..Kind::new("slow requests, HTTP/2", Http2, |number| {
                frame(HEADERS, END_HEADERS | END_STREAM, stream(number), &http2::get())
            })
        },
        Kind::new("a stream's window overrun", Http2, |number| match number {
            0 => frame(HEADERS, END_HEADERS, 1, &http2::get()),
            _ => frame(DATA, 0, 1, &[0; 8192]),
        }),
        Kind::new("a header block without end", Http2, |number| match number {
            0 => frame(HEADERS, 0, 1, &http2::get()),
            _ => frame(CONTINUATION, 0, 1, &[0, 1, b'a', 1, b'b']),
        }),
        Kind::new("window updates of one byte", Http2, |_| frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])),
        Kind::new("pings", Http2, |_| frame(PING, 0, 0, b"12345678")),
        Kind::new("settings", Http2, |_| frame(SETTINGS, 0, 0, &[])),
        Kind::new("rapid reset", Http2, |number| {
            let open = frame(HEADERS, END_HEADERS | END_STREAM, stream(number), &http2::get());
            [open, frame(RST_STREAM, 0, stream(number), &[0, 0, 0, 8])].concat()
        }),
        Kind::new("empty data", Http2, |number| match number {
            0 => frame(HEADERS, END_HEADERS, 1, &http2::get()),
            _ => frame(DATA, 0, 1, &[]),
        }),
    ];
    kinds.push(Kind { pieces: Some(1), ..Kind::new("a TLS handshake left half way", RawTls, move |_| hello.clone()) });
    kinds
}

/// `bytes` with every `old` replaced by a `new` of the same length.
fn replace(bytes: &[u8], old: &[u8], new: &[u8]) -> Vec<u8> {
    let mut replaced = bytes.to_vec();
    let found: Vec<usize> =
        bytes.windows(old.len()).enumerate().filter(|(_, it)| *it == old).map(|(at, _)| at).collect();
    for at in found {
        if let Some(room) = replaced.get_mut(at..at + new.len()) {
            room.copy_from_slice(new);
        }
    }
    replaced
}
