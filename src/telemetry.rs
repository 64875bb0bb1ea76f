//! The tracing subscriber, installed by `main`; everything else speaks through the `tracing` facade.

mod libraries;
mod lines;

use std::io::{self, IsTerminal};

use tracing_subscriber::{EnvFilter, filter::LevelFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

use self::{
    libraries::{Directives, Events},
    lines::Lines,
};

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
/// A level without a target, such as `info`, is that of switchgate alone: a library knows neither the listener nor the
/// client of what it reports. From `debug` on it counts for libraries too, whose events are then shown as `DEBUG`. A target
/// that is named, as in `rustls=warn`, is shown as it is.
///
/// # Errors
/// When `RUST_LOG` cannot be understood, or a subscriber is installed already.
pub fn install(format: LogFormat) -> Result<(), String> {
    let text = std::env::var("RUST_LOG").unwrap_or_default();
    let directives = Directives::read(&text);
    let filter = EnvFilter::try_new(&directives.filter)
        .map_err(|error| format!("RUST_LOG is `{text}`: {error}; expected for example `info` or `switchgate=debug`"))?;
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
            let ansi = io::stderr().is_terminal();
            let layer =
                fmt::layer().with_writer(move || Lines { json: false, ansi }).with_ansi(ansi).with_target(false);
            let layer = layer.map_event_format(|inner| Events { inner, json: false, named: directives.named });
            registry.with(layer).try_init()
        }
        LogFormat::Json => {
            let writer = || Lines { json: true, ansi: false };
            let layer = fmt::layer().json().flatten_event(true).with_span_list(false).with_writer(writer);
            let layer = layer.map_event_format(|inner| Events { inner, json: true, named: directives.named });
            registry.with(layer).try_init()
        }
    };
    installed.map_err(|error| error.to_string())
}
