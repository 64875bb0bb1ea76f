//! Pings of ours beside those of the peers (RFC 6455 §5.5.3).

use tokio::time::Instant;

use super::*;
use crate::config::relay_policy::Ping;

const SECOND: Duration = Duration::from_secs(1);
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;

const SIDES: [Side; 2] = [Side::Downstream, Side::Upstream];

/// A relay that sends Pings to this side alone, after 30 seconds of silence; 10 seconds may pass before the answer.
fn rig(side: Side) -> Rig {
    let (client, upstream) = (side == Side::Downstream, side == Side::Upstream);
    let ping = Some(Ping { every: 30 * SECOND, timeout: 10 * SECOND, client, upstream });
    Rig::new(Policy { ping, idle_timeout: None, ..Policy::default() })
}

/// The peer that is sent Pings, and the other one.
fn peers(rig: &mut Rig, side: Side) -> (&mut Peer, &mut Peer) {
    match side {
        Side::Downstream => (&mut rig.client, &mut rig.server),
        Side::Upstream => (&mut rig.server, &mut rig.client),
    }
}

/// Nothing comes to `peer` before that second.
async fn silent_until(peer: &mut Peer, begun: Instant, second: u64) {
    let end = begun + u32::try_from(second).unwrap() * SECOND - SECOND / 2;
    let read = tokio::time::timeout_at(end, peer.frame_read()).await;
    assert!(read.is_err(), "{read:?} before {second} s");
}

/// The Ping of ours comes in that second.
async fn pinged_at(peer: &mut Peer, begun: Instant, second: u64) -> Vec<u8> {
    let ping = peer.frame_read().await.unwrap();
    assert_eq!((ping.first, ping.payload.len(), begun.elapsed().as_secs()), (PING, 8, second));
    ping.payload
}

#[tokio::test(start_paused = true)]
async fn none_is_sent_while_one_of_the_other_side_is_unanswered() {
    for side in SIDES {
        for payload in [&b""[..], b"theirs", &[7; 125]] {
            let begun = Instant::now();
            let mut rig = rig(side);
            let (pinged, other) = peers(&mut rig, side);
            tokio::time::sleep(20 * SECOND).await;
            other.send(PING, payload).await;
            pinged.expect(PING, payload).await;
            silent_until(pinged, begun, 39).await;
            pinged.send(PONG, payload).await;
            other.expect(PONG, payload).await;
            let ours = pinged_at(pinged, begun, 38 + 30).await;
            // The Pong to ours stays here.
            pinged.send(PONG, &ours).await;
            pinged.send(0x81, b"after").await;
            other.expect(0x81, b"after").await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_answers_no_ping_of_the_other_side_is_as_dead_as_one_that_answers_none_of_ours() {
    for pings in [&[5, 10, 15, 20, 25, 30, 35, 39][..], &[29]] {
        for side in SIDES {
            let begun = Instant::now();
            let mut rig = rig(side);
            let (pinged, other) = peers(&mut rig, side);
            for second in pings {
                tokio::time::sleep_until(begun + *second * SECOND).await;
                other.send(PING, b"theirs").await;
                pinged.expect(PING, b"theirs").await;
            }
            other.expect_close(1001).await;
            assert_eq!(begun.elapsed().as_secs(), 40, "{side}, {pings:?}");
            other.close(1001).await;
            assert_eq!(rig.relay.await.unwrap().end.reason(), "peer_dead");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn one_of_the_other_side_that_is_never_answered_only_delays_ours() {
    for side in SIDES {
        let begun = Instant::now();
        let mut rig = rig(side);
        let (pinged, other) = peers(&mut rig, side);
        other.send(PING, b"theirs").await;
        pinged.expect(PING, b"theirs").await;
        tokio::time::sleep(2 * SECOND).await;
        // A sign of life, and no Pong.
        pinged.send(0x81, b"talk").await;
        other.expect(0x81, b"talk").await;
        let ours = pinged_at(pinged, begun, 2 + 30 + 10).await;
        pinged.send(PONG, &ours).await;
        // It is not waited for a second time, and a side that falls silent is found.
        pinged_at(pinged, begun, 42 + 30).await;
        other.expect_close(1001).await;
        assert_eq!(begun.elapsed().as_secs(), 82, "{side}");
    }
}

#[tokio::test(start_paused = true)]
async fn only_the_answer_to_the_newest_one_counts() {
    for (answer, next) in [(&b"first"[..], 1 + 30 + 10), (b"unasked", 1 + 30 + 10), (b"second", 1 + 30)] {
        for side in SIDES {
            let begun = Instant::now();
            let mut rig = rig(side);
            let (pinged, other) = peers(&mut rig, side);
            for payload in [&b"first"[..], b"second"] {
                other.send(PING, payload).await;
                pinged.expect(PING, payload).await;
            }
            tokio::time::sleep(SECOND).await;
            pinged.send(PONG, answer).await;
            other.expect(PONG, answer).await;
            pinged_at(pinged, begun, next).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_ping_that_waits_behind_other_bytes_is_no_question_yet() {
    let begun = Instant::now();
    let ping = Some(Ping { every: 2 * SECOND, timeout: 3 * SECOND, client: true, upstream: false });
    let policy = Policy { ping, idle_timeout: None, ..Policy::default() };
    let mut rig = Rig::with(policy, Session::default(), 64, (b"", b""));
    let flood = [rig.server.frame(0x82, &[7; 3000]), rig.server.frame(PING, b"theirs")].concat();
    let mut server = rig.server.stream;
    let writing = tokio::spawn(async move {
        server.write_all(&flood).await.unwrap();
        server
    });
    for _ in 0..30 {
        rig.client.stream.read_exact(&mut [0; 100]).await.unwrap();
        tokio::time::sleep(SECOND).await;
    }
    assert!(!rig.relay.is_finished(), "a client that reads slowly was given up at {:?}", begun.elapsed());
    drop(writing);
}
