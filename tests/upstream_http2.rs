//! Upstreams over HTTP/2 (`protocol = "h2"`): shared connections, and WebSockets where they are offered (RFC 8441).

mod sharing;

use std::time::Duration;

use h2::{Reason, ext::Protocol};
use http::Method;
use serde_json::Value;

use crate::support::{
    Client, Proxy,
    authority::{self, Authority, serve, showing},
    doors::{Door, Gate},
    frames::{BINARY, MASK, close, frame},
    handshake,
    http2_upstream::{Http2Upstream, accept_websocket, answer},
    process::Process,
    within,
};

const GET: &str = "GET /x HTTP/1.1\r\nHost: gate.test\r\n\r\n";

async fn before(upstream: &Http2Upstream, keys: &str) -> Proxy {
    // One thread: each has connections of its own.
    Proxy::start(&format!(
        "workers = 1\n[[listener]]\nlisten = \"127.0.0.1:0\"\n[[route]]\nupstream = \"u\"\n\
         [upstream.u]\nurl = \"http://127.0.0.1:{}\"\nprotocol = \"h2\"\nresponse_timeout = \"500ms\"\n{keys}\n",
        upstream.port
    ))
    .await
}

#[tokio::test]
async fn a_websocket_is_an_extended_connect_and_relays_both_ways() {
    let mut upstream = Http2Upstream::with_websockets().await;
    let proxy = before(&upstream, "").await;
    let mut client = proxy.connect().await;
    client.send(handshake("Sec-WebSocket-Protocol: chat\r\nX-Own: 1\r\n")).await;
    let asked = upstream.accept().await;
    let head = &asked.0;
    assert_eq!((head.method(), head.uri().to_string().as_str()), (&Method::CONNECT, "http://gate.test/chat"));
    assert_eq!(head.extensions().get::<Protocol>().unwrap().as_str(), "websocket");
    for (name, value) in [("x-own", "1"), ("sec-websocket-protocol", "chat"), ("x-forwarded-host", "gate.test")] {
        assert_eq!(head.headers()[name], value);
    }
    for name in ["sec-websocket-key", "connection", "upgrade", "host"] {
        assert!(!head.headers().contains_key(name), "{name}");
    }
    let mut peer = accept_websocket(asked);
    let opened = client.answer().await;
    assert_eq!(opened.status, 101);
    assert!(opened.has(&format!("Sec-WebSocket-Accept: {}", crate::support::ACCEPT)), "{}", opened.head);
    client.send(frame(BINARY, b"there", MASK)).await;
    assert_eq!(peer.frame().await.unwrap().payload, b"there");
    peer.send(frame(BINARY, &vec![7; 200_000], None)).await;
    assert_eq!(client.frame().await.unwrap().payload.len(), 200_000);
    client.send(close(1000, MASK)).await;
    assert_eq!(peer.expect_close().await, 1000);
    peer.send(close(1000, None)).await;
    assert_eq!(client.expect_close().await, 1000);
}

#[tokio::test]
async fn what_it_selects_unasked_or_refuses_is_no_websocket() {
    let mut upstream = Http2Upstream::with_websockets().await;
    let proxy = before(&upstream, "").await;
    let mut client = proxy.connect().await;
    client.send(handshake("")).await;
    let (_request, mut respond) = upstream.accept().await;
    let unasked = http::Response::builder().header("sec-websocket-protocol", "unasked").body(()).unwrap();
    let _stream = respond.send_response(unasked, false).unwrap();
    assert_eq!(client.answer().await.status, 502);
    let mut client = proxy.connect().await;
    client.send(handshake("")).await;
    let (_request, mut respond) = upstream.accept().await;
    answer(&mut respond, 403, "no");
    assert!(client.head().await.starts_with("HTTP/1.1 403 "));
    client.take("2\r\nno\r\n".len()).await;
}

#[tokio::test]
async fn what_it_does_not_offer_is_not_asked_for() {
    let upstream = Http2Upstream::start(|_| {}).await;
    let mut process = Process::start(&format!(
        "[[listener]]\nlisten = \"127.0.0.1:0\"\n[[route]]\nupstream = \"u\"\n\
         [upstream.u]\nurl = \"http://127.0.0.1:{}\"\nprotocol = \"h2\"\n",
        upstream.port
    ))
    .await;
    assert_eq!(process.connect().await.ask(handshake("")).await.status, 502);
    let failed = process.event("upstream failed").await;
    assert_eq!(failed["rule"], Value::from("upstream-no-websocket"));
}

