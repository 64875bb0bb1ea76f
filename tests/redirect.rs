//! The listener that sends everybody to https.

use std::path::Path;

use crate::support::{Proxy, Upstream, handshake, process::Process};

fn front(redirect: &str, url: &str) -> String {
    format!(
        "[[listener]]\nlisten = \"127.0.0.1:0\"\n{redirect}\n[[listener]]\nlisten = \"127.0.0.1:0\"\n\
         [[route]]\nhost = \"gate.test\"\nupstream = \"u\"\n[upstream.u]\nurl = \"{url}\"\n"
    )
}

#[tokio::test]
async fn every_request_is_sent_to_https_and_no_upstream_sees_it() {
    let mut upstream = Upstream::start().await;
    let proxy = Proxy::start(&front("redirect = \"https\"\nredirect_port = 8443", &upstream.url)).await;
    let mut client = proxy.connect().await;
    let post = "POST /form HTTP/1.1\r\nHost: gate.test\r\nContent-Length: 5\r\n\r\nhello".to_owned();
    for (request, location) in [
        ("GET /a?b=c HTTP/1.1\r\nHost: gate.test:8080\r\n\r\n".to_owned(), "https://gate.test:8443/a?b=c"),
        ("GET / HTTP/1.1\r\nHost: elsewhere.test\r\n\r\n".to_owned(), "https://elsewhere.test:8443/"),
        ("GET //evil.test HTTP/1.1\r\nHost: gate.test\r\n\r\n".to_owned(), "https://gate.test:8443//evil.test"),
        ("HEAD / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n".to_owned(), "https://[::1]:8443/"),
        ("OPTIONS * HTTP/1.1\r\nHost: gate.test\r\n\r\n".to_owned(), "https://gate.test:8443/"),
        (handshake(""), "https://gate.test:8443/chat"),
        (handshake("Origin: https://evil.test\r\n"), "https://gate.test:8443/chat"),
        (post, "https://gate.test:8443/form"),
        ("GET / HTTP/1.0\r\nHost: gate.test\r\n\r\n".to_owned(), "https://gate.test:8443/"),
    ] {
        // One after the other on one connection, as far as it is kept.
        client.send(&request).await;
        let head = client.head().await;
        assert!(head.lines().next().unwrap().ends_with(" 308 Permanent Redirect"), "{request}: {head}");
        let mut fields = head.lines().filter_map(|line| line.split_once(": "));
        let found = fields.find(|(name, _)| name.eq_ignore_ascii_case("location"));
        assert_eq!(found.map(|(_, value)| value), Some(location), "{request}");
        assert!(!head.to_ascii_lowercase().contains("strict-transport-security"), "{head}");
        let length =
            head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
        if !request.starts_with("HEAD") {
            client.take(length.unwrap()).await;
        }
    }
    assert!(client.rest().await.is_empty(), "HTTP/1.0 ends");
    assert!(!upstream.was_dialled());
}

#[tokio::test]
async fn what_could_be_read_in_two_ways_is_refused_and_not_redirected() {
    let proxy = Proxy::start(&front("redirect = \"https\"", "builtin:echo")).await;
    for (request, status) in [
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a.test\r\nHost: b.test\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a.test/evil\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: user@evil.test\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a.test\\evil.test\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a.test\r\nX: a\nLocation: b\r\n\r\n", 400),
        ("GET /a\r\nSet-Cookie:x HTTP/1.1\r\nHost: a.test\r\n\r\n", 400),
        ("GET /../x HTTP/1.1\r\nHost: a.test\r\n\r\n", 400),
        ("GET @evil.test HTTP/1.1\r\nHost: a.test\r\n\r\n", 400),
        ("CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\n", 405),
        ("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n", 308),
    ] {
        let mut client = proxy.connect().await;
        client.send(request).await;
        let head = client.head().await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {head}");
        assert_eq!(head.to_ascii_lowercase().contains("location:"), status == 308, "{request}: {head}");
    }
}

#[tokio::test]
async fn it_is_logged_as_a_request_and_other_listeners_serve() {
    let mut process = Process::start(&front("redirect = \"https\"", "builtin:echo")).await;
    let get = "GET /a?token=secret HTTP/1.1\r\nHost: gate.test\r\n\r\n";
    assert_eq!(process.connect().await.ask(get).await.field("location"), Some("https://gate.test/a?token=secret"));
    let request = process.event("request").await;
    assert_eq!((&request["status"], &request["span"]["path"]), (&308.into(), &"/a?…".into()), "{request}");
    let stream = tokio::net::TcpStream::connect(&process.addresses[1]).await.unwrap();
    assert_eq!(crate::support::Client::new(stream).ask(get).await.status, 200);
}

#[test]
fn mistakes_in_the_config_have_a_place_and_a_cure() {
    for (listener, expected) in [
        ("redirect = \"http\"", "p.toml:3:12: unknown value `http`; did you mean `https`?"),
        (
            "redirect_port = 8443",
            "p.toml:3:17: `redirect_port` does nothing without `redirect`; add `redirect = \"https\"`",
        ),
        ("redirect = \"https\"\nredirect_port = 65536", "p.toml:4:17: 65536 is out of range; expected 1 to 65535"),
        (
            "redirect = \"https\"\ntls = { certificate = \"a\", key = \"b\" }",
            "p.toml:3:12: this listener has `tls`: who comes here has https already; leave one of them out",
        ),
    ] {
        let errors = switchgate::config::parse(&front(listener, "builtin:echo"), Path::new("p.toml")).unwrap_err();
        assert_eq!(errors.to_string(), expected, "{listener}");
    }
}
