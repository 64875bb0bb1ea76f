//! The opening handshake, from the client's side to the upstream's answer.

use switchgate::protocol::websocket::key::accept_value;

use crate::support::{
    ACCEPT, Answer, KEY, Proxy, Upstream, accepted,
    doors::{Door, Gate},
    handshake, within,
};

#[tokio::test]
async fn a_broken_rule_is_refused_before_the_upstream_is_dialled() {
    let mut upstream = Upstream::start().await;
    let gate = Gate::before(&upstream.url, "", "").await;
    let right = handshake("");
    // What HTTP/2 says in another way, or not at all, is asked over HTTP/1.1 only.
    let (all, http1) = (&Door::ALL[..], &[Door::Clear, Door::Tls][..]);
    for (request, status, says, doors) in [
        (right.replace("GET", "POST"), 405, "RFC 6455 section 4.2.1, item 1", http1),
        (right.replace("HTTP/1.1", "HTTP/1.0"), 400, "HTTP/1.1", http1),
        (handshake("Content-Length: 3\r\n") + "abc", 400, "no body", all),
        (handshake("Transfer-Encoding: chunked\r\n") + "0\r\n\r\n", 400, "no body", http1),
        (right.replace("Sec-WebSocket-Key", "X-Key"), 400, "Sec-WebSocket-Key is missing", http1),
        (handshake(&format!("Sec-WebSocket-Key: {KEY}\r\n")), 400, "more than one Sec-WebSocket-Key", http1),
        (right.replace(KEY, "c2hvcnQ="), 400, "16 bytes", http1),
        (right.replace("==", "__"), 400, "16 bytes", http1),
        (right.replace("Version: 13", "Version: 12"), 426, "13", all),
        (right.replace("Sec-WebSocket-Version", "X-Version"), 426, "13", all),
        (handshake("Sec-WebSocket-Protocol: a, a\r\n"), 400, "twice", all),
        (handshake("Sec-WebSocket-Protocol: a b\r\n"), 400, "tokens", all),
        (handshake("Sec-WebSocket-Extensions: ;\r\n"), 400, "section 9.1", all),
        (handshake("Sec-WebSocket-Extensions: ,\r\n"), 400, "section 9.1", all),
        (handshake("Sec-WebSocket-Extensions: , ,,\r\n"), 400, "section 9.1", all),
        (handshake("Sec-WebSocket-Extensions: ,\r\nSec-WebSocket-Extensions: ,\r\n"), 400, "section 9.1", all),
        (handshake("Sec-WebSocket-Extensions: x; y=\"1\\\"\r\n"), 400, "section 9.1", all),
        (handshake("Sec-WebSocket-Extensions: x; y=\"\"\r\n"), 400, "section 9.1", all),
        (handshake("Sec-WebSocket-Protocol: ,\r\n"), 400, "tokens", all),
    ] {
        for &door in doors {
            // A 426 names what to upgrade to, for which HTTP/2 has no field.
            let status = if (status, door) == (426, Door::Http2) { 400 } else { status };
            let answer = gate.ask(door, &request).await;
            assert_eq!(answer.status, status, "{door:?} {request}");
            assert!(answer.text().contains(says), "{door:?} {request}\n{}", answer.text());
            assert!(answer.has("Cache-Control: no-store"), "{}", answer.head);
            if status == 426 {
                assert!(answer.has("Upgrade: websocket"), "{}", answer.head);
            }
            if says == "13" {
                assert!(answer.has("Sec-WebSocket-Version: 13"), "{}", answer.head);
            }
            if status == 405 {
                assert!(answer.has("Allow: GET"), "{}", answer.head);
            }
        }
    }
    assert!(!upstream.was_dialled());
}

