//! From the file as written to the model, gathering every problem before it answers.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::SocketAddr,
    ops::RangeInclusive,
    path::Path,
    sync::Arc,
    time::Duration,
};

use super::{
    error::{Problems, nearest},
    model::{
        Endpoint, HostHeader, HostPattern, Limits, Listener, ListenerTls, LogOptions, Model, OtherUpgrades, PairFiles,
        Route, Routes, Unnamed, Upstream, Versions,
    },
    raw,
    reader::{Given, OneOrMany, Size, Span},
    validate_relay,
};
use crate::protocol::{
    forwarded::Cidr,
    origin::{AllowEntry, ApplyTo, Mode, OriginPolicy, Verdict},
    request_target::Authority,
    token_list::is_token,
    websocket::{Waiver, Waivers},
};

/// `None` when something without which there is no model is missing; `problems` says what.
pub(super) fn validate(file: raw::File, folder: &Path, problems: &mut Problems<'_>) -> Option<Model> {
    // An upstream with a mistake in it is `None`: a route may still name it without a second complaint.
    let upstreams: BTreeMap<String, Option<Arc<Upstream>>> = file
        .upstream
        .map(|given| given.value)
        .unwrap_or_default()
        .into_iter()
        .map(|(name, raw)| (name.clone(), upstream(name, raw, folder, problems).map(Arc::new)))
        .collect();
    let listeners = listeners(file.listener, folder, problems);
    let routes = routes(file.route, &upstreams, problems);
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
        trusted_proxies: networks(file.trusted_proxies, problems),
        drain: validate_relay::drain(file.drain.map(|given| given.value).unwrap_or_default(), problems),
        workers: file.workers.and_then(|given| given.value.0),
        log: LogOptions { query: flag(log.query), cookies: flag(log.cookies), authorization: flag(log.authorization) },
    })
}

pub(super) fn span(given: Option<Given<Span>>, what: &str, default: Duration, problems: &mut Problems<'_>) -> Duration {
    match given {
        None => default,
        Some(Given { value: Span(Some(span)), .. }) => span,
        Some(Given { span, .. }) => {
            problems.at(&span, format!("this wait cannot be \"off\"; write a duration, such as the default of {what}"));
            default
        }
    }
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
        body_timeout: span(raw.body_timeout, "60s", Duration::from_secs(60), problems),
        write_timeout: span(raw.write_timeout, "60s", Duration::from_secs(60), problems),
    }
}

fn networks(given: Option<Given<OneOrMany>>, problems: &mut Problems<'_>) -> Vec<Cidr> {
    let texts = given.map(|given| given.value.0).unwrap_or_default();
    texts
        .iter()
        .filter_map(|text| {
            text.value.parse().map_err(|error| problems.at(&text.span, format!("`{}`: {error}", text.value))).ok()
        })
        .collect()
}

fn listeners(
    given: Option<Given<Vec<Given<raw::ListenerTable>>>>,
    folder: &Path,
    problems: &mut Problems<'_>,
) -> Vec<Listener> {
    let raws = given.map(|given| given.value).unwrap_or_default();
    if raws.is_empty() {
        problems.in_whole("there is no listener; add `[[listener]]` with `listen = \"127.0.0.1:8080\"`");
    }
    let mut taken: HashMap<SocketAddr, ()> = HashMap::new();
    let mut names = HashSet::new();
    let mut all = Vec::new();
    for Given { value: raw, span: place } in raws {
        let Some(listen) = raw.listen else {
            problems.at(&place, "this listener has no `listen`; write `listen = \"127.0.0.1:8080\"`");
            continue;
        };
        let mut addresses = Vec::new();
        for text in &listen.value.0 {
            match text.value.parse::<SocketAddr>() {
                Ok(address) if address.port() != 0 && taken.insert(address, ()).is_some() => {
                    problems.at(&text.span, format!("`{address}` is listened on twice; keep one"));
                }
                Ok(address) => addresses.push(address),
                Err(_) => problems.at(
                    &text.span,
                    format!("`{}` is no address with a port; expected `127.0.0.1:8080` or `[::]:443`", text.value),
                ),
            }
        }
        if listen.value.0.is_empty() {
            problems.at(&listen.span, "`listen` names no address; write at least one");
        }
        let tls = raw.tls.map(|tls| listener_tls(tls, folder, problems));
        unique("listener", raw.name.as_ref(), &mut names, problems);
        let first = addresses.first().map_or_else(String::new, ToString::to_string);
        all.push(Listener {
            name: raw.name.map_or(first, |given| given.value),
            addresses,
            max_connections: number(raw.max_connections, 1..=10_000_000, 10_000, problems),
            tls: tls.flatten(),
        });
    }
    all
}

