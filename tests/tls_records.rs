//! The size of the TLS records that clients get: small devices have small receive buffers.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, ready},
};

use rustls::{
    SupportedProtocolVersion,
    pki_types::ServerName,
    version::{TLS12, TLS13},
};
use switchgate::http2::Http2Stream;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use crate::support::{
    Client, Proxy,
    authority::Authority,
    doors::{Http2Client, http2_request},
    frames::{BINARY, MASK, frame},
    handshake,
    tls_client::trusting,
    within,
};

/// A socket that keeps what it has read.
struct Recorded(TcpStream, Arc<Mutex<Vec<u8>>>);

impl AsyncRead for Recorded {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.0).poll_read(cx, buffer))?;
        self.1.lock().unwrap().extend_from_slice(&buffer.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Recorded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// The largest record in a stream of whole records, with its header.
fn largest(mut bytes: &[u8]) -> usize {
    let mut largest = 0;
    while let [_, _, _, high, low, ..] = bytes {
        let size = 5 + usize::from(u16::from_be_bytes([*high, *low]));
        largest = largest.max(size);
        bytes = bytes.get(size..).unwrap_or_default();
    }
    largest
}

const SIZE: usize = 300_000;

async fn echo(stream: impl AsyncRead + AsyncWrite + Unpin) {
    let payload = vec![7; SIZE];
    let (sent, expected) = (frame(BINARY, &payload, MASK), frame(BINARY, &payload, None));
    let mut got = vec![0; expected.len()];
    let (mut read, mut write) = tokio::io::split(stream);
    let both = async { tokio::try_join!(write.write_all(&sent), read.read_exact(&mut got)) };
    within("echo", both).await.unwrap();
    assert!(got == expected);
}

/// The largest record of a connection that echoes a large message, its handshake included.
async fn of_an_echo(proxy: &Proxy, ca: &Authority, version: &'static SupportedProtocolVersion, alpn: &[u8]) -> usize {
    let mut config = trusting(&[ca.root()], &[version]).with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    let seen = Arc::new(Mutex::new(Vec::new()));
    let socket = Recorded(TcpStream::connect(proxy.addresses[0]).await.unwrap(), Arc::clone(&seen));
    let name = ServerName::try_from("a.test").unwrap();
    let stream = within("TLS", TlsConnector::from(Arc::new(config)).connect(name, socket)).await.unwrap();
    let open = handshake("").replacen("Host: gate.test", "Host: a.test", 1);
    if alpn == b"h2" {
        let mut http2 = Http2Client::over(stream).await;
        let (response, send) = http2.open(http2_request(&open)).await;
        assert_eq!(response.status(), 200);
        echo(Http2Stream::new(send, response.into_body())).await;
    } else {
        let mut client = Client::new(stream);
        assert_eq!(client.ask(open).await.status, 101);
        echo(client.stream).await;
    }
    let seen = seen.lock().unwrap();
    assert!(seen.len() > SIZE);
    largest(&seen)
}

#[tokio::test]
async fn no_record_is_larger_than_the_limit_whatever_it_carries() {
    // Its certificate alone is larger than most of the limits.
    let names: Vec<String> = (0..100).map(|at| format!("host-with-a-long-name-{at}.test")).collect();
    let names: Vec<&str> = std::iter::once("a.test").chain(names.iter().map(String::as_str)).collect();
    for (key, bounds) in [
        ("", 16_385..=16_413),
        ("max_record_size = \"16KiB\"", 16_385..=16_413),
        ("max_record_size = \"16383B\"", 16_000..=16_383),
        ("max_record_size = \"4KiB\"", 4000..=4096),
        ("max_record_size = \"1KiB\"", 1000..=1024),
        ("max_record_size = \"512B\"", 488..=512),
    ] {
        let (folder, ca) = (tempfile::tempdir().unwrap(), Authority::new("ours"));
        ca.issue(&names).write(folder.path(), "leaf");
        let config = format!(
            "[[listener]]\nlisten = \"127.0.0.1:0\"\n[listener.tls]\ncertificate = \"leaf.pem\"\nkey = \"leaf.key\"\n{key}\n\
             [[route]]\nupstream = \"u\"\n[upstream.u]\nurl = \"builtin:echo\"\n"
        );
        let proxy = Proxy::start_in(&config, folder.path()).await;
        for version in [&TLS12, &TLS13] {
            for alpn in [&b"http/1.1"[..], b"h2"] {
                let largest = of_an_echo(&proxy, &ca, version, alpn).await;
                assert!(bounds.contains(&largest), "{key} {version:?}: {largest}");
            }
        }
    }
}
