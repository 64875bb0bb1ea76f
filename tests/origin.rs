//! The origin policy of a route.

use crate::support::{
    Proxy,
    doors::{Door, Gate},
    handshake,
};

/// How this door says that a WebSocket is open.
fn switched(door: Door, status: u16) -> u16 {
    if (door, status) == (Door::Http2, 101) { 200 } else { status }
}

#[tokio::test]
async fn origins_meet_the_policy_of_the_route() {
    let gate = Gate::echo(
        "origin = { allow = [\"https://app.example.com\", \"https://*.wild.test\", \"same-origin\"], absent = \"refuse\" }",
    )
    .await;
    for (lines, status) in [
        ("Origin: https://app.example.com\r\n", 101),
        ("Origin: https://APP.example.com:443\r\n", 101),
        ("Origin: https://a.b.wild.test\r\n", 101),
        ("Origin: https://wild.test\r\n", 403),
        ("Origin: https://app.example.com.evil.test\r\n", 403),
        ("Origin: https://app.example.com/\r\n", 403),
        ("Origin: https://user@app.example.com\r\n", 403),
        ("Origin: https://app.example.com.\r\n", 403),
        ("Origin: null\r\n", 403),
        ("Origin: https://app.example.com\r\nOrigin: https://app.example.com\r\n", 403),
        ("", 403),
    ] {
        for door in Door::ALL {
            assert_eq!(gate.ask(door, &handshake(lines)).await.status, switched(door, status), "{door:?} {lines:?}");
        }
    }
    for door in Door::ALL {
        // The origin of the gate itself, as this door shows it.
        for (origin, is_clear) in [("http://gate.test", true), ("https://gate.test", false)] {
            let status = if (door == Door::Clear) == is_clear { 101 } else { 403 };
            let answer = gate.ask(door, &handshake(&format!("Origin: {origin}\r\n"))).await;
            assert_eq!(answer.status, switched(door, status), "{door:?} {origin}");
        }
        // Plain requests are not asked.
        let plain = "GET / HTTP/1.1\r\nHost: a\r\nOrigin: https://evil.test\r\n\r\n";
        assert_eq!(gate.ask(door, plain).await.status, 200, "{door:?}");
    }
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