/// Names stand in logs and counters, where two of a kind could not be told apart.
fn unique(kind: &str, name: Option<&Given<String>>, taken: &mut HashSet<String>, problems: &mut Problems<'_>) {
    if let Some(given) = name.filter(|given| !taken.insert(given.value.clone())) {
        problems.at(&given.span, format!("another {kind} is named `{}`; give each a name of its own", given.value));
    }
}

fn listener_tls(given: Given<raw::TlsTable>, folder: &Path, problems: &mut Problems<'_>) -> Option<ListenerTls> {
    let Given { value: raw, span: place } = given;
    let handshake_timeout = span(raw.handshake_timeout, "10s", Duration::from_secs(10), problems);
    let development = raw.development.is_some_and(|given| given.value);
    let pairs: Vec<Option<PairFiles>> = match raw.pairs {
        None => vec![pair(raw.certificate, raw.key, &place, folder, problems)],
        Some(_) if raw.certificate.is_some() || raw.key.is_some() => {
            problems.at(&place, "`tls` has `pairs` beside `certificate` or `key`; move those into `pairs`");
            return None;
        }
        Some(given) if given.value.is_empty() => {
            problems.at(&given.span, "`pairs` is empty; name at least one certificate and its key");
            return None;
        }
        Some(given) if development => {
            problems.at(&given.span, "`development = true` makes one pair; use `certificate` and `key` with it");
            return None;
        }
        Some(given) => {
            let each = given.value.into_iter();
            each.map(|one| pair(one.value.certificate, one.value.key, &one.span, folder, problems)).collect()
        }
    };
    Some(ListenerTls {
        pairs: pairs.into_iter().collect::<Option<_>>()?,
        unnamed: match raw.unnamed.map(|given| given.value) {
            None | Some(raw::UnnamedWord::First) => Unnamed::First,
            Some(raw::UnnamedWord::Refuse) => Unnamed::Refuse,
        },
        versions: match raw.versions.map(|given| given.value) {
            None | Some(raw::VersionsWord::Intermediate) => Versions::Intermediate,
            Some(raw::VersionsWord::Modern) => Versions::Modern,
        },
        development,
        handshake_timeout,
    })
}

fn pair(
    certificate: Option<Given<String>>,
    key: Option<Given<String>>,
    place: &std::ops::Range<usize>,
    folder: &Path,
    problems: &mut Problems<'_>,
) -> Option<PairFiles> {
    if certificate.is_none() {
        problems.at(place, "`tls` has no `certificate`; name the PEM file with the chain");
    }
    if key.is_none() {
        problems.at(place, "`tls` has no `key`; name the PEM file with the private key");
    }
    Some(PairFiles { certificate: folder.join(certificate?.value), key: folder.join(key?.value) })
}

fn routes(
    given: Option<Given<Vec<Given<raw::RouteTable>>>>,
    upstreams: &BTreeMap<String, Option<Arc<Upstream>>>,
    problems: &mut Problems<'_>,
) -> Vec<Arc<Route>> {
    let raws = given.map(|given| given.value).unwrap_or_default();
    if raws.is_empty() {
        problems.in_whole("there is no route; add `[[route]]` with `upstream = \"NAME\"`");
    }
    let mut taken: HashMap<(HostPattern, String), ()> = HashMap::new();
    let mut names = HashSet::new();
    let mut all = Vec::new();
    for Given { value: mut raw, span: place } in raws {
        let relay = Arc::new(validate_relay::policy(&mut raw, problems));
        let hosts = hosts(raw.host, problems);
        let path = path(raw.path, problems);
        for host in &hosts {
            if taken.insert((host.clone(), path.clone()), ()).is_some() {
                problems.at(&place, format!("another route has the same host and the path `{path}`; keep one"));
            }
        }
        let waivers = waivers(raw.handshake, raw.waive, problems);
        let origin = origin(raw.origin.map(|given| given.value).unwrap_or_default(), problems);
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
            upstream,
            websocket: raw.websocket.is_none_or(|given| given.value),
            other_upgrades: match raw.other_upgrades.map(|given| given.value) {
                Some(raw::OtherUpgradesWord::Refuse) => OtherUpgrades::Refuse,
                Some(raw::OtherUpgradesWord::Drop) | None => OtherUpgrades::Drop,
            },
            waivers,
            origin,
            relay,
        }));
    }
    all
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

