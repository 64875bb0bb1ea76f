//! The PROXY header that an upstream gets: to the byte, before all else, and one for each client.

use std::net::SocketAddr;

use tokio::{
    net::{TcpStream, UnixListener},
    sync::mpsc,
};

use crate::support::{
    Client, Upstream, accepted,
    authority::{self, Authority, showing},
    handshake,
    process::{DEVELOPMENT, Process},
    within,
};

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const PLAIN: &str = "GET / HTTP/1.1\r\nHost: gate.test\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn config(listen: &str, url: &str, keys: &str) -> String {
    format!("[[listener]]\nlisten = \"{listen}\"\n{keys}[[route]]\nupstream = \"u\"\n[upstream.u]\nurl = \"{url}\"\n")
}

fn ends(client: &Client<TcpStream>) -> (SocketAddr, SocketAddr) {
    (client.stream.local_addr().unwrap(), client.stream.peer_addr().unwrap())
}

/// Asks for a WebSocket and a page, and answers the first bytes upstream beside both ends of the client.
async fn first_bytes(
    process: &mut Process,
    upstream: &mut Upstream,
    length: usize,
) -> [(SocketAddr, SocketAddr, Vec<u8>, String); 2] {
    let mut seen = Vec::new();
    for (request, answer) in [(PLAIN.to_owned(), OK.to_owned()), (handshake(""), accepted(""))] {
        let mut client = process.connect().await;
        client.send(&request).await;
        let mut peer = upstream.accept().await;
        let bytes = peer.take(length).await;
        let head = peer.head().await;
        assert!(head.starts_with("GET /"), "the request begins behind the header: {head}");
        peer.send(&answer).await;
        client.answer().await;
        let event = if request == PLAIN { "request" } else { "websocket opened" };
        let event = process.event(event).await;
        let id = event["span"]["id"].as_str().or(event["id"].as_str()).unwrap().to_owned();
        let (from, to) = ends(&client);
        seen.push((from, to, bytes, id));
    }
    seen.try_into().unwrap()
}

#[tokio::test]
async fn version_1_names_both_ends_of_the_clients_connection() {
    for (listen, family) in [("127.0.0.1:0", "TCP4"), ("[::1]:0", "TCP6")] {
        let mut upstream = Upstream::start().await;
        let text = config(listen, &upstream.url, "") + "proxy_protocol = \"v1\"\n";
        let process = Process::start(&text).await;
        for request in [PLAIN.to_owned(), handshake("")] {
            let mut client = process.connect().await;
            client.send(request).await;
            let (from, to) = ends(&client);
            let line = format!("PROXY {family} {} {} {} {}\r\n", from.ip(), to.ip(), from.port(), to.port());
            let mut peer = upstream.accept().await;
            assert_eq!(String::from_utf8(peer.take(line.len()).await).unwrap(), line);
            assert!(peer.head().await.starts_with("GET /"));
        }
    }
}

#[tokio::test]
async fn what_a_balancer_tells_is_told_on() {
    let mut upstream = Upstream::start().await;
    let keys = "proxy_protocol = { from = [\"127.0.0.0/8\"] }\n";
    let text = config("127.0.0.1:0", &upstream.url, keys) + "proxy_protocol = \"v1\"\n";
    let process = Process::start(&text).await;
    for line in [
        "PROXY TCP4 192.0.2.7 198.51.100.1 8080 443\r\n",
        "PROXY TCP6 2001:db8::7 2001:db8::1 8080 443\r\n",
        // It tells nothing: the balancer's connection is all that is known.
        "PROXY UNKNOWN\r\n",
    ] {
        for request in [PLAIN.to_owned(), handshake("")] {
            let mut client = process.connect().await;
            client.send(format!("{line}{request}")).await;
            let (from, to) = ends(&client);
            let own = format!("PROXY TCP4 {} {} {} {}\r\n", from.ip(), to.ip(), from.port(), to.port());
            let expected = if line.contains("UNKNOWN") { &own } else { line };
            let mut peer = upstream.accept().await;
            assert_eq!(String::from_utf8(peer.take(expected.len()).await).unwrap(), expected);
            assert!(peer.head().await.starts_with("GET /"));
        }
    }
}

#[tokio::test]
async fn the_client_that_a_trusted_proxy_names_is_told_on() {
    let mut upstream = Upstream::start().await;
    let text = config("127.0.0.1:0", &upstream.url, "") + "proxy_protocol = \"v1\"\n";
    let process = Process::start(&format!("trusted_proxies = \"127.0.0.0/8\"\n{text}")).await;
    for request in [PLAIN.to_owned(), handshake("")] {
        let mut client = process.connect().await;
        client.send(request.replacen("\r\n", "\r\nX-Forwarded-For: 192.0.2.7\r\n", 1)).await;
        // Of its port nothing was said.
        let line = format!("PROXY TCP4 192.0.2.7 127.0.0.1 0 {}\r\n", ends(&client).1.port());
        let mut peer = upstream.accept().await;
        assert_eq!(String::from_utf8(peer.take(line.len()).await).unwrap(), line);
        assert!(peer.head().await.starts_with("GET /"));
    }
}

