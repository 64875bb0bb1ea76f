//! Before anything is accepted: the addresses of the listeners, and what their TLS is made of.

use std::{num::NonZeroUsize, path::Path, sync::Arc, time::Duration};

use tokio::sync::Semaphore;

use super::{
    ServerError,
    keep_certificates::{self, Holder, Kept},
};
use crate::{
    acme::{self, Wanted},
    admission::ClientConnections,
    config::model::{Challenge, Listener, ListenerTls, Model, PairFiles, ProxyProtocol},
    drain::Tracker,
    net::{
        certificates::{Certificates, Stamp},
        challenges::Challenges,
        development,
        foreign_host::HostListeners,
        handshakes::Handshakes,
        key_log::KeyLogFile,
        listener::{self, BoundSocket},
        server_tls::{self, ServerTls},
        tls::TlsError,
        unix_listener::{self, SocketFile},
    },
    protocol::address::ListenAddress,
    upstream::Exchanges,
};

/// Listeners that are bound and whose certificates are loaded, but that accept nothing yet.
#[derive(Debug)]
pub struct Bound {
    pub(super) listeners: Vec<BoundListener>,
    /// Removed when the listeners close.
    pub(super) files: Vec<SocketFile>,
    pub(super) challenges: Arc<Challenges>,
}

#[derive(Debug)]
pub(super) struct BoundListener {
    pub(super) name: Arc<str>,
    /// In the order of the config; port 0 has become a real port.
    pub(super) addresses: Vec<ListenAddress>,
    /// For each worker, one socket for each address.
    pub(super) sockets: Vec<Vec<BoundSocket>>,
    pub(super) tls: Option<BoundTls>,
    pub(super) proxy_protocol: Option<Arc<ProxyProtocol>>,
    pub(super) redirect: Option<u16>,
    pub(super) permits: Arc<Semaphore>,
    pub(super) clients: ClientConnections,
}

#[derive(Clone)]
pub(super) struct BoundTls {
    pub(super) offer: Arc<ServerTls>,
    pub(super) certificates: Arc<Certificates>,
    /// Of the files of certificates and of client checks, before they were read.
    pub(super) stamp: Stamp,
    pub(super) handshake_timeout: Duration,
    pub(super) handshakes: Arc<Handshakes>,
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

    /// The TLS of all listeners that have it.
    pub(super) fn host_listeners(&self) -> HostListeners {
        HostListeners::new(self.listeners.iter().filter_map(|listener| Some(Arc::clone(&listener.tls.as_ref()?.offer))))
    }

    /// How the TLS handshakes of each listener end, by its name.
    pub fn handshakes(&self) -> Vec<(Arc<str>, Arc<Handshakes>)> {
        let counted = |listener: &BoundListener| {
            listener.tls.as_ref().map(|tls| (Arc::clone(&listener.name), Arc::clone(&tls.handshakes)))
        };
        self.listeners.iter().filter_map(counted).collect()
    }

    /// The certificates of all listeners, to be kept fresh. The listeners are those of `model`, in its order.
    pub(super) fn kept(&self, model: &Model) -> Vec<Kept> {
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
    pub(super) fn wanted(&self, model: &Model) -> Vec<Wanted> {
        let pairs = self.listeners.iter().zip(&model.listeners);
        let wanted = pairs.filter_map(|(bound, listener)| {
            let acme = listener.tls.as_ref()?.acme.clone()?;
            Some(Wanted { listener: Arc::clone(&bound.name), acme })
        });
        wanted.collect()
    }
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
pub(super) fn workers(model: &Model) -> NonZeroUsize {
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
        let shared = listener.reuse_port;
        let failed = |source| ServerError::Bind { listener: name(), address: address(), shared, source };
        match wanted {
            &ListenAddress::Socket(wanted) => {
                let mut address = wanted;
                if wanted.port() != 0 && !listener.reuse_port {
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
