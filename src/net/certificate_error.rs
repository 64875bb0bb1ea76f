//! Why a peer's certificate is refused, with the cause and the fix in words.
//!
//! rustls shows many of these as `Other(OtherError(CaUsedAsEndEntity))` and the like.

use rustls::{CertificateError, Error, OtherError};
use webpki::Error as Path;

const REISSUE: &str = "have it reissued";

/// Returns cause and fix, as a continuation of "the certificate cannot be used: ".
pub(super) fn explain(error: &CertificateError) -> String {
    use CertificateError as E;
    let (cause, fix) = match error {
        E::BadEncoding => ("it is malformed", REISSUE),
        E::Expired | E::ExpiredContext { .. } => ("it, or a certificate of its chain, has expired", "renew it"),
        E::NotValidYet | E::NotValidYetContext { .. } => (
            "it, or a certificate of its chain, is not valid yet",
            "check the clocks of this machine and of its issuer",
        ),
        E::NotValidForName | E::NotValidForNameContext { .. } => ("it is not valid for this name", REISSUE),
        E::UnknownIssuer => {
            ("its issuer is not trusted", "trust its CA, or have the peer send its intermediate certificates")
        }
        E::Revoked => ("it is revoked", REISSUE),
        E::BadSignature => {
            ("a signature is wrong: its CA was renewed under the same name, or the peer lacks its private key", REISSUE)
        }
        E::UnhandledCriticalExtension => path(&Path::UnsupportedCriticalExtension),
        E::UnknownRevocationStatus => ("no CRL says whether it is revoked", "add a CRL of its issuer"),
        E::ExpiredRevocationList | E::ExpiredRevocationListContext { .. } => {
            ("the CRL of its issuer has expired", "renew the CRL")
        }
        E::UnsupportedSignatureAlgorithmContext { .. } | E::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            UNSUPPORTED_SIGNATURE
        }
        E::InvalidPurpose | E::InvalidPurposeContext { .. } => (
            "its extended key usage does not allow this use",
            "issue it with `serverAuth` for servers and `clientAuth` for clients",
        ),
        E::InvalidOcspResponse => ("its OCSP response is invalid", "have the peer fetch a new one"),
        E::ApplicationVerificationFailure => ("this system does not accept it", "see the settings of its trust store"),
        E::Other(OtherError(inner)) => match inner.downcast_ref::<Path>() {
            Some(error) => path(error),
            None => return inner.to_string(),
        },
        other => return other.to_string(),
    };
    format!("{cause}; {fix}")
}

const UNSUPPORTED_SIGNATURE: (&str, &str) = (
    "it, or a certificate of its chain, has a key or a signature of a kind that is not supported, such as SHA-1 or RSA with \
     1024 bits",
    "issue it with ECDSA (P-256) or RSA (2048 bits), and SHA-256",
);

