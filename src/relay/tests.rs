//! The relay over in-memory pipes: exact bytes, either closing order, slow sides, timers on paused time.

#![allow(clippy::disallowed_methods, reason = "tests start their own peers")]

use std::{future::pending, time::Duration};

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::*;

fn leg(stream: DuplexStream, early: &'static [u8]) -> Leg<DuplexStream> {
    Leg { stream, early: Bytes::from_static(early) }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
}

#[tokio::test(start_paused = true)]
async fn early_bytes_of_both_sides_go_first() {
    let (mut client, down) = duplex(64);
    let (mut server, up) = duplex(64);
    client.write_all(b" then this").await.unwrap();
    client.shutdown().await.unwrap();
    let relay = tokio::spawn(relay(leg(down, b"early"), leg(up, b"greeting"), None, pending()));
    let mut got = Vec::new();
    server.read_to_end(&mut got).await.unwrap();
    assert_eq!(got, b"early then this");
    // The client has ended its half; the other still carries.
    server.write_all(b" and an answer").await.unwrap();
    server.shutdown().await.unwrap();
    got.clear();
    client.read_to_end(&mut got).await.unwrap();
    assert_eq!(got, b"greeting and an answer");
    let report = relay.await.unwrap();
    assert!(matches!(report.end, End::Closed));
    assert_eq!(report.first_to_end, Some(Side::Downstream));
    assert_eq!((report.to_upstream, report.to_downstream), (15, 22));
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_holds_the_fast_sender() {
    let (mut client, down) = duplex(1024);
    let (_server_that_never_reads, up) = duplex(1024);
    let relay = tokio::spawn(relay(leg(down, b""), leg(up, b""), Some(Duration::from_secs(60)), pending()));
    let mut sent = 0;
    while let Ok(written) = tokio::time::timeout(Duration::from_secs(1), client.write(&[7; 1024])).await {
        sent += written.unwrap();
        assert!(sent < 1024 * 1024, "the relay takes in without bound");
    }
    assert!(matches!(relay.await.unwrap().end, End::Idle(_)));
}

#[tokio::test(start_paused = true)]
async fn silence_in_both_directions_ends_it_and_traffic_in_one_does_not() {
    let (mut client, down) = duplex(64);
    let (mut server, up) = duplex(64);
    let begun = Instant::now();
    let relay = tokio::spawn(relay(leg(down, b""), leg(up, b""), Some(Duration::from_secs(10)), pending()));
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_secs(8)).await;
        server.write_all(b"x").await.unwrap();
        assert_eq!(client.read_u8().await.unwrap(), b'x');
    }
    let report = relay.await.unwrap();
    assert!(matches!(report.end, End::Idle(limit) if limit == Duration::from_secs(10)));
    assert_eq!(begun.elapsed().as_secs(), 34);
    assert_eq!(report.first_to_end, None);
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_both_sides() {
    let (mut client, down) = duplex(64);
    let (mut server, up) = duplex(64);
    let report = relay(leg(down, b""), leg(up, b""), None, async {}).await;
    assert!(matches!(report.end, End::Stopped));
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
    assert_eq!(server.read(&mut [0]).await.unwrap(), 0);
}

proptest! {
    #[test]
    fn what_goes_in_comes_out_for_any_chunking(
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 0..20),
        room in 1usize..200,
        read_size in 1usize..400,
        server_ends_first: bool,
    ) {
        let all: Vec<u8> = chunks.concat();
        let got = runtime().block_on(async {
            let (mut client, down) = duplex(room);
            let (mut server, up) = duplex(room);
            let relay = tokio::spawn(relay(leg(down, b""), leg(up, b""), None, pending()));
            if server_ends_first {
                server.shutdown().await.unwrap();
            }
            let writer = tokio::spawn(async move {
                for chunk in chunks {
                    client.write_all(&chunk).await.unwrap();
                }
                client.shutdown().await.unwrap();
                client
            });
            let mut got = Vec::new();
            let mut buffer = vec![0; read_size];
            loop {
                let count = server.read(&mut buffer).await.unwrap();
                if count == 0 { break }
                got.extend_from_slice(&buffer[..count]);
            }
            server.shutdown().await.unwrap();
            drop(writer.await.unwrap());
            assert!(matches!(relay.await.unwrap().end, End::Closed));
            got
        });
        prop_assert_eq!(got, all);
    }
}
