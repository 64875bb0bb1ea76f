//! The same gate by three doors: in clear, over TLS, over HTTP/2. One table of requests serves all.

use std::{future::poll_fn, path::PathBuf};

use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderMap, Request, Response};
use rustls::ClientConfig;
use switchgate::{http2::Http2Stream, net::tls};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    task::JoinHandle,
};
use tokio_rustls::client::TlsStream;

use super::{Answer, Client, Proxy, within};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    Clear,
    Tls,
    Http2,
}

impl Door {
    pub(crate) const ALL: [Self; 3] = [Self::Clear, Self::Tls, Self::Http2];
}

/// A gate with a listener in clear and one over TLS.
pub(crate) struct Gate {
    pub(crate) proxy: Proxy,
    folder: tempfile::TempDir,
}

impl Gate {
    /// `route` holds further keys of the route, `rest` further tables.
    pub(crate) async fn before(url: &str, route: &str, rest: &str) -> Self {
        Self::with(url, "", route, rest).await
    }

    /// `top` holds keys that stand before all tables.
    pub(crate) async fn with(url: &str, top: &str, route: &str, rest: &str) -> Self {
        Self::start(top, &format!("url = \"{url}\"\nresponse_timeout = \"500ms\""), route, rest).await
    }

    /// `upstream` holds all keys of the upstream.
    pub(crate) async fn to(upstream: &str, route: &str, rest: &str) -> Self {
        Self::start("", upstream, route, rest).await
    }

    async fn start(top: &str, upstream: &str, route: &str, rest: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let text = format!(
            "{top}\n[[listener]]\nlisten = \"127.0.0.1:0\"\n[[listener]]\nlisten = \"127.0.0.1:0\"\n\
             tls = {{ certificate = \"leaf.pem\", key = \"leaf.key\", development = true }}\n\
             [[route]]\nupstream = \"u\"\n{route}\n[upstream.u]\n{upstream}\n{rest}\n"
        );
        Self { proxy: Proxy::start_in(&text, folder.path()).await, folder }
    }

    /// Where the certificate of its authority is.
    pub(crate) fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    pub(crate) async fn echo(route: &str) -> Self {
        Self::before("builtin:echo", route, "").await
    }

    /// A TLS connection on which the client offers these protocols.
    pub(crate) async fn secure(&self, protocols: &[&[u8]]) -> TlsStream<TcpStream> {
        let config = tls::client_config(Some(&self.ca())).unwrap();
        let mut config = ClientConfig::clone(&config);
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        super::tls_client::connect(self.proxy.addresses[1], "localhost", config).await.unwrap()
    }

    pub(crate) async fn http2(&self) -> Http2Client {
        let stream = self.secure(&[b"h2"]).await;
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        Http2Client::over(stream).await
    }

    /// What a request in the text of HTTP/1.1 is answered by this door; over HTTP/2 it is what the text stands for.
    pub(crate) async fn ask(&self, door: Door, text: &str) -> Answer {
        match door {
            Door::Clear => self.proxy.connect().await.ask(text).await,
            Door::Tls => Client::new(self.secure(&[]).await).ask(text).await,
            Door::Http2 => self.http2().await.ask(http2_request(text)).await,
        }
    }
}

/// An HTTP/2 connection to the gate.
pub(crate) struct Http2Client {
    pub(crate) requests: SendRequest<Bytes>,
    /// How the connection ends.
    pub(crate) end: JoinHandle<Result<(), h2::Error>>,
}

impl Http2Client {
    pub(crate) async fn over(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Self {
        let mut builder = h2::client::Builder::new();
        // Whether echoes come faster than the test takes them is chance, and 131 small ones would be a flood to it.
        builder.data_frame_budget(4 << 20);
        let (requests, connection) = within("HTTP/2", builder.handshake(stream)).await.unwrap();
        Self { requests, end: tokio::spawn(connection) }
    }

    /// Waits until the gate has ended the connection. A last word of the client may have met a closed socket.
    pub(crate) async fn ended(self) {
        let _how = within("end of the connection", self.end).await.unwrap();
    }

    /// The head of the answer with its body's stream, and what there is to send on.
    pub(crate) async fn open(&mut self, request: Request<()>) -> (Response<h2::RecvStream>, h2::SendStream<Bytes>) {
        let requests = &mut self.requests;
        within("room for a stream", poll_fn(|cx| requests.poll_ready(cx))).await.unwrap();
        if request.extensions().get::<h2::ext::Protocol>().is_some() {
            // Known once the gate's settings have come.
            let told = async {
                while !self.requests.is_extended_connect_protocol_enabled() {
                    tokio::task::yield_now().await;
                }
            };
            within("the setting that allows it", told).await;
        }
        // Only a tunnel has more to say than its head.
        let ends = request.method() != http::Method::CONNECT;
        let (response, send) = self.requests.send_request(request, ends).unwrap();
        (within("response", response).await.unwrap(), send)
    }

    /// A WebSocket, as a byte stream that carries its frames.
    pub(crate) async fn websocket(&mut self) -> Client<Http2Stream> {
        let (response, send) = self.open(http2_request(&super::handshake(""))).await;
        assert_eq!(response.status(), 200);
        Client::new(Http2Stream::new(send, response.into_body()))
    }

    /// The whole answer to a request without a body.
    pub(crate) async fn ask(&mut self, request: Request<()>) -> Answer {
        let tunnel = request.method() == http::Method::CONNECT;
        let (response, _send) = self.open(request).await;
        let status = response.status().as_u16();
        let head = text_of(response.headers());
        let mut body = Vec::new();
        if !tunnel || status != 200 {
            let mut stream = response.into_body();
            while let Some(data) = within("body", stream.data()).await {
                let data = data.unwrap();
                stream.flow_control().release_capacity(data.len()).unwrap();
                body.extend_from_slice(&data);
            }
        }
        Answer { status, head, body }
    }
}

fn text_of(fields: &HeaderMap) -> String {
    fields.iter().map(|(name, value)| format!("{name}: {}\n", value.to_str().unwrap())).collect()
}

/// The request of HTTP/2 that a text of HTTP/1.1 stands for; an opening handshake is an extended CONNECT (RFC 8441).
pub(crate) fn http2_request(text: &str) -> Request<()> {
    let mut lines = text.split("\r\n");
    let (method, rest) = lines.next().unwrap().split_once(' ').unwrap();
    let path = rest.split(' ').next().unwrap();
    let (mut host, mut fields, mut websocket) = ("localhost", Vec::new(), false);
    for (name, value) in lines.take_while(|line| !line.is_empty()).filter_map(|line| line.split_once(':')) {
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "host" => host = value,
            "upgrade" => websocket = value.eq_ignore_ascii_case("websocket"),
            "connection" | "sec-websocket-key" => {}
            _ => fields.push((name, value)),
        }
    }
    let method = if websocket { "CONNECT" } else { method };
    let mut request = Request::builder().method(method).uri(format!("https://{host}{path}"));
    for (name, value) in fields {
        request = request.header(name, value);
    }
    if websocket {
        request = request.extension(h2::ext::Protocol::from_static("websocket"));
    }
    request.body(()).unwrap()
}