fn path(error: &Path) -> (&'static str, &'static str) {
    match error {
        Path::CaUsedAsEndEntity => (
            "it is a CA certificate (CA:TRUE, the default of `openssl req -x509`), which servers and clients must not present",
            "issue one with `basicConstraints = CA:FALSE`",
        ),
        Path::EndEntityUsedAsCa => (
            "a certificate of its chain was issued by one that is not a CA",
            "issue it from a CA certificate (CA:TRUE)",
        ),
        Path::CertDistrusted => ("a certificate of its chain is distrusted", "have another CA issue it"),
        Path::InvalidCertValidity => ("a certificate of its chain has an end date before its start date", REISSUE),
        Path::EmptyEkuExtension => ("the extended key usage in its chain is empty", REISSUE),
        Path::NameConstraintViolation => (
            "its names are outside the name constraints of a CA in its chain",
            "have it issued by a CA that may issue for these names",
        ),
        Path::PathLenConstraintViolated => (
            "its chain has more intermediate CAs than one of them allows (pathLenConstraint)",
            "issue it from a CA higher in the chain",
        ),
        Path::MaximumNameConstraintComparisonsExceeded
        | Path::MaximumPathBuildCallsExceeded
        | Path::MaximumPathDepthExceeded
        | Path::MaximumSignatureChecksExceeded => (
            "its chain is too long, or leads to too many paths to check",
            "have the peer send only the intermediate certificates that lead to its root",
        ),
        Path::SignatureAlgorithmMismatch => ("its two fields for the signature algorithm differ", REISSUE),
        Path::UnsupportedCertVersion => (
            "it, or a certificate of its chain, is not X.509 version 3",
            "issue it with extensions such as `subjectAltName`, for which openssl makes version 3",
        ),
        Path::UnsupportedCriticalExtension => (
            "it, or a certificate of its chain, has a critical extension that is not supported",
            "issue it without that extension",
        ),
        Path::UnsupportedNameType => ("it, or a CA of its chain, has a kind of name that is not supported", REISSUE),
        Path::BadDer
        | Path::BadDerTime
        | Path::ExtensionValueInvalid
        | Path::InvalidNetworkMaskConstraint
        | Path::InvalidSerialNumber
        | Path::MalformedDnsIdentifier
        | Path::MalformedExtensions
        | Path::MalformedNameConstraint
        | Path::TrailingData(_) => ("it, or a certificate of its chain, is malformed", REISSUE),
        Path::IssuerNotCrlSigner => {
            ("the key usage of its CA does not allow signing CRLs", "issue the CA certificate with `cRLSign`")
        }
        Path::CrlExpired { .. } => ("the CRL of its issuer has expired", "renew the CRL"),
        Path::UnknownRevocationStatus => ("no CRL says whether it is revoked", "add a CRL of its issuer"),
        Path::InvalidCrlNumber
        | Path::InvalidCrlSignatureForPublicKey
        | Path::UnsupportedCrlIssuingDistributionPoint
        | Path::UnsupportedCrlVersion
        | Path::UnsupportedDeltaCrl
        | Path::UnsupportedIndirectCrl
        | Path::UnsupportedRevocationReason
        | Path::UnsupportedRevocationReasonsPartitioning
        | Path::UnsupportedCrlSignatureAlgorithmContext(_)
        | Path::UnsupportedCrlSignatureAlgorithmForPublicKeyContext(_) => {
            ("the CRL of its issuer cannot be used", "have its CA reissue the CRL")
        }
        Path::UnsupportedSignatureAlgorithmContext(_) | Path::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => {
            UNSUPPORTED_SIGNATURE
        }
        // The other variants have their own kind in rustls or are newer than this code.
        _ => ("it, or a certificate of its chain, breaks a rule of RFC 5280", REISSUE),
    }
}

/// Whether the peer's own certificate is that of a CA.
pub(super) fn is_ca_as_peer(error: &Error) -> bool {
    let Error::InvalidCertificate(CertificateError::Other(OtherError(inner))) = error else { return false };
    matches!(inner.downcast_ref(), Some(Path::CaUsedAsEndEntity))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn every_error_of_a_path_has_a_cause_and_a_fix_and_no_name_of_a_library() {
        let path = [
            Path::CaUsedAsEndEntity,
            Path::EndEntityUsedAsCa,
            Path::CertDistrusted,
            Path::EmptyEkuExtension,
            Path::ExtensionValueInvalid,
            Path::InvalidCertValidity,
            Path::InvalidNetworkMaskConstraint,
            Path::InvalidSerialNumber,
            Path::MalformedDnsIdentifier,
            Path::MalformedExtensions,
            Path::MalformedNameConstraint,
            Path::MaximumNameConstraintComparisonsExceeded,
            Path::MaximumPathBuildCallsExceeded,
            Path::MaximumPathDepthExceeded,
            Path::MaximumSignatureChecksExceeded,
            Path::NameConstraintViolation,
            Path::PathLenConstraintViolated,
            Path::SignatureAlgorithmMismatch,
            Path::UnsupportedCertVersion,
            Path::UnsupportedCriticalExtension,
            Path::UnsupportedNameType,
            Path::InvalidCrlNumber,
            Path::UnsupportedCrlIssuingDistributionPoint,
            Path::UnsupportedCrlVersion,
            Path::UnsupportedDeltaCrl,
            Path::UnsupportedIndirectCrl,
            Path::UnsupportedRevocationReason,
            Path::UnsupportedRevocationReasonsPartitioning,
        ];
        let others = path.map(|error| CertificateError::Other(OtherError(Arc::new(error))));
        let own = [
            CertificateError::BadEncoding,
            CertificateError::UnhandledCriticalExtension,
            CertificateError::UnknownRevocationStatus,
            CertificateError::ExpiredRevocationList,
            CertificateError::InvalidPurpose,
            CertificateError::InvalidOcspResponse,
            CertificateError::ApplicationVerificationFailure,
        ];
        for error in others.into_iter().chain(own) {
            let text = explain(&error);
            assert!(text.split("; ").count() == 2, "{error:?}: {text}");
            assert!(
                !text.contains("Other") && !text.contains("Error") && !text.contains("RFC 5280"),
                "{error:?}: {text}"
            );
        }
    }

    #[test]
    fn an_error_of_another_verifier_is_shown_as_it_is() {
        let odd = CertificateError::Other(OtherError(Arc::new(std::io::Error::other("odd"))));
        assert_eq!(explain(&odd), "odd");
    }
}
