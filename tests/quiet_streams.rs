//! Responses that are silent for long: event streams, logs that are followed, long polls.

use std::future::poll_fn;

use bytes::Bytes;
use h2::SendStream;
use http::Response;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

use crate::support::{
    Client, Upstream,
    doors::{Door, Gate, Http2Client, http2_request},
    http2_upstream::Http2Upstream,
    within,
};

trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Duplex for S {}

/// A response as it is read by a client, whatever its framing.
enum Reader {
    Http1(Client<Box<dyn Duplex>>),
    Http2(h2::RecvStream, Http2Client),
}

impl Reader {
    /// The next bytes; `None` at the end, which over HTTP/1.1 may be anywhere.
    async fn next(&mut self) -> Result<Option<Vec<u8>>, h2::Error> {
        match self {
            Self::Http1(client) => Ok(client.next().await),
            Self::Http2(body, _client) => Ok(within("data", body.data()).await.transpose()?.map(Vec::from)),
        }
    }

    async fn read_until(&mut self, text: &str) {
        let mut seen = Vec::new();
        while !String::from_utf8_lossy(&seen).contains(text) {
            seen.extend(self.next().await.unwrap().expect(text));
        }
    }

    /// Reads to the end, which must not look like that of a complete response.
    async fn read_until_cut(mut self) {
        let mut seen = Vec::new();
        while let Ok(next) = self.next().await {
            match next {
                Some(bytes) => seen.extend(bytes),
                None => {
                    let http1 = matches!(self, Self::Http1(_));
                    assert!(http1 && !seen.ends_with(b"0\r\n\r\n"), "{:?}", String::from_utf8_lossy(&seen));
                    return;
                }
            }
        }
    }
}

/// A request whose response has not begun.
enum Waiting {
    Http1(Client<Box<dyn Duplex>>),
    Http2(h2::client::ResponseFuture, Http2Client),
}

impl Waiting {
    async fn send(gate: &Gate, door: Door, path: &str) -> Self {
        let text = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let stream: Box<dyn Duplex> = match door {
            Door::Http2 => {
                let mut http2 = gate.http2().await;
                let (response, _) = http2.requests.send_request(http2_request(&text), true).unwrap();
                return Self::Http2(response, http2);
            }
            Door::Clear => Box::new(TcpStream::connect(gate.proxy.addresses[0]).await.unwrap()),
            Door::Tls => Box::new(gate.secure(&[]).await),
        };
        let mut client = Client::new(stream);
        client.send(text).await;
        Self::Http1(client)
    }

    async fn response(self) -> (u16, Reader) {
        match self {
            Self::Http1(mut client) => {
                let head = client.head().await;
                (head.split(' ').nth(1).unwrap().parse().unwrap(), Reader::Http1(client))
            }
            Self::Http2(response, http2) => {
                let response = within("response", response).await.unwrap();
                (response.status().as_u16(), Reader::Http2(response.into_body(), http2))
            }
        }
    }
}

/// An upstream of either version, and a response of it that is under way.
enum Backend {
    Http1(Upstream),
    Http2(Http2Upstream),
}

enum Body {
    Http1(Client<TcpStream>),
    Http2(SendStream<Bytes>),
}

enum Asked {
    Http1(Client<TcpStream>),
    Http2(crate::support::http2_upstream::Asked),
}

impl Backend {
    async fn start(protocol: &str) -> Self {
        match protocol {
            "h2" => Self::Http2(Http2Upstream::start(|_| ()).await),
            _ => Self::Http1(Upstream::start().await),
        }
    }

    fn url(&self) -> String {
        match self {
            Self::Http1(upstream) => upstream.url.clone(),
            Self::Http2(upstream) => format!("http://127.0.0.1:{}", upstream.port),
        }
    }

    async fn accept(&mut self) -> Asked {
        match self {
            Self::Http1(upstream) => {
                let mut peer = upstream.accept().await;
                peer.head().await;
                Asked::Http1(peer)
            }
            Self::Http2(upstream) => Asked::Http2(upstream.accept().await),
        }
    }
}

impl Asked {
    async fn begin(self, content_type: &str) -> Body {
        match self {
            Self::Http1(mut peer) => {
                let head =
                    format!("HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nTransfer-Encoding: chunked\r\n\r\n");
                peer.send(head).await;
                Body::Http1(peer)
            }
            Self::Http2((_, mut respond)) => {
                let head = Response::builder().header("content-type", content_type).body(()).unwrap();
                Body::Http2(respond.send_response(head, false).unwrap())
            }
        }
    }
}

impl Body {
    async fn send(&mut self, text: &'static str) {
        match self {
            Self::Http1(peer) => peer.send(format!("{:x}\r\n{text}\r\n", text.len())).await,
            Self::Http2(send) => send.send_data(Bytes::from_static(text.as_bytes()), false).unwrap(),
        }
    }
}

