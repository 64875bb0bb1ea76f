//! The program itself, started as an operator starts it, with its log read as it comes.

use std::{path::Path, process::Stdio};

use rustls::pki_types::ServerName;
use serde_json::Value;
use switchgate::net::{Wire, tls};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::TcpStream,
    process::{Child, Command},
    sync::mpsc,
};
use tokio_rustls::TlsConnector;

use super::{Client, within};

/// `tls` of a listener whose certificate the program makes in its own folder.
pub(crate) const DEVELOPMENT: &str = "tls = { certificate = \"leaf.pem\", key = \"leaf.key\", development = true }\n";

/// A running `switchgate` in a folder of its own.
pub(crate) struct Process {
    child: Child,
    /// Lines of the log. They are read as they come: a full pipe would hold up the program.
    log: mpsc::UnboundedReceiver<String>,
    /// Every event so far.
    pub(crate) seen: Vec<Value>,
    pub(crate) addresses: Vec<String>,
    pub(crate) folder: TempDir,
}

impl Process {
    /// Starts it on this config and waits until it listens.
    pub(crate) async fn start(config: &str) -> Self {
        Self::start_with(config, "info", "exec \"$0\" --log-format json").await
    }

    /// Starts it in a folder that has what the config names.
    pub(crate) async fn start_in(config: &str, folder: TempDir) -> Self {
        Self::launch(config, folder, "info", "exec \"$0\" --log-format json").await
    }

    /// Starts it with `RUST_LOG` and a shell line in which `$0` is the program.
    pub(crate) async fn start_with(config: &str, filter: &str, line: &str) -> Self {
        Self::launch(config, tempfile::tempdir().unwrap(), filter, line).await
    }

    pub(crate) async fn launch(config: &str, folder: TempDir, filter: &str, line: &str) -> Self {
        std::fs::write(folder.path().join("proxy.toml"), config).unwrap();
        let mut child = shell(line, folder.path(), filter).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (sender, log) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            // A test that has seen enough lets go of its end; the program still has to be read from.
            while let Ok(Some(line)) = lines.next_line().await {
                let _ = sender.send(line);
            }
        });
        let mut process = Self { child, log, seen: Vec::new(), addresses: Vec::new(), folder };
        for _ in 0..config.matches("listen =").count() {
            let listening = process.event("listening").await;
            process.addresses.push(listening["address"].as_str().unwrap().to_owned());
        }
        process
    }

    /// The next event with this message; those before it are kept in `seen`.
    pub(crate) async fn event(&mut self, message: &str) -> Value {
        loop {
            let line = within(message, self.log.recv()).await;
            let line = line.unwrap_or_else(|| panic!("no `{message}` before the end of the log: {:#?}", self.seen));
            let event: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
            self.seen.push(event.clone());
            if event["message"] == message {
                return event;
            }
        }
    }

    pub(crate) async fn connect(&self) -> Client<TcpStream> {
        Client::new(TcpStream::connect(&self.addresses[0]).await.unwrap())
    }

    /// Connects to the first listener, through TLS where it has [`DEVELOPMENT`].
    pub(crate) async fn connect_either(&self) -> Client<Wire> {
        self.through(TcpStream::connect(&self.addresses[0]).await.unwrap()).await
    }

    /// The same over a socket that is connected already.
    pub(crate) async fn through(&self, stream: TcpStream) -> Client<Wire> {
        let ca = self.folder.path().join("ca.pem");
        if !ca.exists() {
            return Client::new(Wire::Tcp(stream));
        }
        let connector = TlsConnector::from(tls::client_config(Some(&ca)).unwrap());
        let name = ServerName::try_from("localhost").unwrap();
        Client::new(Wire::boxed(within("TLS handshake", connector.connect(name, stream)).await.unwrap()))
    }

    /// Memory that it shares with nobody, in bytes.
    pub(crate) fn private_memory(&self) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", self.pid())).unwrap();
        let lines =
            text.lines().filter(|line| line.starts_with("Private_Clean:") || line.starts_with("Private_Dirty:"));
        lines.map(|line| line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024).sum()
    }

    /// The log from here on, for whoever does not want to keep all of it.
    pub(crate) fn take_log(&mut self) -> mpsc::UnboundedReceiver<String> {
        std::mem::replace(&mut self.log, mpsc::unbounded_channel().1)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id().unwrap()
    }

    /// What it holds open now.
    pub(crate) fn open_files(&self) -> OpenFiles {
        let mut open = OpenFiles::default();
        for entry in std::fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap() {
            // One that was closed since the folder was read is none.
            let Ok(target) = std::fs::read_link(entry.unwrap().path()) else { continue };
            match target.to_string_lossy().split(':').next() {
                Some("socket") => open.sockets += 1,
                Some("pipe") => open.pipes += 1,
                _ => open.others += 1,
            }
        }
        open
    }

    /// Sends SIGTERM.
    pub(crate) fn terminate(&self) {
        self.signal(rustix::process::Signal::TERM);
    }

    /// Sends SIGKILL: no last word is written.
    pub(crate) fn kill(&self) {
        self.signal(rustix::process::Signal::KILL);
    }

    /// Sends SIGHUP.
    pub(crate) fn hang_up(&self) {
        self.signal(rustix::process::Signal::HUP);
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.pid().cast_signed()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Waits for its end; the rest of the log is in `seen` then.
    pub(crate) async fn exit_code(&mut self) -> Option<i32> {
        while let Some(line) = within("end of the log", self.log.recv()).await {
            self.seen.push(serde_json::from_str(&line).unwrap());
        }
        within("exit", self.child.wait()).await.unwrap().code()
    }

    /// Every event so far with this message.
    pub(crate) fn all(&self, message: &str) -> Vec<&Value> {
        self.seen.iter().filter(|event| event["message"] == message).collect()
    }

    pub(crate) fn count(&self, message: &str) -> usize {
        self.all(message).len()
    }
}

/// Open files of a process, by their kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct OpenFiles {
    pub(crate) sockets: usize,
    /// Both ends of a pipe count.
    pub(crate) pipes: usize,
    pub(crate) others: usize,
}

/// A shell that runs `line` in `folder`, with the program as `$0`.
pub(crate) fn shell(line: &str, folder: &Path, filter: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", line, env!("CARGO_BIN_EXE_switchgate")]).current_dir(folder).env("RUST_LOG", filter);
    command.kill_on_drop(true);
    command
}
