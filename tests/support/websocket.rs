//! A WebSocket through the gate, by any of its doors, with the upstream's end in hand.

use switchgate::{http2::Http2Stream, net::Wire, protocol::websocket::key::accept_value};
use tokio::net::TcpStream;

use super::{
    Client, Upstream,
    doors::{Door, Gate, Http2Client, http2_request},
};

/// Both ends of a WebSocket; the HTTP/2 connection of the client is kept for as long.
pub(crate) struct Ends {
    pub(crate) client: Client<Wire>,
    pub(crate) peer: Client<TcpStream>,
    pub(crate) http2: Option<Http2Client>,
}

/// Opens a WebSocket by this door.
pub(crate) async fn open(gate: &Gate, upstream: &mut Upstream, door: Door) -> Ends {
    let answer = async {
        let mut peer = upstream.accept().await;
        let head = peer.head().await;
        let key = head.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).unwrap();
        peer.send(super::accepted("").replace(super::ACCEPT, &accept_value(key))).await;
        peer
    };
    // The place of a WebSocket that has just ended is free a moment after its peers have seen the end.
    let opening = super::within("a place", async {
        loop {
            if let Some(opened) = Box::pin(try_open(gate, door)).await {
                return opened;
            }
            tokio::task::yield_now().await;
        }
    });
    let ((client, http2), peer) = tokio::join!(opening, answer);
    Ends { client, peer, http2 }
}

/// `None` where the limit of the client is reached.
async fn try_open(gate: &Gate, door: Door) -> Option<(Client<Wire>, Option<Http2Client>)> {
    let (status, opened) = match door {
        Door::Http2 => {
            let mut http2 = gate.http2().await;
            let (response, send) = http2.open(http2_request(&super::handshake(""))).await;
            // What RFC 8441 answers in place of 101.
            let status = if response.status() == 200 { 101 } else { response.status().as_u16() };
            (status, (Client::new(Wire::boxed(Http2Stream::new(send, response.into_body()))), Some(http2)))
        }
        Door::Clear | Door::Tls => {
            let stream = match door {
                Door::Clear => Wire::Tcp(gate.proxy.connect().await.stream),
                _ => Wire::boxed(gate.secure(&[]).await),
            };
            let mut client = Client::new(stream);
            client.send(super::handshake("")).await;
            (client.answer().await.status, (client, None))
        }
    };
    if status == 429 {
        return None;
    }
    assert_eq!(status, 101, "{door:?}");
    Some(opened)
}
