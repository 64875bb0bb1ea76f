//! Interim responses (RFC 9110 section 15.2): forwarded to clients that may have them, and bounded.

use std::{future::poll_fn, time::Instant};

use http::{HeaderName, HeaderValue, Response, StatusCode};
use serde_json::Value;
use switchgate::protocol::websocket::key::accept_value;
use tokio::{io::AsyncWriteExt, net::TcpListener, sync::mpsc, task::yield_now};

use crate::support::{
    ACCEPT, Client, Proxy, Upstream, accepted,
    doors::{Door, Gate, http2_request},
    handshake,
    http2_upstream::{Http2Upstream, answer},
    process::Process,
    within,
};

const GET: &str = "GET /x HTTP/1.1\r\nHost: gate.test\r\n\r\n";

/// Status and fields of an interim response, and what the client gets of it, if anything.
struct Case {
    status: u16,
    fields: &'static [(&'static str, &'static str)],
    forwarded: Option<&'static [(&'static str, &'static str)]>,
}

const LINK: (&str, &str) = ("link", "</a.css>; rel=preload; as=style");

const CASES: [Case; 7] = [
    Case { status: 103, fields: &[LINK], forwarded: Some(&[LINK]) },
    Case {
        status: 103,
        fields: &[LINK, ("link", "</b.js>; rel=preload")],
        forwarded: Some(&[LINK, ("link", "</b.js>; rel=preload")]),
    },
    Case { status: 102, fields: &[], forwarded: Some(&[]) },
    Case { status: 104, fields: &[("upload-offset", "100")], forwarded: Some(&[("upload-offset", "100")]) },
    Case { status: 199, fields: &[("x-own", "1")], forwarded: Some(&[("x-own", "1")]) },
    Case { status: 100, fields: &[("x-own", "1")], forwarded: None },
    Case { status: 103, fields: &[("content-length", "5"), ("trailer", "x"), LINK], forwarded: Some(&[LINK]) },
];

/// The fields of a head of HTTP/1.1, with names in lower case.
fn fields(head: &str) -> Vec<(String, String)> {
    let lines = head.lines().skip(1).filter_map(|line| line.split_once(": "));
    lines.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect()
}

/// Status and fields of each response head, the final one last.
type Heads = Vec<(u16, Vec<(String, String)>)>;

/// What one request by this door gets.
async fn heads(gate: &Gate, door: Door) -> Heads {
    let mut heads = Vec::new();
    if door == Door::Http2 {
        let mut http2 = gate.http2().await;
        let (mut response, _) = http2.requests.send_request(http2_request(GET), true).unwrap();
        let mut take = |response: &Response<()>| {
            let fields = response.headers().iter();
            let fields = fields.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()));
            heads.push((response.status().as_u16(), fields.collect()));
        };
        while let Some(interim) = within("head", poll_fn(|cx| response.poll_informational(cx))).await {
            take(&interim.unwrap());
        }
        take(&within("response", response).await.unwrap().map(drop));
        return heads;
    }
    let mut client: Client<Box<dyn Stream>> = match door {
        Door::Clear => Client::new(Box::new(gate.proxy.connect().await.stream)),
        _ => Client::new(Box::new(gate.secure(&[]).await)),
    };
    client.send(GET).await;
    loop {
        let head = client.head().await;
        let status: u16 = head[9..12].parse().unwrap();
        assert!(head.starts_with("HTTP/1.1 "), "{head}");
        heads.push((status, fields(&head)));
        if status >= 200 {
            return heads;
        }
    }
}

trait Stream: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send {}
impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send> Stream for T {}

/// What the client gets of all cases.
fn expected() -> Heads {
    let own = |fields: &[(&str, &str)]| fields.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    CASES.iter().filter_map(|case| Some((case.status, own(case.forwarded?)))).collect()
}

fn check(mut heads: Heads, what: &str) {
    let (status, _) = heads.pop().unwrap();
    assert_eq!(status, 200, "{what}");
    assert_eq!(heads, expected(), "{what}");
}

