//! Certificates of which the key must be known beforehand.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use thiserror::Error;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::certificate_error;
use crate::protocol::pin::Pin;

/// The key was another one.
#[derive(Clone, Copy, Debug, Error)]
#[error("the key is {seen}, which is none of the pins")]
pub(super) struct PinMismatch {
    /// Of the certificate that was shown.
    pub(super) seen: Pin,
}

/// The certificate is that of a CA, and cannot be a server's.
#[derive(Clone, Copy, Debug, Error)]
#[error("a CA certificate is used as a server certificate; its key is {seen}")]
pub(super) struct CaPresented {
    /// The pin of its key.
    pub(super) seen: Pin,
    pub(super) self_signed: bool,
}

/// Checks the chain, and then that the key is a known one where pins are set.
#[derive(Debug)]
pub(super) struct Chain {
    pub(super) inner: Arc<dyn ServerCertVerifier>,
    /// None: any key.
    pub(super) pins: Box<[Pin]>,
}

/// Trusts a certificate for its key alone: no chain, no name and no date. The peer still has to sign the handshake with it.
#[derive(Debug)]
pub(super) struct KeyAlone {
    pub(super) algorithms: WebPkiSupportedAlgorithms,
    /// At least one.
    pub(super) pins: Box<[Pin]>,
}

fn check(pins: &[Pin], leaf: &CertificateDer<'_>) -> Result<(), Error> {
    let seen = pin(leaf)?;
    if pins.contains(&seen) {
        return Ok(());
    }
    Err(CertificateError::Other(OtherError(Arc::new(PinMismatch { seen }))).into())
}

/// Adds details from the certificate to an error of its chain.
fn explained(error: Error, leaf: &CertificateDer<'_>) -> Error {
    // The CA has a new key under its old name; handshake signatures are checked elsewhere.
    if error == Error::InvalidCertificate(CertificateError::BadSignature) {
        return CertificateError::UnknownIssuer.into();
    }
    let presented = certificate_error::is_ca_as_peer(&error).then(|| presented(leaf)).flatten();
    presented.map_or(error, |presented| CertificateError::Other(OtherError(Arc::new(presented))).into())
}

fn presented(leaf: &CertificateDer<'_>) -> Option<CaPresented> {
    let (_, parsed) = X509Certificate::from_der(leaf).ok()?;
    Some(CaPresented { seen: pin(leaf).ok()?, self_signed: parsed.subject().as_raw() == parsed.issuer().as_raw() })
}

/// The pin of a certificate's key.
pub(super) fn pin(certificate: &CertificateDer<'_>) -> Result<Pin, CertificateError> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| CertificateError::BadEncoding)?;
    let hash = digest(&SHA256, parsed.public_key().raw);
    hash.as_ref().try_into().map(Pin).map_err(|_| CertificateError::BadEncoding)
}

impl ServerCertVerifier for Chain {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self.inner.verify_server_cert(leaf, intermediates, name, ocsp, now);
        let verified = verified.map_err(|error| explained(error, leaf))?;
        if !self.pins.is_empty() {
            check(&self.pins, leaf)?;
        }
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

impl ServerCertVerifier for KeyAlone {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        check(&self.pins, leaf).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::pem::PemObject;

    use super::*;

    /// Made by another hand: `openssl req -x509 -newkey ed25519`, and for the pin
    /// `openssl x509 -pubkey -noout | openssl pkey -pubin -outform der | openssl dgst -sha256 -binary | base64`.
    const CERTIFICATE: &str = "\
-----BEGIN CERTIFICATE-----
MIIBPDCB76ADAgECAhR8I8wGs2SK1KrA8qqk6RZ5q0nuMzAFBgMrZXAwEzERMA8G
A1UEAwwIcGluLnRlc3QwIBcNMjYxMTIxMTUxMTM5WhgPMjEyNjEwMjgxNTExMzla
MBMxETAPBgNVBAMMCHBpbi50ZXN0MCowBQYDK2VwAyEA9L4ed9250EBJuawF8E2i
gkSPenBJs9UmU+yPjHd+4bCjUzBRMB0GA1UdDgQWBBTSY8f8zOKGLXmqyJ/uZWLq
aYZ4GTAfBgNVHSMEGDAWgBTSY8f8zOKGLXmqyJ/uZWLqaYZ4GTAPBgNVHRMBAf8E
BTADAQH/MAUGAytlcANBANwW0sKu0X6HfFVBJ96Joqba2mBZNWjoJsam6lNFQzPb
VZoWPMlcz8RblZK3o45EDHvDQxin3EwnAkjlgroaOA0=
-----END CERTIFICATE-----";
    const PIN: &str = "sha256/avgD0hxvptUqQcpqqhkwU5vclYiRnUhHlDY9cF6WsWI=";

    #[test]
    fn the_pin_is_what_openssl_makes_of_the_key() {
        let certificate = CertificateDer::from_pem_slice(CERTIFICATE.as_bytes()).unwrap();
        assert_eq!(pin(&certificate).unwrap().to_string(), PIN);
        assert!(pin(&CertificateDer::from(vec![0x30, 0])).is_err());
    }
}
