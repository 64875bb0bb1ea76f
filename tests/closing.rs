//! The closing handshake between a client and an upstream, and the ends of their streams (RFC 6455 §7.1, RFC 9113 §8.1).

use std::{future::poll_fn, time::Duration};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};
use switchgate::{net::Wire, protocol::websocket::key::accept_value};
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    time::{Instant, timeout},
};

use crate::support::{
    Client, Upstream, accepted,
    doors::{Door, Gate, Http2Client, http2_request},
    frames::{BINARY, MASK, close, frame, reset_on_drop},
    handshake,
    http2_upstream::{Http2Upstream, accept_websocket},
    websocket::{Ends, open},
    within,
};

/// Longer than this is a wait for a clock: `close_timeout` is far longer in these tests.
const AT_ONCE: Duration = Duration::from_secs(2);

/// Long enough for whatever passes at once to have come.
const MOMENT: Duration = Duration::from_millis(300);

#[tokio::test]
async fn a_client_that_ends_its_stream_with_its_close_still_gets_the_answer() {
    for door in Door::ALL {
        let mut upstream = Upstream::start().await;
        let gate = Gate::before(&upstream.url, "close_timeout = \"8s\"", "").await;
        let Ends { mut client, mut peer, http2: _http2 } = open(&gate, &mut upstream, door).await;
        client.send(close(1000, MASK)).await;
        client.stream.shutdown().await.unwrap();
        assert_eq!(peer.expect_close().await, 1000, "{door:?}");
        // A server that finds the end of the stream before it has answered hangs up without its Close.
        assert!(timeout(MOMENT, peer.frame()).await.is_err(), "{door:?}");
        peer.send(close(1000, None)).await;
        let begun = Instant::now();
        assert_eq!(peer.frame().await, None);
        peer.stream.shutdown().await.unwrap();
        assert_eq!((client.expect_close().await, client.frame().await), (1000, None));
        assert!(begun.elapsed() < AT_ONCE, "{door:?}");
    }
}

#[tokio::test]
async fn an_upstream_that_ends_its_stream_leaves_the_client_time_to_answer() {
    for door in Door::ALL {
        // With its Close or without one.
        for (said, code) in [(Some(4000), 4000), (None, 1012)] {
            let mut upstream = Upstream::start().await;
            let gate = Gate::before(&upstream.url, "close_timeout = \"8s\"", "").await;
            let Ends { mut client, mut peer, http2: _http2 } = open(&gate, &mut upstream, door).await;
            if let Some(said) = said {
                peer.send(close(said, None)).await;
            }
            peer.stream.shutdown().await.unwrap();
            assert_eq!(client.expect_close().await, code, "{door:?}");
            assert!(timeout(MOMENT, client.frame()).await.is_err(), "{door:?}, {said:?}");
            client.send(close(code, MASK)).await;
            let begun = Instant::now();
            assert_eq!((client.frame().await, peer.expect_close().await), (None, code));
            assert_eq!(peer.frame().await, None);
            assert!(begun.elapsed() < AT_ONCE, "{door:?}, {said:?}");
        }
    }
}

#[tokio::test]
async fn a_closed_websocket_frees_its_place_though_its_client_keeps_the_stream_open() {
    for door in Door::ALL {
        let mut upstream = Upstream::start().await;
        let limits = "close_timeout = \"8s\"\nlimits = { websockets_per_client = 1 }";
        let gate = Gate::before(&upstream.url, limits, "").await;
        let mut kept = Vec::new();
        for round in 0..3 {
            let begun = Instant::now();
            let Ends { mut client, mut peer, http2: _http2 } = open(&gate, &mut upstream, door).await;
            client.send(close(1000, MASK)).await;
            assert_eq!(peer.expect_close().await, 1000);
            peer.send(close(1000, None)).await;
            peer.stream.shutdown().await.unwrap();
            assert_eq!((client.expect_close().await, client.frame().await), (1000, None), "{door:?}");
            // The upstream learns of the end as well.
            assert_eq!(peer.frame().await, None);
            assert!(begun.elapsed() < AT_ONCE, "{door:?}, round {round}");
            kept.push((client, _http2));
        }
    }
}

