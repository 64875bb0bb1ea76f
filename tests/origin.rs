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

#[tokio::test]
async fn the_origin_of_a_draft_is_judged_where_its_version_is_waived() {
    let waived = "handshake = \"lenient\"\nwaive = [\"version\"]\n";
    let allow = "allow = [\"https://app.example.com\", \"same-origin\"]";
    let absent_refused = Gate::echo(&format!("{waived}origin = {{ {allow}, absent = \"refuse\" }}")).await;
    let absent_allowed = Gate::echo(&format!("{waived}origin = {{ {allow} }}")).await;
    let report = Gate::echo(&format!("{waived}origin = {{ {allow}, mode = \"report\" }}")).await;
    let draft = |version: &str, fields: &str| {
        handshake(fields).replace("Sec-WebSocket-Version: 13", &format!("Sec-WebSocket-Version: {version}"))
    };
    let evil = "Sec-WebSocket-Origin: https://evil.example\r\n";
    let app = "Sec-WebSocket-Origin: https://app.example.com\r\n";
    let standard = "Origin: https://app.example.com\r\n";
    for version in ["7", "8"] {
        for (fields, refused, allowed) in [
            (evil.to_owned(), 403, 403),
            (app.to_owned(), 101, 101),
            (String::new(), 403, 101),
            (standard.to_owned(), 101, 101),
            (format!("{standard}{app}"), 101, 101),
            (format!("{standard}{evil}"), 403, 403),
            (format!("Origin: https://evil.example\r\n{app}"), 403, 403),
            (format!("{app}{app}"), 403, 403),
            ("Sec-WebSocket-Origin: null\r\n".to_owned(), 403, 403),
            ("Sec-WebSocket-Origin:\r\n".to_owned(), 403, 403),
            ("sec-websocket-origin: https://app.example.com/\r\n".to_owned(), 403, 403),
        ] {
            for door in Door::ALL {
                let request = draft(version, &fields);
                let answer = absent_refused.ask(door, &request).await;
                assert_eq!(answer.status, switched(door, refused), "{door:?} {version} {fields:?}");
                let answer = absent_allowed.ask(door, &request).await;
                assert_eq!(answer.status, switched(door, allowed), "{door:?} {version} {fields:?}");
                assert_eq!(report.ask(door, &request).await.status, switched(door, 101), "{door:?} {fields:?}");
            }
        }
        for door in Door::ALL {
            // The gate's own origin, as this door shows it.
            let scheme = if door == Door::Clear { "http" } else { "https" };
            let own = draft(version, &format!("Sec-WebSocket-Origin: {scheme}://gate.test\r\n"));
            assert_eq!(absent_refused.ask(door, &own).await.status, switched(door, 101), "{door:?}");
        }
    }
    for door in Door::ALL {
        // The same with the version of RFC 6455, which does not know the field.
        for (fields, status) in [(app.to_owned(), 101), (evil.to_owned(), 403), (format!("{standard}{evil}"), 403)] {
            let status = switched(door, status);
            assert_eq!(absent_refused.ask(door, &handshake(&fields)).await.status, status, "{door:?} {fields:?}");
            assert_eq!(absent_allowed.ask(door, &handshake(&fields)).await.status, status, "{door:?} {fields:?}");
        }
        // Without the waiver it neither helps nor harms.
        let strict = Gate::echo(&format!("origin = {{ {allow} }}")).await;
        assert_eq!(strict.ask(door, &handshake(&format!("{standard}{evil}"))).await.status, switched(door, 101));
        // Drafts 4 to 6 have other frames, so their versions are not waived.
        for version in ["4", "6"] {
            let status = absent_refused.ask(door, &draft(version, app)).await.status;
            assert_eq!(status, if door == Door::Http2 { 400 } else { 426 }, "{door:?} {version}");
        }
    }
}

