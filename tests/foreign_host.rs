//! Requests on a TLS connection for another host than its handshake named: browsers share HTTP/2 connections.

use rustls::{ClientConfig, pki_types::CertificateDer};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::support::{
    Client, Proxy,
    authority::{Authority, Issued},
    doors::{Http2Client, http2_request},
    frames::{MASK, TEXT, frame},
    handshake,
    tls_client::{self, trusting},
};
use switchgate::http2::Http2Stream;

const ROUTES: [&str; 7] =
    ["www.x.test", "ws.x.test", "x.test", "deep.ws.x.test", "other.test", "secure.x.test", "192.0.2.7"];

fn config(listeners: &str) -> String {
    let mut text = listeners.to_owned();
    for host in ROUTES {
        text.push_str(&format!("[[route]]\nhost = \"{host}\"\nupstream = \"u\"\norigin = {{ allow = [\"*\"] }}\n"));
    }
    text + "[upstream.u]\nurl = \"builtin:echo\"\n"
}

fn listener(tls: &str) -> String {
    format!("[[listener]]\nlisten = \"127.0.0.1:0\"\n[listener.tls]\n{tls}\n")
}

/// A gate in whose folder are these certificates, by the name of their files.
struct Shared {
    proxy: Proxy,
    ca: Authority,
    _folder: tempfile::TempDir,
}

impl Shared {
    async fn start(certificates: &[(&str, &[&str])], listeners: &str) -> Self {
        let (folder, ca) = (tempfile::tempdir().unwrap(), Authority::new("ours"));
        for (file, names) in certificates {
            ca.issue(names).write(folder.path(), file);
        }
        std::fs::write(folder.path().join("ca.pem"), ca.0.pem()).unwrap();
        Self { proxy: Proxy::start_in(&config(listeners), folder.path()).await, ca, _folder: folder }
    }

