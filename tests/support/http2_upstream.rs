//! An upstream that speaks HTTP/2 and whose answers the test gives by hand.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use h2::{
    RecvStream,
    server::{self, SendResponse},
};
use http::{Request, Response};
use switchgate::http2::Http2Stream;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::{mpsc, watch},
};

use super::{Client, within};

pub(crate) type Asked = (Request<RecvStream>, SendResponse<Bytes>);

pub(crate) struct Http2Upstream {
    pub(crate) port: u16,
    asked: mpsc::Receiver<Asked>,
    connections: Arc<AtomicUsize>,
    leave: watch::Sender<usize>,
}

impl Http2Upstream {
    /// In clear; `settings` is what it says of itself.
    pub(crate) async fn start(settings: impl Fn(&mut server::Builder) + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (give, asked) = mpsc::channel(64);
        let connections = Arc::new(AtomicUsize::new(0));
        let (leave, left) = watch::channel(0);
        let counted = Arc::clone(&connections);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                let mut builder = server::Builder::new();
                settings(&mut builder);
                tokio::spawn(serve(stream, builder, give.clone(), left.clone()));
            }
        });
        Self { port, asked, connections, leave }
    }

    /// One that takes WebSockets.
    pub(crate) async fn with_websockets() -> Self {
        Self::start(|settings| {
            settings.enable_connect_protocol();
        })
        .await
    }

    pub(crate) async fn accept(&mut self) -> Asked {
        within("request upstream", self.asked.recv()).await.unwrap()
    }

    /// How many connections there have been.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Says GOAWAY on all connections.
    pub(crate) fn go_away(&self) {
        self.leave.send_modify(|times| *times += 1);
    }
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    builder: server::Builder,
    give: mpsc::Sender<Asked>,
    mut left: watch::Receiver<usize>,
) {
    let Ok(mut connection) = builder.handshake(stream).await else { return };
    left.mark_unchanged();
    loop {
        tokio::select! {
            accepted = connection.accept() => match accepted {
                Some(Ok(asked)) => if give.send(asked).await.is_err() { return },
                Some(Err(_)) | None => return,
            },
            Ok(()) = left.changed() => connection.graceful_shutdown(),
        }
    }
}

/// Answers an extended CONNECT with 200: its stream.
pub(crate) fn accept_websocket((request, mut respond): Asked) -> Client<Http2Stream> {
    let send = respond.send_response(Response::new(()), false).unwrap();
    Client::new(Http2Stream::new(send, request.into_body()))
}

/// Answers with a status and a body.
pub(crate) fn answer(respond: &mut SendResponse<Bytes>, status: u16, body: &'static str) {
    let head = Response::builder().status(status).body(()).unwrap();
    respond.send_response(head, false).unwrap().send_data(Bytes::from_static(body.as_bytes()), true).unwrap();
}
