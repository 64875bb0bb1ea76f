//! The downstream's half of a switch: the stream that a connection or an HTTP/2 stream becomes.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::Request;
use hyper::upgrade::OnUpgrade;
use tokio::sync::oneshot;

use super::connection;
use crate::net::Wire;

/// Left on a request that came over HTTP/2. A request extension, and so cloneable; the first who asks has it.
#[derive(Clone, Debug)]
pub(super) struct PendingSwitch(Arc<Mutex<Option<oneshot::Receiver<Wire>>>>);

impl PendingSwitch {
    pub(super) fn new(stream: oneshot::Receiver<Wire>) -> Self {
        Self(Arc::new(Mutex::new(Some(stream))))
    }

    fn take(&self) -> Option<oneshot::Receiver<Wire>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// What resolves when the answer to an opening handshake has gone out.
#[derive(Debug)]
pub struct OnSwitch(Inner);

#[derive(Debug)]
enum Inner {
    Http1(OnUpgrade),
    Http2(Option<oneshot::Receiver<Wire>>),
}

/// Takes the downstream's half out of a request, for once it has been answered with a 101.
pub fn on_switch<B>(request: &mut Request<B>) -> OnSwitch {
    OnSwitch(match request.extensions_mut().remove::<PendingSwitch>() {
        Some(pending) => Inner::Http2(pending.take()),
        None => Inner::Http1(hyper::upgrade::on(request)),
    })
}

impl OnSwitch {
    /// The stream, and what the client had sent early; `None` when the client has left.
    pub async fn stream(self) -> Option<(Wire, Bytes)> {
        match self.0 {
            Inner::Http1(upgrade) => connection::take_stream(upgrade.await.ok()?),
            // What has come early waits in the stream, under its window.
            Inner::Http2(pending) => pending?.await.ok().map(|stream| (stream, Bytes::new())),
        }
    }
}
