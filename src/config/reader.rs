//! Reads TOML values without stopping at the first mistake, which serde would.

use std::{borrow::Cow, collections::BTreeMap, num::NonZeroUsize, ops::Range, time::Duration};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use toml::{Spanned, de::DeValue};

use super::error::Problems;
use crate::protocol::websocket::close;

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Given<T> {
    pub(super) value: T,
    pub(super) span: Range<usize>,
}

/// A type that can be read from TOML; what is wrong goes to `problems`.
pub(super) trait FromToml: Sized {
    fn from_toml(value: &Spanned<DeValue<'_>>, problems: &mut Problems<'_>) -> Option<Self>;
}

pub(super) fn given<T: FromToml>(value: &Spanned<DeValue<'_>>, problems: &mut Problems<'_>) -> Option<Given<T>> {
    T::from_toml(value, problems).map(|read| Given { value: read, span: value.span() })
}

const LIST: &str = "a list";

/// Notes that another kind of value was expected.
pub(super) fn mismatch(value: &Spanned<DeValue<'_>>, expected: &str, problems: &mut Problems<'_>) {
    let (kind, hint) = match value.get_ref() {
        DeValue::Integer(_) => ("an integer", ""),
        DeValue::Array(_) => ("a list", ""),
        DeValue::Table(_) if expected == LIST => {
            ("a table", "; write its name in double brackets, as in `[[listener]]`")
        }
        other => (other.type_str(), ""),
    };
    let article = if kind.contains(' ') { "" } else { "a " };
    problems.at(&value.span(), format!("this is {article}{kind}; expected {expected}{hint}"));
}

impl FromToml for String {
    fn from_toml(value: &Spanned<DeValue<'_>>, problems: &mut Problems<'_>) -> Option<Self> {
        let text = value.get_ref().as_str().map(str::to_owned);
        if text.is_none() {
            mismatch(value, "a string", problems);
        }
        text
    }
}

impl FromToml for bool {
    fn from_toml(value: &Spanned<DeValue<'_>>, problems: &mut Problems<'_>) -> Option<Self> {
        let flag = value.get_ref().as_bool();
        if flag.is_none() {
            mismatch(value, "`true` or `false`", problems);
        }
        flag
    }
}

impl FromToml for usize {
    fn from_toml(value: &Spanned<DeValue<'_>>, problems: &mut Problems<'_>) -> Option<Self> {
        let number = value.get_ref().as_integer().and_then(|n| Self::from_str_radix(n.as_str(), n.radix()).ok());
        if number.is_none() {
            mismatch(value, "a whole number from 0 up", problems);
        }
        number
    }
}

impl<T: FromToml> FromToml for Vec<Given<T>> {
    fn from_toml(value: &Spanned<DeValue<'_>>, problems: &mut Problems<'_>) -> Option<Self> {
        let Some(array) = value.get_ref().as_array() else {
            mismatch(value, LIST, problems);
            return None;
        };
        Some(array.iter().filter_map(|member| given(member, problems)).collect())
    }
}

impl<T: FromToml> FromToml for BTreeMap<String, Given<T>> {
    fn from_toml(value: &Spanned<DeValue<'_>>, problems: &mut Problems<'_>) -> Option<Self> {
        let Some(table) = value.get_ref().as_table() else {
            mismatch(value, "tables with a name each", problems);
            return None;
        };
        let read = table.iter().filter_map(|(key, member)| {
            let read = given(member, problems)?;
            Some((key.get_ref().to_string(), read))
        });
        Some(read.collect())
    }
}

/// One string, or a list of strings.
#[derive(Clone, Debug)]
pub(super) struct OneOrMany(pub(super) Vec<Given<String>>);

impl FromToml for OneOrMany {
    fn from_toml(value: &Spanned<DeValue<'_>>, problems: &mut Problems<'_>) -> Option<Self> {
        if value.get_ref().is_str() {
            return given(value, problems).map(|one| Self(vec![one]));
        }
        if !value.get_ref().is_array() {
            mismatch(value, "a string or a list of strings", problems);
            return None;
        }
        Vec::from_toml(value, problems).map(Self)
    }
}

/// A span of time, as `"30s"`; `None` is `"off"`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span(pub(super) Option<Duration>);

const SPAN: &str = "a duration such as \"500ms\", \"30s\", \"10m\" or \"1h\"";

impl FromToml for Span {
    fn from_toml(value: &Spanned<DeValue<'_>>, problems: &mut Problems<'_>) -> Option<Self> {
        let Some(text) = value.get_ref().as_str() else {
            mismatch(value, SPAN, problems);
            return None;
        };
        if text == "off" {
            return Some(Self(None));
        }
        let (number, unit) = split_unit(text);
        let millis = match unit {
            "ms" => Some(1),
            "s" => Some(1000),
            "m" => Some(60_000),
            "h" => Some(3_600_000),
            "d" => Some(86_400_000),
            _ => None,
        };
        let span =
            millis.zip(number).and_then(|(unit, number)| number.checked_mul(unit)).filter(|span| *span <= MAX_MILLIS);
        match span {
            Some(0) => {
                problems.at(&value.span(), "a duration of zero; \"never\" is written \"off\" where that is allowed")
            }
            Some(span) => return Some(Self(Some(Duration::from_millis(span)))),
            None => problems.at(&value.span(), format!("`{text}` is no duration; expected {SPAN}, at most 365 days")),
        }
        None
    }
}

/// A year; longer than that is a typing mistake, and sums of durations stay far from overflow.
const MAX_MILLIS: u64 = 365 * 86_400_000;

/// A number of bytes, as `"64KiB"`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size(pub(super) usize);

