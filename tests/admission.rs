//! Limits that hold before work is done, and counts that move back however it ends.

use std::time::Duration;

use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

use crate::support::{
    ACCEPT, Answer, Client, Proxy, Upstream, accepted, connect_from,
    doors::{Gate, http2_request},
    frames::{MASK, TEXT, close, frame, reset_on_drop},
    handshake,
    process::{DEVELOPMENT, Process},
    within,
};

const GET: &str = "GET / HTTP/1.1\r\nHost: gate.test\r\n\r\n";

impl Proxy {
    async fn client(&self, last: u8) -> Client<TcpStream> {
        connect_from([127, 0, 1, last], self.addresses[0]).await
    }

    /// One opening handshake from a client of its own, and the connection it came on.
    async fn open(&self, last: u8, more: &str) -> (Answer, Client<TcpStream>) {
        let mut client = self.client(last).await;
        (client.ask(handshake(more)).await, client)
    }
}

fn refused(answer: &Answer, status: u16, words: &str) -> u64 {
    assert_eq!(answer.status, status, "{}", answer.text());
    assert!(answer.text().contains(words), "{}", answer.text());
    assert_eq!(answer.has("connection: close"), status == 503, "{}", answer.head);
    answer.field("retry-after").expect("Retry-After").parse().unwrap()
}

#[tokio::test]
async fn a_client_has_its_own_places() {
    let proxy = Proxy::echo("limits = { websockets_per_client = 2 }").await;
    let (one, _one) = proxy.open(1, "").await;
    let (two, two_held) = proxy.open(1, "").await;
    assert_eq!((one.status, two.status), (101, 101));
    let (three, mut client) = proxy.open(1, "").await;
    let after = refused(&three, 429, "this client network");
    assert!((1..=5).contains(&after), "{after}");
    assert_eq!(proxy.open(2, "").await.0.status, 101, "another client has its own");
    // The connection that was refused goes on: a plain request is not limited, and the place is free in time.
    assert_eq!(client.ask(GET).await.status, 200);
    drop(two_held);
    within("free place", async { while client.ask(handshake("")).await.status != 101 {} }).await;
}

fn echo_behind(listener: &str) -> String {
    format!("[[listener]]\n{listener}\n[[route]]\nupstream = \"u\"\n[upstream.u]\nurl = \"builtin:echo\"\n")
}

/// Long before the proxy would close a connection that says nothing.
async fn assert_closed_at_once(mut client: Client<TcpStream>) {
    let rest = timeout(Duration::from_secs(4), client.rest()).await;
    assert_eq!(rest.expect("it was let in"), b"");
}

#[tokio::test]
async fn a_client_has_so_many_connections_and_the_next_is_closed_at_once() {
    let listen = "listen = [\"127.0.0.1:0\", \"127.0.0.1:0\"]\nmax_connections_per_client = 2";
    let proxy = Proxy::start(&echo_behind(listen)).await;
    let mut relayed = proxy.client(1).await;
    assert_eq!(relayed.ask(handshake("")).await.status, 101);
    let mut plain = connect_from([127, 0, 1, 1], proxy.addresses[1]).await;
    assert_eq!(plain.ask(GET).await.status, 200);
    for address in &proxy.addresses {
        assert_closed_at_once(connect_from([127, 0, 1, 1], *address).await).await;
    }
    assert_eq!(proxy.client(2).await.ask(GET).await.status, 200, "another client has its own");
    drop(relayed);
    within("free place", async {
        loop {
            let mut next = proxy.client(1).await;
            // Whoever is refused may be reset while it writes.
            let _reset = next.stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
            if next.rest().await.starts_with(b"HTTP/1.1 200") {
                return;
            }
        }
    })
    .await;
    assert_eq!(plain.ask(GET).await.status, 200);
}

#[tokio::test]
async fn a_trusted_proxy_has_as_many_connections_as_it_likes() {
    let listen = "listen = \"127.0.0.1:0\"\nmax_connections_per_client = 1";
    let proxy = Proxy::start(&format!("trusted_proxies = [\"127.0.1.7\"]\n{}", echo_behind(listen))).await;
    let mut held = Vec::new();
    for _ in 0..5 {
        let mut client = proxy.client(7).await;
        assert_eq!(client.ask(GET).await.status, 200);
        held.push(client);
    }
}

