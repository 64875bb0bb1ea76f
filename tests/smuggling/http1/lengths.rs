//! Where a body ends: `Content-Length` and `Transfer-Encoding` (RFC 9112 §6).

use super::*;
use crate::smuggling::driver::{arrived, arrived_chunked};

/// 43 bytes.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: gate.test\r\n\r\n";

fn post(fields: &str, body: &str) -> String {
    format!("POST /a HTTP/1.1\r\nHost: gate.test\r\n{fields}\r\n{body}")
}

/// A field that says chunked to one reader, beside a length for the others.
fn beside_length(field: &str) -> String {
    post(&format!("Content-Length: 48\r\n{field}"), &format!("0\r\n\r\n{SMUGGLED}"))
}

/// A length that is 6 to one reader.
fn length(value: &str) -> String {
    post(&format!("Content-Length: {value}\r\n"), "123456")
}

/// Chunked to one reader, without a body to the others.
fn chunked(field: &str) -> String {
    post(field, &format!("0\r\n\r\n{SMUGGLED}"))
}

pub(super) fn attacks() -> Vec<Attack> {
    let line = "POST /a HTTP/1.1";
    let both = "RFC 9112 §6.1";
    let number = "RFC 9112 §6.3";
    vec![
        refused("CL.TE", "PortSwigger, HTTP Desync Attacks (2019)", beside_length("Transfer-Encoding: chunked\r\n")),
        refused(
            "TE.CL",
            "PortSwigger, HTTP Desync Attacks (2019)",
            post("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", &format!("2b\r\n{SMUGGLED}\r\n0\r\n\r\n")),
        ),
        refused(
            "a length of nothing beside chunked",
            both,
            chunked("Content-Length: 0\r\nTransfer-Encoding: chunked\r\n"),
        ),
        refused(
            "chunked in HTTP/1.0",
            "CVE-2021-33037",
            chunked("Transfer-Encoding: chunked\r\n")
                .replace("HTTP/1.1\r\nHost: gate.test\r\nT", "HTTP/1.0\r\nHost: gate.test\r\nT"),
        ),
        refused("two lengths", "CVE-2019-16792", post("Content-Length: 6\r\nContent-Length: 0\r\n", "123456")),
        refused("the same length twice", number, post("Content-Length: 6\r\nContent-Length: 6\r\n", "123456")),
        refused(
            "two lengths in other cases",
            "CVE-2020-10108",
            post("Content-Length: 6\r\ncOnTeNt-lEnGtH: 0\r\n", "123456"),
        ),
        refused("a list of lengths", number, length("6, 6")),
        refused("a list of two lengths", number, length("6, 0")),
        refused("a length with a plus", "CVE-2022-24801", length("+6")),
        refused("a negative length", number, length("-6")),
        refused("a hexadecimal length", number, length("0x6")),
        refused("a length with an underscore", "CVE-2022-24761", length("0_6")),
        refused("a length with a fraction", number, length("6.0")),
        refused("a length with an exponent", number, length("6e0")),
        refused("a length with more behind it", "CVE-2022-42252", length("6 0")),
        refused("a length in quotes", number, length("\"6\"")),
        refused("an empty length", "CVE-2023-40225", length("")),
        refused("a length over 64 bits", number, length("18446744073709551622")),
        refused("a length in other digits", number, length("\u{666}")),
        refused("a length behind a vertical tab", "RFC 9110 §5.5", length("\u{b}6")),
        refused("a length folded over lines", "RFC 9112 §5.2", length("\r\n 6")),
        refused("a space before the colon of a length", "CVE-2019-16276", post("Content-Length : 6\r\n", "123456")),
        refused("NUL at the end of a name", "CVE-2024-52530", post("Content-Length\0: 6\r\n", "123456")),
        refused("a length with an underscore for a hyphen", "CVE-2015-0219", post("Content_Length: 6\r\n", "")),
        refused("a length with a dot for a hyphen", "RFC 3875 §4.1.18", post("Content.Length: 6\r\n", "")),
        served(
            "a length with zeros before it",
            number,
            length("0006"),
            arrived(line, "Content-Length: 6\r\n", "123456"),
        ),
        served(
            "CL.0",
            "PortSwigger, Browser-Powered Desync Attacks (2022)",
            post("Content-Length: 43\r\n", SMUGGLED),
            arrived(line, "Content-Length: 43\r\n", SMUGGLED),
        ),
        served(
            "a body of GET",
            "RFC 9110 §9.3.1",
            post("Content-Length: 43\r\n", SMUGGLED).replace("POST", "GET"),
            arrived("GET /a HTTP/1.1", "Content-Length: 43\r\n", SMUGGLED),
        ),
        refused("look-alike of chunked", "CVE-2019-16786", beside_length("Transfer-Encoding: xchunked\r\n")),
        refused("chunked twice in a word", "CVE-2022-32213", chunked("Transfer-Encoding: chunkedchunked\r\n")),
        refused("a space before the colon", "CVE-2019-16869", beside_length("Transfer-Encoding : chunked\r\n")),
        refused("a tab before the colon", "RFC 9112 §5.1", beside_length("Transfer-Encoding\t: chunked\r\n")),
        refused("a space before the name", "CVE-2020-7238", beside_length(" Transfer-Encoding: chunked\r\n")),
        refused("a vertical tab before chunked", "CVE-2019-18277", beside_length("Transfer-Encoding:\u{b}chunked\r\n")),
        refused("a form feed after chunked", "CVE-2019-16789", chunked("Transfer-Encoding: chunked\u{c}\r\n")),
        refused("chunked before another coding", "CVE-2021-33037", chunked("Transfer-Encoding: chunked, identity\r\n")),
        refused("chunked after another coding", both, chunked("Transfer-Encoding: identity, chunked\r\n")),
        refused("a coding that is not chunked", both, chunked("Transfer-Encoding: gzip\r\n")),
        refused("no coding", both, chunked("Transfer-Encoding:\r\n")),
        refused("an empty member before chunked", "RFC 9110 §5.6.1", chunked("Transfer-Encoding: ,chunked\r\n")),
        refused("chunked with a parameter", both, chunked("Transfer-Encoding: chunked;q=1\r\n")),
        refused("chunked in quotes", both, chunked("Transfer-Encoding: \"chunked\"\r\n")),
        refused("chunked in single quotes", both, chunked("Transfer-Encoding: 'chunked'\r\n")),
        refused("chunked behind a no-break space", both, chunked("Transfer-Encoding: \u{a0}chunked\r\n")),
        refused(
            "chunked twice",
            "CVE-2021-32715",
            chunked("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
        ),
        refused("TE.TE", "CVE-2020-8287", chunked("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n")),
        refused("chunked folded over lines", "CVE-2022-32215", chunked("Transfer-Encoding:\r\n chunked\r\n")),
        refused("chunked behind a bare LF", "CVE-2022-32214", chunked("X: y\nTransfer-Encoding: chunked\r\n")),
        refused("chunked behind a bare CR", "CVE-2023-30589", chunked("X: y\rTransfer-Encoding: chunked\r\n")),
        refused("a coding with an underscore for a hyphen", "CVE-2015-0219", chunked("Transfer_Encoding: chunked\r\n")),
        refused("a coding with a tilde for a hyphen", "RFC 3875 §4.1.18", chunked("Transfer~Encoding: chunked\r\n")),
        served(
            "chunked in another case and between white space",
            "RFC 9110 §5.5",
            post("Transfer-Encoding: \t CHUNKED \t\r\n", "0\r\n\r\n"),
            arrived_chunked(line, "", "0\r\n\r\n"),
        ),
        served(
            "a name that overflows a length of 8 bits",
            "CVE-2021-40346",
            post(&format!("Content-Length0{}:\r\nContent-Length: 43\r\n", "a".repeat(255)), SMUGGLED),
            arrived(line, &format!("Content-Length0{}: \r\nContent-Length: 43\r\n", "a".repeat(255)), SMUGGLED),
        ),
    ]
}
