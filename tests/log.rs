//! What the log says, and what it keeps to itself.

use std::process::Stdio;

use serde_json::Value;
use switchgate::protocol::log_text::is_printable;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    net::TcpStream,
};

use crate::support::{
    Client, KEY, Upstream, accepted, handshake,
    process::{DEVELOPMENT, Process, shell},
    within,
};

const FRONT: &str = "[[listener]]\nlisten = \"127.0.0.1:0\"\n[upstream.u]\nurl = \"builtin:echo\"\n[[route]]\nname = \"chat\"\nupstream = \"u\"\n";

fn secret_handshake() -> String {
    let fields = "Origin: http://gate.test\r\nAuthorization: Bearer s3cr3t\r\nCookie: sid=s3cr3t\r\n\
                  X-Api-Key: s3cr3t\r\nSec-WebSocket-Protocol: chat\r\n";
    handshake(fields).replace("/chat", "/chat?token=s3cr3t")
}

/// A masked Close frame without a code.
const CLOSE: [u8; 6] = [0x88, 0x80, 0, 0, 0, 0];

#[tokio::test]
async fn a_websocket_has_one_event_at_its_opening_and_one_at_its_end() {
    let mut process = Process::start(FRONT).await;
    let mut client = process.connect().await;
    assert_eq!(client.ask(secret_handshake()).await.status, 101);
    client.send(CLOSE).await;
    client.rest().await;
    drop(client);
    let ended = process.event("websocket ended").await;
    let opened = process.seen.iter().find(|event| event["message"] == "websocket opened").unwrap().clone();
    for key in ["id", "route", "client", "origin", "upstream", "subprotocol"] {
        assert!(opened[key].is_string() && opened[key] == ended[key], "{key}: {opened} {ended}");
    }
    assert_eq!((&opened["route"], &opened["origin"]), (&Value::from("chat"), &Value::from("http://gate.test")));
    assert_eq!(ended["bytes_to_upstream"], 6);
    for key in ["bytes_to_client", "duration_ms"] {
        assert!(ended[key].is_u64(), "{key}: {ended}");
    }
    assert!(ended["closed_by"].is_string() && ended["reason"] == "closed", "{ended}");
    process.terminate();
    assert_eq!(process.exit_code().await, Some(0));
    assert_eq!((process.count("websocket opened"), process.count("websocket ended")), (1, 1));
    assert_eq!(process.count("request"), 0);
}

#[tokio::test]
async fn a_plain_request_and_a_refusal_have_one_event_each() {
    let mut process = Process::start(FRONT).await;
    let mut client = process.connect().await;
    assert_eq!(client.ask("GET /?token=s3cr3t HTTP/1.1\r\nHost: gate.test\r\n\r\n").await.status, 200);
    let request = process.event("request").await;
    assert_eq!((&request["status"], &request["span"]["path"]), (&Value::from(200), &Value::from("/?…")));
    let refused = client.ask(handshake("Origin: https://evil.test\r\n")).await;
    assert_eq!(refused.status, 403);
    let event = process.event("refused").await;
    assert_eq!((&event["status"], &event["side"]), (&Value::from(403), &Value::from("downstream")));
    assert_eq!(event["rule"], "origin-not-allowed");
    assert_eq!(event["span"]["origin"], "https://evil.test");
    process.terminate();
    assert_eq!(process.exit_code().await, Some(0));
    assert_eq!((process.count("request"), process.count("refused")), (1, 1));
}

#[tokio::test]
async fn a_client_that_leaves_before_its_answer_leaves_an_event() {
    let mut upstream = Upstream::start().await;
    let mut process = Process::start(&FRONT.replace("builtin:echo", &upstream.url)).await;
    for request in [handshake(""), "GET / HTTP/1.1\r\nHost: gate.test\r\n\r\n".to_owned()] {
        let mut client = process.connect().await;
        client.send(&request).await;
        let mut peer = upstream.accept().await;
        peer.head().await;
        drop(client);
        let event = process.event("request; gone before its answer").await;
        assert_eq!(event["span"]["route"], "chat", "{event}");
        process.seen.clear();
    }
}

