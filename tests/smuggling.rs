//! Requests and responses that can be read two ways.
//!
//! The tables below `smuggling/` name each attack with its source, its bytes, all statuses of the answers, and what the
//! upstream sees, byte for byte.

mod driver;
mod http1;
mod http2;
mod responses;
mod upgrades;

use crate::support::{Proxy, Upstream};

#[tokio::test]
async fn what_can_be_read_two_ways_is_refused_and_the_connection_closed() {
    let mut upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream.url, "", "").await;
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    for fields in [
        "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
        "Content-Length: 4\r\nContent-Length: 5\r\n",
        "Content-Length: 4, 5\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: gzip\r\n",
        "Transfer-Encoding : chunked\r\n",
        "X: a\nTransfer-Encoding: chunked\r\n",
        "X: a\rY: b\r\n",
        "X: a\0b\r\n",
        "X: a\r\n folded\r\n",
    ] {
        let mut client = proxy.connect().await;
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n{smuggled}")).await;
        let all = String::from_utf8(client.rest().await).unwrap();
        assert!(all.starts_with("HTTP/1.1 400 "), "{fields:?}: {all}");
        assert_eq!(all.matches("HTTP/1.1 ").count(), 1, "{fields:?}: {all}");
        assert!(all.to_lowercase().contains("connection: close"), "{fields:?}: {all}");
    }
    assert!(!upstream.was_dialled());
}

#[tokio::test]
async fn a_bad_request_behind_a_good_one_spoils_only_itself() {
    let proxy = Proxy::echo("").await;
    let mut client = proxy.connect().await;
    client.send("POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhiGET /b HTTP/1.1\nHost: a\r\n\r\n").await;
    let first = client.answer().await;
    assert_eq!((first.status, first.text().as_str()), (200, "hi"));
    assert_eq!(client.answer().await.status, 400);
    assert!(client.rest().await.is_empty());
}

#[tokio::test]
async fn heads_beyond_their_limits_have_statuses_of_their_own() {
    let proxy = Proxy::before(
        "builtin:echo",
        "",
        "[limits]\nmax_head_size = \"1KiB\"\nmax_header_count = 8\nhead_timeout = \"300ms\"",
    )
    .await;
    let long = "a".repeat(2000);
    for (request, status) in [
        (format!("GET / HTTP/1.1\r\nHost: a\r\nX: {long}\r\n\r\n"), 431),
        (format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n"), 414),
        (format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(9)), 431),
        ("GET / HTTP/1.1\r\nHost: a\r\n".to_owned(), 408),
        ("\x16\x03\x01\x02\x00\x01".to_owned(), 400),
    ] {
        assert_eq!(proxy.connect().await.ask(&request).await.status, status, "{request:.60}");
    }
}

#[tokio::test]
async fn targets_and_hosts_that_name_nothing_for_certain() {
    let mut upstream = Upstream::start().await;
    let proxy = Proxy::before(&upstream.url, "path = \"/\"", "[[route]]\npath = \"/admin\"\nupstream = \"u\"").await;
    let get = |target: &str, host: &str| format!("GET {target} HTTP/1.1\r\n{host}\r\n");
    for (request, status) in [
        (get("/", ""), 400),
        (get("/", "Host:\r\n"), 400),
        (get("/", "Host: a\r\nHost: a\r\n"), 400),
        (get("/", "Host: a b\r\n"), 400),
        (get("example.com:80", "Host: a\r\n"), 400),
        (get("/x#f", "Host: a\r\n"), 400),
        (get("/x/../admin", "Host: a\r\n"), 400),
        (get("/x/%2e%2e/admin", "Host: a\r\n"), 400),
        (get("/x/..%2fadmin", "Host: a\r\n"), 400),
        (get("//admin", "Host: a\r\n"), 400),
        (get("/%5cadmin", "Host: a\r\n"), 400),
        ("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n".to_owned(), 405),
        ("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 501),
    ] {
        assert_eq!(proxy.connect().await.ask(&request).await.status, status, "{request}");
    }
    assert!(!upstream.was_dialled());
}
