//! Bounds on exchanges under way: plain requests and opening handshakes, over every protocol and however they end.

use std::{sync::Arc, time::Duration};

use h2::Reason;
use switchgate::net::tls;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use crate::support::{
    ACCEPT, Answer, Client, Proxy, Upstream, accepted, connect_from,
    doors::{Door, Gate, Http2Client, http2_request},
    frames::reset_on_drop,
    handshake,
    process::{DEVELOPMENT, Process},
    tls_client, within,
};

const GET: &str = "GET / HTTP/1.1\r\nHost: gate.test\r\n\r\n";

/// One way in which an exchange ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Response,
    EmptyResponse,
    BodyBreaksOff,
    UpstreamHangsUp,
    UpstreamTimesOut,
    UpstreamBreaksARule,
    ClientLeaves,
    ClientLeavesWithinTheBody,
    OpeningIsRefused,
    OpeningIsAnsweredWrongly,
    OpeningSwitches,
    ClientLeavesWithinTheOpening,
}

impl Ending {
    const ALL: [Self; 12] = [
        Self::Response,
        Self::EmptyResponse,
        Self::BodyBreaksOff,
        Self::UpstreamHangsUp,
        Self::UpstreamTimesOut,
        Self::UpstreamBreaksARule,
        Self::ClientLeaves,
        Self::ClientLeavesWithinTheBody,
        Self::OpeningIsRefused,
        Self::OpeningIsAnsweredWrongly,
        Self::OpeningSwitches,
        Self::ClientLeavesWithinTheOpening,
    ];

    fn is_opening(self) -> bool {
        use Ending::{ClientLeavesWithinTheOpening, OpeningIsAnsweredWrongly, OpeningIsRefused, OpeningSwitches};
        matches!(self, OpeningIsRefused | OpeningIsAnsweredWrongly | OpeningSwitches | ClientLeavesWithinTheOpening)
    }

    fn request(self) -> String {
        if self.is_opening() { handshake("") } else { GET.to_owned() }
    }
}

/// An answer to a request that was sent, and what must stay open for it.
type Asked = JoinHandle<Option<Answer>>;

fn begin(gate: &Arc<Gate>, door: Door, text: String) -> Asked {
    let gate = Arc::clone(gate);
    tokio::spawn(async move { Some(gate.ask(door, &text).await) })
}

/// Ends the exchange that `asked` has begun and `peer`, the upstream, has read the head of. What it returns is still open.
async fn play(
    ending: Ending,
    door: Door,
    asked: Asked,
    mut peer: Client<TcpStream>,
    key: &str,
) -> Option<Client<TcpStream>> {
    let status = |asked: Asked| async { within("answer", asked).await.unwrap().unwrap().status };
    match ending {
        Ending::Response => {
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello").await;
            assert_eq!(status(asked).await, 200);
        }
        Ending::EmptyResponse => {
            peer.send("HTTP/1.1 204 No Content\r\n\r\n").await;
            assert_eq!(status(asked).await, 204);
        }
        Ending::BodyBreaksOff => {
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello").await;
            drop(peer);
            // However the client takes that.
            let _failed = within("the end of the body", asked).await;
            return None;
        }
        Ending::UpstreamHangsUp => {
            drop(peer);
            assert_eq!(status(asked).await, 502);
            return None;
        }
        Ending::UpstreamTimesOut => assert_eq!(status(asked).await, 504),
        Ending::UpstreamBreaksARule => {
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n").await;
            assert_eq!(status(asked).await, 502);
        }
        Ending::ClientLeaves | Ending::ClientLeavesWithinTheOpening => {
            asked.abort();
            assert!(peer.rest().await.is_empty());
        }
        Ending::ClientLeavesWithinTheBody => {
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello").await;
            asked.abort();
            assert!(peer.rest().await.is_empty());
        }
        Ending::OpeningIsRefused => {
            peer.send("HTTP/1.1 401 No\r\nContent-Length: 5\r\n\r\nhello").await;
            assert_eq!(status(asked).await, 401);
        }
        Ending::OpeningIsAnsweredWrongly => {
            peer.send(accepted("").replace(ACCEPT, "AAAAAAAAAAAAAAAAAAAAAAAAAAA=")).await;
            assert_eq!(status(asked).await, 502);
        }
        Ending::OpeningSwitches => {
            let accept = switchgate::protocol::websocket::key::accept_value(key);
            peer.send(accepted("").replace(ACCEPT, &accept)).await;
            assert_eq!(status(asked).await, if door == Door::Http2 { 200 } else { 101 });
        }
    }
    Some(peer)
}

