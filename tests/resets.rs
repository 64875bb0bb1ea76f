//! A client that resets while nobody reads what it has sent: the upstream learns of it at once, not after a timeout.

use std::{future::poll_fn, time::Duration};

use bytes::Bytes;
use switchgate::net::{HangUp, Io, Wire, tls};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    net::{TcpStream, UnixListener, UnixStream},
    time::timeout,
};
use tokio_rustls::client::TlsStream;

use crate::support::{
    Client, DEADLINE, Upstream,
    doors::{Door, Gate, Http2Client, http2_request},
    frames::reset_on_drop,
    handshake,
    http2_upstream::Http2Upstream,
    process::{DEVELOPMENT, Process},
    tls_client, within,
};

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// A gate in a process of its own, and how many sockets it has without clients.
struct Counted {
    process: Process,
    door: Door,
    at_rest: usize,
}

impl Counted {
    async fn start(door: Door, url: &str) -> Self {
        let tls = if door == Door::Clear { "" } else { DEVELOPMENT };
        let config = format!(
            "workers = 1\n[[listener]]\nlisten = \"127.0.0.1:0\"\n{tls}[[route]]\nupstream = \"u\"\n\
             [upstream.u]\nurl = \"{url}\"\n"
        );
        let process = Process::start(&config).await;
        let mut gate = Self { process, door, at_rest: 0 };
        // Its thread opens its own sockets before it answers.
        let answer = gate.open().await.ask("GET / HTTP/1.1\r\nConnection: close\r\n\r\n").await;
        assert_eq!(answer.status, 400);
        let mut seen = Vec::new();
        while seen.len() < 20 || seen.iter().rev().take(20).any(|count| *count != seen[seen.len() - 1]) {
            tokio::time::sleep(Duration::from_millis(5)).await;
            seen.push(gate.process.open_files().sockets);
        }
        gate.at_rest = seen[seen.len() - 1];
        gate
    }

    async fn tls(&self, protocol: &[u8]) -> TlsStream<TcpStream> {
        let config = tls::client_config(Some(&self.process.folder.path().join("ca.pem"))).unwrap();
        let mut config = rustls::ClientConfig::clone(&config);
        config.alpn_protocols = vec![protocol.to_vec()];
        let stream = tls_client::connect(&self.process.addresses[0], "localhost", config).await.unwrap();
        reset_on_drop(stream.get_ref().0);
        stream
    }

    /// A connection over HTTP/1.1 that is reset when it is dropped.
    async fn open(&self) -> Client<Box<dyn Stream>> {
        if self.door == Door::Clear {
            let stream = self.process.connect().await.stream;
            reset_on_drop(&stream);
            return Client::new(Box::new(stream));
        }
        Client::new(Box::new(self.tls(b"http/1.1").await))
    }

