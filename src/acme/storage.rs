//! What outlives the process: the account and the certificates, for this user alone, whole or not at all.

use std::{
    fs::{DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use thiserror::Error;

/// Written and taken away again before anything is ordered: what cannot be kept had better not be issued. More than a
/// chain and its key ever are.
const PROBE: usize = 64 * 1024;

/// Largest file that is read: a chain is no larger than an answer of the CA.
const LARGEST: u64 = 2 * 1024 * 1024;

/// What the storage refused.
#[derive(Debug, Error)]
#[error("cannot {what} {}: {source}; see that this user may write there and that there is room", path.display())]
pub(super) struct StorageError {
    what: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// The folder, and the right to change what is in it: no other process has it at the same time.
#[derive(Debug)]
pub(super) struct Storage {
    folder: PathBuf,
    _lock: File,
}

/// A file that is written and does not count yet; gone when it is dropped.
#[derive(Debug)]
pub(super) struct Staged<'a> {
    folder: &'a Path,
    passing: PathBuf,
    path: PathBuf,
    counts: bool,
}

impl Storage {
    /// Takes the storage, whose folder is made if it is not there; `None` while another process has it.
    pub(super) fn take(folder: &Path) -> Result<Option<Self>, StorageError> {
        let fault = |what, path: &Path| {
            let path = path.to_owned();
            move |source| StorageError { what, path, source }
        };
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(fault("make the folder", folder))?;
        let path = folder.join("lock");
        let options = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        let lock = options.map_err(fault("open", &path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(source)) => return Err(fault("lock", &path)(source)),
        }
        let storage = Self { folder: folder.to_owned(), _lock: lock };
        drop(storage.stage("probe", &[0; PROBE])?);
        Ok(Some(storage))
    }

    /// What is kept under this name, if anything is.
    pub(super) fn read(&self, name: &str) -> Result<Option<Vec<u8>>, StorageError> {
        let path = self.folder.join(name);
        let fault = |source| StorageError { what: "read", path: path.clone(), source };
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(fault(source)),
        };
        let mut content = Vec::new();
        let size = file.take(LARGEST + 1).read_to_end(&mut content).map_err(fault)?;
        if size as u64 > LARGEST {
            return Err(fault(io::Error::new(io::ErrorKind::FileTooLarge, "larger than anything we write")));
        }
        Ok(Some(content))
    }

    /// Writes it beside the place where it belongs.
    pub(super) fn stage(&self, name: &str, content: &[u8]) -> Result<Staged<'_>, StorageError> {
        let passing = self.folder.join(format!(".{name}.new"));
        // With the lock held it is nobody's but a crash's.
        let _left_from_a_crash = std::fs::remove_file(&passing);
        let created = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&passing);
        let fault = |source| StorageError { what: "write", path: passing.clone(), source };
        let mut file = created.map_err(fault)?;
        let staged =
            Staged { folder: &self.folder, passing: passing.clone(), path: self.folder.join(name), counts: false };
        file.write_all(content).and_then(|()| file.sync_all()).map_err(fault)?;
        Ok(staged)
    }

    /// Removes it, if it is there.
    pub(super) fn remove(&self, name: &str) -> Result<(), StorageError> {
        let path = self.folder.join(name);
        match std::fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(StorageError { what: "remove", path, source })
            }
            _removed_or_not_there => Ok(()),
        }
    }

    /// Puts away what is of no use any more, without losing it.
    pub(super) fn set_aside(&self, name: &str) -> Result<(), StorageError> {
        let path = self.folder.join(name);
        std::fs::rename(&path, path.with_extension("old")).map_err(|source| StorageError { what: "move", path, source })
    }
}

impl Staged<'_> {
    /// Where it is until it counts.
    pub(super) fn passing(&self) -> &Path {
        &self.passing
    }

    /// Puts it in its place, for good.
    pub(super) fn commit(mut self) -> Result<(), StorageError> {
        let moved = std::fs::rename(&self.passing, &self.path).and_then(|()| {
            self.counts = true;
            // The name is only kept once the folder is.
            File::open(self.folder)?.sync_all()
        });
        moved.map_err(|source| StorageError { what: "put in place", path: self.path.clone(), source })
    }
}

impl Drop for Staged<'_> {
    fn drop(&mut self) {
        if !self.counts {
            let _never_counted = std::fs::remove_file(&self.passing);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn what_is_kept_is_whole_and_for_this_user_alone() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("acme/ca");
        let storage = Storage::take(&folder).unwrap().unwrap();
        assert_eq!((mode(&folder), mode(folder.parent().unwrap())), (0o700, 0o700));
        assert!(storage.read("a.pem").unwrap().is_none());
        storage.stage("a.pem", b"old").unwrap().commit().unwrap();
        // As a crash leaves it.
        std::fs::write(folder.join(".a.pem.new"), "ha").unwrap();
        assert_eq!(storage.read("a.pem").unwrap().unwrap(), b"old");
        drop(storage.stage("a.pem", b"given up").unwrap());
        assert_eq!(storage.read("a.pem").unwrap().unwrap(), b"old");
        storage.stage("a.pem", b"new").unwrap().commit().unwrap();
        assert_eq!((storage.read("a.pem").unwrap().unwrap(), mode(&folder.join("a.pem"))), (b"new".to_vec(), 0o600));
        storage.stage("b.json", b"gone soon").unwrap().commit().unwrap();
        storage.remove("b.json").unwrap();
        storage.remove("b.json").unwrap();
        let names = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = names.collect();
        names.sort();
        assert_eq!(names, ["a.pem", "lock"]);
    }

    #[test]
    fn one_process_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let storage = Storage::take(folder.path()).unwrap().unwrap();
        assert!(Storage::take(folder.path()).unwrap().is_none());
        drop(storage);
        assert!(Storage::take(folder.path()).unwrap().is_some());
    }

    #[test]
    fn a_folder_that_cannot_be_is_told_with_its_cure() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("file"), "").unwrap();
        let error = Storage::take(&folder.path().join("file/acme")).unwrap_err().to_string();
        assert!(error.contains("file/acme") && error.contains("may write there"), "{error}");
    }
}
