//! The origin policy of a route.

use crate::support::{Proxy, handshake};

#[tokio::test]
async fn origins_meet_the_policy_of_the_route() {
    let proxy = Proxy::echo(
        "origin = { allow = [\"https://app.example.com\", \"https://*.wild.test\", \"same-origin\"], absent = \"refuse\" }",
    )
    .await;
    for (lines, status) in [
        ("Origin: https://app.example.com\r\n", 101),
        ("Origin: https://APP.example.com:443\r\n", 101),
        ("Origin: https://a.b.wild.test\r\n", 101),
        ("Origin: http://gate.test\r\n", 101),
        ("Origin: https://gate.test\r\n", 403),
        ("Origin: https://wild.test\r\n", 403),
        ("Origin: https://app.example.com.evil.test\r\n", 403),
        ("Origin: https://app.example.com/\r\n", 403),
        ("Origin: https://user@app.example.com\r\n", 403),
        ("Origin: https://app.example.com.\r\n", 403),
        ("Origin: null\r\n", 403),
        ("Origin: https://app.example.com\r\nOrigin: https://app.example.com\r\n", 403),
        ("", 403),
    ] {
        assert_eq!(proxy.connect().await.ask(handshake(lines)).await.status, status, "{lines:?}");
    }
    // Plain requests are not asked.
    assert_eq!(
        proxy.connect().await.ask("GET / HTTP/1.1\r\nHost: a\r\nOrigin: https://evil.test\r\n\r\n").await.status,
        200
    );
}

#[tokio::test]
async fn report_lets_pass_and_all_checks_plain_requests() {
    let evil = "Origin: https://evil.test\r\n";
    let report = Proxy::echo("origin = { mode = \"report\" }").await;
    assert_eq!(report.connect().await.ask(handshake(evil)).await.status, 101);
    let all = Proxy::echo("origin = { apply_to = \"all\" }").await;
    assert_eq!(all.connect().await.ask(format!("GET / HTTP/1.1\r\nHost: a\r\n{evil}\r\n")).await.status, 403);
    let default = Proxy::echo("").await;
    assert_eq!(default.connect().await.ask(handshake(evil)).await.status, 403);
}