fn upstream(
    name: String,
    given: Given<raw::UpstreamTable>,
    folder: &Path,
    problems: &mut Problems<'_>,
) -> Option<Upstream> {
    let Given { value: raw, span: place } = given;
    let dial_timeout = span(raw.dial_timeout, "5s", Duration::from_secs(5), problems);
    let response_timeout = span(raw.response_timeout, "60s", Duration::from_secs(60), problems);
    let pool_idle_timeout = span(raw.pool_idle_timeout, "30s", Duration::from_secs(30), problems);
    let pool_max_idle = number(raw.pool_max_idle, 0..=10_000, 64, problems);
    let Some(url) = raw.url else {
        problems.at(&place, format!("the upstream `{name}` has no `url`; write `url = \"http://127.0.0.1:9000\"`"));
        return None;
    };
    let only_https: [(&str, Option<&Given<String>>); 2] =
        [("ca", raw.ca.as_ref()), ("server_name", raw.server_name.as_ref())];
    if !url.value.starts_with("https://") {
        for (key, given) in only_https {
            if let Some(given) = given {
                problems
                    .at(&given.span, format!("`{key}` is for https upstreams only; change the url or leave it out"));
            }
        }
    }
    let endpoint = endpoint(&url, raw.ca, raw.server_name, folder, problems)?;
    Some(Upstream {
        name,
        endpoint,
        dial_timeout,
        response_timeout,
        host_header: match raw.host_header.map(|given| given.value) {
            Some(raw::HostHeaderWord::Upstream) => HostHeader::Upstream,
            Some(raw::HostHeaderWord::Preserve) | None => HostHeader::Preserve,
        },
        pool_idle_timeout,
        pool_max_idle,
    })
}

fn endpoint(
    url: &Given<String>,
    ca: Option<Given<String>>,
    server_name: Option<Given<String>>,
    folder: &Path,
    problems: &mut Problems<'_>,
) -> Option<Endpoint> {
    const EXPECTED: &str = "expected `http://host:port`, `https://host:port` or `builtin:echo`";
    if url.value == "builtin:echo" {
        return Some(Endpoint::BuiltinEcho);
    }
    let (default_port, rest) = match url.value.split_once("://") {
        Some(("http", rest)) => (80, rest),
        Some(("https", rest)) => (443, rest),
        Some(("ws" | "wss", _)) => {
            problems.at(&url.span, format!("`{}`: the scheme is the one of the handshake; {EXPECTED}", url.value));
            return None;
        }
        _ => {
            problems.at(&url.span, format!("`{}` is no upstream; {EXPECTED}", url.value));
            return None;
        }
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.contains(['/', '?', '#']) {
        problems
            .at(&url.span, format!("`{}`: an upstream has no path, requests keep their own; {EXPECTED}", url.value));
        return None;
    }
    let Ok(authority) = Authority::parse(rest) else {
        problems.at(&url.span, format!("`{}`: host or port is malformed; {EXPECTED}", url.value));
        return None;
    };
    let host = authority.host().to_owned();
    let port = authority.port().unwrap_or(default_port);
    if default_port == 80 {
        return Some(Endpoint::Tcp { host, port });
    }
    let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let server_name = server_name.map_or(bare, |given| given.value);
    Some(Endpoint::Tls { host, port, server_name, ca: ca.map(|given| folder.join(given.value)) })
}
