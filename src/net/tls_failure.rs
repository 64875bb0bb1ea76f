//! Why a TLS handshake with an upstream failed: the reasons an operator can do something about, told apart.

use std::{error::Error as StdError, io, time::Duration};

use rustls::{
    AlertDescription, CertificateError, ClientConfig, Error, InvalidMessage, OtherError,
    pki_types::{ServerName, UnixTime},
};
use thiserror::Error;

use super::{
    certificate_error::explain,
    pinned::{CaPresented, PinMismatch},
};
use crate::protocol::pin::Pin;

/// The most names of a certificate that are shown.
const NAMES_SHOWN: usize = 8;

/// Why there is no TLS. Each message says what to do.
#[derive(Debug, Error)]
pub enum TlsFailure {
    /// A certificate of the chain has ended.
    #[error("a certificate of its chain ended {} ago; renew it", shown(*ago))]
    Expired {
        /// Since when.
        ago: Option<Duration>,
    },
    /// A certificate of the chain has not begun.
    #[error("a certificate of its chain begins in {}; set the clock of this machine, or of its issuer", shown(*ahead))]
    NotYetValid {
        /// Until when.
        ahead: Option<Duration>,
    },
    /// The certificate is for others.
    #[error(
        "its certificate is not for `{expected}` but for {}; set `server_name` to one of these, or have it issued anew",
        listed(presented)
    )]
    WrongName {
        /// The host of the URL, or `server_name`.
        expected: String,
        /// The names it is for.
        presented: Vec<String>,
    },
    /// The chain leads nowhere we know.
    #[error(
        "its certificate leads to no trusted root; name its CA as `ca`, or let it send its intermediate certificates"
    )]
    UnknownIssuer,
    /// The issuer took it back.
    #[error("its certificate is revoked; have it issued anew")]
    Revoked,
    /// The certificate is sound and its key is another one.
    #[error("its key is {seen}, which is none of `pin`; add it if this is meant to be its key")]
    Pin {
        /// What `pin` would have to say.
        seen: Pin,
    },
    /// The certificate is that of a CA.
    #[error(
        "its certificate is a{} CA certificate (CA:TRUE, the default of `openssl req -x509`), which servers must not present; \
         if {seen} is the expected key, set `trust = \"pin\"` and `pin = \"{seen}\"`, or issue one with \
         `basicConstraints = CA:FALSE`",
        if *self_signed { " self-signed" } else { "" }
    )]
    Ca {
        /// The pin of its key.
        seen: Pin,
        /// Whether it is its own issuer.
        self_signed: bool,
    },
    /// The peer cannot sign with the key of its certificate.
    #[error(
        "its handshake signature does not match its certificate; configure the matching private key on the upstream"
    )]
    Signature,
    /// Anything else that is wrong with the certificate.
    #[error("its certificate cannot be used: {}", explain(.0))]
    Certificate(CertificateError),
    /// It answers in another protocol.
    #[error("it does not speak TLS on this port; write `http://`, or its TLS port")]
    Plaintext,
    /// We had no certificate to show.
    #[error("it demands a client certificate; name one as `certificate`, with its `key`")]
    ClientCertificateMissing,
    /// It does not like the one that we showed.
    #[error("it refuses our client certificate ({0:?}); renew `certificate`, or let the upstream trust its issuer")]
    ClientCertificateRefused(AlertDescription),
    /// It has nothing for the name that was asked for.
    #[error("it has no certificate for the name it was asked for; set `server_name`")]
    UnknownName,
    /// Nothing that both sides can do.
    #[error("no TLS version, cipher suite or protocol in common: {0}")]
    Incompatible(Error),
    /// It went away before the end of the handshake.
    #[error("it cut the handshake off: {0}")]
    CutOff(io::Error),
    /// Anything else.
    #[error("{0}")]
    Other(io::Error),
}

