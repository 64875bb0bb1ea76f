//! Joins listeners, stack and drain.

use std::{future::Future, io, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use thiserror::Error;
use tokio::{net::TcpListener, sync::Semaphore};
use tokio_rustls::TlsAcceptor;

use crate::{
    config::model::{Limits, Listener, ListenerTls, Model},
    downstream::{self, Connection, ConnectionLimits},
    drain::{Live, Tracker},
    net::{
        BoxedIo,
        development::{self, DevelopmentError},
        listener::{self, Accepted, Acceptor},
        tls::{self, TlsError},
    },
    stack::{self, Stack},
    upstream::{Exchanges, SetupError},
};

/// Why the server cannot start. Each message says what to do.
#[derive(Debug, Error)]
pub enum ServerError {
    /// An address cannot be bound.
    #[error("cannot listen on {address} (listener `{listener}`): {source}{}", cure(source))]
    Bind {
        /// The listener's name.
        listener: String,
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// A listener's TLS material is not usable.
    #[error("listener `{listener}`: {source}")]
    Tls {
        /// The listener's name.
        listener: String,
        /// What is wrong.
        source: Box<TlsError>,
    },
    /// The development certificate could not be made.
    #[error("listener `{listener}`: {source}")]
    Development {
        /// The listener's name.
        listener: String,
        /// What is wrong.
        source: DevelopmentError,
    },
    /// An upstream cannot be set up.
    #[error(transparent)]
    Upstream(#[from] SetupError),
}

fn cure(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "; another program has this port, or another listener here: stop it or choose another `listen`"
        }
        io::ErrorKind::AddrNotAvailable => "; this machine has no such address: correct `listen`",
        io::ErrorKind::PermissionDenied => "; ports below 1024 need CAP_NET_BIND_SERVICE, or choose a higher one",
        _ => "",
    }
}

/// Listeners that are bound and whose certificates are loaded, but that accept nothing yet.
#[derive(Debug)]
pub struct Bound {
    listeners: Vec<BoundListener>,
}

#[derive(Debug)]
struct BoundListener {
    name: Arc<str>,
    sockets: Vec<TcpListener>,
    tls: Option<BoundTls>,
    permits: Arc<Semaphore>,
}

#[derive(Clone)]
struct BoundTls {
    acceptor: TlsAcceptor,
    handshake_timeout: Duration,
}

impl std::fmt::Debug for BoundTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BoundTls").finish_non_exhaustive()
    }
}

impl Bound {
    /// Every bound address with its listener's name; port 0 has become a real port.
    pub fn addresses(&self) -> Vec<(String, SocketAddr)> {
        let all = self.listeners.iter().flat_map(|listener| {
            let addresses = listener.sockets.iter().filter_map(|socket| socket.local_addr().ok());
            addresses.map(|address| (listener.name.to_string(), address))
        });
        all.collect()
    }
}

/// What a run ended with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// What was still alive when the grace ended, and was cut.
    pub cut: Live,
}

/// Binds every listener and loads its certificate; makes a development certificate where one is asked for.
///
/// # Errors
/// The first listener that cannot serve, with the cure.
pub async fn bind(model: &Model) -> Result<Bound, ServerError> {
    let mut listeners = Vec::new();
    for listener in &model.listeners {
        let tls = listener.tls.as_ref().map(|tls| load_tls(listener, tls)).transpose()?;
        let mut sockets = Vec::new();
        for &address in &listener.addresses {
            let socket = listener::bind(address).map_err(|source| ServerError::Bind {
                listener: listener.name.clone(),
                address,
                source,
            })?;
            sockets.push(socket);
        }
        let permits = Arc::new(Semaphore::new(listener.max_connections.min(Semaphore::MAX_PERMITS)));
        listeners.push(BoundListener { name: listener.name.as_str().into(), sockets, tls, permits });
    }
    Ok(Bound { listeners })
}

/// Reads all that a start would read, without binding or making anything.
///
/// # Errors
/// The first certificate, key or CA that a start would stumble over.
pub fn check(model: &Model) -> Result<(), ServerError> {
    for listener in &model.listeners {
        let Some(tls) = &listener.tls else { continue };
        let to_be_made = tls.development && !tls.certificate.exists() && !tls.key.exists();
        if !to_be_made {
            load_pair(listener, tls)?;
        }
    }
    Exchanges::new(model, &Tracker::default())?;
    Ok(())
}

fn load_pair(listener: &Listener, tls: &ListenerTls) -> Result<Arc<rustls::ServerConfig>, ServerError> {
    tls::server_config(&tls.certificate, &tls.key)
        .map_err(|source| ServerError::Tls { listener: listener.name.clone(), source: Box::new(source) })
}

