//! rustls towards upstreams: whom we trust.

use std::{path::Path, sync::Arc};

use rustls::{
    ClientConfig, Error, RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier},
    crypto::CryptoProvider,
};
use rustls_platform_verifier::Verifier;

use super::tls::{HTTP1, TlsError, certificates, provider};

/// The client side of TLS: certificates must lead to one in `ca`, or to a root of this system.
///
/// # Errors
/// See [`TlsError`].
pub fn client_config(ca: Option<&Path>) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = provider();
    let verifier = verifier(ca, &provider)?;
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(rustls::DEFAULT_VERSIONS)?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = vec![HTTP1.to_vec()];
    Ok(Arc::new(config))
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