impl TlsFailure {
    /// Sorts what a handshake with this config ended in.
    pub(super) fn of(error: io::Error, config: &ClientConfig) -> Self {
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
        match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
            Some(known) => Self::known(known, config).unwrap_or(Self::Other(error)),
            None if matches!(error.kind(), UnexpectedEof | ConnectionReset | ConnectionAborted | BrokenPipe) => {
                Self::CutOff(error)
            }
            None => Self::Other(error),
        }
    }

    /// What an upstream says about our certificate after the handshake, as TLS 1.3 has it (RFC 8446 §4.4.2.4).
    pub(super) fn late(error: &(dyn StdError + 'static), config: &ClientConfig) -> Option<Self> {
        let mut cause = Some(error);
        while let Some(current) = cause {
            let wrapped = current.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
            if let Some(&Error::AlertReceived(alert)) = wrapped.and_then(|inner| inner.downcast_ref::<Error>()) {
                return Self::of_our_certificate(alert, config);
            }
            cause = current.source();
        }
        None
    }

    fn known(error: &Error, config: &ClientConfig) -> Option<Self> {
        use AlertDescription as Alert;
        Some(match error {
            Error::InvalidCertificate(certificate) => Self::of_its_certificate(certificate),
            Error::InvalidMessage(InvalidMessage::InvalidContentType) => Self::Plaintext,
            Error::PeerIncompatible(_) => Self::Incompatible(error.clone()),
            Error::AlertReceived(
                Alert::HandshakeFailure
                | Alert::ProtocolVersion
                | Alert::InsufficientSecurity
                | Alert::NoApplicationProtocol,
            ) => Self::Incompatible(error.clone()),
            Error::AlertReceived(Alert::UnrecognisedName) => Self::UnknownName,
            Error::AlertReceived(alert) => return Self::of_our_certificate(*alert, config),
            _ => return None,
        })
    }

    fn of_its_certificate(error: &CertificateError) -> Self {
        let between = |later: UnixTime, sooner: UnixTime| {
            Some(Duration::from_secs(later.as_secs().saturating_sub(sooner.as_secs())))
        };
        match error {
            CertificateError::Expired => Self::Expired { ago: None },
            &CertificateError::ExpiredContext { time, not_after } => Self::Expired { ago: between(time, not_after) },
            CertificateError::NotValidYet => Self::NotYetValid { ahead: None },
            &CertificateError::NotValidYetContext { time, not_before } => {
                Self::NotYetValid { ahead: between(not_before, time) }
            }
            CertificateError::NotValidForName => {
                Self::WrongName { expected: "this name".to_owned(), presented: vec![] }
            }
            CertificateError::NotValidForNameContext { expected, presented } => Self::WrongName {
                expected: name(expected),
                presented: presented.iter().map(|text| bare(text)).collect(),
            },
            CertificateError::UnknownIssuer => Self::UnknownIssuer,
            // One in the chain is an unknown issuer's.
            CertificateError::BadSignature => Self::Signature,
            CertificateError::Revoked => Self::Revoked,
            CertificateError::Other(OtherError(inner)) => match (inner.downcast_ref(), inner.downcast_ref()) {
                (Some(&PinMismatch { seen }), _) => Self::Pin { seen },
                (None, Some(&CaPresented { seen, self_signed })) => Self::Ca { seen, self_signed },
                (None, None) => Self::Certificate(error.clone()),
            },
            other => Self::Certificate(other.clone()),
        }
    }

    /// These alerts (RFC 8446 §6.2) say of a certificate that it is bad, and a server has been sent no other than ours.
    fn of_our_certificate(alert: AlertDescription, config: &ClientConfig) -> Option<Self> {
        use AlertDescription as Alert;
        match alert {
            Alert::CertificateRequired
            | Alert::NoCertificate
            | Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
                if config.client_auth_cert_resolver.has_certs() =>
            {
                Some(Self::ClientCertificateRefused(alert))
            }
            // What a server says that got none depends on its library.
            Alert::CertificateRequired | Alert::NoCertificate | Alert::BadCertificate | Alert::CertificateUnknown => {
                Some(Self::ClientCertificateMissing)
            }
            _ => None,
        }
    }

    /// A fixed word for logs and counters.
    pub fn rule(&self) -> &'static str {
        match self {
            Self::Expired { .. } => "upstream-tls-expired",
            Self::NotYetValid { .. } => "upstream-tls-not-yet-valid",
            Self::WrongName { .. } => "upstream-tls-wrong-name",
            Self::UnknownIssuer => "upstream-tls-unknown-issuer",
            Self::Revoked => "upstream-tls-revoked",
            Self::Pin { .. } => "upstream-tls-pin",
            Self::Ca { self_signed: true, .. } => "upstream-tls-self-signed-ca",
            Self::Ca { self_signed: false, .. } => "upstream-tls-certificate",
            Self::Signature => "upstream-tls-signature",
            Self::Certificate(_) => "upstream-tls-certificate",
            Self::Plaintext => "upstream-tls-plaintext",
            Self::ClientCertificateMissing => "upstream-tls-client-certificate",
            Self::ClientCertificateRefused(_) => "upstream-tls-client-certificate-refused",
            Self::UnknownName => "upstream-tls-unknown-name",
            Self::Incompatible(_) => "upstream-tls-incompatible",
            Self::CutOff(_) => "upstream-tls-cut-off",
            Self::Other(_) => "upstream-tls",
        }
    }
}

