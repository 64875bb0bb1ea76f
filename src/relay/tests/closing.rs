//! The closing handshake and the ends of the two streams (RFC 6455 §7.1): what passes at once, and what waits.

use tokio::time::Instant;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

const SIDES: [Side; 2] = [Side::Downstream, Side::Upstream];

fn policy(frames: Frames) -> Policy {
    let (half_close, close) = (Some(30 * SECOND), 5 * SECOND);
    Policy { frames, idle_timeout: None, half_close_timeout: half_close, close_timeout: close, ..Policy::default() }
}

/// The peer on this side, and the other one.
fn peers(rig: &mut Rig, side: Side) -> (&mut Peer, &mut Peer) {
    match side {
        Side::Downstream => (&mut rig.client, &mut rig.server),
        Side::Upstream => (&mut rig.server, &mut rig.client),
    }
}

#[tokio::test(start_paused = true)]
async fn an_end_behind_a_close_waits_for_the_answer_to_it() {
    for frames in [Frames::Enforce, Frames::Observe] {
        for side in SIDES {
            let begun = Instant::now();
            let mut rig = Rig::new(policy(frames));
            let (closer, other) = peers(&mut rig, side);
            closer.close(4001).await;
            closer.stream.shutdown().await.unwrap();
            other.expect_close(4001).await;
            assert!(begun.elapsed() < SECOND, "the Close itself passes at once");
            other.expect_silence().await;
            // What was on its way still passes.
            other.send(0x81, b"last words").await;
            closer.expect(0x81, b"last words").await;
            other.close(4001).await;
            closer.expect_close(4001).await;
            // A client is hung up on at once, an upstream does that itself.
            other.expect_end().await;
            drop(rig.server.stream.shutdown().await);
            let report = rig.relay.await.unwrap();
            assert!(matches!(report.end, End::Closed), "{side}: {report:?}");
            assert_eq!(begun.elapsed().as_secs(), 1, "{side} waits for nothing more");
            assert_eq!((report.first_to_close, report.first_to_end), (Some(side), Some(side)));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_end_behind_a_close_waits_no_longer_than_the_close_timeout() {
    for side in SIDES {
        let begun = Instant::now();
        let mut rig = Rig::new(policy(Frames::Enforce));
        let (closer, other) = peers(&mut rig, side);
        closer.close(1000).await;
        closer.stream.shutdown().await.unwrap();
        other.expect_close(1000).await;
        other.expect_end().await;
        closer.expect_close(1001).await;
        closer.expect_end().await;
        assert_eq!(begun.elapsed().as_secs(), 5, "{side}");
        assert!(matches!(rig.relay.await.unwrap().end, End::CloseWait(_)), "{side}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_end_without_a_close_leaves_time_to_answer_ours() {
    for (side, code) in [(Side::Downstream, 1001), (Side::Upstream, 1012)] {
        let begun = Instant::now();
        let mut rig = Rig::new(policy(Frames::Enforce));
        let (ends, other) = peers(&mut rig, side);
        ends.stream.shutdown().await.unwrap();
        other.expect_close(code).await;
        other.expect_silence().await;
        other.send(0x81, b"last words").await;
        ends.expect(0x81, b"last words").await;
        other.close(code).await;
        other.expect_end().await;
        ends.expect_close(code).await;
        assert_eq!(begun.elapsed().as_secs(), 1, "{side}");
        // The side that has ended may take its time to hang up; a client is hung up on at once.
        drop(ends.stream.shutdown().await);
        drop(other.stream.shutdown().await);
        let report = rig.relay.await.unwrap();
        assert!(matches!(report.end, End::Closed), "{report:?}");
        assert_eq!((report.began, report.first_to_end), (Some(side), Some(side)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_close_of_ours_that_nobody_answers_leaves_the_half_close_timeout_as_it_is() {
    for (side, code) in [(Side::Downstream, 1001), (Side::Upstream, 1012)] {
        let begun = Instant::now();
        let mut rig = Rig::new(policy(Frames::Enforce));
        let (ends, other) = peers(&mut rig, side);
        ends.stream.shutdown().await.unwrap();
        other.expect_close(code).await;
        other.expect_end().await;
        assert_eq!(begun.elapsed().as_secs(), 5, "{side}");
        tokio::time::sleep(20 * SECOND).await;
        other.send(0x81, b"still here").await;
        ends.expect(0x81, b"still here").await;
        let report = rig.relay.await.unwrap();
        assert!(matches!(report.end, End::HalfClose(_)), "{side}: {report:?}");
        assert!(begun.elapsed() >= 30 * SECOND, "{side}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_end_within_a_frame_passes_at_once() {
    for side in SIDES {
        let begun = Instant::now();
        let mut rig = Rig::new(policy(Frames::Enforce));
        let (ends, other) = peers(&mut rig, side);
        let half = &ends.frame(0x82, &[7; 1000])[..500];
        ends.stream.write_all(half).await.unwrap();
        ends.stream.shutdown().await.unwrap();
        let mut got = Vec::new();
        other.stream.read_to_end(&mut got).await.unwrap();
        assert_eq!((got.as_slice(), begun.elapsed().as_secs()), (half, 0), "{side}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_closing_handshake_ends_with_the_upstream_though_the_client_keeps_its_stream_open() {
    for first in SIDES {
        let begun = Instant::now();
        let mut rig = Rig::new(policy(Frames::Enforce));
        let (closer, other) = peers(&mut rig, first);
        closer.close(1000).await;
        other.expect_close(1000).await;
        other.close(1000).await;
        closer.expect_close(1000).await;
        // The server ends first (RFC 6455 section 7.1.1), and to its client that is the gate.
        rig.client.expect_end().await;
        rig.server.stream.shutdown().await.unwrap();
        rig.server.expect_end().await;
        let report = rig.relay.await.unwrap();
        assert!(matches!(report.end, End::Closed), "{report:?}");
        assert_eq!(begun.elapsed().as_secs(), 0, "{first} closed first");
    }
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_hangs_up_on_a_close_ends_it_at_once() {
    let begun = Instant::now();
    let mut rig = Rig::new(policy(Frames::Enforce));
    rig.client.close(1000).await;
    rig.server.expect_close(1000).await;
    rig.server.stream.shutdown().await.unwrap();
    rig.client.expect_close(1012).await;
    rig.client.expect_end().await;
    rig.server.expect_end().await;
    let report = rig.relay.await.unwrap();
    assert!(matches!(report.end, End::Closed), "{report:?}");
    assert_eq!(begun.elapsed().as_secs(), 0);
}

#[tokio::test(start_paused = true)]
async fn each_side_is_hung_up_on_when_it_has_answered_a_close_of_ours() {
    for side in SIDES {
        let begun = Instant::now();
        let mut rig = Rig::new(policy(Frames::Enforce));
        rig.control.close(1001, Cause::Drain);
        let (answers, other) = peers(&mut rig, side);
        answers.expect_close(1001).await;
        answers.close(1001).await;
        answers.expect_end().await;
        assert_eq!(begun.elapsed().as_secs(), 0, "{side}");
        other.expect_close(1001).await;
        other.expect_end().await;
        assert_eq!(begun.elapsed().as_secs(), 5, "{side}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_close_behind_a_message_that_was_too_large_is_found() {
    for (whole, limit) in [(true, "frame"), (false, "frame"), (true, "message"), (false, "message")] {
        for side in SIDES {
            let begun = Instant::now();
            let mut policy = policy(Frames::Enforce);
            match limit {
                "frame" => policy.max_frame_size = 100,
                _ => policy.max_message_size = 100,
            }
            let mut rig = Rig::new(policy);
            let (sender, other) = peers(&mut rig, side);
            let mut bytes = [sender.frame(0x01, &[7; 300]), sender.frame(0x89, b"ping")].concat();
            bytes.extend([sender.frame(0x80, &[7; 70_000]), sender.frame(0x88, &1009u16.to_be_bytes())].concat());
            if whole {
                sender.stream.write_all(&bytes).await.unwrap();
            } else {
                for piece in bytes.chunks(7) {
                    sender.stream.write_all(piece).await.unwrap();
                    tokio::task::yield_now().await;
                }
            }
            other.expect_close(1009).await;
            other.close(1009).await;
            sender.expect_close(1009).await;
            sender.expect_end().await;
            other.expect_end().await;
            let report = rig.relay.await.unwrap();
            assert!(matches!(report.end, End::Broken(broken, _) if broken == side), "{report:?}");
            assert_eq!((begun.elapsed().as_secs(), report.began), (0, None), "{side}, {limit}, whole {whole}");
            let closes =
                [report.downstream_close, report.upstream_close].map(|close| close.and_then(|close| close.code));
            assert_eq!(closes, [Some(1009); 2], "{side}, {limit}, whole {whole}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_malformed_close_is_a_close_to_its_sender() {
    for payload in [&b"x"[..], &1005u16.to_be_bytes(), b"\x03\xe8\xff"] {
        let begun = Instant::now();
        let mut rig = Rig::new(policy(Frames::Enforce));
        rig.client.send(0x88, payload).await;
        rig.server.expect_close(1002).await;
        rig.server.close(1002).await;
        rig.client.expect_close(1002).await;
        rig.client.expect_end().await;
        rig.server.expect_end().await;
        assert!(matches!(rig.relay.await.unwrap().end, End::Broken(Side::Downstream, _)));
        assert_eq!(begun.elapsed().as_secs(), 0, "{payload:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_end_is_not_held_for_an_answer_that_cannot_be_seen() {
    for side in SIDES {
        let begun = Instant::now();
        let mut rig = Rig::new(policy(Frames::Observe));
        let (breaks, other) = peers(&mut rig, side);
        // A reserved bit: from here on its bytes are only bytes.
        let broken = breaks.frame(0xc1, b"hi");
        breaks.stream.write_all(&broken).await.unwrap();
        let mut got = vec![0; broken.len()];
        other.stream.read_exact(&mut got).await.unwrap();
        other.close(1002).await;
        other.stream.shutdown().await.unwrap();
        breaks.expect_close(1002).await;
        breaks.expect_end().await;
        assert_eq!(begun.elapsed().as_secs(), 0, "{side} broke a rule");
    }
}
