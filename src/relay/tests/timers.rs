//! Every limit of time: when it ends the relay, what both sides are told, and what the report says.

use tokio::time::Instant;

use super::*;
use crate::config::relay_policy::Ping;

const SECOND: Duration = Duration::from_secs(1);

fn never() -> Policy {
    Policy { idle_timeout: None, half_close_timeout: None, ..Policy::default() }
}

/// Reads the close of both sides, answers it, and gives the report and the time it took.
async fn closed(mut rig: Rig, code: u16, begun: Instant) -> (Report, Duration) {
    rig.client.expect_close(code).await;
    let after = begun.elapsed();
    rig.server.expect_close(code).await;
    rig.client.close(code).await;
    rig.server.close(code).await;
    rig.client.expect_end().await;
    rig.server.expect_end().await;
    (rig.relay.await.unwrap(), after)
}

#[tokio::test(start_paused = true)]
async fn silence_in_both_directions_ends_it_and_traffic_in_one_does_not() {
    let begun = Instant::now();
    let mut rig = Rig::new(Policy { idle_timeout: Some(10 * SECOND), ..never() });
    for _ in 0..3 {
        tokio::time::sleep(8 * SECOND).await;
        rig.server.send(0x89, b"any frame").await;
        rig.client.expect(0x89, b"any frame").await;
    }
    let (report, after) = closed(rig, 1001, begun).await;
    assert!(matches!(report.end, End::Idle(limit) if limit == 10 * SECOND), "{report:?}");
    assert_eq!(after.as_secs(), 34);
    assert_eq!((report.first_to_end, report.first_to_close), (None, None));
}

#[tokio::test(start_paused = true)]
async fn a_life_has_an_end() {
    let begun = Instant::now();
    let session = Session { max_lifetime: Some(60 * SECOND), ..Session::default() };
    let rig = Rig::with(never(), session, 1024, (b"", b""));
    let (report, after) = closed(rig, 1001, begun).await;
    assert!(matches!(report.end, End::Lifetime(_)), "{report:?}");
    assert_eq!(after.as_secs(), 60);
}

