//! Resets: what one side loses is not an orderly end to the other (RFC 9112 §8, RFC 9113 §8.1, RFC 8441 §5).

use std::{io, time::Duration};

use bytes::Bytes;
use h2::Reason;
use switchgate::net::{Io, Wire};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use crate::support::{
    Client, Upstream,
    doors::{Door, Gate, http2_request},
    frames::{MASK, TEXT, close, frame, reset_on_drop},
    http2_upstream::{Http2Upstream, accept_websocket},
    websocket::{Ends, open},
    within,
};

/// Nothing here waits for a clock of the gate.
const AT_ONCE: Duration = Duration::from_secs(2);

/// How the stream ends: by an orderly end, or by a reset.
async fn end(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut got = Vec::new();
    timeout(AT_ONCE, stream.read_to_end(&mut got)).await.expect("an end at once").map(|_| got)
}

fn is_reset(end: &io::Result<Vec<u8>>) -> bool {
    matches!(end, Err(error) if error.kind() == io::ErrorKind::ConnectionReset)
}

fn reset(mut client: Client<Wire>) {
    client.stream.reset();
}

#[tokio::test]
async fn without_frames_a_reset_of_one_side_is_a_reset_to_the_other() {
    for door in Door::ALL {
        let mut upstream = Upstream::start().await;
        let gate = Gate::before(&upstream.url, "frames = \"off\"\nidle_timeout = \"off\"", "").await;
        for half_closed in [false, true] {
            let Ends { client, mut peer, http2: _http2 } = open(&gate, &mut upstream, door).await;
            if half_closed {
                peer.stream.shutdown().await.unwrap();
            }
            reset(client);
            let end = end(&mut peer.stream).await;
            assert!(is_reset(&end), "{door:?}, half-closed: {half_closed}: {end:?}");

            let Ends { mut client, mut peer, http2: _http2 } = open(&gate, &mut upstream, door).await;
            peer.send("before").await;
            assert_eq!(client.take(6).await, b"before");
            if half_closed {
                client.stream.shutdown().await.unwrap();
                assert!(peer.rest().await.is_empty());
            }
            reset_on_drop(&peer.stream);
            drop(peer);
            let end = self::end(&mut client.stream).await;
            assert!(is_reset(&end), "{door:?}, half-closed: {half_closed}: {end:?}");
        }
    }
}

#[tokio::test]
async fn without_frames_a_reset_is_passed_while_the_other_side_takes_nothing() {
    for door in Door::ALL {
        let mut upstream = Upstream::start().await;
        let gate = Gate::before(&upstream.url, "frames = \"off\"\nclose_timeout = \"500ms\"", "").await;
        let Ends { mut client, mut peer, http2: _http2 } = open(&gate, &mut upstream, door).await;
        let chunk = vec![7; 1 << 20];
        while let Ok(written) = timeout(Duration::from_millis(300), peer.stream.write(&chunk)).await {
            written.unwrap();
        }
        reset_on_drop(&peer.stream);
        drop(peer);
        let mut got = Vec::new();
        let end = within("an end", client.stream.read_to_end(&mut got)).await;
        assert!(end.is_err(), "{door:?}: {} bytes and an orderly end", got.len());
    }
}

#[tokio::test]
async fn without_frames_an_orderly_end_stays_one() {
    for door in Door::ALL {
        let mut upstream = Upstream::start().await;
        let gate = Gate::before(&upstream.url, "frames = \"off\"", "").await;
        let Ends { mut client, mut peer, http2: _http2 } = open(&gate, &mut upstream, door).await;
        peer.send("all of it").await;
        drop(peer);
        assert_eq!(end(&mut client.stream).await.unwrap(), b"all of it", "{door:?}");
        let Ends { mut client, mut peer, http2: _http2 } = open(&gate, &mut upstream, door).await;
        client.send("all of it").await;
        client.stream.shutdown().await.unwrap();
        assert_eq!(end(&mut peer.stream).await.unwrap(), b"all of it", "{door:?}");
    }
}

