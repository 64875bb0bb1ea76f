//! Listeners: their addresses, their bounds, and what is said when one cannot serve.

use std::{path::Path, process::Stdio, time::Duration};

use tokio::{io::AsyncReadExt, net::TcpStream, time::timeout};

use crate::support::{
    Client, Proxy,
    authority::Issued,
    handshake,
    process::{Process, shell},
    within,
};

const GET: &str = "GET / HTTP/1.1\r\nHost: gate.test\r\n\r\n";

fn echo_behind(listener: &str) -> String {
    format!("[[listener]]\n{listener}\n[[route]]\nupstream = \"u\"\n[upstream.u]\nurl = \"builtin:echo\"\n")
}

#[tokio::test]
async fn one_listener_takes_ipv4_and_ipv6() {
    let proxy = Proxy::start(&echo_behind("listen = [\"127.0.0.1:0\", \"[::1]:0\"]")).await;
    for address in &proxy.addresses {
        let mut client = Client::new(TcpStream::connect(address).await.unwrap());
        assert_eq!(client.ask(GET).await.status, 200, "{address}");
    }
    assert!(proxy.addresses[0].is_ipv4() && proxy.addresses[1].is_ipv6());
}

#[tokio::test]
async fn a_relay_takes_a_place_of_its_listener_until_it_ends() {
    let proxy = Proxy::start(&echo_behind("listen = \"127.0.0.1:0\"\nmax_connections = 1")).await;
    let mut relayed = proxy.connect().await;
    assert_eq!(relayed.ask(handshake("")).await.status, 101);
    let mut next = proxy.connect().await;
    next.send(GET).await;
    let early = timeout(Duration::from_millis(300), next.stream.read_u8()).await;
    assert!(early.is_err(), "the cap did not hold: {early:?}");
    drop(relayed);
    assert_eq!(next.answer().await.status, 200);
}

#[tokio::test]
async fn sockets_that_share_a_cap_leave_each_other_its_places() {
    let proxy = Proxy::start(&echo_behind("listen = [\"127.0.0.1:0\", \"[::1]:0\"]\nmax_connections = 1")).await;
    for address in [1, 0, 1].map(|index: usize| proxy.addresses[index]) {
        let mut client = Client::new(TcpStream::connect(address).await.unwrap());
        assert_eq!(client.ask(GET).await.status, 200, "{address}");
    }
}

#[tokio::test]
async fn a_silent_tls_client_is_cut_at_its_deadline() {
    let folder = tempfile::tempdir().unwrap();
    let tls = "tls = { certificate = \"c.pem\", key = \"k.pem\", development = true, handshake_timeout = \"200ms\" }";
    let proxy = Proxy::start_in(&echo_behind(&format!("listen = \"127.0.0.1:0\"\n{tls}")), folder.path()).await;
    let mut silent = proxy.connect().await;
    assert!(silent.rest().await.is_empty());
    // One that says a little at a time gains nothing by it.
    let mut slow = proxy.connect().await;
    slow.send([22, 3, 1]).await;
    assert!(slow.rest().await.is_empty());
}

#[tokio::test]
async fn running_out_of_descriptors_is_survived() {
    let line = "ulimit -n 48; exec \"$0\" --log-format json";
    let mut process = Process::start_with(&echo_behind("listen = \"127.0.0.1:0\""), "info", line).await;
    let mut crowd = Vec::new();
    for _ in 0..64 {
        crowd.push(process.connect().await);
    }
    let event = process.event("accept failed; raise the open-file limit if this goes on").await;
    assert_eq!(event["level"], "WARN");
    drop(crowd);
    assert_eq!(process.connect().await.ask(GET).await.status, 200);
}

/// What the program says when it cannot start, and its exit code.
pub(crate) async fn refusal(config: &str, folder: &Path) -> (String, Option<i32>) {
    std::fs::write(folder.join("proxy.toml"), config).unwrap();
    let output = shell("exec \"$0\"", folder, "warn").stdin(Stdio::null()).output();
    let output = within("exit", output).await.unwrap();
    (String::from_utf8(output.stderr).unwrap(), output.status.code())
}

#[tokio::test]
async fn what_keeps_a_listener_from_serving_is_one_line_with_its_cure() {
    let folder = tempfile::tempdir().unwrap();
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    for name in ["c", "other"] {
        Issued::by_itself(&["localhost"]).write(folder.path(), name);
    }
    std::fs::write(folder.path().join("garbage.pem"), "no PEM at all\n").unwrap();
    std::fs::create_dir(folder.path().join("folder.pem")).unwrap();
    let tls = |certificate: &str, key: &str| {
        echo_behind(&format!("listen = \"127.0.0.1:0\"\ntls = {{ certificate = \"{certificate}\", key = \"{key}\" }}"))
    };
    for (config, words) in [
        (echo_behind(&format!("listen = \"{address}\"")), ["Address already in use", "choose another `listen`"]),
        (tls("absent.pem", "other.key"), ["absent.pem", "No such file"]),
        (tls("folder.pem", "other.key"), ["folder.pem", "directory"]),
        (tls("garbage.pem", "other.key"), ["garbage.pem", "certificate"]),
        (tls("c.pem", "garbage.pem"), ["garbage.pem", "key"]),
        (tls("c.pem", "other.key"), ["other.key", "does not belong"]),
    ] {
        let (text, code) = refusal(&config, folder.path()).await;
        assert_eq!((text.lines().count(), code), (1, Some(1)), "{text}");
        assert!(text.starts_with("error: ") && words.iter().all(|word| text.contains(word)), "{text}");
    }
}

#[tokio::test]
async fn processes_share_a_port_where_both_say_so_and_else_the_second_is_refused() {
    let listener = |address: &str, more: &str| echo_behind(&format!("listen = \"{address}\"\n{more}"));
    let first = Process::start(&listener("127.0.0.1:0", "reuse_port = true")).await;
    let address = first.addresses[0].clone();
    let folder = tempfile::tempdir().unwrap();
    let (text, code) = refusal(&listener(&address, ""), folder.path()).await;
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("Address already in use") && text.contains("choose another `listen`"), "{text}");

    let second = Process::start(&listener(&address, "reuse_port = true")).await;
    assert_eq!(second.addresses, first.addresses);
    // The kernel spreads connections by their ports. Each process serves while the other one is there, and alone.
    for _ in 0..20 {
        assert_eq!(second.connect().await.ask(GET).await.status, 200);
    }
    first.terminate();
    let mut first = first;
    assert_eq!(first.exit_code().await, Some(0));
    assert_eq!(second.connect().await.ask(GET).await.status, 200);

    // Who does not share keeps others out.
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (text, code) = refusal(&listener(&address, "reuse_port = true"), folder.path()).await;
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("does not share it") && text.lines().count() == 1, "{text}");
}

#[tokio::test]
async fn a_shared_port_is_for_addresses_with_a_port() {
    let folder = tempfile::tempdir().unwrap();
    let (text, code) = refusal(&echo_behind("listen = \"unix:gate.sock\"\nreuse_port = true"), folder.path()).await;
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("`reuse_port` does nothing on Unix-domain sockets"), "{text}");
}