#[tokio::test]
async fn secrets_stay_out_of_the_log_at_its_loudest() {
    let mut process = Process::start_with(FRONT, "trace", "exec \"$0\" --log-format json").await;
    let mut client = process.connect().await;
    assert_eq!(client.ask(secret_handshake()).await.status, 101);
    // A whole text message of the word that must not be seen, masked with zeros.
    client.send([&[0x81, 0x86, 0, 0, 0, 0], &b"s3cr3t"[..]].concat()).await;
    client.send(CLOSE).await;
    client.rest().await;
    drop(client);
    let mut client = process.connect().await;
    let refused = secret_handshake().replace("http://gate.test", "https://evil.test/?s3cr3t");
    assert_eq!(client.ask(refused).await.status, 403);
    let plain = "GET /?token=s3cr3t HTTP/1.1\r\nHost: gate.test\r\nCookie: sid=s3cr3t\r\nAuthorization: s3cr3t\r\n\r\n";
    assert_eq!(client.ask(plain).await.status, 200);
    process.terminate();
    assert_eq!(process.exit_code().await, Some(0));
    assert_eq!((process.count("websocket ended"), process.count("request"), process.count("refused")), (1, 1, 1));
    for event in &process.seen {
        assert!(!event.to_string().contains("s3cr3t"), "{event}");
    }
}

#[tokio::test]
async fn what_was_asked_for_is_logged() {
    let config = format!("{FRONT}[log]\nquery = true\ncookies = true\nauthorization = true\n");
    let mut process = Process::start(&config).await;
    let mut client = process.connect().await;
    let plain = "GET /?q=1 HTTP/1.1\r\nHost: gate.test\r\nCookie: sid=2\r\nAuthorization: Basic 3\r\n\r\n";
    assert_eq!(client.ask(plain).await.status, 200);
    let span = &process.event("request").await["span"];
    assert_eq!((&span["path"], &span["cookie"]), (&Value::from("/?q=1"), &Value::from("sid=2")));
    assert_eq!(span["authorization"], "Basic 3");
}

#[tokio::test]
async fn report_mode_and_waivers_leave_their_trace() {
    let config = format!("{FRONT}handshake = \"lenient\"\n[route.origin]\nmode = \"report\"\n");
    let mut process = Process::start(&config).await;
    let mut client = process.connect().await;
    let odd = handshake("Origin: https://evil.test\r\n").replace(KEY, "short");
    assert_eq!(client.ask(odd).await.status, 101);
    client.send(CLOSE).await;
    process.event("websocket opened").await;
    let text = process.seen.iter().map(Value::to_string).collect::<Vec<_>>().join("\n");
    assert!(text.contains("would be refused") && text.contains("https://evil.test"), "{text}");
    assert!(text.contains("waive") && text.contains("key-format"), "{text}");
}

#[tokio::test]
async fn the_origin_of_a_draft_stands_in_the_log() {
    let config = format!(
        "{FRONT}handshake = \"lenient\"\nwaive = \"version\"\n\
         [route.origin]\nallow = \"https://app.example.com\"\nabsent = \"refuse\"\n"
    );
    let mut process = Process::start(&config).await;
    let draft = |origin: &str| {
        let fields = format!("Sec-WebSocket-Origin: {origin}\r\n");
        handshake(&fields).replace("Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 8")
    };
    let mut client = process.connect().await;
    assert_eq!(client.ask(draft("https://evil.example")).await.status, 403);
    let refused = process.event("refused").await;
    assert_eq!(
        (&refused["rule"], &refused["span"]["origin"]),
        (&"origin-not-allowed".into(), &"https://evil.example".into())
    );
    assert_eq!(client.ask(draft("https://app.example.com")).await.status, 101);
    assert_eq!(process.event("websocket opened").await["origin"], "https://app.example.com");
}

/// What must not stand in a log as it is: line ends, escape sequences, what changes the order of reading, what has no ink.
const HOSTILE: [&str; 14] = [
    "\u{2028}",
    "\u{2029}",
    "\u{202a}",
    "\u{202e}",
    "\u{2066}",
    "\u{2069}",
    "\u{200e}",
    "\u{200f}",
    "\u{61c}",
    "\u{200b}",
    "\u{feff}",
    "\u{ad}",
    "\u{e000}",
    "\u{e0041}",
];

/// What a client sends, and the text by which its line in the log is known.
fn hostile_requests(evil: &str) -> Vec<(String, &'static str)> {
    let get = |path: &str, fields: &str| format!("GET {path} HTTP/1.1\r\nHost: gate.test\r\n{fields}\r\n");
    vec![
        (format!("GET / HTTP/1.1\r\nHost: h{evil}x\r\n\r\n"), "host-malformed"),
        (handshake(&format!("Origin: https://o{evil}x\r\n")), "origin-malformed"),
        (get(&format!("/p{evil}x"), ""), "/p"),
        (get(&format!("/?q{evil}x"), ""), "?q"),
        (get("/c", &format!("Cookie: c{evil}x\r\n")), "/c"),
        (get("/a", &format!("Authorization: a{evil}x\r\n")), "/a"),
    ]
}