    /// Waits until no socket is left of what the client began.
    async fn at_rest(&self) -> Result<(), usize> {
        let at_rest = async {
            while self.process.open_files().sockets > self.at_rest {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let open = || self.process.open_files().sockets - self.at_rest;
        timeout(DEADLINE, at_rest).await.map_err(|_| open())
    }
}

/// Writes until nothing is taken any more.
async fn flood(stream: &mut (impl AsyncWrite + Unpin)) {
    let part = vec![b'x'; 64 * 1024];
    while let Ok(written) = timeout(Duration::from_millis(300), stream.write(&part)).await {
        written.unwrap();
    }
}

/// What an HTTP/1.1 upstream does before the client resets.
#[derive(Clone, Copy)]
enum Script {
    ReadsNothing,
    ReadsTheHead,
    RespondsInPart,
    SendsMoreThanIsTaken,
}

#[tokio::test]
async fn a_reset_is_noticed_whatever_nobody_reads() {
    let get = "GET / HTTP/1.1\r\nHost: gate.test\r\n\r\n";
    let upload = "POST / HTTP/1.1\r\nHost: gate.test\r\nContent-Length: 1000000000\r\n\r\n";
    let chunked = "POST / HTTP/1.1\r\nHost: gate.test\r\nTransfer-Encoding: chunked\r\n\r\n40000000\r\n";
    let cases = [
        ("early bytes of a WebSocket", handshake(""), true, Script::ReadsTheHead),
        ("pipelined bytes", get.to_owned(), true, Script::ReadsTheHead),
        ("pipelined bytes behind a response under way", get.to_owned(), true, Script::RespondsInPart),
        ("an upload that is not taken", upload.to_owned(), true, Script::ReadsNothing),
        ("a chunked upload that is not taken", chunked.to_owned(), true, Script::ReadsNothing),
        ("an upload behind a response under way", upload.to_owned(), true, Script::RespondsInPart),
        ("a response that the client does not take", get.to_owned(), false, Script::SendsMoreThanIsTaken),
    ];
    let mut wrong = Vec::new();
    for door in [Door::Clear, Door::Tls] {
        let mut upstream = Upstream::start().await;
        let gate = Counted::start(door, &upstream.url).await;
        for (name, request, floods, script) in &cases {
            let mut client = gate.open().await;
            client.send(request).await;
            let mut peer = upstream.accept().await;
            match script {
                Script::ReadsNothing => {}
                Script::ReadsTheHead => drop(peer.head().await),
                Script::RespondsInPart => {
                    peer.head().await;
                    peer.send("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf").await;
                    client.head().await;
                }
                Script::SendsMoreThanIsTaken => {
                    peer.head().await;
                    peer.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n").await;
                    flood(&mut peer.stream).await;
                }
            }
            if *floods {
                flood(&mut client.stream).await;
            }
            drop(client);
            if let Err(left) = gate.at_rest().await {
                wrong.push(format!("{name} {door:?}: {left} sockets left"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn an_end_behind_more_than_is_held_early_is_noticed_too() {
    let mut upstream = Upstream::start().await;
    let gate = Counted::start(Door::Clear, &upstream.url).await;
    for request in [handshake(""), "GET / HTTP/1.1\r\nHost: gate.test\r\n\r\n".to_owned()] {
        let mut client = gate.process.connect().await;
        client.send(&request).await;
        let mut peer = upstream.accept().await;
        peer.head().await;
        client.send(vec![b'x'; 90_000]).await;
        client.stream.shutdown().await.unwrap();
        gate.at_rest().await.unwrap();
    }
}

#[tokio::test]
async fn a_client_that_stays_is_waited_for() {
    let mut upstream = Upstream::start().await;
    for door in [Door::Clear, Door::Tls] {
        let gate = Counted::start(door, &upstream.url).await;
        let mut client = gate.open().await;
        client.send([b"GET / HTTP/1.1\r\nHost: gate.test\r\n\r\n", &[b'x'; 90_000][..]].concat()).await;
        let mut peer = upstream.accept().await;
        peer.head().await;
        // Several checks.
        tokio::time::sleep(switchgate::net::HANG_UP_CHECK * 3).await;
        peer.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok").await;
        assert_eq!(client.answer().await.text(), "ok", "{door:?}");
    }
}

/// Sends a body until no more of it is taken.
async fn flood_stream(stream: &mut h2::SendStream<Bytes>) {
    loop {
        stream.reserve_capacity(16 * 1024);
        match timeout(Duration::from_millis(300), poll_fn(|cx| stream.poll_capacity(cx))).await {
            Ok(Some(room)) => stream.send_data(vec![b'x'; room.unwrap()].into(), false).unwrap(),
            Ok(None) => panic!("the stream has ended"),
            Err(_) => return,
        }
    }
}

#[tokio::test]
async fn a_reset_of_an_upload_over_http2_is_noticed() {
    let mut upstream = Upstream::start().await;
    let gate = Counted::start(Door::Http2, &upstream.url).await;
    for by_stream in [true, false] {
        let mut http2 = Http2Client::over(gate.tls(b"h2").await).await;
        let request = http2_request("POST / HTTP/1.1\r\nHost: gate.test\r\n\r\n");
        let (_response, mut send) = http2.requests.send_request(request, false).unwrap();
        // It reads nothing.
        let _peer = upstream.accept().await;
        flood_stream(&mut send).await;
        if by_stream {
            send.send_reset(h2::Reason::CANCEL);
            let only_the_client = async {
                while gate.process.open_files().sockets > gate.at_rest + 1 {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            within("end of the upstream connection", only_the_client).await;
        }
        http2.end.abort();
        gate.at_rest().await.unwrap();
    }
}

#[tokio::test]
async fn an_upload_to_http2_that_is_not_taken_is_given_up_with_its_client() {
    for door in Door::ALL {
        let mut upstream = Http2Upstream::start(|_| {}).await;
        let gate = Gate::to(&format!("url = \"http://127.0.0.1:{}\"\nprotocol = \"h2\"", upstream.port), "", "").await;
        let mut respond = match door {
            Door::Http2 => {
                let mut http2 = gate.http2().await;
                let request = http2_request("POST / HTTP/1.1\r\nHost: gate.test\r\n\r\n");
                let (_response, mut send) = http2.requests.send_request(request, false).unwrap();
                let (request, respond) = upstream.accept().await;
                flood_stream(&mut send).await;
                http2.end.abort();
                (request, respond)
            }
            _ => {
                let mut client: Client<Box<dyn Stream>> = match door {
                    Door::Clear => {
                        let stream = gate.proxy.connect().await.stream;
                        reset_on_drop(&stream);
                        Client::new(Box::new(stream))
                    }
                    _ => {
                        let stream = gate.secure(&[]).await;
                        reset_on_drop(stream.get_ref().0);
                        Client::new(Box::new(stream))
                    }
                };
                client.send("POST / HTTP/1.1\r\nHost: gate.test\r\nContent-Length: 1000000000\r\n\r\n").await;
                let asked = upstream.accept().await;
                flood(&mut client.stream).await;
                asked
            }
        };
        let reset = within("reset", poll_fn(|cx| respond.1.poll_reset(cx))).await.unwrap();
        assert_eq!(reset, h2::Reason::CANCEL, "{door:?}");
    }
}

#[tokio::test]
async fn every_kind_of_socket_tells_of_its_peer_unread() {
    // TCP and TLS are in the tables above.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let mut client = UnixStream::connect(&path).await.unwrap();
    let (ours, _) = listener.accept().await.unwrap();
    client.write_all(b"unread").await.unwrap();
    let wire = Wire::boxed(ours);
    assert_eq!(wire.hang_up(), None);
    client.shutdown().await.unwrap();
    assert_eq!(wire.hang_up(), Some(HangUp::Ended));
    drop(client);
    assert_eq!(wire.hang_up(), Some(HangUp::Reset));
}
