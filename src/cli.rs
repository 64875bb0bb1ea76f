//! The grammar of the command line and its help text. Returns an [`Invocation`] and does nothing else.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum, error::ErrorKind};
use clap_complete::Shell;

use crate::probe::{ExtraField, ProbeOptions, ProbeTarget, Subprotocol, Trust};

/// Read when `--config` is not given.
const DEFAULT_CONFIG: &str = "proxy.toml";

const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (commit ", env!("SWITCHGATE_COMMIT"), ")");

/// What the user asked for, and how it is to be logged.
#[derive(Debug)]
pub struct Invocation {
    /// Form of the log on stderr.
    pub log_format: LogFormat,
    /// What to do.
    pub command: Command,
}

/// One thing the program can do.
#[derive(Debug)]
pub enum Command {
    /// Serve until told to stop.
    Run {
        /// The config file.
        config: PathBuf,
        /// Where the secrets of TLS connections go, if anywhere.
        tls_key_log: Option<PathBuf>,
    },
    /// Read the config, name every problem, and leave.
    Check {
        /// The config file.
        config: PathBuf,
    },
    /// One opening handshake against any server.
    Probe(Box<ProbeOptions>),
    /// Write the completion script for this shell.
    Completions(Shell),
    /// Write the JSON schema of the config file.
    Schema,
}

/// Form of the log on stderr.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Pretty,
    /// One JSON object a line, for machines.
    Json,
}

#[derive(Debug, Parser)]
#[command(
    name = "switchgate",
    version = VERSION,
    about = "A reverse proxy that understands WebSocket upgrades",
    long_about = "A reverse proxy that understands WebSocket upgrades: it checks the opening handshake and the Origin \
                  before an upstream is called, verifies the upstream's 101, then relays bytes.\n\n\
                  Without a subcommand it does what `switchgate run` does.",
    after_help = "Examples:\n  \
                  switchgate                                 serve what ./proxy.toml says\n  \
                  switchgate --config /etc/switchgate/proxy.toml\n  \
                  switchgate check                           name every problem in ./proxy.toml\n  \
                  switchgate probe ws://127.0.0.1:8080/      is this a proper WebSocket server?\n  \
                  RUST_LOG=debug switchgate --log-format json\n\n\
                  Exit codes: 0 done, 1 failed, 2 bad usage or bad config.",
    disable_help_subcommand = true
)]
struct Cli {
    #[command(flatten)]
    config: ConfigFile,

    /// Form of the log on stderr; RUST_LOG says how much of it
    #[arg(long, value_enum, value_name = "FORM", default_value_t, global = true)]
    log_format: LogFormat,

    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Args)]
struct ConfigFile {
    /// The config file [default: proxy.toml]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct RunArgs {
    #[command(flatten)]
    config: ConfigFile,

    /// Add the secrets of all TLS connections of clients to this file, for Wireshark; never in production
    ///
    /// Whoever has the file can read all traffic, so it is made for this user alone. Nothing else turns this on: no
    /// key of the config, and no SSLKEYLOGFILE in the environment.
    #[arg(long, value_name = "FILE")]
    tls_key_log: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Serve until SIGTERM or SIGINT (the default)
    #[command(after_help = "Examples:\n  \
                            switchgate run\n  \
                            switchgate run --config /etc/switchgate/proxy.toml --log-format json\n\n\
                            A signal closes the listeners; requests in flight finish, and open WebSockets get the\n\
                            time that `[drain] grace` allows. Exit codes: 0 stopped by a signal, 1 failed, 2 bad config.")]
    Run(RunArgs),

    /// Name every problem in the config, with line, column and what would be right
    #[command(after_help = "Examples:\n  \
                            switchgate check\n  \
                            switchgate check --config staging.toml && systemctl restart switchgate\n\n\
                            Nothing is bound and nothing is called. Exit codes: 0 good, 2 at least one problem.")]
    Check(ConfigFile),

    /// Try one opening handshake and print each rule of RFC 6455 that the server kept or broke
    #[command(after_help = "Examples:\n  \
                            switchgate probe ws://127.0.0.1:8080/\n  \
                            switchgate probe wss://localhost:8443/chat --ca certs/ca.pem --subprotocol chat.v2\n  \
                            switchgate probe wss://example.com/live --origin https://evil.example\n  \
                            switchgate probe ws://10.0.0.7:3000/ --header 'Host: app.example.com' --timeout 2s\n\n\
                            Exit codes: 0 a proper WebSocket, 1 not one, 2 bad usage.")]
    Probe(ProbeArgs),

    /// Write a completion script to stdout
    #[command(after_help = "Examples:\n  \
                            switchgate completions bash > ~/.local/share/bash-completion/completions/switchgate\n  \
                            switchgate completions zsh > ~/.zfunc/_switchgate\n  \
                            switchgate completions fish > ~/.config/fish/completions/switchgate.fish")]
    Completions {
        /// The shell to write for
        #[arg(value_enum)]
        shell: Shell,
    },