fn hostile_front(upstream: &str) -> String {
    let front = FRONT.replace("builtin:echo", upstream);
    format!("{front}handshake = \"lenient\"\n[log]\nquery = true\ncookies = true\nauthorization = true\n")
}

/// A WebSocket whose subprotocol and Close reasons are hostile, on both sides.
async fn hostile_websocket(mut client: Client<TcpStream>, upstream: &mut Upstream, evil: &str) {
    let subprotocol = format!("Sec-WebSocket-Protocol: s{evil}x\r\n");
    client.send(handshake(&subprotocol)).await;
    let mut peer = upstream.accept().await;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        within("head", peer.stream.read_buf(&mut head)).await.unwrap();
    }
    peer.send(accepted(&subprotocol)).await;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        assert!(within("answer", client.stream.read_buf(&mut answer)).await.unwrap() > 0);
    }
    let reason = [&[0x03, 0xe8][..], format!("r{evil}\r\n2026 INFO forged").as_bytes()].concat();
    let length = u8::try_from(reason.len()).unwrap();
    client.send([&[0x88, 0x80 | length, 0, 0, 0, 0], &reason[..]].concat()).await;
    peer.send([&[0x88, length], &reason[..]].concat()).await;
    client.rest().await;
}

fn strings(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::String(text) => found.push(text.clone()),
        Value::Array(values) => values.iter().for_each(|value| strings(value, found)),
        Value::Object(fields) => fields.values().for_each(|value| strings(value, found)),
        _ => {}
    }
}

#[tokio::test]
async fn text_from_outside_is_escaped_in_json() {
    let mut upstream = Upstream::start().await;
    let answered = Process::start(&hostile_front("builtin:echo")).await;
    let relayed = Process::start(&hostile_front(&upstream.url)).await;
    let [mut answered, mut relayed] = [answered, relayed];
    let mut expected = 0;
    for evil in HOSTILE {
        for (request, _) in hostile_requests(evil) {
            answered.connect().await.ask(&request).await;
            expected += 1;
        }
        hostile_websocket(relayed.connect().await, &mut upstream, evil).await;
        let ended = relayed.event("websocket ended").await;
        let escape = evil.escape_default().to_string();
        for (key, text) in [
            ("subprotocol", format!("s{escape}x")),
            ("client_reason", format!("r{escape}\\r\\n2026 INFO forged")),
            ("upstream_reason", format!("r{escape}\\r\\n2026 INFO forged")),
        ] {
            assert_eq!(ended[key], text, "{ended}");
        }
    }
    for process in [&mut answered, &mut relayed] {
        process.terminate();
        assert_eq!(process.exit_code().await, Some(0));
        for event in &process.seen {
            let mut texts = Vec::new();
            strings(event, &mut texts);
            assert!(texts.iter().all(|text| text.chars().all(is_printable)), "{event}");
        }
    }
    let escapes = |event: &&Value| event["span"].to_string().contains("\\\\u{");
    assert_eq!(answered.seen.iter().filter(escapes).count(), expected);
}

#[tokio::test]
async fn text_from_outside_is_escaped_in_pretty_lines() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("proxy.toml"), hostile_front("builtin:echo")).unwrap();
    let mut child =
        shell("exec \"$0\" --log-format pretty", folder.path(), "info").stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut next = async || within("line", lines.next_line()).await.unwrap().unwrap();
    let address = loop {
        let line = next().await;
        if let Some((_, address)) =
            line.split_once("listening listener=").and_then(|(_, rest)| rest.split_once("address="))
        {
            break address.to_owned();
        }
    };
    for evil in HOSTILE {
        for (request, known_by) in hostile_requests(evil) {
            let mut client = Client::new(TcpStream::connect(&address).await.unwrap());
            client.ask(&request).await;
            let line = loop {
                let line = next().await;
                assert!(line.starts_with("20") && line.chars().all(is_printable), "{line:?}");
                if line.contains(known_by) {
                    break line;
                }
            };
            assert!(line.contains(&format!("{}x", evil.escape_default())), "{line}");
        }
    }
}

