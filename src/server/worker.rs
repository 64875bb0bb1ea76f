//! The threads that carry the traffic: each with a runtime, listening sockets and upstream connections of its own.
//!
//! A connection is served by the thread that accepted it, to its end: nothing it does wakes another thread. See
//! docs/adr/0001-one-runtime-per-core.md.

use std::{io, sync::Arc, thread};

use tokio::{io::AsyncWriteExt, runtime, sync::oneshot};

use super::{
    Bound, ServerError,
    bind::{BoundListener, BoundTls},
    connection_limits,
};
use crate::{
    admission::ClientConnections,
    config::model::{Model, ProxyProtocol},
    downstream::{self, Connection, ConnectionLimits, Http2Options},
    drain::Tracker,
    net::{
        Io, Wire, challenges,
        handshakes::Ending,
        listener::{Accepted, Acceptor, BoundSocket},
        proxy_protocol::{self, Introduced, ProxyProtocolError},
        tls::{self, TlsFacts},
    },
    protocol::{
        address::PeerAddress,
        log_text::{self, Escaped},
    },
    stack::{self, LiveParts, Stack},
    upstream::Exchanges,
};

/// Running threads. They end when the tracker says that all is over.
pub(super) struct Workers {
    ends: Vec<oneshot::Receiver<()>>,
    tracker: Tracker,
}

impl Workers {
    /// Waits until all have ended.
    pub(super) async fn join(mut self) {
        for ended in self.ends.drain(..) {
            // Its sender goes with the thread, however that ends.
            let _ended = ended.await;
        }
    }
}

impl Drop for Workers {
    /// Whoever gives up on the server does not leave its threads behind.
    fn drop(&mut self) {
        self.tracker.abandon();
    }
}

/// Starts one thread for each set of sockets.
pub(super) fn start(
    model: &Model,
    bound: Bound,
    exchanges: &Exchanges,
    live: &LiveParts,
) -> Result<Workers, ServerError> {
    let limits = Arc::new(connection_limits(&model.limits));
    // Offered only where some route can serve it (RFC 8441 section 3).
    let websocket = model.routes.all().iter().any(|route| route.websocket);
    let mut shares: Vec<Vec<(BoundSocket, Front)>> = Vec::new();
    for BoundListener { name, sockets, tls, proxy_protocol, redirect, permits, clients, .. } in bound.listeners {
        let http2 = Http2Options { max_streams: model.limits.max_streams, websocket, limit_reached: Arc::default() };
        shares.resize_with(shares.len().max(sockets.len()), Vec::new);
        for (share, sockets) in shares.iter_mut().zip(sockets) {
            share.extend(sockets.into_iter().map(|socket| {
                let front = Front {
                    name: Arc::clone(&name),
                    tls: tls.clone(),
                    proxy_protocol: proxy_protocol.clone(),
                    redirect,
                    limits: Arc::clone(&limits),
                    http2: http2.clone(),
                    permits: Arc::clone(&permits),
                    clients: clients.clone(),
                };
                (socket, front)
            }));
        }
    }
    let mut workers = Workers { ends: Vec::new(), tracker: live.tracker.clone() };
    // All of them before the first one accepts: a crowd at the door takes the descriptors that a runtime needs.
    let mut ready = Vec::new();
    for (index, share) in shares.into_iter().enumerate() {
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        ready.push((runtime.map_err(|source| ServerError::Worker { index, source })?, share));
    }
    for (index, (runtime, share)) in ready.into_iter().enumerate() {
        let failed = |source| ServerError::Worker { index, source };
        let stack = stack::build(model, exchanges.with_own_pools(), live);
        let tracker = live.tracker.clone();
        let (ended, end) = oneshot::channel::<()>();
        thread::Builder::new()
            .name(format!("worker-{index}"))
            .spawn(move || {
                runtime.block_on(work(share, stack, tracker));
                drop(runtime);
                drop(ended);
            })
            .map_err(failed)?;
        workers.ends.push(end);
    }
    Ok(workers)
}

/// The life of one thread.
async fn work(share: Vec<(BoundSocket, Front)>, stack: impl Stack, tracker: Tracker) {
    for (socket, front) in share {
        match Acceptor::new(socket, Arc::clone(&front.permits), Arc::clone(&front.name)) {
            Ok(acceptor) => {
                tracker.background(front.accept(acceptor, stack.clone(), tracker.clone()));
            }
            Err(error) => report(&front, &error),
        }
    }
    tracker.finished().await;
}

fn report(front: &Front, error: &io::Error) {
    tracing::error!(listener = %front.name, %error, "a worker cannot accept here; the others go on");
}

