//! A proxy on port 0, a raw client, a scripted upstream. Every wait has a deadline.
use std::{future::Future, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use switchgate::{
    config,
    net::handshakes::{Ending, Handshakes},
    protocol::address::ListenAddress,
    server::{self, Order, Outcome},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::mpsc,
    task::JoinHandle,
    time::timeout,
};

pub(crate) mod acme;
pub(crate) mod authority;
pub(crate) mod doors;
pub(crate) mod frames;
pub(crate) mod http2_upstream;
pub(crate) mod library;
pub(crate) mod process;
pub(crate) mod site;
pub(crate) mod tls_client;
pub(crate) mod websocket;

pub(crate) const DEADLINE: Duration = Duration::from_secs(10);

pub(crate) const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub(crate) const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// Waits for an event, but not for ever.
pub(crate) async fn within<T>(what: &str, event: impl Future<Output = T>) -> T {
    timeout(DEADLINE, event).await.unwrap_or_else(|_| panic!("no {what} within {DEADLINE:?}"))
}

/// A running proxy.
pub(crate) struct Proxy {
    pub(crate) addresses: Vec<SocketAddr>,
    /// How the TLS handshakes of its listeners end.
    pub(crate) handshakes: Vec<Arc<Handshakes>>,
    stop: mpsc::Sender<Order>,
    run: JoinHandle<Outcome>,
}

impl Proxy {
    /// Starts one with this config, whose relative paths are taken from `folder`.
    pub(crate) async fn start_in(text: &str, folder: &Path) -> Self {
        let model = config::parse(text, &folder.join("proxy.toml")).unwrap_or_else(|errors| panic!("{errors}"));
        let bound = server::bind(&model).unwrap_or_else(|error| panic!("{error}"));
        let sockets = bound.addresses().into_iter().filter_map(|(_, address)| match address {
            ListenAddress::Socket(address) => Some(address),
            ListenAddress::Unix(_) => None,
        });
        let addresses = sockets.collect();
        let handshakes = bound.handshakes().into_iter().map(|(_, counts)| counts).collect();
        let (stop, stops) = mpsc::channel(2);
        let run =
            tokio::spawn(
                async move { server::run(model, bound, stops).await.unwrap_or_else(|error| panic!("{error}")) },
            );
        Self { addresses, handshakes, stop, run }
    }

    pub(crate) async fn start(text: &str) -> Self {
        Self::start_in(text, Path::new("")).await
    }

    /// One plain listener, one route to `url`; `route` holds further keys of the route, `rest` further tables.
    pub(crate) async fn before(url: &str, route: &str, rest: &str) -> Self {
        Self::start(&format!(
            "[[listener]]\nlisten = \"127.0.0.1:0\"\n[[route]]\nupstream = \"u\"\n{route}\n\
             [upstream.u]\nurl = \"{url}\"\nresponse_timeout = \"500ms\"\n{rest}\n"
        ))
        .await
    }

    pub(crate) async fn echo(route: &str) -> Self {
        Self::before("builtin:echo", route, "").await
    }

    pub(crate) async fn connect(&self) -> Client<TcpStream> {
        Client::new(TcpStream::connect(self.addresses[0]).await.unwrap())
    }

    /// Waits until so many TLS handshakes of the first listener have ended so.
    pub(crate) async fn counted(&self, ending: Ending, times: u64) {
        let reached = async {
            while self.handshakes[0].ended(ending) < times {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        within(ending.as_str(), reached).await;
    }

    /// Tells it to stop; the result is there when it has.
    pub(crate) fn stop(self) -> JoinHandle<Outcome> {
        self.stop.try_send(Order::Stop).unwrap();
        self.run
    }
}

/// A peer that writes and reads bytes.
pub(crate) struct Client<S> {
    pub(crate) stream: S,
    seen: Vec<u8>,
}

/// A response as it came.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn has(&self, line: &str) -> bool {
        self.head.lines().any(|known| known.eq_ignore_ascii_case(line))
    }

    /// The value of a field, by its name in lower case.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let fields = self.head.lines().filter_map(|line| line.split_once(':'));
        fields
            .map(|(known, value)| (known, value.trim()))
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, seen: Vec::new() }
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        within("room to write", self.stream.write_all(bytes.as_ref())).await.unwrap();
        within("flush", self.stream.flush()).await.unwrap();
    }

    async fn fill(&mut self) -> bool {
        let mut chunk = [0; 4096];
        let count = within("bytes", self.stream.read(&mut chunk)).await.unwrap_or(0);
        self.seen.extend_from_slice(&chunk[..count]);
        count > 0
    }

    /// Exactly so many bytes.
    pub(crate) async fn take(&mut self, count: usize) -> Vec<u8> {
        while self.seen.len() < count {
            assert!(self.fill().await, "ended after {:?}", String::from_utf8_lossy(&self.seen));
        }
        self.seen.drain(..count).collect()
    }

    /// Exactly so many bytes; `None` when the stream ends, or fails, before them.
    pub(crate) async fn take_or_end(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.seen.len() < count {
            if !self.fill().await {
                return None;
            }
        }
        Some(self.take(count).await)
    }

    pub(crate) async fn head(&mut self) -> String {
        loop {
            if let Some(at) = self.seen.windows(4).position(|window| window == b"\r\n\r\n") {
                return String::from_utf8(self.take(at + 4).await).unwrap();
            }
            assert!(self.fill().await, "ended within a head: {:?}", String::from_utf8_lossy(&self.seen));
        }
    }

    /// A response's head; `None` when the stream ends, or fails, before it.
    pub(crate) async fn head_or_end(&mut self) -> Option<String> {
        while !self.seen.windows(4).any(|window| window == b"\r\n\r\n") {
            if !self.fill().await {
                return None;
            }
        }
        Some(self.head().await)
    }

    /// A response with its body, by `Content-Length`.
    pub(crate) async fn answer(&mut self) -> Answer {
        let head = self.head().await;
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().unwrap())
        });
        let body = self.take(length.unwrap_or(0)).await;
        Answer { status, head, body }
    }

    /// What has come and was not taken, or else the next bytes; `None` at the end of the stream.
    pub(crate) async fn next(&mut self) -> Option<Vec<u8>> {
        let more = !self.seen.is_empty() || self.fill().await;
        more.then(|| std::mem::take(&mut self.seen))
    }

    /// Everything until the end of the stream.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        while self.fill().await {}
        std::mem::take(&mut self.seen)
    }

    pub(crate) async fn ask(&mut self, request: impl AsRef<[u8]>) -> Answer {
        self.send(request).await;
        self.answer().await
    }
}

