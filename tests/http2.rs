//! HTTP/2 and the WebSockets in it (RFC 9113, RFC 8441).

use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use switchgate::http2::Http2Stream;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::support::{
    Client, Upstream, accepted,
    doors::{Gate, Http2Client, http2_request},
    frames::{BINARY, MASK, close, frame, reset_on_drop},
    handshake, within,
};

/// A WebSocket over HTTP/2 whose backend the test plays by hand.
struct Played {
    _gate: Gate,
    _http2: Http2Client,
    client: Client<Http2Stream>,
    peer: Client<TcpStream>,
    /// What the backend was asked.
    head: String,
}

async fn played(route: &str, rest: &str) -> Played {
    let mut upstream = Upstream::start().await;
    let gate = Gate::before(&upstream.url, route, rest).await;
    let mut http2 = gate.http2().await;
    let open = http2.websocket();
    let answer = async {
        let mut peer = upstream.accept().await;
        let head = peer.head().await;
        let key = head.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).unwrap();
        let accept = switchgate::protocol::websocket::key::accept_value(key);
        peer.send(accepted("").replace(crate::support::ACCEPT, &accept)).await;
        (peer, head)
    };
    let (client, (peer, head)) = tokio::join!(open, answer);
    Played { _gate: gate, _http2: http2, client, peer, head }
}

#[tokio::test]
async fn websockets_share_a_connection_and_echo_messages_of_all_sizes() {
    let gate = Gate::echo("").await;
    let mut http2 = gate.http2().await;
    let mut first = http2.websocket().await;
    let mut second = http2.websocket().await;
    for size in [0, 1, 125, 126, 65_535, 65_536, 300_000] {
        let payload = vec![7; size];
        for socket in [&mut first, &mut second] {
            let (sent, expected) = (frame(BINARY, &payload, MASK), frame(BINARY, &payload, None));
            let mut got = vec![0; expected.len()];
            let (mut read, mut write) = tokio::io::split(&mut socket.stream);
            let both = async { tokio::try_join!(write.write_all(&sent), read.read_exact(&mut got)) };
            within("echo", both).await.unwrap();
            assert!(got == expected, "{size}");
        }
    }
}

#[tokio::test]
async fn many_small_messages_at_once_are_no_flood() {
    let gate = Gate::echo("").await;
    let mut http2 = gate.http2().await;
    let mut socket = http2.websocket().await;
    // As many as fit into a window, each in a DATA frame of its own.
    let (message, echo) = (frame(BINARY, b"tick", MASK), frame(BINARY, b"tick", None));
    let count = 65_535 / message.len();
    for _ in 0..count {
        socket.stream.write_all(&message).await.unwrap();
    }
    assert_eq!(socket.take(count * echo.len()).await, echo.repeat(count));
}

#[tokio::test]
async fn the_backend_gets_an_opening_handshake_of_http_1_1_with_a_key_of_ours() {
    let Played { head, .. } = played("", "").await;
    for line in [
        "GET /chat HTTP/1.1",
        "Host: gate.test",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "X-Forwarded-Proto: https",
        "Via: 2.0 switchgate",
    ] {
        assert!(head.lines().any(|known| known == line), "no {line:?} in\n{head}");
    }
    let keys: Vec<_> = head.lines().filter_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).collect();
    assert!(keys.len() == 1 && keys[0] != crate::support::KEY, "{head}");
}

#[tokio::test]
async fn a_backend_that_does_not_answer_our_key_is_a_502() {
    let mut upstream = Upstream::start().await;
    let gate = Gate::before(&upstream.url, "", "").await;
    let mut http2 = gate.http2().await;
    let (answer, _) = tokio::join!(http2.ask(http2_request(&handshake(""))), async {
        let mut peer = upstream.accept().await;
        peer.head().await;
        // The answer to the key that is in every example.
        peer.send(accepted("")).await;
        peer
    });
    assert_eq!(answer.status, 502);
    assert_eq!(answer.field("sec-websocket-accept"), None);
}

