//! The relay behind a switch: exact bytes, closing, resets, silence, drain; frames on the wire.

use std::time::Duration;

use serde_json::Value;
use switchgate::net::Wire;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{
    Client, Proxy, Upstream, accepted,
    frames::{BINARY, CLOSE, MASK, PING, PONG, TEXT, close, frame, reset_on_drop},
    handshake,
    process::{DEVELOPMENT, Process},
    within,
};

/// Two sides whose bytes are just bytes.
async fn bytes(route: &str, rest: &str) -> (Proxy, Client<TcpStream>, Client<TcpStream>) {
    switched(&format!("frames = \"off\"\n{route}"), rest).await
}

async fn switched(route: &str, rest: &str) -> (Proxy, Client<TcpStream>, Client<TcpStream>) {
    let mut upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream.url, route, rest).await;
    let mut client = proxy.connect().await;
    let peer = upstream.switch(&mut client).await;
    (proxy, client, peer)
}

#[tokio::test]
async fn a_flood_both_ways_comes_out_exact() {
    let (_proxy, client, peer) = bytes("", "").await;
    let bytes = |seed: u32| (0..4_000_000u32).map(|i| i.wrapping_mul(seed).to_le_bytes()[1]).collect::<Vec<u8>>();
    let exchange = |stream: TcpStream, sent: Vec<u8>, awaited: Vec<u8>| async move {
        let (mut reader, mut writer) = stream.into_split();
        let write = tokio::spawn(async move {
            writer.write_all(&sent).await.unwrap();
            writer.shutdown().await.unwrap();
        });
        let mut got = Vec::new();
        reader.read_to_end(&mut got).await.unwrap();
        assert!(got == awaited, "{} of {} bytes", got.len(), awaited.len());
        write.await.unwrap();
    };
    let down = exchange(client.stream, bytes(31), bytes(17));
    let up = exchange(peer.stream, bytes(17), bytes(31));
    within("flood", async { tokio::join!(down, up) }).await;
}

#[tokio::test]
async fn half_a_close_is_carried_across_either_way() {
    let (_proxy, mut client, mut peer) = bytes("", "").await;
    client.stream.shutdown().await.unwrap();
    assert!(peer.rest().await.is_empty());
    peer.send("still here").await;
    assert_eq!(client.take(10).await, b"still here");
    drop(peer);
    assert!(client.rest().await.is_empty());
}

#[tokio::test]
async fn a_reset_of_one_side_ends_the_other_at_once() {
    let (_proxy, client, mut peer) = bytes("idle_timeout = \"off\"", "").await;
    reset_on_drop(&client.stream);
    drop(client);
    within("end of the upstream side", peer.rest()).await;

    let (_proxy, mut client, peer) = bytes("idle_timeout = \"off\"", "").await;
    reset_on_drop(&peer.stream);
    drop(peer);
    within("end of the client side", client.rest()).await;
}

#[tokio::test]
async fn a_reset_is_noticed_while_the_other_side_takes_nothing() {
    let (_proxy, mut client, mut peer) = bytes("idle_timeout = \"off\"", "").await;
    // Fill the way to the upstream, which reads nothing, until the client cannot write any more.
    let chunk = vec![7; 1 << 20];
    while let Ok(written) = tokio::time::timeout(Duration::from_millis(500), client.stream.write(&chunk)).await {
        written.unwrap();
    }
    reset_on_drop(&client.stream);
    drop(client);
    // Only then is it read: the relay must have ended by itself.
    within("end of the upstream side", peer.rest()).await;
}

#[tokio::test]
async fn silence_ends_it_after_the_idle_timeout() {
    let (_proxy, mut client, mut peer) = bytes("idle_timeout = \"200ms\"", "").await;
    assert!(client.rest().await.is_empty() && peer.rest().await.is_empty());
}

