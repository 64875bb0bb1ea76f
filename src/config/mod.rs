//! `proxy.toml`: as written, then as understood.

pub mod acme;
mod error;
pub mod model;
mod raw;
mod reader;
pub mod relay_policy;
pub mod route_limits;
mod routes;
mod validate;

use std::path::Path;

use error::Problems;
pub use error::{ConfigErrors, Problem};
use model::Model;
use reader::FromToml;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// Reads and checks a file. Relative paths in it are taken from its folder.
///
/// # Errors
/// Every problem of the file at once.
pub fn load(path: &Path) -> Result<Model, ConfigErrors> {
    match std::fs::read_to_string(path) {
        Ok(text) => parse(&text, path),
        Err(error) => {
            let mut problems = Problems::new("");
            problems.in_whole(format!("cannot read the config: {error}; name another with `--config FILE`"));
            Err(ConfigErrors::new(path.to_owned(), problems.into_found()))
        }
    }
}

/// Checks a text that stands, or would stand, in `path`.
///
/// # Errors
/// Every problem of the text at once.
pub fn parse(text: &str, path: &Path) -> Result<Model, ConfigErrors> {
    let mut problems = Problems::new(text);
    let (table, syntax) = DeTable::parse_recoverable(text);
    for error in &syntax {
        match error.span() {
            Some(span) => problems.at(&span, error.message()),
            None => problems.in_whole(error.message()),
        }
    }
    // After a syntax error the parser guesses what was meant: nothing true can be said of what it made of the rest.
    if !syntax.is_empty() {
        return Err(ConfigErrors::new(path.to_owned(), problems.into_found()));
    }
    let span = table.span();
    let file = raw::File::from_toml(&Spanned::new(span, DeValue::Table(table.into_inner())), &mut problems);
    let folder = path.parent().unwrap_or(Path::new(""));
    let model = file.and_then(|file| validate::validate(file, folder, &mut problems));
    let found = problems.into_found();
    match model {
        Some(model) if found.is_empty() => Ok(model),
        _ => Err(ConfigErrors::new(path.to_owned(), found)),
    }
}

/// The JSON schema of the file, for editors.
pub fn schema() -> String {
    let mut schema = serde_json::Value::from(schemars::schema_for!(raw::File));
    drop_null(&mut schema);
    let mut text = serde_json::to_string_pretty(&schema).unwrap_or_default();
    text.push('\n');
    text
}

/// TOML has no null: an optional key is one that is left out.
fn drop_null(value: &mut serde_json::Value) {
    use serde_json::Value;
    match value {
        Value::Object(fields) => {
            if let Some(Value::Array(kinds)) = fields.get_mut("type") {
                kinds.retain(|kind| kind != "null");
                if let [only] = kinds.as_slice() {
                    let only = only.clone();
                    fields.insert("type".into(), only);
                }
            }
            if let Some(Value::Array(choices)) = fields.get_mut("anyOf") {
                choices.retain(|choice| choice.get("type").is_none_or(|kind| kind != "null"));
                if let [Value::Object(only)] = choices.as_slice() {
                    let only = only.clone();
                    fields.remove("anyOf");
                    fields.extend(only);
                }
            }
            fields.values_mut().for_each(drop_null);
        }
        Value::Array(values) => values.iter_mut().for_each(drop_null),
        _ => {}
    }
}
