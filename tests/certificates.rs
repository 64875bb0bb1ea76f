//! Which certificate a TLS client gets, and what happens when its files change.

use std::path::Path;

use rustls::pki_types::CertificateDer;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::support::{
    Client,
    authority::{Authority, Issued},
    doors::http2_request,
    frames::{MASK, TEXT, frame},
    handshake,
    process::Process,
    tls_client::{self, leaf, trusting},
    within,
};

/// Writes a pair for these names; answers the certificate.
fn issue(folder: &Path, file: &str, names: &[&str]) -> CertificateDer<'static> {
    let issued = Issued::by_itself(names);
    issued.write(folder, file);
    issued.certificate.into()
}

/// A client that trusts these.
async fn connect(
    address: &str,
    name: &'static str,
    trusted: &[CertificateDer<'static>],
) -> std::io::Result<TlsStream<TcpStream>> {
    connect_with(address, name, trusted, &[]).await
}

/// The same with a client that speaks these protocols.
async fn connect_with(
    address: &str,
    name: &'static str,
    trusted: &[CertificateDer<'static>],
    protocols: &[&[u8]],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut config = trusting(trusted, rustls::ALL_VERSIONS).with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    tls_client::connect(address, name, config).await
}

fn front(tls: &str) -> String {
    format!(
        "[[listener]]\nlisten = \"127.0.0.1:0\"\n[listener.tls]\n{tls}\n\
         [[route]]\nhost = \"a.test\"\nupstream = \"u\"\n[[route]]\nhost = \"b.test\"\nupstream = \"u\"\n\
         [[route]]\nupstream = \"u\"\n[upstream.u]\nurl = \"builtin:echo\"\n"
    )
}

const TWO: &str =
    "pairs = [{ certificate = \"a.pem\", key = \"a.key\" }, { certificate = \"b.pem\", key = \"b.key\" }]";

#[tokio::test]
async fn the_name_in_the_handshake_chooses_the_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let a = issue(folder.path(), "a", &["a.test", "127.0.0.1"]);
    let b = issue(folder.path(), "b", &["*.b.test", "b.test"]);
    let both = [a.clone(), b.clone()];
    let process = Process::start_in(&front(TWO), folder).await;
    for (name, expected) in [("a.test", &a), ("b.test", &b), ("x.b.test", &b), ("127.0.0.1", &a)] {
        let stream = connect(&process.addresses[0], name, &both).await.unwrap();
        assert_eq!(&leaf(&stream), expected, "{name}");
    }
    let folder = tempfile::tempdir().unwrap();
    let (a, _) = (issue(folder.path(), "a", &["a.test", "127.0.0.1"]), issue(folder.path(), "b", &["b.test"]));
    let process = Process::start_in(&front(&format!("{TWO}\nunnamed = \"refuse\"")), folder).await;
    let trusted = [a];
    connect(&process.addresses[0], "a.test", &trusted).await.unwrap();
    for name in ["127.0.0.1", "c.test"] {
        connect(&process.addresses[0], name, &trusted).await.unwrap_err();
    }
}

#[tokio::test]
async fn a_request_for_another_route_than_the_handshakes_is_misdirected() {
    let folder = tempfile::tempdir().unwrap();
    let both = [issue(folder.path(), "a", &["a.test", "c.test", "127.0.0.1"]), issue(folder.path(), "b", &["b.test"])];
    let mut process = Process::start_in(&front(TWO), folder).await;
    let get = |host: &str| format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
    for (name, host, status) in [
        ("a.test", "a.test", 200),
        ("a.test", "A.test:8443", 200),
        ("a.test", "b.test", 421),
        // Its certificate covers that host, too.
        ("a.test", "c.test", 200),
        // An address is no name in the handshake (RFC 6066 section 3).
        ("127.0.0.1", "b.test", 200),
        ("c.test", "d.test", 200),
    ] {
        let mut client = Client::new(connect(&process.addresses[0], name, &both).await.unwrap());
        assert_eq!(client.ask(get(host)).await.status, status, "{name} and {host}");
        // The connection is good for its own host afterwards.
        assert_eq!(client.ask(get(name)).await.status, 200, "{name}");
    }
    assert_eq!(process.event("refused").await["rule"], "misdirected");
    let upgrade = handshake("").replacen("Host: gate.test", "Host: b.test", 1);
    let mut client = Client::new(connect(&process.addresses[0], "a.test", &both).await.unwrap());
    assert_eq!(client.ask(upgrade).await.status, 421);
    // Over HTTP/2 too, where browsers share connections among hosts.
    for (host, status) in [("a.test", 200), ("b.test", 421)] {
        let stream = connect_with(&process.addresses[0], "a.test", &both, &[b"h2"]).await.unwrap();
        let (mut requests, connection) = within("HTTP/2", h2::client::handshake(stream)).await.unwrap();
        tokio::spawn(connection);
        let (response, _send) = requests.send_request(http2_request(&get(host)), true).unwrap();
        assert_eq!(within("response", response).await.unwrap().status(), status, "{host}");
    }
}

#[tokio::test]
async fn a_new_certificate_serves_the_next_handshake_and_live_connections_stay() {
    let folder = tempfile::tempdir().unwrap();
    let one = "certificate = \"a.pem\"\nkey = \"a.key\"";
    let old = issue(folder.path(), "a", &["a.test"]);
    let mut process = Process::start_in(&front(one), folder).await;
    let told = process.event("certificate").await;
    assert!(told["days"].as_i64().unwrap() > 14 && told["names"].as_str().unwrap().contains("a.test"), "{told}");
    let mut live = Client::new(connect(&process.addresses[0], "a.test", std::slice::from_ref(&old)).await.unwrap());
    assert_eq!(live.ask(handshake("").replacen("Host: gate.test", "Host: a.test", 1)).await.status, 101);

    // Without a signal, by the files alone.
    let new = issue(process.folder.path(), "a", &["a.test"]);
    process.event("certificates read again; the next TLS handshake gets them").await;
    assert_eq!(process.count("new certificates refused; the old ones go on serving"), 0, "half a change is no change");
    assert_eq!(leaf(&connect(&process.addresses[0], "a.test", &[old, new.clone()]).await.unwrap()), new);
    live.send(frame(TEXT, b"still here", MASK)).await;
    assert_eq!(live.frame().await.unwrap().payload, b"still here");

    // What cannot be used is refused in one line, and the old one stays.
    std::fs::write(process.folder.path().join("a.key"), "no key").unwrap();
    process.hang_up();
    let refused = process.event("new certificates refused; the old ones go on serving").await;
    assert_eq!(refused["level"], Value::from("ERROR"));
    assert!(refused["error"].as_str().unwrap().contains("a.key"), "{refused}");
    assert_eq!(leaf(&connect(&process.addresses[0], "a.test", std::slice::from_ref(&new)).await.unwrap()), new);

    // A signal is enough, and need not wait.
    let newest = issue(process.folder.path(), "a", &["a.test"]);
    process.hang_up();
    process.event("certificates read again; the next TLS handshake gets them").await;
    assert_eq!(leaf(&connect(&process.addresses[0], "a.test", &[new, newest.clone()]).await.unwrap()), newest);
    live.send(frame(TEXT, b"and still", MASK)).await;
    assert_eq!(live.frame().await.unwrap().payload, b"and still");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_handshakes_while_the_certificate_changes_and_none_fails() {
    const HANDSHAKES: usize = 1000;
    const AT_A_TIME: usize = 8;
    let folder = tempfile::tempdir().unwrap();
    let ca = Authority::new("ours");
    ca.issue(&["a.test"]).write(folder.path(), "a");
    let mut process = Process::start_in(&front("certificate = \"a.pem\"\nkey = \"a.key\""), folder).await;
    let root = ca.root();
    let clients = (0..AT_A_TIME).map(|_| {
        let (address, root) = (process.addresses[0].clone(), root.clone());
        tokio::spawn(async move {
            let mut seen = std::collections::HashSet::new();
            for _ in 0..HANDSHAKES / AT_A_TIME {
                let stream = connect(&address, "a.test", std::slice::from_ref(&root)).await.unwrap();
                seen.insert(leaf(&stream));
            }
            seen
        })
    });
    let clients: Vec<_> = clients.collect();
    while !clients.iter().all(tokio::task::JoinHandle::is_finished) {
        ca.issue(&["a.test"]).write(process.folder.path(), "a");
        process.hang_up();
        process.event("certificates read again; the next TLS handshake gets them").await;
    }
    let mut seen = std::collections::HashSet::new();
    for client in clients {
        seen.extend(client.await.unwrap());
    }
    assert!(seen.len() > 3, "the certificate did not change: {}", seen.len());
}