#[tokio::test]
async fn a_backend_that_does_not_switch_opens_no_websocket() {
    let mut upstream = Upstream::start().await;
    let gate = Gate::before(&upstream.url, "", "").await;
    let mut http2 = gate.http2().await;
    // Whoever knows nothing of WebSockets serves its page; over HTTP/2 that 200 would be the switch (RFC 8441 section 5).
    for (theirs, ours) in [("200 OK", 502), ("204 No Content", 502), ("302 Found", 302), ("404 Not Found", 404)] {
        let (answer, _) = tokio::join!(http2.ask(http2_request(&handshake(""))), async {
            let mut peer = upstream.accept().await;
            peer.head().await;
            peer.send(format!("HTTP/1.1 {theirs}\r\nConnection: close\r\n\r\n")).await;
            peer.stream.shutdown().await.unwrap();
            peer
        });
        assert_eq!(answer.status, ours, "{theirs}");
    }
}

#[tokio::test]
async fn an_end_of_stream_is_a_half_close_both_ways() {
    let Played { mut client, mut peer, .. } = played("frames = \"off\"", "").await;
    client.send("last words").await;
    client.stream.shutdown().await.unwrap();
    assert_eq!(peer.rest().await, b"last words");
    peer.send("still here").await;
    assert_eq!(client.take(10).await, b"still here");
    peer.stream.shutdown().await.unwrap();
    assert!(client.rest().await.is_empty());
}

#[tokio::test]
async fn a_reset_stream_is_a_lost_client_and_nobody_elses_loss() {
    let mut upstream = Upstream::start().await;
    let gate = Gate::before(&upstream.url, "", "").await;
    let mut http2 = gate.http2().await;
    let accept = |head: &str| {
        let key = head.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).unwrap();
        accepted("").replace(crate::support::ACCEPT, &switchgate::protocol::websocket::key::accept_value(key))
    };
    let mut pairs = Vec::new();
    for _ in 0..2 {
        let open = http2.open(http2_request(&handshake("")));
        let (opened, peer) = tokio::join!(open, async {
            let mut peer = upstream.accept().await;
            let head = peer.head().await;
            peer.send(accept(&head)).await;
            peer
        });
        pairs.push((opened, peer));
    }
    let ((other, mut other_send), mut other_peer) = pairs.pop().unwrap();
    let ((_response, mut send), mut peer) = pairs.pop().unwrap();
    // What a browser sends when its page goes away.
    send.send_reset(Reason::CANCEL);
    assert_eq!(peer.expect_close().await, 1001);
    assert!(peer.rest().await.is_empty());
    other_send.send_data(Bytes::from(frame(BINARY, b"on", MASK)), false).unwrap();
    assert_eq!(other_peer.frame().await.unwrap().payload, b"on");
    drop(other);
}

#[tokio::test]
async fn a_lost_backend_is_told_to_the_client() {
    let Played { mut client, peer, .. } = played("", "").await;
    reset_on_drop(&peer.stream);
    drop(peer);
    assert_eq!(client.expect_close().await, 1012);
    client.send(close(1012, MASK)).await;
    assert!(client.rest().await.is_empty());
}

#[tokio::test]
async fn a_slow_side_holds_the_fast_one() {
    let Played { client, mut peer, .. } = played("frames = \"off\"", "").await;
    // Neither reads: what the gate takes is a window each way, and what sockets hold.
    let flood = vec![1; 64 * 1024];
    let mut taken = 0;
    while let Ok(written) = timeout(Duration::from_millis(500), peer.stream.write(&flood)).await {
        taken += written.unwrap();
        assert!(taken < 64 << 20, "the backend could send {taken} bytes that nobody reads");
    }
    let (mut reader, mut writer) = tokio::io::split(client.stream);
    let mut sent = 0;
    while let Ok(written) = timeout(Duration::from_millis(500), writer.write(&flood)).await {
        sent += written.unwrap();
        assert!(sent < 64 << 20, "the client could send {sent} bytes that nobody reads");
    }
    // Nothing was lost meanwhile.
    let (mut from_peer, mut from_client) = (vec![0; taken], vec![0; sent]);
    within("the client's bytes", peer.stream.read_exact(&mut from_client)).await.unwrap();
    within("the backend's bytes", reader.read_exact(&mut from_peer)).await.unwrap();
}

