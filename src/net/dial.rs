//! Connecting to an endpoint within a deadline: over TCP, plain or TLS, or a Unix-domain socket.

use std::{
    error::Error as StdError,
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rustls::{AlertDescription, pki_types::ServerName};
use thiserror::Error;
use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    net::{TcpStream, UnixStream},
    time::{Instant, sleep, timeout_at},
};

use super::{
    Wire,
    listener::prepare,
    proxy_header::{self, OnBehalfOf},
    tls::HTTP2,
    tls_client::{ClientTls, Identity},
    tls_failure::TlsFailure,
    tls_stream,
};
use crate::config::model::ProxyVersion;

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
    /// A Unix-domain socket did not take the connection.
    #[error("cannot connect to unix:{}: {error}{}", path.display(), cure(error.kind()))]
    Unix {
        /// The socket's file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// It did not take the PROXY header.
    #[error("cannot send {address} the PROXY header (proxy_protocol)")]
    ProxyHeader {
        /// `host:port` or the socket's path, as configured.
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
    /// It was asked for HTTP/2 in the TLS handshake, and did not agree.
    #[error("{address} does not speak HTTP/2 (ALPN `h2`); leave out `protocol = \"h2\"`, or turn it on there")]
    NoHttp2 {
        /// `host:port` as configured.
        address: String,
    },
    /// `dial_timeout` ran out.
    #[error("no {stage} {address} within {limit:?} (dial_timeout)")]
    Timeout {
        /// How far it had come.
        stage: Stage,
        /// `host:port` as configured.
        address: String,
        /// The limit.
        limit: Duration,
    },
}

/// What a dial was waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Its name, TCP, or room in its backlog.
    Connection,
    /// TLS, over a connection that it had taken.
    TlsHandshake,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connection => "connection to",
            Self::TlsHandshake => "TLS handshake with",
        })
    }
}

fn cure(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::NotFound => "; start the upstream, which makes the file, or correct `url`",
        io::ErrorKind::PermissionDenied => {
            "; let this user write to the socket and enter its folders (a group of both, and mode 0660)"
        }
        io::ErrorKind::ConnectionRefused => {
            "; nobody listens there: the file is left from a process that has ended, or is no socket. Start the upstream"
        }
        _ => "",
    }
}

impl DialError {
    /// A fixed word for logs and counters.
    pub fn rule(&self) -> &'static str {
        match self {
            Self::Connect { .. } | Self::Unix { .. } | Self::ProxyHeader { .. } | Self::Timeout { .. } => {
                "upstream-dial"
            }
            Self::Tls { reason, .. } => reason.rule(),
            Self::NoHttp2 { .. } => "upstream-no-http2",
        }
    }
}

/// First and longest pause before a Unix-domain socket is tried again whose backlog is full: the kernel tells nobody
/// when there is room.
const FULL: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));

#[derive(Clone)]
enum Place {
    Tcp { host: String, port: u16, tls: Option<Box<Secured>> },
    Unix(PathBuf),
}

/// TLS, and the name that the certificate must be for.
#[derive(Clone)]
struct Secured {
    tls: Arc<ClientTls>,
    name: ServerName<'static>,
}

/// Reaches one place.
#[derive(Clone)]
pub struct Dialer {
    place: Place,
    proxy_protocol: Option<ProxyVersion>,
    limit: Duration,
}

impl Dialer {
    /// Reaches `host:port` in clear.
    pub fn plain(host: String, port: u16, limit: Duration) -> Self {
        Self { place: Place::Tcp { host, port, tls: None }, proxy_protocol: None, limit }
    }

    /// Reaches `host:port` over TLS and expects a certificate for `name`.
    pub fn tls(host: String, port: u16, limit: Duration, tls: Arc<ClientTls>, name: ServerName<'static>) -> Self {
        let tls = Some(Box::new(Secured { tls, name }));
        Self { place: Place::Tcp { host, port, tls }, proxy_protocol: None, limit }
    }

    /// Reaches the process that listens on a Unix-domain socket, in clear.
    pub fn unix(path: PathBuf, limit: Duration) -> Self {
        Self { place: Place::Unix(path), proxy_protocol: None, limit }
    }

    /// Begins each connection with a PROXY header of this version, if any.
    #[must_use]
    pub fn announcing(self, proxy_protocol: Option<ProxyVersion>) -> Self {
        Self { proxy_protocol, ..self }
    }

    /// Who we are for the one that is reached, if anybody.
    pub fn identity(&self) -> Option<&Identity> {
        self.secured().and_then(|secured| secured.tls.identity())
    }

