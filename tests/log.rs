//! What the log says, and what it keeps to itself.

use serde_json::Value;

use crate::support::{KEY, Upstream, handshake, process::Process};

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
