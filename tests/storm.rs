//! Everybody comes back at once: what those who stayed notice of it.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    net::TcpStream,
    sync::{Semaphore, watch},
    time::{Instant, sleep, timeout},
};

use crate::support::{
    Client, Proxy, connect_from,
    frames::{MASK, TEXT, frame, reset_on_drop},
    handshake,
};

/// How long each echo took, from when the storm began until it is over.
async fn talk(mut client: Client<TcpStream>, over: watch::Receiver<bool>) -> Vec<Duration> {
    let mut times = Vec::new();
    while !*over.borrow() {
        let sent = Instant::now();
        client.send(frame(TEXT, b"still there", MASK)).await;
        assert_eq!(client.frame().await.expect("an echo").payload, b"still there");
        times.push(sent.elapsed());
        sleep(Duration::from_millis(50)).await;
    }
    times
}

/// Comes back as it is told until it is let in; how often it was refused, and when it was let in.
async fn come_back(index: u16, to: SocketAddr, sockets: Arc<Semaphore>) -> (usize, Instant) {
    let [high, low] = index.to_be_bytes();
    for refusals in 0.. {
        let place = sockets.acquire().await.unwrap();
        let mut client = connect_from([127, 1, high, low], to).await;
        let answer = client.ask(handshake("")).await;
        let at = Instant::now();
        if answer.status == 101 {
            // The test has not the files to keep them all.
            reset_on_drop(&client.stream);
            return (refusals, at);
        }
        assert_eq!(answer.status, 503, "{}", answer.text());
        let after = answer.field("retry-after").unwrap().parse().unwrap();
        drop((client, place));
        sleep(Duration::from_secs(after)).await;
    }
    unreachable!()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reconnect_storm_is_let_in_at_the_rate_and_starves_nobody() {
    const CLIENTS: u16 = 10_000;
    const RATE: u32 = 700;
    const BURST: u32 = 200;
    let limits = format!("limits = {{ handshakes_per_second = {RATE}, handshakes_burst = {BURST} }}");
    let proxy = Proxy::echo(&limits).await;
    let (over, is_over) = watch::channel(false);
    let mut connected = Vec::new();
    for last in 0..10 {
        let mut client = connect_from([127, 0, 1, last], proxy.addresses[0]).await;
        assert_eq!(client.ask(handshake("")).await.status, 101);
        connected.push(tokio::spawn(talk(client, is_over.clone())));
    }

    // As many at a time as leave room for other tests' files.
    let sockets = Arc::new(Semaphore::new(300));
    let begun = Instant::now();
    let storm = (0..CLIENTS).map(|index| tokio::spawn(come_back(index, proxy.addresses[0], Arc::clone(&sockets))));
    let storm = timeout(Duration::from_secs(90), futures_util::future::join_all(storm)).await.expect("all are let in");
    let lasted = begun.elapsed();
    over.send(true).unwrap();
    let (refusals, mut let_in): (Vec<_>, Vec<_>) = storm.into_iter().map(Result::unwrap).unzip();
    let mut echoes: Vec<Duration> = Vec::new();
    for client in connected {
        let times = client.await.unwrap();
        assert!(times.len() >= 10, "{} echoes in {lasted:?}", times.len());
        echoes.extend(times);
    }

    echoes.sort();
    let (usual, worst) = (echoes[echoes.len() / 2], echoes[echoes.len() - 1]);
    let refused: usize = refusals.iter().sum();
    eprintln!(
        "storm of {CLIENTS}: let in within {lasted:.2?}, refused {refused} times; echoes {usual:.2?}, at worst {worst:.2?}"
    );
    assert!(worst < Duration::from_secs(5) && usual < Duration::from_secs(1), "{usual:?}, {worst:?}");
    let least = f64::from(u32::from(CLIENTS) - BURST) / f64::from(RATE);
    assert!(lasted.as_secs_f64() > least - 0.1, "faster than the rate");
    // A machine that is slower than the rate has none to refuse.
    assert!(refused > 0 || lasted.as_secs_f64() > 1.5 * least, "the storm was none");
    // Over any two seconds too; half as much again is for what this side sees late.
    let_in.sort();
    let window = Duration::from_secs(2);
    let in_window = |at: usize| let_in[at..].partition_point(|later| *later < let_in[at] + window);
    let most = (0..let_in.len()).map(in_window).max().unwrap();
    assert!(most < usize::try_from(3 * RATE + BURST).unwrap(), "{most} within {window:?}");
}