fn key_of(head: &str) -> String {
    head.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).unwrap_or_default().to_owned()
}

/// Waits until one more exchange is let in, and answers it.
async fn wait_for_room(gate: &Arc<Gate>, upstream: &mut Upstream, what: &str) {
    within(what, async {
        loop {
            let asked = begin(gate, Door::Clear, GET.to_owned());
            tokio::select! {
                mut peer = upstream.accept() => {
                    peer.head().await;
                    peer.send("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").await;
                    assert_eq!(asked.await.unwrap().unwrap().status, 204);
                    return;
                }
                () = async { while !asked.is_finished() { tokio::task::yield_now().await } } => {}
            }
        }
    })
    .await;
}

async fn every_ending_returns_the_place(limits: &str, status: u16) {
    let mut upstream = Upstream::start().await;
    let gate = Gate::before(&upstream.url, "", &format!("pool_max_idle = 0\n[limits]\n{limits}")).await;
    let gate = Arc::new(gate);
    for door in Door::ALL {
        for ending in Ending::ALL {
            let asked = begin(&gate, door, ending.request());
            let mut peer = upstream.accept().await;
            let head = peer.head().await;
            for request in [GET.to_owned(), handshake("")] {
                let refused = gate.ask(door, &request).await;
                assert_eq!(refused.status, status, "{ending:?} {door:?} {}", refused.text());
                let after: u64 = refused.field("retry-after").expect("Retry-After").parse().unwrap();
                assert!((1..=5).contains(&after), "{after}");
            }
            let _open = play(ending, door, asked, peer, &key_of(&head)).await;
            wait_for_room(&gate, &mut upstream, &format!("room after {ending:?} {door:?}")).await;
        }
    }
    assert!(!upstream.was_dialled());
}

#[tokio::test]
async fn every_ending_returns_the_place_of_a_client() {
    every_ending_returns_the_place("max_exchanges_per_client = 1", 429).await;
}

#[tokio::test]
async fn every_ending_returns_the_place_in_the_process() {
    every_ending_returns_the_place("max_exchanges = 1", 503).await;
}

#[tokio::test]
async fn a_reset_stream_returns_its_place_on_a_connection_that_lives() {
    let mut upstream = Upstream::start().await;
    let gate = Arc::new(Gate::before(&upstream.url, "", "[limits]\nmax_exchanges = 1").await);
    let Http2Client { mut requests, end } = gate.http2().await;
    for _ in 0..3 {
        let (response, mut stream) = requests.send_request(http2_request(GET), false).unwrap();
        upstream.accept().await.head().await;
        stream.send_reset(Reason::CANCEL);
        drop(response);
        wait_for_room(&gate, &mut upstream, "room after RST_STREAM").await;
    }
    assert!(!end.is_finished());
}

#[tokio::test]
async fn a_client_reset_returns_its_place() {
    let mut upstream = Upstream::start().await;
    let gate = Arc::new(Gate::before(&upstream.url, "", "[limits]\nmax_exchanges = 1").await);
    let mut client = gate.proxy.connect().await;
    client.send(GET).await;
    upstream.accept().await.head().await;
    reset_on_drop(&client.stream);
    drop(client);
    wait_for_room(&gate, &mut upstream, "room after a reset").await;
}

#[tokio::test]
async fn live_websockets_are_no_exchanges() {
    let mut upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream.url, "", "[limits]\nmax_exchanges = 1\nmax_exchanges_per_client = 1").await;
    let mut held = Vec::new();
    for _ in 0..5 {
        let mut client = proxy.connect().await;
        held.push((upstream.switch(&mut client).await, client));
    }
}

