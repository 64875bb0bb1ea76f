//! From the file as written to the model, gathering every problem before it answers.

mod acme;
mod limits;
mod listener;
mod relay;
mod route;
mod socket_path;
mod upstream;

use std::{
    collections::{BTreeMap, HashSet},
    ops::RangeInclusive,
    path::Path,
    sync::Arc,
    time::Duration,
};

use super::{
    error::Problems,
    model::{Limits, LogOptions, Model, Routes, Upstream},
    raw,
    reader::{Given, OneOrMany, Size, Span},
};
use crate::protocol::{
    client_address::{TrustedFields, TrustedPeer},
    token_list::is_token,
};

/// `None` when something without which there is no model is missing; `problems` says what.
pub(super) fn validate(file: raw::File, folder: &Path, problems: &mut Problems<'_>) -> Option<Model> {
    // An upstream with a mistake in it is `None`: a route may still name it without a second complaint.
    let upstreams: BTreeMap<String, Option<Arc<Upstream>>> = file
        .upstream
        .map(|given| given.value)
        .unwrap_or_default()
        .into_iter()
        .map(|(name, raw)| (name.clone(), upstream::upstream(name, raw, folder, problems).map(Arc::new)))
        .collect();
    let listeners = listener::listeners(file.listener, folder, problems);
    let routes = route::routes(file.route, &upstreams, problems);
    let via = match file.via {
        Some(given) if !is_token(&given.value) => {
            problems.at(&given.span, "`via` is a single token such as \"switchgate\" (RFC 9110 section 7.6.3)");
            return None;
        }
        Some(given) => given.value,
        None => "switchgate".to_owned(),
    };
    let log = file.log.map(|given| given.value).unwrap_or_default();
    let flag = |given: Option<Given<bool>>| given.is_some_and(|given| given.value);
    Some(Model {
        listeners,
        routes: Routes::new(routes),
        upstreams: upstreams.into_values().flatten().collect(),
        limits: limits(file.limits.map(|given| given.value).unwrap_or_default(), problems),
        via,
        trusted_proxies: trusted_peers(file.trusted_proxies, problems),
        trusted_fields: match file.trusted_fields.map(|given| given.value) {
            None | Some(raw::TrustedFieldsWord::XForwarded) => TrustedFields::XForwarded,
            Some(raw::TrustedFieldsWord::Forwarded) => TrustedFields::Forwarded,
        },
        drain: relay::drain(file.drain.map(|given| given.value).unwrap_or_default(), problems),
        workers: file.workers.and_then(|given| given.value.0),
        log: LogOptions { query: flag(log.query), cookies: flag(log.cookies), authorization: flag(log.authorization) },
    })
}

fn span(given: Option<Given<Span>>, what: &str, default: Duration, problems: &mut Problems<'_>) -> Duration {
    match given {
        None => default,
        Some(Given { value: Span(Some(span)), .. }) => span,
        Some(Given { span, .. }) => {
            problems.at(&span, format!("this wait cannot be \"off\"; write a duration, such as the default of {what}"));
            default
        }
    }
}

/// A wait that may be `"off"`.
fn optional(given: Option<Given<Span>>, default: Option<Duration>) -> Option<Duration> {
    given.map_or(default, |Given { value: Span(limit), .. }| limit)
}

fn number(
    given: Option<Given<usize>>,
    range: RangeInclusive<usize>,
    default: usize,
    problems: &mut Problems<'_>,
) -> usize {
    let Some(given) = given else { return default };
    if !range.contains(&given.value) {
        let text = format!("{} is out of range; expected {} to {}", given.value, range.start(), range.end());
        problems.at(&given.span, text);
    }
    given.value
}

fn size(
    given: Option<Given<Size>>,
    range: RangeInclusive<usize>,
    default: usize,
    problems: &mut Problems<'_>,
) -> usize {
    let Some(given) = given else { return default };
    let Size(bytes) = given.value;
    if !range.contains(&bytes) {
        let text = format!("{bytes} bytes are out of range; expected {}B to {}B", range.start(), range.end());
        problems.at(&given.span, text);
    }
    bytes
}

fn limits(raw: raw::LimitsTable, problems: &mut Problems<'_>) -> Limits {
    Limits {
        head_timeout: span(raw.head_timeout, "10s", Duration::from_secs(10), problems),
        keep_alive_timeout: span(raw.keep_alive_timeout, "75s", Duration::from_secs(75), problems),
        max_head_size: size(raw.max_head_size, 1024..=64 * 1024, 16 * 1024, problems),
        max_header_count: number(raw.max_header_count, 8..=1000, 100, problems),
        max_early_bytes: size(raw.max_early_bytes, 1..=1024 * 1024, 64 * 1024, problems),
        max_streams: u32::try_from(number(raw.max_streams, 1..=1000, 256, problems)).unwrap_or(u32::MAX),
        max_exchanges: limits::count_or_default(raw.max_exchanges, problems),
        max_exchanges_per_client: limits::count_or_default(raw.max_exchanges_per_client, problems),
        body_timeout: span(raw.body_timeout, "60s", Duration::from_secs(60), problems),
        write_timeout: span(raw.write_timeout, "60s", Duration::from_secs(60), problems),
        client_prefixes: limits::client_prefixes(raw.client_prefix_v4, raw.client_prefix_v6, problems),
    }
}

fn trusted_peers(given: Option<Given<OneOrMany>>, problems: &mut Problems<'_>) -> Vec<TrustedPeer> {
    let texts = given.map(|given| given.value.0).unwrap_or_default();
    let each = texts.iter().filter_map(|text| {
        let wrong = |error| problems.at(&text.span, format!("`{}`: {error}, or `unix`", text.value));
        text.value.parse().map_err(wrong).ok()
    });
    each.collect()
}

/// Names stand in logs and counters, where two of a kind could not be told apart.
fn unique(kind: &str, name: Option<&Given<String>>, taken: &mut HashSet<String>, problems: &mut Problems<'_>) {
    if let Some(given) = name.filter(|given| !taken.insert(given.value.clone())) {
        problems.at(&given.span, format!("another {kind} is named `{}`; give each a name of its own", given.value));
    }
}