#[tokio::test]
async fn long_lists_of_offers_are_bounded_and_honest_ones_pass() {
    let gate = Gate::echo("").await;
    let subprotocols = |count: usize| (0..count).map(|number| format!("v{number}.chat.example")).collect::<Vec<_>>();
    let offer = |field: &str, list: &[String]| handshake(&format!("{field}: {}\r\n", list.join(", ")));
    let lines: String = subprotocols(90).iter().map(|name| format!("Sec-WebSocket-Protocol: {name}\r\n")).collect();
    let token = vec!["bearer".to_owned(), "t".repeat(9000)];
    let extensions: Vec<String> = (0..65).map(|number| format!("x-{number}")).collect();
    for (request, status, says) in [
        (offer("Sec-WebSocket-Protocol", &subprotocols(100)), 101, ""),
        (offer("Sec-WebSocket-Protocol", &token), 101, ""),
        (handshake(&lines), 101, ""),
        (offer("Sec-WebSocket-Protocol", &subprotocols(129)), 400, "more than 128 subprotocols"),
        (offer("Sec-WebSocket-Protocol", &subprotocols(500)), 400, "more than 128 subprotocols"),
        (offer("Sec-WebSocket-Extensions", &extensions[..64]), 101, ""),
        (offer("Sec-WebSocket-Extensions", &extensions), 400, "more than 64 extensions"),
    ] {
        for door in Door::ALL {
            let answer = gate.ask(door, &request).await;
            let status = if (status, door) == (101, Door::Http2) { 200 } else { status };
            assert_eq!(answer.status, status, "{door:?} {}", answer.text());
            assert!(answer.text().contains(says), "{door:?} {}", answer.text());
        }
    }
}

#[tokio::test]
async fn odd_but_right_offers_become_websockets() {
    let proxy = Proxy::echo("").await;
    let right = handshake("");
    for request in [
        right.replace("Connection: Upgrade", "Connection: keep-alive, Upgrade"),
        right.replace("Connection: Upgrade", "Connection: keep-alive\r\nConnection:\t,UPGRADE ,"),
        right.replace("Upgrade: websocket", "Upgrade: h2c, WebSocket"),
        right.replace("GET /chat", "GET http://other.test/chat"),
        handshake("Content-Length: 0\r\n"),
    ] {
        let answer = proxy.connect().await.ask(&request).await;
        assert_eq!(answer.status, 101, "{request}");
        assert!(answer.head.contains(&format!("Sec-WebSocket-Accept: {ACCEPT}")), "{}", answer.head);
    }
}

#[tokio::test]
async fn a_handshake_that_comes_byte_by_byte_is_the_same() {
    let proxy = Proxy::echo("").await;
    let mut client = proxy.connect().await;
    for byte in handshake("").bytes() {
        client.send([byte]).await;
    }
    assert_eq!(client.answer().await.status, 101);
}

#[tokio::test]
async fn other_protocols_are_dropped_or_refused_as_the_route_says() {
    let mut upstream = Upstream::start().await;
    let offer =
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n\r\n";
    let proxy = Proxy::before(&upstream.url, "", "").await;
    let mut client = proxy.connect().await;
    client.send(offer).await;
    let mut peer = upstream.accept().await;
    let head = peer.head().await.to_lowercase();
    assert!(!head.contains("upgrade") && !head.contains("http2-settings"), "{head}");
    let refusing = Proxy::before(&upstream.url, "other_upgrades = \"refuse\"", "").await;
    assert_eq!(refusing.connect().await.ask(offer).await.status, 400);
}

#[tokio::test]
async fn a_route_may_allow_no_websocket() {
    let proxy = Proxy::echo("websocket = false").await;
    assert_eq!(proxy.connect().await.ask(handshake("")).await.status, 403);
}

#[tokio::test]
async fn a_waiver_lets_an_old_client_pass() {
    let proxy = Proxy::echo("handshake = \"lenient\"\nwaive = [\"key-format\"]").await;
    let old = handshake("").replace(KEY, "old-key");
    assert_eq!(proxy.connect().await.ask(&old).await.status, 101);
    let version = handshake("").replace("Version: 13", "Version: 8");
    assert_eq!(proxy.connect().await.ask(&version).await.status, 426);
}

