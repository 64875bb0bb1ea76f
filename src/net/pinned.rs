//! Certificates of which the key must be known beforehand.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use thiserror::Error;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::protocol::pin::Pin;

/// The key was another one.
#[derive(Clone, Copy, Debug, Error)]
#[error("the key is {seen}, which is none of the pins")]
pub(super) struct PinMismatch {
    /// Of the certificate that was shown.
    pub(super) seen: Pin,
}

/// Asks `chain`, and then for a key that is known.
#[derive(Debug)]
pub(super) struct Pinned {
    pub(super) chain: Arc<dyn ServerCertVerifier>,
    /// At least one.
    pub(super) pins: Box<[Pin]>,
}

/// The pin of a certificate's key.
fn pin(certificate: &CertificateDer<'_>) -> Result<Pin, CertificateError> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| CertificateError::BadEncoding)?;
    let hash = digest(&SHA256, parsed.public_key().raw);
    hash.as_ref().try_into().map(Pin).map_err(|_| CertificateError::BadEncoding)
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self.chain.verify_server_cert(leaf, intermediates, name, ocsp, now)?;
        let seen = pin(leaf)?;
        if self.pins.contains(&seen) {
            return Ok(verified);
        }
        Err(CertificateError::Other(OtherError(Arc::new(PinMismatch { seen }))).into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
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
