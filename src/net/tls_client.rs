//! rustls towards upstreams: whom we trust, and who we are.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use rustls::{
    ClientConfig, Error, RootCertStore, SignatureScheme,
    client::{ResolvesClientCert, Resumption, WebPkiServerVerifier, danger::ServerCertVerifier},
    crypto::CryptoProvider,
    sign::CertifiedKey,
};
use rustls_platform_verifier::Verifier;

use super::{
    certificates::{Certificates, Stamp},
    pinned::{Chain, KeyAlone},
    tls::{HTTP1, HTTP2, TlsError, certificates, provider},
};
use crate::{
    config::model::{PairFiles, Protocol, Trust, Unnamed, UpstreamTls},
    protocol::pin::Pin,
};

/// The client side of TLS: certificates must lead to one in `ca`, or to a root of this system.
///
/// # Errors
/// See [`TlsError`].
pub fn client_config(ca: Option<&Path>) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = provider();
    config(chain(ca, &[], &provider)?, provider, None, HTTP1)
}

/// The client side of TLS with one upstream.
#[derive(Debug)]
pub struct ClientTls {
    /// For so many reloads of the identity.
    config: Mutex<(usize, Arc<ClientConfig>)>,
    identity: Option<Identity>,
}

/// A certificate of ours that upstreams are shown.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Its files; just one pair.
    pub files: Vec<PairFiles>,
    /// As the files were before they were read.
    pub stamp: Stamp,
    /// What is shown now; a reload changes what the next handshake shows.
    pub certificates: Arc<Certificates>,
}

impl Identity {
    fn load(pair: &PairFiles) -> Result<Self, TlsError> {
        let files = vec![pair.clone()];
        let stamp = Stamp::of(&files, std::iter::empty());
        let certificates = Arc::new(Certificates::load(&files, Unnamed::First)?);
        Ok(Self { files, stamp, certificates })
    }
}

impl ClientTls {
    /// For HTTP/1.1 with somebody who need not know who we are.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn anonymous(ca: Option<&Path>) -> Result<Self, TlsError> {
        Ok(Self { config: Mutex::new((0, client_config(ca)?)), identity: None })
    }

    /// Reads all that its config names.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn load(tls: &UpstreamTls, protocol: Protocol) -> Result<Self, TlsError> {
        let identity = tls.pair.as_ref().map(Identity::load).transpose()?;
        let shown = identity.as_ref().map(|identity| Arc::clone(&identity.certificates));
        let spoken = match protocol {
            Protocol::Http1 => HTTP1,
            Protocol::Http2 => HTTP2,
        };
        let provider = provider();
        let verifier: Arc<dyn ServerCertVerifier> = match tls.trust {
            Trust::Chain => chain(tls.ca.as_deref(), &tls.pins, &provider)?,
            Trust::Pin => Arc::new(KeyAlone {
                algorithms: provider.signature_verification_algorithms,
                pins: tls.pins.as_slice().into(),
            }),
        };
        Ok(Self { config: Mutex::new((0, config(verifier, provider, shown, spoken)?)), identity })
    }

    /// Who we are there, if anybody.
    pub fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// For the next handshake.
    pub(super) fn config(&self) -> Arc<ClientConfig> {
        let reloads = self.identity.as_ref().map_or(0, |identity| identity.certificates.reloads());
        let mut current = self.config.lock().unwrap_or_else(PoisonError::into_inner);
        let (known, config) = &mut *current;
        if *known != reloads {
            // A resumed session goes on with the certificate that it began with: a new one begins with none to resume.
            let mut fresh = ClientConfig::clone(config);
            fresh.resumption = Resumption::default();
            (*known, *config) = (reloads, Arc::new(fresh));
        }
        Arc::clone(config)
    }
}

impl ResolvesClientCert for Certificates {
    fn resolve(&self, _: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        // Whatever authorities the upstream names: it says more about a certificate that it does not like than about none.
        self.choose(None, schemes)
    }

    fn has_certs(&self) -> bool {
        true
    }
}

fn config(
    verifier: Arc<dyn ServerCertVerifier>,
    provider: Arc<CryptoProvider>,
    shown: Option<Arc<Certificates>>,
    protocol: &[u8],
) -> Result<Arc<ClientConfig>, TlsError> {
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(rustls::DEFAULT_VERSIONS)?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match shown {
        Some(certificates) => builder.with_client_cert_resolver(certificates),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![protocol.to_vec()];
    Ok(Arc::new(config))
}

fn chain(ca: Option<&Path>, pins: &[Pin], provider: &Arc<CryptoProvider>) -> Result<Arc<Chain>, TlsError> {
    Ok(Arc::new(Chain { inner: verifier(ca, provider)?, pins: pins.into() }))
}

fn verifier(ca: Option<&Path>, provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ServerCertVerifier>, TlsError> {
    let Some(path) = ca else {
        // On Linux it reads what OpenSSL would, `SSL_CERT_FILE` included; elsewhere it asks the system.
        return match Verifier::new(Arc::clone(provider)) {
            Ok(verifier) => Ok(Arc::new(verifier)),
            Err(Error::General(_)) => Err(TlsError::NoRoots),
            Err(error) => Err(error.into()),
        };
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path, "CA certificate")? {
        roots.add(certificate).map_err(|source| TlsError::BadRoot { path: path.to_owned(), source })?;
    }
    let built = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider)).build();
    Ok(built.map_err(|error| Error::General(error.to_string()))?)
}