#[tokio::test]
async fn the_upstream_gets_the_capitals_of_the_rfc_and_our_fields() {
    let mut upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream.url, "", "").await;
    let mut client = proxy.connect().await;
    let more = "Cookie: c=1\r\nAuthorization: Bearer t\r\nX-Forwarded-For: 9.9.9.9\r\nX-Hop: 1\r\n\
                Connection: x-hop, origin, cookie, sec-websocket-key\r\nOrigin: http://gate.test\r\n";
    client.send(handshake(more).replace("Sec-WebSocket-Key", "sec-websocket-key")).await;
    let head = upstream.accept().await.head().await;
    let port = client.stream.local_addr().unwrap().ip();
    for line in [
        "GET /chat HTTP/1.1",
        &format!("Sec-WebSocket-Key: {KEY}"),
        "Sec-WebSocket-Version: 13",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Host: gate.test",
        "Cookie: c=1",
        "Authorization: Bearer t",
        "Origin: http://gate.test",
        "X-Forwarded-Proto: http",
        "X-Forwarded-Host: gate.test",
        &format!("X-Forwarded-For: {port}"),
        &format!("Forwarded: for={port};host=gate.test;proto=http"),
        "Via: 1.1 switchgate",
    ] {
        assert!(head.lines().any(|known| known == line), "no {line:?} in\n{head}");
    }
    assert!(!head.to_lowercase().contains("x-hop") && !head.contains("9.9.9.9"), "{head}");
}

#[tokio::test]
async fn a_wrong_101_is_a_502_and_closes_the_upstream() {
    let mut upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream.url, "", "").await;
    let right = accepted("");
    for (answer, why) in [
        (right.replace(ACCEPT, "AAAAAAAAAAAAAAAAAAAAAAAAAAA="), "another accept value"),
        (right.replace(ACCEPT, &ACCEPT.to_uppercase()), "case of the accept value"),
        (right.replace("Sec-WebSocket-Accept", "X-Accept"), "no accept"),
        (accepted(&format!("Sec-WebSocket-Accept: {ACCEPT}\r\n")), "two accepts"),
        (right.replace("Upgrade: websocket", "Upgrade: h2c"), "another protocol"),
        (right.replace("Connection: Upgrade", "Connection: keep-alive"), "no connection option"),
        (accepted("Sec-WebSocket-Protocol: unasked\r\n"), "subprotocol"),
        (accepted("Sec-WebSocket-Extensions: permessage-deflate\r\n"), "extension"),
        (accepted("Sec-WebSocket-Extensions: ,\r\n"), "a list of nothing"),
        (right.replace("HTTP/1.1", "HTTP/1.0"), "HTTP/1.0"),
        ("SSH-2.0-OpenSSH\r\n\r\n".to_owned(), "garbage"),
    ] {
        let mut client = proxy.connect().await;
        client.send(handshake("")).await;
        let mut peer = upstream.accept().await;
        peer.head().await;
        peer.send(&answer).await;
        assert_eq!(client.answer().await.status, 502, "{why}");
        assert!(peer.rest().await.is_empty(), "{why}: bytes went upstream");
    }
}

/// Takes one opening handshake through a gate, whose upstream adds `answer` to its 101; the head that the upstream got and
/// the client's answer.
async fn through(gate: &Gate, upstream: &mut Upstream, door: Door, request: &str, answer: &str) -> (String, Answer) {
    let play = async {
        let mut peer = upstream.accept().await;
        let head = peer.head().await;
        let fields: Vec<(&str, &str)> = head.lines().filter_map(|line| line.split_once(": ")).collect();
        // Over HTTP/2 the gate has made a key of its own.
        let (_, key) = fields.iter().find(|(name, _)| *name == "Sec-WebSocket-Key").unwrap();
        peer.send(accepted(answer).replace(ACCEPT, &accept_value(key))).await;
        (head, peer)
    };
    let (answer, (head, _peer)) = tokio::join!(gate.ask(door, request), play);
    (head, answer)
}

fn opened(door: Door) -> u16 {
    if door == Door::Http2 { 200 } else { 101 }
}

