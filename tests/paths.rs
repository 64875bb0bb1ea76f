//! Paths that backends read differently, over HTTP/1.1 in clear, over TLS and over HTTP/2.

use crate::support::{
    Upstream,
    doors::{Door, Gate},
    handshake,
};

/// Beside an open route.
const STRICT: &str = "[[route]]\npath = \"/api/admin\"\nupstream = \"u\"\norigin = { allow = \"https://a.test\" }\n\
    [[route]]\npath = \"/Team\"\nignore_case = true\nupstream = \"u\"\norigin = { allow = \"https://a.test\" }\n";

/// From a page that only the open route lets in.
fn opening(path: &str) -> String {
    handshake("Origin: https://evil.example\r\n").replace("GET /chat ", &format!("GET {path} "))
}

#[tokio::test]
async fn no_spelling_of_a_path_leads_past_the_policy_of_its_route() {
    let mut upstream = Upstream::start().await;
    let gate = Gate::before(&upstream.url, "origin = { allow = \"*\" }", STRICT).await;
    let many = "/a;b/c//d%2fe%3ff%23g%5ch%20/i%252fj%253bk";
    for (path, status) in [
        ("/api/admin", 403),
        ("/api/%61dmin/x", 403),
        ("/team/x", 403),
        ("/TEAM", 403),
        ("/tEa%4d/x", 403),
        ("/api;%2fz/admin%2fx", 400),
        ("/api;%5cz/admin%2fx", 400),
        ("/api/%253bz%2fq/admin/x", 400),
        ("/api;z%2fq%5cadmin", 400),
        ("/api;\\z/admin/x", 400),
        ("/x\\y", 400),
        ("/api%3b%2fz/admin%2fx", 400),
        ("/api%253b%252fz/admin%252fx", 400),
        ("/api;a=b;c=d/admin", 400),
        ("//api//admin", 400),
        ("//x/api/admin", 400),
        ("/api/admin./x", 400),
        ("/api/admin%20", 400),
        ("/api/admin%3f", 400),
        ("/TEAM;x/y", 400),
        ("/%54eam%2fy", 400),
        ("/api/x/..;/admin", 400),
        (many, 400),
    ] {
        for door in Door::ALL {
            let answer = gate.ask(door, &opening(path)).await;
            assert_eq!(answer.status, status, "{door:?} {path}: {}", answer.text());
        }
    }
    assert!(!upstream.was_dialled());
}

#[tokio::test]
async fn a_literal_upstream_takes_paths_as_they_are_written() {
    let literal = "paths = \"literal\"\n[[route]]\npath = \"/ws\"\nupstream = \"u\"\n";
    let gate = Gate::before("builtin:echo", "origin = { allow = \"*\" }", literal).await;
    for (path, status) in [
        // Of the route `/`, which is open; `/ws` is not.
        ("/ws;jsessionid=1", [101, 101, 200]),
        ("//ws/x", [101, 101, 200]),
        ("/ws%2fx", [101, 101, 200]),
        ("/ws/x", [403; 3]),
        ("/ws/../x", [400; 3]),
        ("/ws/%252e%252e/x", [400; 3]),
        ("/ws\\x", [400; 3]),
    ] {
        for (door, status) in Door::ALL.into_iter().zip(status) {
            let answer = gate.ask(door, &opening(path)).await;
            assert_eq!(answer.status, status, "{door:?} {path}: {}", answer.text());
        }
    }
}

#[tokio::test]
async fn the_upstream_gets_the_path_as_it_was_sent() {
    let mut upstream = Upstream::start().await;
    let gate = Gate::before(&upstream.url, "", "").await;
    for path in ["/a;v=1/%7Eb%2fc?q=\\x%00", "/proxy/https%3A%2F%2Fexample.com%2Fa%3Fb%3Dc", "//a//b;c", "/a%20b./c"] {
        let mut client = gate.proxy.connect().await;
        client.send(format!("GET {path} HTTP/1.1\r\nHost: gate.test\r\n\r\n")).await;
        let head = upstream.accept().await.head().await;
        assert_eq!(head.lines().next(), Some(format!("GET {path} HTTP/1.1").as_str()));
    }
}