/// A gate with two routes to one upstream: `/` with short waits and `/quiet` with these keys. Request bodies have shorter
/// waits than either.
async fn gate(backend: &Backend, protocol: &str, keys: &str) -> Gate {
    let (url, protocol) = (backend.url(), format!("protocol = \"{protocol}\""));
    let rest = format!(
        "{protocol}\nbody_timeout = \"300ms\"\n[[route]]\npath = \"/quiet\"\nupstream = \"quiet\"\n\
         [upstream.quiet]\nurl = \"{url}\"\n{protocol}\n{keys}\n[limits]\nbody_timeout = \"100ms\""
    );
    Gate::before(&url, "", &rest).await
}

#[tokio::test]
async fn a_silent_response_is_cut_only_where_its_upstream_has_a_body_timeout() {
    for (keys, content_type) in
        [("body_timeout = \"off\"", "text/plain"), ("", "text/event-stream"), ("", "Text/Event-Stream; charset=utf-8")]
    {
        for protocol in ["http/1.1", "h2"] {
            let mut backend = Backend::start(protocol).await;
            let gate = gate(&backend, protocol, keys).await;
            for door in Door::ALL {
                let (quiet, cut) = (Waiting::send(&gate, door, "/quiet"), Waiting::send(&gate, door, "/"));
                let quiet = quiet.await;
                let mut body = backend.accept().await.begin(content_type).await;
                body.send("one").await;
                let (_, mut quiet) = quiet.response().await;
                quiet.read_until("one").await;
                // A value that is set holds for event streams as well.
                let cut = cut.await;
                let mut short = backend.accept().await.begin("text/event-stream").await;
                short.send("one").await;
                let (_, mut cut) = cut.response().await;
                cut.read_until("one").await;
                // Its end shows that three times the wait for request bodies has passed.
                cut.read_until_cut().await;
                body.send("two").await;
                quiet.read_until("two").await;
            }
        }
    }
}

#[tokio::test]
async fn a_long_poll_waits_where_the_response_timeout_is_off() {
    for protocol in ["http/1.1", "h2"] {
        let mut backend = Backend::start(protocol).await;
        let gate = gate(&backend, protocol, "response_timeout = \"off\"").await;
        for door in Door::ALL {
            let waiting = Waiting::send(&gate, door, "/quiet").await;
            let asked = backend.accept().await;
            let late = Waiting::send(&gate, door, "/").await;
            let _unanswered = backend.accept().await;
            assert_eq!(late.response().await.0, 504, "{door:?}, {protocol}");
            let mut body = asked.begin("text/plain").await;
            body.send("at last").await;
            let (status, mut reader) = waiting.response().await;
            assert_eq!(status, 200, "{door:?}, {protocol}");
            reader.read_until("at last").await;
        }
    }
}

#[tokio::test]
async fn an_opening_handshake_waits_where_the_response_timeout_is_off() {
    let mut backend = Backend::start("http/1.1").await;
    let gate = gate(&backend, "http/1.1", "response_timeout = \"off\"").await;
    let mut waiting = gate.proxy.connect().await;
    waiting.send(crate::support::handshake("").replacen("/chat", "/quiet", 1)).await;
    let Asked::Http1(mut peer) = backend.accept().await else { panic!() };
    let mut late = gate.proxy.connect().await;
    assert_eq!(late.ask(crate::support::handshake("")).await.status, 504);
    peer.send(crate::support::accepted("")).await;
    assert_eq!(waiting.answer().await.status, 101);
}

#[tokio::test]
async fn a_client_that_leaves_a_quiet_response_frees_its_upstream() {
    for protocol in ["http/1.1", "h2"] {
        let mut backend = Backend::start(protocol).await;
        let gate = gate(&backend, protocol, "body_timeout = \"off\"").await;
        for door in Door::ALL {
            let waiting = Waiting::send(&gate, door, "/quiet").await;
            let mut body = backend.accept().await.begin("text/plain").await;
            body.send("one").await;
            let (_, mut reader) = waiting.response().await;
            reader.read_until("one").await;
            drop(reader);
            match body {
                Body::Http1(mut peer) => assert!(peer.rest().await.is_empty(), "{door:?}"),
                Body::Http2(mut send) => {
                    within("reset", poll_fn(|cx| send.poll_reset(cx))).await.unwrap();
                }
            }
        }
    }
}

#[tokio::test]
async fn a_stop_ends_quiet_responses_after_its_grace() {
    for protocol in ["http/1.1", "h2"] {
        for door in Door::ALL {
            let mut backend = Backend::start(protocol).await;
            let keys = format!("url = \"{}\"\nprotocol = \"{protocol}\"\nbody_timeout = \"off\"", backend.url());
            let gate = Gate::to(&keys, "", "[drain]\ngrace = \"300ms\"").await;
            let waiting = Waiting::send(&gate, door, "/").await;
            let mut body = backend.accept().await.begin("text/event-stream").await;
            body.send("one").await;
            let (_, mut reader) = waiting.response().await;
            reader.read_until("one").await;
            let stopped = gate.proxy.stop();
            // It goes on until then.
            body.send("two").await;
            reader.read_until("two").await;
            reader.read_until_cut().await;
            let outcome = within("stop", stopped).await.unwrap();
            assert_eq!(outcome.cut.connections, 1, "{door:?}, {protocol}");
        }
    }
}
