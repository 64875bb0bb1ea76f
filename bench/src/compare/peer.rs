//! Who is measured, and how each is started.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use super::{child::Child, place::Place};
use crate::{Error, Result};

const NGINX: &str = include_str!("../../configs/nginx.conf");
const HAPROXY: &str = include_str!("../../configs/haproxy.cfg");
const SWITCHGATE: &str = include_str!("../../configs/switchgate.toml");

/// How long a proxy has until it accepts.
const START: Duration = Duration::from_secs(5);

/// What stands between load and backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Peer {
    Switchgate,
    /// Another build of switchgate, mostly the one before a change.
    Before,
    Nginx,
    Haproxy,
    /// A relay that does nothing but copy.
    Floor,
    /// Nothing: what added latency is added to.
    Direct,
}

/// A started peer; it stops when this is dropped.
pub(super) struct Running {
    pub(super) plain: SocketAddr,
    pub(super) tls: SocketAddr,
    /// The root of its process tree; none where there is no proxy.
    pub(super) process: Option<u32>,
    _child: Option<Child>,
}

impl Peer {
    /// Those that `--peers` can name; `--before` adds its own.
    pub(super) const ALL: [Self; 4] = [Self::Switchgate, Self::Nginx, Self::Haproxy, Self::Floor];

    /// As on the command line, and as its program is called.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Switchgate => "switchgate",
            Self::Before => "before",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Floor => "floor",
            Self::Direct => "direct",
        }
    }

    /// Starts it in front of `backend` and waits until it accepts.
    pub(super) fn start(self, place: &Place, backend: u16, bulk: bool) -> Result<Running> {
        let local = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        let errors = place.file(&format!("{}.log", self.name()));
        if self == Self::Direct {
            let address = local(backend);
            return Ok(Running { plain: address, tls: address, process: None, _child: None });
        }
        if self == Self::Floor {
            let mut arguments = vec!["floor".to_owned(), local(backend).to_string(), place.workers.to_string()];
            arguments.extend(bulk.then(|| "--splice".to_owned()));
            let mut child = Child::start(&arguments, &errors, &[])?;
            let address = local(child.line()?.parse()?);
            return Ok(Running { plain: address, tls: address, process: Some(child.id()), _child: Some(child) });
        }
        let program = place.program(self).ok_or_else(|| format!("{} is not installed", self.name()))?;
        let ports = [backend, place.free_port()?, place.free_port()?];
        let config = place.file(&format!("{}.conf", self.name()));
        fs::write(&config, self.config(place, place.knows_workers, bulk, ports))?;
        let config = config.display().to_string();
        let flags: &[&str] = match self {
            Self::Nginx => &["-c", &config],
            Self::Haproxy => &["-db", "-q", "-f", &config],
            _ => &["--config", &config],
        };
        let mut arguments = vec!["hold".to_owned(), program.path.display().to_string()];
        arguments.extend(flags.iter().map(|flag| (*flag).to_owned()));
        // No access log anywhere. tokio reads its number of threads from here where the config has no key for it.
        let environment = [("RUST_LOG", "warn".to_owned()), ("TOKIO_WORKER_THREADS", place.workers.to_string())];
        let mut child = Child::start(&arguments, &errors, &environment)?;
        let process = child.line()?.parse()?;
        let [_, plain, tls] = ports.map(local);
        wait_for(plain)?;
        wait_for(tls)?;
        Ok(Running { plain, tls, process: Some(process), _child: Some(child) })
    }

    /// Its config, filled in. The ports are the backend's, the plain one and the one for TLS.
    pub(super) fn config(self, place: &Place, knows_workers: bool, bulk: bool, ports: [u16; 3]) -> String {
        let [backend, plain, tls] = ports;
        let template = match self {
            Self::Nginx => NGINX,
            Self::Haproxy => HAPROXY,
            _ => SWITCHGATE,
        };
        let workers = match self {
            Self::Switchgate | Self::Before if knows_workers => format!("workers = {}", place.workers),
            Self::Switchgate | Self::Before => String::new(),
            _ => place.workers.to_string(),
        };
        let buffer = match (self, bulk) {
            (Self::Nginx, false) => "8k",
            (Self::Nginx, true) => "64k",
            (_, false) => "16384",
            (_, true) => "65536",
        };
        let splice = match (bulk, place.splice_always) {
            (false, _) => "",
            (true, false) => "option splice-auto",
            (true, true) => "option splice-request\n    option splice-response",
        };
        let file = |name: &str| place.file(name).display().to_string();
        let values = [
            ("workers", workers),
            ("buffer", buffer.to_owned()),
            ("splice", splice.to_owned()),
            ("open_files", place.open_files.to_string()),
            // Each client takes two: its own and the one towards the backend.
            ("connections", place.connections().to_string()),
            ("clients", (place.connections() / 2).to_string()),
            ("backend", backend.to_string()),
            ("plain", plain.to_string()),
            ("tls", tls.to_string()),
            ("folder", place.folder.display().to_string()),
            ("certificate", file("certificate.pem")),
            ("key", file("key.pem")),
            ("pair", file("pair.pem")),
        ];
        fill(template, &values)
    }
}

/// Replaces every `{{name}}` outside of comments, which explain them.
fn fill(template: &str, values: &[(&str, String)]) -> String {
    let line = |line: &str| {
        if line.trim_start().starts_with('#') {
            return line.to_owned();
        }
        values.iter().fold(line.to_owned(), |line, (name, value)| line.replace(&format!("{{{{{name}}}}}"), value))
    };
    template.lines().map(|text| line(text) + "\n").collect()
}

fn wait_for(address: SocketAddr) -> Result<()> {
    let deadline = Instant::now() + START;
    loop {
        match TcpStream::connect(address) {
            Ok(_) => return Ok(()),
            Err(_) if Instant::now() < deadline => thread::sleep(Duration::from_millis(2)),
            Err(error) => return Err(Error::from(format!("it does not accept on {address}: {error}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_filled_and_its_comments_are_left_alone() {
        let values = [("a", "1".to_owned()), ("b", "2".to_owned())];
        assert_eq!(fill("# {{a}}\nx {{a}} {{b}};", &values), "# {{a}}\nx 1 2;\n");
    }
}
