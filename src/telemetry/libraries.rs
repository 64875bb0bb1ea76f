//! What libraries log: nothing above debug, unless `RUST_LOG` names them.
//!
//! They know neither the listener nor the client, and a peer may cause their warnings at will. Relevant ones are
//! covered by our own events.

use std::fmt::{self, Write as _};

use serde_json::{Map, Value};
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    filter::LevelFilter,
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::Writer,
        time::{FormatTime, SystemTime},
    },
    registry::LookupSpan,
};

/// Targets of our own events begin so.
const OURS: &str = "switchgate";

/// `RUST_LOG`, as a filter of events understands it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Directives {
    /// For `EnvFilter`.
    pub(super) filter: String,
    /// The targets that it names.
    pub(super) named: Vec<String>,
}

impl Directives {
    /// Reads the text of `RUST_LOG`; an empty one stands for `info`.
    pub(super) fn read(text: &str) -> Self {
        let text = if text.trim().is_empty() { "info" } else { text };
        // Span fields may contain commas, so such a directive is passed to `EnvFilter` unchanged.
        if text.contains(['[', '{']) {
            return Self { filter: text.to_owned(), named: Vec::new() };
        }
        let (mut filter, mut named) = (Vec::new(), Vec::new());
        for directive in text.split(',').map(str::trim).filter(|directive| !directive.is_empty()) {
            match directive.parse::<LevelFilter>() {
                Ok(level) if level <= LevelFilter::INFO => {
                    // First, so that a directive with a target takes precedence wherever it stands.
                    filter.splice(0..0, ["off".to_owned(), format!("{OURS}={level}")]);
                }
                Ok(_) => filter.push(directive.to_owned()),
                Err(_) => {
                    named.extend(directive.split('=').next().map(str::to_owned));
                    filter.push(directive.to_owned());
                }
            }
        }
        Self { filter: filter.join(","), named }
    }
}

/// Writes our events as `F` does, and those of libraries without the paths of their sources and not above `DEBUG`.
pub(super) struct Events<F> {
    pub(super) inner: F,
    pub(super) json: bool,
    pub(super) named: Vec<String>,
}

impl<S, N, F> FormatEvent<S, N> for Events<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, ctx: &FmtContext<'_, S, N>, writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let metadata = event.metadata();
        if metadata.target().starts_with(OURS) {
            return self.inner.format_event(ctx, writer, event);
        }
        let mut fields = Fields { target: metadata.target().to_owned(), message: String::new(), rest: Map::new() };
        event.record(&mut fields);
        let named = self.named.iter().any(|name| fields.target.starts_with(name.as_str()));
        let level = if named { *metadata.level() } else { (*metadata.level()).max(Level::DEBUG) };
        self.write(writer, level, fields)
    }
}

impl<F> Events<F> {
    fn write(&self, mut writer: Writer<'_>, level: Level, fields: Fields) -> fmt::Result {
        let Fields { target, message, rest } = fields;
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        if self.json {
            let mut event = Map::from_iter([
                ("timestamp".to_owned(), Value::from(time)),
                ("level".to_owned(), Value::from(level.as_str())),
                ("message".to_owned(), Value::from(message)),
            ]);
            event.extend(rest);
            event.insert("target".to_owned(), Value::from(target));
            return writeln!(writer, "{}", Value::Object(event));
        }
        write!(writer, "{time} {level:>5} {target}: {message}")?;
        for (name, value) in rest {
            write!(writer, " {name}={value}")?;
        }
        writeln!(writer)
    }
}

/// The fields of an event. Those of the `log` crate say where it comes from in fields of their own.
struct Fields {
    target: String,
    message: String,
    rest: Map<String, Value>,
}

impl Fields {
    fn record(&mut self, field: &Field, value: String) {
        match field.name() {
            "message" => self.message = value,
            "log.target" => self.target = value,
            // Where the source of the library is on the machine that built it.
            name if name.starts_with("log.") => {}
            name => drop(self.rest.insert(name.to_owned(), Value::from(value))),
        }
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record(field, value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut text = String::new();
        let _never_fails = write!(text, "{value:?}");
        self.record(field, text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_without_a_target_is_ours_until_it_is_debug() {
        for (text, filter, named) in [
            ("", "off,switchgate=info", &[][..]),
            (" ", "off,switchgate=info", &[]),
            ("info", "off,switchgate=info", &[]),
            ("WARN", "off,switchgate=warn", &[]),
            ("2", "off,switchgate=warn", &[]),
            ("off", "off,switchgate=off", &[]),
            ("debug", "debug", &[]),
            ("trace", "trace", &[]),
            ("switchgate=debug", "switchgate=debug", &["switchgate"]),
            ("rustls=warn,info", "off,switchgate=info,rustls=warn", &["rustls"]),
            ("info, h2=debug", "off,switchgate=info,h2=debug", &["h2"]),
            ("warn,switchgate=debug", "off,switchgate=warn,switchgate=debug", &["switchgate"]),
            ("hyper", "hyper", &["hyper"]),
            ("info,[request{id=1,x}]=debug", "info,[request{id=1,x}]=debug", &[]),
            ("nonsense=loud", "nonsense=loud", &["nonsense"]),
        ] {
            let named = named.iter().map(|name| (*name).to_owned()).collect();
            assert_eq!(Directives::read(text), Directives { filter: filter.to_owned(), named }, "{text:?}");
        }
    }
}