#[tokio::test(start_paused = true)]
async fn one_direction_may_go_on_alone_only_for_so_long() {
    let begun = Instant::now();
    let mut rig = Rig::new(Policy { half_close_timeout: Some(20 * SECOND), frames: Frames::Off, ..never() });
    rig.client.stream.shutdown().await.unwrap();
    assert_eq!(rig.server.stream.read(&mut [0]).await.unwrap(), 0);
    tokio::time::sleep(15 * SECOND).await;
    rig.server.stream.write_all(b"still").await.unwrap();
    rig.client.stream.read_exact(&mut [0; 5]).await.unwrap();
    let report = rig.relay.await.unwrap();
    assert!(matches!(report.end, End::HalfClose(limit) if limit == 20 * SECOND), "{report:?}");
    assert!((20..26).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_close_is_not_waited_for_for_ever() {
    let begun = Instant::now();
    let mut rig = Rig::new(Policy { close_timeout: 5 * SECOND, ..never() });
    rig.client.close(1000).await;
    rig.server.expect_close(1000).await;
    // The server never answers.
    let report = rig.relay.await.unwrap();
    assert!(matches!(report.end, End::CloseWait(limit) if limit == 5 * SECOND), "{report:?}");
    assert!((5..=10).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    assert_eq!(report.first_to_close, Some(Side::Downstream));
}

#[tokio::test(start_paused = true)]
async fn a_side_that_does_not_answer_a_ping_is_dead_and_the_other_is_told() {
    for (client, upstream, dead) in [(true, false, Side::Downstream), (false, true, Side::Upstream)] {
        let begun = Instant::now();
        let ping = Ping { every: 30 * SECOND, timeout: 10 * SECOND, client, upstream };
        let mut rig = Rig::new(Policy { ping: Some(ping), ..never() });
        // The other side goes on talking, which is no sign of life of this one.
        let (talker, silent) = match dead {
            Side::Downstream => (&mut rig.server, &mut rig.client),
            Side::Upstream => (&mut rig.client, &mut rig.server),
        };
        talker.send(0x81, b"hello?").await;
        silent.expect(0x81, b"hello?").await;
        assert_eq!(silent.frame_read().await.unwrap().first, 0x89);
        assert_eq!(begun.elapsed().as_secs(), 30);
        talker.expect_close(1001).await;
        assert_eq!(begun.elapsed().as_secs(), 40);
        talker.close(1001).await;
        let report = rig.relay.await.unwrap();
        assert_eq!(report.end.reason(), "peer_dead");
        assert!(matches!(report.end, End::PeerDead(side, _) if side == dead), "{report:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_answers_or_talks_is_not_asked_again_before_its_time() {
    let begun = Instant::now();
    let ping = Ping { every: 30 * SECOND, timeout: 10 * SECOND, client: true, upstream: false };
    let mut rig = Rig::new(Policy { ping: Some(ping), ..never() });
    for round in 1..=3 {
        let asked = rig.client.frame_read().await.unwrap();
        assert_eq!((asked.first, begun.elapsed().as_secs()), (0x89, 30 * round));
        rig.client.send(0x8a, &asked.payload).await;
    }
    tokio::time::sleep(20 * SECOND).await;
    rig.client.send(0x81, b"talk").await;
    rig.server.expect(0x81, b"talk").await;
    assert_eq!(rig.client.frame_read().await.unwrap().first, 0x89);
    assert_eq!(begun.elapsed().as_secs(), 90 + 20 + 30);
}

#[tokio::test(start_paused = true)]
async fn a_side_that_takes_nothing_does_not_keep_the_other_beyond_the_deadline() {
    let begun = Instant::now();
    let mut rig = Rig::with(Policy { close_timeout: 5 * SECOND, ..never() }, Session::default(), 256, (b"", b""));
    // The server floods a client that never reads: a frame is under way and cannot end.
    let flood = rig.server.frame(0x82, &[0; 100_000]);
    let mut server = rig.server.stream;
    let writer = tokio::spawn(async move { server.write_all(&flood).await });
    tokio::time::sleep(SECOND).await;
    rig.control.close(1001, Cause::Drain);
    let report = rig.relay.await.unwrap();
    assert_eq!(report.end.reason(), "drain");
    assert_eq!(begun.elapsed().as_secs(), 6);
    assert!(writer.await.unwrap().is_err(), "the stream was closed");
    drop(rig.client.stream.shutdown().await);
}

#[tokio::test(start_paused = true)]
async fn who_is_not_listened_to_is_not_dead() {
    let ping = Some(Ping { every: 2 * SECOND, timeout: SECOND, client: true, upstream: false });
    // The upstream takes nothing, so that the client is not read: its Pong waits among its messages.
    let mut rig = Rig::with(Policy { ping, ..never() }, Session::default(), 256, (b"", b""));
    let flood = rig.client.frame(0x82, &[0; 2000]);
    let (mut reader, mut writer) = tokio::io::split(rig.client.stream);
    let writing = tokio::spawn(async move { writer.write_all(&flood).await });
    tokio::time::sleep(30 * SECOND).await;
    assert!(!rig.relay.is_finished(), "a client that nobody reads from was given up");
    // Once it is read again its silence counts again.
    let frame = rig.server.frame_read().await.unwrap();
    assert_eq!(frame.payload.len(), 2000);
    writing.await.unwrap().unwrap();
    let asked = reader.read_u8().await.unwrap();
    assert_eq!(asked, 0x89);
    assert_eq!(rig.relay.await.unwrap().end.reason(), "peer_dead");
}

#[tokio::test(start_paused = true)]
async fn a_ping_that_cannot_leave_is_not_waited_for_while_the_side_takes_bytes() {
    let ping = Some(Ping { every: 2 * SECOND, timeout: 3 * SECOND, client: true, upstream: false });
    let policy = Policy { ping, idle_timeout: Some(5 * SECOND), ..never() };
    let mut rig = Rig::with(policy, Session::default(), 64, (b"", b""));
    // One frame that takes its reader a minute.
    let flood = rig.server.frame(0x82, &[7; 6000]);
    let mut server = rig.server.stream;
    let writing = tokio::spawn(async move {
        server.write_all(&flood).await.unwrap();
        server
    });
    for _ in 0..60 {
        rig.client.stream.read_exact(&mut [0; 100]).await.unwrap();
        tokio::time::sleep(SECOND).await;
    }
    assert!(!rig.relay.is_finished(), "an active download was cut");
    drop(writing);
}

#[tokio::test(start_paused = true)]
async fn a_held_client_is_heard_once_the_end_is_decided() {
    use crate::config::relay_policy::{Excess, Rate};
    let begun = Instant::now();
    let rate = Some(Rate { bytes: Some(10), messages: None, excess: Excess::Hold });
    let mut rig = Rig::new(Policy { rate, ..never() });
    rig.client.send(0x82, &[0; 1000]).await;
    rig.server.expect(0x82, &[0; 1000]).await;
    rig.control.close(1001, Cause::Drain);
    rig.client.expect_close(1001).await;
    rig.client.close(1001).await;
    rig.server.expect_close(1001).await;
    rig.server.close(1001).await;
    let report = rig.relay.await.unwrap();
    assert!(begun.elapsed() < SECOND, "{:?}", begun.elapsed());
    assert_eq!(report.downstream_close, Some(Goodbye { code: Some(1001), reason: "".into() }));
}