#[tokio::test]
async fn a_subprotocol_that_a_waiver_let_in_may_be_selected() {
    let mut upstream = Upstream::start().await;
    let waive = "handshake = \"lenient\"\nwaive = [\"subprotocol-syntax\"]";
    let gate = Gate::before(&upstream.url, waive, "").await;
    for door in Door::ALL {
        for (offered, selected, status) in [
            ("SPDY/3.1+portforward.k8s.io", "SPDY/3.1+portforward.k8s.io", opened(door)),
            ("chat, SPDY/3.1+portforward.k8s.io", "SPDY/3.1+portforward.k8s.io", opened(door)),
            ("chat, SPDY/3.1+portforward.k8s.io", "chat", opened(door)),
            ("a b, x@y, chat, chat", "a b", opened(door)),
            ("a b, x@y, chat, chat", "x@y", opened(door)),
            ("a b, x@y, chat, chat", "chat", opened(door)),
            ("SPDY/3.1+portforward.k8s.io", "spdy/3.1+portforward.k8s.io", 502),
            ("SPDY/3.1+portforward.k8s.io", "SPDY/3.1", 502),
            ("a b", "a", 502),
        ] {
            let request = handshake(&format!("Sec-WebSocket-Protocol: {offered}\r\n"));
            let selects = format!("Sec-WebSocket-Protocol: {selected}\r\n");
            let (head, answer) = through(&gate, &mut upstream, door, &request, &selects).await;
            assert_eq!(answer.status, status, "{door:?} {offered} {selected}");
            assert!(head.contains(&format!("Sec-WebSocket-Protocol: {offered}\r\n")), "{head}");
            let seen = (status != 502).then_some(selected);
            assert_eq!(answer.field("sec-websocket-protocol"), seen, "{door:?} {}", answer.head);
        }
    }
}

#[tokio::test]
async fn an_empty_list_is_dropped_in_both_directions() {
    let mut upstream = Upstream::start().await;
    let strict = Gate::before(&upstream.url, "", "").await;
    let lenient = Gate::before(&upstream.url, "handshake = \"lenient\"", "").await;
    let (protocol, extensions) = ("Sec-WebSocket-Protocol", "Sec-WebSocket-Extensions");
    for door in Door::ALL {
        for (gate, empty) in [(&strict, ""), (&lenient, ""), (&lenient, ","), (&lenient, ", ,")] {
            let fields = format!("{protocol}: {empty}\r\n{extensions}: {empty}\r\n{extensions}: {empty}\r\n");
            let selects = format!("{protocol}:\r\n{extensions}:\r\n");
            let (head, answer) = through(gate, &mut upstream, door, &handshake(&fields), &selects).await;
            assert_eq!(answer.status, opened(door), "{door:?} {empty:?}");
            for text in [head.to_lowercase(), answer.head.to_lowercase()] {
                assert!(!text.contains("sec-websocket-protocol"), "{door:?} {text}");
                assert!(!text.contains("sec-websocket-extensions"), "{door:?} {text}");
            }
        }
        // Beside a line that lists something, only the empty one goes.
        let fields = format!("{protocol}:\r\n{protocol}: chat\r\n{extensions}: x\r\n{extensions}:\r\n");
        let selects = format!("{protocol}: chat\r\n{protocol}:\r\n{extensions}:\r\n{extensions}: x\r\n");
        let (head, answer) = through(&strict, &mut upstream, door, &handshake(&fields), &selects).await;
        assert_eq!(answer.status, opened(door), "{door:?}");
        for text in [head.to_lowercase(), answer.head.to_lowercase()] {
            let lines: Vec<&str> =
                text.lines().filter(|line| line.contains("-protocol") || line.contains("-ext")).collect();
            assert!(lines.len() == 2 && lines.iter().all(|line| !line.ends_with(": ")), "{door:?} {lines:?}");
        }
    }
}

