//! The listeners and their TLS.

use std::{collections::HashSet, path::Path, time::Duration};

use super::{acme, limits, number, size, socket_path, span, trusted_peers, unique};
use crate::{
    config::{
        error::Problems,
        model::{
            Challenge, ClientAuth, ForeignHost, Listener, ListenerTls, PairFiles, ProxyProtocol, Unnamed, Versions,
        },
        raw,
        reader::Given,
    },
    protocol::{address::ListenAddress, client_address::TrustedPeer},
};

pub(super) fn listeners(
    given: Option<Given<Vec<Given<raw::ListenerTable>>>>,
    folder: &Path,
    problems: &mut Problems<'_>,
) -> Vec<Listener> {
    let raws = given.map(|given| given.value).unwrap_or_default();
    if raws.is_empty() {
        problems.in_whole("there is no listener; add `[[listener]]` with `listen = \"127.0.0.1:8080\"`");
    }
    let mut taken = HashSet::new();
    let mut names = HashSet::new();
    let mut all = Vec::new();
    let (mut wants_plain, mut has_plain) = (Vec::new(), false);
    for Given { value: raw, span: place } in raws {
        let redirect = redirect(&raw, problems);
        let Some(listen) = raw.listen else {
            problems.at(&place, "this listener has no `listen`; write `listen = \"127.0.0.1:8080\"`");
            continue;
        };
        let mut addresses = Vec::new();
        for text in &listen.value.0 {
            match listen_address(text, folder) {
                Ok(address) if is_fixed(&address) && !taken.insert(address.clone()) => {
                    problems.at(&text.span, format!("`{address}` is listened on twice; keep one"));
                }
                Ok(ListenAddress::Unix(_)) if raw.tls.is_some() => problems.at(
                    &text.span,
                    "a Unix-domain socket has no TLS: what passes there stays on this machine; give it a listener of \
                     its own without `tls`",
                ),
                Ok(address) => addresses.push(address),
                Err(problem) => problems.at(&text.span, problem),
            }
        }
        if listen.value.0.is_empty() {
            problems.at(&listen.span, "`listen` names no address; write at least one");
        }
        has_plain |= raw.tls.is_none();
        let tls_place = raw.tls.as_ref().map(|given| given.span.clone());
        let tls = raw.tls.map(|tls| listener_tls(tls, folder, problems));
        let acme = tls.as_ref().and_then(|tls| tls.as_ref()?.acme.as_ref());
        if acme.is_some_and(|acme| acme.challenge == Challenge::Http01) {
            wants_plain.extend(tls_place);
        }
        unique("listener", raw.name.as_ref(), &mut names, problems);
        let first = addresses.first().map_or_else(String::new, ToString::to_string);
        all.push(Listener {
            name: raw.name.map_or(first, |given| given.value),
            unix_mode: raw.unix_mode.and_then(|given| unix_mode(&given, &addresses, problems)),
            reuse_port: raw.reuse_port.is_some_and(|given| reuse_port(&given, &addresses, problems)),
            addresses,
            max_connections: number(raw.max_connections, 1..=10_000_000, Listener::DEFAULT_MAX_CONNECTIONS, problems),
            max_connections_per_client: limits::count(raw.max_connections_per_client, problems),
            tls: tls.flatten(),
            proxy_protocol: raw.proxy_protocol.map(|given| proxy_protocol(given, &listen.value.0, problems)),
            redirect,
        });
    }
    for place in wants_plain.iter().filter(|_| !has_plain) {
        problems.at(place, "`challenge = \"http-01\"` needs a listener without `tls`, which port 80 leads to; add one");
    }
    all
}

fn listen_address(text: &Given<String>, folder: &Path) -> Result<ListenAddress, String> {
    let Some(path) = text.value.strip_prefix("unix:") else {
        let wrong = |_| {
            let expected = "expected `127.0.0.1:8080`, `[::]:443` or `unix:/run/gate.sock`";
            format!("`{}` is no address with a port; {expected}", text.value)
        };
        return text.value.parse().map(ListenAddress::Socket).map_err(wrong);
    };
    socket_path::parse(path, folder).map(ListenAddress::Unix)
}

/// Whether two of it would be one.
fn is_fixed(address: &ListenAddress) -> bool {
    !matches!(address, ListenAddress::Socket(address) if address.port() == 0)
}

fn unix_mode(given: &Given<String>, addresses: &[ListenAddress], problems: &mut Problems<'_>) -> Option<u32> {
    let digits = given.value.bytes().all(|byte| matches!(byte, b'0'..=b'7'));
    let mode = u32::from_str_radix(&given.value, 8).ok().filter(|mode| digits && *mode <= 0o777);
    if mode.is_none() {
        problems.at(&given.span, format!("`{}` are no permissions; expected such as \"0660\"", given.value));
    }
    if !addresses.iter().any(|address| matches!(address, ListenAddress::Unix(_))) {
        let text = "`unix_mode` does nothing here; add a `unix:` path to `listen` or leave it out";
        problems.at(&given.span, text);
    }
    mode
}

fn reuse_port(given: &Given<bool>, addresses: &[ListenAddress], problems: &mut Problems<'_>) -> bool {
    if given.value && !addresses.iter().any(|address| matches!(address, ListenAddress::Socket(_))) {
        problems
            .at(&given.span, "`reuse_port` does nothing on Unix-domain sockets; add an address and port or omit it");
    }
    given.value
}

