//! Resets: what one side loses is not an orderly end to the other (RFC 9112 §8, RFC 9113 §8.1, RFC 8441 §5).

use std::{io, time::Duration};

use switchgate::net::{Io, Wire};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use crate::support::{
    Client, Upstream,
    doors::{Door, Gate},
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
