//! Listening sockets in the file system.

use std::{
    fs,
    io::{self, ErrorKind},
    os::unix::{
        fs::{FileTypeExt, MetadataExt, PermissionsExt},
        net::UnixListener,
    },
    path::{Path, PathBuf},
};

use socket2::{Domain, SockAddr, Socket, Type};
use thiserror::Error;

use super::listener::BACKLOG;

/// Why nobody can listen there. Each message says what to do.
#[derive(Debug, Error)]
pub enum UnixBindError {
    /// Somebody does already.
    #[error("another program listens there; stop it or choose another path")]
    InUse,
    /// It is some other kind of file.
    #[error("there is a file that is no socket; move it away or choose another path")]
    NoSocket,
    /// There is no such folder.
    #[error("its folder does not exist; create it (RuntimeDirectory= in a systemd unit) or correct `listen`")]
    NoFolder,
    /// The folder, or a stale socket in it, is somebody else's.
    #[error("{0}; this user must be allowed to write in its folder")]
    Denied(io::Error),
    /// Anything else.
    #[error(transparent)]
    Other(#[from] io::Error),
}

/// The file of a listening socket; it goes with this value, if it is still the same file.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    identity: Identity,
}

/// Device, inode, and when it was made: an inode that is free again is given to the next file.
type Identity = (u64, u64, i64, i64);

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|now| now == self.identity) {
            // What cannot be removed is stale from now on, and the next start replaces it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<Identity> {
    fs::symlink_metadata(path).map(|found| (found.dev(), found.ino(), found.mtime(), found.mtime_nsec()))
}

/// Binds a path and gives its file this mode, or the one that the umask leaves. What a crash has left there is replaced.
///
/// # Errors
/// See [`UnixBindError`].
pub fn bind(path: &Path, mode: Option<u32>) -> Result<(UnixListener, SocketFile), UnixBindError> {
    let address = SockAddr::unix(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    let bound = match socket.bind(&address) {
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            remove_stale(path, &address)?;
            socket.bind(&address)
        }
        bound => bound,
    };
    bound.map_err(|error| match error.kind() {
        ErrorKind::AddrInUse => UnixBindError::InUse,
        ErrorKind::NotFound | ErrorKind::NotADirectory => UnixBindError::NoFolder,
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => UnixBindError::Denied(error),
        _ => UnixBindError::Other(error),
    })?;
    let file = SocketFile { path: path.to_owned(), identity: identity(path)? };
    if let Some(mode) = mode {
        // Nobody can have connected yet, with more rights than these: it does not listen.
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    }
    socket.set_nonblocking(true)?;
    socket.listen(BACKLOG)?;
    Ok((socket.into(), file))
}

fn remove_stale(path: &Path, address: &SockAddr) -> Result<(), UnixBindError> {
    if !fs::symlink_metadata(path)?.file_type().is_socket() {
        return Err(UnixBindError::NoSocket);
    }
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // Where the backlog is full a blocking one would wait.
    probe.set_nonblocking(true)?;
    match probe.connect(address) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(UnixBindError::Denied)
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        // Not refused: somebody is there, even where we may not speak with them.
        Ok(()) | Err(_) => Err(UnixBindError::InUse),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let (live, file) = bind(&path, None).unwrap();
        assert!(matches!(bind(&path, None), Err(UnixBindError::InUse)));
        // As after a crash: nobody listens, and the file is there.
        std::mem::forget(file);
        drop(live);
        let (_live, _file) = bind(&path, Some(0o600)).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_file_goes_with_its_listener_but_not_with_an_older_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let (_old, old_file) = bind(&path, None).unwrap();
        fs::rename(&path, folder.path().join("aside")).unwrap();
        let (_new, new_file) = bind(&path, None).unwrap();
        drop(old_file);
        assert!(path.exists());
        drop(new_file);
        assert!(!path.exists());
    }

    #[test]
    fn what_cannot_be_bound_says_why() {
        let folder = tempfile::tempdir().unwrap();
        let plain = folder.path().join("plain");
        fs::write(&plain, "not ours").unwrap();
        assert!(matches!(bind(&plain, None), Err(UnixBindError::NoSocket)));
        assert_eq!(fs::read_to_string(&plain).unwrap(), "not ours");
        assert!(matches!(bind(&folder.path().join("no/s"), None), Err(UnixBindError::NoFolder)));
        assert!(matches!(bind(&plain.join("s"), None), Err(UnixBindError::NoFolder)));
        assert!(matches!(bind(&folder.path().join("s".repeat(200)), None), Err(UnixBindError::Other(_))));
    }
}
