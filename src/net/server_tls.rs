//! What one TLS listener offers to the next handshake.

use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock},
};

use rustls::ServerConfig;

use super::{
    certificates::Certificates,
    client_certificate::{self, Check, CrlEnd},
    tls::{self, TlsError},
};
use crate::config::model::{ClientAuth, ListenerTls, Versions};

/// The TLS of a listener. Its client CA and CRLs can be read again; connections keep what they began with.
pub struct ServerTls {
    certificates: Arc<Certificates>,
    versions: Versions,
    protocols: &'static [&'static [u8]],
    clients: Option<ClientAuth>,
    current: RwLock<Offer>,
}

struct Offer {
    config: Arc<ServerConfig>,
    crls: Vec<CrlEnd>,
}

impl ServerTls {
    /// Reads what is to be known of clients.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn new(certificates: Arc<Certificates>, tls: &ListenerTls) -> Result<Self, TlsError> {
        let (versions, clients) = (tls.versions, tls.clients.clone());
        let protocols = if tls.http2 { tls::HTTP2_FIRST } else { tls::ONLY_HTTP1 };
        let offer = offer(&certificates, versions, protocols, clients.as_ref())?;
        Ok(Self { certificates, versions, protocols, clients, current: RwLock::new(offer) })
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
        if self.clients.is_some() {
            let fresh = offer(&self.certificates, self.versions, self.protocols, self.clients.as_ref())?;
            *self.current.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        }
        Ok(())
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
    versions: Versions,
    protocols: &[&[u8]],
    clients: Option<&ClientAuth>,
) -> Result<Offer, TlsError> {
    let check = clients.map(client_certificate::check).transpose()?;
    let (verifier, crls) = check.map(|Check { verifier, crls }| (verifier, crls)).unzip();
    let config = tls::server_config(Arc::clone(certificates), versions, protocols, verifier)?;
    Ok(Offer { config: Arc::new(config), crls: crls.unwrap_or_default() })
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls").field("versions", &self.versions).field("clients", &self.clients).finish()
    }
}
