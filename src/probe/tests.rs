//! The probe against small servers, each wrong in one way.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::string_slice, reason = "tests")]

use std::sync::Arc;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::{
    config::model::{PairFiles, Unnamed, Versions},
    net::{certificates::Certificates, tls},
    protocol::websocket::key,
};

fn options(url: &str) -> ProbeOptions {
    ProbeOptions {
        target: url.parse().unwrap(),
        origin: None,
        subprotocols: Vec::new(),
        fields: Vec::new(),
        trust: Trust::System,
        timeout: Duration::from_secs(10),
    }
}

async fn read_request<S: AsyncRead + Unpin>(stream: &mut S) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

fn accept_for(request: &str) -> String {
    let sent = request.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).unwrap();
    key::accept_value(sent)
}

/// `answer` turns the right accept value into all bytes of the server; then it waits for the probe to leave.
async fn against_with(
    change: impl FnOnce(&mut ProbeOptions),
    answer: impl FnOnce(&str) -> Vec<u8>,
) -> (bool, String, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut options = options(&format!("ws://{}/chat?room=1", listener.local_addr().unwrap()));
    change(&mut options);
    let server = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let request = read_request(&mut stream).await;
        // The probe may leave early: that is its right.
        let _ = stream.write_all(&answer(&accept_for(&request))).await;
        let _ = stream.shutdown().await;
        let _ = stream.read_to_end(&mut Vec::new()).await;
        request
    };
    let mut out = Vec::new();
    let (proper, request) = tokio::join!(run(&options, &mut out), server);
    (proper.unwrap(), String::from_utf8(out).unwrap(), request)
}

async fn against(answer: impl FnOnce(&str) -> Vec<u8>) -> (bool, String) {
    let (proper, text, _) = against_with(|_| {}, answer).await;
    (proper, text)
}

fn switching(accept: &str, more: &str) -> Vec<u8> {
    let head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n";
    format!("{head}Sec-WebSocket-Accept: {accept}\r\n{more}\r\n").into_bytes()
}

const CLOSE: &[u8] = &[0x88, 2, 3, 0xe8];

#[tokio::test]
async fn a_right_server_keeps_every_rule() {
    let (proper, text) = against(|accept| [&switching(accept, ""), CLOSE].concat()).await;
    assert!(proper, "{text}");
    assert!(!text.contains("FAIL") && !text.contains("skip"), "{text}");
    assert!(text.contains("connect ") && text.contains("HTTP/1.1 101 Switching Protocols"), "{text}");
    assert!(text.contains("the first is Close") && text.ends_with("\na proper WebSocket\n"), "{text}");
}

#[tokio::test]
async fn interim_answers_are_waited_through() {
    let early = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n".to_vec();
    let (proper, text) = against(|accept| [early, switching(accept, "")].concat()).await;
    assert!(proper, "{text}");
}

#[tokio::test]
async fn the_request_is_what_section_4_1_asks_for_and_carries_the_options() {
    let change = |options: &mut ProbeOptions| {
        options.origin = Some("https://app.example".to_owned());
        options.subprotocols = vec!["chat.v2".parse().unwrap(), "chat".parse().unwrap()];
        options.fields = vec!["X-Team: blue".parse().unwrap(), "host: inner.example".parse().unwrap()];
    };
    let (proper, text, request) =
        against_with(change, |accept| switching(accept, "Sec-WebSocket-Protocol: chat\r\n")).await;
    assert!(proper, "{text}");
    assert!(request.starts_with("GET /chat?room=1 HTTP/1.1\r\nHost: inner.example\r\n"), "{request}");
    for line in [
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        "Origin: https://app.example",
        "Sec-WebSocket-Protocol: chat.v2, chat",
        "X-Team: blue",
    ] {
        assert_eq!(request.lines().filter(|have| *have == line).count(), 1, "{line} in {request}");
    }
    assert_eq!(request.to_ascii_lowercase().matches("\nhost:").count(), 1, "{request}");
}