    async fn connect(
        &self,
        at: usize,
        name: &'static str,
        shown: Option<&Issued>,
        alpn: &[u8],
    ) -> TlsStream<TcpStream> {
        let roots: [CertificateDer<'static>; 1] = [self.ca.root()];
        let builder = trusting(&roots, rustls::ALL_VERSIONS);
        let mut config: ClientConfig = match shown {
            None => builder.with_no_client_auth(),
            Some(issued) => {
                let (chain, key) = issued.pair();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        config.alpn_protocols = vec![alpn.to_vec()];
        tls_client::connect(self.proxy.addresses[at], name, config).await.unwrap()
    }

    /// What a request and an opening handshake for `host` get over HTTP/1.1 and HTTP/2, after one for `name` itself.
    async fn expect(&self, at: usize, name: &'static str, shown: Option<&Issued>, host: &str, status: u16) {
        let get = |host: &str| format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let open = handshake("").replacen("Host: gate.test", &format!("Host: {host}"), 1);
        let mut http1 = Client::new(self.connect(at, name, shown, b"http/1.1").await);
        let mut http2 = Http2Client::over(self.connect(at, name, shown, b"h2").await).await;
        if ROUTES.contains(&name) {
            assert_eq!(http1.ask(get(name)).await.status, 200, "{name}");
            assert_eq!(http2.ask(http2_request(&get(name))).await.status, 200, "{name}");
        }
        assert_eq!(http1.ask(get(host)).await.status, status, "{name}, then {host}");
        assert_eq!(http2.ask(http2_request(&get(host))).await.status, status, "{name}, then {host} over HTTP/2");
        assert_eq!(http2.ask(http2_request(&open)).await.status, status, "{name}, then wss://{host} over HTTP/2");
        let switched = if status == 200 { 101 } else { status };
        assert_eq!(http1.ask(open).await.status, switched, "{name}, then wss://{host}");
    }
}

const WILD: (&str, &[&str]) = ("wild", &["*.x.test"]);
const OTHER: (&str, &[&str]) = ("other", &["other.test", "192.0.2.7", "127.0.0.1"]);
const PAIRS: &str = "pairs = [{ certificate = \"other.pem\", key = \"other.key\" }, { certificate = \"wild.pem\", key = \"wild.key\" }]";

#[tokio::test]
async fn a_page_opens_a_websocket_to_a_sibling_host_on_its_connection() {
    let gate = Shared::start(&[WILD, OTHER], &listener(PAIRS)).await;
    let mut http2 = Http2Client::over(gate.connect(0, "www.x.test", None, b"h2").await).await;
    let page = http2_request("GET / HTTP/1.1\r\nHost: www.x.test\r\n\r\n");
    assert_eq!(http2.ask(page).await.status, 200);
    let open = handshake("Origin: https://www.x.test\r\n").replacen("Host: gate.test", "Host: ws.x.test", 1);
    let (response, send) = http2.open(http2_request(&open)).await;
    assert_eq!(response.status(), 200);
    let mut socket = Client::new(Http2Stream::new(send, response.into_body()));
    socket.send(frame(TEXT, b"hello", MASK)).await;
    assert_eq!(socket.frame().await.unwrap().payload, b"hello");
}

#[tokio::test]
async fn the_certificate_of_the_connection_says_which_hosts_it_serves() {
    let gate = Shared::start(&[WILD, OTHER], &listener(PAIRS)).await;
    for (name, host, status) in [
        ("www.x.test", "ws.x.test", 200),
        ("www.x.test", "WS.x.test.", 200),
        ("www.x.test", "ws.x.test:8443", 200),
        // One label, and not the parent.
        ("www.x.test", "x.test", 421),
        ("www.x.test", "deep.ws.x.test", 421),
        // Under a certificate of the same listener that this connection was not shown.
        ("www.x.test", "other.test", 421),
        ("other.test", "ws.x.test", 421),
        ("other.test", "192.0.2.7", 200),
        ("www.x.test", "192.0.2.7", 421),
        // Without a name in the handshake there is nothing that could differ.
        ("127.0.0.1", "ws.x.test", 200),
    ] {
        gate.expect(0, name, None, host, status).await;
    }
}

#[tokio::test]
async fn any_serves_hosts_that_the_certificate_does_not_cover() {
    let any = format!("{PAIRS}\nforeign_host = \"any\"");
    let gate = Shared::start(&[WILD, OTHER], &(listener(&any) + &listener(PAIRS))).await;
    for host in ["x.test", "deep.ws.x.test", "other.test", "192.0.2.7"] {
        gate.expect(0, "www.x.test", None, host, 200).await;
        gate.expect(1, "www.x.test", None, host, 421).await;
    }
}

#[tokio::test]
async fn a_listener_that_asks_for_client_certificates_is_not_passed_by() {
    let client = "client = { ca = \"ca.pem\", mode = \"optional\" }";
    let one = |file: &str, more: &str| listener(&format!("certificate = \"{file}.pem\"\nkey = \"{file}.key\"\n{more}"));
    let listeners =
        [one("wild", ""), one("wild", client), one("exact", "client = { ca = \"ca.pem\" }"), one("exact", client)]
            .concat();
    let gate = Shared::start(&[WILD, ("exact", &["secure.x.test", "www.x.test"])], &listeners).await;
    let identity = gate.ca.issue_with(&["client.test"], |params| {
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    });
    let identity = Some(&identity);
    for (at, shown, name, host, status) in [
        // The same wildcard elsewhere does not make that listener the host's.
        (0, None, "www.x.test", "ws.x.test", 200),
        // An exact name does.
        (0, None, "www.x.test", "secure.x.test", 421),
        // Its own listener asks, and nothing was shown.
        (1, None, "www.x.test", "ws.x.test", 421),
        (1, identity, "www.x.test", "ws.x.test", 200),
        // What this listener has verified, one with another mode has not.
        (1, identity, "www.x.test", "secure.x.test", 421),
        (2, identity, "www.x.test", "secure.x.test", 200),
        (3, None, "www.x.test", "secure.x.test", 421),
        (3, identity, "www.x.test", "secure.x.test", 200),
    ] {
        gate.expect(at, name, shown, host, status).await;
    }
}