#[tokio::test]
async fn a_browser_learns_whether_websockets_are_served_here() {
    for (route, offered) in [("", true), ("websocket = false", false)] {
        let gate = Gate::echo(route).await;
        let mut http2 = gate.http2().await;
        let answer = http2.ask(http2_request("GET / HTTP/1.1\r\nHost: gate.test\r\n\r\n")).await;
        assert_eq!(answer.status, 200);
        assert_eq!(http2.requests.is_extended_connect_protocol_enabled(), offered, "{route:?}");
    }
}

#[tokio::test]
async fn tunnels_for_anything_else_are_refused() {
    let gate = Gate::echo("").await;
    let mut http2 = gate.http2().await;
    let plain = http::Request::connect("other.test:443").body(()).unwrap();
    assert_eq!(http2.ask(plain).await.status, 405);
    let mut other = http2_request(&handshake(""));
    other.extensions_mut().insert(h2::ext::Protocol::from_static("connect-udp"));
    assert_eq!(http2.ask(other).await.status, 501);
}

#[tokio::test]
async fn a_tunnel_with_the_length_of_a_body_is_refused_in_words() {
    let gate = Gate::echo("").await;
    let mut http2 = gate.http2().await;
    for length in ["0", "5"] {
        let mut tunnels = [http2_request(&handshake("")), http::Request::connect("other.test:443").body(()).unwrap()];
        for tunnel in &mut tunnels {
            tunnel.headers_mut().insert("content-length", http::HeaderValue::from_str(length).unwrap());
        }
        for tunnel in tunnels {
            let answer = http2.ask(tunnel).await;
            assert_eq!(answer.status, 400, "{length}");
            let body = String::from_utf8(answer.body).unwrap();
            assert!(body.contains("CONNECT with Content-Length"), "{body}");
        }
    }
    http2.websocket().await;
}

#[tokio::test]
async fn plain_requests_keep_their_bodies_trailers_and_cookies() {
    let mut upstream = Upstream::start().await;
    let gate = Gate::before(&upstream.url, "", "").await;
    let mut http2 = gate.http2().await;
    let text = "POST /form?a=1 HTTP/1.1\r\nHost: gate.test\r\nCookie: a=1\r\nCookie: b=2\r\nTE: trailers\r\n\
                Trailer: X-Sum\r\n\r\n";
    let (response, mut send) = http2.requests.send_request(http2_request(text), false).unwrap();
    send.send_data(Bytes::from_static(b"abc"), false).unwrap();
    let mut peer = upstream.accept().await;
    let head = peer.head().await.to_lowercase();
    assert!(head.starts_with("post /form?a=1 http/1.1\r\n") && head.contains("cookie: a=1; b=2\r\n"), "{head}");
    let mut trailers = http::HeaderMap::new();
    trailers.insert("x-sum", http::HeaderValue::from_static("1"));
    send.send_trailers(trailers).unwrap();
    let body = String::from_utf8(peer.take("3\r\nabc\r\n0\r\nx-sum: 1\r\n\r\n".len()).await).unwrap();
    assert!(body.to_lowercase().ends_with("0\r\nx-sum: 1\r\n\r\n"), "{body:?}");
    let answer = "HTTP/1.1 201 Created\r\nConnection: keep-alive\r\nKeep-Alive: timeout=5\r\nTransfer-Encoding: chunked\r\n\
                  Trailer: X-End\r\n\r\n2\r\nok\r\n0\r\nX-End: 2\r\n\r\n";
    peer.send(answer).await;
    let response = within("response", response).await.unwrap();
    assert_eq!(response.status(), 201);
    for name in ["connection", "keep-alive", "transfer-encoding"] {
        assert!(!response.headers().contains_key(name), "{name}");
    }
    let mut body = response.into_body();
    assert_eq!(within("data", body.data()).await.unwrap().unwrap(), "ok");
    assert!(within("end", body.data()).await.is_none());
    assert_eq!(within("trailers", body.trailers()).await.unwrap().unwrap()["x-end"], "2");
    for (method, answer, status, length) in [
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n", 200, Some("7")),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n", 204, None),
        ("GET", "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n", 304, None),
    ] {
        let text = format!("{method} / HTTP/1.1\r\nHost: gate.test\r\n\r\n");
        let (seen, ()) = tokio::join!(http2.ask(http2_request(&text)), async {
            peer.head().await;
            peer.send(answer).await;
        });
        assert_eq!((seen.status, seen.field("content-length")), (status, length), "{method} {status}");
    }
}

