//! Joins listeners, stack and drain.

mod keep_certificates;
mod shutdown;
mod worker;

use std::{
    io,
    num::NonZeroUsize,
    path::Path,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use thiserror::Error;
use tokio::sync::{Semaphore, mpsc};

use keep_certificates::{Holder, Kept};

use crate::{
    acme::{self, Wanted},
    admission::{Admission, ClientConnections},
    config::model::{Challenge, Limits, Listener, ListenerTls, Model, PairFiles, ProxyProtocol},
    downstream::ConnectionLimits,
    drain::{Live, Tracker},
    net::{
        certificates::{Certificates, Stamp},
        challenges::Challenges,
        development::{self, DevelopmentError},
        handshakes::Handshakes,
        key_log::{KeyLogError, KeyLogFile},
        listener::{self, BoundSocket},
        open_files,
        server_tls::{self, ServerTls},
        tls::TlsError,
        tls_client::Identity,
        unix_listener::{self, SocketFile, UnixBindError},
    },
    protocol::address::ListenAddress,
    registry::Registry,
    stack::LiveParts,
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
        address: ListenAddress,
        /// What the system said.
        source: io::Error,
    },
    /// A path cannot be bound.
    #[error("cannot listen on {address} (listener `{listener}`): {source}")]
    BindUnix {
        /// The listener's name.
        listener: String,
        /// The path.
        address: ListenAddress,
        /// What is wrong.
        source: UnixBindError,
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
    /// The file for TLS secrets is not usable.
    #[error(transparent)]
    KeyLog(#[from] KeyLogError),
    /// A thread or its runtime cannot be started.
    #[error("cannot start worker thread {index}: {source}; lower `workers` or raise the limits of this user")]
    Worker {
        /// Which one, from 0.
        index: usize,
        /// What the system said.
        source: io::Error,
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
    /// Removed when the listeners close.
    files: Vec<SocketFile>,
    challenges: Arc<Challenges>,
}

#[derive(Debug)]
struct BoundListener {
    name: Arc<str>,
    /// In the order of the config; port 0 has become a real port.
    addresses: Vec<ListenAddress>,
    /// For each worker, one socket for each address.
    sockets: Vec<Vec<BoundSocket>>,
    tls: Option<BoundTls>,
    proxy_protocol: Option<Arc<ProxyProtocol>>,
    redirect: Option<u16>,
    permits: Arc<Semaphore>,
    clients: ClientConnections,
}

#[derive(Clone)]
struct BoundTls {
    offer: Arc<ServerTls>,
    certificates: Arc<Certificates>,
    /// Of the files of certificates and of client checks, before they were read.
    stamp: Stamp,
    handshake_timeout: Duration,
    handshakes: Arc<Handshakes>,
}

/// What a running process is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Drain. The second one cuts the drain short.
    Stop,
    /// Read the certificates again, whether they seem to have changed or not.
    Reload,
}

impl std::fmt::Debug for BoundTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BoundTls").finish_non_exhaustive()
    }
}

impl Bound {
    /// Every bound address with its listener's name; port 0 has become a real port.
    pub fn addresses(&self) -> Vec<(String, ListenAddress)> {
        let all = self
            .listeners
            .iter()
            .flat_map(|listener| listener.addresses.iter().map(|address| (listener.name.to_string(), address.clone())));
        all.collect()
    }

    /// How the TLS handshakes of each listener end, by its name.
    pub fn handshakes(&self) -> Vec<(Arc<str>, Arc<Handshakes>)> {
        let counted = |listener: &BoundListener| {
            listener.tls.as_ref().map(|tls| (Arc::clone(&listener.name), Arc::clone(&tls.handshakes)))
        };
        self.listeners.iter().filter_map(counted).collect()
    }

    /// The certificates of all listeners, to be kept fresh. The listeners are those of `model`, in its order.
    fn kept(&self, model: &Model) -> Vec<Kept> {
        let pairs = self.listeners.iter().zip(&model.listeners);
        let kept = pairs.filter_map(|(bound, listener)| {
            let (tls, files) = (bound.tls.as_ref()?, listener.tls.as_ref()?);
            let holder = Holder::Listener(Arc::clone(&bound.name));
            let kept = Kept::new(holder, files.files(), Arc::clone(&tls.certificates), tls.stamp.clone());
            Some(kept.with_clients(files.clients.as_ref(), &tls.offer))
        });
        kept.collect()
    }

    /// The certificates that are to be ordered.
    fn wanted(&self, model: &Model) -> Vec<Wanted> {
        let pairs = self.listeners.iter().zip(&model.listeners);
        let wanted = pairs.filter_map(|(bound, listener)| {
            let acme = listener.tls.as_ref()?.acme.clone()?;
            Some(Wanted { listener: Arc::clone(&bound.name), acme })
        });
        wanted.collect()
    }
}

