//! A WebSocket through the gate, by any of its doors, with the upstream's end in hand.

use switchgate::{net::Wire, protocol::websocket::key::accept_value};
use tokio::net::TcpStream;

use super::{
    Client, Upstream,
    doors::{Door, Gate, Http2Client},
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
    let opening = async {
        match door {
            Door::Http2 => {
                let mut http2 = gate.http2().await;
                let client = http2.websocket().await;
                (Client::new(Wire::boxed(client.stream)), Some(http2))
            }
            Door::Clear | Door::Tls => {
                let stream = match door {
                    Door::Clear => Wire::Tcp(gate.proxy.connect().await.stream),
                    _ => Wire::boxed(gate.secure(&[]).await),
                };
                let mut client = Client::new(stream);
                client.send(super::handshake("")).await;
                assert_eq!(client.answer().await.status, 101);
                (client, None)
            }
        }
    };
    let ((client, http2), peer) = tokio::join!(opening, answer);
    Ends { client, peer, http2 }
}
