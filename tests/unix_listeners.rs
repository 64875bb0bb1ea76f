//! Listeners in the file system.

use std::{os::unix::fs::PermissionsExt, path::Path};

use serde_json::Value;
use tokio::net::{UnixListener, UnixStream};

use crate::{
    listeners::refusal,
    support::{
        Client, Upstream,
        frames::{CLOSE, MASK, TEXT, close, frame},
        handshake,
        process::Process,
        within,
    },
};

const GET: &str = "GET / HTTP/1.1\r\nHost: gate.test\r\n\r\n";

fn front(top: &str, listener: &str, url: &str) -> String {
    format!(
        "{top}\n[[listener]]\nlisten = \"unix:gate.sock\"\n{listener}\n[[route]]\nupstream = \"u\"\n[upstream.u]\nurl = \"{url}\"\n"
    )
}

async fn connect(process: &Process) -> Client<UnixStream> {
    Client::new(UnixStream::connect(process.folder.path().join("gate.sock")).await.unwrap())
}

#[tokio::test]
async fn a_websocket_over_a_unix_socket_and_its_file() {
    let mut process = Process::start(&front("workers = 3", "unix_mode = \"0600\"", "builtin:echo")).await;
    assert_eq!(process.addresses, ["unix:gate.sock"]);
    let file = process.folder.path().join("gate.sock");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let mut client = connect(&process).await;
    assert_eq!(client.ask(GET).await.status, 200);
    assert_eq!(process.event("request").await["span"]["client"], "unix");
    assert_eq!(client.ask(handshake("Origin: http://gate.test\r\n")).await.status, 101);
    assert_eq!(process.event("websocket opened").await["client"], "unix");
    for size in [1, 70_000, 1_000_000] {
        let sent = vec![b'a'; size];
        let (mut read, mut write) = tokio::io::split(client.stream);
        let bytes = frame(TEXT, &sent, MASK);
        let writing = tokio::spawn(async move {
            tokio::io::AsyncWriteExt::write_all(&mut write, &bytes).await.unwrap();
            write
        });
        let mut back = vec![0; frame(TEXT, &sent, None).len()];
        within("echo", tokio::io::AsyncReadExt::read_exact(&mut read, &mut back)).await.unwrap();
        assert_eq!(back, frame(TEXT, &sent, None));
        client = Client::new(read.unsplit(writing.await.unwrap()));
    }
    client.send(close(1000, MASK)).await;
    assert_eq!(client.frame().await.unwrap().first, CLOSE);
    assert_eq!(process.event("websocket ended").await["reason"], "closed");
    // Whichever thread takes it.
    for _ in 0..30 {
        assert_eq!(connect(&process).await.ask(GET).await.status, 200);
    }
    process.terminate();
    assert_eq!(process.exit_code().await, Some(0));
    assert!(!file.exists());
}

#[tokio::test]
async fn a_stop_says_goodbye_over_a_unix_socket_too() {
    let mut process = Process::start(&front("[drain]\nspread = \"100ms\"", "", "builtin:echo")).await;
    let mut client = connect(&process).await;
    assert_eq!(client.ask(handshake("")).await.status, 101);
    process.terminate();
    assert_eq!(client.expect_close().await, 1001);
    client.send(close(1001, MASK)).await;
    assert_eq!(process.exit_code().await, Some(0));
}

#[tokio::test]
async fn a_peer_on_this_machine_speaks_for_others_where_it_is_trusted() {
    let told = "X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: https\r\n";
    for (top, client, lines) in [
        ("trusted_proxies = \"unix\"", "192.0.2.7", ["X-Forwarded-For: 192.0.2.7", "X-Forwarded-Proto: https"]),
        ("trusted_proxies = \"127.0.0.0/8\"", "unix", ["X-Forwarded-For: unknown", "X-Forwarded-Proto: http"]),
    ] {
        let mut upstream = Upstream::start().await;
        let process = Process::start(&front(top, "", &upstream.url)).await;
        let mut peer = connect(&process).await;
        peer.send(GET.replace("\r\n\r\n", &format!("\r\n{told}\r\n"))).await;
        let mut seen = upstream.accept().await;
        let head = seen.head().await;
        assert!(lines.iter().all(|line| head.lines().any(|known| known == *line)), "{client}: {head}");
    }
    let proxy = "proxy_protocol = { from = \"unix\" }";
    let mut process = Process::start(&front("", proxy, "builtin:echo")).await;
    let mut client = connect(&process).await;
    client.send("PROXY TCP4 192.0.2.7 10.0.0.1 8080 443\r\n").await;
    assert_eq!(client.ask(GET).await.status, 200);
    assert_eq!(process.event("request").await["span"]["client"], Value::from("192.0.2.7:8080"));
}

#[tokio::test]
async fn a_socket_that_a_crash_has_left_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    drop(UnixListener::bind(folder.path().join("gate.sock")).unwrap());
    assert!(folder.path().join("gate.sock").exists());
    let process = Process::start_in(&front("", "", "builtin:echo"), folder).await;
    assert_eq!(connect(&process).await.ask(GET).await.status, 200);
}

#[tokio::test]
async fn what_keeps_a_path_from_serving_is_one_line_with_its_cure() {
    let folder = tempfile::tempdir().unwrap();
    let _live = UnixListener::bind(folder.path().join("live.sock")).unwrap();
    std::fs::write(folder.path().join("plain"), "not ours").unwrap();
    let long = "s".repeat(108);
    for (path, words, code) in [
        ("live.sock", ["another program listens", "unix:live.sock"], 1),
        ("plain", ["no socket", "move it away"], 1),
        ("no/gate.sock", ["folder does not exist", "create it"], 1),
        (&long, ["at most 107 bytes", "shorten"], 2),
    ] {
        let config = front("", "", "builtin:echo").replace("gate.sock", path);
        let (text, exit) = refusal(&config, folder.path()).await;
        assert_eq!((text.lines().count(), exit), (1, Some(code)), "{text}");
        assert!(text.starts_with("error: ") && words.iter().all(|word| text.contains(word)), "{text}");
    }
    assert!(Path::new(&folder.path().join("live.sock")).exists());
    assert_eq!(std::fs::read_to_string(folder.path().join("plain")).unwrap(), "not ours");
}
