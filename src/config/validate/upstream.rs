//! The upstreams.

use std::{ops::Range, path::Path, time::Duration};

use super::{number, optional, socket_path, span};
use crate::{
    config::{
        error::Problems,
        model::{Endpoint, HostHeader, PairFiles, PathReading, Protocol, ProxyVersion, Trust, Upstream, UpstreamTls},
        raw,
        reader::{Given, OneOrMany},
    },
    protocol::{pin::Pin, request_target::Authority},
};

/// `response_timeout` and `body_timeout` where they are not set.
const DEFAULT_WAIT: Duration = Duration::from_secs(60);

pub(super) fn upstream(
    name: String,
    given: Given<raw::UpstreamTable>,
    folder: &Path,
    problems: &mut Problems<'_>,
) -> Option<Upstream> {
    let Given { value: raw, span: place } = given;
    let dial_timeout = span(raw.dial_timeout, "5s", Duration::from_secs(5), problems);
    let event_stream_timeout = optional(raw.body_timeout.clone(), None);
    let mut pool_max_idle = number(raw.pool_max_idle.clone(), 0..=10_000, 64, problems);
    let proxy_protocol = raw.proxy_protocol.as_ref().map(|given| match given.value {
        raw::ProxyProtocolWord::V1 => ProxyVersion::V1,
        raw::ProxyProtocolWord::V2 => ProxyVersion::V2,
    });
    if proxy_protocol.is_some() {
        let pool = [
            ("pool_max_idle", raw.pool_max_idle.map(|given| given.span)),
            ("pool_idle_timeout", raw.pool_idle_timeout.as_ref().map(|given| given.span.clone())),
        ];
        for (key, span) in pool.into_iter().filter_map(|(key, span)| Some((key, span?))) {
            let why = "no connection is kept, since each tells of one client";
            problems.at(&span, format!("`{key}` does nothing with `proxy_protocol`: {why}; leave out one of them"));
        }
        pool_max_idle = 0;
    }
    let protocol = match raw.protocol.as_ref().map(|given| given.value) {
        Some(raw::ProtocolWord::Http2) => Protocol::Http2,
        Some(raw::ProtocolWord::Http1) | None => Protocol::Http1,
    };
    let shared = raw.protocol.filter(|_| protocol == Protocol::Http2);
    if let Some(given) = shared.as_ref().filter(|_| proxy_protocol.is_some()) {
        let why = "clients share its connections, and a PROXY header tells of one";
        problems.at(&given.span, format!("`protocol = \"h2\"` with `proxy_protocol`: {why}; leave out one of them"));
    }
    let pool_idle_timeout = span(raw.pool_idle_timeout, "30s", Duration::from_secs(30), problems);
    let Some(url) = raw.url else {
        problems.at(&place, format!("the upstream `{name}` has no `url`; write `url = \"http://127.0.0.1:9000\"`"));
        return None;
    };
    let tls = TlsKeys {
        ca: raw.ca,
        server_name: raw.server_name,
        pin: raw.pin,
        trust: raw.trust,
        certificate: raw.certificate,
        key: raw.key,
    };
    if !url.value.starts_with("https://") {
        for (key, span) in tls.given() {
            problems.at(&span, format!("`{key}` is for https upstreams only; change the url or leave it out"));
        }
    }
    let endpoint = endpoint(&url, tls, folder, problems)?;
    if let Some(given) = raw.proxy_protocol.filter(|_| endpoint == Endpoint::BuiltinEcho) {
        problems.at(&given.span, "`builtin:echo` reads no PROXY header; leave out `proxy_protocol`");
    }
    if let Some(given) = shared.filter(|_| endpoint == Endpoint::BuiltinEcho) {
        problems.at(&given.span, "`builtin:echo` speaks HTTP/1.1; leave out `protocol`");
    }
    Some(Upstream {
        name,
        endpoint,
        dial_timeout,
        response_timeout: optional(raw.response_timeout, Some(DEFAULT_WAIT)),
        body_timeout: optional(raw.body_timeout, Some(DEFAULT_WAIT)),
        event_stream_timeout,
        host_header: match raw.host_header.map(|given| given.value) {
            Some(raw::HostHeaderWord::Upstream) => HostHeader::Upstream,
            Some(raw::HostHeaderWord::Preserve) | None => HostHeader::Preserve,
        },
        paths: match raw.paths.map(|given| given.value) {
            Some(raw::PathsWord::Literal) => PathReading::Literal,
            Some(raw::PathsWord::Any) | None => PathReading::Any,
        },
        protocol,
        proxy_protocol,
        pool_idle_timeout,
        pool_max_idle,
    })
}

