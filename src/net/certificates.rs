//! The certificates of one listener: chosen by the name a client asks for, read again when their files change.

use std::{
    cell::RefCell,
    fmt,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustls::{
    SignatureScheme,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{
    certificate_names::{CertificateNames, Rank},
    challenges::{self, Challenges},
    tls::{self, TlsError},
};
use crate::config::model::{PairFiles, Unnamed};

/// The certificates that serve now. A reload replaces all of them for the next handshake and touches no connection.
pub struct Certificates {
    unnamed: Unnamed,
    /// Files that ACME writes; one that cannot be read leaves what served before, or a gap.
    awaited: Vec<PairFiles>,
    /// What a CA may ask for, where it asks over TLS.
    challenges: Option<Arc<Challenges>>,
    current: RwLock<Arc<[Pair]>>,
    reloads: AtomicUsize,
}

/// How long one certificate is still good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Validity {
    /// Its file.
    pub certificate: PathBuf,
    /// The DNS names it is good for, in lower case.
    pub names: Vec<String>,
    /// When it begins.
    pub not_before: SystemTime,
    /// When it ends.
    pub not_after: SystemTime,
}

impl Validity {
    /// Whole days left; negative when it has ended.
    pub fn days_left(&self, now: SystemTime) -> i64 {
        const DAY: u64 = 24 * 60 * 60;
        let days = |span: Duration| i64::try_from(span.as_secs() / DAY).unwrap_or(i64::MAX);
        match self.not_after.duration_since(now) {
            Ok(left) => days(left),
            Err(gone) => -1 - days(gone.duration()),
        }
    }
}

#[derive(Clone, Debug)]
struct Pair {
    certified: Arc<CertifiedKey>,
    validity: Validity,
    names: Arc<CertificateNames>,
}

impl Certificates {
    /// Reads all pairs.
    ///
    /// # Errors
    /// The first that cannot be used; see [`TlsError`].
    pub fn load(files: &[PairFiles], unnamed: Unnamed) -> Result<Self, TlsError> {
        Self::load_awaiting(files, Vec::new(), unnamed)
    }

    /// Reads all pairs, of which those in `awaited` may be missing or broken: they will be ordered.
    ///
    /// # Errors
    /// The first of the others that cannot be used.
    pub fn load_awaiting(files: &[PairFiles], awaited: Vec<PairFiles>, unnamed: Unnamed) -> Result<Self, TlsError> {
        let current = RwLock::new(Vec::new().into());
        let loaded = Self { unnamed, awaited, challenges: None, current, reloads: AtomicUsize::new(0) };
        loaded.reload(files)?;
        Ok(loaded)
    }

    /// Answers the validations of a CA too (RFC 8737).
    #[must_use]
    pub fn answering(self, challenges: Option<Arc<Challenges>>) -> Self {
        Self { challenges, ..self }
    }

    /// Whether it answers the validations of a CA.
    pub(super) fn answers_validations(&self) -> bool {
        self.challenges.is_some()
    }

    /// Reads all pairs anew.
    ///
    /// # Errors
    /// The first that cannot be used. All that served before go on serving.
    pub fn reload(&self, files: &[PairFiles]) -> Result<(), TlsError> {
        let before = self.current();
        let mut fresh = Vec::new();
        for files in files {
            match read_pair(files) {
                Ok(pair) => fresh.push(pair),
                Err(error) if self.awaited.contains(files) => {
                    if files.certificate.exists() {
                        tracing::error!(%error, "a certificate from ACME cannot be used; it is ordered anew");
                    }
                    fresh.extend(before.iter().find(|pair| pair.validity.certificate == files.certificate).cloned());
                }
                Err(error) => return Err(error),
            }
        }
        let fresh = fresh.into();
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        self.reloads.fetch_add(1, Ordering::Release);
        Ok(())
    }

    /// How often they have been replaced.
    pub(super) fn reloads(&self) -> usize {
        self.reloads.load(Ordering::Acquire)
    }

    fn current(&self) -> Arc<[Pair]> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// How long each is still good, in the order of the config.
    pub fn validities(&self) -> Vec<Validity> {
        self.current().iter().map(|pair| pair.validity.clone()).collect()
    }

    /// Whether a client that knows every kind of certificate would get one.
    fn knows(&self, name: Option<&str>) -> bool {
        let named = |pair: &Pair| name.is_some_and(|name| pair.names.rank(name).is_some());
        self.unnamed == Unnamed::First || self.current().iter().any(named)
    }

    /// How the best of all certificates matches a host.
    pub(super) fn rank(&self, host: &str) -> Option<Rank> {
        self.current().iter().filter_map(|pair| pair.names.rank(host)).max()
    }

    pub(super) fn choose(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.chosen(name, schemes).map(|pair| pair.certified)
    }

    fn chosen(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> Option<Pair> {
        let pairs = self.current();
        let of_rank =
            |rank: Rank| pairs.iter().filter(move |pair| name.and_then(|name| pair.names.rank(name)) == Some(rank));
        let named: Vec<&Pair> = of_rank(Rank::Exact).chain(of_rank(Rank::Wildcard)).collect();
        let candidates = match self.unnamed {
            Unnamed::First if named.is_empty() => pairs.iter().collect(),
            _ => named,
        };
        // ECDSA and RSA may stand side by side: the first that the client can verify.
        let fit = candidates.iter().find(|pair| pair.certified.key.choose_scheme(schemes).is_some());
        fit.map(|&pair| pair.clone())
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates").field("unnamed", &self.unnamed).finish_non_exhaustive()
    }
}

thread_local! {
    /// What was asked for last on this thread.
    ///
    /// rustls tells the name to whoever chooses the certificate and to nobody else, from within the call that hands it
    /// the client's bytes: whoever made that call finds the name here after it.
    static ASKED: RefCell<Option<Asked>> = const { RefCell::new(None) };
}

/// What a ClientHello asked for.
#[derive(Debug)]
pub(super) struct Asked {
    /// The host (RFC 6066 §3).
    pub(super) name: Option<Box<str>>,
    /// Whether a certificate may stand for it, of whatever kind.
    pub(super) is_known: bool,
    /// The names of the certificate that was chosen.
    pub(super) certificate: Option<Arc<CertificateNames>>,
}

/// What the ClientHello asked for that this thread has processed just now.
pub(super) fn take_asked() -> Option<Asked> {
    ASKED.take()
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name();
        if challenges::is_validation(&hello) {
            // Never one of the others: nothing but a validation may speak this protocol.
            let chosen = self.challenges.as_ref().and_then(|challenges| challenges.certificate(name));
            let is_known = chosen.is_some();
            ASKED.replace(Some(Asked { name: name.map(Into::into), is_known, certificate: None }));
            return chosen;
        }
        let chosen = self.chosen(name, hello.signature_schemes());
        let is_known = chosen.is_some() || self.knows(name);
        let certificate = chosen.as_ref().map(|pair| Arc::clone(&pair.names));
        ASKED.replace(Some(Asked { name: name.map(Into::into), is_known, certificate }));
        chosen.map(|pair| pair.certified)
    }
}

/// How long the certificate in these files is good, if it and its key can be used.
///
/// # Errors
/// See [`TlsError`].
pub fn read_validity(files: &PairFiles) -> Result<Validity, TlsError> {
    read_pair(files).map(|pair| pair.validity)
}

fn read_pair(files: &PairFiles) -> Result<Pair, TlsError> {
    let certified = tls::certified(&files.certificate, &files.key)?;
    let leaf = certified.cert.first().map(AsRef::as_ref).unwrap_or_default();
    let (validity, names) = validity(leaf, &files.certificate)?;
    Ok(Pair { certified: Arc::new(certified), validity, names: Arc::new(names) })
}

fn validity(leaf: &[u8], path: &Path) -> Result<(Validity, CertificateNames), TlsError> {
    let malformed = || TlsError::Malformed { path: path.to_owned() };
    let (_, parsed) = X509Certificate::from_der(leaf).map_err(|_| malformed())?;
    let alternatives = parsed.subject_alternative_name().map_err(|_| malformed())?;
    let general = alternatives.map(|extension| extension.value.general_names.as_slice()).unwrap_or_default();
    let names = CertificateNames::new(general);
    let moment = |seconds: i64| UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    let (begin, end) = (parsed.validity().not_before.timestamp(), parsed.validity().not_after.timestamp());
    let validity = Validity {
        certificate: path.to_owned(),
        names: names.dns().to_vec(),
        not_before: moment(begin),
        not_after: moment(end),
    };
    Ok((validity, names))
}

/// The state of the files at a moment: whether one has changed shows without reading it.
///
/// Links are followed, since Kubernetes swaps the folder behind them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp(Vec<Option<FileState>>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileState {
    device: u64,
    inode: u64,
    modified: (i64, i64),
    size: u64,
}