fn name(name: &ServerName<'_>) -> String {
    match name {
        ServerName::IpAddress(address) => std::net::IpAddr::from(*address).to_string(),
        name => name.to_str().into_owned(),
    }
}

/// `a.example` of what rustls calls `DnsName("a.example")`. A certificate's names are a peer's words: they are escaped.
fn bare(presented: &str) -> String {
    let inner = presented.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')')).unwrap_or(presented);
    inner.trim_matches('"').escape_debug().take(256).collect()
}

fn listed(names: &[String]) -> String {
    match names.get(..NAMES_SHOWN) {
        Some(first) if names.len() > NAMES_SHOWN => {
            format!("{} and {} others", first.join(", "), names.len() - NAMES_SHOWN)
        }
        _ if names.is_empty() => "no name at all".to_owned(),
        _ => names.join(", "),
    }
}

/// `3 days`, in the largest unit of which there are two.
fn shown(span: Option<Duration>) -> String {
    let Some(seconds) = span.map(|span| span.as_secs()) else { return "some time".to_owned() };
    let units = [(86_400, "days"), (3600, "hours"), (60, "minutes")];
    let unit = units.into_iter().find(|(unit, _)| seconds >= 2 * unit);
    unit.map_or_else(|| format!("{seconds} s"), |(unit, word)| format!("{} {word}", seconds / unit))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::crypto::aws_lc_rs;

    use super::*;

    fn config() -> ClientConfig {
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        builder.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth()
    }

    /// What is hard to bring about with a real server; the rest is in tests/upstream_tls.rs.
    #[test]
    fn verifiers_of_other_systems_are_understood_too() {
        let odd = CertificateError::Other(OtherError(Arc::new(io::Error::other("odd"))));
        for (error, rule) in [
            (CertificateError::Expired, "upstream-tls-expired"),
            (CertificateError::NotValidYet, "upstream-tls-not-yet-valid"),
            (CertificateError::NotValidForName, "upstream-tls-wrong-name"),
            (CertificateError::Revoked, "upstream-tls-revoked"),
            (CertificateError::BadEncoding, "upstream-tls-certificate"),
            (odd, "upstream-tls-certificate"),
        ] {
            let text = format!("{error:?}");
            let failure = TlsFailure::of(io::Error::other(Error::InvalidCertificate(error)), &config());
            assert_eq!(failure.rule(), rule, "{text}: {failure}");
        }
    }

    #[test]
    fn an_alert_after_the_handshake_counts_when_it_is_about_a_certificate() {
        let late = |alert| TlsFailure::late(&io::Error::other(Error::AlertReceived(alert)), &config());
        assert!(matches!(late(AlertDescription::CertificateRequired), Some(TlsFailure::ClientCertificateMissing)));
        assert!(late(AlertDescription::InternalError).is_none());
        assert!(TlsFailure::late(&io::Error::from(io::ErrorKind::ConnectionReset), &config()).is_none());
    }

    #[test]
    fn names_are_shown_bare_escaped_and_not_all() {
        let names = ["DnsName(\"a.test\")", "IpAddress(192.0.2.1)", "DnsName(\"b\u{1b}[2J\")", "DirectoryName"];
        let names: Vec<String> = names.iter().map(|text| bare(text)).collect();
        assert_eq!(listed(&names), "a.test, 192.0.2.1, b\\u{1b}[2J, DirectoryName");
        assert_eq!(listed(&vec!["a".to_owned(); 10]), "a, a, a, a, a, a, a, a and 2 others");
        assert_eq!(listed(&[]), "no name at all");
    }

    #[test]
    fn spans_are_shown_in_their_largest_unit() {
        for (seconds, text) in [(5, "5 s"), (119, "119 s"), (120, "2 minutes"), (7200, "2 hours"), (900_000, "10 days")]
        {
            assert_eq!(shown(Some(Duration::from_secs(seconds))), text);
        }
    }
}
