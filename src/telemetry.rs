//! The tracing subscriber, installed by `main`; everything else speaks through the `tracing` facade.

use std::io::{self, IsTerminal};

use tracing_subscriber::{EnvFilter, filter::LevelFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For a person at a terminal.
    #[default]
    Pretty,
    /// One JSON object a line.
    Json,
}

/// Keeps the embedded echo's messages out of the log.
const PAYLOADS_OUT: &str = "tungstenite=debug";

/// Keeps out a second event for each refused upstream certificate: ours has the reason, the cure and the request.
const REFUSALS_ONCE: &str = "rustls_platform_verifier=off";

/// Sends events to standard error; `RUST_LOG` chooses which (default `info`).
///
/// # Errors
/// When `RUST_LOG` cannot be understood, or a subscriber is installed already.
pub fn install(format: LogFormat) -> Result<(), String> {
    let filter = match std::env::var("RUST_LOG") {
        Ok(text) if !text.trim().is_empty() => EnvFilter::try_new(&text).map_err(|error| {
            format!("RUST_LOG is `{text}`: {error}; expected for example `info` or `switchgate=debug`")
        })?,
        _ => EnvFilter::new("info"),
    };
    // At `trace` the embedded echo's library writes whole messages: payloads stay out unless it is named.
    let everything = filter.max_level_hint() == Some(LevelFilter::TRACE) && !filter.to_string().contains("tungstenite");
    let filter = match PAYLOADS_OUT.parse() {
        Ok(directive) if everything => filter.add_directive(directive),
        _ => filter,
    };
    let filter = match REFUSALS_ONCE.parse() {
        Ok(directive) if !filter.to_string().contains("rustls_platform_verifier") => filter.add_directive(directive),
        _ => filter,
    };
    let registry = tracing_subscriber::registry().with(filter);
    let installed = match format {
        LogFormat::Pretty => {
            let layer = fmt::layer().with_writer(io::stderr).with_ansi(io::stderr().is_terminal()).with_target(false);
            registry.with(layer).try_init()
        }
        LogFormat::Json => {
            let layer = fmt::layer().json().flatten_event(true).with_span_list(false).with_writer(io::stderr);
            registry.with(layer).try_init()
        }
    };
    installed.map_err(|error| error.to_string())
}
