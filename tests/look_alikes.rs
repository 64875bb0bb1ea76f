//! Fields that CGI-style backends cannot tell from those of the gateway, over HTTP/1.1 in clear, over TLS and over HTTP/2.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use tokio::net::TcpStream;

use crate::support::{
    Client, Upstream,
    doors::{Door, Gate, http2_request},
    handshake,
};

const TRUSTED: &str = "trusted_proxies = \"127.0.0.0/8\"";

/// Of what the gateway sets or removes.
const DROPPED: [&str; 24] = [
    "Client.Cert.Subject",
    "Client_Cert",
    "client-cert_san",
    "CLIENT!CERT!FINGERPRINT",
    "Client.Cert.Chain",
    "X.Forwarded.For",
    "X_Forwarded_For",
    "x-forwarded_proto",
    "X~Forwarded~Host",
    "X'Forwarded'Client'Cert",
    "X|Forwarded-Port",
    "X!Real!IP",
    "x_real-ip",
    "X*Real*IP",
    "Keep_Alive",
    "Proxy.Connection",
    "Proxy_Authorization",
    "HTTP2_Settings",
    "Forwarded_",
    ".Via",
    "^X-Forwarded-For",
    "X-Real-IP`",
    "Proxy",
    "Proxy_",
];

/// Of what decides where a message ends, or what an opening handshake is.
const REFUSED: [&str; 16] = [
    "Transfer_Encoding",
    "Transfer.Encoding",
    "transfer|encoding",
    "Content_Length",
    "Content.Length",
    "CONTENT#LENGTH",
    "Sec_WebSocket_Key",
    "Sec.WebSocket.Version",
    "Sec-WebSocket_Protocol",
    "Sec_WebSocket-Extensions",
    "sec+websocket+origin",
    "Origin_",
    "_Origin",
    "Host.",
    "Upgrade!",
    "Connection~",
];

fn plain(fields: &str) -> String {
    format!("GET /chat HTTP/1.1\r\nHost: gate.test\r\n{fields}\r\n")
}

/// Sends a request through a door, and gives back the head that the upstream got; the client goes unanswered.
async fn head_upstream(gate: &Gate, upstream: &mut Upstream, door: Door, text: &str) -> String {
    // Its connection stays open until the head has arrived: a client that is gone needs no upstream.
    let asked = async {
        match door {
            Door::Clear => drop(gate.proxy.connect().await.ask(text).await),
            Door::Tls => drop(Client::new(gate.secure(&[]).await).ask(text).await),
            Door::Http2 => drop(gate.http2().await.open(http2_request(text)).await),
        }
    };
    tokio::select! {
        head = async { upstream.accept().await.head().await } => head,
        () = asked => panic!("the gate answered by itself"),
    }
}

#[tokio::test]
async fn look_alikes_of_what_the_gateway_sets_or_removes_are_dropped() {
    let fields: String = DROPPED.iter().map(|name| format!("{name}: forged\r\n")).collect();
    let fields = format!("{fields}X.Own_Field: stays\r\n");
    for top in ["", TRUSTED, &format!("{TRUSTED}\ntrusted_fields = \"forwarded\"")] {
        let mut upstream = Upstream::start().await;
        let gate = Gate::with(&upstream.url, top, "", "").await;
        for door in Door::ALL {
            for text in [plain(&fields), handshake(&fields)] {
                let head = head_upstream(&gate, &mut upstream, door, &text).await.to_lowercase();
                assert!(!head.contains("forged"), "{door:?} {top}: {head}");
                assert!(head.contains("\r\nx.own_field: stays\r\n"), "{door:?} {top}: {head}");
                assert!(head.contains("\r\nx-forwarded-for: 127.0.0.1\r\n"), "{door:?} {top}: {head}");
            }
        }
    }
}

#[tokio::test]
async fn look_alikes_of_framing_and_of_the_handshake_are_refused() {
    let mut upstream = Upstream::start().await;
    for top in ["", TRUSTED] {
        let gate = Gate::with(&upstream.url, top, "", "").await;
        for name in REFUSED {
            for door in Door::ALL {
                let field = format!("{name}: 0\r\n");
                for text in [plain(&field), handshake(&field)] {
                    let answer = gate.ask(door, &text).await;
                    assert_eq!(answer.status, 400, "{door:?} {text}");
                    assert!(answer.text().contains("RFC 3875"), "{}", answer.text());
                }
            }
        }
    }
    assert!(!upstream.was_dialled());
}

/// Everything the upstream gets until the end of a chunked body.
async fn message_upstream(mut peer: Client<TcpStream>) -> String {
    let mut text = peer.head().await;
    while !text.ends_with("0\r\n\r\n") && !text.contains("x-checksum: kept\r\n\r\n") {
        text.push_str(&String::from_utf8(peer.take(1).await).unwrap().to_lowercase());
    }
    text
}

#[tokio::test]
async fn look_alikes_do_not_travel_as_trailers() {
    let all: Vec<&str> = DROPPED.iter().chain(&REFUSED).copied().chain(["Set.Cookie", "My_Field"]).collect();
    let announced = format!("Trailer: {}, X-Checksum\r\n", all.join(", "));
    let mut upstream = Upstream::start().await;
    let gate = Gate::before(&upstream.url, "", "").await;
    let lines: String = all.iter().map(|name| format!("{name}: forged\r\n")).collect();
    let chunked = format!(
        "POST / HTTP/1.1\r\nHost: gate.test\r\n{announced}Transfer-Encoding: chunked\r\n\r\n\
         2\r\nhi\r\n0\r\n{lines}X-Checksum: kept\r\n\r\n"
    );
    let mut client = gate.proxy.connect().await;
    client.send(&chunked).await;
    let text = message_upstream(upstream.accept().await).await;
    assert!(!text.contains("forged") && text.contains("x-checksum: kept"), "{text}");

    let mut http2 = gate.http2().await;
    let request =
        Request::post("https://gate.test/").header("trailer", announced.trim().trim_start_matches("Trailer: "));
    let (response, mut send) = http2.requests.send_request(request.body(()).unwrap(), false).unwrap();
    send.send_data(Bytes::from_static(b"hi"), false).unwrap();
    let mut trailers = HeaderMap::new();
    for name in all {
        trailers.insert(HeaderName::try_from(name).unwrap(), HeaderValue::from_static("forged"));
    }
    trailers.insert("x-checksum", HeaderValue::from_static("kept"));
    send.send_trailers(trailers).unwrap();
    let text = message_upstream(upstream.accept().await).await;
    assert!(!text.contains("forged") && text.contains("x-checksum: kept"), "{text}");
    drop(response);
}
