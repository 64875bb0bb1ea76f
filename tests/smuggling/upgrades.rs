//! Upgrades that are none: what a client sends behind its opening handshake reaches nobody but as a request of its own
//! (RFC 6455 §4, RFC 9110 §7.8).

use super::driver::{Answer, HOPS, Pace, Recorder, Seen, arrived_next, exchange};
use crate::support::{KEY, Proxy, accepted, handshake, within};

const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: gate.test\r\n\r\n";

/// An answer to an opening handshake behind which the client sends requests.
struct Attack {
    name: &'static str,
    source: &'static str,
    answer: String,
    statuses: &'static [u16],
    /// Whether what follows the handshake is read as requests.
    goes_on: bool,
}

fn attacks() -> Vec<Attack> {
    let refused =
        |name, source, answer: String| Attack { name, source, answer, statuses: &[502, 200, 200], goes_on: true };
    let without = |line: &str| accepted("").replace(line, "");
    let accept = "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";
    let section = "RFC 6455 §4.1";
    vec![
        refused("an accept of another key", section, accepted("").replace("s3pP", "S3pP")),
        refused("no accept", "Egorov, WebSocket smuggling (2019)", without(accept)),
        refused("two accepts", section, accepted(accept)),
        refused("a switch without Upgrade", section, without("Upgrade: websocket\r\n")),
        refused("a switch without Connection", section, without("Connection: Upgrade\r\n")),
        refused("a switch to HTTP/2", "Bishop Fox, h2c Smuggling (2020)", accepted("").replace("websocket", "h2c")),
        refused("a switch in HTTP/1.0", "RFC 9110 §15.2.2", accepted("").replace("HTTP/1.1", "HTTP/1.0")),
        refused("an extension nobody offered", section, accepted("Sec-WebSocket-Extensions: permessage-deflate\r\n")),
        refused("a subprotocol nobody offered", section, accepted("Sec-WebSocket-Protocol: chat\r\n")),
        refused("a switch with a bare CR", "RFC 9112 §2.2", accepted("X: a\rb\r\n")),
        refused("a switch with NUL", "RFC 9110 §5.5", accepted("X: a\0b\r\n")),
        Attack {
            name: "a refusal by the upstream",
            source: "Egorov, WebSocket smuggling (2019)",
            answer: "HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\n\r\n".to_owned(),
            statuses: &[426, 200, 200],
            goes_on: true,
        },
        Attack {
            name: "an answer that is no switch",
            source: "Egorov, WebSocket smuggling (2019)",
            answer: "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_owned(),
            statuses: &[200, 200, 200],
            goes_on: true,
        },
        Attack {
            name: "requests in place of frames",
            source: "RFC 6455 §5.1",
            answer: accepted(""),
            statuses: &[101],
            goes_on: false,
        },
        Attack {
            name: "a response in place of frames",
            source: "RFC 6455 §5.1",
            answer: accepted("") + "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nsmuggled",
            statuses: &[101],
            goes_on: false,
        },
    ]
}

#[tokio::test]
async fn bytes_behind_a_handshake_are_frames_or_requests_of_their_own() {
    let opening = format!(
        "GET /chat HTTP/1.1\r\nHost: gate.test\r\nSec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\
         Connection: Upgrade\r\nUpgrade: websocket\r\n{HOPS}\r\n"
    );
    let mut faults = Vec::new();
    let attacks = attacks();
    for Attack { name, source, answer, statuses, goes_on } in &attacks {
        for pace in Pace::ALL {
            let answer = Answer { bytes: answer.clone().into_bytes(), pace, ends: false };
            let recorder = Recorder::start(Some(answer)).await;
            let proxy = Proxy::before(&recorder.url, "close_timeout = \"1s\"", "").await;
            let sent = handshake("") + SMUGGLED;
            let (told, text) = exchange(&mut proxy.connect().await, sent.as_bytes(), pace).await;
            within("stop", proxy.stop()).await.unwrap();
            let seen = recorder.seen().await;
            let right = if *goes_on {
                let smuggled = arrived_next().replace("/next", "/smuggled");
                Seen::Exactly(format!("{opening}{smuggled}{}", arrived_next())).is(seen.as_deref())
            } else {
                // What follows is a Close of the gate.
                let rest = seen.as_ref().and_then(|seen| seen.strip_prefix(&opening));
                rest.is_some_and(|rest| !rest.contains("HTTP/1.1")) && !text.contains("smuggled")
            };
            if told != *statuses || !right {
                faults.push(format!(
                    "{name} ({source}), {pace:?}: {told:?}, not {statuses:?}\n  client {text:?}\n  upstream {seen:?}"
                ));
            }
        }
    }
    assert!(faults.is_empty(), "{} of {}:\n{}", faults.len(), attacks.len() * 2, faults.join("\n\n"));
}
