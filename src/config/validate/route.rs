//! The routes: host, path, handshake, origin.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use super::{limits, relay, unique};
use crate::{
    config::{
        error::{Problems, nearest},
        model::{HostPattern, OtherUpgrades, Route, Upstream},
        raw,
        reader::{Given, OneOrMany},
    },
    protocol::{
        origin::{AllowEntry, ApplyTo, Mode, OriginPolicy, Verdict},
        request_path::RoutePath,
        request_target::Authority,
        websocket::{Waiver, Waivers},
    },
};

pub(super) fn routes(
    given: Option<Given<Vec<Given<raw::RouteTable>>>>,
    upstreams: &BTreeMap<String, Option<Arc<Upstream>>>,
    problems: &mut Problems<'_>,
) -> Vec<Arc<Route>> {
    let raws = given.map(|given| given.value).unwrap_or_default();
    if raws.is_empty() {
        problems.in_whole("there is no route; add `[[route]]` with `upstream = \"NAME\"`");
    }
    let mut taken: HashMap<(HostPattern, String), Vec<(String, bool)>> = HashMap::new();
    let uncased = UncasedPaths::of(&raws);
    let mut names = HashSet::new();
    let mut all = Vec::new();
    for Given { value: mut raw, span: place } in raws {
        let relay = Arc::new(relay::policy(&mut raw, problems));
        let hosts = hosts(raw.host, problems);
        let path = path(raw.path, problems);
        let ignore_case = uncased.cover(raw.upstream.as_ref(), &path);
        if let Some(given) = raw.ignore_case.filter(|given| ignore_case && !given.value) {
            let text = "a parent route on the same upstream has `ignore_case = true`; omit the key";
            problems.at(&given.span, text);
        }
        for host in &hosts {
            let others = taken.entry((host.clone(), path.to_ascii_lowercase())).or_default();
            if others.iter().any(|(other, ignores)| *other == path || *ignores || ignore_case) {
                problems.at(&place, format!("another route has the same host and the path `{path}`; keep one"));
            }
            others.push((path.clone(), ignore_case));
        }
        let waivers = waivers(raw.handshake, raw.waive, problems);
        let origin = origin(raw.origin.map(|given| given.value).unwrap_or_default(), problems);
        let websocket = raw.websocket.is_none_or(|given| given.value);
        let limits = limits::route(raw.limits, websocket, problems);
        let upstream = match raw.upstream {
            None => {
                problems.at(&place, "this route has no `upstream`; name one of the `[upstream.NAME]` tables");
                continue;
            }
            Some(given) => match upstreams.get(&given.value) {
                Some(Some(upstream)) => Arc::clone(upstream),
                Some(None) => continue,
                None => {
                    let hint = nearest(&given.value, upstreams.keys().map(String::as_str));
                    problems.at(&given.span, format!("there is no upstream `{}`{hint}", given.value));
                    continue;
                }
            },
        };
        let shown: Vec<String> = hosts.iter().map(shown_host).collect();
        unique("route", raw.name.as_ref(), &mut names, problems);
        all.push(Arc::new(Route {
            name: raw.name.map_or_else(|| format!("{}{path}", shown.join(",")), |given| given.value),
            hosts,
            path,
            ignore_case,
            upstream,
            websocket,
            other_upgrades: match raw.other_upgrades.map(|given| given.value) {
                Some(raw::OtherUpgradesWord::Refuse) => OtherUpgrades::Refuse,
                Some(raw::OtherUpgradesWord::Drop) | None => OtherUpgrades::Drop,
            },
            waivers,
            origin,
            limits,
            relay,
        }));
    }
    all
}

/// The paths that ignore case, in lower case, by upstream.
///
/// Whether case counts is a fact about an upstream. So a route below one that ignores case, on the same upstream, ignores it
/// too: otherwise `/ADMIN` would pass by the policy of `/admin`.
struct UncasedPaths(HashMap<String, HashSet<String>>);

impl UncasedPaths {
    fn of(routes: &[Given<raw::RouteTable>]) -> Self {
        let mut paths: HashMap<String, HashSet<String>> = HashMap::new();
        for Given { value: raw, .. } in routes {
            let ignores = raw.ignore_case.as_ref().is_some_and(|given| given.value);
            if let Some(upstream) = raw.upstream.as_ref().filter(|_| ignores) {
                let path = raw.path.as_ref().map_or("/", |given| &given.value).to_ascii_lowercase();
                paths.entry(upstream.value.clone()).or_default().insert(path);
            }
        }
        Self(paths)
    }

    /// Whether `path` or a path above it ignores case.
    fn cover(&self, upstream: Option<&Given<String>>, path: &str) -> bool {
        let Some(paths) = upstream.and_then(|upstream| self.0.get(&upstream.value)) else { return false };
        let lower = path.to_ascii_lowercase();
        let mut borders = lower.match_indices('/').flat_map(|(at, _)| [at, at + 1]).chain([lower.len()]);
        borders.any(|end| lower.get(..end).is_some_and(|above| paths.contains(above)))
    }
}

