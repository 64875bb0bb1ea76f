//! Connecting to an endpoint, plain or TLS, within a deadline.

use std::{error::Error as StdError, io, sync::Arc, time::Duration};

use rustls::pki_types::ServerName;
use thiserror::Error;
use tokio::{net::TcpStream, time::timeout};

use super::{
    Wire,
    listener::prepare,
    tls_client::{ClientTls, Identity},
    tls_failure::TlsFailure,
    tls_stream,
};

/// Why an endpoint could not be reached.
#[derive(Debug, Error)]
pub enum DialError {
    /// The name did not resolve, or no address of it took the connection.
    #[error("cannot connect to {address}")]
    Connect {
        /// `host:port` as configured.
        address: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It was there; the TLS handshake failed.
    #[error("TLS handshake with {address} failed")]
    Tls {
        /// `host:port` as configured.
        address: String,
        /// The reason.
        #[source]
        reason: Box<TlsFailure>,
    },
    /// `dial_timeout` ran out.
    #[error("no connection to {address} within {limit:?} (dial_timeout)")]
    Timeout {
        /// `host:port` as configured.
        address: String,
        /// The limit.
        limit: Duration,
    },
}

impl DialError {
    /// A fixed word for logs and counters.
    pub fn rule(&self) -> &'static str {
        match self {
            Self::Connect { .. } | Self::Timeout { .. } => "upstream-dial",
            Self::Tls { reason, .. } => reason.rule(),
        }
    }
}

/// Reaches one `host:port`.
#[derive(Clone)]
pub struct Dialer {
    host: String,
    port: u16,
    tls: Option<(Arc<ClientTls>, ServerName<'static>)>,
    limit: Duration,
}

impl Dialer {
    /// Reaches `host:port` in clear.
    pub fn plain(host: String, port: u16, limit: Duration) -> Self {
        Self { host, port, tls: None, limit }
    }

    /// Who we are for the one that is reached, if anybody.
    pub fn identity(&self) -> Option<&Identity> {
        self.tls.as_ref().and_then(|(tls, _)| tls.identity())
    }

    /// Reaches `host:port` over TLS and expects a certificate for `name`.
    pub fn tls(host: String, port: u16, limit: Duration, tls: Arc<ClientTls>, name: ServerName<'static>) -> Self {
        Self { host, port, tls: Some((tls, name)), limit }
    }

    /// One fresh connection. The limit covers name resolution, TCP and TLS together.
    ///
    /// # Errors
    /// See [`DialError`].
    pub async fn dial(&self) -> Result<Wire, DialError> {
        match timeout(self.limit, self.connect()).await {
            Ok(done) => done,
            Err(_) => Err(DialError::Timeout { address: self.address(), limit: self.limit }),
        }
    }

    fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    async fn connect(&self) -> Result<Wire, DialError> {
        let bare_host = self.host.trim_start_matches('[').trim_end_matches(']');
        let stream = TcpStream::connect((bare_host, self.port))
            .await
            .map_err(|source| DialError::Connect { address: self.address(), source })?;
        prepare(&stream);
        let Some((tls, name)) = &self.tls else {
            return Ok(Wire::Tcp(stream));
        };
        let config = tls.config();
        let stream = tls_stream::connect(Arc::clone(&config), name.clone(), stream)
            .await
            .map_err(|error| self.tls_failed(TlsFailure::of(error, &config)))?;
        Ok(Wire::Boxed(stream))
    }

    fn tls_failed(&self, reason: TlsFailure) -> DialError {
        DialError::Tls { address: self.address(), reason: Box::new(reason) }
    }

    /// The failed handshake behind an error of a connection that was dialled.
    ///
    /// With TLS 1.3 a client is done before the server has looked at its certificate.
    pub fn late_failure(&self, error: &(dyn StdError + 'static)) -> Option<DialError> {
        let (tls, _) = self.tls.as_ref()?;
        TlsFailure::late(error, &tls.config()).map(|reason| self.tls_failed(reason))
    }
}

impl std::fmt::Debug for Dialer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dialer").field("address", &self.address()).field("tls", &self.tls.is_some()).finish()
    }
}