#[tokio::test]
async fn a_stop_gives_relays_their_grace_and_then_cuts_them() {
    let (proxy, mut client, mut peer) = bytes("", "[drain]\ngrace = \"300ms\"").await;
    let address = proxy.addresses[0];
    let stopped = proxy.stop();
    client.send("busy").await;
    assert_eq!(peer.take(4).await, b"busy");
    let outcome = within("stop", stopped).await.unwrap();
    assert_eq!((outcome.cut.relays, outcome.cut.connections), (1, 0));
    assert!(client.rest().await.is_empty());
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_stop_without_work_is_immediate_and_cuts_nothing() {
    let proxy = Proxy::echo("").await;
    let _idle = proxy.connect().await;
    let outcome = within("stop", proxy.stop()).await.unwrap();
    assert_eq!(outcome.cut.relays + outcome.cut.connections, 0);
}

/// The program itself with a WebSocket through it, whose frames it follows; the client is plain or comes over TLS.
struct Tunnel {
    process: Process,
    client: Client<Wire>,
    peer: Client<TcpStream>,
}

impl Tunnel {
    async fn open(tls: bool, route: &str) -> Self {
        Self::open_with(tls, route, "").await
    }

    /// `early` goes out together with the handshake.
    async fn open_with(tls: bool, route: &str, early: &str) -> Self {
        let mut upstream = Upstream::start().await;
        let listener = if tls { DEVELOPMENT } else { "" };
        let process = Process::start(&format!(
            "[[listener]]\nlisten = \"127.0.0.1:0\"\n{listener}[[route]]\nupstream = \"u\"\n{route}\n\
             [upstream.u]\nurl = \"{}\"\n",
            upstream.url
        ))
        .await;
        let socket = TcpStream::connect(&process.addresses[0]).await.unwrap();
        socket.set_nodelay(true).unwrap();
        // Whoever just lets go of it is gone the rough way; who closes in order does so with frames.
        reset_on_drop(&socket);
        let mut client = process.through(socket).await;
        client.send(handshake("") + early).await;
        let mut peer = upstream.accept().await;
        peer.stream.set_nodelay(true).unwrap();
        peer.head().await;
        peer.send(accepted("")).await;
        assert_eq!(client.answer().await.status, 101);
        Self { process, client, peer }
    }

    /// Both sides are told this code, both answer, and nothing more comes to either; the event of the end.
    async fn closed_with(mut self, code: u16) -> Value {
        let to_upstream = self.peer.frame().await.expect("a Close upstream");
        assert!(to_upstream.masked, "what goes upstream comes from a client (RFC 6455 section 5.1)");
        assert_eq!((to_upstream.code(), self.client.expect_close().await), (Some(code), code));
        let Self { mut process, mut client, mut peer } = self;
        client.send(close(code, MASK)).await;
        peer.send(close(code, None)).await;
        // Each hangs up when it is hung up on: nobody goes on listening to a side that broke a rule.
        tokio::join!(async move { assert_eq!(client.frame().await, None) }, async move {
            assert_eq!(peer.frame().await, None);
        });
        process.event("websocket ended").await
    }
}

fn pattern(size: u32, seed: u32) -> Vec<u8> {
    (0..size).map(|at| at.wrapping_mul(seed).to_le_bytes()[1]).collect()
}

const SMUGGLED: &str = "GET /admin HTTP/1.1\r\nHost: gate.test\r\n\r\n";

#[tokio::test]
async fn http_spoken_into_the_tunnel_is_1002_and_none_of_it_passes() {
    for tls in [false, true] {
        let mut wire = Tunnel::open(tls, "").await;
        wire.client.send(SMUGGLED).await;
        let end = wire.closed_with(1002).await;
        assert_eq!((&end["closed_by"], &end["bytes_to_upstream"]), (&"switchgate".into(), &8.into()), "{end}");
        assert!(end["reason"].as_str().unwrap().starts_with("frame-"), "{end}");

        // Sent before the 101, it is held until then, and judged like what comes after.
        let end = Tunnel::open_with(tls, "", SMUGGLED).await.closed_with(1002).await;
        assert_eq!(end["bytes_to_upstream"], 8, "{end}");

        let mut wire = Tunnel::open(tls, "").await;
        let hello = frame(TEXT, b"hello", MASK);
        wire.client.send([&hello[..], SMUGGLED.as_bytes()].concat()).await;
        assert_eq!(wire.peer.take(hello.len()).await, hello);
        wire.closed_with(1002).await;

        let mut wire = Tunnel::open(tls, "").await;
        wire.peer.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
        let end = wire.closed_with(1002).await;
        assert_eq!(end["bytes_to_client"], 4, "{end}");
    }
}

#[tokio::test]
async fn a_message_beyond_the_limit_is_1009_either_way() {
    for tls in [false, true] {
        for from_client in [true, false] {
            let mut wire = Tunnel::open(tls, "max_message_size = \"1KiB\"").await;
            let mask = MASK.filter(|_| from_client);
            let fits = frame(BINARY, &pattern(1024, 7), mask);
            let begins = frame(BINARY & 0x7f, &pattern(600, 11), mask);
            let exceeds = frame(0x80, &pattern(425, 13), mask);
            let (sent, passes) = ([fits.clone(), begins.clone(), exceeds].concat(), [fits, begins].concat());
            let got = if from_client {
                wire.client.send(sent).await;
                wire.peer.take(passes.len()).await
            } else {
                wire.peer.send(sent).await;
                wire.client.take(passes.len()).await
            };
            assert!(got == passes);
            assert_eq!(wire.closed_with(1009).await["reason"], "max-message-size");
        }
    }
}

#[tokio::test]
async fn an_upstream_that_is_killed_is_told_to_its_client() {
    for (tls, route, code) in [(false, "", 1012), (true, "", 1012), (false, "upstream_lost_code = 1011", 1011)] {
        let mut wire = Tunnel::open(tls, route).await;
        let hello = frame(TEXT, b"hello", None);
        wire.peer.send(&hello).await;
        assert_eq!(wire.client.take(hello.len()).await, hello);
        reset_on_drop(&wire.peer.stream);
        drop(wire.peer);
        assert_eq!(wire.client.expect_close().await, code);
        wire.client.send(close(code, MASK)).await;
        assert_eq!(wire.client.frame().await, None);
        let end = wire.process.event("websocket ended").await;
        assert_eq!((&end["closed_by"], &end["reason"]), (&"upstream".into(), &"reset".into()), "{end}");
        assert_eq!((&end["client_code"], &end["upstream_code"]), (&code.into(), &1006.into()), "{end}");
    }
}

#[tokio::test]
async fn a_client_that_is_killed_is_told_to_its_upstream() {
    for tls in [false, true] {
        let mut wire = Tunnel::open(tls, "").await;
        drop(wire.client);
        let said = wire.peer.frame().await.expect("a Close");
        assert!(said.masked && said.code() == Some(1001), "{said:?}");
        wire.peer.send(close(1001, None)).await;
        assert_eq!(wire.peer.frame().await, None);
        let end = wire.process.event("websocket ended").await;
        assert_eq!((&end["closed_by"], &end["reason"]), (&"downstream".into(), &"reset".into()), "{end}");
        assert_eq!((&end["client_code"], &end["upstream_code"]), (&1006.into(), &1001.into()), "{end}");
    }
}

#[tokio::test]
async fn a_side_that_is_killed_within_a_frame_ends_the_other_at_once() {
    for tls in [false, true] {
        for kills_client in [false, true] {
            let Tunnel { mut process, mut client, mut peer } = Tunnel::open(tls, "close_timeout = \"1m\"").await;
            // In it no Close can be set down, and none is waited for.
            let mask = MASK.filter(|_| kills_client);
            let half = &frame(BINARY, &pattern(1000, 7), mask)[..500];
            if kills_client {
                client.send(half).await;
                assert_eq!(peer.take(500).await, half);
                drop(client);
                assert!(peer.rest().await.is_empty());
            } else {
                peer.send(half).await;
                assert_eq!(client.take(500).await, half);
                reset_on_drop(&peer.stream);
                drop(peer);
                assert!(client.rest().await.is_empty());
            }
            assert_eq!(process.event("websocket ended").await["reason"], "reset");
        }
    }
}

#[tokio::test]
async fn a_side_that_answers_no_ping_is_dead_and_its_pongs_stay_here() {
    for tls in [false, true] {
        let mut wire = Tunnel::open(tls, "ping = { every = \"200ms\", timeout = \"400ms\" }").await;
        let ping = wire.client.frame().await.unwrap();
        assert_eq!((ping.first, ping.masked), (PING, false));
        let own = frame(PONG, b"unasked", MASK);
        wire.client.send([frame(PONG, &ping.payload, MASK), own.clone()].concat()).await;
        assert_eq!(wire.peer.take(own.len()).await, own, "ours is taken out, its own passes");
        assert_eq!(wire.client.frame().await.unwrap().first, PING, "asked again after a further silence");
        let said = wire.peer.frame().await.expect("a Close");
        assert!(said.masked && said.code() == Some(1001), "{said:?}");
        wire.peer.send(close(1001, None)).await;
        assert_eq!(wire.peer.frame().await, None);
        assert_eq!(wire.client.frame().await, None);
        let end = wire.process.event("websocket ended").await;
        assert_eq!((&end["reason"], &end["client_code"]), (&"peer_dead".into(), &1006.into()), "{end}");

        let mut wire = Tunnel::open(tls, "ping = { every = \"200ms\", timeout = \"400ms\", to = \"upstream\" }").await;
        let ping = wire.peer.frame().await.unwrap();
        assert_eq!((ping.first, ping.masked), (PING, true));
        let own = frame(PONG, b"unasked", None);
        wire.peer.send([frame(PONG, &ping.payload, None), own.clone()].concat()).await;
        assert_eq!(wire.client.take(own.len()).await, own);
        assert_eq!(wire.client.expect_close().await, 1001);
        wire.client.send(close(1001, MASK)).await;
        assert_eq!(wire.process.event("websocket ended").await["reason"], "peer_dead");
    }
}

#[tokio::test]
async fn frames_that_come_byte_by_byte_pass_unchanged() {
    let frames = |mask| {
        let kinds: [(u8, &[u8]); 8] = [
            (TEXT, b"hello"),
            (0x01, b"in "),
            (PING, b"between"),
            (0x80, b"pieces"),
            (BINARY, &pattern(126, 3)),
            (BINARY, b""),
            (PONG, b""),
            (CLOSE, &[0x0f, 0xa1, b'd', b'o', b'n', b'e']),
        ];
        kinds.map(|(first, payload)| frame(first, payload, mask)).concat()
    };
    let (up, down) = (frames(MASK), frames(None));
    for tls in [false, true] {
        let Tunnel { mut process, mut client, mut peer } = Tunnel::open(tls, "").await;
        // In turns, so that the kernel has nothing to join on the way.
        for at in 0..up.len().max(down.len()) {
            if let Some(byte) = up.get(at) {
                client.send([*byte]).await;
            }
            if let Some(byte) = down.get(at) {
                peer.send([*byte]).await;
            }
            tokio::task::yield_now().await;
        }
        assert!(peer.take(up.len()).await == up && client.take(down.len()).await == down, "tls {tls}");
        drop(client);
        drop(peer);
        let end = process.event("websocket ended").await;
        assert_eq!((&end["client_code"], &end["upstream_code"]), (&4001.into(), &4001.into()), "{end}");
        assert_eq!((&end["messages_to_upstream"], &end["messages_to_client"]), (&4.into(), &4.into()), "{end}");
        assert_eq!((&end["reason"], &end["client_reason"]), (&"closed".into(), &"done".into()), "{end}");
    }
}

const BIG: u32 = 5 << 20;

#[tokio::test]
async fn a_big_message_and_small_ones_behind_it_pass_exact() {
    for tls in [false, true] {
        let Tunnel { mut process, mut client, mut peer } = Tunnel::open(tls, "").await;
        let stream = |mask, seed| {
            let small = (1..=20).map(|size| frame(TEXT, &pattern(size, seed), mask));
            let pieces = [frame(0x02, &pattern(70_000, seed), mask), frame(0x80, &pattern(200_000, seed), mask)];
            let all = [frame(BINARY, &pattern(BIG, seed), mask)].into_iter().chain(small).chain(pieces);
            all.chain([frame(TEXT, b"last", mask)]).collect::<Vec<_>>().concat()
        };
        let (up, down) = (stream(MASK, 31), stream(None, 17));
        let pipes = process.open_files().pipes;
        let half = BIG as usize / 2;
        let (first, rest) = up.split_at(half);
        let (_, mut got) = tokio::join!(client.send(first), peer.take(half));
        // Half of it has passed: between plain sockets it does so through a pipe, without a copy.
        assert_eq!(process.open_files().pipes > pipes, !tls, "tls {tls}");
        let ((), more) = tokio::join!(client.send(rest), peer.take(rest.len()));
        got.extend(more);
        assert!(got == up, "upstream, tls {tls}");
        let ((), got) = tokio::join!(peer.send(&down), client.take(down.len()));
        assert!(got == down, "downstream, tls {tls}");
        client.send(close(1000, MASK)).await;
        peer.send(close(1000, None)).await;
        assert_eq!((peer.expect_close().await, client.expect_close().await), (1000, 1000));
        drop((client, peer));
        let end = process.event("websocket ended").await;
        assert_eq!((&end["messages_to_upstream"], &end["messages_to_client"]), (&23.into(), &23.into()), "{end}");
        assert_eq!(end["bytes_to_upstream"], up.len() + 8, "{end}");
    }
}

#[tokio::test]
async fn a_close_of_ours_waits_for_the_end_of_a_big_message() {
    for tls in [false, true] {
        let mut wire = Tunnel::open(tls, "close_timeout = \"20s\"\n[drain]\nspread = \"50ms\"").await;
        let sent = frame(BINARY, &pattern(BIG, 31), MASK);
        let (half, rest) = sent.split_at(sent.len() / 2);
        let ((), mut got) = tokio::join!(wire.client.send(half), wire.peer.take(half.len()));
        wire.process.terminate();
        assert_eq!(wire.client.expect_close().await, 1001, "the client's side stands between two frames");
        let late = [rest, &frame(TEXT, b"behind it", MASK), &close(1001, MASK)].concat();
        let ((), more) = tokio::join!(wire.client.send(late), wire.peer.take(rest.len()));
        got.extend(more);
        assert!(got == sent, "tls {tls}");
        let said = wire.peer.frame().await.expect("a Close");
        assert!(said.masked && said.code() == Some(1001), "{said:?}");
        wire.peer.send(close(1001, None)).await;
        assert_eq!(wire.peer.frame().await, None);
        assert_eq!(wire.client.frame().await, None);
        let end = wire.process.event("websocket ended").await;
        assert_eq!((&end["reason"], &end["messages_to_upstream"]), (&"drain".into(), &1.into()), "{end}");
    }
}
