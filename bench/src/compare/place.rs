//! Where a comparison takes place: a folder, a certificate, ports, and the programs that are there.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicU16, Ordering},
};

use super::{options::Options, peer::Peer};
use crate::{Result, limits};

/// What all runs share. Its folder goes when it does.
pub(crate) struct Place {
    pub(crate) folder: PathBuf,
    pub(super) workers: usize,
    pub(super) splice_always: bool,
    /// The limit of open files, for us and our children.
    pub(super) open_files: u64,
    pub(super) programs: Vec<Program>,
    /// Whether switchgate's config has a key for its threads.
    pub(super) knows_workers: bool,
    next_port: AtomicU16,
}

/// A proxy that can be started.
pub(crate) struct Program {
    pub(super) peer: Peer,
    pub(crate) path: PathBuf,
    pub(super) version: String,
}

impl Place {
    /// Prepares everything; a peer that is not installed is named on standard error and left out.
    pub(crate) fn prepare(options: &Options) -> Result<Self> {
        let open_files = limits::raise_open_files()?;
        let folder = std::env::temp_dir().join(format!("switchgate-bench-{}", std::process::id()));
        fs::create_dir(&folder).map_err(|error| format!("cannot make {}: {error}", folder.display()))?;
        // Below the ports that the system gives to clients, so that none of these is in use as one.
        let first = 20_000 + u16::try_from(std::process::id() % 8_000)?;
        let mut place = Self {
            folder,
            workers: options.workers,
            splice_always: options.splice_always,
            open_files,
            programs: Vec::new(),
            knows_workers: false,
            next_port: AtomicU16::new(first),
        };
        place.write_certificate()?;
        for peer in &options.peers {
            let path = match peer {
                Peer::Floor | Peer::Direct => continue,
                Peer::Switchgate => Some(switchgate(options.switchgate.as_deref(), "--switchgate")?),
                Peer::Before => Some(switchgate(options.before.as_deref(), "--before")?),
                Peer::Nginx | Peer::Haproxy => find(peer.name()),
            };
            match path {
                Some(path) => place.programs.push(Program { peer: *peer, version: version(&path, *peer), path }),
                None => eprintln!(
                    "error: {name} is not installed, so it is left out, with every bar that needs it; \
                     on Debian and Ubuntu: apt-get install {name}",
                    name = peer.name()
                ),
            }
        }
        place.knows_workers = place.probe_workers()?;
        Ok(place)
    }

    /// A file in the folder.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// How many connections a proxy may have, both sides counted; a few files are for other things.
    pub(crate) fn connections(&self) -> u64 {
        self.open_files.min(65_536).saturating_sub(400)
    }

    /// The program of a peer, where it is installed.
    pub(crate) fn program(&self, peer: Peer) -> Option<&Program> {
        self.programs.iter().find(|program| program.peer == peer)
    }

    /// A port that nobody listens on.
    pub(crate) fn free_port(&self) -> Result<u16> {
        for _ in 0..1_000 {
            let port = self.next_port.fetch_add(1, Ordering::Relaxed);
            if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
                return Ok(port);
            }
        }
        Err("no free port was found".into())
    }

    /// One ECDSA P-256 certificate for all proxies. HAProxy wants it in one file with its key.
    fn write_certificate(&self) -> Result<()> {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
        let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        fs::write(self.file("certificate.pem"), &certificate)?;
        fs::write(self.file("key.pem"), &key)?;
        fs::write(self.file("pair.pem"), certificate + &key)?;
        Ok(())
    }

    /// Asks switchgate itself: an unknown key is an error to it.
    fn probe_workers(&self) -> Result<bool> {
        let Some(program) = self.program(Peer::Switchgate) else { return Ok(false) };
        let config = self.file("probe.toml");
        let accepts = |knows_workers: bool| -> Result<(bool, String)> {
            fs::write(&config, Peer::Switchgate.config(self, knows_workers, false, [1, 2, 3]))?;
            let asked = Command::new(&program.path).arg("check").arg("--config").arg(&config).output()?;
            Ok((asked.status.success(), String::from_utf8_lossy(&asked.stderr).into_owned()))
        };
        let (accepted, why) = accepts(false)?;
        if !accepted {
            return Err(format!("{} refuses its config:\n{why}", program.path.display()).into());
        }
        Ok(accepts(true)?.0)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // What stays behind in the folder for temporary files does no harm.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// The build beside this one, unless `option` names another.
fn switchgate(named: Option<&Path>, option: &str) -> Result<PathBuf> {
    let path = match named {
        Some(path) => path.to_owned(),
        None => std::env::current_exe()?.with_file_name("switchgate"),
    };
    if path.is_file() {
        return Ok(path);
    }
    Err(format!(
        "there is no {}; build it with `cargo build --release`, or name another with {option} PATH",
        path.display()
    )
    .into())
}

/// Looks where a shell looks, and where Debian keeps daemons.
fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let daemons = ["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(daemons).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// The first line with a digit of what it says of its version.
fn version(path: &Path, peer: Peer) -> String {
    let flag = if matches!(peer, Peer::Switchgate | Peer::Before) { "--version" } else { "-v" };
    let Ok(said) = Command::new(path).arg(flag).stdin(Stdio::null()).output() else { return "unknown".to_owned() };
    // nginx says it on standard error.
    let text = String::from_utf8_lossy(&said.stdout) + String::from_utf8_lossy(&said.stderr);
    let line = text.lines().find(|line| line.contains(|sign: char| sign.is_ascii_digit()));
    line.unwrap_or("unknown").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_found_or_missed() {
        assert!(find("sh").is_some());
        assert_eq!(find("no-such-program-anywhere"), None);
    }
}