#[tokio::test]
async fn trailers_over_the_limits_of_a_head_reach_no_upstream() {
    let mut upstream = Upstream::start().await;
    let gate = Gate::before(&upstream.url, "", "").await;
    let large = [(0, "a".repeat(17_000))].into_iter().collect::<Vec<_>>();
    let many = (0..101).map(|number| (number, "1".to_owned())).collect();
    for fields in [large, many] {
        let mut http2 = gate.http2().await;
        let post = http2_request("POST / HTTP/1.1\r\nHost: gate.test\r\nTE: trailers\r\n\r\n");
        let (response, mut send) = http2.requests.send_request(post, false).unwrap();
        send.send_data(Bytes::from_static(b"abc"), false).unwrap();
        let mut peer = upstream.accept().await;
        peer.head().await;
        let mut trailers = http::HeaderMap::new();
        for (number, value) in fields {
            let name = http::HeaderName::try_from(format!("x-{number}")).unwrap();
            trailers.insert(name, value.parse().unwrap());
        }
        send.send_trailers(trailers).unwrap();
        assert_eq!(within("response", response).await.unwrap().status(), 400);
        // The body is cut off before its last chunk.
        assert_eq!(peer.rest().await, b"3\r\nabc\r\n");
    }
}

#[tokio::test]
async fn each_answer_has_a_date_and_that_of_the_upstream_goes_first() {
    const YEARS_AGO: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    let mut upstream = Upstream::start().await;
    let gate = Gate::before(&upstream.url, "path = \"/\"\nwebsocket = false", "").await;
    let mut http2 = gate.http2().await;
    let get = |path: &str| http2_request(&format!("GET {path} HTTP/1.1\r\nHost: gate.test\r\n\r\n"));
    let open = http2.ask(get("/"));
    let (fresh, mut peer) = tokio::join!(open, async {
        let mut peer = upstream.accept().await;
        peer.head().await;
        peer.send("HTTP/1.1 204 No Content\r\n\r\n").await;
        peer
    });
    let (kept, ()) = tokio::join!(http2.ask(get("/")), async {
        peer.head().await;
        peer.send(&format!("HTTP/1.1 204 No Content\r\nDate: {YEARS_AGO}\r\n\r\n")).await;
    });
    let ours = http2.ask(get("/..")).await;
    assert_eq!((ours.status, kept.field("date")), (400, Some(YEARS_AGO)));
    for answer in [fresh, ours] {
        let date = httpdate::parse_http_date(answer.field("date").unwrap()).unwrap();
        assert!(date.elapsed().unwrap() < Duration::from_secs(60), "{date:?}");
    }
}

