//! `switchgate probe`: one opening handshake against any server, and what RFC 6455 says about the answer.
//!
//! It shares the rules' wording with nobody: the proxy stops at the first broken rule, the probe reports on each.

mod exchange;
mod rules;
mod target;

use std::{
    io::{self, Write},
    path::PathBuf,
    time::Duration,
};

pub use self::target::{ExtraField, FieldError, ProbeTarget, Subprotocol, TargetError};
use self::{
    exchange::{Answer, Exchange},
    rules::{Check, Outcome},
};
use crate::protocol::log_text;

/// What to probe, and how.
#[derive(Clone, Debug)]
pub struct ProbeOptions {
    /// The server.
    pub target: ProbeTarget,
    /// Sent as `Origin`; a probe without it looks like a program, not like a browser.
    pub origin: Option<String>,
    /// Offered in this order, each once.
    pub subprotocols: Vec<Subprotocol>,
    /// Sent besides; `Host` replaces ours.
    pub fields: Vec<ExtraField>,
    /// Which certificates count. Only for `wss`.
    pub trust: Trust,
    /// For everything together, from name resolution to the last byte read.
    pub timeout: Duration,
}

/// Which certificates of a `wss` server count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Those that lead to a root of this system.
    System,
    /// Those that lead to a certificate in this PEM file.
    Ca(PathBuf),
    /// Any: for a look at a server whose certificate is known to be wrong.
    Anyone,
}

/// Does the handshake and writes down how it went. `true`: a proper WebSocket server.
///
/// # Errors
/// Only from `out`. What goes wrong with the server is part of what is written.
pub async fn run(options: &ProbeOptions, out: &mut dyn Write) -> io::Result<bool> {
    writeln!(out, "probing {}", options.target)?;
    if let Some(origin) = &options.origin {
        writeln!(out, "as a page of {origin}")?;
    }
    let Exchange { steps, answer } = exchange::exchange(options).await;
    writeln!(out)?;
    for step in &steps {
        writeln!(out, "{:<8} {:>9}  {}", step.name, milliseconds(step.took), step.detail)?;
    }
    let proper = match answer {
        Ok(answer) => judge(options, &answer, out)?,
        Err(failure) => {
            writeln!(out, "\n{failure}")?;
            false
        }
    };
    writeln!(out, "\n{}", if proper { "a proper WebSocket" } else { "not a proper WebSocket" })?;
    out.flush()?;
    Ok(proper)
}

fn judge(options: &ProbeOptions, answer: &Answer, out: &mut dyn Write) -> io::Result<bool> {
    let checks = rules::checks(options, answer);
    writeln!(out)?;
    for Check { rule, section, outcome } in &checks {
        let (word, detail) = match outcome {
            Outcome::Kept(detail) => ("pass", detail),
            Outcome::Broken(detail) => ("FAIL", detail),
            Outcome::NotJudged(detail) => ("skip", detail),
        };
        writeln!(out, "{word}  {rule:<44} {section}")?;
        if !detail.is_empty() {
            writeln!(out, "      {detail}")?;
        }
    }
    Ok(checks.iter().all(|check| matches!(check.outcome, Outcome::Kept(_))))
}

fn milliseconds(took: Duration) -> String {
    format!("{:.1} ms", took.as_secs_f64() * 1000.0)
}

/// What a peer said, in a form that cannot move the cursor of a terminal and has an end.
fn printable(bytes: &[u8]) -> String {
    const SHOWN: usize = 200;
    log_text::escape_to(bytes, SHOWN)
}

#[cfg(test)]
mod tests;
