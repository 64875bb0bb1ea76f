//! What one TLS listener offers to the next handshake.

use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock},
};

use rustls::{KeyLog, ServerConfig};

use super::{
    certificate_names::Rank,
    certificates::Certificates,
    client_certificate::{self, Check},
    crl::CrlEnd,
    tls::{self, TlsError},
};
use crate::config::model::{ClientAuth, ForeignHost, ListenerTls};

/// Most bytes that protection adds to a record: explicit nonce and tag of TLS 1.2 with AES-GCM. TLS 1.3 adds 17.
const PROTECTION: usize = 8 + 16;

/// The TLS of a listener. Its client CA and CRLs can be read again; connections keep what they began with.
pub struct ServerTls {
    certificates: Arc<Certificates>,
    tls: ListenerTls,
    key_log: Option<Arc<dyn KeyLog>>,
    current: RwLock<Offer>,
}

struct Offer {
    config: Arc<ServerConfig>,
    crls: Vec<CrlEnd>,
}

impl ServerTls {
    /// Reads what is to be known of clients. Secrets go to `key_log`, and nowhere without it.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn new(
        certificates: Arc<Certificates>,
        tls: &ListenerTls,
        key_log: Option<Arc<dyn KeyLog>>,
    ) -> Result<Self, TlsError> {
        let offer = offer(&certificates, tls, key_log.as_ref())?;
        Ok(Self { certificates, tls: tls.clone(), key_log, current: RwLock::new(offer) })
    }

    /// For the next handshake.
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner).config)
    }

    /// Reads the client CA and the CRLs again, if there are any.
    ///
    /// # Errors
    /// The first file that cannot be used. What held before goes on holding.
    pub fn reload_clients(&self) -> Result<(), TlsError> {
        if self.tls.clients.is_some() {
            let fresh = offer(&self.certificates, &self.tls, self.key_log.as_ref())?;
            *self.current.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        }
        Ok(())
    }

    /// Which hosts a connection may carry requests for.
    pub(super) fn foreign_host(&self) -> ForeignHost {
        self.tls.foreign_host
    }

    /// How clients are asked for certificates, if they are.
    pub(super) fn clients(&self) -> Option<&ClientAuth> {
        self.tls.clients.as_ref()
    }

    /// How the best of its certificates matches a host.
    pub(super) fn rank(&self, host: &str) -> Option<Rank> {
        self.certificates.rank(host)
    }

    /// How long each CRL is good.
    pub fn crls(&self) -> Vec<CrlEnd> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).crls.clone()
    }
}

/// Reads the client CA and CRLs and keeps nothing of them.
///
/// # Errors
/// The first file that cannot be used.
pub fn check_clients(clients: &ClientAuth) -> Result<(), TlsError> {
    client_certificate::check(clients).map(drop)
}

fn offer(
    certificates: &Arc<Certificates>,
    tls: &ListenerTls,
    key_log: Option<&Arc<dyn KeyLog>>,
) -> Result<Offer, TlsError> {
    let check = tls.clients.as_ref().map(client_certificate::check).transpose()?;
    let (verifier, crls) = check.map(|Check { verifier, crls }| (verifier, crls)).unzip();
    let protocols = if tls.http2 { tls::HTTP2_FIRST } else { tls::ONLY_HTTP1 };
    let mut config = tls::server_config(Arc::clone(certificates), tls.versions, protocols, verifier)?;
    // rustls counts the header and no protection. Full records are its default.
    config.max_fragment_size =
        (tls.max_record_size < ListenerTls::FULL_RECORDS).then(|| tls.max_record_size.saturating_sub(PROTECTION));
    if let Some(key_log) = key_log {
        config.key_log = Arc::clone(key_log);
    }
    Ok(Offer { config: Arc::new(config), crls: crls.unwrap_or_default() })
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls").field("tls", &self.tls).finish_non_exhaustive()
    }
}
