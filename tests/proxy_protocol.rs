//! PROXY headers in front of connections: who the client is then, and what becomes of those without a right one.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use rustls::pki_types::ServerName;
use serde_json::Value;
use switchgate::{net::tls, protocol::log_text::is_printable};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use crate::support::{
    Client, Proxy, handshake,
    process::{DEVELOPMENT, Process},
    within,
};

const GET: &str = "GET / HTTP/1.1\r\nHost: gate.test\r\n\r\n";
const REFUSED: &str = "no PROXY header, connection closed";

fn front(top: &str, listener: &str) -> String {
    format!("{top}\n[[listener]]\n{listener}\n[[route]]\nupstream = \"u\"\n[upstream.u]\nurl = \"builtin:echo\"\n")
}

const FROM_HERE: &str =
    "listen = \"127.0.0.1:0\"\nproxy_protocol = { from = [\"127.0.0.0/8\"], timeout = \"300ms\" }\n";

fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [&b"\r\n\r\n\0\r\nQUIT\n"[..], &[command, family], &length, rest].concat()
}

fn local() -> Vec<u8> {
    binary(0x20, 0, &[])
}

/// Headers and the client that they tell; `None` is the peer itself.
fn headers() -> Vec<(Vec<u8>, Option<&'static str>)> {
    let v6: std::net::Ipv6Addr = "2001:db8::7".parse().unwrap();
    let v6 = [&v6.octets()[..], &[0; 16], &[0x1f, 0x90, 1, 187, 5, 0, 2, b'i', b'd']].concat();
    vec![
        (b"PROXY TCP4 192.0.2.7 10.0.0.1 8080 443\r\n".to_vec(), Some("192.0.2.7:8080")),
        (b"PROXY TCP6 2001:db8::7 ::1 8080 443\r\n".to_vec(), Some("[2001:db8::7]:8080")),
        (b"PROXY UNKNOWN\r\n".to_vec(), None),
        (binary(0x21, 0x11, &[192, 0, 2, 7, 10, 0, 0, 1, 0x1f, 0x90, 1, 187]), Some("192.0.2.7:8080")),
        (binary(0x21, 0x21, &v6), Some("[2001:db8::7]:8080")),
        (binary(0x21, 0x31, &[b'/'; 216]), None),
        (binary(0x21, 0x00, &[]), None),
        (local(), None),
    ]
}

/// A socket whose first write has a header in front.
struct Introduced {
    socket: TcpStream,
    header: Vec<u8>,
}

impl AsyncRead for Introduced {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buf)
    }
}

