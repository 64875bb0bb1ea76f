//! rustls on both sides: certificates from PEM files, TLS 1.2 and 1.3, ALPN.

use std::{
    future::{Future, poll_fn},
    io,
    path::{Path, PathBuf},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use rustls::{
    ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{NoServerSessionStorage, VerifierBuilderError, danger::ClientCertVerifier},
    sign::CertifiedKey,
};
use thiserror::Error;
use tokio::{net::TcpStream, time::timeout};

pub use super::tls_client::client_config;
use super::{
    certificate_names::CertificateNames,
    certificates::{self, Certificates},
    challenges,
    client_certificate::ClientCertificate,
    handshakes::Failure,
    tls_stream::{self, ServerStream},
};
use crate::config::model::Versions;

/// What is wrong with TLS material; each message names the file and the cure.
#[derive(Debug, Error)]
pub enum TlsError {
    /// The file is not there or may not be read.
    #[error("cannot read {what} {}: {source}; check the path and that this user may read it", path.display())]
    Unreadable {
        /// What the file should hold.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file holds something else.
    #[error("{} holds no {what} in PEM form; expected `-----BEGIN {label}-----`", path.display())]
    NotPem {
        /// What the file should hold.
        what: &'static str,
        /// The PEM label looked for.
        label: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// The key has a passphrase.
    #[error("private key {} is encrypted; store it decrypted, readable for this user alone (openssl pkey -in … -out …)", path.display())]
    EncryptedKey {
        /// The file.
        path: PathBuf,
    },
    /// The key is another certificate's.
    #[error("key {} does not belong to certificate {}; name the pair that was issued together, leaf first in the chain", key.display(), certificate.display())]
    Mismatch {
        /// The certificate chain.
        certificate: PathBuf,
        /// The key.
        key: PathBuf,
    },
    /// The certificate is malformed, or the kind of key is not supported.
    #[error("certificate {} and key {} cannot be used together: {source}", certificate.display(), key.display())]
    Unusable {
        /// The certificate chain.
        certificate: PathBuf,
        /// The key.
        key: PathBuf,
        /// What rustls said.
        source: rustls::Error,
    },
    /// The leaf can be sent, and not be read: nobody could check it.
    #[error("certificate {} is malformed; have it issued anew", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
    },
    /// A CA file with a certificate that is none.
    #[error("{} holds a certificate that cannot be a root: {source}", path.display())]
    BadRoot {
        /// The file.
        path: PathBuf,
        /// What rustls said.
        source: rustls::Error,
    },
    /// A list of revoked certificates that cannot be used.
    #[error("{} holds a CRL that cannot be used: {source}; have its CA issue it anew", path.display())]
    BadCrl {
        /// The file.
        path: PathBuf,
        /// What rustls said.
        source: VerifierBuilderError,
    },
    /// The system has no usable root certificates.
    #[error("no root certificates found on this system; install ca-certificates or name a `ca` file for the upstream")]
    NoRoots,
    /// rustls could not be set up at all.
    #[error("TLS cannot be set up: {0}")]
    Setup(#[from] rustls::Error),
}

/// Names of ALPN (RFC 7301 §6).
pub(super) const HTTP1: &[u8] = b"http/1.1";
pub(super) const HTTP2: &[u8] = b"h2";

/// For a listener that speaks HTTP/1.1 alone.
pub const ONLY_HTTP1: &[&[u8]] = &[HTTP1];

/// For a listener that speaks HTTP/2 with whoever knows it.
pub const HTTP2_FIRST: &[&[u8]] = &[HTTP2, HTTP1];

pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

pub(super) fn read(path: &Path, what: &'static str) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Unreadable { what, path: path.to_owned(), source })
}

pub(super) fn certificates(path: &Path, what: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = read(path, what)?;
    let not_pem = || TlsError::NotPem { what, label: "CERTIFICATE", path: path.to_owned() };
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().map_err(|_| not_pem())?;
    if chain.is_empty() { Err(not_pem()) } else { Ok(chain) }
}

fn unusable(certificate: &Path, key: &Path, source: rustls::Error) -> TlsError {
    let (certificate, key) = (certificate.to_owned(), key.to_owned());
    match source {
        rustls::Error::InconsistentKeys(_) => TlsError::Mismatch { certificate, key },
        source => TlsError::Unusable { certificate, key, source },
    }
}

/// A chain with its key, which belongs to it.
pub(super) fn certified(certificate: &Path, key: &Path) -> Result<CertifiedKey, TlsError> {
    let chain = certificates(certificate, "certificate")?;
    let pem = read(key, "private key")?;
    if String::from_utf8_lossy(&pem).contains("ENCRYPTED") {
        return Err(TlsError::EncryptedKey { path: key.to_owned() });
    }
    let private = PrivateKeyDer::from_pem_slice(&pem).map_err(|_| TlsError::NotPem {
        what: "private key",
        label: "PRIVATE KEY",
        path: key.to_owned(),
    })?;
    CertifiedKey::from_der(chain, private, &provider()).map_err(|source| unusable(certificate, key, source))
}

/// The server side of one TLS listener, and the check of its clients' certificates if they are asked for one.
///
/// `protocols` are those it speaks, the most wanted first.
///
/// # Errors
/// See [`TlsError`].
pub fn server_config(
    certificates: Arc<Certificates>,
    versions: Versions,
    protocols: &[&[u8]],
    clients: Option<Arc<dyn ClientCertVerifier>>,
) -> Result<ServerConfig, TlsError> {
    let versions: &[_] = match versions {
        Versions::Intermediate => rustls::DEFAULT_VERSIONS,
        Versions::Modern => &[&rustls::version::TLS13],
    };
    let answers_validations = certificates.answers_validations();
    let builder = ServerConfig::builder_with_provider(provider()).with_protocol_versions(versions)?;
    let asks = clients.is_some();
    let builder = match clients {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(certificates);
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    if answers_validations {
        // Last: whoever speaks anything else too is no validation.
        config.alpn_protocols.push(challenges::ACME_TLS.to_vec());
    }
    if asks {
        // rustls takes the client's certificate from the ticket and does not check it again: a resumed session would
        // let in who has been revoked since. No tickets of either version, and nothing that could be resumed.
        config.send_tls13_tickets = 0;
        config.max_tls13_tickets = 0;
    } else {
        // A key of its own for each listener: what one has let in, another must not take for its own.
        // It changes every six hours and is known for six more, then nobody can read what was recorded with a ticket.
        config.ticketer = aws_lc_rs::Ticketer::new()?;
    }
    // Sessions that are kept here would outlive those keys: rustls forgets them only when it needs the room.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(config)
}

/// What is known of a connection from its TLS handshake.
#[derive(Clone, Debug, Default)]
pub struct TlsFacts {
    /// The host that was asked for (RFC 6066 §3).
    pub server_name: Option<Box<str>>,
    /// The names of the certificate that was chosen for the connection.
    pub certificate: Option<Arc<CertificateNames>>,
    /// Whether HTTP/2 was agreed on (RFC 7301); else it is HTTP/1.1.
    pub http2: bool,
    /// The certificate that the client presented, verified.
    pub client: Option<Arc<ClientCertificate>>,
}

/// The TLS handshake of an accepted connection, within `limit`: its stream, and what it told.
///
/// # Errors
/// What the client did wrong, of which it was told, or that it was gone or too slow.
pub async fn accept(
    config: Arc<ServerConfig>,
    stream: TcpStream,
    limit: Duration,
) -> Result<(Box<ServerStream>, TlsFacts), Failure> {
    let mut handshake = pin!(tls_stream::accept(config, stream));
    let mut asked = None;
    let accepted = poll_fn(|cx| {
        let polled = handshake.as_mut().poll(cx);
        if let Some(now) = certificates::take_asked() {
            asked = Some(now);
        }
        polled
    });
    let Ok(accepted) = timeout(limit, accepted).await else { return Err(Failure::timeout()) };
    let is_known = asked.as_ref().is_none_or(|asked| asked.is_known);
    let stream = accepted.map_err(|error| Failure::new(error, is_known))?;
    let http2 = stream.facts().alpn_protocol() == Some(HTTP2);
    let leaf = stream.facts().peer_certificates().and_then(<[_]>::first);
    let client = leaf.map(|leaf| Arc::new(ClientCertificate::of(leaf)));
    let (server_name, certificate) = asked.map(|asked| (asked.name, asked.certificate)).unwrap_or_default();
    Ok((stream, TlsFacts { server_name, certificate, http2, client }))
}
