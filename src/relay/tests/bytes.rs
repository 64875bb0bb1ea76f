//! What is carried, whatever it means: exact bytes, either closing order, slow sides.

use proptest::prelude::*;
use tokio::time::Instant;

use super::*;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
}

#[tokio::test(start_paused = true)]
async fn early_bytes_of_both_sides_go_first() {
    let mut rig = Rig::with(off(), Session::default(), 64, (b"early", b"greeting"));
    rig.client.stream.write_all(b" then this").await.unwrap();
    rig.client.stream.shutdown().await.unwrap();
    let mut got = Vec::new();
    rig.server.stream.read_to_end(&mut got).await.unwrap();
    assert_eq!(got, b"early then this");
    // The client has ended its half; the other still carries.
    rig.server.stream.write_all(b" and an answer").await.unwrap();
    rig.server.stream.shutdown().await.unwrap();
    got.clear();
    rig.client.stream.read_to_end(&mut got).await.unwrap();
    assert_eq!(got, b"greeting and an answer");
    let report = rig.report().await;
    assert!(matches!(report.end, End::Closed));
    assert_eq!(report.first_to_end, Some(Side::Downstream));
    assert_eq!((report.to_upstream.bytes, report.to_downstream.bytes), (15, 22));
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_holds_the_fast_sender() {
    let mut rig = Rig::with(
        Policy { idle_timeout: Some(Duration::from_secs(60)), ..off() },
        Session::default(),
        1024,
        (b"", b""),
    );
    let mut sent = 0;
    while let Ok(written) = tokio::time::timeout(Duration::from_secs(1), rig.client.stream.write(&[7; 1024])).await {
        sent += written.unwrap();
        assert!(sent < 1024 * 1024, "the relay takes in without bound");
    }
    assert!(matches!(rig.relay.await.unwrap().end, End::Idle(_)));
}

#[tokio::test(start_paused = true)]
async fn a_cut_ends_both_sides_at_once() {
    let begun = Instant::now();
    let mut rig = Rig::new(Policy::default());
    rig.control.cut();
    rig.client.expect_end().await;
    rig.server.expect_end().await;
    assert!(matches!(rig.report().await.end, End::Cut));
    assert!(begun.elapsed() < Duration::from_millis(10));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn what_goes_in_comes_out_for_any_chunking(
        payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..20),
        cut in 1usize..400,
        room in 1usize..200,
        read_size in 1usize..400,
        framed: bool,
        server_ends_first: bool,
    ) {
        let mask = Some([9, 8, 7, 6]);
        let all: Vec<u8> = payloads.iter().flat_map(|payload| data(0x82, payload, mask)).collect();
        let chunks: Vec<Vec<u8>> = all.chunks(cut).map(<[u8]>::to_vec).collect();
        // Framed, it ends with a Close: otherwise one of ours would be added, which is no part of what went in.
        let goodbye = if framed { frame::control(ControlKind::Close, &[], mask) } else { Vec::new() };
        let expected = [all, goodbye.clone()].concat();
        let got = runtime().block_on(async {
            let policy = if framed { Policy::default() } else { off() };
            let mut rig = Rig::with(policy, Session::default(), room, (b"", b""));
            if server_ends_first && !framed {
                rig.server.stream.shutdown().await.unwrap();
            }
            let mut client = rig.client.stream;
            let writer = tokio::spawn(async move {
                for chunk in chunks {
                    client.write_all(&chunk).await.unwrap();
                }
                client.write_all(&goodbye).await.unwrap();
                client.shutdown().await.unwrap();
                client
            });
            let mut got = Vec::new();
            let mut buffer = vec![0; read_size];
            // The end of the stream comes with the answer to a Close, not before it.
            while !framed || got.len() < expected.len() {
                let count = rig.server.stream.read(&mut buffer).await.unwrap();
                if count == 0 { break }
                got.extend_from_slice(&buffer[..count]);
            }
            if framed {
                let goodbye = frame::control(ControlKind::Close, &[], None);
                rig.server.stream.write_all(&goodbye).await.unwrap();
            }
            rig.server.stream.shutdown().await.unwrap();
            let mut client = writer.await.unwrap();
            let mut left = Vec::new();
            client.read_to_end(&mut left).await.unwrap();
            let report = rig.relay.await.unwrap();
            assert!(matches!(report.end, End::Closed), "{report:?}");
            got
        });
        prop_assert_eq!(got, expected);
    }
}