    /// One fresh connection, for this client or for ourselves. The limit covers name resolution, TCP and TLS together.
    ///
    /// # Errors
    /// See [`DialError`].
    pub async fn dial(&self, whom: Option<&OnBehalfOf>) -> Result<Wire, DialError> {
        let deadline = Instant::now() + self.limit;
        let late = |stage| DialError::Timeout { stage, address: self.address(), limit: self.limit };
        match &self.place {
            Place::Tcp { host, port, tls } => {
                let connected = timeout_at(deadline, self.connect_tcp(host, *port, whom)).await;
                let stream = connected.map_err(|_| late(Stage::Connection))??;
                let Some(secured) = tls else { return Ok(Wire::Tcp(stream)) };
                let encrypted = timeout_at(deadline, self.encrypt(stream, secured)).await;
                encrypted.map_err(|_| late(Stage::TlsHandshake))?
            }
            Place::Unix(path) => {
                let connected = timeout_at(deadline, self.connect_unix(path, whom)).await;
                connected.map_err(|_| late(Stage::Connection))?.map(Wire::boxed)
            }
        }
    }

    fn secured(&self) -> Option<&Secured> {
        match &self.place {
            Place::Tcp { tls, .. } => tls.as_deref(),
            Place::Unix(_) => None,
        }
    }

    fn address(&self) -> String {
        match &self.place {
            Place::Tcp { host, port, .. } => format!("{host}:{port}"),
            Place::Unix(path) => format!("unix:{}", path.display()),
        }
    }

    async fn connect_tcp(&self, host: &str, port: u16, whom: Option<&OnBehalfOf>) -> Result<TcpStream, DialError> {
        let bare_host = host.trim_start_matches('[').trim_end_matches(']');
        let mut stream = TcpStream::connect((bare_host, port))
            .await
            .map_err(|source| DialError::Connect { address: self.address(), source })?;
        prepare(&stream);
        self.announce(&mut stream, whom).await?;
        Ok(stream)
    }

    /// Waits for room in the listener's backlog for as long as it is awaited.
    async fn connect_unix(&self, path: &Path, whom: Option<&OnBehalfOf>) -> Result<UnixStream, DialError> {
        let mut pause = FULL.0;
        let mut stream = loop {
            match UnixStream::connect(path).await {
                Ok(stream) => break stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    sleep(pause).await;
                    pause = (pause * 2).min(FULL.1);
                }
                Err(error) => return Err(DialError::Unix { path: path.to_owned(), error }),
            }
        };
        self.announce(&mut stream, whom).await?;
        Ok(stream)
    }

    async fn encrypt(&self, stream: TcpStream, secured: &Secured) -> Result<Wire, DialError> {
        let config = secured.tls.config();
        let encrypted = tls_stream::connect(Arc::clone(&config), secured.name.clone(), stream).await;
        let wants_http2 = config.alpn_protocols.iter().any(|name| name == HTTP2);
        match encrypted {
            Ok(stream) if wants_http2 && stream.facts().alpn_protocol() != Some(HTTP2) => {}
            Ok(stream) => return Ok(Wire::Boxed(stream)),
            Err(error) if wants_http2 && is_no_protocol(&error) => {}
            Err(error) => return Err(self.tls_failed(TlsFailure::of(error, &config))),
        }
        Err(DialError::NoHttp2 { address: self.address() })
    }

    /// Says whose connection it is, before TLS or anything else.
    async fn announce(
        &self,
        stream: &mut (impl AsyncWrite + Unpin),
        whom: Option<&OnBehalfOf>,
    ) -> Result<(), DialError> {
        let Some(version) = self.proxy_protocol else { return Ok(()) };
        let failed = |source| DialError::ProxyHeader { address: self.address(), source };
        let header = proxy_header::encode(version, whom).map_err(failed)?;
        stream.write_all(&header).await.map_err(failed)
    }

    fn tls_failed(&self, reason: TlsFailure) -> DialError {
        DialError::Tls { address: self.address(), reason: Box::new(reason) }
    }

    /// The failed handshake behind an error of a connection that was dialled.
    ///
    /// With TLS 1.3 a client is done before the server has looked at its certificate.
    pub fn late_failure(&self, error: &(dyn StdError + 'static)) -> Option<DialError> {
        let config = self.secured()?.tls.config();
        TlsFailure::late(error, &config).map(|reason| self.tls_failed(reason))
    }
}

/// Whether the server speaks none of the protocols that were offered (RFC 7301 §3.2).
fn is_no_protocol(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(inner, Some(rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol)))
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialer").field("address", &self.address()).field("tls", &self.secured().is_some()).finish()
    }
}
