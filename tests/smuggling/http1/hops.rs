//! Fields of one hop (RFC 9110 §7.6.1), upgrades (§7.8) and expectations (§10.1.1).

use super::*;
use crate::{
    smuggling::driver::{HOPS, arrived},
    support::KEY,
};

const LINE: &str = "GET /a HTTP/1.1";

fn get(fields: &str) -> String {
    format!("{LINE}\r\nHost: gate.test\r\n{fields}\r\n")
}

fn websocket(fields: &str) -> String {
    get(&format!("Connection: Upgrade\r\nUpgrade: websocket\r\n{fields}"))
}

/// Fields that are removed by themselves: the last one takes the place of the first.
fn replaced(name: &'static str, source: &'static str, fields: &str) -> Attack {
    let (before, rest) = HOPS.split_once("Forwarded: ").unwrap();
    let (forwarded, after) = rest.split_once("\r\n").unwrap();
    let hops = format!("Forwarded: {forwarded}\r\n{before}{after}");
    served(name, source, get(fields), format!("{LINE}\r\nHost: gate.test\r\n{hops}\r\n"))
}

pub(super) fn attacks() -> Vec<Attack> {
    let hop = "RFC 9110 §7.6.1";
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: gate.test\r\n\r\n";
    let as_get =
        |name, source, fields: &str, arrives: &str| served(name, source, get(fields), arrived(LINE, arrives, ""));
    vec![
        as_get(
            "Connection names the forwarding fields",
            "CVE-2022-31813",
            "Connection: X-Forwarded-For, Forwarded, Via\r\n",
            "",
        ),
        as_get("Connection names the host", "CVE-2022-31813", "Connection: keep-alive, Host\r\n", ""),
        as_get(
            "Connection names the origin and the cookie",
            hop,
            "Connection: Origin, Cookie, Authorization\r\nOrigin: null\r\nCookie: a=b\r\nAuthorization: Basic eDp5\r\n",
            "Authorization: Basic eDp5\r\nOrigin: null\r\nCookie: a=b\r\n",
        ),
        as_get(
            "Connection names a field of its own",
            hop,
            "Connection: X-Hop\r\nX-Hop: 1\r\nX-End: 1\r\n",
            "X-End: 1\r\n",
        ),
        as_get(
            "fields of one hop",
            hop,
            "Keep-Alive: 5\r\nProxy-Connection: x\r\nTE: gzip\r\nProxy-Authorization: x\r\n",
            "",
        ),
        as_get("a proxy for CGI programs", "CVE-2016-5385", "Proxy: http://evil.test/\r\n", ""),
        replaced("a forwarded address", "RFC 7239 §8.1", "X-Forwarded-For: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\n"),
        as_get("a forwarded address with underscores", "CVE-2015-0219", "X_Forwarded_For: 6.6.6.6\r\n", ""),
        as_get(
            "a forwarded address with dots",
            "RFC 3875 §4.1.18",
            "X.Forwarded.For: 6.6.6.6\r\nX!Real!IP: 6.6.6.6\r\n",
            "",
        ),
        replaced("a certificate of nobody", "RFC 9440 §4", "Client-Cert: :AA==:\r\nClient.Cert.Subject: CN=admin\r\n"),
        served(
            "Connection names the length",
            hop,
            format!(
                "POST /a HTTP/1.1\r\nHost: gate.test\r\nConnection: Content-Length\r\nContent-Length: 43\r\n\r\n{smuggled}"
            ),
            arrived("POST /a HTTP/1.1", "Content-Length: 43\r\n", smuggled),
        ),
        as_get(
            "an upgrade to HTTP/2",
            "Bishop Fox, h2c Smuggling (2020)",
            "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
            "",
        ),
        as_get(
            "an upgrade to HTTP/2 without naming its settings",
            "Bishop Fox, h2c Smuggling (2020)",
            "Connection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
            "",
        ),
        as_get("an upgrade without its option", "RFC 9110 §7.8", "Upgrade: h2c\r\n", ""),
        answered(
            "a handshake of another version",
            "Egorov, WebSocket smuggling (2019)",
            websocket(&format!("Sec-WebSocket-Version: 1337\r\nSec-WebSocket-Key: {KEY}\r\n")),
        )
        .with(&[426, 200], Seen::Exactly(arrived_next())),
        answered(
            "a handshake without a key",
            "Egorov, WebSocket smuggling (2019)",
            websocket("Sec-WebSocket-Version: 13\r\n"),
        ),
        answered(
            "a handshake that is no GET",
            "RFC 6455 §4.2.1",
            websocket(&format!("Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n"))
                .replace("GET /a", "POST /a"),
        )
        .with(&[405, 200], Seen::Exactly(arrived_next())),
        refused(
            "a handshake with a body",
            "RFC 6455 §4.1",
            websocket(&format!(
                "Connection: close\r\nContent-Length: 43\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n"
            )) + smuggled,
        )
        .with(&[400], Seen::Nothing),
        refused(
            "a handshake with a look-alike of its key",
            "RFC 3875 §4.1.18",
            websocket(&format!(
                "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\nSec_WebSocket_Key: {KEY}\r\n"
            )),
        ),
        refused(
            "an expectation with a folded line",
            "CVE-2025-32094",
            format!(
                "OPTIONS /a HTTP/1.1\r\nHost: gate.test\r\nExpect:\r\n 100-continue\r\nContent-Length: 43\r\n\r\n{smuggled}"
            ),
        ),
        served(
            "an expectation without a body",
            "CVE-2024-24791",
            get("Expect: 100-continue\r\n"),
            arrived(LINE, "Expect: 100-continue\r\n", ""),
        ),
        served(
            "an expectation with its body at once",
            "PortSwigger, HTTP/1.1 must die (2025)",
            format!(
                "POST /a HTTP/1.1\r\nHost: gate.test\r\nExpect: 100-continue\r\nContent-Length: 43\r\n\r\n{smuggled}"
            ),
            arrived("POST /a HTTP/1.1", "Expect: 100-continue\r\nContent-Length: 43\r\n", smuggled),
        )
        .with_statuses(&[100, 200, 200]),
        served(
            "an expectation that nobody knows",
            "PortSwigger, HTTP/1.1 must die (2025)",
            format!(
                "POST /a HTTP/1.1\r\nHost: gate.test\r\nExpect: y 100-continue\r\nContent-Length: 43\r\n\r\n{smuggled}"
            ),
            arrived("POST /a HTTP/1.1", "Expect: y 100-continue\r\nContent-Length: 43\r\n", smuggled),
        ),
    ]
}