impl FromToml for Size {
    fn from_toml(value: &Spanned<DeValue<'_>>, problems: &mut Problems<'_>) -> Option<Self> {
        const EXPECTED: &str = "a size such as \"512B\", \"64KiB\" or \"1MiB\"";
        let Some(text) = value.get_ref().as_str() else {
            mismatch(value, EXPECTED, problems);
            return None;
        };
        let (number, unit) = split_unit(text);
        let unit: Option<u64> = match unit {
            "B" => Some(1),
            "KiB" => Some(1 << 10),
            "MiB" => Some(1 << 20),
            "GiB" => Some(1 << 30),
            _ => None,
        };
        let bytes = unit.zip(number).and_then(|(unit, number)| number.checked_mul(unit));
        let size = bytes.and_then(|bytes| usize::try_from(bytes).ok());
        if size.is_none() {
            problems.at(&value.span(), format!("`{text}` is no size; expected {EXPECTED}"));
        }
        size.map(Self)
    }
}

/// A number of threads, or `"auto"`, which is `None`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Workers(pub(super) Option<NonZeroUsize>);

/// Far more than any machine has cores; a larger number is a typing mistake.
const MAX_WORKERS: usize = 1024;

impl FromToml for Workers {
    fn from_toml(value: &Spanned<DeValue<'_>>, problems: &mut Problems<'_>) -> Option<Self> {
        const EXPECTED: &str = "\"auto\" or a whole number from 1 to 1024";
        if value.get_ref().as_str() == Some("auto") {
            return Some(Self(None));
        }
        let number = value.get_ref().as_integer().and_then(|n| usize::from_str_radix(n.as_str(), n.radix()).ok());
        let number = number.filter(|number| *number <= MAX_WORKERS).and_then(NonZeroUsize::new);
        if number.is_none() {
            mismatch(value, EXPECTED, problems);
        }
        number.map(|number| Self(Some(number)))
    }
}

/// A Close code that an operator may choose for a Close of ours.
#[derive(Clone, Copy, Debug)]
pub(super) struct CloseCode(pub(super) u16);

impl FromToml for CloseCode {
    fn from_toml(value: &Spanned<DeValue<'_>>, problems: &mut Problems<'_>) -> Option<Self> {
        let number = usize::from_toml(value, problems)?;
        let code = u16::try_from(number).ok().filter(|code| close::is_choosable(*code));
        if code.is_none() {
            let text = format!("Close code {number} is not allowed here; expected {}", close::CHOOSABLE);
            problems.at(&value.span(), text);
        }
        code.map(Self)
    }
}

fn split_unit(text: &str) -> (Option<u64>, &str) {
    let at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(at).unwrap_or((text, ""));
    (number.parse().ok(), unit)
}

impl<T: JsonSchema> JsonSchema for Given<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<T>()
    }
}

macro_rules! text_schema {
    ($name:ident, $schema:tt) => {
        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    };
}

text_schema!(OneOrMany, { "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" } }] });
text_schema!(Workers, { "anyOf": [{ "const": "auto" }, { "type": "integer", "minimum": 1, "maximum": 1024 }] });
text_schema!(Span, { "type": "string", "pattern": "^([0-9]+(ms|s|m|h|d)|off)$" });
text_schema!(CloseCode, {
    "anyOf": [{ "enum": [1001, 1011, 1012, 1013] }, { "type": "integer", "minimum": 4000, "maximum": 4999 }]
});
text_schema!(Size, { "type": "string", "pattern": "^[0-9]+(B|KiB|MiB|GiB)$" });

/// Makes, from one list of documented keys, a table's struct, its schema and its reader.
macro_rules! raw_table {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $field:ident: $kind:ty,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Default, schemars::JsonSchema)]
        #[schemars(deny_unknown_fields)]
        pub(in crate::config) struct $name {
            $($(#[$doc])* pub(in crate::config) $field: Option<$crate::config::reader::Given<$kind>>,)*
        }

        impl $crate::config::reader::FromToml for $name {
            fn from_toml(
                value: &toml::Spanned<toml::de::DeValue<'_>>,
                problems: &mut $crate::config::error::Problems<'_>,
            ) -> Option<Self> {
                let Some(table) = value.get_ref().as_table() else {
                    $crate::config::reader::mismatch(value, "a table", problems);
                    return None;
                };
                let mut read = Self::default();
                for (key, value) in table {
                    match key.get_ref().as_ref() {
                        $(stringify!($field) => read.$field = $crate::config::reader::given(value, problems),)*
                        unknown => {
                            let hint = $crate::config::error::nearest(unknown, [$(stringify!($field)),*]);
                            problems.at(&key.span(), format!("unknown key `{unknown}`{hint}"));
                        }
                    }
                }
                Some(read)
            }
        }
    };
}

/// Makes an enum that is written as one of several words.
macro_rules! raw_choice {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, schemars::JsonSchema)]
        pub(in crate::config) enum $name {
            $($(#[$doc])* #[schemars(rename = $word)] $variant,)*
        }

        impl $crate::config::reader::FromToml for $name {
            fn from_toml(
                value: &toml::Spanned<toml::de::DeValue<'_>>,
                problems: &mut $crate::config::error::Problems<'_>,
            ) -> Option<Self> {
                match value.get_ref().as_str() {
                    $(Some($word) => Some(Self::$variant),)*
                    Some(other) => {
                        let hint = $crate::config::error::nearest(other, [$($word),*]);
                        problems.at(&value.span(), format!("unknown value `{other}`{hint}"));
                        None
                    }
                    None => {
                        $crate::config::reader::mismatch(value, &format!("one of: {}", [$($word),*].join(", ")), problems);
                        None
                    }
                }
            }
        }
    };
}

pub(super) use {raw_choice, raw_table};