fn load_tls(listener: &Listener, tls: &ListenerTls) -> Result<BoundTls, ServerError> {
    if tls.development {
        let made = development::ensure(&tls.certificate, &tls.key)
            .map_err(|source| ServerError::Development { listener: listener.name.clone(), source })?;
        if let Some(ca) = made {
            log_development_ca(&ca);
        }
    }
    let config = load_pair(listener, tls)?;
    Ok(BoundTls { acceptor: TlsAcceptor::from(config), handshake_timeout: tls.handshake_timeout })
}

fn log_development_ca(ca: &Path) {
    tracing::warn!(
        ca = %ca.display(),
        "made a development certificate for localhost; to trust it give clients this CA \
         (curl --cacert, NODE_EXTRA_CA_CERTS, or the browser's list of authorities)"
    );
}

/// Serves until `shutdown` resolves, then drains: listeners close, requests in flight end, relays get the grace.
///
/// # Errors
/// When an upstream cannot be set up. An upstream that is down is no error: it may come up.
pub async fn run(model: Model, bound: Bound, shutdown: impl Future<Output = ()>) -> Result<Outcome, ServerError> {
    let tracker = Tracker::default();
    let exchanges = Exchanges::new(&model, &tracker)?;
    let stack = stack::build(&model, exchanges, &tracker, first_id());
    let limits = Arc::new(connection_limits(&model.limits));
    for (name, address) in bound.addresses() {
        tracing::info!(listener = %name, %address, "listening");
    }
    for listener in bound.listeners {
        for socket in listener.sockets {
            let front = Front {
                name: Arc::clone(&listener.name),
                tls: listener.tls.clone(),
                stack: stack.clone(),
                limits: Arc::clone(&limits),
                tracker: tracker.clone(),
            };
            let acceptor = Acceptor::new(socket, Arc::clone(&listener.permits), Arc::clone(&listener.name));
            tracker.background(front.accept(acceptor));
        }
    }
    shutdown.await;
    let live = tracker.live();
    tracing::info!(connections = live.connections, websockets = live.relays, grace = ?model.drain_grace, "stopping");
    let cut = tracker.drain(model.drain_grace).await;
    tracing::info!(
        websockets_ended = live.relays.saturating_sub(cut.relays),
        websockets_cut = cut.relays,
        connections_cut = cut.connections,
        "stopped"
    );
    Ok(Outcome { cut })
}

fn connection_limits(limits: &Limits) -> ConnectionLimits {
    ConnectionLimits {
        head_timeout: limits.head_timeout,
        keep_alive_timeout: limits.keep_alive_timeout,
        max_head_size: limits.max_head_size,
        max_header_count: limits.max_header_count,
        max_early_bytes: limits.max_early_bytes,
        body_timeout: limits.body_timeout,
        write_timeout: limits.write_timeout,
    }
}

/// A start that differs from run to run, so that ids of two runs do not mix in one log.
fn first_id() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one("request") & 0xffff_ffff_0000_0000
}

/// What one listening socket needs to serve a connection.
#[derive(Clone)]
struct Front {
    name: Arc<str>,
    tls: Option<BoundTls>,
    stack: Stack,
    limits: Arc<ConnectionLimits>,
    tracker: Tracker,
}

impl Front {
    /// Accepts until the drain begins; the socket closes with this future.
    async fn accept(self, acceptor: Acceptor) {
        loop {
            let accepted = tokio::select! {
                accepted = acceptor.accept() => accepted,
                () = self.tracker.draining() => return,
            };
            let front = self.clone();
            self.tracker.connection(async move { front.serve(accepted).await });
        }
    }

    async fn serve(self, accepted: Accepted) {
        let Accepted { stream, remote, permit } = accepted;
        let io: BoxedIo = match &self.tls {
            None => Box::new(stream),
            Some(bound) => {
                let handshake = tls::accept(&bound.acceptor, stream, bound.handshake_timeout);
                let stream = tokio::select! {
                    done = handshake => done,
                    () = self.tracker.draining() => return,
                };
                match stream {
                    Ok(stream) => Box::new(stream),
                    Err(error) => {
                        let error = tls::explained(&error);
                        tracing::info!(listener = %self.name, client = %remote, %error, "TLS handshake failed");
                        return;
                    }
                }
            }
        };
        let connection = Connection::new(self.name, remote, self.tls.is_some(), permit);
        downstream::serve(io, connection, self.limits, self.stack, &self.tracker).await;
    }
}