#[tokio::test]
async fn each_broken_rule_is_named_with_its_section() {
    let right = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ACCEPT\r\n\r\n";
    let rows: [(&str, &str, &str); 13] = [
        ("HTTP/1.1 101", "HTTP/1.0 101", "FAIL  HTTP/1.1 "),
        ("HTTP/1.1 101 Switching Protocols", "HTTP/1.1 200 OK", "FAIL  status 101 "),
        ("Upgrade: websocket", "Upgrade: websockets", "expected websocket, got websockets"),
        ("Upgrade: websocket", "Upgrade: websocket\r\nUpgrade: websocket", "got websocket | websocket"),
        ("Connection: Upgrade", "Connection: keep-alive", "expected Upgrade, got keep-alive"),
        ("Sec-WebSocket-Accept: ACCEPT\r\n", "", "FAIL  one Sec-WebSocket-Accept "),
        ("Accept: ACCEPT", "Accept: ACCEPT\r\nSec-WebSocket-Accept: ACCEPT", "      found 2"),
        ("ACCEPT", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", "got s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
        (
            "ACCEPT\r\n",
            "ACCEPT\r\nSec-WebSocket-Extensions: permessage-deflate\r\n",
            "`permessage-deflate` was not offered",
        ),
        ("ACCEPT\r\n", "ACCEPT\r\nSec-WebSocket-Protocol: chat\r\n", "`chat` was not offered"),
        ("ACCEPT\r\n", "ACCEPT\r\nContent-Length: 0\r\n", "FAIL  no message body announced "),
        ("\r\n\r\n", "\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", "no frame begins like this: HTTP/1.1 200 OK\\r\\n"),
        ("Upgrade: websocket\r\n", "Upgrade: websocket\n", "a line ends in LF without CR"),
    ];
    for (from, to, expected) in rows {
        let (proper, text) = against(|accept| right.replacen(from, to, 1).replace("ACCEPT", accept).into_bytes()).await;
        assert!(!proper && text.contains(expected), "{to:?}: {text}");
        assert!(text.ends_with("\nnot a proper WebSocket\n"), "{text}");
    }
}

#[tokio::test]
async fn a_masked_frame_of_a_server_is_named() {
    let (proper, text) = against(|accept| [&switching(accept, ""), &b"\x81\x80\0\0\0\0"[..]].concat()).await;
    assert!(!proper && text.contains("a server's frames are not masked"), "{text}");
}

#[tokio::test]
async fn a_refusal_is_shown_and_the_rules_for_a_101_are_not_judged() {
    let refusal = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 22\r\n\r\nOrigin\x1b[2J not allowed".to_vec();
    let (proper, text) = against(|_| refusal).await;
    assert!(!proper);
    assert!(text.contains("got 403; the server says: Origin\\u{1b}[2J not allowed"), "{text}");
    assert!(text.contains("skip  Upgrade is websocket"), "{text}");
}

#[tokio::test]
async fn garbage_a_huge_head_and_a_closed_connection_are_no_head() {
    for (answer, expected) in [
        (b"SSH-2.0-OpenSSH_9.6\r\n".to_vec(), "SSH-2.0-OpenSSH_9.6"),
        ([b"HTTP/1.1 101 A\r\nX: ".to_vec(), vec![b'a'; 70_000]].concat(), "no end of the head within 64 KiB"),
        (b"".to_vec(), "closed without an answer"),
        (b"HTTP/1.1 101 Swit".to_vec(), "closed inside the head"),
    ] {
        let (proper, text) = against(|_| answer).await;
        assert!(!proper, "{text}");
        assert!(text.contains("FAIL  an HTTP response head") && text.contains(expected), "{text}");
    }
}

#[tokio::test]
async fn silence_ends_at_the_deadline() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut options = options(&format!("ws://{}/", listener.local_addr().unwrap()));
    options.timeout = Duration::from_millis(100);
    let mut out = Vec::new();
    assert!(!run(&options, &mut out).await.unwrap());
    let text = String::from_utf8(out).unwrap();
    assert!(text.contains("FAIL  the server answers\n      not within 100ms (--timeout)"), "{text}");
}

#[tokio::test]
async fn a_closed_port_is_named() {
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let mut out = Vec::new();
    assert!(!run(&options(&format!("ws://{address}/")), &mut out).await.unwrap());
    let text = String::from_utf8(out).unwrap();
    assert!(text.contains("FAIL  the server takes connections") && text.contains(&address.to_string()), "{text}");
}

async fn serve_right<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) {
    let request = read_request(&mut stream).await;
    stream.write_all(&switching(&accept_for(&request), "")).await.unwrap();
    let mut close = [0; 8];
    stream.read_exact(&mut close).await.unwrap();
    assert_eq!(close[..2], [0x88, 0x82], "a masked Close says goodbye");
    stream.write_all(CLOSE).await.unwrap();
    stream.shutdown().await.unwrap();
}

fn server_tls(certificate: PathBuf, key: PathBuf) -> Arc<rustls::ServerConfig> {
    let certificates = Certificates::load(&[PairFiles { certificate, key }], Unnamed::First).unwrap();
    Arc::new(tls::server_config(Arc::new(certificates), Versions::Intermediate, tls::ONLY_HTTP1, None).unwrap())
}

async fn over_tls(trust: impl FnOnce(&std::path::Path) -> Trust, plain_server: bool) -> (bool, String) {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, private) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(&certificate, cert.pem()).unwrap();
    std::fs::write(&private, signing_key.serialize_pem()).unwrap();
    let acceptor = TlsAcceptor::from(server_tls(certificate.clone(), private));

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut options = options(&format!("wss://localhost:{port}/"));
    options.trust = trust(&certificate);
    let server = async {
        let (mut stream, _): (TcpStream, _) = listener.accept().await.unwrap();
        if plain_server {
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
            let _ = stream.read_to_end(&mut Vec::new()).await;
        } else if let Ok(stream) = acceptor.accept(stream).await {
            serve_right(stream).await;
        }
    };
    let mut out = Vec::new();
    let (proper, ()) = tokio::join!(run(&options, &mut out), server);
    (proper.unwrap(), String::from_utf8(out).unwrap())
}

#[tokio::test]
async fn a_certificate_counts_when_its_ca_is_named() {
    let (proper, text) = over_tls(|file| Trust::Ca(file.to_owned()), false).await;
    assert!(proper, "{text}");
    assert!(text.contains("DNS ") && text.contains("TLSv1_3, ALPN http/1.1, certificate leads to "), "{text}");
}

#[tokio::test]
async fn insecure_takes_any_certificate_and_says_so() {
    let (proper, text) = over_tls(|_| Trust::Anyone, false).await;
    assert!(proper, "{text}");
    assert!(text.contains("certificate NOT checked (--insecure)"), "{text}");
}

#[tokio::test]
async fn a_certificate_of_another_ca_is_refused_with_the_cure() {
    let folder = tempfile::tempdir().unwrap();
    let other = folder.path().join("other.pem");
    std::fs::write(&other, generate_simple_self_signed(["localhost".to_owned()]).unwrap().cert.pem()).unwrap();
    let (proper, text) = over_tls(|_| Trust::Ca(other), false).await;
    assert!(!proper);
    assert!(text.contains("FAIL  TLS is agreed on"), "{text}");
}

#[tokio::test]
async fn a_plain_server_behind_wss_is_recognised() {
    let (proper, text) = over_tls(|_| Trust::Anyone, true).await;
    assert!(!proper);
    assert!(text.contains("this port may not speak TLS: try ws://"), "{text}");
}