/// What a run ended with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// What was still alive when the grace ended, or a second signal came, and was cut.
    pub cut: Live,
}

/// Binds every listener and loads its certificate; makes a development certificate where one is asked for.
///
/// # Errors
/// The first listener that cannot serve, with the cure.
pub fn bind(model: &Model) -> Result<Bound, ServerError> {
    bind_all_listeners(model, None)
}

/// The same, with the secrets of all TLS connections of clients written to `path`.
///
/// # Errors
/// See [`bind`]; and when the file cannot be written, or can be read by others.
pub fn bind_with_key_log(model: &Model, path: &Path) -> Result<Bound, ServerError> {
    let key_log = Arc::new(KeyLogFile::open(path)?);
    tracing::warn!(
        file = %path.display(),
        "TLS SECRETS ARE LOGGED: whoever reads this file reads all traffic; restart without --tls-key-log and remove it"
    );
    bind_all_listeners(model, Some(&key_log))
}

fn bind_all_listeners(model: &Model, key_log: Option<&Arc<KeyLogFile>>) -> Result<Bound, ServerError> {
    let workers = workers(model);
    let challenges = Arc::new(Challenges::default());
    let mut listeners = Vec::new();
    let mut files = Vec::new();
    for listener in &model.listeners {
        let secrets = Secrets { key_log, challenges: &challenges };
        let tls = listener.tls.as_ref().map(|tls| load_tls(listener, tls, &secrets)).transpose()?;
        let (addresses, sockets) = bind_all(listener, workers, &mut files)?;
        let permits = Arc::new(Semaphore::new(listener.max_connections.min(Semaphore::MAX_PERMITS)));
        let proxy_protocol = listener.proxy_protocol.clone().map(Arc::new);
        let clients = ClientConnections::new(listener, model);
        let name = listener.name.as_str().into();
        let redirect = listener.redirect;
        listeners.push(BoundListener { name, addresses, sockets, tls, proxy_protocol, redirect, permits, clients });
    }
    Ok(Bound { listeners, files, challenges })
}

/// How many threads carry the traffic.
fn workers(model: &Model) -> NonZeroUsize {
    // A system that does not say how many cores it has is served by one.
    model.workers.or_else(|| std::thread::available_parallelism().ok()).unwrap_or(NonZeroUsize::MIN)
}

/// The addresses as they became, and the sockets of each worker.
type BoundAddresses = (Vec<ListenAddress>, Vec<Vec<BoundSocket>>);

fn bind_all(
    listener: &Listener,
    workers: NonZeroUsize,
    files: &mut Vec<SocketFile>,
) -> Result<BoundAddresses, ServerError> {
    let mut addresses = Vec::new();
    let mut sockets: Vec<Vec<BoundSocket>> = (0..workers.get()).map(|_| Vec::new()).collect();
    for wanted in &listener.addresses {
        let (name, address) = (|| listener.name.clone(), || wanted.clone());
        let failed = |source| ServerError::Bind { listener: name(), address: address(), source };
        match wanted {
            &ListenAddress::Socket(wanted) => {
                let mut address = wanted;
                if wanted.port() != 0 {
                    listener::probe_free(wanted).map_err(failed)?;
                }
                for of_worker in &mut sockets {
                    let socket = listener::bind(address).map_err(failed)?;
                    // Port 0 is chosen by the first; the others share it.
                    address = socket.local_addr().map_err(failed)?;
                    of_worker.push(BoundSocket::Tcp(socket));
                }
                addresses.push(ListenAddress::Socket(address));
            }
            ListenAddress::Unix(path) => {
                let (socket, file) = unix_listener::bind(path, listener.unix_mode)
                    .map_err(|source| ServerError::BindUnix { listener: name(), address: address(), source })?;
                files.push(file);
                for of_worker in &mut sockets {
                    of_worker.push(BoundSocket::Unix(socket.try_clone().map_err(failed)?));
                }
                addresses.push(address());
            }
        }
    }
    Ok((addresses, sockets))
}

/// Reads all that a start would read, without binding or making anything.
///
/// # Errors
/// The first certificate, key or CA that a start would stumble over.
pub fn check(model: &Model) -> Result<(), ServerError> {
    for listener in &model.listeners {
        let Some(tls) = &listener.tls else { continue };
        let missing = |pair: &PairFiles| !pair.certificate.exists() && !pair.key.exists();
        if let Some(acme) = &tls.acme {
            acme::check(acme).map_err(|source| unusable(listener, source))?;
        }
        let to_be_made = tls.development && tls.pairs.iter().all(missing);
        if !to_be_made {
            load_pairs(listener, tls)?;
        }
        if let Some(clients) = &tls.clients {
            server_tls::check_clients(clients).map_err(|source| unusable(listener, source))?;
        }
    }
    Exchanges::new(model, &Tracker::default())?;
    Ok(())
}

