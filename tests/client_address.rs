//! Who the client is behind trusted proxies: what the log says, what the upstream is told, what `same-origin` means.

use serde_json::Value;

use crate::support::{Proxy, Upstream, handshake, process::Process};

fn front(top: &str, url: &str) -> String {
    format!(
        "{top}\n[[listener]]\nlisten = \"127.0.0.1:0\"\n[[route]]\nname = \"chat\"\nupstream = \"u\"\n[upstream.u]\nurl = \"{url}\"\n"
    )
}

const TRUSTED: &str = "trusted_proxies = \"127.0.0.0/8\"";

#[tokio::test]
async fn the_log_shows_the_client_and_the_peer_that_told() {
    let mut process = Process::start(&front(TRUSTED, "builtin:echo")).await;
    let mut client = process.connect().await;
    let peer = client.stream.local_addr().unwrap().to_string();
    let told = "X-Forwarded-For: 6.6.6.6, 192.0.2.7\r\nX-Forwarded-For: 127.0.0.9\r\n";
    let get = |more: &str| format!("GET / HTTP/1.1\r\nHost: gate.test\r\n{more}\r\n");
    let who = |event: &Value| (event["client"].clone(), event["peer"].clone());
    client.ask(get(told)).await;
    assert_eq!(who(&process.event("request").await["span"]), ("192.0.2.7".into(), peer.clone().into()));
    // The next request on the same connection may be another client's.
    client.ask(get("X-Forwarded-For: 2001:db8::1\r\n")).await;
    assert_eq!(who(&process.event("request").await["span"]), ("2001:db8::1".into(), peer.clone().into()));
    client.ask(get("")).await;
    assert_eq!(who(&process.event("request").await["span"]), (peer.clone().into(), Value::Null));
    // A refusal before any route has one too.
    client.ask(format!("GET /../ HTTP/1.1\r\nHost: gate.test\r\n{told}\r\n")).await;
    assert_eq!(process.event("refused").await["span"]["client"], "192.0.2.7");
    assert_eq!(client.ask(handshake(told)).await.status, 101);
    assert_eq!(who(&process.event("websocket opened").await), ("192.0.2.7".into(), peer.into()));
    drop(client);
    assert_eq!(process.event("websocket ended").await["client"], "192.0.2.7");
    // Nobody can tell who sent what cannot be read.
    let mut client = process.connect().await;
    client.ask(format!("GET / HTTP/1.1\r\nHost: a\r\nHost : b\r\n{told}\r\n")).await;
    let peer = client.stream.local_addr().unwrap().to_string();
    assert_eq!(who(&process.event("refused").await["span"]), (peer.into(), Value::Null));
}

#[tokio::test]
async fn the_upstream_is_told_of_the_same_client() {
    let forged = "X-Forwarded-For: 6.6.6.6, 192.0.2.7\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: chat.example\r\n\
                  X-Real-IP: 6.6.6.6\r\nForwarded: for=6.6.6.6, for=\"[2001:db8::1]:80\";proto=http;host=f.example\r\n";
    let rest = "host=gate.test;proto=http";
    for (top, lines) in [
        ("", ["X-Forwarded-For: 127.0.0.1", "X-Forwarded-Proto: http", &format!("Forwarded: for=127.0.0.1;{rest}")]),
        (
            TRUSTED,
            [
                "X-Forwarded-For: 192.0.2.7, 127.0.0.1",
                "X-Real-Ip: 192.0.2.7",
                &format!("Forwarded: for=192.0.2.7;host=chat.example;proto=https, for=127.0.0.1;{rest}"),
            ],
        ),
        (
            &format!("{TRUSTED}\ntrusted_fields = \"forwarded\""),
            [
                "X-Forwarded-For: 2001:db8::1, 127.0.0.1",
                "X-Forwarded-Host: f.example",
                &format!("Forwarded: for=\"[2001:db8::1]\";host=f.example;proto=http, for=127.0.0.1;{rest}"),
            ],
        ),
    ] {
        let mut upstream = Upstream::start().await;
        let proxy = Proxy::start(&front(top, &upstream.url)).await;
        let mut client = proxy.connect().await;
        client.send(handshake(forged)).await;
        let head = upstream.accept().await.head().await;
        for line in lines {
            assert!(head.lines().any(|known| known == line), "no {line:?} in\n{head}");
        }
        assert!(!head.contains("6.6.6.6"), "{head}");
    }
}

#[tokio::test]
async fn same_origin_is_the_clients_side_of_the_balancer() {
    let told = "X-Forwarded-Proto: https\r\nX-Forwarded-Host: chat.example\r\n";
    let both = format!("{told}X-Forwarded-Host: other.example\r\n");
    let forwarded = "Forwarded: for=192.0.2.7;proto=https;host=\"chat.example:8443\"\r\n";
    let ours = format!("{TRUSTED}\ntrusted_fields = \"forwarded\"");
    for (top, fields, origin, status) in [
        (TRUSTED, told, "https://chat.example", 101),
        (TRUSTED, told, "https://gate.test", 403),
        (TRUSTED, "X-Forwarded-Proto: https\r\n", "https://gate.test", 101),
        (TRUSTED, &both, "https://chat.example", 403),
        (TRUSTED, &both, "https://gate.test", 101),
        (TRUSTED, forwarded, "https://chat.example:8443", 403),
        (&ours, forwarded, "https://chat.example:8443", 101),
        (&ours, told, "http://gate.test", 101),
        ("", told, "https://chat.example", 403),
        ("", told, "http://gate.test", 101),
    ] {
        let proxy = Proxy::start(&front(top, "builtin:echo")).await;
        let answer = proxy.connect().await.ask(handshake(&format!("{fields}Origin: {origin}\r\n"))).await;
        assert_eq!(answer.status, status, "{top} {fields} {origin}");
    }
}
