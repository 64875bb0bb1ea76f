//! The upstreams.

use std::{path::Path, time::Duration};

use super::{number, span};
use crate::{
    config::{
        error::Problems,
        model::{Endpoint, HostHeader, Upstream},
        raw,
        reader::Given,
    },
    protocol::request_target::Authority,
};

pub(super) fn upstream(
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
