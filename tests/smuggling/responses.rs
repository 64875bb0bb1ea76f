//! Responses with two readings, and upstreams that say more than they were asked (RFC 9112 §6.3, §9.2).

use super::driver::{Answer, OK, Pace, Recorder, Seen, arrived, arrived_next, exchange};
use crate::support::{Proxy, within};

const POISON: &str = "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nsmuggled";

/// A response to `request`, and what the client gets before the response to its next request.
struct Attack {
    name: &'static str,
    source: &'static str,
    request: &'static str,
    answer: String,
    statuses: &'static [u16],
    body: &'static str,
    /// Bytes that arrive later than their response, on a connection that has its next request, are its response: nobody can
    /// tell. So these come in one piece with it.
    at_once: bool,
}

fn attacks() -> Vec<Attack> {
    let get = |name, source, answer: String, statuses, body| Attack {
        name,
        source,
        request: "GET",
        answer,
        statuses,
        body,
        at_once: false,
    };
    let at_once =
        |name, source, answer, statuses, body| Attack { at_once: true, ..get(name, source, answer, statuses, body) };
    let refused = |name, source, answer: &str| get(name, source, answer.to_owned(), &[502, 200], "");
    let ok = |fields: &str, body: &str| format!("HTTP/1.1 200 OK\r\n{fields}\r\n{body}");
    let length = "RFC 9112 §6.3";
    vec![
        refused("two lengths", length, &ok("Content-Length: 2\r\nContent-Length: 3\r\n", "abc")),
        refused("the same length twice", length, &ok("Content-Length: 2\r\nContent-Length: 2\r\n", "ab")),
        refused("a list of lengths", length, &ok("Content-Length: 2, 2\r\n", "ab")),
        refused("a length with a plus", length, &ok("Content-Length: +2\r\n", "ab")),
        refused("a negative length", length, &ok("Content-Length: -2\r\n", "ab")),
        refused("an empty length", "CVE-2023-40225", &ok("Content-Length:\r\n", "ab")),
        refused(
            "a length beside chunked",
            "RFC 9112 §6.1",
            &ok("Content-Length: 2\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
        ),
        refused(
            "chunked after a length",
            "RFC 9112 §6.1",
            &ok("Transfer-Encoding: chunked\r\nContent-Length: 2\r\n", "0\r\n\r\n"),
        ),
        refused(
            "chunked twice",
            "RFC 9112 §6.1",
            &ok("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
        ),
        refused(
            "chunked before another coding",
            "RFC 9112 §6.1",
            &ok("Transfer-Encoding: chunked, gzip\r\n", "0\r\n\r\n"),
        ),
        refused("a coding that is not chunked", "RFC 9112 §6.1", &ok("Transfer-Encoding: identity\r\n", "ab")),
        refused("a space before the colon", "RFC 9112 §5.1", &ok("Content-Length : 2\r\n", "ab")),
        refused("NUL in a value", "RFC 9110 §5.5", &ok("X: a\0b\r\nContent-Length: 2\r\n", "ab")),
        refused("a bare CR in a value", "RFC 9112 §2.2", &ok("X: a\rSet-Cookie: b\r\nContent-Length: 2\r\n", "ab")),
        refused("a folded value", "RFC 9112 §5.2", &ok("X: a\r\n b\r\nContent-Length: 2\r\n", "ab")),
        refused("a field without a name", "CVE-2023-25725", &ok(": a\r\nContent-Length: 2\r\n", "ab")),
        refused(
            "a switch nobody asked for",
            "RFC 9110 §15.2.2",
            &format!("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n{POISON}"),
        ),
        refused("a status of four digits", "RFC 9112 §4", &ok("Content-Length: 2\r\n", "ab").replace("200", "2000")),
        refused("a status of two digits", "RFC 9112 §4", &ok("Content-Length: 2\r\n", "ab").replace("200", "20")),
        refused("HTTP/0.9", "RFC 9112 §4", "<html>smuggled</html>\r\n\r\n"),
        refused(
            "a version that is not 1.x",
            "RFC 9112 §2.3",
            &ok("Content-Length: 2\r\n", "ab").replace("HTTP/1.1", "HTTP/2.0"),
        ),
        refused("a request for a response", "RFC 9112 §4", "GET /smuggled HTTP/1.1\r\nHost: gate.test\r\n\r\n"),
        at_once(
            "a second response behind a length",
            "PortSwigger, HTTP/2: The Sequel is Always Worse (2021)",
            ok("Content-Length: 2\r\n", "ab") + POISON,
            &[200, 200],
            "ab",
        ),
        at_once(
            "a second response behind chunks",
            "RFC 9112 §9.2",
            ok("Transfer-Encoding: chunked\r\n", "2\r\nab\r\n0\r\n\r\n") + POISON,
            &[200, 200],
            "ab",
        ),
        at_once(
            "a response to no content with content",
            "RFC 9112 §6.3",
            format!("HTTP/1.1 204 No Content\r\n\r\n{POISON}"),
            &[204, 200],
            "",
        ),
        get(
            "a length of no content",
            "RFC 9110 §8.6",
            format!("HTTP/1.1 204 No Content\r\nContent-Length: {}\r\n\r\n{POISON}", POISON.len()),
            &[204, 200],
            "",
        ),
        at_once(
            "content of what is not modified",
            "RFC 9112 §6.3",
            format!("HTTP/1.1 304 Not Modified\r\nContent-Length: {}\r\n\r\n{POISON}", POISON.len()),
            &[304, 200],
            "",
        ),
        Attack {
            request: "HEAD",
            ..at_once("content of HEAD", "RFC 9112 §6.3", ok("Content-Length: 51\r\n", POISON), &[200, 200], "")
        },
        get("a length with zeros before it", "RFC 9110 §8.6", ok("Content-Length: 002\r\n", "ab"), &[200, 200], "ab"),
    ]
}

/// The responses of the client: status and body of each, by `Content-Length` or chunks.
fn bodies(mut text: &str, head_only: bool) -> Vec<(u16, String)> {
    let mut all = Vec::new();
    while let Some((head, rest)) = text.split_once("\r\n\r\n") {
        let status = head[9..12].parse().unwrap();
        let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let none = [204, 304].contains(&status) || head_only && all.is_empty();
        let (body, rest) = match (field("Content-Length:"), field("Transfer-Encoding:")) {
            _ if none => (String::new(), rest),
            (Some(length), _) => {
                assert!(length == "0" || !length.starts_with('0'), "{head}");
                let (body, rest) = rest.split_at(length.parse().unwrap());
                (body.to_owned(), rest)
            }
            (None, Some(_)) => {
                let (mut body, mut rest) = (String::new(), rest);
                loop {
                    let (size, after) = rest.split_once("\r\n").unwrap();
                    let size = usize::from_str_radix(size, 16).unwrap();
                    body.push_str(&after[..size]);
                    rest = &after[size + 2..];
                    if size == 0 {
                        break (body, rest);
                    }
                }
            }
            (None, None) => (rest.to_owned(), ""),
        };
        all.push((status, body));
        text = rest;
    }
    assert_eq!(text, "", "after the last response");
    all
}

#[tokio::test]
async fn no_response_is_taken_for_the_next_one() {
    let mut faults = Vec::new();
    let attacks = attacks();
    for Attack { name, source, request, answer, statuses, body, at_once } in &attacks {
        for pace in Pace::ALL.into_iter().take(if *at_once { 1 } else { 2 }) {
            // One that says nothing after it, and one that hangs up.
            for ends in [false, true] {
                let answer = Answer { bytes: answer.clone().into_bytes(), pace, ends };
                let recorder = Recorder::start(Some(answer)).await;
                let proxy = Proxy::before(&recorder.url, "", "").await;
                let sent = format!("{request} /a HTTP/1.1\r\nHost: gate.test\r\n\r\n");
                let (_, text) = exchange(&mut proxy.connect().await, sent.as_bytes(), Pace::Whole).await;
                within("stop", proxy.stop()).await.unwrap();
                let seen = recorder.seen().await;
                let got = bodies(&text, *request == "HEAD");
                let told: Vec<_> = got.iter().map(|(status, _)| *status).collect();
                let first = got.first().map(|(status, body)| if *status == 502 { "" } else { body.as_str() });
                let last = got.last().map(|(_, body)| body.as_bytes());
                let expected = Seen::Exactly(arrived(&format!("{request} /a HTTP/1.1"), "", "") + &arrived_next());
                if told != *statuses
                    || first != Some(*body)
                    || last != OK.last_chunk::<2>().map(|ok| &ok[..])
                    || !expected.is(seen.as_deref())
                {
                    faults.push(format!("{name} ({source}), {pace:?}, ends {ends}: {told:?}, not {statuses:?}\n  client {text:?}\n  upstream {seen:?}"));
                }
            }
        }
    }
    assert!(faults.is_empty(), "{} of {}:\n{}", faults.len(), attacks.len() * 4, faults.join("\n\n"));
}