#[tokio::test]
async fn other_clients_and_what_takes_no_socket_are_not_counted() {
    let mut upstream = Upstream::start().await;
    let config = format!(
        "[limits]\nmax_exchanges_per_client = 1\n[[listener]]\nlisten = \"127.0.0.1:0\"\n[[listener]]\n\
         listen = \"127.0.0.1:0\"\nredirect = \"https\"\n[[route]]\nupstream = \"u\"\n[[route]]\npath = \"/echo\"\n\
         upstream = \"echo\"\n[upstream.u]\nurl = \"{}\"\n[upstream.echo]\nurl = \"builtin:echo\"\n",
        upstream.url
    );
    let proxy = Proxy::start(&config).await;
    let mut slow = proxy.connect().await;
    slow.send(GET).await;
    let _peer = upstream.accept().await;
    let mut client = proxy.connect().await;
    assert_eq!(client.ask(GET).await.status, 429);
    assert_eq!(client.ask(GET.replace("GET /", "GET /echo")).await.status, 200);
    assert_eq!(client.ask(handshake("").replace("Sec-WebSocket-Key", "X-Key")).await.status, 400);
    assert_eq!(client.ask(handshake("Origin: https://evil.example\r\n")).await.status, 403);
    let mut redirected = Client::new(TcpStream::connect(proxy.addresses[1]).await.unwrap());
    assert_eq!(redirected.ask(GET).await.status, 308);
    let mut other = connect_from([127, 0, 0, 2], proxy.addresses[0]).await;
    other.send(GET).await;
    let _peer = upstream.accept().await;
}

#[tokio::test]
async fn a_trusted_proxy_is_exempt_and_the_clients_it_names_are_counted() {
    let mut upstream = Upstream::start().await;
    let proxy = Proxy::start(&format!(
        "trusted_proxies = [\"127.0.1.0/24\"]\n[limits]\nmax_exchanges_per_client = 1\n[[listener]]\n\
         listen = \"127.0.0.1:0\"\n[[route]]\nupstream = \"u\"\n[upstream.u]\nurl = \"{}\"\n",
        upstream.url
    ))
    .await;
    let named = |client: &str| GET.replace("\r\n\r\n", &format!("\r\nX-Forwarded-For: {client}\r\n\r\n"));
    let mut held = Vec::new();
    for request in [GET.to_owned(), GET.to_owned(), GET.to_owned(), named("192.0.2.1"), named("192.0.2.2")] {
        let mut client = connect_from([127, 0, 1, 7], proxy.addresses[0]).await;
        client.send(request).await;
        held.push((client, upstream.accept().await));
    }
    for (address, request, status) in [
        ([127, 0, 1, 8], named("192.0.2.1"), 429),
        // The same client without the proxy, and one whose field nobody believes.
        ([127, 0, 0, 1], GET.to_owned(), 0),
        ([127, 0, 0, 1], named("192.0.2.77"), 429),
    ] {
        let mut client = connect_from(address, proxy.addresses[0]).await;
        client.send(request).await;
        match status {
            0 => held.push((client, upstream.accept().await)),
            status => assert_eq!(client.answer().await.status, status),
        }
    }
}

#[tokio::test]
async fn a_stop_cuts_exchanges_and_does_not_wait_for_their_places() {
    let mut upstream = Upstream::start().await;
    let rest = "[limits]\nmax_exchanges = 1\n[drain]\ngrace = \"100ms\"";
    let config = format!(
        "[[listener]]\nlisten = \"127.0.0.1:0\"\n[[route]]\nupstream = \"u\"\n[upstream.u]\nurl = \"{}\"\n{rest}\n",
        upstream.url
    );
    let proxy = Proxy::start(&config).await;
    let mut client = proxy.connect().await;
    client.send(GET).await;
    let _peer = upstream.accept().await;
    let outcome = within("stop", proxy.stop()).await.unwrap();
    assert_eq!(outcome.cut.connections, 1, "{outcome:?}");
}

/// Accepts everything and answers nothing.
async fn silent() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            held.push(stream);
        }
    });
    url
}

async fn under_a_limit_of_files(url: &str) -> Process {
    let config = format!(
        "workers = 2\n[drain]\ngrace = \"100ms\"\n[[listener]]\nlisten = \"127.0.0.1:0\"\n{DEVELOPMENT}\n[[listener]]\nlisten = \"127.0.0.1:0\"\n\
         [[route]]\nupstream = \"slow\"\n[[route]]\npath = \"/other\"\nupstream = \"other\"\n\
         [upstream.slow]\nurl = \"{url}\"\n[upstream.other]\nurl = \"builtin:echo\"\n"
    );
    Process::start_with(&config, "info", "ulimit -n 600; exec \"$0\" --log-format json").await
}