/// What one listening socket needs to serve a connection.
#[derive(Clone)]
struct Front {
    name: Arc<str>,
    tls: Option<BoundTls>,
    proxy_protocol: Option<Arc<ProxyProtocol>>,
    redirect: Option<u16>,
    limits: Arc<ConnectionLimits>,
    http2: Http2Options,
    permits: Arc<tokio::sync::Semaphore>,
    clients: ClientConnections,
}

impl Front {
    /// Accepts until the drain begins; the socket closes with this future.
    async fn accept(self, acceptor: Acceptor, stack: impl Stack, tracker: Tracker) {
        loop {
            let accepted = tokio::select! {
                accepted = acceptor.accept() => accepted,
                () = tracker.draining() => return,
            };
            let (front, stack, own) = (self.clone(), stack.clone(), tracker.clone());
            tracker.connection(async move { front.serve(accepted, stack, own).await });
        }
    }

    async fn serve(self, accepted: Accepted, stack: impl Stack, tracker: Tracker) {
        let Accepted { mut stream, remote, permit } = accepted;
        let own = Io::as_tcp(&stream).and_then(|stream| stream.local_addr().ok());
        let introduced = tokio::select! {
            introduced = self.introduce(&mut stream, remote) => introduced,
            () = tracker.draining(), if self.proxy_protocol.is_some() => return,
        };
        let Some(Introduced { remote, local, tls: tls_before, probe, .. }) = introduced else { return };
        // Before TLS, which costs more than all that follows.
        let Some(place) = self.clients.enter(remote) else { return };
        let (io, facts) = match &self.tls {
            None => (stream, None),
            Some(tls) => match self.secure(tls, stream, remote, probe, &tracker).await {
                Some((stream, facts)) => (stream, Some(facts)),
                None => return,
            },
        };
        let mut connection = Connection::new(self.name, remote, facts, permit).among(place).redirected(self.redirect);
        connection.tls_before = tls_before;
        connection.offer = self.tls.as_ref().map(|tls| Arc::clone(&tls.offer));
        connection.local = local.or(own);
        if connection.tls.as_ref().is_some_and(|tls| tls.http2) {
            // Boxed: most connections have no use for the room that it takes.
            Box::pin(downstream::serve_http2(io, connection, self.limits, self.http2, stack, &tracker)).await;
        } else {
            downstream::serve(io, connection, self.limits, stack, &tracker).await;
        }
    }

    /// The TLS handshake; `None` where nothing is left to serve.
    async fn secure(
        &self,
        tls: &BoundTls,
        stream: Wire,
        remote: PeerAddress,
        probe: bool,
        tracker: &Tracker,
    ) -> Option<(Wire, TlsFacts)> {
        // The config has TLS over TCP only.
        let Wire::Tcp(stream) = stream else { return None };
        let secured = tokio::select! {
            secured = tls::accept(tls.offer.config(), stream, tls.handshake_timeout) => secured,
            () = tracker.draining() => {
                tls.handshakes.count(Ending::Stopped);
                return None;
            }
        };
        tls.handshakes.count(secured.as_ref().map_or_else(|failure| failure.ending, |_| Ending::Done));
        match secured {
            Ok((mut stream, _)) if challenges::was_validation(stream.facts()) => {
                tracing::info!(listener = %self.name, client = %remote, "ACME validation over TLS answered");
                // RFC 8737 section 3: nothing follows. Whether its end is heard matters to nobody.
                let _told = tokio::time::timeout(tls.handshake_timeout, stream.shutdown()).await;
                None
            }
            Ok((stream, facts)) => Some((Wire::Boxed(stream), facts)),
            // It has seen that we live.
            Err(error) if probe && error.ending == Ending::HungUp => None,
            Err(error) => {
                let reason = error.ending.as_str();
                tracing::info!(listener = %self.name, client = %remote, reason, error = %Escaped(error), "TLS handshake failed");
                None
            }
        }
    }

    /// Who opened the connection; `None` where a balancer had to say so and did not.
    async fn introduce(&self, stream: &mut Wire, peer: PeerAddress) -> Option<Introduced> {
        let Some(rules) = &self.proxy_protocol else { return Some(Introduced::by_itself(peer)) };
        match Box::pin(proxy_protocol::accept(stream, peer, rules)).await {
            Ok(introduced) => {
                let unique_id = introduced.unique_id.as_ref().map(|id| tracing::field::display(log_text::escape(id)));
                tracing::debug!(listener = %self.name, client = %introduced.remote, %peer, unique_id, "PROXY header");
                Some(introduced)
            }
            // A probe that is content with a connection.
            Err(ProxyProtocolError::Silent) => None,
            Err(error) => {
                tracing::info!(listener = %self.name, %peer, error = %Escaped(error), "no PROXY header, connection closed");
                None
            }
        }
    }
}
