//! The secrets of TLS connections in a file, for Wireshark and its like. Only where the command line asks for it.

use std::{
    fmt,
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use rustix::process::geteuid;
use rustls::KeyLog;
use thiserror::Error;
use tokio::time::Instant;

use crate::protocol::log_throttle::LogThrottle;

/// Why the file cannot take them.
#[derive(Debug, Error)]
pub enum KeyLogError {
    /// It cannot be opened or made.
    #[error("cannot write {}: {source}; name a file that this user may write with `--tls-key-log`", path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is there, and others could read it or have made it.
    #[error(
        "{} belongs to another user, or can be read or written by others, and would hold the keys to all traffic; \
         name a new file, or chown and chmod 600 it first",
        path.display()
    )]
    Open {
        /// The file.
        path: PathBuf,
    },
}

/// A file in the NSS key log format, which grows line by line.
pub struct KeyLogFile {
    file: Mutex<File>,
    failing: LogThrottle,
}

impl KeyLogFile {
    /// Opens it for this user alone; what is there stays.
    ///
    /// # Errors
    /// See [`KeyLogError`].
    pub fn open(path: &Path) -> Result<Self, KeyLogError> {
        let unwritable = |source| KeyLogError::Unwritable { path: path.to_owned(), source };
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path).map_err(unwritable)?;
        let data = file.metadata().map_err(unwritable)?;
        // A link, or a file made beforehand in a folder for all, would hand the keys to whoever made it.
        let anothers = data.uid() != geteuid().as_raw();
        if data.is_file() && (anothers || data.permissions().mode() & 0o077 != 0) {
            return Err(KeyLogError::Open { path: path.to_owned() });
        }
        Ok(Self { file: Mutex::new(file), failing: LogThrottle::default() })
    }
}

impl KeyLog for KeyLogFile {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        let line = format!("{label} {} {}\n", super::hex(client_random), super::hex(secret));
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        // One write a line: whoever follows the file sees no half of one.
        if let Err(error) = file.write_all(line.as_bytes())
            && let Some(suppressed) = self.failing.note(Instant::now().into_std())
        {
            tracing::warn!(%error, suppressed, "a TLS secret was not logged");
        }
    }
}

impl fmt::Debug for KeyLogFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyLogFile")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_for_this_user_alone_and_only_grows() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        for _ in 0..2 {
            KeyLogFile::open(&path).unwrap().log("CLIENT_RANDOM", &[0, 1], &[0xfe, 0xff]);
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "CLIENT_RANDOM 0001 feff\n".repeat(2));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
        assert!(matches!(KeyLogFile::open(&path), Err(KeyLogError::Open { .. })));
        // Only root can give a file away, and so only root can be caught this way.
        let theirs = folder.path().join("theirs");
        KeyLogFile::open(&theirs).unwrap();
        if std::os::unix::fs::chown(&theirs, Some(65_534), None).is_ok() {
            let link = folder.path().join("link");
            std::os::unix::fs::symlink(&theirs, &link).unwrap();
            assert!([theirs, link].iter().all(|path| matches!(KeyLogFile::open(path), Err(KeyLogError::Open { .. }))));
        }
        assert!(matches!(KeyLogFile::open(folder.path()), Err(KeyLogError::Unwritable { .. })));
    }
}