#[tokio::test]
async fn a_missing_version_can_be_waived_over_http_2() {
    let mut upstream = Upstream::start().await;
    let without = handshake("").replace("Sec-WebSocket-Version: 13\r\n", "");
    let strict = Gate::before(&upstream.url, "", "").await;
    let waived = Gate::before(&upstream.url, "handshake = \"lenient\"\nwaive = [\"version\"]", "").await;
    assert_eq!(strict.ask(Door::Http2, &without).await.status, 400);
    for door in [Door::Clear, Door::Tls] {
        assert_eq!(waived.ask(door, &without).await.status, 426, "{door:?}");
    }
    let (head, answer) = through(&waived, &mut upstream, Door::Http2, &without, "").await;
    assert_eq!(answer.status, 200);
    assert_eq!(head.matches("Sec-WebSocket-Version: 13\r\n").count(), 1, "{head}");
    let with = handshake("");
    let (head, _) = through(&waived, &mut upstream, Door::Http2, &with, "").await;
    assert_eq!(head.matches("Sec-WebSocket-Version: 13\r\n").count(), 1, "{head}");
}

#[tokio::test]
async fn a_101_to_a_plain_request_is_a_502() {
    let mut upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream.url, "", "").await;
    let mut client = proxy.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut peer = upstream.accept().await;
    peer.head().await;
    peer.send(accepted("")).await;
    assert_eq!(client.answer().await.status, 502);
}

#[tokio::test]
async fn another_final_status_passes_with_its_body_and_the_connection_stays() {
    let mut upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream.url, "", "").await;
    let mut client = proxy.connect().await;
    for status in [200, 302, 401, 403, 426] {
        client.send(handshake("")).await;
        let mut peer = upstream.accept().await;
        peer.head().await;
        peer.send(format!("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 {status} X\r\nContent-Length: 4\r\n\r\nbody")).await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.text().as_str()), (status, "body"));
    }
}

#[tokio::test]
async fn a_silent_upstream_is_a_504_and_an_absent_one_a_502() {
    let mut upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream.url, "", "").await;
    let mut client = proxy.connect().await;
    client.send(handshake("")).await;
    let _silent = upstream.accept().await;
    assert_eq!(client.answer().await.status, 504);
    let gone = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let proxy = Proxy::before(&gone, "", "").await;
    assert_eq!(proxy.connect().await.ask(handshake("")).await.status, 502);
}

#[tokio::test]
async fn bytes_sent_early_wait_for_the_verified_101_and_go_first() {
    let mut upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream.url, "frames = \"off\"", "").await;
    let mut client = proxy.connect().await;
    client.send(handshake("") + "early").await;
    let mut peer = upstream.accept().await;
    let head = peer.head().await;
    assert!(head.ends_with("\r\n\r\n"));
    peer.send(accepted("") + "greeting").await;
    client.answer().await;
    assert_eq!(client.take(8).await, b"greeting");
    client.send(" then").await;
    assert_eq!(peer.take(10).await, b"early then");
}

#[tokio::test]
async fn early_bytes_after_a_refusal_are_a_request_or_nothing() {
    let mut upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream.url, "", "").await;
    let refuse = "HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n";
    // A further request goes through the whole stack: this one has no Host.
    let mut client = proxy.connect().await;
    client.send(handshake("") + "GET /admin HTTP/1.1\r\n\r\n").await;
    let mut peer = upstream.accept().await;
    peer.head().await;
    peer.send(refuse).await;
    assert_eq!(client.answer().await.status, 403);
    assert_eq!(client.answer().await.status, 400);
    assert!(peer.rest().await.is_empty());
    // Frames are no request.
    let mut client = proxy.connect().await;
    client.send([handshake("").as_bytes(), b"\x81\x85abcdhello"].concat()).await;
    let mut peer = upstream.accept().await;
    peer.head().await;
    peer.send(refuse).await;
    assert_eq!(client.answer().await.status, 403);
    assert_eq!(client.answer().await.status, 400);
    assert!(within("end", client.rest()).await.is_empty());
    assert!(peer.rest().await.is_empty());
    assert!(!upstream.was_dialled());
}

#[tokio::test]
async fn the_same_handshake_twice_reaches_the_upstream_twice() {
    let mut upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream.url, "", "").await;
    for _ in 0..2 {
        let mut client = proxy.connect().await;
        upstream.switch(&mut client).await;
    }
}
