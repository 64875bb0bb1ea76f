//! Upstreams behind a Unix-domain socket, and what goes wrong with its file.

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
};

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{TcpStream, UnixListener, UnixStream};

use crate::support::{Client, Proxy, handshake, library, process::Process, within};

const PLAIN: &str = "GET / HTTP/1.1\r\nHost: gate.test\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn config(keys: &str) -> String {
    format!(
        "[[listener]]\nlisten = \"127.0.0.1:0\"\n[[route]]\nupstream = \"u\"\n\
         [upstream.u]\nurl = \"unix:chat.sock\"\n{keys}\n"
    )
}

async fn accept(listener: &UnixListener) -> Client<UnixStream> {
    Client::new(within("connection upstream", listener.accept()).await.unwrap().0)
}

#[tokio::test]
async fn a_websocket_passes_messages_of_every_size() {
    let folder = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(folder.path().join("chat.sock")).unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        library::echo(stream).await;
    });
    let proxy = Proxy::start_in(&config(""), folder.path()).await;
    let stream = TcpStream::connect(proxy.addresses[0]).await.unwrap();
    library::messages_of_every_size("ws://gate.test/", stream).await;
}

#[tokio::test]
async fn plain_requests_share_a_connection_and_host_is_the_clients_or_localhost() {
    for (keys, host) in [("", "Host: gate.test"), ("host_header = \"upstream\"", "Host: localhost")] {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("chat.sock")).unwrap();
        let proxy = Proxy::start_in(
            &config(&format!("{keys}\n")).replace("[[listener]]", "workers = 1\n[[listener]]"),
            folder.path(),
        )
        .await;
        let mut peer: Option<Client<UnixStream>> = None;
        for _ in 0..3 {
            let mut client = proxy.connect().await;
            client.send(PLAIN).await;
            if peer.is_none() {
                peer = Some(accept(&listener).await);
            }
            let peer = peer.as_mut().unwrap();
            let head = peer.head().await;
            assert!(head.lines().any(|line| line == host), "{head}");
            peer.send(OK).await;
            assert_eq!(client.answer().await.text(), "ok");
        }
    }
}

/// Sends a request that fails, and answers what the log says.
async fn why(process: &mut Process, request: &str, status: u16) -> String {
    assert_eq!(process.connect().await.ask(request).await.status, status);
    let event = process.event("upstream failed").await;
    assert_eq!(event["rule"], "upstream-dial", "{event}");
    event["why"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_socket_file_may_be_missing_come_go_stale_and_come_back() {
    let mut process = Process::start(&config("dial_timeout = \"2s\"")).await;
    let path = process.folder.path().join("chat.sock");
    for request in [PLAIN.to_owned(), handshake("")] {
        let missing = why(&mut process, &request, 502).await;
        assert!(missing.contains("chat.sock") && missing.contains("start the upstream"), "{missing}");
    }
    for _ in 0..2 {
        let listener = UnixListener::bind(&path).unwrap();
        let mut client = process.connect().await;
        client.send(PLAIN).await;
        let mut peer = accept(&listener).await;
        peer.head().await;
        peer.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok").await;
        assert_eq!(client.answer().await.text(), "ok");
        drop((listener, peer));
        let stale = why(&mut process, PLAIN, 502).await;
        assert!(stale.contains("nobody listens there"), "{stale}");
        std::fs::remove_file(&path).unwrap();
    }
    std::fs::write(&path, "no socket").unwrap();
    let file = why(&mut process, PLAIN, 502).await;
    assert!(file.contains("or is no socket"), "{file}");
}

/// A listener that takes nobody more.
fn full(path: &Path) -> (Socket, Vec<Socket>) {
    let address = SockAddr::unix(path).unwrap();
    let unix = || Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    let listener = unix();
    listener.bind(&address).unwrap();
    listener.listen(1).unwrap();
    let mut held = Vec::new();
    loop {
        let socket = unix();
        socket.set_nonblocking(true).unwrap();
        match socket.connect(&address) {
            Ok(()) => held.push(socket),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return (listener, held),
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn a_full_backlog_is_waited_for_as_long_as_a_dial_may_take() {
    let mut process = Process::start(&config("dial_timeout = \"300ms\"")).await;
    let path: PathBuf = process.folder.path().join("chat.sock");
    let (listener, held) = full(&path);
    let late = why(&mut process, PLAIN, 504).await;
    assert!(late.contains("no connection to unix:chat.sock") && late.contains("dial_timeout"), "{late}");

    // With room in time the same request goes through.
    std::fs::remove_file(&path).unwrap();
    drop((listener, held));
    let patient = config("dial_timeout = \"10s\"");
    let process = Process::start(&patient).await;
    let (listener, held) = full(&process.folder.path().join("chat.sock"));
    let mut client = process.connect().await;
    client.send(PLAIN).await;
    listener.set_nonblocking(true).unwrap();
    let listener = UnixListener::from_std(listener.into()).unwrap();
    for _ in &held {
        drop(within("a held connection", listener.accept()).await.unwrap());
    }
    let mut peer = accept(&listener).await;
    peer.head().await;
    peer.send(OK).await;
    assert_eq!(client.answer().await.text(), "ok");
}
