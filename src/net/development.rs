//! The development certificate: a local CA and a leaf for this machine, made once at start when missing.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use thiserror::Error;

/// Names the leaf is good for.
const NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// Why the development certificate could not be made.
#[derive(Debug, Error)]
pub enum DevelopmentError {
    /// Making it failed.
    #[error("cannot make the development certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// Writing it failed.
    #[error("cannot write {}: {source}; make the folder writable or set `development = false`", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// One of the pair is there and the other is not.
    #[error(
        "{} is there and {} is not; put that back, or remove what is left of certificate, key and ca.pem to have them made anew",
        there.display(), missing.display()
    )]
    HalfPair {
        /// Somebody's file, which is not overwritten.
        there: PathBuf,
        /// Its counterpart.
        missing: PathBuf,
    },
}

/// Makes `certificate` and `key` when neither is there, with their CA in `ca.pem` beside them.
///
/// Returns the CA's path when something was made. The CA's own key is never written: nothing else can be
/// signed by a root that a developer was asked to trust.
///
/// # Errors
/// See [`DevelopmentError`].
pub fn ensure(certificate: &Path, key: &Path) -> Result<Option<PathBuf>, DevelopmentError> {
    if certificate.exists() && key.exists() {
        return Ok(None);
    }
    let ca_path = certificate.with_file_name("ca.pem");
    // Any of the three that is there is somebody's, and not ours to overwrite.
    if let Some(there) = [certificate, key, &ca_path].into_iter().find(|path| path.exists()) {
        let missing = if certificate.exists() { key } else { certificate };
        return Err(DevelopmentError::HalfPair { there: there.to_owned(), missing: missing.to_owned() });
    }

    let mut ca = CertificateParams::default();
    ca.distinguished_name.push(DnType::CommonName, "switchgate development CA");
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let issuer = CertifiedIssuer::self_signed(ca, KeyPair::generate()?)?;

    let mut leaf = CertificateParams::new(NAMES.map(str::to_owned))?;
    leaf.distinguished_name.push(DnType::CommonName, "localhost");
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.use_authority_key_identifier_extension = true;
    let leaf_key = KeyPair::generate()?;
    let signed = leaf.signed_by(&leaf_key, &issuer)?;

    write(&ca_path, issuer.pem().as_bytes(), 0o644)?;
    write(key, leaf_key.serialize_pem().as_bytes(), 0o600)?;
    write(certificate, signed.pem().as_bytes(), 0o644)?;
    Ok(Some(ca_path))
}

/// Writes a whole file under a passing name and moves it in place, so that no half of one is ever read.
fn write(path: &Path, content: &[u8], mode: u32) -> Result<(), DevelopmentError> {
    let fault = |source| DevelopmentError::Write { path: path.to_owned(), source };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(fault)?;
    }
    let passing = path.with_extension(format!("new-{}", std::process::id()));
    let _left_from_a_crash = std::fs::remove_file(&passing);
    let mut file: File = OpenOptions::new().write(true).create_new(true).mode(mode).open(&passing).map_err(fault)?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(fault)?;
    std::fs::rename(&passing, path).map_err(fault)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::{
        config::model::{PairFiles, Unnamed},
        net::{certificates::Certificates, tls},
    };

    #[test]
    fn makes_a_usable_pair_once_with_a_private_key_file() {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = (folder.path().join("certs/localhost.pem"), folder.path().join("certs/localhost.key"));
        let ca = ensure(&certificate, &key).unwrap().unwrap();
        assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
        let pair = PairFiles { certificate: certificate.clone(), key: key.clone() };
        Certificates::load(&[pair], Unnamed::First).unwrap();
        tls::client_config(Some(&ca)).unwrap();
        let before = std::fs::read(&key).unwrap();
        assert!(ensure(&certificate, &key).unwrap().is_none());
        assert_eq!(std::fs::read(&key).unwrap(), before);
        std::fs::remove_file(&certificate).unwrap();
        assert!(matches!(ensure(&certificate, &key), Err(DevelopmentError::HalfPair { .. })));
        assert_eq!(std::fs::read(&key).unwrap(), before, "a key that is there is never overwritten");
    }
}
