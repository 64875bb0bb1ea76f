//! Where a chunk and its body end (RFC 9112 §7.1).

use super::*;
use crate::smuggling::driver::arrived_chunked;

const LINE: &str = "POST /a HTTP/1.1";

fn post(fields: &str, body: &str) -> String {
    format!("{LINE}\r\nHost: gate.test\r\n{fields}Transfer-Encoding: chunked\r\n\r\n{body}")
}

/// A first chunk that is sound, and then this.
fn after_one(body: &str) -> String {
    post("", &format!("2\r\nhi\r\n{body}"))
}

fn cut(name: &'static str, source: &'static str, body: &str) -> Attack {
    broken(name, source, after_one(body), arrived_chunked(LINE, "", "2\r\nhi\r\n0\r\n\r\n"))
}

fn whole(name: &'static str, source: &'static str, body: &str, arrives: &str) -> Attack {
    served(name, source, post("", body), arrived_chunked(LINE, "", arrives))
}

pub(super) fn attacks() -> Vec<Attack> {
    let grammar = "RFC 9112 §7.1";
    let extension = "RFC 9112 §7.1.1";
    let trailer = "RFC 9112 §7.1.2";
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: gate.test\r\n\r\n";
    let announced = |name: &str| format!("Trailer: {name}\r\n");
    vec![
        cut("a bare LF in an extension", "CVE-2025-55315", "2;\nxx\r\n0\r\n\r\n"),
        cut("a bare LF after an extension", "CVE-2025-55315", "2;a=b\nhi\r\n0\r\n\r\n"),
        cut("a bare CR in an extension", "CVE-2025-55315", "2;\rxx\r\nhi\r\n0\r\n\r\n"),
        cut("a bare CR before CRLF", "Weikop, Funky chunks (2025)", "2;\r\r\nhi\r\n0\r\n\r\n"),
        cut("NUL in an extension", extension, "2;a\0b\r\nhi\r\n0\r\n\r\n"),
        cut("a bare LF after the size", "CVE-2025-22871", "2\nhi\r\n0\r\n\r\n"),
        cut("a bare CR after the size", "Weikop, Funky chunks (2025)", "2\rhi\r\n0\r\n\r\n"),
        cut("a bare LF after the data", "Weikop, Funky chunks (2025)", "2\r\nhi\n0\r\n\r\n"),
        cut("two bytes that are no CRLF after the data", "Weikop, Funky chunks (2025)", "2\r\nhixx0\r\n\r\n"),
        cut("data longer than its size", grammar, "2\r\nhigh\r\n0\r\n\r\n"),
        cut("data shorter than its size", grammar, "5\r\nhi\r\n0\r\n\r\n"),
        cut("a size with 0x", "CVE-2022-24801", "0x2\r\nhi\r\n0\r\n\r\n"),
        cut("a size with a plus", "CVE-2022-24801", "+2\r\nhi\r\n0\r\n\r\n"),
        cut("a size with a minus", grammar, "-2\r\nhi\r\n0\r\n\r\n"),
        cut("a size with an underscore", "CVE-2022-24761", "0_2\r\nhi\r\n0\r\n\r\n"),
        cut("a size behind a space", grammar, " 2\r\nhi\r\n0\r\n\r\n"),
        cut("a size before a space", grammar, "2 \r\nhi\r\n0\r\n\r\n"),
        cut("a size before a tab", grammar, "2\t\r\nhi\r\n0\r\n\r\n"),
        cut("a second size after a space", grammar, "2 0\r\nhi\r\n0\r\n\r\n"),
        cut("a size and a comma", grammar, "2,\r\nhi\r\n0\r\n\r\n"),
        cut("a size over 64 bits", "CVE-2021-32714", "10000000000000002\r\nhi\r\n0\r\n\r\n"),
        cut("a size of many zeros over 64 bits", grammar, "00000000000000002\r\nhi\r\n0\r\n\r\n"),
        cut("no size", grammar, "\r\nhi\r\n0\r\n\r\n"),
        cut("a size in letters that are no digits", grammar, "g\r\nhi\r\n0\r\n\r\n"),
        cut("bare LF for both line ends of the last chunk", "CVE-2025-22871", "0\n\n"),
        cut("a bare LF for the last line", grammar, "0\r\n\n"),
        cut("a CR too many in the last line", grammar, "0\r\n\r\r\n"),
        cut("an extension of 2 KiB", "CVE-2024-21647", &format!("2;{}\r\nhi\r\n0\r\n\r\n", "a".repeat(2048))),
        broken(
            "extensions of 17 KiB in all",
            "CVE-2024-21647",
            post("", &format!("1;{}\r\nh\r\n", "a".repeat(1000)).repeat(17)),
            arrived_chunked(LINE, "", &("1\r\nh\r\n".repeat(16) + "0\r\n\r\n")),
        ),
        whole("an extension", "CVE-2021-22960", "2;a=b\r\nhi\r\n0;c\r\n\r\n", "2\r\nhi\r\n0\r\n\r\n"),
        whole("an extension with an open quote", extension, "2;a=\"\r\nhi\r\n0\r\n\r\n", "2\r\nhi\r\n0\r\n\r\n"),
        whole("an extension that looks like a size", extension, "2;ffff\r\nhi\r\n0\r\n\r\n", "2\r\nhi\r\n0\r\n\r\n"),
        whole("a size of many digits", grammar, "0000000000000002\r\nhi\r\n0000\r\n\r\n", "2\r\nhi\r\n0\r\n\r\n"),
        whole(
            "a request for data",
            grammar,
            &format!("2b\r\n{smuggled}\r\n0\r\n\r\n"),
            &format!("2B\r\n{smuggled}\r\n0\r\n\r\n"),
        ),
        whole("a chunk for data", grammar, "7\r\n0\r\n\r\nab\r\n0\r\n\r\n", "7\r\n0\r\n\r\nab\r\n0\r\n\r\n"),
        cut("a request line for a trailer", "CVE-2023-46589", &format!("0\r\n{smuggled}")),
        cut("a bare LF in trailers", "CVE-2023-45648", "0\r\nX: y\nGET /smuggled HTTP/1.1\r\n\r\n"),
        cut("a bare CR in trailers", "CVE-2023-45648", "0\r\nX: y\rZ: 1\r\n\r\n"),
        cut("NUL in a trailer", trailer, "0\r\nX: \0\r\n\r\n"),
        cut("a folded trailer", trailer, "0\r\nX: y\r\n z\r\n\r\n"),
        cut("a space before the colon of a trailer", trailer, "0\r\nTransfer-Encoding : x\r\n\r\n"),
        cut("a trailer without a name", "CVE-2023-25725", "0\r\n: y\r\n\r\n"),
        cut("trailers of 17 KiB", "CVE-2023-46589", &format!("0\r\nX: {}\r\n\r\n", "a".repeat(17 * 1024))),
        whole("a trailer that was not announced", "RFC 9110 §6.6.2", "0\r\nX-Sum: 1\r\n\r\n", "0\r\n\r\n"),
        served(
            "a length as a trailer",
            "CVE-2023-40175",
            post(&announced("Content-Length"), "0\r\nContent-Length: 44\r\n\r\n"),
            arrived_chunked(LINE, &announced("Content-Length"), "0\r\n\r\n"),
        ),
        served(
            "a coding as a trailer",
            "RFC 9110 §6.5.1",
            post(&announced("Transfer-Encoding"), "0\r\nTransfer-Encoding: identity\r\n\r\n"),
            arrived_chunked(LINE, &announced("Transfer-Encoding"), "0\r\n\r\n"),
        ),
        served(
            "a host as a trailer",
            "RFC 9110 §6.5.1",
            post(&announced("Host"), "0\r\nHost: other.test\r\n\r\n"),
            arrived_chunked(LINE, &announced("Host"), "0\r\n\r\n"),
        ),
        served(
            "a forwarded address as a trailer",
            "RFC 9110 §6.5.1",
            post(&announced("X-Forwarded-For"), "0\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n"),
            arrived_chunked(LINE, &announced("X-Forwarded-For"), "0\r\n\r\n"),
        ),
        served(
            "a look-alike of a forwarded address as a trailer",
            "RFC 3875 §4.1.18",
            post(&announced("X.Forwarded.For"), "0\r\nX.Forwarded.For: 6.6.6.6\r\n\r\n"),
            arrived_chunked(LINE, &announced("X.Forwarded.For"), "0\r\n\r\n"),
        ),
        served(
            "credentials as a trailer",
            "RFC 9110 §6.5.1",
            post(&announced("Authorization, X-Sum"), "0\r\nAuthorization: Basic eDp5\r\nX-Sum: 1\r\n\r\n"),
            arrived_chunked(LINE, &announced("Authorization, X-Sum"), "0\r\nX-Sum: 1\r\n\r\n"),
        ),
    ]
}