/// A WebSocket over HTTP/2 whose client sees the frames of its stream.
struct Stream {
    http2: Http2Client,
    send: SendStream<Bytes>,
    receive: RecvStream,
    peer: Client<TcpStream>,
    _gate: Gate,
}

impl Stream {
    async fn open(route: &str, rest: &str) -> Self {
        let mut upstream = Upstream::start().await;
        let gate = Gate::before(&upstream.url, route, rest).await;
        let mut http2 = gate.http2().await;
        let opening = http2.open(http2_request(&handshake("")));
        let ((response, send), peer) = tokio::join!(opening, async {
            let mut peer = upstream.accept().await;
            let head = peer.head().await;
            let key = head.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).unwrap();
            peer.send(accepted("").replace(crate::support::ACCEPT, &accept_value(key))).await;
            peer
        });
        Self { http2, send, receive: response.into_body(), peer, _gate: gate }
    }

    /// Sends bytes without END_STREAM.
    fn say(&mut self, bytes: Vec<u8>) {
        self.send.send_data(Bytes::from(bytes), false).unwrap();
    }

    /// All that comes until END_STREAM, and the reason of the reset behind it.
    async fn rest(mut self) -> (Vec<u8>, Reason) {
        let mut got = Vec::new();
        while let Some(data) = within("the end of the stream", self.receive.data()).await {
            got.extend_from_slice(&data.expect("END_STREAM comes before the reset"));
        }
        let reset = poll_fn(|cx| self.send.poll_reset(cx));
        let reason = timeout(AT_ONCE, reset).await.expect("a reset at once").unwrap();
        drop(self.http2);
        (got, reason)
    }
}

#[tokio::test]
async fn a_closed_stream_ends_and_is_reset_without_error_at_once() {
    const PATIENT: &str = "close_timeout = \"8s\"";
    // The client closes.
    let mut stream = Stream::open(PATIENT, "").await;
    stream.say(close(1000, MASK));
    assert_eq!(stream.peer.expect_close().await, 1000);
    stream.peer.send(close(1000, None)).await;
    stream.peer.stream.shutdown().await.unwrap();
    assert_eq!(stream.rest().await, (close(1000, None), Reason::NO_ERROR));

    // So does a client whose upstream does not hang up.
    let mut stream = Stream::open(PATIENT, "").await;
    stream.say(close(1000, MASK));
    assert_eq!(stream.peer.expect_close().await, 1000);
    stream.peer.send(close(1000, None)).await;
    assert_eq!(stream.rest().await, (close(1000, None), Reason::NO_ERROR));

    // The upstream closes.
    let mut stream = Stream::open(PATIENT, "").await;
    stream.peer.send(close(4001, None)).await;
    stream.say(close(4001, MASK));
    assert_eq!(stream.peer.expect_close().await, 4001);
    stream.peer.stream.shutdown().await.unwrap();
    assert_eq!(stream.rest().await, (close(4001, None), Reason::NO_ERROR));

    // The upstream is gone, in order or not.
    for resets in [false, true] {
        let mut stream = Stream::open(PATIENT, "").await;
        if resets {
            reset_on_drop(&stream.peer.stream);
            let (other, _listener) = idle_socket().await;
            drop(std::mem::replace(&mut stream.peer.stream, other));
        } else {
            stream.peer.stream.shutdown().await.unwrap();
        }
        let said = within("a Close", stream.receive.data()).await.unwrap().unwrap();
        assert_eq!(said, close(1012, None), "resets: {resets}");
        stream.say(close(1012, MASK));
        assert_eq!(stream.rest().await, (Vec::new(), Reason::NO_ERROR), "resets: {resets}");
    }
}