impl Stamp {
    /// Of these files, now. A file that is not there has a stamp too.
    pub fn of<'a>(files: &'a [PairFiles], others: impl Iterator<Item = &'a PathBuf>) -> Self {
        let stamp = |path: &PathBuf| {
            let data = std::fs::metadata(path).ok()?;
            let modified = (data.mtime(), data.mtime_nsec());
            Some(FileState { device: data.dev(), inode: data.ino(), modified, size: data.size() })
        };
        Self(files.iter().flat_map(|pair| [&pair.certificate, &pair.key]).chain(others).map(stamp).collect())
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, SignatureAlgorithm};

    use super::*;

    fn pair(folder: &Path, file: &str, names: &[&str], kind: &'static SignatureAlgorithm) -> PairFiles {
        let key = KeyPair::generate_for(kind).unwrap();
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let signed = CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        let files =
            PairFiles { certificate: folder.join(format!("{file}.pem")), key: folder.join(format!("{file}.key")) };
        std::fs::write(&files.certificate, signed.pem()).unwrap();
        std::fs::write(&files.key, key.serialize_pem()).unwrap();
        files
    }

    fn chosen(certificates: &Certificates, name: Option<&str>, schemes: &[SignatureScheme]) -> Option<usize> {
        let found = certificates.choose(name, schemes)?;
        certificates.current().iter().position(|pair| Arc::ptr_eq(&pair.certified, &found))
    }

    const EC: &[SignatureScheme] = &[SignatureScheme::ECDSA_NISTP256_SHA256];
    const BOTH: &[SignatureScheme] = &[SignatureScheme::ED25519, SignatureScheme::ECDSA_NISTP256_SHA256];

    #[test]
    fn the_name_chooses_exact_before_wildcard_before_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let files = [
            pair(folder.path(), "first", &["first.example"], &PKCS_ECDSA_P256_SHA256),
            pair(folder.path(), "wild", &["*.example.com"], &PKCS_ECDSA_P256_SHA256),
            pair(folder.path(), "exact", &["Chat.Example.com", "other.example"], &PKCS_ECDSA_P256_SHA256),
        ];
        let certificates = Certificates::load(&files, Unnamed::First).unwrap();
        for (name, expected) in [
            (Some("chat.example.com"), 2),
            (Some("CHAT.example.com"), 2),
            (Some("other.example"), 2),
            (Some("api.example.com"), 1),
            (Some("a.b.example.com"), 0),
            (Some("example.com"), 0),
            (Some("unknown.example"), 0),
            (None, 0),
        ] {
            assert_eq!(chosen(&certificates, name, EC), Some(expected), "{name:?}");
        }
        let strict = Certificates::load(&files, Unnamed::Refuse).unwrap();
        for name in [Some("unknown.example"), Some("example.com"), None] {
            assert_eq!(chosen(&strict, name, EC), None, "{name:?}");
        }
        assert_eq!(chosen(&strict, Some("api.example.com"), EC), Some(1));
    }

    #[test]
    fn of_two_kinds_the_first_that_the_client_knows() {
        let folder = tempfile::tempdir().unwrap();
        let files = [
            pair(folder.path(), "ed", &["a.example"], &PKCS_ED25519),
            pair(folder.path(), "ec", &["a.example"], &PKCS_ECDSA_P256_SHA256),
        ];
        let certificates = Certificates::load(&files, Unnamed::First).unwrap();
        assert_eq!(chosen(&certificates, Some("a.example"), BOTH), Some(0));
        assert_eq!(chosen(&certificates, Some("a.example"), EC), Some(1));
        assert_eq!(chosen(&certificates, None, EC), Some(1));
        assert_eq!(chosen(&certificates, Some("a.example"), &[SignatureScheme::RSA_PSS_SHA256]), None);
    }

    #[test]
    fn a_pair_that_cannot_be_used_leaves_the_old_one() {
        let folder = tempfile::tempdir().unwrap();
        let files = [pair(folder.path(), "a", &["a.example"], &PKCS_ECDSA_P256_SHA256)];
        let certificates = Certificates::load(&files, Unnamed::First).unwrap();
        let before = certificates.current();
        let stamp = Stamp::of(&files, std::iter::empty());
        let other = pair(folder.path(), "b", &["b.example"], &PKCS_ECDSA_P256_SHA256);
        std::fs::rename(&other.key, &files[0].key).unwrap();
        assert_ne!(Stamp::of(&files, std::iter::empty()), stamp);
        assert!(matches!(certificates.reload(&files), Err(TlsError::Mismatch { .. })));
        assert!(Arc::ptr_eq(&before, &certificates.current()));
        std::fs::rename(&other.certificate, &files[0].certificate).unwrap();
        certificates.reload(&files).unwrap();
        assert_eq!(certificates.validities()[0].names, ["b.example"]);
    }

    #[test]
    fn days_are_counted_down_and_beyond_the_end() {
        let end = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let validity =
            Validity { certificate: PathBuf::new(), names: Vec::new(), not_before: UNIX_EPOCH, not_after: end };
        let day = Duration::from_secs(86_400);
        assert_eq!(validity.days_left(end - day * 20 - Duration::from_secs(5)), 20);
        assert_eq!(validity.days_left(end - Duration::from_secs(1)), 0);
        assert_eq!(validity.days_left(end + Duration::from_secs(1)), -1);
    }
}
