//! What an ACME server may ask for while an order is under way: a token over HTTP, a certificate over TLS.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use rcgen::{CertificateParams, CustomExtension, KeyPair};
use rustls::{
    CommonState,
    crypto::aws_lc_rs,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    server::ClientHello,
    sign::CertifiedKey,
};
use thiserror::Error;

/// The application protocol of a validation (RFC 8737 §6.2).
pub const ACME_TLS: &[u8] = b"acme-tls/1";

/// Where RFC 8555 §8.3 wants the answer.
const WELL_KNOWN: &str = "/.well-known/acme-challenge/";

/// The answers that are pending, for all listeners. Each is gone with its [`Standing`].
#[derive(Debug, Default)]
pub struct Challenges(RwLock<Pending>);

#[derive(Debug, Default)]
struct Pending {
    /// Token and key authorization.
    tokens: HashMap<Box<str>, Arc<str>>,
    /// Host and certificate.
    certificates: HashMap<Box<str>, Arc<CertifiedKey>>,
}

/// As long as it lives, the answer is given.
#[derive(Debug)]
pub struct Standing {
    of: Arc<Challenges>,
    what: What,
}

#[derive(Debug)]
enum What {
    Token(Box<str>),
    Host(Box<str>),
}

/// Why there is no certificate to answer with.
#[derive(Debug, Error)]
pub enum ChallengeError {
    /// rcgen said so.
    #[error("cannot make the certificate of a challenge: {0}")]
    Make(#[from] rcgen::Error),
    /// rustls said so.
    #[error("cannot serve the certificate of a challenge: {0}")]
    Serve(#[from] rustls::Error),
}

impl Challenges {
    /// Answers for a token (RFC 8555 §8.3).
    pub fn stand_token(self: &Arc<Self>, token: &str, authorization: &str) -> Standing {
        self.change(|pending| pending.tokens.insert(token.into(), authorization.into()));
        Standing { of: Arc::clone(self), what: What::Token(token.into()) }
    }

    /// Answers for a host, in lower case, with the digest of the key authorization (RFC 8737 §3).
    ///
    /// # Errors
    /// When the certificate cannot be made.
    pub fn stand_host(self: &Arc<Self>, host: &str, digest: &[u8]) -> Result<Standing, ChallengeError> {
        let mut params = CertificateParams::new([host.to_owned()])?;
        params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
        let key = KeyPair::generate()?;
        let chain = vec![params.self_signed(&key)?.der().clone()];
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        // Not compared with its key: whoever reads it for that stumbles over the critical extension.
        let certified = Arc::new(CertifiedKey::new(chain, aws_lc_rs::sign::any_supported_type(&key)?));
        self.change(|pending| pending.certificates.insert(host.into(), certified));
        Ok(Standing { of: Arc::clone(self), what: What::Host(host.into()) })
    }

    fn change<T>(&self, change: impl FnOnce(&mut Pending) -> T) {
        change(&mut self.0.write().unwrap_or_else(PoisonError::into_inner));
    }

    /// The key authorization that is asked for with this path, if that is pending.
    pub fn answer(&self, path: &str) -> Option<Arc<str>> {
        // Nearly every request ends here, before the lock.
        let token = path.strip_prefix(WELL_KNOWN)?;
        self.0.read().unwrap_or_else(PoisonError::into_inner).tokens.get(token).map(Arc::clone)
    }

    pub(super) fn certificate(&self, host: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let host = host?.to_ascii_lowercase();
        self.0.read().unwrap_or_else(PoisonError::into_inner).certificates.get(host.as_str()).map(Arc::clone)
    }
}

impl Drop for Standing {
    fn drop(&mut self) {
        self.of.change(|pending| match &self.what {
            What::Token(token) => drop(pending.tokens.remove(token)),
            What::Host(host) => drop(pending.certificates.remove(host)),
        });
    }
}

/// Whether this is a validation: it offers that protocol and no other (RFC 8737 §3).
pub(super) fn is_validation(hello: &ClientHello<'_>) -> bool {
    hello.alpn().is_some_and(|mut offered| offered.next() == Some(ACME_TLS) && offered.next().is_none())
}

/// Whether the handshake was a validation; nothing may follow on such a connection.
pub fn was_validation(facts: &CommonState) -> bool {
    facts.alpn_protocol() == Some(ACME_TLS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_given_as_long_as_it_is_pending_and_for_nothing_else() {
        let challenges = Arc::new(Challenges::default());
        let one = challenges.stand_token("abc", "abc.thumb");
        let two = challenges.stand_token("def", "def.thumb");
        assert_eq!(challenges.answer("/.well-known/acme-challenge/abc").as_deref(), Some("abc.thumb"));
        for path in [
            "/.well-known/acme-challenge/",
            "/.well-known/acme-challenge/ab",
            "/.well-known/acme-challenge/abc/",
            "/abc",
            "",
        ] {
            assert_eq!(challenges.answer(path), None, "{path}");
        }
        drop(one);
        assert_eq!(challenges.answer("/.well-known/acme-challenge/abc"), None);
        assert!(challenges.answer("/.well-known/acme-challenge/def").is_some());
        drop(two);
        let host = challenges.stand_host("a.test", &[7; 32]).unwrap();
        assert!(challenges.certificate(Some("A.test")).is_some());
        assert!(challenges.certificate(Some("b.test")).is_none() && challenges.certificate(None).is_none());
        drop(host);
        assert!(challenges.certificate(Some("a.test")).is_none());
    }
}