/// A socket that nobody uses.
async fn idle_socket() -> (TcpStream, tokio::net::TcpListener) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    (TcpStream::connect(listener.local_addr().unwrap()).await.unwrap(), listener)
}

#[tokio::test]
async fn a_stream_that_answers_a_close_of_ours_ends_and_is_reset_without_error_at_once() {
    let too_large = frame(BINARY, &[7; 2000], MASK);
    for (what, route, sends, code) in [
        ("too large", "max_message_size = \"1KiB\"", too_large, 1009),
        ("too many", "rate = { messages = 1, excess = \"close\" }", frame(BINARY, b"", MASK).repeat(3), 1008),
        ("too old", "max_lifetime = \"300ms\"", Vec::new(), 1001),
        ("silent", "idle_timeout = \"300ms\"", Vec::new(), 1001),
    ] {
        // The upstream answers its Close as well, or does not.
        for answers in [true, false] {
            let mut stream = Stream::open(&format!("close_timeout = \"8s\"\n{route}"), "").await;
            stream.say(sends.clone());
            let said = within("a Close", stream.receive.data()).await.unwrap().unwrap();
            assert_eq!(said, close(code, None), "{what}");
            if answers {
                while stream.peer.frame().await.unwrap().code().is_none() {}
                stream.peer.send(close(code, None)).await;
            }
            stream.say(close(code, MASK));
            let begun = Instant::now();
            let peer = std::mem::replace(&mut stream.peer, Client::new(idle_socket().await.0));
            assert_eq!(stream.rest().await, (Vec::new(), Reason::NO_ERROR), "{what}, {answers}");
            assert!(begun.elapsed() < AT_ONCE, "{what}, {answers}");
            drop(peer);
        }
    }
}

#[tokio::test]
async fn streams_of_closed_websockets_leave_room_for_others_on_their_connection() {
    let gate = Gate::before("builtin:echo", "close_timeout = \"1m\"", "[limits]\nmax_streams = 4").await;
    let mut http2 = gate.http2().await;
    let begun = Instant::now();
    let mut kept = Vec::new();
    for _ in 0..20 {
        let mut client = http2.websocket().await;
        client.send(close(1000, MASK)).await;
        assert_eq!(client.expect_close().await, 1000);
        kept.push(client);
    }
    assert_eq!(http2.ask(http2_request("GET / HTTP/1.1\r\nHost: gate.test\r\n\r\n")).await.status, 200);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn an_upstream_over_http2_learns_of_the_end_at_once() {
    let mut upstream = Http2Upstream::with_websockets().await;
    let url = format!("http://127.0.0.1:{}", upstream.port);
    let gate = Gate::before(&url, "close_timeout = \"8s\"", "protocol = \"h2\"").await;
    for door in [Door::Clear, Door::Http2] {
        let mut http2 = gate.http2().await;
        let mut clear = gate.proxy.connect().await;
        let opening = async {
            if door == Door::Http2 {
                return Client::new(Wire::boxed(http2.websocket().await.stream));
            }
            clear.send(handshake("")).await;
            assert_eq!(clear.answer().await.status, 101);
            Client::new(Wire::Tcp(clear.stream))
        };
        let (mut client, mut peer) = tokio::join!(opening, async { accept_websocket(upstream.accept().await) });
        client.send(close(1000, MASK)).await;
        client.stream.shutdown().await.unwrap();
        assert_eq!(peer.expect_close().await, 1000);
        assert!(timeout(MOMENT, peer.frame()).await.is_err(), "{door:?}");
        let begun = Instant::now();
        peer.send(close(1000, None)).await;
        assert_eq!((client.expect_close().await, client.frame().await), (1000, None));
        assert_eq!(peer.frame().await, None, "END_STREAM follows the answer");
        assert!(begun.elapsed() < AT_ONCE, "{door:?}");
    }
}