#[tokio::test]
async fn many_share_a_connection_and_one_more_is_opened_beyond_its_limit() {
    let mut upstream = Http2Upstream::start(|settings| {
        settings.enable_connect_protocol().max_concurrent_streams(3);
    })
    .await;
    let proxy = before(&upstream, "").await;
    let mut pairs = Vec::new();
    for number in 1..=7_usize {
        let mut client = proxy.connect().await;
        client.send(handshake("")).await;
        let peer = accept_websocket(upstream.accept().await);
        assert_eq!(client.answer().await.status, 101);
        pairs.push((client, peer));
        assert_eq!(upstream.connections(), number.div_ceil(3), "for {number}");
    }
    for (client, peer) in &mut pairs {
        client.send(frame(BINARY, b"mine", MASK)).await;
        assert_eq!(peer.frame().await.unwrap().payload, b"mine");
    }
}

#[tokio::test]
async fn plain_requests_go_with_bodies_and_trailers() {
    let mut upstream = Http2Upstream::start(|_| {}).await;
    let proxy = before(&upstream, "").await;
    let mut client = proxy.connect().await;
    client.send("POST /form HTTP/1.1\r\nHost: gate.test\r\nTE: trailers\r\nConnection: TE\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n").await;
    let (request, mut respond) = upstream.accept().await;
    assert_eq!((request.method(), request.uri().path()), (&Method::POST, "/form"));
    assert_eq!(request.headers()["te"], "trailers");
    let mut body = request.into_body();
    assert_eq!(within("data", body.data()).await.unwrap().unwrap(), "abc");
    client.send("0\r\nX-Sum: 1\r\n\r\n").await;
    assert!(within("end", body.data()).await.is_none());
    assert_eq!(within("trailers", body.trailers()).await.unwrap().unwrap()["x-sum"], "1");
    answer(&mut respond, 201, "made");
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 201 "), "{head}");
    client.take("4\r\nmade\r\n0\r\n\r\n".len()).await;
    // The same connection to the client, and upstream.
    client.send(GET).await;
    let (_request, mut respond) = upstream.accept().await;
    let empty = http::Response::builder().status(204).body(()).unwrap();
    respond.send_response(empty, true).unwrap();
    assert_eq!(client.answer().await.status, 204);
    assert_eq!(upstream.connections(), 1);
}

#[tokio::test]
async fn a_refused_stream_and_a_goaway_lead_to_another_connection() {
    let mut upstream = Http2Upstream::with_websockets().await;
    let proxy = before(&upstream, "").await;
    let mut client = proxy.connect().await;
    client.send(GET).await;
    let (_request, mut respond) = upstream.accept().await;
    respond.send_reset(Reason::REFUSED_STREAM);
    let (_request, mut respond) = upstream.accept().await;
    answer(&mut respond, 200, "second");
    client.head().await;
    assert_eq!(upstream.connections(), 2);
    // What may have been looked at is not said again.
    let mut upload = proxy.connect().await;
    let chunked = "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    upload.send(format!("POST / HTTP/1.1\r\nHost: gate.test\r\n{chunked}")).await;
    let (_request, mut respond) = upstream.accept().await;
    respond.send_reset(Reason::REFUSED_STREAM);
    assert_eq!(upload.answer().await.status, 502);
    // Nor what was refused twice.
    let mut unlucky = proxy.connect().await;
    unlucky.send(GET).await;
    for _ in 0..2 {
        let (_request, mut respond) = upstream.accept().await;
        respond.send_reset(Reason::REFUSED_STREAM);
    }
    assert_eq!(unlucky.answer().await.status, 502);
    let before = upstream.connections();
    let mut socket = proxy.connect().await;
    socket.send(handshake("")).await;
    let mut peer = accept_websocket(upstream.accept().await);
    assert_eq!(socket.answer().await.status, 101);
    upstream.go_away();
    // Until the gate has heard of it, requests may still go the old way; then it is a new one. The WebSocket goes on.
    let moved = async {
        while upstream.connections() == before.max(2) {
            let mut client = proxy.connect().await;
            client.send(GET).await;
            let (_request, mut respond) = upstream.accept().await;
            answer(&mut respond, 200, "");
            client.head().await;
        }
    };
    within("another connection", moved).await;
    socket.send(frame(BINARY, b"on", MASK)).await;
    assert_eq!(peer.frame().await.unwrap().payload, b"on");
}