#[tokio::test]
async fn version_2_names_them_and_the_request() {
    for listen in ["127.0.0.1:0", "[::1]:0"] {
        let mut upstream = Upstream::start().await;
        let text = config(listen, &upstream.url, "") + "proxy_protocol = \"v2\"\n";
        let mut process = Process::start(&text).await;
        let addresses = if listen.starts_with('[') { 36 } else { 12 };
        let length = addresses + 11 + 19;
        for (from, to, bytes, id) in first_bytes(&mut process, &mut upstream, 16 + length).await {
            let mut expected = SIGNATURE.to_vec();
            let family = if from.is_ipv4() { 0x11 } else { 0x21 };
            expected.extend([0x21, family, 0, u8::try_from(length).unwrap()]);
            for ip in [from.ip(), to.ip()] {
                match ip {
                    std::net::IpAddr::V4(ip) => expected.extend(ip.octets()),
                    std::net::IpAddr::V6(ip) => expected.extend(ip.octets()),
                }
            }
            expected.extend(from.port().to_be_bytes());
            expected.extend(to.port().to_be_bytes());
            expected.extend(b"\x01\0\x08http/1.1\x05\0\x10");
            expected.extend(id.as_bytes());
            assert_eq!(bytes, expected);
        }
    }
}

#[tokio::test]
async fn version_2_names_the_host_of_the_clients_tls() {
    let mut upstream = Upstream::start().await;
    let text = config("127.0.0.1:0", &upstream.url, DEVELOPMENT) + "proxy_protocol = \"v2\"\n";
    let process = Process::start(&text).await;
    let mut client = process.connect_either().await;
    client.send(PLAIN).await;
    let mut peer = upstream.accept().await;
    let header = peer.take(16 + 12 + 11 + 12 + 19).await;
    assert_eq!(&header[16 + 12 + 11..][..12], b"\x02\0\x09localhost");
    assert!(peer.head().await.starts_with("GET / "));
}

#[tokio::test]
async fn the_header_comes_before_the_client_hello() {
    let folder = tempfile::tempdir().unwrap();
    let ours = Authority::new("ours");
    ours.write(&folder.path().join("ca.pem"));
    let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(showing(&ours.issue(&["localhost"]))));
    let (told, mut tellings) = mpsc::channel(4);
    let port = authority::raw(move |mut stream| {
        let (acceptor, told) = (acceptor.clone(), told.clone());
        async move {
            use tokio::io::AsyncReadExt;
            let mut line = Vec::new();
            while !line.ends_with(b"\r\n") {
                line.push(stream.read_u8().await.unwrap());
            }
            told.send(String::from_utf8(line).unwrap()).await.unwrap();
            authority::web(Client::new(acceptor.accept(stream).await.unwrap())).await;
        }
    })
    .await;
    let text = config("127.0.0.1:0", &format!("https://localhost:{port}"), "");
    let process = Process::start_in(&(text + "ca = \"ca.pem\"\nproxy_protocol = \"v1\"\n"), folder).await;
    for (request, status) in [(PLAIN.to_owned(), 200), (handshake(""), 101)] {
        let mut client = process.connect().await;
        assert_eq!(client.ask(request).await.status, status);
        let (from, to) = ends(&client);
        let line = format!("PROXY TCP4 {} {} {} {}\r\n", from.ip(), to.ip(), from.port(), to.port());
        assert_eq!(within("header", tellings.recv()).await.unwrap(), line);
    }
}

#[tokio::test]
async fn no_connection_is_lent_to_another_request() {
    let mut upstream = Upstream::start().await;
    let text = config("127.0.0.1:0", &upstream.url, "") + "proxy_protocol = \"v1\"\n";
    let process = Process::start(&format!("workers = 1\n{text}")).await;
    let (mut first, mut second) = (process.connect().await, process.connect().await);
    for round in 0..3 {
        // The first client twice, the other one between.
        let client = if round == 1 { &mut second } else { &mut first };
        client.send(PLAIN).await;
        let port = client.stream.local_addr().unwrap().port();
        let mut peer = upstream.accept().await;
        let head = peer.head().await;
        let (line, rest) = head.split_once("\r\n").unwrap();
        assert!(line.starts_with("PROXY TCP4 127.0.0.1 127.0.0.1 ") && line.contains(&format!(" {port} ")), "{line}");
        assert!(rest.starts_with("GET / "), "{rest}");
        peer.send(OK).await;
        assert_eq!(client.answer().await.text(), "ok");
        assert_eq!(peer.rest().await, b"", "closed after its one answer");
    }
}

#[tokio::test]
async fn a_unix_domain_socket_gets_it_too() {
    let text = config("127.0.0.1:0", "unix:chat.sock", "") + "proxy_protocol = \"v1\"\n";
    let process = Process::start(&text).await;
    let listener = UnixListener::bind(process.folder.path().join("chat.sock")).unwrap();
    let mut client = process.connect().await;
    client.send(PLAIN).await;
    let mut peer = Client::new(within("connection upstream", listener.accept()).await.unwrap().0);
    let head = peer.head().await;
    assert!(head.starts_with("PROXY TCP4 127.0.0.1 127.0.0.1 ") && head.contains("\r\nGET / "), "{head}");
}

#[tokio::test]
async fn without_the_key_nothing_is_told() {
    let mut upstream = Upstream::start().await;
    let process = Process::start(&config("127.0.0.1:0", &upstream.url, "")).await;
    let mut client = process.connect().await;
    client.send(PLAIN).await;
    assert!(upstream.accept().await.head().await.starts_with("GET / "));
}
