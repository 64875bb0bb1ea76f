//! TLS on both sides, with throw-away certificates, and two WebSocket libraries through all of it.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{ClientConfig, version};
use switchgate::{
    config::model::{PairFiles, Unnamed, Versions},
    net::{certificates::Certificates, development, tls},
};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, client::TlsStream};

use crate::support::{
    Client, Proxy, handshake, library,
    tls_client::{self, development_root},
    within,
};

const FRONT: &str = "[[listener]]\nlisten = \"127.0.0.1:0\"\n\
                     tls = { certificate = \"leaf.pem\", key = \"leaf.key\", development = true }\n\
                     [[route]]\nupstream = \"u\"\n[upstream.u]\n";

async fn connect(proxy: &Proxy, config: Arc<ClientConfig>) -> std::io::Result<TlsStream<TcpStream>> {
    tls_client::connect(proxy.addresses[0], "localhost", config).await
}

fn trusting(folder: &Path) -> Arc<ClientConfig> {
    tls::client_config(Some(&folder.join("ca.pem"))).unwrap()
}

#[tokio::test]
async fn both_versions_of_tls_carry_a_websocket() {
    let folder = tempfile::tempdir().unwrap();
    let proxy = Proxy::start_in(&format!("{FRONT}url = \"builtin:echo\""), folder.path()).await;
    for version in [&version::TLS12, &version::TLS13] {
        let mut config = tls_client::trusting(&[development_root(folder.path())], &[version]).with_no_client_auth();
        config.alpn_protocols = vec![b"spdy/3".to_vec(), b"http/1.1".to_vec()];
        let stream = connect(&proxy, Arc::new(config)).await.unwrap();
        assert_eq!(stream.get_ref().1.protocol_version(), Some(version.version));
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
        let answer = Client::new(stream).ask(handshake("Origin: https://gate.test\r\n")).await;
        assert_eq!(answer.status, 101);
    }
}

#[tokio::test]
async fn plain_http_on_the_tls_port_harms_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let proxy = Proxy::start_in(&format!("{FRONT}url = \"builtin:echo\""), folder.path()).await;
    let mut plain = proxy.connect().await;
    plain.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let answer = plain.rest().await;
    assert!(answer.starts_with(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n"), "{answer:?}");
    let stream = connect(&proxy, trusting(folder.path())).await.unwrap();
    assert_eq!(Client::new(stream).ask(handshake("")).await.status, 101);
}

fn server_tls(certificate: PathBuf, key: PathBuf) -> Arc<rustls::ServerConfig> {
    let certificates = Certificates::load(&[PairFiles { certificate, key }], Unnamed::First).unwrap();
    Arc::new(tls::server_config(Arc::new(certificates), Versions::Intermediate, tls::ONLY_HTTP1, None).unwrap())
}

/// A TLS backend on tokio-tungstenite's server, behind our throw-away certificate.
async fn secure_backend(folder: &Path) -> u16 {
    development::ensure(&folder.join("leaf.pem"), &folder.join("leaf.key")).unwrap();
    let acceptor = TlsAcceptor::from(server_tls(folder.join("leaf.pem"), folder.join("leaf.key")));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                library::echo(stream).await;
            });
        }
    });
    port
}

#[tokio::test]
async fn a_library_client_talks_wss_to_a_wss_backend() {
    let folder = tempfile::tempdir().unwrap();
    let port = secure_backend(folder.path()).await;
    let text = format!("{FRONT}url = \"https://localhost:{port}\"\nca = \"ca.pem\"");
    let proxy = Proxy::start_in(&text, folder.path()).await;
    let stream = connect(&proxy, trusting(folder.path())).await.unwrap();
    library::messages_of_every_size("wss://localhost/", stream).await;
}

#[tokio::test]
async fn a_backend_with_another_name_or_an_unknown_root_is_a_502() {
    let folder = tempfile::tempdir().unwrap();
    let port = secure_backend(folder.path()).await;
    for keys in ["ca = \"ca.pem\"\nserver_name = \"other.test\"", "ca = \"other/ca.pem\""] {
        std::fs::create_dir_all(folder.path().join("other")).unwrap();
        development::ensure(&folder.path().join("other/leaf.pem"), &folder.path().join("other/leaf.key")).unwrap();
        let text = format!("{FRONT}url = \"https://localhost:{port}\"\n{keys}");
        let proxy = Proxy::start_in(&text, folder.path()).await;
        let stream = connect(&proxy, trusting(folder.path())).await.unwrap();
        assert_eq!(Client::new(stream).ask(handshake("")).await.status, 502, "{keys}");
    }
}

#[tokio::test]
async fn a_second_library_speaks_through_the_gate_in_clear() {
    use http_body_util::Empty;
    use hyper::header::{CONNECTION, HOST, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE};
    let proxy = Proxy::echo("").await;
    let stream = TcpStream::connect(proxy.addresses[0]).await.unwrap();
    let request = hyper::Request::get("/")
        .header(HOST, "localhost")
        .header(CONNECTION, "upgrade")
        .header(UPGRADE, "websocket")
        .header(SEC_WEBSOCKET_KEY, fastwebsockets::handshake::generate_key())
        .header(SEC_WEBSOCKET_VERSION, "13")
        .body(Empty::<bytes::Bytes>::new())
        .unwrap();
    let spawner = hyper_util::rt::TokioExecutor::new();
    let (mut socket, _) = fastwebsockets::handshake::client(&spawner, request, stream).await.unwrap();
    socket.write_frame(fastwebsockets::Frame::text(b"hello".as_slice().into())).await.unwrap();
    let frame = within("echo", socket.read_frame()).await.unwrap();
    assert_eq!(&*frame.payload, b"hello");
}
