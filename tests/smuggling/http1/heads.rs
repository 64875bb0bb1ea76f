//! Lines and fields of a head (RFC 9112 §2.2, §3, §5).

use super::*;
use crate::smuggling::driver::arrived;

fn get(fields: &str) -> String {
    format!("GET /a HTTP/1.1\r\nHost: gate.test\r\n{fields}\r\n")
}

fn line(line: &str) -> String {
    format!("{line}\r\nHost: gate.test\r\n\r\n")
}

pub(super) fn attacks() -> Vec<Attack> {
    let name = "RFC 9112 §5.1";
    let ends = "RFC 9112 §2.2";
    let request_line = "RFC 9112 §3";
    let host = "RFC 9112 §3.2";
    vec![
        refused("NUL in a value", "CVE-2019-9900", get("X: a\0b\r\n")),
        refused("escape in a value", "RFC 9110 §5.5", get("X: a\u{1b}b\r\n")),
        refused("delete in a value", "RFC 9110 §5.5", get("X: a\u{7f}b\r\n")),
        refused("a field without a name", "CVE-2023-25725", get(": x\r\nContent-Length: 5\r\n")),
        refused("a line without a colon", "CVE-2019-20444", get("Transfer-Encoding\r\n")),
        refused("a space in a name", name, get("X Y: 1\r\n")),
        refused("a byte above ASCII in a name", name, get("X\u{e9}: 1\r\n")),
        refused("a parenthesis in a name", name, get("X(: 1\r\n")),
        refused("a comma in a name", name, get("Content-Length,X: 1\r\n")),
        refused("a quote in a name", name, get("\"X\": 1\r\n")),
        refused("a value folded with a space", "RFC 9112 §5.2", get("X: a\r\n b\r\n")),
        refused("a value folded with a tab", "RFC 9112 §5.2", get("X: a\r\n\tb\r\n")),
        refused("an empty folded line", "RFC 9112 §5.2", get("X: a\r\n \r\n")),
        refused("bare LF for every line end", "CVE-2019-16785", get("").replace("\r\n", "\n")),
        refused("a bare LF after a field", "CVE-2022-35256", get("X: a\nY: b\r\n")),
        refused("a bare CR after a field", "CVE-2023-30589", get("X: a\rY: b\r\n")),
        refused("a CR too many", ends, get("X: a\r\r\n")),
        refused("a bare LF for the empty line", ends, "GET /a HTTP/1.1\r\nHost: gate.test\r\n\n"),
        refused("a bare CR for the empty line", ends, "GET /a HTTP/1.1\r\nHost: gate.test\r\n\rX: y\r\n\r\n"),
        refused("a bare LF after the request line", ends, "GET /a HTTP/1.1\nHost: gate.test\r\n\r\n"),
        refused("a bare LF before the request line", ends, "\nGET /a HTTP/1.1\r\nHost: gate.test\r\n\r\n"),
        refused("a bare CR before the request line", ends, "\rGET /a HTTP/1.1\r\nHost: gate.test\r\n\r\n"),
        refused("three empty lines before the request line", ends, format!("\r\n\r\n\r\n{}", get(""))),
        refused("a folded first line", ends, "GET /a HTTP/1.1\r\n Host: gate.test\r\nHost: gate.test\r\n\r\n"),
        refused("HTTP/0.9", "CVE-2017-7656", "GET /a\r\n"),
        refused("HTTP/0.9 with its version", "CVE-2017-7656", line("GET /a HTTP/0.9")),
        refused("a version that is not 1.x", "RFC 9112 §2.3", line("GET /a HTTP/2.0")),
        refused("a version with a third digit", "RFC 9112 §2.3", line("GET /a HTTP/1.10")),
        refused("a later version", "RFC 9112 §2.3", line("GET /a HTTP/1.2")),
        refused("a version in lower case", "RFC 9112 §2.3", line("GET /a http/1.1")),
        refused("the preface of HTTP/2", "RFC 9113 §3.4", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        refused("tabs in the request line", request_line, line("GET\t/a\tHTTP/1.1")),
        refused("two spaces in the request line", request_line, line("GET  /a HTTP/1.1")),
        refused("two spaces before the version", request_line, line("GET /a  HTTP/1.1")),
        refused("a space before the method", request_line, line(" GET /a HTTP/1.1")),
        refused("a space after the version", request_line, line("GET /a HTTP/1.1 ")),
        refused("a vertical tab in the request line", request_line, line("GET /a\u{b}HTTP/1.1")),
        refused("a fourth word in the request line", request_line, line("GET /a HTTP/1.1 HTTP/1.1")),
        refused("NUL in the method", request_line, line("G\0ET /a HTTP/1.1")),
        refused("a colon in the method", request_line, line("Host: /a HTTP/1.1")),
        answered("no host", host, "GET /a HTTP/1.1\r\n\r\n"),
        refused("no host in HTTP/1.0", host, "GET /a HTTP/1.0\r\n\r\n"),
        answered("an empty host", host, "GET /a HTTP/1.1\r\nHost:\r\n\r\n"),
        answered("two hosts", host, get("Host: other.test\r\n")),
        answered("the same host twice", host, get("hOST: gate.test\r\n")),
        refused("a space before the colon of a second host", "CVE-2021-22959", get("Host : other.test\r\n")),
        refused("a folded second host", "RFC 9112 §5.2", get(" Host: other.test\r\n")),
        refused("a look-alike of the host", "RFC 3875 §4.1.18", get("Host_: other.test\r\n")),
        answered("a list of hosts", host, "GET /a HTTP/1.1\r\nHost: gate.test, other.test\r\n\r\n"),
        answered("a host with a user", host, "GET /a HTTP/1.1\r\nHost: gate.test@other.test\r\n\r\n"),
        answered("a host with a path", host, "GET /a HTTP/1.1\r\nHost: gate.test/x\r\n\r\n"),
        answered("a host with a query", host, "GET /a HTTP/1.1\r\nHost: gate.test?x\r\n\r\n"),
        answered("a host with a space", host, "GET /a HTTP/1.1\r\nHost: gate.test x\r\n\r\n"),
        answered("a host with a tab", host, "GET /a HTTP/1.1\r\nHost: gate\t.test\r\n\r\n"),
        answered(
            "a host with a port that is no number",
            host,
            "GET /a HTTP/1.1\r\nHost: gate.test:@other.test\r\n\r\n",
        ),
        answered("a host with a backslash", host, "GET /a HTTP/1.1\r\nHost: gate.test\\other.test\r\n\r\n"),
        answered("a host above ASCII", host, "GET /a HTTP/1.1\r\nHost: g\u{e4}te.test\r\n\r\n"),
        served(
            "an empty line before the request line",
            ends,
            format!("\r\n{}", get("")),
            arrived("GET /a HTTP/1.1", "", ""),
        ),
        served(
            "a colon and white space in a value",
            "CVE-2019-15606",
            get("X: \t a: b \t \r\n"),
            arrived("GET /a HTTP/1.1", "X: a: b\r\n", ""),
        ),
    ]
}