#[tokio::test]
async fn a_flood_is_refused_before_tls_and_told_in_one_line() {
    let listen = format!("listen = \"127.0.0.1:0\"\nmax_connections_per_client = 1\n{DEVELOPMENT}");
    let mut process = Process::start(&echo_behind(&listen)).await;
    let mut held = process.connect_either().await;
    assert_eq!(held.ask(GET).await.status, 200);
    for _ in 0..500 {
        assert_closed_at_once(process.connect().await).await;
    }
    assert_eq!(held.ask(GET).await.status, 200);
    process.terminate();
    process.exit_code().await;
    let told = process.seen.iter().filter(|event| {
        event["message"].as_str().is_some_and(|message| message.starts_with("max_connections_per_client reached"))
    });
    let told: Vec<_> = told.collect();
    assert!((1..=3).contains(&told.len()), "{told:#?}");
    assert_eq!((&told[0]["client"], &told[0]["refused"]), (&"127.0.0.1".into(), &1.into()));
    assert_eq!(process.count("TLS handshake failed"), 0);
}

#[tokio::test]
async fn a_route_and_each_origin_have_their_places() {
    let route = "limits = { websockets = 3, websockets_per_origin = 1 }\norigin = { allow = [\"*\"] }";
    let proxy = Proxy::echo(route).await;
    let (first, held) = proxy.open(1, "Origin: https://a.example\r\n").await;
    assert_eq!(first.status, 101);
    let (again, _) = proxy.open(2, "Origin: https://a.example\r\n").await;
    assert!((1..=5).contains(&refused(&again, 503, "this origin")));
    let (other, _other) = proxy.open(2, "Origin: https://b.example\r\n").await;
    let (absent, _absent) = proxy.open(3, "").await;
    assert_eq!((other.status, absent.status), (101, 101));
    let (full, mut client) = proxy.open(4, "Origin: https://c.example\r\n").await;
    assert!((1..=5).contains(&refused(&full, 503, "no room")));
    assert!(client.rest().await.is_empty(), "it keeps no place of the listener");
    drop(held);
    within("free place", async { while proxy.open(4, "Origin: https://a.example\r\n").await.0.status != 101 {} }).await;
}

#[tokio::test]
async fn a_client_that_asks_too_often_is_told_when_to_come_back() {
    let limits = "limits = { handshakes_per_second_per_client = 1, handshakes_burst_per_client = 3 }";
    let proxy = Proxy::echo(limits).await;
    for _ in 0..3 {
        assert_eq!(proxy.open(1, "").await.0.status, 101);
    }
    let (answer, mut client) = within("refusal", async {
        loop {
            // On a slow machine a second may have passed by now.
            let (answer, client) = proxy.open(1, "").await;
            if answer.status != 101 {
                return (answer, client);
            }
        }
    })
    .await;
    assert_eq!(refused(&answer, 429, "too many WebSocket handshakes from this client network"), 1);
    assert_eq!(proxy.open(2, "").await.0.status, 101, "another client has its own rate");
    sleep(Duration::from_secs(1)).await;
    assert_eq!(client.ask(handshake("")).await.status, 101, "it was right to come back then");
}

#[tokio::test]
async fn a_route_takes_so_many_a_second_and_refuses_the_rest() {
    let proxy = Proxy::echo("limits = { handshakes_per_second = 1, handshakes_burst = 5 }").await;
    let begun = Instant::now();
    let mut opened = 0;
    for last in 0..20 {
        let (answer, _client) = proxy.open(last, "").await;
        match answer.status {
            101 => opened += 1,
            _ => assert!((1..=5).contains(&refused(&answer, 503, "at the moment"))),
        }
    }
    let most = 5 + begun.elapsed().as_secs() + 1;
    assert!((5..=most).contains(&opened), "{opened} of at most {most}");
}

#[tokio::test]
async fn places_are_counted_over_http2_too() {
    let gate = Gate::before("builtin:echo", "limits = { websockets = 1 }", "").await;
    let mut http2 = gate.http2().await;
    let socket = http2.websocket().await;
    for mut http2 in [http2, gate.http2().await] {
        assert_eq!(http2.ask(http2_request(&handshake(""))).await.status, 503);
    }
    drop(socket);
    let free = async { while gate.http2().await.ask(http2_request(&handshake(""))).await.status != 200 {} };
    within("a place", Box::pin(free)).await;
}

#[tokio::test]
async fn what_is_wrong_otherwise_uses_up_nothing() {
    let mut upstream = Upstream::start().await;
    let limits = "limits = { websockets = 1, handshakes_per_second = 1, handshakes_per_second_per_client = 1 }";
    let proxy = Proxy::before(&upstream.url, limits, "").await;
    let mut client = proxy.client(1).await;
    for (bad, status) in [
        (handshake("Origin: https://evil.example\r\n"), 403),
        (handshake("").replace("Version: 13", "Version: 12"), 426),
        (handshake("").replace("Sec-WebSocket-Key", "X-Key"), 400),
    ] {
        for _ in 0..3 {
            assert_eq!(client.ask(&bad).await.status, status);
        }
    }
    let _peer = upstream.switch(&mut client).await;
    // And what is refused for want of room is not dialled.
    assert_eq!(proxy.open(2, "").await.0.status, 503);
    assert!(!upstream.was_dialled());
}

