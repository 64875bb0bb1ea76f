//! What the checks of an opening handshake cost: the client's side, and the upstream's answer to it.
#![allow(clippy::expect_used, reason = "a benchmark of what does not work should stop")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Version, header::HeaderName};
use switchgate::protocol::websocket::{OpeningHandshake, Waivers, key::accept_value};

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// What a browser sends.
fn browser() -> HeaderMap {
    let fields = [
        ("host", "chat.example.com"),
        ("connection", "Upgrade"),
        ("pragma", "no-cache"),
        ("cache-control", "no-cache"),
        ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0"),
        ("upgrade", "websocket"),
        ("origin", "https://app.example.com"),
        ("sec-websocket-version", "13"),
        ("accept-encoding", "gzip, deflate, br, zstd"),
        ("accept-language", "en-GB,en;q=0.9"),
        ("cookie", "session=0123456789abcdef0123456789abcdef"),
        ("sec-websocket-key", KEY),
        ("sec-websocket-extensions", "permessage-deflate; client_max_window_bits"),
        ("sec-websocket-protocol", "graphql-transport-ws, graphql-ws"),
    ];
    fields.into_iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
}

fn check(headers: &HeaderMap) -> OpeningHandshake {
    OpeningHandshake::check(&Method::GET, Version::HTTP_11, headers, false, Waivers::default()).expect("it is right")
}

fn handshake(criterion: &mut Criterion) {
    let headers = browser();
    criterion.bench_function("handshake: check the client's side", |bencher| {
        bencher.iter(|| check(black_box(&headers)));
    });

    let asked = check(&headers);
    let (answer, ()) = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header("upgrade", "websocket")
        .header("connection", "Upgrade")
        .header("sec-websocket-accept", accept_value(KEY))
        .header("sec-websocket-protocol", "graphql-ws")
        .body(())
        .expect("a response")
        .into_parts();
    criterion.bench_function("handshake: verify the upstream's 101", |bencher| {
        bencher.iter(|| black_box(&asked).verify(black_box(&answer)).expect("it is right"));
    });
}

criterion_group!(benches, handshake);
criterion_main!(benches);
