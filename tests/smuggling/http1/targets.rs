//! Request targets (RFC 9112 §3.2, RFC 3986 §3.3). `/strict` has a route of its own.

use super::*;
use crate::smuggling::driver::HOPS;

fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: gate.test\r\n\r\n")
}

fn path(name: &'static str, source: &'static str, target: &str) -> Attack {
    answered(name, source, get(target))
}

pub(super) fn attacks() -> Vec<Attack> {
    let form = "RFC 9112 §3.2";
    let dots = "RFC 3986 §5.2.4";
    let segments = "RFC 3986 §3.3";
    vec![
        refused("a space in the target", form, get("/a b")),
        refused("NUL in the target", form, get("/a\0b")),
        refused("a bare CR in the target", form, get("/a\rb")),
        refused("a bare LF in the target", form, get("/a\nX:y")),
        refused("delete in the target", form, get("/a\u{7f}")),
        refused("a fragment", "CVE-2023-45539", get("/a#/strict")),
        refused("an empty target", form, get("")),
        path("an encoded CRLF", "CVE-2023-25690", "/a%20HTTP/1.1%0d%0aHost:%20gate.test%0d%0a%0d%0aGET%20/strict"),
        path("an encoded NUL", segments, "/a%00.html"),
        path("dot segments", "CVE-2019-9901", "/a/../strict"),
        path("encoded dot segments", "CVE-2021-41773", "/a/.%2e/strict"),
        path("dot segments encoded twice", "CVE-2021-42013", "/a/%%32%65%%32%65/strict"),
        path("dot segments with parameters", "CVE-2020-5902", "/a/..;/strict"),
        path("an overlong dot segment", "CVE-2008-2938", "/a/%c0%ae%c0%ae/strict"),
        path("dot segments behind a backslash", dots, "/a/..%5cstrict"),
        path("a backslash", segments, "/a\\..\\strict"),
        path("a double slash", "CVE-2019-9901", "//strict"),
        path("an encoded slash", "CVE-2021-29492", "/%2fstrict"),
        path("a slash encoded twice", segments, "/%252fstrict"),
        path("parameters before an encoded slash", "RFC 3986 §3.3 (Jetty 9.4)", "/;%2fz/strict%2fx"),
        path("a query after decoding", segments, "/strict%3fx"),
        path("dots at the end of a segment", segments, "/strict./x"),
        path("a malformed encoding", "RFC 3986 §2.1", "/a%zz"),
        path("an encoding of IIS", "RFC 3986 §2.1", "/%u0073trict"),
        path("an authority alone", form, "gate.test:80"),
        path("a star with GET", form, "*"),
        path("another scheme", form, "ftp://gate.test/a"),
        path("a user in the authority", form, "http://gate.test@other.test/a"),
        refused("CONNECT", "RFC 9110 §9.3.6", "CONNECT gate.test:80 HTTP/1.1\r\nHost: gate.test:80\r\n\r\n")
            .with(&[405], Seen::Nothing),
        refused("TRACE", "RFC 9110 §9.3.8", "TRACE /a HTTP/1.1\r\nHost: gate.test\r\n\r\n").with(&[501], Seen::Nothing),
        served(
            "an absolute target overrides the host",
            "RFC 9112 §3.2.2",
            get("http://other.test/a"),
            format!("GET /a HTTP/1.1\r\nHost: other.test\r\n{}\r\n", HOPS.replace("gate.test", "other.test")),
        ),
        served(
            "the upstream gets the path as it was sent",
            segments,
            get("/a%2Fb;c=d//e?f=%0d%0a"),
            format!("GET /a%2Fb;c=d//e?f=%0d%0a HTTP/1.1\r\nHost: gate.test\r\n{HOPS}\r\n"),
        ),
    ]
}