/// One way in which a handshake or a WebSocket ends.
#[derive(Clone, Copy, Debug)]
enum Ending {
    UpstreamRefuses,
    UpstreamAnswersWrongly,
    UpstreamHangsUp,
    UpstreamIsSilent,
    ClientLeavesBeforeTheAnswer,
    ClientCloses,
    UpstreamCloses,
    ClientResets,
    UpstreamResets,
    ClientBreaksARule,
    TooLong,
}

impl Ending {
    const ALL: [Self; 11] = [
        Self::UpstreamRefuses,
        Self::UpstreamAnswersWrongly,
        Self::UpstreamHangsUp,
        Self::UpstreamIsSilent,
        Self::ClientLeavesBeforeTheAnswer,
        Self::ClientCloses,
        Self::UpstreamCloses,
        Self::ClientResets,
        Self::UpstreamResets,
        Self::ClientBreaksARule,
        Self::TooLong,
    ];

    /// Ends what `client` has begun and `peer`, the upstream, has read the head of.
    async fn play(self, mut client: Client<TcpStream>, mut peer: Client<TcpStream>) {
        let early = match self {
            Self::UpstreamRefuses => Some(("HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n".to_owned(), 403)),
            Self::UpstreamAnswersWrongly => Some((accepted("").replace(ACCEPT, "AAAAAAAAAAAAAAAAAAAAAAAAAAA="), 502)),
            Self::UpstreamHangsUp => Some((String::new(), 502)),
            _ => None,
        };
        if let Some((answer, status)) = early {
            peer.send(answer).await;
            drop(peer);
            assert_eq!(client.answer().await.status, status);
            return;
        }
        match self {
            Self::UpstreamIsSilent => return assert_eq!(client.answer().await.status, 504),
            Self::ClientLeavesBeforeTheAnswer => {
                drop(client);
                assert!(peer.rest().await.is_empty());
                return;
            }
            _ => {}
        }
        peer.send(accepted("")).await;
        assert_eq!(client.answer().await.status, 101);
        match self {
            Self::ClientCloses => {
                client.send(close(1000, MASK)).await;
                assert_eq!(peer.expect_close().await, 1000);
                peer.send(close(1000, None)).await;
            }
            Self::UpstreamCloses => {
                peer.send(close(1000, None)).await;
                assert_eq!(client.expect_close().await, 1000);
                client.send(close(1000, MASK)).await;
            }
            Self::ClientResets => {
                reset_on_drop(&client.stream);
                drop(client);
                assert_eq!(peer.expect_close().await, 1001);
            }
            Self::UpstreamResets => {
                reset_on_drop(&peer.stream);
                drop(peer);
                assert_eq!(client.expect_close().await, 1012);
            }
            Self::ClientBreaksARule => {
                client.send(frame(TEXT, b"not masked", None)).await;
                assert_eq!(client.expect_close().await, 1002);
            }
            _ => assert_eq!(client.expect_close().await, 1001, "max_lifetime"),
        }
    }
}

#[tokio::test]
async fn every_count_moves_back_however_it_ends() {
    let mut upstream = Upstream::start().await;
    let route = "limits = { websockets = 1, websockets_per_client = 1, websockets_per_origin = 1 }\n\
                 close_timeout = \"300ms\"\nmax_lifetime = \"1s\"";
    let proxy = Proxy::before(&upstream.url, route, "").await;
    for ending in Ending::ALL {
        let mut client = proxy.client(1).await;
        client.send(handshake("")).await;
        let mut peer = upstream.accept().await;
        peer.head().await;
        let (full, _) = proxy.open(1, "").await;
        assert_eq!(full.status, 429, "{ending:?}: its place is taken from the handshake on");
        let (full, _) = proxy.open(2, "").await;
        assert_eq!(full.status, 503, "{ending:?}");
        ending.play(client, peer).await;
        within(&format!("free place after {ending:?}"), async {
            loop {
                let mut next = proxy.client(1).await;
                next.send(handshake("")).await;
                // A place that is not free yet is refused at once, without a connection upstream.
                tokio::select! {
                    mut peer = upstream.accept() => {
                        peer.head().await;
                        Ending::UpstreamRefuses.play(next, peer).await;
                        break;
                    }
                    refused = next.answer() => assert!(matches!(refused.status, 429 | 503), "{}", refused.head),
                }
            }
        })
        .await;
    }
    assert!(!upstream.was_dialled());
}

#[tokio::test]
async fn a_place_is_free_again_when_the_upstream_cannot_be_reached() {
    let gone = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let proxy = Proxy::before(&gone, "limits = { websockets = 1, websockets_per_client = 1 }", "").await;
    let mut client = proxy.client(1).await;
    for _ in 0..5 {
        assert_eq!(client.ask(handshake("")).await.status, 502);
    }
}
