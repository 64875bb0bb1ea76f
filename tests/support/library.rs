//! Another's WebSocket library on both sides of the gate.

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::tungstenite::{Message, client::IntoClientRequest};

use super::within;

/// Accepts a WebSocket on this stream, and gives back what it is told.
pub(crate) async fn echo(stream: impl AsyncRead + AsyncWrite + Unpin) {
    let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
    while let Some(Ok(message)) = socket.next().await {
        if (message.is_text() || message.is_binary()) && socket.send(message).await.is_err() {
            return;
        }
    }
}

/// Opens a WebSocket to an echo on this stream: messages of every size come back, and so does the Close.
pub(crate) async fn messages_of_every_size(url: &str, stream: impl AsyncRead + AsyncWrite + Unpin) {
    let (mut socket, _) = tokio_tungstenite::client_async(url.into_client_request().unwrap(), stream).await.unwrap();
    for size in [0, 1, 125, 126, 65_535, 65_536, 1_000_000] {
        let message = Message::binary(vec![7; size]);
        socket.send(message.clone()).await.unwrap();
        assert_eq!(within("echo", socket.next()).await.unwrap().unwrap(), message);
    }
    socket.close(None).await.unwrap();
    assert!(within("close", socket.next()).await.unwrap().unwrap().is_close());
}
