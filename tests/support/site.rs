//! An HTTP/1.1 upstream with a page, bodies of any size, and a count of what is uploaded.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};

/// Starts one on a port of its own and returns its URL.
///
/// `GET /` is `page`, `GET /bytes/N` has a body of N bytes, `POST /count` is answered with the number of bytes that came.
pub(crate) async fn start(page: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, page));
        }
    });
    url
}

async fn serve(stream: TcpStream, page: &'static str) {
    let service = service_fn(move |request| async move { Ok::<_, Infallible>(answer(request, page).await) });
    // A client that leaves early is part of some tests.
    let _ended = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(request: Request<Incoming>, page: &'static str) -> Response<UnsyncBoxBody<Bytes, Infallible>> {
    let path = request.uri().path().to_owned();
    let whole = |text: String| Full::from(text).boxed_unsync();
    let (status, kind, body) = match path.strip_prefix("/bytes/").map(str::parse) {
        Some(Ok(left)) => (200, "application/octet-stream", Zeros { left }.boxed_unsync()),
        _ if path == "/count" => (200, "text/plain", whole(count(request.into_body()).await.to_string())),
        _ if path == "/" => (200, "text/html; charset=utf-8", whole(page.to_owned())),
        _ => (404, "text/plain", whole(String::new())),
    };
    Response::builder().status(status).header("content-type", kind).body(body).unwrap()
}

async fn count(mut body: Incoming) -> usize {
    let mut count = 0;
    while let Some(Ok(frame)) = body.frame().await {
        count += frame.data_ref().map_or(0, Bytes::len);
    }
    count
}

/// A body of so many zeros, with its length known.
struct Zeros {
    left: usize,
}

impl Body for Zeros {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        static PIECE: [u8; 64 * 1024] = [0; 64 * 1024];
        let now = self.left.min(PIECE.len());
        self.left -= now;
        Poll::Ready((now > 0).then(|| Ok(Frame::data(Bytes::from_static(&PIECE[..now])))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(self.left as u64)
    }
}
