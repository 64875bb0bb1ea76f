//! How TLS handshakes of clients end, in one word each, and how many ended so.

use std::{
    fmt, io,
    sync::atomic::{AtomicU64, Ordering},
};

use rustls::{CertificateError, Error};

use super::{certificate_error, tls_stream::Plaintext};

/// How a TLS handshake ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ending {
    /// The connection was secured.
    Done,
    /// It took longer than `handshake_timeout`.
    Timeout,
    /// The client spoke HTTP in clear.
    Plaintext,
    /// It spoke no TLS, or broke its rules.
    Garbage,
    /// No version, suite or kind of certificate in common.
    Incompatible,
    /// It named a host that there is no certificate for (`unnamed = "refuse"`).
    UnknownName,
    /// It had no certificate and needed one.
    NoCertificate,
    /// Its certificate was not good.
    BadCertificate,
    /// It said no, mostly to our certificate.
    ClientAlert,
    /// It was gone before the end.
    HungUp,
    /// A stop ended it.
    Stopped,
    /// Something of ours failed.
    Failed,
}

impl Ending {
    /// Every one of them.
    pub const ALL: [Self; 12] = [
        Self::Done,
        Self::Timeout,
        Self::Plaintext,
        Self::Garbage,
        Self::Incompatible,
        Self::UnknownName,
        Self::NoCertificate,
        Self::BadCertificate,
        Self::ClientAlert,
        Self::HungUp,
        Self::Stopped,
        Self::Failed,
    ];

    /// A fixed word for logs and counters.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "ok",
            Self::Timeout => "timeout",
            Self::Plaintext => "plaintext",
            Self::Garbage => "garbage",
            Self::Incompatible => "incompatible",
            Self::UnknownName => "unknown-name",
            Self::NoCertificate => "no-certificate",
            Self::BadCertificate => "bad-certificate",
            Self::ClientAlert => "client-alert",
            Self::HungUp => "hung-up",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
        }
    }

    /// What came of this error of a socket or of TLS.
    fn of(error: &io::Error, name_is_known: bool) -> Self {
        let Some(inner) = error.get_ref() else { return Self::HungUp };
        if inner.is::<Plaintext>() {
            return Self::Plaintext;
        }
        match inner.downcast_ref::<Error>() {
            // Of the socket, or an end without a word.
            None => Self::HungUp,
            Some(
                Error::InvalidMessage(_)
                | Error::InappropriateMessage { .. }
                | Error::InappropriateHandshakeMessage { .. }
                | Error::PeerMisbehaved(_)
                | Error::PeerSentOversizedRecord
                | Error::DecryptError,
            ) => Self::Garbage,
            Some(Error::PeerIncompatible(_) | Error::NoApplicationProtocol) => Self::Incompatible,
            Some(Error::NoCertificatesPresented) => Self::NoCertificate,
            Some(Error::InvalidCertificate(_) | Error::InvalidCertRevocationList(_)) => Self::BadCertificate,
            Some(Error::AlertReceived(_)) => Self::ClientAlert,
            // What rustls says when it was given no certificate to show.
            Some(Error::General(_)) if name_is_known => Self::Incompatible,
            Some(Error::General(_)) => Self::UnknownName,
            Some(_) => Self::Failed,
        }
    }
}

/// Why a TLS handshake failed.
#[derive(Debug)]
pub struct Failure {
    /// In a word.
    pub ending: Ending,
    error: io::Error,
}

impl Failure {
    /// `name_is_known`: whether there is a certificate for the host that was asked for.
    pub(super) fn new(error: io::Error, name_is_known: bool) -> Self {
        Self { ending: Ending::of(&error, name_is_known), error }
    }

    pub(super) fn timeout() -> Self {
        let error = io::Error::new(io::ErrorKind::TimedOut, "no TLS handshake within handshake_timeout");
        Self { ending: Ending::Timeout, error }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ending {
            Ending::UnknownName => f.write_str("there is no certificate for the host that the client asks for"),
            Ending::Incompatible if self.is_general() => {
                f.write_str("no certificate is of a kind that the client can verify")
            }
            _ => match self.error.get_ref().and_then(|inner| inner.downcast_ref()) {
                // The others say it in a word.
                Some(Error::InvalidCertificate(error @ CertificateError::Other(_))) => {
                    write!(f, "the client's certificate cannot be used: {}", certificate_error::explain(error))
                }
                _ => self.error.fmt(f),
            },
        }
    }
}

impl Failure {
    fn is_general(&self) -> bool {
        let inner = self.error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
        matches!(inner, Some(Error::General(_)))
    }
}

/// How many handshakes of one listener ended in which way, since the start.
#[derive(Debug, Default)]
pub struct Handshakes([AtomicU64; Ending::ALL.len()]);

impl Handshakes {
    /// Counts one.
    pub fn count(&self, ending: Ending) {
        if let Some(counter) = self.counter(ending) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many ended so.
    pub fn ended(&self, ending: Ending) -> u64 {
        self.counter(ending).map_or(0, |counter| counter.load(Ordering::Relaxed))
    }

    fn counter(&self, ending: Ending) -> Option<&AtomicU64> {
        Ending::ALL.iter().position(|one| *one == ending).and_then(|at| self.0.get(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_ending_has_a_counter_and_a_word_of_its_own() {
        let counts = Handshakes::default();
        for (index, ending) in (1..).zip(Ending::ALL) {
            (0..index).for_each(|_| counts.count(ending));
        }
        assert_eq!(Ending::ALL.map(|ending| counts.ended(ending)).to_vec(), (1..=12).collect::<Vec<u64>>());
        let mut words = Ending::ALL.map(Ending::as_str).to_vec();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), Ending::ALL.len());
    }
}