#[tokio::test]
async fn without_frames_resets_pass_between_a_client_and_an_upstream_over_http2() {
    let mut upstream = Http2Upstream::with_websockets().await;
    let url = format!("http://127.0.0.1:{}", upstream.port);
    let gate = Gate::before(&url, "frames = \"off\"", "protocol = \"h2\"").await;
    for from_client in [true, false] {
        let mut client = gate.proxy.connect().await;
        client.send(crate::support::handshake("")).await;
        let mut peer = accept_websocket(upstream.accept().await);
        assert_eq!(client.answer().await.status, 101);
        let end = if from_client {
            reset_on_drop(&client.stream);
            drop(client);
            end(&mut peer.stream).await
        } else {
            peer.stream.reset();
            end(&mut client.stream).await
        };
        assert!(is_reset(&end), "from client: {from_client}: {end:?}");
    }
}

#[tokio::test]
async fn with_frames_a_reset_is_a_close_to_the_other_side() {
    for door in Door::ALL {
        for frames in ["enforce", "observe"] {
            let mut upstream = Upstream::start().await;
            let gate = Gate::before(&upstream.url, &format!("frames = \"{frames}\""), "").await;
            let Ends { mut client, mut peer, http2: _http2 } = open(&gate, &mut upstream, door).await;
            client.send(frame(TEXT, b"hello", MASK)).await;
            assert_eq!(peer.frame().await.unwrap().payload, b"hello");
            reset(client);
            assert_eq!((peer.expect_close().await, peer.rest().await), (1001, Vec::new()), "{door:?}");

            let Ends { mut client, peer, http2: _http2 } = open(&gate, &mut upstream, door).await;
            reset_on_drop(&peer.stream);
            drop(peer);
            assert_eq!(client.expect_close().await, 1012, "{door:?}");
            client.send(close(1012, MASK)).await;
            assert!(end(&mut client.stream).await.unwrap().is_empty(), "{door:?}");
        }
    }
}

/// A connection in clear or over TLS.
async fn http1(gate: &Gate, door: Door) -> Client<Wire> {
    Client::new(match door {
        Door::Clear => Wire::Tcp(gate.proxy.connect().await.stream),
        _ => Wire::boxed(gate.secure(&[]).await),
    })
}

/// How a peer leaves in the middle of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaves {
    Reset,
    End,
}

#[tokio::test]
async fn a_response_that_breaks_off_is_a_reset_to_the_client() {
    const CHUNKED: (&str, &str) = ("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n");
    const LENGTH: (&str, &str) = ("Content-Length: 10000\r\n", "hello");
    const TO_THE_END: (&str, &str) = ("Connection: close\r\n", "hello");
    let mut upstream = Upstream::start().await;
    let gate = Gate::before(&upstream.url, "", "").await;
    for (version, (framing, body), leaves) in [
        ("1.1", CHUNKED, Leaves::Reset),
        ("1.1", CHUNKED, Leaves::End),
        ("1.1", LENGTH, Leaves::Reset),
        ("1.1", LENGTH, Leaves::End),
        ("1.1", TO_THE_END, Leaves::Reset),
        // To such a client the end of the connection is the end of the body.
        ("1.0", CHUNKED, Leaves::Reset),
        ("1.0", CHUNKED, Leaves::End),
        ("1.0", TO_THE_END, Leaves::Reset),
    ] {
        for door in Door::ALL {
            let what = format!("{door:?}, HTTP/{version}, {framing:?}, {leaves:?}");
            let text = format!("GET / HTTP/{version}\r\nHost: gate.test\r\n\r\n");
            let begin = async {
                let mut peer = upstream.accept().await;
                peer.head().await;
                peer.send(format!("HTTP/1.1 200 OK\r\n{framing}\r\n{body}")).await;
                peer
            };
            let leave = |peer: Client<tokio::net::TcpStream>| {
                if leaves == Leaves::Reset {
                    reset_on_drop(&peer.stream);
                }
            };
            if door == Door::Http2 {
                let mut http2 = gate.http2().await;
                let ((response, _send), peer) = tokio::join!(http2.open(http2_request(&text)), begin);
                let mut stream = response.into_body();
                assert_eq!(within("data", stream.data()).await.unwrap().unwrap(), "hello", "{what}");
                leave(peer);
                let end = timeout(AT_ONCE, stream.data()).await.expect("an end at once");
                assert!(matches!(end, Some(Err(_))), "{what}: {end:?}");
                continue;
            }
            let mut client = http1(&gate, door).await;
            client.send(&text).await;
            let peer = begin.await;
            client.head().await;
            while !client.take(1).await.ends_with(b"o") {}
            leave(peer);
            let end = end(&mut client.stream).await;
            assert!(is_reset(&end), "{what}: {end:?}");
        }
    }
}

