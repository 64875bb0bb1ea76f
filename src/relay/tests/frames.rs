//! What the relay says and refuses between frames.

use proptest::prelude::*;

use super::{
    super::frames::{Lane, Outlet},
    *,
};
use crate::{
    config::relay_policy::{Excess, Ping, Rate},
    protocol::websocket::frame::{Extensions, Follower, FrameError, FrameRules, Sender, Stop},
};

#[tokio::test(start_paused = true)]
async fn a_broken_rule_ends_it_before_its_first_byte_has_passed() {
    for (what, bytes, code) in [
        ("HTTP spoken into the tunnel", b"GET /admin HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), 1002),
        ("a frame without a mask", data(0x81, b"hi", None), 1002),
        ("a reserved bit", data(0xc1, b"hi", Some([1; 4])), 1002),
        ("a message that is too big", data(0x82, &[0; 101], Some([1; 4])), 1009),
    ] {
        let mut rig = Rig::new(Policy { max_message_size: 100, ..Policy::default() });
        rig.client.send(0x81, b"good").await;
        rig.client.stream.write_all(&bytes).await.unwrap();
        rig.server.expect(0x81, b"good").await;
        rig.server.expect_close(code).await;
        rig.client.expect_close(code).await;
        rig.server.close(code).await;
        drop(rig.client);
        rig.server.expect_end().await;
        let report = rig.relay.await.unwrap();
        assert!(matches!(report.end, End::Broken(Side::Downstream, _)), "{what}: {report:?}");
        assert_eq!(report.to_upstream.messages, 1, "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_breaks_a_rule_is_told_like_a_client() {
    let mut rig = Rig::new(Policy::default());
    rig.server.stream.write_all(&data(0x81, b"masked", Some([1; 4]))).await.unwrap();
    rig.client.expect_close(1002).await;
    rig.server.expect_close(1002).await;
    rig.client.close(1002).await;
    let report = rig.report().await;
    assert!(matches!(report.end, End::Broken(Side::Upstream, FrameError::Masked)), "{report:?}");
}

#[tokio::test(start_paused = true)]
async fn who_breaks_a_rule_still_gets_the_answers_to_what_came_before() {
    let mut rig = Rig::new(Policy::default());
    rig.client.send(0x81, b"good").await;
    rig.client.stream.write_all(&data(0xa1, b"reserved bit", rig.client.mask)).await.unwrap();
    rig.server.expect(0x81, b"good").await;
    rig.server.expect_close(1002).await;
    // A peer that reads one message after the other answers the first before it sees the Close.
    rig.server.send(0x81, b"good indeed").await;
    // Its own code is not the client's: that one is told what it did.
    rig.server.close(1000).await;
    rig.client.expect(0x81, b"good indeed").await;
    rig.client.expect_close(1002).await;
    drop(rig.client);
    let report = rig.relay.await.unwrap();
    assert!(matches!(report.end, End::Broken(Side::Downstream, FrameError::Reserved)), "{report:?}");
    assert_eq!(report.upstream_close.and_then(|goodbye| goodbye.code), Some(1000));
}

#[tokio::test(start_paused = true)]
async fn who_breaks_a_rule_waits_for_its_close_only_so_long() {
    // The other side says nothing at all, or breaks a rule itself, or just hangs up.
    for (what, wait) in [("silent", 1), ("broken too", 0), ("gone", 0)] {
        let begun = tokio::time::Instant::now();
        let mut rig = Rig::new(Policy::default());
        rig.client.stream.write_all(&data(0x81, b"no mask", None)).await.unwrap();
        rig.server.expect_close(1002).await;
        match what {
            "broken too" => rig.server.stream.write_all(&data(0x8f, b"", None)).await.unwrap(),
            "gone" => rig.server.stream.shutdown().await.unwrap(),
            _ => {}
        }
        rig.client.expect_close(1002).await;
        assert_eq!(begun.elapsed().as_secs(), wait, "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_close_of_ours_waits_for_the_end_of_the_frame_but_not_of_the_message() {
    let mut rig = Rig::new(Policy::default());
    let whole = rig.server.frame(0x01, b"first fragment");
    let (half, rest) = whole.split_at(7);
    rig.server.stream.write_all(half).await.unwrap();
    let mut seen = vec![0; 7];
    rig.client.stream.read_exact(&mut seen).await.unwrap();
    assert_eq!(seen, half);
    rig.control.close(1012, Cause::Drain);
    // The other direction stands between two frames and is told at once.
    rig.server.expect_close(1012).await;
    rig.server.stream.write_all(rest).await.unwrap();
    let mut seen = vec![0; rest.len()];
    rig.client.stream.read_exact(&mut seen).await.unwrap();
    assert_eq!(seen, rest);
    rig.client.expect_close(1012).await;
    rig.client.close(1012).await;
    rig.server.close(1012).await;
    let report = rig.report().await;
    assert!(matches!(report.end, End::Asked(1012, Cause::Drain)), "{report:?}");
    assert_eq!(report.first_to_close, None);
    let goodbye = Some(Goodbye { code: Some(1012), reason: "".into() });
    assert_eq!((&report.downstream_close, &report.upstream_close), (&goodbye, &goodbye));
}

#[tokio::test(start_paused = true)]
async fn codes_and_reasons_of_both_sides_are_reported() {
    let mut rig = Rig::new(Policy::default());
    let said = close::payload(4001, "bye");
    rig.client.stream.write_all(&frame::control(ControlKind::Close, &said, rig.client.mask)).await.unwrap();
    rig.server.expect(0x88, &said).await;
    rig.server.close(1000).await;
    rig.client.expect_close(1000).await;
    drop((rig.client, rig.server));
    let report = rig.relay.await.unwrap();
    assert!(matches!(report.end, End::Closed), "{report:?}");
    assert_eq!(report.first_to_close, Some(Side::Downstream));
    assert_eq!(report.downstream_close, Some(Goodbye { code: Some(4001), reason: "bye".into() }));
    assert_eq!(report.upstream_close, Some(Goodbye { code: Some(1000), reason: "".into() }));
}

#[tokio::test(start_paused = true)]
async fn a_side_that_is_gone_without_close_is_told_to_the_other() {
    for (code, policy_code) in [(1012, 1012), (1011, 1011)] {
        let mut rig = Rig::new(Policy { upstream_lost_code: policy_code, ..Policy::default() });
        drop(rig.server);
        rig.client.expect_close(code).await;
        rig.client.close(code).await;
        rig.client.expect_end().await;
        let report = rig.relay.await.unwrap();
        assert_eq!((report.first_to_end, &report.upstream_close), (Some(Side::Upstream), &None), "{report:?}");
    }
    let mut rig = Rig::new(Policy::default());
    drop(rig.client);
    rig.server.expect_close(1001).await;
    rig.server.close(1001).await;
    rig.server.expect_end().await;
    let report = rig.relay.await.unwrap();
    assert_eq!((report.first_to_end, &report.downstream_close), (Some(Side::Downstream), &None), "{report:?}");
}

#[tokio::test(start_paused = true)]
async fn a_side_that_dies_during_the_close_does_not_cut_the_other() {
    let mut rig = Rig::new(Policy::default());
    rig.control.close(1001, Cause::Drain);
    rig.client.expect_close(1001).await;
    rig.server.expect_close(1001).await;
    // The client is gone, and what is written to it fails; the server still has its say.
    drop(rig.client);
    rig.server.send(0x81, b"one more").await;
    rig.server.close(1001).await;
    rig.server.expect_end().await;
    let report = rig.relay.await.unwrap();
    assert!(matches!(report.end, End::Asked(1001, Cause::Drain)), "{report:?}");
    assert_eq!(report.upstream_close, Some(Goodbye { code: Some(1001), reason: "".into() }));
}

#[tokio::test(start_paused = true)]
async fn observed_rules_are_reported_and_their_bytes_pass() {
    let mut rig = Rig::new(Policy { frames: Frames::Observe, ..Policy::default() });
    let bytes = [data(0x81, b"hi", None), b"whatever".to_vec()].concat();
    rig.client.stream.write_all(&bytes).await.unwrap();
    let mut got = vec![0; bytes.len()];
    rig.server.stream.read_exact(&mut got).await.unwrap();
    assert_eq!(got, bytes);
    drop((rig.client, rig.server));
    assert_eq!(rig.relay.await.unwrap().observed, Some((Side::Downstream, FrameError::Unmasked)));
}

#[tokio::test(start_paused = true)]
async fn a_late_pong_to_a_ping_of_ours_is_taken_out_too() {
    let ping = Ping { every: Duration::from_secs(30), timeout: Duration::from_secs(10), client: true, upstream: false };
    let mut rig = Rig::new(Policy { ping: Some(ping), ..Policy::default() });
    let first = rig.client.frame_read().await.unwrap();
    rig.client.send(0x81, b"hi").await;
    rig.server.expect(0x81, b"hi").await;
    let second = rig.client.frame_read().await.unwrap();
    assert!(first.payload != second.payload);
    rig.client.send(0x8a, &first.payload).await;
    rig.client.send(0x8a, &second.payload).await;
    rig.client.send(0x81, b"end").await;
    rig.server.expect(0x81, b"end").await;
}

#[tokio::test(start_paused = true)]
async fn nothing_of_ours_follows_a_close_that_was_only_observed() {
    let mut rig = Rig::new(Policy { frames: Frames::Observe, ..Policy::default() });
    rig.client.close(1000).await;
    rig.server.expect_close(1000).await;
    rig.control.close(1001, Cause::Drain);
    rig.client.expect_close(1001).await;
    rig.server.close(1000).await;
    rig.server.expect_end().await;
}

#[tokio::test(start_paused = true)]
async fn who_began_the_end_is_not_who_answered_it() {
    let mut rig = Rig::new(Policy::default());
    drop(rig.server);
    rig.client.expect_close(1012).await;
    rig.client.close(1012).await;
    rig.client.expect_end().await;
    assert_eq!(rig.relay.await.unwrap().began, Some(Side::Upstream));
    let mut rig = Rig::new(Policy::default());
    rig.control.close(1001, Cause::Drain);
    rig.client.expect_close(1001).await;
    rig.client.close(1001).await;
    rig.client.stream.shutdown().await.unwrap();
    rig.server.expect_close(1001).await;
    rig.server.close(1001).await;
    assert_eq!(rig.relay.await.unwrap().began, None);
}

#[tokio::test(start_paused = true)]
async fn bits_of_a_negotiated_extension_pass() {
    let session = Session { extensions: Extensions::Deflate, ..Session::default() };
    let mut rig = Rig::with(Policy::default(), session, 1024, (b"", b""));
    rig.client.send(0xc1, b"deflated").await;
    rig.server.expect(0xc1, b"deflated").await;
}

#[tokio::test(start_paused = true)]
async fn beyond_its_rate_a_client_is_closed_or_held() {
    let rate = |excess| Some(Rate { bytes: None, messages: Some(10), excess });
    let mut rig = Rig::new(Policy { rate: rate(Excess::Close), ..Policy::default() });
    for _ in 0..11 {
        rig.client.send(0x81, b"x").await;
    }
    rig.client.expect_close(1008).await;
    for _ in 0..11 {
        rig.server.expect(0x81, b"x").await;
    }
    rig.server.expect_close(1008).await;

    let mut rig = Rig::new(Policy { rate: rate(Excess::Hold), ..Policy::default() });
    let begun = tokio::time::Instant::now();
    for _ in 0..30 {
        rig.client.send(0x81, b"x").await;
        rig.server.expect(0x81, b"x").await;
    }
    assert!(begun.elapsed() > Duration::from_millis(1800), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn the_pong_to_a_ping_of_ours_is_taken_out_and_others_pass() {
    let ping = Ping { every: Duration::from_secs(30), timeout: Duration::from_secs(10), client: true, upstream: true };
    let mut rig = Rig::new(Policy { ping: Some(ping), ..Policy::default() });
    for peer in [&mut rig.client, &mut rig.server] {
        let asked = peer.frame_read().await.unwrap();
        assert_eq!((asked.first, asked.payload.len()), (0x89, 8));
        peer.send(0x8a, b"unasked").await;
        peer.send(0x8a, &asked.payload).await;
        peer.send(0x81, b"after").await;
    }
    rig.server.expect(0x8a, b"unasked").await;
    rig.server.expect(0x81, b"after").await;
    rig.client.expect(0x8a, b"unasked").await;
    rig.client.expect(0x81, b"after").await;
}

/// Collects what a lane lets out.
#[derive(Default)]
struct Out(Vec<u8>);

impl Outlet for Out {
    fn put(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }
}

/// Frames of a stream, control frames among them.
fn decoded(bytes: &[u8], sender: Sender) -> Vec<Vec<u8>> {
    let rules =
        FrameRules { sender, extensions: Extensions::None, max_frame_size: u64::MAX, max_message_size: u64::MAX };
    let (mut follower, mut at, mut begun, mut frames) = (Follower::default(), 0, 0, Vec::new());
    while at < bytes.len() {
        // Byte by byte to find each boundary of data frames.
        for end in at + 1..=bytes.len() {
            let followed = follower.follow(&bytes[at..end], &rules, false);
            at += followed.pass;
            match followed.stop {
                Some(Stop::Control(control)) => at += control.size,
                Some(Stop::Partial) => continue,
                None if !follower.at_boundary() => continue,
                None => {}
                other => panic!("{other:?}"),
            }
            frames.push(bytes[begun..at].to_vec());
            begun = at;
            break;
        }
    }
    frames
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn frames_of_ours_never_split_reorder_or_change_those_of_the_peers(
        pieces in prop::collection::vec((prop_oneof![Just(0usize), 1usize..140, Just(300)], any::<bool>(), 0u8..5), 1..10),
        cuts in prop::collection::vec(1usize..60, 1..12),
        pings in prop::collection::vec(any::<bool>(), 1..12),
        from_client: bool,
    ) {
        let (from, sender, mask) = if from_client {
            (Side::Downstream, Sender::Client, Some([5, 6, 7, 8]))
        } else {
            (Side::Upstream, Sender::Server, None)
        };
        let (mut stream, mut open) = (Vec::new(), false);
        for (size, fin, kind) in pieces {
            match kind {
                0 => stream.extend(frame::control(ControlKind::Ping, &vec![1; size.min(125)], mask)),
                1 => stream.extend(frame::control(ControlKind::Pong, &vec![2; size.min(125)], mask)),
                _ => {
                    let opcode = if open { 0 } else { 2 };
                    stream.extend(data(if fin { 0x80 | opcode } else { opcode }, &vec![3; size], mask));
                    open = !fin;
                }
            }
        }
        let policy = Policy::default();
        let (mut lane, mut out) = (Lane::new(from, &policy, Extensions::None), Out::default());
        let mut rest = stream.as_slice();
        for (cut, ping) in cuts.iter().cycle().zip(pings.iter().cycle()) {
            if rest.is_empty() { break }
            if *ping {
                lane.queue_ping(*b"our ping");
                lane.inject(&mut out);
            }
            let (slice, further) = rest.split_at((*cut).min(rest.len()));
            rest = further;
            let brought = lane.take(slice, &policy, &mut out);
            prop_assert!(brought.broken.is_none());
        }
        let theirs = |bytes: &[u8]| decoded(bytes, sender).into_iter().filter(|one| {
            let rules = FrameRules { sender, extensions: Extensions::None, max_frame_size: u64::MAX, max_message_size: u64::MAX };
            !matches!(Follower::default().follow(one, &rules, false).stop,
                Some(Stop::Control(control)) if *control.payload(one) == *b"our ping")
        }).collect::<Vec<_>>();
        prop_assert_eq!(theirs(&out.0), decoded(&stream, sender));
        if !pings.contains(&true) {
            prop_assert_eq!(out.0, stream);
        }
    }
}