async fn http2(process: &Process) -> Http2Client {
    let config = tls::client_config(Some(&process.folder.path().join("ca.pem"))).unwrap();
    let mut config = rustls::ClientConfig::clone(&config);
    config.alpn_protocols = vec![b"h2".to_vec()];
    Http2Client::over(tls_client::connect(&process.addresses[0], "localhost", config).await.unwrap()).await
}

/// A further client finds the plain listener served, and an upstream reached.
async fn another_listener_is_served(process: &Process) {
    let address = process.addresses[1].parse().unwrap();
    for last in 2..5 {
        let mut other = connect_from([127, 0, 0, last], address).await;
        assert_eq!(other.ask(GET.replace("GET /", "GET /other")).await.status, 200);
        let mut slow = connect_from([127, 0, 0, last], address).await;
        slow.send(GET).await;
        // It was let in: nothing answers it.
        tokio::time::timeout(Duration::from_millis(100), slow.answer()).await.unwrap_err();
    }
}

#[tokio::test]
async fn slow_requests_of_one_client_over_http2_leave_other_listeners_served() {
    let mut process = under_a_limit_of_files(&silent().await).await;
    let message =
        "the limit of open files allows fewer connections than max_connections; raise it (LimitNOFILE, ulimit -n)";
    let room = process.event(message).await;
    let per_client = room["max_exchanges_per_client"].as_u64().unwrap();
    assert!((16..1080).contains(&per_client), "{room}");
    let (tell, mut refused) = tokio::sync::mpsc::unbounded_channel();
    let mut connections = Vec::new();
    for _ in 0..9 {
        let mut http2 = http2(&process).await;
        for _ in 0..120 {
            std::future::poll_fn(|cx| http2.requests.poll_ready(cx)).await.unwrap();
            let (response, _) = http2.requests.send_request(http2_request(GET), true).unwrap();
            let tell = tell.clone();
            tokio::spawn(async move {
                let status = response.await.unwrap().status();
                tell.send(status).unwrap();
            });
        }
        connections.push(http2);
    }
    for _ in 0..1080 - per_client {
        assert_eq!(within("refusal", refused.recv()).await.unwrap(), 429);
    }
    another_listener_is_served(&process).await;
    process.terminate();
    assert!(process.exit_code().await.is_some());
    assert_eq!(process.seen.iter().filter(|event| event["level"] == "ERROR").count(), 0);
}

#[tokio::test]
async fn slow_requests_over_many_connections_leave_other_listeners_served() {
    let process = under_a_limit_of_files(&silent().await).await;
    let mut clients = Vec::new();
    let mut let_in = 0;
    for _ in 0..150 {
        let mut client = process.connect_either().await;
        client.send(GET).await;
        match tokio::time::timeout(Duration::from_millis(5), client.answer()).await {
            Ok(answer) => assert_eq!(answer.status, 429),
            Err(_) => let_in += 1,
        }
        clients.push(client);
    }
    assert!((16..150).contains(&let_in), "{let_in}");
    another_listener_is_served(&process).await;
}

#[tokio::test]
async fn live_websockets_over_http2_leave_other_listeners_served() {
    let upstream = Process::start_with(
        "[[listener]]\nlisten = \"127.0.0.1:0\"\n[[route]]\nupstream = \"u\"\n[upstream.u]\nurl = \"builtin:echo\"\n",
        "error,switchgate::server=info",
        "exec \"$0\" --log-format json",
    )
    .await;
    let process = under_a_limit_of_files(&format!("http://{}", upstream.addresses[0])).await;
    let mut clients = Vec::new();
    let mut connections = Vec::new();
    let (mut opened, mut refused) = (0, 0);
    for _ in 0..6 {
        let mut http2 = http2(&process).await;
        for _ in 0..120 {
            let (response, stream) = http2.open(http2_request(&handshake(""))).await;
            match response.status().as_u16() {
                200 => opened += 1,
                503 => refused += 1,
                status => panic!("{status}"),
            }
            clients.push((response, stream));
        }
        connections.push(http2);
    }
    assert!(opened > 150 && refused > 0, "{opened} opened, {refused} refused");
    let mut other = connect_from([127, 0, 0, 2], process.addresses[1].parse().unwrap()).await;
    assert_eq!(other.ask(GET.replace("GET /", "GET /other")).await.status, 200);
    drop((connections, clients));
}