/// Connects from an address of its own: all of 127.0.0.0/8 is this machine.
pub(crate) async fn connect_from(address: [u8; 4], to: SocketAddr) -> Client<TcpStream> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((address, 0).into()).unwrap();
    Client::new(within("connection", socket.connect(to)).await.unwrap())
}

/// A right opening handshake with further lines, each ended by CRLF.
pub(crate) fn handshake(more: &str) -> String {
    format!(
        "GET /chat HTTP/1.1\r\nHost: gate.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n{more}\r\n"
    )
}

/// A right 101 for [`KEY`] with further lines.
pub(crate) fn accepted(more: &str) -> String {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {ACCEPT}\r\n{more}\r\n"
    )
}

/// An upstream whose connections the test plays by hand.
pub(crate) struct Upstream {
    pub(crate) url: String,
    accepted: mpsc::Receiver<TcpStream>,
}

impl Upstream {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (sender, accepted) = mpsc::channel(16);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                if sender.send(stream).await.is_err() {
                    return;
                }
            }
        });
        Self { url, accepted }
    }

    pub(crate) async fn accept(&mut self) -> Client<TcpStream> {
        Client::new(within("connection upstream", self.accepted.recv()).await.unwrap())
    }

    /// Takes a client's opening handshake through; its peer in the WebSocket.
    pub(crate) async fn switch(
        &mut self,
        client: &mut Client<impl AsyncRead + AsyncWrite + Unpin>,
    ) -> Client<TcpStream> {
        client.send(handshake("")).await;
        let mut peer = self.accept().await;
        peer.head().await;
        peer.send(accepted("")).await;
        assert_eq!(client.answer().await.status, 101);
        peer
    }

    pub(crate) fn was_dialled(&mut self) -> bool {
        self.accepted.try_recv().is_ok()
    }
}
