//! TLS clients: whom they trust, how they connect, and what they are shown.

use std::{path::Path, sync::Arc};

use rustls::{
    ClientConfig, ConfigBuilder, RootCertStore, SupportedProtocolVersion,
    client::WantsClientCert,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::net::{TcpStream, ToSocketAddrs};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::within;

/// The root of listeners in this folder that have `development = true`.
pub(crate) fn development_root(folder: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(folder.join("ca.pem")).unwrap()
}

/// A client that trusts these roots; whether it has a certificate of its own is still to be said.
pub(crate) fn trusting(
    roots: &[CertificateDer<'static>],
    versions: &[&'static SupportedProtocolVersion],
) -> ConfigBuilder<ClientConfig, WantsClientCert> {
    let mut store = RootCertStore::empty();
    roots.iter().for_each(|root| store.add(root.clone()).unwrap());
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    builder.with_protocol_versions(versions).unwrap().with_root_certificates(store)
}

/// Connects, and offers `name` in the handshake unless it is an address.
pub(crate) async fn connect(
    address: impl ToSocketAddrs,
    name: &'static str,
    config: impl Into<Arc<ClientConfig>>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let connector = TlsConnector::from(config.into());
    let stream = TcpStream::connect(address).await?;
    within("TLS handshake", connector.connect(ServerName::try_from(name).unwrap(), stream)).await
}

/// The certificate that the client was shown.
pub(crate) fn leaf(stream: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}