#[tokio::test]
async fn interim_responses_of_http1_reach_every_client() {
    let mut upstream = Upstream::start().await;
    let gate = Gate::before(&upstream.url, "", "").await;
    let head = |case: &Case| {
        let fields: String = case.fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let hops = if case.status == 103 { "Connection: x-hop, close\r\nX-Hop: 1\r\nKeep-Alive: 5\r\n" } else { "" };
        format!("HTTP/1.1 {} Any\r\n{hops}{fields}\r\n", case.status)
    };
    let all: String = CASES.iter().map(head).collect::<String>() + "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    for door in Door::ALL {
        for piece in [1, 50, 100_000] {
            let answers = async {
                let mut peer = upstream.accept().await;
                peer.head().await;
                peer.stream.set_nodelay(true).unwrap();
                for part in all.as_bytes().chunks(piece) {
                    peer.send(part).await;
                    yield_now().await;
                }
                // A connection of its own for each.
                peer.stream.shutdown().await.unwrap();
            };
            let (heads, ()) = tokio::join!(heads(&gate, door), answers);
            check(heads, &format!("{door:?} in pieces of {piece}"));
        }
    }
}

#[tokio::test]
async fn interim_responses_of_http2_reach_every_client() {
    let mut upstream = Http2Upstream::start(|_| {}).await;
    let gate = Gate::to(&format!("url = \"http://127.0.0.1:{}\"\nprotocol = \"h2\"", upstream.port), "", "").await;
    for door in Door::ALL {
        for at_once in [true, false] {
            let answers = async {
                let (_request, mut respond) = upstream.accept().await;
                for case in &CASES {
                    let mut interim = Response::new(());
                    *interim.status_mut() = StatusCode::from_u16(case.status).unwrap();
                    // The h2 crate takes a length here for that of the body to come.
                    for (name, value) in case.fields.iter().filter(|(name, _)| *name != "content-length") {
                        interim.headers_mut().append(HeaderName::from_static(name), HeaderValue::from_static(value));
                    }
                    respond.send_informational(interim).unwrap();
                    for _ in 0..if at_once { 0 } else { 20 } {
                        yield_now().await;
                    }
                }
                answer(&mut respond, 200, "ok");
            };
            let (heads, ()) = tokio::join!(heads(&gate, door), answers);
            check(heads, &format!("{door:?} at once: {at_once}"));
        }
    }
}

#[tokio::test]
async fn a_client_gets_an_interim_response_at_once() {
    let mut upstream = Upstream::start().await;
    let gate = Gate::to(&format!("url = \"{}\"", upstream.url), "", "").await;
    let mut client = gate.proxy.connect().await;
    client.send(GET).await;
    let mut peer = upstream.accept().await;
    peer.head().await;
    let mut http2 = gate.http2().await;
    let (mut response, _) = http2.requests.send_request(http2_request(GET), true).unwrap();
    let mut other = upstream.accept().await;
    other.head().await;
    for number in 0..3 {
        let hint = format!("HTTP/1.1 103 Early Hints\r\nLink: {number}\r\n\r\n");
        peer.send(&hint).await;
        assert_eq!(client.head().await, hint);
        other.send(&hint).await;
        let interim = within("hint", poll_fn(|cx| response.poll_informational(cx))).await.unwrap().unwrap();
        assert_eq!(interim.headers()["link"], number.to_string());
    }
    peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    assert_eq!(client.answer().await.text(), "ok");
}

#[tokio::test]
async fn a_client_of_http_1_0_and_an_opening_handshake_get_none() {
    let mut upstream = Upstream::start().await;
    let gate = Gate::before(&upstream.url, "", "").await;
    let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n";
    let mut client = gate.proxy.connect().await;
    client.send("GET /x HTTP/1.0\r\nHost: gate.test\r\n\r\n").await;
    let mut peer = upstream.accept().await;
    peer.head().await;
    peer.send(format!("{hints}HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")).await;
    let all = String::from_utf8(client.rest().await).unwrap();
    assert!(all.starts_with("HTTP/1.0 200 ") && all.ends_with("ok"), "{all}");
    for door in Door::ALL {
        for (response, statuses) in
            [(accepted(""), [101, 200]), ("HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n".into(), [403, 403])]
        {
            let opening = handshake("");
            let opens = gate.ask(door, &opening);
            let answers = async {
                let mut peer = upstream.accept().await;
                let head = peer.head().await;
                // Over HTTP/2 the key is the gate's own.
                let key = head.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).unwrap();
                peer.send(format!("{hints}{}", response.replace(ACCEPT, &accept_value(key)))).await;
                peer
            };
            let (opened, _peer) = tokio::join!(opens, answers);
            assert!(statuses.contains(&opened.status), "{door:?}: {opened:?}");
        }
    }
}