fn shown_host(host: &HostPattern) -> String {
    match host {
        HostPattern::Exact(host) => host.clone(),
        HostPattern::Suffix(suffix) => format!("*.{suffix}"),
        HostPattern::Any => "*".to_owned(),
    }
}

fn hosts(given: Option<Given<OneOrMany>>, problems: &mut Problems<'_>) -> Vec<HostPattern> {
    let Some(given) = given else { return vec![HostPattern::Any] };
    if given.value.0.is_empty() {
        problems.at(&given.span, "`host` names no host; write `\"*\"` for every one");
    }
    let pattern = |text: &Given<String>| {
        if text.value == "*" {
            return Some(HostPattern::Any);
        }
        let (bare, wild) = match text.value.strip_prefix("*.") {
            Some(suffix) => (suffix, true),
            None => (text.value.as_str(), false),
        };
        match Authority::parse(bare) {
            Ok(authority) if authority.port().is_none() && !bare.ends_with([':', '.']) => {
                let host = authority.host().to_owned();
                Some(if wild { HostPattern::Suffix(host) } else { HostPattern::Exact(host) })
            }
            _ => {
                let text_shown = &text.value;
                let text_right = "expected `example.com`, `*.example.com` or `*`, without a port";
                problems.at(&text.span, format!("`{text_shown}` can never match a host; {text_right}"));
                None
            }
        }
    };
    given.value.0.iter().filter_map(pattern).collect()
}

fn path(given: Option<Given<String>>, problems: &mut Problems<'_>) -> String {
    let Some(given) = given else { return "/".to_owned() };
    let odd = |c: char| !c.is_ascii_graphic() || matches!(c, '%' | '?' | '#' | '\\' | ';');
    let dots = given.value.split('/').any(|segment| segment == "." || segment == "..");
    if !given.value.starts_with('/') || given.value.contains("//") || given.value.contains(odd) || dots {
        problems.at(
            &given.span,
            format!(
                "`{}` can never match a path; it begins with `/`, is ASCII, and holds no space, `//`, dot segment, `%`, \
                 `;`, `\\`, `?` or `#`",
                given.value
            ),
        );
    } else if let Ok(read) = RoutePath::read(&given.value)
        && let Some(reading) = read.readings().next()
    {
        // Every request for it would be ambiguous.
        let text = format!("`{}` can never match a path; some backends read it as `{reading}`", given.value);
        problems.at(&given.span, text);
    }
    given.value
}

fn waivers(
    handshake: Option<Given<raw::HandshakeWord>>,
    waive: Option<Given<OneOrMany>>,
    problems: &mut Problems<'_>,
) -> Waivers {
    let lenient = handshake.is_some_and(|given| given.value == raw::HandshakeWord::Lenient);
    let Some(waive) = waive else {
        return if lenient { Waivers::all() } else { Waivers::default() };
    };
    if !lenient {
        problems
            .at(&waive.span, "`waive` does nothing without `handshake = \"lenient\"`; add that or leave `waive` out");
    }
    let known = |text: &Given<String>| {
        let found = Waiver::parse(&text.value);
        if found.is_none() {
            let hint = nearest(&text.value, Waiver::ALL.map(Waiver::name));
            problems.at(&text.span, format!("there is no check `{}` to waive{hint}", text.value));
        }
        found
    };
    waive.value.0.iter().filter_map(known).collect()
}

fn origin(raw: raw::OriginTable, problems: &mut Problems<'_>) -> OriginPolicy {
    let verdict = |given: Option<Given<raw::VerdictWord>>, default| match given.map(|given| given.value) {
        Some(raw::VerdictWord::Allow) => Verdict::Allow,
        Some(raw::VerdictWord::Refuse) => Verdict::Refuse,
        None => default,
    };
    let default = OriginPolicy::default();
    let allow = match raw.allow {
        None => default.allow,
        Some(given) => {
            let entry = |text: &Given<String>| match AllowEntry::parse(&text.value) {
                Ok(entry) => Some(entry),
                Err(error) => {
                    problems.at(&text.span, format!("the origin `{}` can never match: {error}", text.value));
                    None
                }
            };
            given.value.0.iter().filter_map(entry).collect()
        }
    };
    OriginPolicy {
        allow,
        absent: verdict(raw.absent, default.absent),
        null: verdict(raw.null, default.null),
        mode: match raw.mode.map(|given| given.value) {
            Some(raw::ModeWord::Report) => Mode::Report,
            Some(raw::ModeWord::Enforce) | None => Mode::Enforce,
        },
        apply_to: match raw.apply_to.map(|given| given.value) {
            Some(raw::ApplyToWord::All) => ApplyTo::All,
            Some(raw::ApplyToWord::WebSocket) | None => ApplyTo::WebSocket,
        },
    }
}