impl AsyncWrite for Introduced {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        let header = std::mem::take(&mut self.header);
        let written = Pin::new(&mut self.socket).poll_write(cx, &[&header, bytes].concat());
        written.map_ok(|count| count - header.len())
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

/// The header in one segment with what follows, or a byte at a time before it.
async fn introduced(process: &Process, header: &[u8], dribble: bool) -> Introduced {
    let mut client = process.connect().await;
    client.stream.set_nodelay(true).unwrap();
    if !dribble {
        return Introduced { socket: client.stream, header: header.to_vec() };
    }
    for byte in header {
        client.send([*byte]).await;
        tokio::task::yield_now().await;
    }
    Introduced { socket: client.stream, header: Vec::new() }
}

#[tokio::test]
async fn the_header_says_who_the_client_is() {
    let mut process = Process::start(&front("", FROM_HERE)).await;
    for (header, told) in headers() {
        for dribble in [false, true] {
            let stream = introduced(&process, &header, dribble).await;
            let peer = stream.socket.local_addr().unwrap().to_string();
            let mut client = Client::new(stream);
            assert_eq!(client.ask(GET).await.status, 200);
            let event = process.event("request").await;
            assert_eq!(event["span"]["client"], told.unwrap_or(&peer), "{}", header.escape_ascii());
            assert_eq!(client.ask(handshake("")).await.status, 101);
            assert_eq!(process.event("websocket opened").await["client"], told.unwrap_or(&peer));
        }
    }
}

#[tokio::test]
async fn tls_follows_the_header() {
    let mut process = Process::start(&front("", &format!("{FROM_HERE}{DEVELOPMENT}"))).await;
    let connector = TlsConnector::from(tls::client_config(Some(&process.folder.path().join("ca.pem"))).unwrap());
    for (header, told) in headers() {
        for dribble in [false, true] {
            let stream = introduced(&process, &header, dribble).await;
            let peer = stream.socket.local_addr().unwrap().to_string();
            let name = ServerName::try_from("localhost").unwrap();
            let stream = within("TLS handshake", connector.connect(name, stream)).await.unwrap();
            assert_eq!(Client::new(stream).ask(handshake("")).await.status, 101);
            assert_eq!(process.event("websocket opened").await["client"], told.unwrap_or(&peer));
        }
    }
}

#[tokio::test]
async fn the_address_told_counts_as_the_peers() {
    let told = "X-Forwarded-For: 198.51.100.1\r\n";
    let ask = GET.replace("\r\n\r\n", &format!("\r\n{told}\r\n"));
    for (trusted, expected) in [("192.0.2.0/24", "198.51.100.1"), ("127.0.0.0/8", "192.0.2.7:8080")] {
        let mut process = Process::start(&front(&format!("trusted_proxies = \"{trusted}\""), FROM_HERE)).await;
        let mut client = process.connect().await;
        client.send("PROXY TCP4 192.0.2.7 10.0.0.1 8080 443\r\n").await;
        client.ask(&ask).await;
        assert_eq!(process.event("request").await["span"]["client"], expected);
    }
}

#[tokio::test]
async fn tls_that_ended_at_the_balancer_is_https() {
    let proxy = Proxy::start(&front("", FROM_HERE)).await;
    let address = [192, 0, 2, 7, 10, 0, 0, 1, 0x1f, 0x90, 1, 187];
    let over_tls = [&address[..], &[0x20, 0, 5, 1, 0, 0, 0, 0]].concat();
    for (rest, origin, status) in [
        (&over_tls[..], "https://gate.test", 101),
        (&over_tls, "http://gate.test", 403),
        (&address, "https://gate.test", 403),
        (&address, "http://gate.test", 101),
    ] {
        let mut client = proxy.connect().await;
        client.send(binary(0x21, 0x11, rest)).await;
        assert_eq!(client.ask(handshake(&format!("Origin: {origin}\r\n"))).await.status, status, "{origin}");
    }
}

#[tokio::test]
async fn whoever_sends_no_right_header_is_cut_off() {
    let mut process = Process::start(&front("", FROM_HERE)).await;
    for (bytes, reason) in [
        (GET.as_bytes().to_vec(), "no PROXY header"),
        (b"\x16\x03\x01\x02\x00\x01".to_vec(), "no PROXY header"),
        (b"PROXY TCP4 localhost 10.0.0.1 8080 443\r\n".to_vec(), "malformed"),
        (b"PROXY TCP4 192.0.2.7 10.0.0.1 +1 443\r\n".to_vec(), "malformed"),
        (b"PROXY TCP4 192.0.2.7 10.0.0.1 8080 443 x\r\n".to_vec(), "malformed"),
        ("PROXY TCP4 \u{202e}\u{2028} 1 1 1\r\n".as_bytes().to_vec(), "malformed"),
        (b"PROXY \x1b[2J\nTCP4 192.0.2.7 \xff\r\n".to_vec(), "malformed"),
        ([b"PROXY UNKNOWN ", &[b'x'; 4000][..]].concat(), "longer than 107"),
        (binary(0x21, 0x11, &[0; 60_000]), "longer than"),
        // These never end.
        (b"PROXY TCP4 192.0.2.7".to_vec(), "timeout"),
        (local()[..10].to_vec(), "timeout"),
        (Vec::new(), "timeout"),
    ] {
        let mut client = process.connect().await;
        client.send(&bytes).await;
        assert!(client.rest().await.is_empty(), "{}", bytes.escape_ascii());
        let event = process.event(REFUSED).await;
        let error = event["error"].as_str().unwrap();
        assert!(error.contains(reason) && error.chars().all(is_printable), "{event}");
        assert_eq!((&event["level"], &event["peer"].is_string()), (&Value::from("INFO"), &true));
    }
    let listener = FROM_HERE.replace("127.0.0.0/8", "10.0.0.0/8");
    let mut strict = Process::start(&front("", &listener)).await;
    let mut client = strict.connect().await;
    client.send("PROXY TCP4 192.0.2.7 10.0.0.1 8080 443\r\n").await;
    assert!(client.rest().await.is_empty());
    assert!(strict.event(REFUSED).await["error"].as_str().unwrap().contains("proxy_protocol.from"));
}

#[tokio::test]
async fn a_probe_leaves_no_line() {
    for tls in ["", DEVELOPMENT] {
        let mut process = Process::start(&front("", &format!("{FROM_HERE}{tls}"))).await;
        for bytes in [local(), b"PROXY UNKNOWN\r\n".to_vec(), Vec::new()] {
            for reset in [false, true] {
                let mut client = process.connect().await;
                client.send(&bytes).await;
                if reset {
                    crate::support::frames::reset_on_drop(&client.stream);
                }
            }
        }
        let mut stream = introduced(&process, &local(), true).await;
        // Ends as the probes end: after this one has its end, they have had theirs.
        tokio::io::AsyncWriteExt::shutdown(&mut stream).await.unwrap();
        Client::new(stream).rest().await;
        process.terminate();
        assert_eq!(process.exit_code().await, Some(0));
        let lines = process.count(REFUSED) + process.count("TLS handshake failed");
        assert_eq!(lines, 0, "{:#?}", process.seen);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_of_garbage_keeps_nobody_out() {
    let listener = FROM_HERE.replace("300ms", "5s");
    let process = Process::start(&front("", &format!("{listener}max_connections = 2000"))).await;
    let address = process.addresses[0].clone();
    let crowd: Vec<_> = (0..1000u32)
        .map(|number| {
            let address = address.clone();
            tokio::spawn(async move {
                let mut client = Client::new(TcpStream::connect(address).await.unwrap());
                // It may be cut off before it has said all.
                let garbage = [b"PROXY TCP4 ", &number.to_be_bytes()[..], b"\r\n"].concat();
                let _ = tokio::io::AsyncWriteExt::write_all(&mut client.stream, &garbage).await;
                client.rest().await
            })
        })
        .collect();
    let mut client = process.connect().await;
    client.send("PROXY UNKNOWN\r\n").await;
    assert_eq!(client.ask(GET).await.status, 200);
    for one in crowd {
        assert!(one.await.unwrap().is_empty());
    }
    let mut client = process.connect().await;
    client.send(local()).await;
    assert_eq!(client.ask(GET).await.status, 200);
}

#[tokio::test]
async fn ipv6_balancers_are_known_too() {
    let listener = "listen = \"[::1]:0\"\nproxy_protocol = { from = \"::1\" }\n";
    let proxy = Proxy::start(&front("", listener)).await;
    let mut client = proxy.connect().await;
    client.send("PROXY TCP6 2001:db8::7 ::1 8080 443\r\n").await;
    assert_eq!(client.ask(GET).await.status, 200);
}

#[tokio::test]
async fn a_stop_does_not_wait_for_a_header() {
    let mut process = Process::start(&front("", &FROM_HERE.replace("300ms", "1h"))).await;
    let mut silent = process.connect().await;
    let mut half = process.connect().await;
    half.send("PROXY TCP4 192").await;
    // Those before it have been accepted when this one has its answer.
    let mut client = process.connect().await;
    client.send(local()).await;
    assert_eq!(client.ask(GET).await.status, 200);
    process.terminate();
    assert!(silent.rest().await.is_empty() && half.rest().await.is_empty());
    assert_eq!(process.exit_code().await, Some(0));
    assert_eq!(process.count(REFUSED), 0);
}

#[tokio::test]
async fn without_the_key_a_header_is_garbage() {
    let proxy = Proxy::echo("").await;
    assert_eq!(proxy.connect().await.ask(format!("PROXY UNKNOWN\r\n{GET}")).await.status, 400);
    let answer = proxy.connect().await.ask([&local(), GET.as_bytes()].concat()).await;
    assert_eq!(answer.status, 400);
}