#[tokio::test]
async fn a_request_is_not_sent_again_after_an_interim_response() {
    let mut upstream = Upstream::start().await;
    let proxy = Proxy::start(&format!(
        "workers = 1\n[[listener]]\nlisten = \"127.0.0.1:0\"\n[[route]]\nupstream = \"u\"\n[upstream.u]\nurl = \"{}\"\n",
        upstream.url
    ))
    .await;
    let mut client = proxy.connect().await;
    client.send(GET).await;
    let mut peer = upstream.accept().await;
    peer.head().await;
    peer.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(client.answer().await.status, 200);
    // On the connection that is used again.
    client.send(GET).await;
    peer.head().await;
    peer.send("HTTP/1.1 103 Early Hints\r\n\r\n").await;
    assert!(client.head().await.starts_with("HTTP/1.1 103 "));
    drop(peer);
    assert_eq!(client.answer().await.status, 502);
    assert!(!upstream.was_dialled());

    let mut upstream = Http2Upstream::start(|_| {}).await;
    let gate = Gate::to(&format!("url = \"http://127.0.0.1:{}\"\nprotocol = \"h2\"", upstream.port), "", "").await;
    let mut client = gate.proxy.connect().await;
    client.send(GET).await;
    let (_request, mut respond) = upstream.accept().await;
    respond.send_informational(Response::builder().status(103).body(()).unwrap()).unwrap();
    assert!(client.head().await.starts_with("HTTP/1.1 103 "));
    respond.send_reset(h2::Reason::REFUSED_STREAM);
    assert_eq!(client.answer().await.status, 502);
    assert_eq!(upstream.connections(), 1);
}

/// An upstream that sends interim responses without end to `/endless`, and `ok` to others; it counts those that ended.
async fn hostile(one: &'static str) -> (String, mpsc::Receiver<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (ended, ends) = mpsc::channel(16);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let ended = ended.clone();
            tokio::spawn(async move {
                let mut client = Client::new(stream);
                while let Some(head) = client.head_or_end().await {
                    if !head.starts_with("GET /endless ") {
                        client.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
                        continue;
                    }
                    let many = one.repeat(100_000 / one.len() + 1);
                    let mut sent = 0;
                    while client.stream.write_all(many.as_bytes()).await.is_ok() {
                        sent += many.len();
                    }
                    ended.send(sent).await.unwrap();
                    return;
                }
            });
        }
    });
    (url, ends)
}

#[tokio::test]
async fn endless_interim_responses_of_http1_are_cut_and_hold_up_nobody() {
    let field = "x".repeat(20_000);
    let large = format!("HTTP/1.1 103 Early Hints\r\nLink: {field}\r\n\r\n").leak();
    for one in ["HTTP/1.1 103 Early Hints\r\n\r\n", "HTTP/1.1 100 Continue\r\n\r\n", large] {
        let (url, mut ends) = hostile(one).await;
        let mut process = Process::start(&format!(
            "workers = 1\n[[listener]]\nlisten = \"127.0.0.1:0\"\n[[route]]\nupstream = \"u\"\n[upstream.u]\nurl = \"{url}\"\n"
        ))
        .await;
        let opening = handshake("").replace("/chat", "/endless");
        for request in ["GET /endless HTTP/1.1\r\nHost: gate.test\r\n\r\n", &opening] {
            for _ in 0..5 {
                let mut client = process.connect().await;
                client.send(request).await;
                let mut honest = process.connect().await;
                let begun = Instant::now();
                assert_eq!(honest.ask(GET).await.text(), "ok");
                let waited = begun.elapsed();
                assert!(waited.as_secs() < 1, "{waited:?}");
                let mut forwarded = 0;
                let last = loop {
                    let head = client.head().await;
                    if !head.starts_with("HTTP/1.1 103 ") {
                        break head;
                    }
                    forwarded += 1;
                };
                assert!(last.starts_with("HTTP/1.1 502 "), "{last}");
                assert!(forwarded <= 64, "{forwarded}");
                assert!(forwarded == 0 || request.len() < 100, "a handshake gets none");
                let failed = process.event("upstream failed").await;
                assert_eq!(failed["rule"], Value::from("upstream-interim"), "{failed}");
                let sent = within("end of the upstream connection", ends.recv()).await.unwrap();
                assert!(sent < 20_000_000, "{sent} bytes");
            }
        }
    }
}