#[tokio::test]
async fn origins_that_no_browser_can_send_are_refused_whatever_is_allowed() {
    let listed = "origin = { allow = [\"https://app.example.com\", \"https://*.trusted.example\"] }";
    let (listed, any) = (Gate::echo(listed).await, Gate::echo("origin = { allow = \"*\" }").await);
    let long = "a".repeat(64);
    let deep = "a.".repeat(120);
    for origin in [
        &format!("https://{long}.trusted.example") as &str,
        &format!("https://{}.trusted.example", "a".repeat(70)),
        &format!("https://b.{long}.trusted.example"),
        &format!("https://{deep}trusted.example"),
        "https://app.example.com:0443",
        "https://app.example.com:00443",
        "https://b.trusted.example:0443",
        "https://app.example.com:0",
        "https://app.example.com:65979",
        "https://app.example.com:",
        "https://b..trusted.example",
        "https://.trusted.example",
        "https://%62.trusted.example",
        "https://xn--.trusted.example",
        "https://u@b.trusted.example",
        "https://b.trusted.example/",
        "https://0x7f.1",
        "https://127.1",
        "https://[0:0:0:0:0:0:0:1]",
        "https://[fe80::1%25eth0]",
        "https://[::ffff:127.0.0.1]",
    ] {
        for door in Door::ALL {
            for gate in [&listed, &any] {
                let answer = gate.ask(door, &handshake(&format!("Origin: {origin}\r\n"))).await;
                assert_eq!(answer.status, 403, "{door:?} {origin}");
                assert!(answer.text().contains("malformed"), "{door:?} {origin} {}", answer.text());
            }
        }
    }
    for origin in
        ["https://a_b.trusted.example", "https://-x-.trusted.example", "https://xn--bcher-kva.trusted.example"]
    {
        for door in Door::ALL {
            let answer = listed.ask(door, &handshake(&format!("Origin: {origin}\r\n"))).await;
            assert_eq!(answer.status, switched(door, 101), "{door:?} {origin}");
        }
    }
    for door in Door::ALL {
        for origin in ["https://[::ffff:7f00:1]", "http://127.0.0.1:8080", "https://app.example.com:65535"] {
            let answer = any.ask(door, &handshake(&format!("Origin: {origin}\r\n"))).await;
            assert_eq!(answer.status, switched(door, 101), "{door:?} {origin}");
        }
    }
}

#[tokio::test]
async fn the_origins_of_apps_can_be_listed_and_are_matched_by_the_asterisk() {
    let apps = [
        "file://",
        "app://.",
        "capacitor://localhost",
        "ionic://localhost",
        "tauri://localhost",
        "chrome-extension://aapocclcgogkmnckokdopfmhonfmgoek",
        "moz-extension://d5b5b9f3-8b0e-4f5e-9c4e-0a3a2a4f6f11",
        "safari-web-extension://5CF1A8E5-4D1B-4F0A-9A5E-3C3F5D6B7A8B",
        "vscode-webview://0f8hk7rsqvnd1v5hcqv3bhm3d4p1hvvt",
        "vscode-file://vscode-app",
        "qrc://",
        "ms-appx-web://microsoft.microsoftedge",
    ];
    let listed = Gate::echo(&format!("origin = {{ allow = {apps:?} }}")).await;
    let any = Gate::echo("origin = { allow = \"*\" }").await;
    let default = Gate::echo("").await;
    for door in Door::ALL {
        for app in apps {
            let request = handshake(&format!("Origin: {app}\r\n"));
            assert_eq!(listed.ask(door, &request).await.status, switched(door, 101), "{door:?} {app}");
            assert_eq!(any.ask(door, &request).await.status, switched(door, 101), "{door:?} {app}");
            assert_eq!(default.ask(door, &request).await.status, 403, "{door:?} {app}");
        }
        for other in ["app://", "app://..", "tauri://localhost/", "capacitor://LOCALHOST", "capacitor://localhost:80"] {
            let answer = listed.ask(door, &handshake(&format!("Origin: {other}\r\n"))).await;
            assert_eq!(answer.status, 403, "{door:?} {other}");
        }
        for malformed in ["file:///index.html", "app://./", "app://u@a", "app://a b"] {
            let answer = any.ask(door, &handshake(&format!("Origin: {malformed}\r\n"))).await;
            assert_eq!(answer.status, 403, "{door:?} {malformed}");
        }
    }
}