fn load_pairs(listener: &Listener, tls: &ListenerTls) -> Result<Certificates, ServerError> {
    Certificates::load_awaiting(&tls.files(), tls.awaited(), tls.unnamed).map_err(|source| unusable(listener, source))
}

fn unusable(listener: &Listener, source: TlsError) -> ServerError {
    ServerError::Tls { listener: listener.name.clone(), source: Box::new(source) }
}

/// What the TLS of all listeners shares.
struct Secrets<'a> {
    key_log: Option<&'a Arc<KeyLogFile>>,
    challenges: &'a Arc<Challenges>,
}

fn load_tls(listener: &Listener, tls: &ListenerTls, secrets: &Secrets<'_>) -> Result<BoundTls, ServerError> {
    for pair in tls.pairs.iter().filter(|_| tls.development) {
        let made = development::ensure(&pair.certificate, &pair.key)
            .map_err(|source| ServerError::Development { listener: listener.name.clone(), source })?;
        if let Some(ca) = made {
            log_development_ca(&ca);
        }
    }
    if let Some(acme) = &tls.acme {
        acme::check(acme).map_err(|source| unusable(listener, source))?;
    }
    let stamp = keep_certificates::stamp(tls);
    let over_tls = tls.acme.as_ref().is_some_and(|acme| acme.challenge == Challenge::TlsAlpn01);
    let certificates = load_pairs(listener, tls)?.answering(over_tls.then(|| Arc::clone(secrets.challenges)));
    let certificates = Arc::new(certificates);
    let key_log = secrets.key_log.map(|log| Arc::clone(log) as Arc<dyn rustls::KeyLog>);
    let offer = ServerTls::new(Arc::clone(&certificates), tls, key_log);
    let offer = Arc::new(offer.map_err(|source| unusable(listener, source))?);
    let handshakes = Arc::default();
    Ok(BoundTls { offer, certificates, stamp, handshake_timeout: tls.handshake_timeout, handshakes })
}

fn log_development_ca(ca: &Path) {
    tracing::warn!(
        ca = %ca.display(),
        "made a development certificate for localhost; to trust it give clients this CA \
         (curl --cacert, NODE_EXTRA_CA_CERTS, or the browser's list of authorities)"
    );
}

/// Serves until `orders` has a stop, then drains; a second stop cuts the drain short.
///
/// A drain closes the listeners, lets requests in flight finish, and tells the WebSockets to close, spread over
/// `drain.spread`; what is left after `drain.grace` is cut. When the sender of `orders` is gone, that is a stop too.
///
/// # Errors
/// When an upstream cannot be set up or a thread cannot be started. An upstream that is down is no error: it may come up.
pub async fn run(model: Model, mut bound: Bound, mut orders: mpsc::Receiver<Order>) -> Result<Outcome, ServerError> {
    let live = LiveParts {
        tracker: Tracker::default(),
        registry: Registry::default(),
        admission: Admission::new(&model),
        next_id: Arc::new(AtomicU64::new(first_id())),
        challenges: Arc::clone(&bound.challenges),
    };
    for (name, address) in bound.addresses() {
        tracing::info!(listener = %name, %address, "listening");
    }
    log_room(&model);
    let exchanges = Exchanges::new(&model, &live.tracker)?;
    let (mut kept, wanted) = (bound.kept(&model), bound.wanted(&model));
    kept.extend(exchanges.identities().map(|(name, Identity { files, stamp, certificates })| {
        Kept::new(Holder::Upstream(name.into()), files.clone(), Arc::clone(certificates), stamp.clone())
    }));
    let files = std::mem::take(&mut bound.files);
    let workers = worker::start(&model, bound, &exchanges, &live)?;
    // Once connections are accepted: the CA will come to look.
    acme::start(wanted, Arc::clone(&live.challenges), live.tracker.clone());
    keep_certificates::until_stopped(kept, &mut orders).await;
    drop(files);
    let outcome = shutdown::drain(&model.drain, &live, orders).await;
    workers.join().await;
    Ok(outcome)
}

/// Says how many connections the limit of open files allows, and warns where the config promises more.
fn log_room(model: &Model) {
    let Some(room) = open_files::raise() else { return };
    let promised: usize = model.listeners.iter().map(|listener| listener.max_connections).sum();
    let promised = u64::try_from(promised).unwrap_or(u64::MAX);
    if promised > room {
        tracing::warn!(
            room,
            max_connections = promised,
            "the limit of open files allows fewer connections than max_connections; raise it (LimitNOFILE, ulimit -n)"
        );
    } else {
        tracing::info!(room, max_connections = promised, "the limit of open files allows that many connections");
    }
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