#[tokio::test]
async fn endless_interim_responses_of_http2_are_cut() {
    let mut upstream = Http2Upstream::with_websockets().await;
    let mut process = Process::start(&format!(
        "workers = 1\n[[listener]]\nlisten = \"127.0.0.1:0\"\n[[route]]\nupstream = \"u\"\n\
         [upstream.u]\nurl = \"http://127.0.0.1:{}\"\nprotocol = \"h2\"\n",
        upstream.port
    ))
    .await;
    for (number, request) in [GET.to_owned(), handshake("")].into_iter().enumerate() {
        let mut client = process.connect().await;
        client.send(&request).await;
        let (_request, mut respond) = upstream.accept().await;
        let floods = async {
            // Until the gate has ended the connection.
            loop {
                let interim = Response::builder().status(103).header("link", "</a>").body(()).unwrap();
                let _ended_below = respond.send_informational(interim);
                tokio::select! {
                    biased;
                    _end = poll_fn(|cx| respond.poll_reset(cx)) => return,
                    () = yield_now() => {}
                }
            }
        };
        let answers = async {
            loop {
                let head = client.head().await;
                if !head.starts_with("HTTP/1.1 103 ") {
                    return head;
                }
            }
        };
        let (last, ()) = within("end of both", Box::pin(async { tokio::join!(answers, floods) })).await;
        assert!(last.starts_with("HTTP/1.1 502 "), "{last}");
        let failed = process.event("upstream failed").await;
        assert_eq!(failed["rule"], Value::from("upstream-interim"), "{failed}");
        assert_eq!(upstream.connections(), number + 1, "a further request has a connection of its own");
    }
}

/// An upstream of HTTP/2 that sends the smallest interim responses there are, as fast as it can. Its port, and how much
/// it sent to each connection before that ended.
async fn raw_flood() -> (u16, mpsc::Receiver<usize>) {
    const HINT: [u8; 14] = [0, 0, 5, 1, 4, 0, 0, 0, 1, 8, 3, b'1', b'0', b'3'];
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (ended, ends) = mpsc::channel(16);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let ended = ended.clone();
            tokio::spawn(async move {
                let mut client = Client::new(stream);
                client.take(24).await;
                client.send([0, 0, 0, 4, 0, 0, 0, 0, 0]).await;
                loop {
                    let head = client.take(9).await;
                    let payload = client.take(u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize).await;
                    match (head[3], head[4]) {
                        (4, 0) => client.send([0, 0, 0, 4, 1, 0, 0, 0, 0]).await,
                        (6, 0) => client.send([&[0, 0, 8, 6, 1, 0, 0, 0, 0][..], &payload].concat()).await,
                        (1, _) => break,
                        _ => {}
                    }
                }
                let many = HINT.repeat(5000);
                let mut sent = 0;
                while client.stream.write_all(&many).await.is_ok() {
                    sent += many.len();
                }
                ended.send(sent).await.unwrap();
            });
        }
    });
    (port, ends)
}

#[tokio::test]
async fn a_flood_of_interim_responses_over_http2_holds_up_nobody() {
    let (port, mut ends) = raw_flood().await;
    let mut process = Process::start(&format!(
        "workers = 1\n[[listener]]\nlisten = \"127.0.0.1:0\"\n[[route]]\npath = \"/endless\"\nupstream = \"u\"\n\
         [[route]]\nupstream = \"honest\"\n[upstream.honest]\nurl = \"builtin:echo\"\n\
         [upstream.u]\nurl = \"http://127.0.0.1:{port}\"\nprotocol = \"h2\"\n",
    ))
    .await;
    for _ in 0..5 {
        let mut client = process.connect().await;
        client.send("GET /endless HTTP/1.1\r\nHost: gate.test\r\n\r\n").await;
        let mut honest = process.connect().await;
        let begun = Instant::now();
        assert_eq!(honest.ask(GET).await.status, 200);
        let waited = begun.elapsed();
        assert!(waited.as_secs() < 1, "{waited:?}");
        let sent = within("end of the upstream connection", ends.recv()).await.unwrap();
        assert!(sent < 20_000_000, "{sent} bytes");
        let failed = process.event("upstream failed").await;
        assert_eq!(failed["rule"], Value::from("upstream-interim"), "{failed}");
    }
}