#[tokio::test]
async fn a_silent_upstream_is_a_504_and_a_client_that_leaves_is_told_on() {
    let mut upstream = Http2Upstream::with_websockets().await;
    let proxy = before(&upstream, "").await;
    for (number, request) in [GET.to_owned(), handshake("")].into_iter().enumerate() {
        let mut client = proxy.connect().await;
        client.send(&request).await;
        let (_request, mut respond) = upstream.accept().await;
        assert_eq!(upstream.connections(), number + 1, "one that fell silent is not asked again");
        assert_eq!(client.answer().await.status, 504, "{request}");
        let reset = within("reset", std::future::poll_fn(|cx| respond.poll_reset(cx))).await.unwrap();
        assert_eq!(reset, Reason::CANCEL);
    }
    let mut client = proxy.connect().await;
    client.send(GET).await;
    let (_request, mut respond) = upstream.accept().await;
    drop(client);
    within("reset", std::future::poll_fn(|cx| respond.poll_reset(cx))).await.unwrap();
}

#[tokio::test]
async fn a_lost_stream_is_a_lost_upstream() {
    let mut upstream = Http2Upstream::with_websockets().await;
    let proxy = before(&upstream, "").await;
    let mut client = proxy.connect().await;
    client.send(handshake("")).await;
    let (request, mut respond) = upstream.accept().await;
    let mut stream = respond.send_response(http::Response::new(()), false).unwrap();
    assert_eq!(client.answer().await.status, 101);
    stream.send_reset(Reason::INTERNAL_ERROR);
    assert_eq!(client.expect_close().await, 1012);
    drop(request);
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    let mut upstream = Http2Upstream::start(|_| {}).await;
    let proxy = before(&upstream, "pool_idle_timeout = \"100ms\"").await;
    for round in 1..=2 {
        let mut client = proxy.connect().await;
        client.send(GET).await;
        let (_request, mut respond) = upstream.accept().await;
        answer(&mut respond, 200, "");
        client.head().await;
        drop(client);
        assert_eq!(upstream.connections(), round);
        tokio::time::sleep(Duration::from_millis(600)).await;
    }
}

#[tokio::test]
async fn what_speaks_no_http2_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let ours = Authority::new("ours");
    ours.write(&folder.path().join("ca.pem"));
    let issued = ours.issue(&["localhost"]);
    let mut speaks_another = showing(&issued);
    speaks_another.alpn_protocols = vec![b"http/1.1".to_vec()];
    // One that says so, and one that does not look.
    for config in [speaks_another, showing(&issued)] {
        let port = serve(config, authority::web).await;
        let mut process = Process::start(&format!(
            "[[listener]]\nlisten = \"127.0.0.1:0\"\n[[route]]\nupstream = \"u\"\n\
             [upstream.u]\nurl = \"https://localhost:{port}\"\nca = \"{}\"\nprotocol = \"h2\"\n",
            folder.path().join("ca.pem").display()
        ))
        .await;
        assert_eq!(process.connect().await.ask(GET).await.status, 502);
        let failed = process.event("upstream failed").await;
        assert_eq!(failed["rule"], Value::from("upstream-no-http2"), "{failed}");
    }
}

#[tokio::test]
async fn two_gates_in_a_row_speak_http2_with_each_other() {
    let inner = Gate::echo("").await;
    let outer = Gate::before(
        &format!(
            "https://localhost:{}\"\nprotocol = \"h2\"\nca = \"{}",
            inner.proxy.addresses[1].port(),
            inner.ca().display()
        ),
        "",
        "",
    )
    .await;
    for door in Door::ALL {
        assert_eq!(outer.ask(door, GET).await.status, 200, "{door:?}");
    }
    let mut over_http1 = Client::new(outer.secure(&[]).await);
    assert_eq!(over_http1.ask(handshake("")).await.status, 101);
    let mut http2 = outer.http2().await;
    let mut over_http2 = http2.websocket().await;
    for size in [0, 125, 65_536] {
        let message = frame(BINARY, &vec![3; size], MASK);
        over_http1.send(&message).await;
        assert_eq!(over_http1.frame().await.unwrap().payload.len(), size);
        over_http2.send(&message).await;
        assert_eq!(over_http2.frame().await.unwrap().payload.len(), size);
    }
}
