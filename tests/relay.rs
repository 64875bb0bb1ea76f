//! The relay behind a switch: exact bytes, closing, resets, silence, drain.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{Client, Proxy, Upstream, accepted, handshake, within};

/// Two sides whose bytes are just bytes.
async fn bytes(route: &str, rest: &str) -> (Proxy, Client<TcpStream>, Client<TcpStream>) {
    switched(&format!("frames = \"off\"\n{route}"), rest).await
}

async fn switched(route: &str, rest: &str) -> (Proxy, Client<TcpStream>, Client<TcpStream>) {
    let mut upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream.url, route, rest).await;
    let mut client = proxy.connect().await;
    client.send(handshake("")).await;
    let mut peer = upstream.accept().await;
    peer.head().await;
    peer.send(accepted("")).await;
    assert_eq!(client.answer().await.status, 101);
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
    socket2::SockRef::from(&client.stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    within("end of the upstream side", peer.rest()).await;

    let (_proxy, mut client, peer) = bytes("idle_timeout = \"off\"", "").await;
    socket2::SockRef::from(&peer.stream).set_linger(Some(Duration::ZERO)).unwrap();
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
    socket2::SockRef::from(&client.stream).set_linger(Some(Duration::ZERO)).unwrap();
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
