//! The program itself, started as an operator starts it, with its log read as it comes.

use std::{path::Path, process::Stdio};

use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    net::TcpStream,
    process::{Child, ChildStderr, Command},
};

use super::{Client, within};

/// A running `switchgate` in a folder of its own.
pub(crate) struct Process {
    child: Child,
    log: Lines<BufReader<ChildStderr>>,
    /// Every event so far.
    pub(crate) seen: Vec<Value>,
    pub(crate) addresses: Vec<String>,
    _folder: TempDir,
}

impl Process {
    /// Starts it on this config and waits until it listens.
    pub(crate) async fn start(config: &str) -> Self {
        Self::start_with(config, "info", "exec \"$0\" --log-format json").await
    }

    /// Starts it with `RUST_LOG` and a shell line in which `$0` is the program.
    pub(crate) async fn start_with(config: &str, filter: &str, line: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("proxy.toml"), config).unwrap();
        let mut child = shell(line, folder.path(), filter).stderr(Stdio::piped()).spawn().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut process = Self { child, log, seen: Vec::new(), addresses: Vec::new(), _folder: folder };
        for _ in 0..config.matches("listen =").count() {
            let listening = process.event("listening").await;
            process.addresses.push(listening["address"].as_str().unwrap().to_owned());
        }
        process
    }

    /// The next event with this message; those before it are kept in `seen`.
    pub(crate) async fn event(&mut self, message: &str) -> Value {
        loop {
            let line = within(message, self.log.next_line()).await.unwrap();
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

    /// Sends SIGTERM.
    pub(crate) fn terminate(&self) {
        let pid = rustix::process::Pid::from_raw(self.child.id().unwrap().cast_signed()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    }

    /// Waits for its end; the rest of the log is in `seen` then.
    pub(crate) async fn exit_code(&mut self) -> Option<i32> {
        while let Some(line) = within("end of the log", self.log.next_line()).await.unwrap() {
            self.seen.push(serde_json::from_str(&line).unwrap());
        }
        within("exit", self.child.wait()).await.unwrap().code()
    }

    pub(crate) fn count(&self, message: &str) -> usize {
        self.seen.iter().filter(|event| event["message"] == message).count()
    }
}

/// A shell that runs `line` in `folder`, with the program as `$0`.
pub(crate) fn shell(line: &str, folder: &Path, filter: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", line, env!("CARGO_BIN_EXE_switchgate")]).current_dir(folder).env("RUST_LOG", filter);
    command.kill_on_drop(true);
    command
}