#[tokio::test]
async fn a_request_that_breaks_off_is_a_reset_to_the_upstream() {
    let mut upstream = Upstream::start().await;
    let gate = Gate::before(&upstream.url, "", "").await;
    for (framing, body) in
        [("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n"), ("Content-Length: 10000\r\n", "hello")]
    {
        for leaves in [Leaves::Reset, Leaves::End] {
            for door in [Door::Clear, Door::Tls] {
                let mut client = http1(&gate, door).await;
                client.send(format!("POST / HTTP/1.1\r\nHost: gate.test\r\n{framing}\r\n{body}")).await;
                let mut peer = upstream.accept().await;
                peer.head().await;
                peer.take(body.len()).await;
                if leaves == Leaves::Reset {
                    reset(client);
                } else {
                    client.stream.shutdown().await.unwrap();
                    drop(client);
                }
                let end = end(&mut peer.stream).await;
                assert!(is_reset(&end), "{door:?}, {framing:?}, {leaves:?}: {end:?}");
            }
        }
    }
    let mut http2 = gate.http2().await;
    let text = "POST / HTTP/1.1\r\nHost: gate.test\r\n\r\n";
    let (_response, mut send) = http2.requests.send_request(http2_request(text), false).unwrap();
    send.send_data(Bytes::from_static(b"hello"), false).unwrap();
    let mut peer = upstream.accept().await;
    peer.head().await;
    peer.take(b"5\r\nhello\r\n".len()).await;
    send.send_reset(Reason::CANCEL);
    let end = end(&mut peer.stream).await;
    assert!(is_reset(&end), "HTTP/2: {end:?}");
}

#[tokio::test]
async fn a_client_that_resets_in_a_response_is_a_reset_to_the_upstream() {
    let mut upstream = Upstream::start().await;
    let gate = Gate::before(&upstream.url, "", "").await;
    let text = "GET / HTTP/1.1\r\nHost: gate.test\r\n\r\n";
    for door in Door::ALL {
        let begin = async {
            let mut peer = upstream.accept().await;
            peer.head().await;
            peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n").await;
            peer
        };
        let mut peer = if door == Door::Http2 {
            let mut http2 = gate.http2().await;
            let ((response, mut send), peer) = tokio::join!(http2.open(http2_request(text)), begin);
            assert_eq!(response.status(), 200);
            send.send_reset(Reason::CANCEL);
            // The reset leaves with the connection's next turn.
            tokio::task::yield_now().await;
            (peer, Some(http2)).0
        } else {
            let mut client = http1(&gate, door).await;
            client.send(text).await;
            let peer = begin.await;
            client.head().await;
            reset(client);
            peer
        };
        let mut got = Vec::new();
        let end = within("an end", peer.stream.read_to_end(&mut got)).await.map(|_| got);
        assert!(is_reset(&end), "{door:?}: {end:?}");
    }
}