fn proxy_protocol(
    given: Given<raw::ProxyProtocolTable>,
    listen: &[Given<String>],
    problems: &mut Problems<'_>,
) -> ProxyProtocol {
    let Given { value: raw, span: place } = given;
    let place = raw.from.as_ref().map_or(place, |from| from.span.clone());
    let named = raw.from.as_ref().is_some_and(|from| !from.value.0.is_empty());
    if !named {
        let text = "`proxy_protocol` has no `from`; name the balancers, as in `from = [\"10.0.0.0/8\"]`";
        problems.at(&place, text);
    }
    let from = trusted_peers(raw.from, problems);
    // Where some of `from` was no address, that has been said.
    for address in listen.iter().filter(|_| !from.is_empty()) {
        let unix = address.value.starts_with("unix:");
        if !from.iter().any(|peer| unix == (*peer == TrustedPeer::Local)) {
            let who = if unix { "`unix`" } else { "an address or a network" };
            problems.at(&place, format!("nobody in `from` can connect to `{}`; add {who}", address.value));
        }
    }
    ProxyProtocol { from, timeout: span(raw.timeout, "5s", Duration::from_secs(5), problems) }
}

fn redirect(raw: &raw::ListenerTable, problems: &mut Problems<'_>) -> Option<u16> {
    let Some(redirect) = &raw.redirect else {
        if let Some(port) = &raw.redirect_port {
            problems.at(&port.span, "`redirect_port` does nothing without `redirect`; add `redirect = \"https\"`");
        }
        return None;
    };
    let raw::RedirectWord::Https = redirect.value;
    if raw.tls.is_some() {
        problems.at(&redirect.span, "this listener has `tls`: who comes here has https already; leave one of them out");
    }
    let port = number(raw.redirect_port.clone(), 1..=usize::from(u16::MAX), 443, problems);
    u16::try_from(port).ok()
}

fn listener_tls(given: Given<raw::TlsTable>, folder: &Path, problems: &mut Problems<'_>) -> Option<ListenerTls> {
    let Given { value: raw, span: place } = given;
    let handshake_timeout = span(raw.handshake_timeout, "10s", Duration::from_secs(10), problems);
    let development = raw.development.is_some_and(|given| given.value);
    let pairs: Vec<Option<PairFiles>> = match raw.pairs {
        // What ACME keeps is enough.
        None if raw.acme.is_some() && raw.certificate.is_none() && raw.key.is_none() && !development => Vec::new(),
        None if raw.acme.is_some() => {
            problems.at(
                &place,
                "`tls` has `acme` beside `certificate`, `key` or `development`; keep `acme` alone, or beside `pairs`",
            );
            return None;
        }
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
    let clients = raw.client.and_then(|given| clients(given, folder, problems));
    let acme_at = raw.acme.as_ref().map(|given| given.span.clone());
    let acme = raw.acme.map(|given| acme::acme(given, folder, problems).ok_or(()));
    let over_tls = matches!(&acme, Some(Ok(acme)) if acme.challenge == Challenge::TlsAlpn01);
    if let Some(at) = acme_at.filter(|_| over_tls && clients.as_ref().is_some_and(|clients| clients.required)) {
        let why = "the CA that comes to look over TLS has no certificate of your clients'";
        problems.at(&at, format!("`client.mode = \"required\"` refuses it: {why}; write `challenge = \"http-01\"`"));
    }
    Some(ListenerTls {
        clients,
        pairs: pairs.into_iter().collect::<Option<_>>()?,
        acme: acme.transpose().ok()?,
        unnamed: match raw.unnamed.map(|given| given.value) {
            None | Some(raw::UnnamedWord::First) => Unnamed::First,
            Some(raw::UnnamedWord::Refuse) => Unnamed::Refuse,
        },
        max_record_size: size(
            raw.max_record_size,
            512..=ListenerTls::FULL_RECORDS,
            ListenerTls::FULL_RECORDS,
            problems,
        ),
        foreign_host: match raw.foreign_host.map(|given| given.value) {
            None | Some(raw::ForeignHostWord::Certificate) => ForeignHost::Certificate,
            Some(raw::ForeignHostWord::Any) => ForeignHost::Any,
        },
        versions: match raw.versions.map(|given| given.value) {
            None | Some(raw::VersionsWord::Intermediate) => Versions::Intermediate,
            Some(raw::VersionsWord::Modern) => Versions::Modern,
        },
        development,
        handshake_timeout,
        http2: raw.http2.is_none_or(|given| given.value),
    })
}

fn clients(given: Given<raw::ClientTable>, folder: &Path, problems: &mut Problems<'_>) -> Option<ClientAuth> {
    let Given { value: raw, span: place } = given;
    let required = match raw.mode.map(|given| given.value) {
        Some(raw::ClientModeWord::Off) => return None,
        Some(raw::ClientModeWord::Optional) => false,
        None | Some(raw::ClientModeWord::Required) => true,
    };
    let Some(ca) = raw.ca else {
        problems.at(&place, "`client` has no `ca`; name the PEM file with the CAs that issue clients' certificates");
        return None;
    };
    let crls = match raw.crl {
        None => Vec::new(),
        Some(given) if given.value.0.is_empty() => {
            problems.at(&given.span, "`crl` names no file; leave it out where nothing is revoked");
            return None;
        }
        Some(given) => given.value.0.into_iter().map(|file| folder.join(file.value)).collect(),
    };
    Some(ClientAuth { required, ca: folder.join(ca.value), crls })
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