    /// Write the JSON schema of the config file to stdout
    #[command(after_help = "Examples:\n  \
                            switchgate schema > proxy.schema.json\n\n\
                            An editor that knows TOML completes the file when its first line is:\n  \
                            #:schema ./proxy.schema.json")]
    Schema,
}

#[derive(Debug, Args)]
struct ProbeArgs {
    /// The server, as ws://host[:port]/path or wss://host[:port]/path
    url: ProbeTarget,

    /// Send this Origin, as a browser page of that site would
    #[arg(long, value_parser = parse_origin)]
    origin: Option<String>,

    /// Offer this subprotocol; may be given again, the first is preferred
    #[arg(long = "subprotocol", value_name = "NAME")]
    subprotocols: Vec<Subprotocol>,

    /// Send this field too; may be given again
    #[arg(long = "header", value_name = "NAME: VALUE")]
    fields: Vec<ExtraField>,

    /// Trust the CA certificates in this PEM file instead of the system's
    #[arg(long, value_name = "FILE", conflicts_with = "insecure")]
    ca: Option<PathBuf>,

    /// Accept any certificate: whoever sits on the path can then answer in the server's place
    #[arg(long)]
    insecure: bool,

    /// Give up after this time, everything included
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    timeout: Duration,
}

/// Reads the command line, program name first.
///
/// # Errors
/// A usage error, or the text that `--help` and `--version` ask for: print it and leave with its `exit_code()`.
pub fn parse<T>(arguments: impl IntoIterator<Item = T>) -> Result<Invocation, clap::Error>
where
    T: Into<OsString> + Clone,
{
    let Cli { config: ConfigFile { config: before }, log_format, action } = Cli::try_parse_from(arguments)?;
    let command = match action {
        None => Command::Run { config: before.unwrap_or_else(|| DEFAULT_CONFIG.into()), tls_key_log: None },
        Some(Action::Run(RunArgs { config, tls_key_log })) => {
            Command::Run { config: one_config(before, config)?, tls_key_log }
        }
        Some(Action::Check(file)) => Command::Check { config: one_config(before, file)? },
        Some(_) if before.is_some() => {
            return Err(usage(ErrorKind::ArgumentConflict, "`--config` is for `run` and `check` only; leave it out"));
        }
        Some(Action::Probe(probe)) => Command::Probe(Box::new(probe.into_options()?)),
        Some(Action::Completions { shell }) => Command::Completions(shell),
        Some(Action::Schema) => Command::Schema,
    };
    Ok(Invocation { log_format, command })
}

/// The completion script of one shell.
pub fn completions(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "switchgate", &mut script);
    script
}

/// `--config` may stand before the subcommand or after it, but not in both places.
fn one_config(before: Option<PathBuf>, after: ConfigFile) -> Result<PathBuf, clap::Error> {
    match (before, after.config) {
        (Some(_), Some(_)) => Err(usage(ErrorKind::ArgumentConflict, "`--config` is given twice; keep one of them")),
        (Some(file), None) | (None, Some(file)) => Ok(file),
        (None, None) => Ok(DEFAULT_CONFIG.into()),
    }
}

fn usage(kind: ErrorKind, what: impl std::fmt::Display) -> clap::Error {
    Cli::command().error(kind, what)
}

impl ProbeArgs {
    fn into_options(self) -> Result<ProbeOptions, clap::Error> {
        for (index, name) in self.subprotocols.iter().enumerate() {
            if self.subprotocols.iter().take(index).any(|earlier| earlier == name) {
                // RFC 6455 §4.1, request item 10: all of them unique. Sent anyway, the probe would test itself.
                let what = format!("subprotocol `{}` is offered twice; name it once", name.as_str());
                return Err(usage(ErrorKind::ValueValidation, what));
            }
        }
        let trust = match (self.ca, self.insecure) {
            (Some(file), _) => Trust::Ca(file),
            (None, true) => Trust::Anyone,
            (None, false) => Trust::System,
        };
        Ok(ProbeOptions {
            target: self.url,
            origin: self.origin,
            subprotocols: self.subprotocols,
            fields: self.fields,
            trust,
            timeout: self.timeout,
        })
    }
}

/// Any Origin that fits in a field, also one that no browser would send: refusing those is what gets probed.
fn parse_origin(text: &str) -> Result<String, &'static str> {
    match http::HeaderValue::from_str(text) {
        Ok(value) if value.to_str().is_ok() && !text.trim().is_empty() => Ok(text.trim().to_owned()),
        _ => Err("an Origin is visible ASCII, such as `https://app.example.com` or `null`"),
    }
}

fn parse_duration(text: &str) -> Result<Duration, &'static str> {
    const RIGHT: &str = "a time is a whole number above zero with its unit, such as `500ms`, `10s` or `2m`";
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let digits = text.strip_suffix(unit).unwrap_or_default();
    let factor: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(RIGHT),
    };
    match digits.parse::<u64>().ok().and_then(|number| number.checked_mul(factor)) {
        // A day is longer than anybody waits, and short enough that no sum of times overflows.
        Some(millis @ 1..=86_400_000) => Ok(Duration::from_millis(millis)),
        _ => Err(RIGHT),
    }
}
