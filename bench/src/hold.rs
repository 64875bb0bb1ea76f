//! Runs a proxy for as long as compare lives.
//!
//! nginx and HAProxy know nothing of a parent that dies. This process does: its standard input ends, however the parent
//! was killed, and it takes the proxy with it.

use std::{
    io::{Write, stdin, stdout},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::Result;

/// How long a proxy has to stop before it is killed.
const GRACE: Duration = Duration::from_secs(3);

/// Runs the command, prints its process id, and stops it when standard input ends.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let (program, arguments) = arguments.split_first().ok_or("hold takes a command")?;
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .map_err(|error| format!("cannot start {program}: {error}"))?;
    writeln!(stdout().lock(), "{}", child.id())?;
    // An error here is an end as well.
    let _ = std::io::copy(&mut stdin().lock(), &mut std::io::sink());
    stop(&mut child)
}

/// Asks politely first: nginx takes its workers along then.
fn stop(child: &mut Child) -> Result<()> {
    if child.try_wait()?.is_none()
        && let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw)
    {
        kill_process(pid, Signal::TERM)?;
    }
    let deadline = Instant::now() + GRACE;
    while child.try_wait()?.is_none() {
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            break;
        }
        thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}
