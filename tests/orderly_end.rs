//! How an HTTP/1.1 connection ends after a request that could have switched protocols and did not.

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
};

use crate::support::{
    Client,
    doors::{Door, Gate},
    handshake, within,
};

const REFUSED: &str = "HTTP/1.1 401 Unauthorized\r\nContent-Length: 12\r\n\r\nnot for you\n";
const SERVED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";

/// An upstream that gives every request the same response. Its URL.
async fn always(response: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut client = Client::new(stream);
                while client.head_or_end().await.is_some() {
                    client.send(response).await;
                }
            });
        }
    });
    url
}

/// An upstream that responds to one request on each connection, and hangs up. Its URL.
async fn once(response: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut client = Client::new(stream);
                client.head().await;
                client.send(response).await;
                client.stream.shutdown().await.unwrap();
                // Unread bytes would make a reset of the close.
                client.rest().await;
            });
        }
    });
    url
}

/// A connection by one of the doors of HTTP/1.1.
async fn open(gate: &Gate, door: Door) -> Client<Box<dyn Stream>> {
    match door {
        Door::Clear => Client::new(Box::new(gate.proxy.connect().await.stream)),
        _ => Client::new(Box::new(gate.secure(&[]).await)),
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// Everything up to a clean end: a reset is an error, and so is TLS without close_notify.
async fn to_the_end(client: &mut Client<Box<dyn Stream>>) -> Result<String, (std::io::Error, String)> {
    let mut all = Vec::new();
    let ended = within("end of the connection", client.stream.read_to_end(&mut all)).await;
    let text = String::from_utf8_lossy(&all).into_owned();
    match ended {
        Ok(_) => Ok(text),
        Err(error) => Err((error, text)),
    }
}

struct Case {
    name: &'static str,
    request: String,
    /// Further keys of the route.
    route: &'static str,
    response: &'static str,
    status: &'static str,
    /// How the body ends.
    end: &'static str,
    /// Whether the gate itself closes behind this response.
    closes: bool,
}

fn cases() -> Vec<Case> {
    let websocket = handshake("");
    let evil = handshake("Origin: https://evil.example\r\n");
    let case = |name, request: &str, status| Case {
        name,
        request: request.to_owned(),
        route: "",
        response: SERVED,
        status,
        end: "\n",
        closes: false,
    };
    let strict = "origin = { allow = [\"https://good.example\"] }";
    let h2c = "GET / HTTP/1.1\r\nHost: gate.test\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\
               HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n";
    let refused = Case { response: REFUSED, end: "not for you\n", ..case("401 of the upstream", &websocket, "401") };
    let served = Case { end: "\r\n0\r\n\r\n", ..case("200 of the upstream", &websocket, "200") };
    vec![
        case("no key", &websocket.replace("Sec-WebSocket-Key", "X-Key"), "400"),
        case("another version", &websocket.replace("Version: 13", "Version: 7"), "426"),
        case("another method", &websocket.replace("GET", "POST"), "405"),
        Case { route: strict, ..case("another origin", &evil, "403") },
        refused,
        served,
        Case { end: "\r\n0\r\n\r\n", ..case("h2c offer", h2c, "200") },
        Case {
            route: "other_upgrades = \"refuse\"",
            ..case("another protocol", &websocket.replace("Upgrade: websocket", "Upgrade: irc"), "400")
        },
        Case { closes: true, ..case("CONNECT", "CONNECT gate.test:80 HTTP/1.1\r\nHost: gate.test:80\r\n\r\n", "405") },
    ]
}

#[tokio::test]
async fn a_refused_upgrade_ends_with_the_whole_response_and_a_clean_close() {
    let mut wrong = Vec::new();
    for case in cases() {
        let gate = Gate::before(&always(case.response).await, case.route, "").await;
        let closing = case.request.replace("Connection: Upgrade", "Connection: close, Upgrade");
        for door in [Door::Clear, Door::Tls] {
            // Without more behind it, and with more than is held early and than anybody reads.
            for behind in [0, 100_000] {
                let mut client = open(&gate, door).await;
                client.send([closing.as_bytes(), &vec![b'x'; behind]].concat()).await;
                let ended = to_the_end(&mut client).await;
                let status = format!("HTTP/1.1 {} ", case.status);
                let whole = |text: &String| text.starts_with(&status) && text.ends_with(case.end);
                if !ended.as_ref().is_ok_and(whole) {
                    wrong.push(format!("{} {door:?} with {behind} bytes behind it: {ended:?}", case.name));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn a_refused_upgrade_leaves_the_connection_to_further_requests() {
    for case in cases() {
        let gate = Gate::before(&always(case.response).await, case.route, "").await;
        for door in [Door::Clear, Door::Tls] {
            let mut client = open(&gate, door).await;
            let plain = "GET / HTTP/1.1\r\nHost: gate.test\r\nConnection: close\r\n\r\n";
            client.send(case.request.repeat(2) + plain).await;
            let all = to_the_end(&mut client).await;
            let all = all.unwrap_or_else(|(error, text)| panic!("{} {door:?}: {error} after {text}", case.name));
            let heads = all.matches("HTTP/1.1 ").count();
            assert_eq!(heads, if case.closes { 1 } else { 3 }, "{} {door:?}: {all}", case.name);
        }
    }
}

#[tokio::test]
async fn garbage_behind_a_refused_upgrade_is_refused_with_a_clean_close_too() {
    let gate = Gate::before(&always(REFUSED).await, "", "").await;
    for door in [Door::Clear, Door::Tls] {
        let mut client = open(&gate, door).await;
        client.send([handshake("").as_bytes(), &vec![0x82; 100_000]].concat()).await;
        let all =
            to_the_end(&mut client).await.unwrap_or_else(|(error, text)| panic!("{door:?}: {error} after {text}"));
        assert!(all.starts_with("HTTP/1.1 401 "), "{all}");
        assert!(all.contains("not for you\nHTTP/1.1 4"), "{all}");
        assert!(all.ends_with('\n'), "{all}");
    }
}

#[tokio::test]
async fn a_crowd_that_is_turned_away_gets_its_503_and_a_clean_close() {
    let gate = Gate::before(&always(REFUSED).await, "limits = { handshakes_per_second = 1 }", "").await;
    for door in [Door::Clear, Door::Tls] {
        let turned_away = async {
            loop {
                let mut client = open(&gate, door).await;
                client.send([handshake("").as_bytes(), &vec![b'x'; 100_000]].concat()).await;
                let all =
                    to_the_end(&mut client).await.unwrap_or_else(|(error, text)| panic!("{door:?}: {error}: {text}"));
                if all.starts_with("HTTP/1.1 503 ") {
                    return all;
                }
            }
        };
        let all = within("503", turned_away).await;
        assert!(all.contains("\r\nConnection: close\r\n") && all.ends_with('\n'), "{all}");
    }
}

#[tokio::test]
async fn a_long_response_to_an_unread_upload_with_an_upgrade_offer_arrives_whole() {
    let length = 8_000_000;
    // The upstream hangs up behind it, so that nobody takes the rest of the upload.
    let long =
        format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{}", "y".repeat(length));
    let gate = Gate::before(&once(long.leak()).await, "", "").await;
    for door in [Door::Clear, Door::Tls] {
        for offer in ["", "Connection: Upgrade\r\nUpgrade: h2c\r\n"] {
            let mut client = open(&gate, door).await;
            let upload = "x".repeat(100_000);
            let head = format!("POST / HTTP/1.1\r\nHost: gate.test\r\n{offer}Content-Length: 1000000\r\n\r\n{upload}");
            client.send(head).await;
            let all = to_the_end(&mut client).await;
            let all = all.unwrap_or_else(|(error, text)| panic!("{door:?} {offer}: {error} after {}", text.len()));
            let (head, body) = all.split_once("\r\n\r\n").unwrap();
            assert_eq!((&head[..12], body.len()), ("HTTP/1.1 200", length), "{door:?} {offer}");
        }
    }
}