/// What is for https alone.
struct TlsKeys {
    ca: Option<Given<String>>,
    server_name: Option<Given<String>>,
    pin: Option<Given<OneOrMany>>,
    trust: Option<Given<raw::TrustWord>>,
    certificate: Option<Given<String>>,
    key: Option<Given<String>>,
}

impl TlsKeys {
    /// Those that stand in the file.
    fn given(&self) -> impl Iterator<Item = (&'static str, Range<usize>)> {
        let texts = [
            ("ca", &self.ca),
            ("server_name", &self.server_name),
            ("certificate", &self.certificate),
            ("key", &self.key),
        ];
        let pin = self.pin.as_ref().map(|given| ("pin", given.span.clone()));
        let trust = self.trust.as_ref().map(|given| ("trust", given.span.clone()));
        texts.into_iter().filter_map(|(key, text)| Some((key, text.as_ref()?.span.clone()))).chain(pin).chain(trust)
    }

    fn model(self, host: &str, folder: &Path, problems: &mut Problems<'_>) -> UpstreamTls {
        let host = self.server_name.map_or_else(|| host.to_owned(), |given| given.value);
        let pair = match (self.certificate, self.key) {
            (Some(certificate), Some(key)) => {
                Some(PairFiles { certificate: folder.join(certificate.value), key: folder.join(key.value) })
            }
            (Some(alone), None) => {
                problems.at(&alone.span, "`certificate` without `key`; name the PEM file with its private key");
                None
            }
            (None, Some(alone)) => {
                problems.at(&alone.span, "`key` without `certificate`; name the PEM file with the chain");
                None
            }
            (None, None) => None,
        };
        let trust = match self.trust.as_ref().map(|given| given.value) {
            Some(raw::TrustWord::Pin) => Trust::Pin,
            Some(raw::TrustWord::Chain) | None => Trust::Chain,
        };
        if let Some(given) = self.trust.filter(|_| trust == Trust::Pin && self.pin.is_none()) {
            problems
                .at(&given.span, "`trust = \"pin\"` requires `pin`; set it to the public key as `pin = \"sha256/…\"`");
        }
        if let Some(given) = self.ca.as_ref().filter(|_| trust == Trust::Pin) {
            problems.at(&given.span, "`ca` does nothing with `trust = \"pin\"`: no chain is checked; omit one of them");
        }
        UpstreamTls {
            server_name: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            ca: self.ca.map(|given| folder.join(given.value)),
            pins: pins(self.pin, problems),
            trust,
            pair,
        }
    }
}

fn pins(given: Option<Given<OneOrMany>>, problems: &mut Problems<'_>) -> Vec<Pin> {
    let Some(Given { value: OneOrMany(texts), span }) = given else { return Vec::new() };
    if texts.is_empty() {
        problems.at(&span, "`pin` is empty; name a key, or leave it out to take any");
    }
    let each = texts.iter().filter_map(|text| {
        text.value.parse().map_err(|error| problems.at(&text.span, format!("`{}` is no pin; {error}", text.value))).ok()
    });
    each.collect()
}

fn endpoint(url: &Given<String>, tls: TlsKeys, folder: &Path, problems: &mut Problems<'_>) -> Option<Endpoint> {
    const EXPECTED: &str = "expected `http://host:port`, `https://host:port`, `unix:/path/of.sock` or `builtin:echo`";
    if url.value == "builtin:echo" {
        return Some(Endpoint::BuiltinEcho);
    }
    if let Some(path) = url.value.strip_prefix("unix:") {
        let path = socket_path::parse(path, folder).map_err(|problem| problems.at(&url.span, problem)).ok()?;
        return Some(Endpoint::Unix { path });
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
    let tls = tls.model(&host, folder, problems);
    Some(Endpoint::Tls { host, port, tls })
}