/// A ClientHello that carries this name in SNI, as no library of ours would send it.
fn client_hello(name: &str) -> Vec<u8> {
    let sized = |bytes: &[u8]| [&u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat();
    let extension = |kind: u16, body: &[u8]| [&kind.to_be_bytes()[..], &sized(body)].concat();
    let server_name = sized(&[&[0][..], &sized(name.as_bytes())].concat());
    let extensions = [
        extension(0, &server_name),
        extension(10, &sized(&[0, 29])),
        extension(13, &sized(&[4, 3, 8, 4])),
        extension(43, &[2, 3, 4]),
        extension(51, &sized(&[&[0, 29][..], &sized(&[9; 32])].concat())),
    ]
    .concat();
    let hello = [&[3, 3][..], &[7; 32], &[0], &sized(&[0x13, 1]), &[1, 0], &sized(&extensions)].concat();
    let length = u32::try_from(hello.len()).unwrap().to_be_bytes();
    let message = [&[1][..], &length[1..], &hello].concat();
    [&[22, 3, 1][..], &sized(&message)].concat()
}

#[tokio::test]
async fn libraries_log_nothing_above_debug_unless_they_are_named() {
    let config = format!("{FRONT}[upstream.gone]\nurl = \"http://127.0.0.1:1\"\n");
    let config = config.replace("listen = \"127.0.0.1:0\"\n", &format!("listen = \"127.0.0.1:0\"\n{DEVELOPMENT}"));
    for (filter, level) in [("info", None), ("debug", Some("DEBUG")), ("info,rustls=warn", Some("WARN"))] {
        let mut process = Process::start_with(&config, filter, "exec \"$0\" --log-format json").await;
        for name in ["127.0.0.1", "::1", "not_a host\u{202e}", ""] {
            let mut client = process.connect().await;
            client.send(client_hello(name)).await;
            // One byte of an answer, or the end: then the hello has been read.
            let mut byte = [0];
            let _seen = within("answer", client.stream.read(&mut byte)).await;
        }
        process.terminate();
        assert_eq!(process.exit_code().await, Some(0));
        let about_sni = |event: &&Value| event["message"].as_str().unwrap().contains("SNI");
        let levels: Vec<&Value> = process.seen.iter().filter(about_sni).map(|event| &event["level"]).collect();
        assert_eq!(levels.first().copied(), level.map(Value::from).as_ref(), "{filter}: {:#?}", process.seen);
        for event in &process.seen {
            let ours = event["target"].as_str().unwrap().starts_with("switchgate");
            let quiet = event["level"] == "DEBUG" || event["level"] == "TRACE";
            assert!(ours || quiet || filter.contains("rustls"), "{filter}: {event}");
            let text = event.to_string();
            assert!(!text.contains("log.file") && !text.contains(".rs\"") && !text.contains("registry/src"), "{event}");
            if event["message"] == "TLS handshake failed" {
                assert!(event["client"].is_string() && event["level"] == "INFO", "{event}");
            }
        }
    }
}

/// How many of these events were warnings, how many information, and how many the warnings say they stand for.
fn levels(process: &Process, message: &str) -> (usize, usize, usize) {
    let of = |level: &str| process.all(message).into_iter().filter(|event| event["level"] == level).count();
    let suppressed = process.all(message).iter().filter_map(|event| event["suppressed"].as_u64()).sum::<u64>();
    (of("WARN"), of("INFO"), usize::try_from(suppressed).unwrap())
}

#[tokio::test]
async fn a_warning_that_a_client_can_cause_at_will_comes_once_and_its_requests_keep_their_events() {
    const TIMES: usize = 20;
    let route = |name: &str, upstream: &str| {
        format!("[[route]]\nname = \"{name}\"\npath = \"/{name}\"\nupstream = \"{upstream}\"\n")
    };
    let config = format!(
        "[[listener]]\nlisten = \"127.0.0.1:0\"\n[upstream.u]\nurl = \"builtin:echo\"\n\
         [upstream.gone]\nurl = \"http://127.0.0.1:1\"\n{}{}origin = {{ mode = \"report\" }}\n{}origin = {{ mode = \"report\" }}\n",
        route("gone", "gone"),
        route("chat", "u"),
        route("other", "u"),
    );
    let mut process = Process::start(&config).await;
    for _ in 0..TIMES {
        for path in ["/chat", "/other"] {
            let request = handshake("Origin: https://evil.test\r\n").replace("/chat", path);
            assert_eq!(process.connect().await.ask(request).await.status, 101);
        }
        let mut client = process.connect().await;
        assert_eq!(client.ask("GET /gone HTTP/1.1\r\nHost: a\r\n\r\n").await.status, 502);
    }
    process.terminate();
    assert_eq!(process.exit_code().await, Some(0));
    // Within the ten seconds that a throttle lasts, and not many more; each route has its own.
    for (message, kinds) in [("origin would be refused (mode = report)", 2), ("upstream failed", 1)] {
        let (warned, informed, suppressed) = levels(&process, message);
        assert_eq!(warned + informed, kinds * TIMES, "{message}");
        assert!((kinds..=2 * kinds).contains(&warned), "{message}: {warned} warnings");
        assert!(suppressed <= informed, "{message}: {suppressed} of {informed}");
    }
    assert!(process.all("upstream failed").iter().all(|event| event["span"]["client"].is_string()));
}