#[tokio::test]
async fn a_get_keeps_its_body() {
    let mut upstream = Upstream::start().await;
    let gate = Gate::before(&upstream.url, "", "").await;
    let mut http2 = gate.http2().await;
    // A search in the body of a GET; HTTP/2 needs no length for it.
    let request = http2_request("GET /search HTTP/1.1\r\nHost: gate.test\r\n\r\n");
    let (_response, mut send) = http2.requests.send_request(request, false).unwrap();
    send.send_data(Bytes::from_static(b"abc"), true).unwrap();
    let mut peer = upstream.accept().await;
    let head = peer.head().await.to_lowercase();
    assert!(head.contains("transfer-encoding: chunked\r\n"), "{head}");
    assert_eq!(peer.take("3\r\nabc\r\n0\r\n\r\n".len()).await, b"3\r\nabc\r\n0\r\n\r\n");
}

#[tokio::test]
async fn a_client_that_waits_for_a_100_gets_it_once_its_body_is_wanted() {
    let mut upstream = Upstream::start().await;
    let gate = Gate::before(&upstream.url, "", "").await;
    let mut http2 = gate.http2().await;
    let text = "POST / HTTP/1.1\r\nHost: gate.test\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n";
    let (mut response, mut send) = http2.requests.send_request(http2_request(text), false).unwrap();
    let told = std::future::poll_fn(|cx| response.poll_informational(cx));
    assert_eq!(within("a word", told).await.unwrap().unwrap().status(), 100);
    send.send_data(Bytes::from_static(b"abc"), true).unwrap();
    let mut peer = upstream.accept().await;
    peer.head().await;
    assert_eq!(peer.take(3).await, b"abc");
    peer.send("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert_eq!(within("response", response).await.unwrap().status(), 204);
    // A refusal asks for no body.
    let refused = http2_request(&text.replace("POST / ", "POST /../ "));
    let (mut response, _send) = http2.requests.send_request(refused, false).unwrap();
    let told = std::future::poll_fn(|cx| response.poll_informational(cx));
    assert!(within("no word", told).await.is_none());
    assert_eq!(within("response", response).await.unwrap().status(), 400);
}

#[tokio::test]
async fn a_request_that_is_taken_back_is_taken_back_upstream() {
    let mut upstream = Upstream::start().await;
    let gate = Gate::before(&upstream.url, "", "").await;
    let mut http2 = gate.http2().await;
    let request = http2_request("GET /slow HTTP/1.1\r\nHost: gate.test\r\n\r\n");
    let (_response, mut send) = http2.requests.send_request(request, true).unwrap();
    let mut peer = upstream.accept().await;
    peer.head().await;
    send.send_reset(Reason::CANCEL);
    assert!(peer.rest().await.is_empty());
}

#[tokio::test]
async fn heads_over_a_limit_or_with_two_hosts_are_refused() {
    let gate = Gate::before("builtin:echo", "", "[limits]\nmax_head_size = \"2KiB\"\nmax_header_count = 10").await;
    let many: String = (0..11).map(|i| format!("X-{i}: 1\r\n")).collect();
    for (more, status) in
        [(many, 431), (format!("X-Long: {}\r\n", "a".repeat(4000)), 431), ("Accept: */*\r\n".to_owned(), 200)]
    {
        let text = format!("GET / HTTP/1.1\r\nHost: gate.test\r\n{more}\r\n");
        assert_eq!(gate.http2().await.ask(http2_request(&text)).await.status, status, "{text}");
    }
    let mut two = http2_request("GET / HTTP/1.1\r\nHost: gate.test\r\n\r\n");
    two.headers_mut().insert("host", http::HeaderValue::from_static("other.test"));
    assert_eq!(gate.http2().await.ask(two).await.status, 400);
}

#[tokio::test]
async fn a_stop_sends_goaway_and_close_and_lets_requests_finish() {
    let mut upstream = Upstream::start().await;
    let gate = Gate::before(&upstream.url, "", "[drain]\ngrace = \"8s\"\nspread = \"100ms\"").await;
    let mut http2 = gate.http2().await;
    let (mut socket, mut relayed) = {
        let open = http2.websocket();
        tokio::join!(open, async {
            let mut peer = upstream.accept().await;
            let head = peer.head().await;
            let key = head.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).unwrap();
            let accept = switchgate::protocol::websocket::key::accept_value(key);
            peer.send(accepted("").replace(crate::support::ACCEPT, &accept)).await;
            peer
        })
    };
    let slow = http2_request("GET /slow HTTP/1.1\r\nHost: gate.test\r\n\r\n");
    let (response, _send) = http2.requests.send_request(slow, true).unwrap();
    let mut asked = upstream.accept().await;
    asked.head().await;
    let mut idle = gate.http2().await;
    idle.ask(http2_request("OPTIONS * HTTP/1.1\r\nHost: gate.test\r\n\r\n")).await;
    let Gate { proxy, .. } = gate;
    let stopped = proxy.stop();
    assert_eq!(socket.expect_close().await, 1001);
    assert_eq!(relayed.expect_close().await, 1001);
    idle.ended().await;
    socket.send(close(1001, MASK)).await;
    relayed.send(close(1001, None)).await;
    asked.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone").await;
    let response = within("response", response).await.unwrap();
    assert_eq!(within("body", response.into_body().data()).await.unwrap().unwrap(), "done");
    assert!(socket.rest().await.is_empty());
    drop(socket);
    http2.ended().await;
    let outcome = within("stop", stopped).await.unwrap();
    assert_eq!((outcome.cut.connections, outcome.cut.relays), (0, 0));
}

