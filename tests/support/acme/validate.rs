//! Looking at a challenge from the outside, as a CA does.

use std::sync::Arc;

use aws_lc_rs::{
    digest,
    signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey},
};
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::aws_lc_rs::default_provider,
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use tokio::{io::AsyncReadExt, net::TcpStream};
use tokio_rustls::TlsConnector;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::Look;
use crate::support::Client;

/// Whether the challenge is met; what is wrong with the answer if not.
pub(crate) async fn look(at: &Look, kind: &str, host: &str, token: &str, thumbprint: &str) -> Result<(), String> {
    let authorization = format!("{token}.{thumbprint}");
    match (at, kind) {
        (Look::Tls(address), "tls-alpn-01") => {
            let digest = digest::digest(&digest::SHA256, authorization.as_bytes());
            tls(address, host, digest.as_ref()).await
        }
        (Look::Http(address), "http-01") => http(address, host, token, &authorization).await,
        _ => Err(format!("nothing answers {kind}")),
    }
}

/// RFC 8555 §8.3.
async fn http(address: &str, host: &str, token: &str, authorization: &str) -> Result<(), String> {
    let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    let request = format!("GET /.well-known/acme-challenge/{token} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let answer = Client::new(stream).ask(request).await;
    if answer.status == 200 && answer.text() == authorization {
        return Ok(());
    }
    Err(format!("{} with {:?}", answer.status, answer.text()))
}

/// RFC 8737 §3.
async fn tls(address: &str, host: &str, digest: &[u8]) -> Result<(), String> {
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap().dangerous();
    let mut config = builder.with_custom_certificate_verifier(Arc::new(AnyCertificate)).with_no_client_auth();
    config.alpn_protocols = vec![b"acme-tls/1".to_vec()];
    let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    let name = ServerName::try_from(host.to_owned()).unwrap();
    let mut stream =
        TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(|error| error.to_string())?;
    let session = stream.get_ref().1;
    if session.alpn_protocol() != Some(b"acme-tls/1") {
        return Err(format!("ALPN {:?}", session.alpn_protocol()));
    }
    let [leaf] = session.peer_certificates().unwrap_or_default() else { return Err("not one certificate".into()) };
    let (_, leaf) = X509Certificate::from_der(leaf).map_err(|error| error.to_string())?;
    let names = leaf.subject_alternative_name().unwrap().map(|names| names.value.general_names.clone());
    if !matches!(names.as_deref(), Some([GeneralName::DNSName(name)]) if *name == host) {
        return Err(format!("a certificate for {names:?}"));
    }
    // id-pe-acmeIdentifier, critical, an OCTET STRING of 32 bytes.
    let found = leaf.extensions().iter().find(|found| found.oid.to_id_string() == "1.3.6.1.5.5.7.1.31");
    let found = found.ok_or("no acmeIdentifier")?;
    if !found.critical || found.value != [&[4, 32], digest].concat() {
        return Err("another acmeIdentifier".into());
    }
    match stream.read(&mut [0; 16]).await {
        Ok(0) | Err(_) => Ok(()),
        Ok(count) => Err(format!("{count} bytes after the handshake")),
    }
}

/// The certificate of a validation is trusted by nobody; what counts is what stands in it.
#[derive(Debug)]
struct AnyCertificate;

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify_tls13_signature(message, certificate, signature)
    }

    /// By hand: rustls reads no certificate with a critical extension that it does not know.
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let (_, leaf) = X509Certificate::from_der(certificate).map_err(|error| Error::General(error.to_string()))?;
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &leaf.public_key().subject_public_key.data)
            .verify(message, signature.signature())
            .map_err(|_| Error::General("not signed with the key of the certificate".into()))?;
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}
