//! Lists of revoked certificates: which of several counts, and until when.

use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustls::{
    CertRevocationListError,
    pki_types::{CertificateRevocationListDer, pem::PemObject},
    server::VerifierBuilderError,
};
use x509_parser::{
    oid_registry::{OID_X509_EXT_AUTHORITY_KEY_IDENTIFIER, OID_X509_EXT_ISSUER_DISTRIBUTION_POINT, Oid},
    prelude::{CertificateRevocationList, FromDer},
};

use super::tls::{self, TlsError};

/// Until when a list of revoked certificates is good. After that nobody of its CA is let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CrlEnd {
    /// Its file.
    pub file: PathBuf,
    /// When its CA promised the next one.
    pub next_update: SystemTime,
}

/// One list.
#[derive(Debug)]
pub(super) struct Crl {
    pub(super) der: CertificateRevocationListDer<'static>,
    pub(super) end: Option<CrlEnd>,
    of: Scope,
    age: Age,
}

/// What a list is for: its CA's name, its CA's key, and which of the certificates (RFC 5280 §5.2.5).
type Scope = (Vec<u8>, Option<Vec<u8>>, Option<Vec<u8>>);

/// When it was issued, and its number, of which a longer one is larger: lists of one second differ in that.
type Age = (i64, usize, Vec<u8>);

/// All lists of a file.
///
/// # Errors
/// See [`TlsError`].
pub(super) fn read(path: &Path) -> Result<Vec<Crl>, TlsError> {
    let pem = tls::read(path, "CRL")?;
    let not_pem = || TlsError::NotPem { what: "CRL", label: "X509 CRL", path: path.to_owned() };
    let lists: Vec<_> =
        CertificateRevocationListDer::pem_slice_iter(&pem).collect::<Result<_, _>>().map_err(|_| not_pem())?;
    if lists.is_empty() { Err(not_pem()) } else { lists.into_iter().map(|der| parse(der, path)).collect() }
}

fn parse(der: CertificateRevocationListDer<'static>, path: &Path) -> Result<Crl, TlsError> {
    let malformed = |_| bad(path, VerifierBuilderError::InvalidCrl(CertRevocationListError::ParseError));
    let (of, age, next_update) = {
        let (_, list) = CertificateRevocationList::from_der(&der).map_err(malformed)?;
        let extension = |oid: Oid<'_>| {
            list.extensions().iter().find(|extension| extension.oid == oid).map(|extension| extension.value.to_vec())
        };
        let key = extension(OID_X509_EXT_AUTHORITY_KEY_IDENTIFIER);
        let of = (list.issuer().as_raw().to_vec(), key, extension(OID_X509_EXT_ISSUER_DISTRIBUTION_POINT));
        let number = list.crl_number().map(|number| number.to_bytes_be()).unwrap_or_default();
        (of, (list.last_update().timestamp(), number.len(), number), list.next_update())
    };
    let end = next_update.map(|next| {
        let seconds = u64::try_from(next.timestamp()).unwrap_or(0);
        CrlEnd { file: path.to_owned(), next_update: UNIX_EPOCH + Duration::from_secs(seconds) }
    });
    Ok(Crl { der, end, of, age })
}

pub(super) fn bad(path: &Path, source: VerifierBuilderError) -> TlsError {
    TlsError::BadCrl { path: path.to_owned(), source }
}

/// The latest list of each scope, the latest of all first.
///
/// Whoever verifies takes the first list of a certificate's CA, and nobody sees to it that a file has its latest list at
/// its beginning: behind an older one, those that were revoked since would be let in.
pub(super) fn newest(mut lists: Vec<Crl>) -> Vec<Crl> {
    lists.sort_by(|a, b| b.age.cmp(&a.age));
    let mut newest: Vec<Crl> = Vec::new();
    for list in lists {
        if !newest.iter().any(|known| known.of == list.of) {
            newest.push(list);
        }
    }
    newest
}