#[tokio::test]
async fn connections_without_a_request_end() {
    const LIMITS: &str = "[limits]\nhead_timeout = \"300ms\"\nkeep_alive_timeout = \"600ms\"";
    let gate = Gate::before("builtin:echo", "", LIMITS).await;
    // No preface, half of one, and one that nothing follows.
    for begin in [&b""[..], b"PRI * HTTP/2.0\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"] {
        let mut raw = Client::new(gate.secure(&[b"h2"]).await);
        raw.send(begin).await;
        raw.rest().await;
    }
    let mut http2 = gate.http2().await;
    assert_eq!(http2.ask(http2_request("GET / HTTP/1.1\r\nHost: gate.test\r\n\r\n")).await.status, 200);
    let mut socket = http2.websocket().await;
    // A WebSocket keeps it open, however long the next request takes.
    tokio::time::sleep(Duration::from_millis(900)).await;
    socket.send(frame(BINARY, b"still", MASK)).await;
    assert_eq!(socket.frame().await.unwrap().payload, b"still");
    drop(socket);
    http2.ended().await;
}

#[tokio::test]
async fn a_client_that_takes_nothing_of_a_response_is_not_waited_for() {
    let mut upstream = Upstream::start().await;
    let gate = Gate::before(&upstream.url, "", "[limits]\nwrite_timeout = \"300ms\"").await;
    let mut http2 = gate.http2().await;
    let request = http2_request("GET /large HTTP/1.1\r\nHost: gate.test\r\n\r\n");
    let (response, _send) = http2.requests.send_request(request, true).unwrap();
    let mut peer = upstream.accept().await;
    peer.head().await;
    peer.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n").await;
    let (flood, body) = (vec![1; 1_000_000], within("response", response).await.unwrap().into_body());
    // Its window is never opened again: the gate gives up, and the backend with it.
    let written = within("end of the flood", peer.stream.write_all(&flood)).await;
    let mut body = body;
    let end = loop {
        match within("reset", body.data()).await {
            Some(Ok(_)) => {}
            Some(Err(error)) => break error,
            None => panic!("the whole body came: {written:?}"),
        }
    };
    assert_eq!(end.reason(), Some(Reason::CANCEL));
}
