//! A process of this program under another name: backend, floor, load, or the holder of a proxy.

use std::{
    fs::File,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{self, ChildStdin, ChildStdout, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::Result;

/// How long a child has to end by itself: longer than the holder of a proxy gives to that.
const PATIENCE: Duration = Duration::from_secs(5);

/// A child. It ends when its standard input does; dropped, it is given time for that and then killed.
pub(crate) struct Child {
    child: process::Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Child {
    /// Starts this program with other arguments. What it says on standard error goes to `errors`.
    pub(crate) fn start(arguments: &[String], errors: &Path, environment: &[(&str, String)]) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(arguments)
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::options().create(true).append(true).open(errors)?)
            .spawn()?;
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().ok_or("a child without standard output")?);
        Ok(Self { child, stdin, stdout })
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The next line it prints. Every child bounds its own work, so this ends.
    pub(crate) fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.stdout.read_line(&mut line)? == 0 {
            return Err("it ended before its time".into());
        }
        Ok(line.trim_end().to_owned())
    }

    /// Lets it go on.
    pub(crate) fn go(&mut self) -> Result<()> {
        let stdin = self.stdin.as_mut().ok_or("a child without standard input")?;
        Ok(stdin.write_all(b"go\n")?)
    }

    /// Ends its standard input and waits until it has followed.
    pub(crate) fn end(&mut self) -> Result<ExitStatus> {
        self.stdin.take();
        Ok(self.child.wait()?)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.stdin.take();
        let deadline = Instant::now() + PATIENCE;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                // It is gone already, or it goes now.
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
}
