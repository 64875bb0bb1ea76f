//! Certificates from an ACME server.

use std::path::Path;

use crate::{
    config::{
        acme::{Acme, Challenge, ExternalAccount, Pace},
        error::Problems,
        raw,
        reader::{Given, OneOrMany},
    },
    protocol::request_target::Authority,
};

/// Most hosts of one listener: each has an order of its own, and CAs count those.
const MAX_HOSTS: usize = 100;

/// `None` when something without which nothing can be ordered is missing or wrong; `problems` says what.
pub(super) fn acme(given: Given<raw::AcmeTable>, folder: &Path, problems: &mut Problems<'_>) -> Option<Acme> {
    let Given { value: raw, span: place } = given;
    let storage = raw.storage.as_ref().map(|given| folder.join(&given.value));
    if storage.is_none() {
        problems.at(&place, "`acme` has no `storage`; name a folder that only this user may read, such as \"acme\"");
    }
    let hosts = match raw.hosts {
        Some(given) if !given.value.0.is_empty() => hosts(given, problems),
        _ => {
            problems.at(&place, "`acme` has no `hosts`; name those that clients ask for");
            None
        }
    };
    let directory = match raw.directory {
        Some(given) => directory(given, problems),
        None => {
            problems.at(
                &place,
                "`acme` has no `directory`; begin with a CA's own for tests, such as \
                 \"https://acme-staging-v02.api.letsencrypt.org/directory\"",
            );
            None
        }
    };
    let contact = contacts(raw.contact, problems);
    let external_account = match (raw.external_account, raw.external_account_key) {
        (None, None) => None,
        (Some(id), Some(key)) => Some(ExternalAccount { id: id.value, key: folder.join(key.value) }),
        (Some(Given { span, .. }), None) | (None, Some(Given { span, .. })) => {
            problems.at(&span, "`external_account` and `external_account_key` belong together; write both or none");
            return None;
        }
    };
    let (url, folder_name) = directory?;
    Some(Acme {
        directory: url,
        contact,
        hosts: hosts?,
        challenge: match raw.challenge.map(|given| given.value) {
            None | Some(raw::ChallengeWord::TlsAlpn01) => Challenge::TlsAlpn01,
            Some(raw::ChallengeWord::Http01) => Challenge::Http01,
        },
        storage: storage?.join(folder_name),
        ca: raw.ca.map(|given| folder.join(given.value)),
        external_account,
        pace: Pace::default(),
    })
}

/// The URL, and the name of the folder for what this CA gave.
fn directory(given: Given<String>, problems: &mut Problems<'_>) -> Option<(String, String)> {
    let rest = given.value.strip_prefix("https://").unwrap_or_default();
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let plain = rest.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
    if Authority::parse(authority).is_err() || !plain {
        let text =
            format!("`{}` is no ACME directory; expected `https://host/path` (RFC 8555 section 6.1)", given.value);
        problems.at(&given.span, text);
        return None;
    }
    // Injective, so that two CAs never share an account: what is replaced is written out.
    let mut name = String::new();
    for c in format!("{authority}/{path}").chars() {
        match c {
            'a'..='z' | '0'..='9' | '.' | '-' => name.push(c),
            '/' => name.push('_'),
            other => name.push_str(&format!("%{:02X}", u32::from(other))),
        }
    }
    Some((given.value, name))
}

fn contacts(given: Option<Given<OneOrMany>>, problems: &mut Problems<'_>) -> Vec<String> {
    let mut contacts = Vec::new();
    for text in given.map(|given| given.value.0).unwrap_or_default() {
        let address = text.value.strip_prefix("mailto:").unwrap_or_default();
        // RFC 8555 section 7.3: one address, no header fields.
        if !address.contains('@') || address.contains([',', '?', ' ']) {
            problems.at(&text.span, format!("`{}` is no contact; expected `mailto:ops@example.com`", text.value));
        }
        contacts.push(text.value);
    }
    contacts
}

fn hosts(given: Given<OneOrMany>, problems: &mut Problems<'_>) -> Option<Vec<String>> {
    if given.value.0.len() > MAX_HOSTS {
        problems
            .at(&given.span, format!("more than {MAX_HOSTS} hosts; spread them over listeners, or order elsewhere"));
        return None;
    }
    let mut hosts: Vec<String> = Vec::new();
    let mut sound = true;
    for text in given.value.0 {
        let host = text.value.to_ascii_lowercase();
        let fault = if host.starts_with("*.") {
            Some("a wildcard can be proven by DNS only; name each host, or order it elsewhere and use `pairs`")
        } else if !is_dns_name(&host) {
            Some("it is no DNS name; expected `chat.example.com`, international ones in their `xn--` form")
        } else if hosts.contains(&host) {
            Some("it is named twice; keep one")
        } else {
            None
        };
        if let Some(fault) = fault {
            problems.at(&text.span, format!("no certificate can be ordered for `{}`: {fault}", text.value));
            sound = false;
        }
        hosts.push(host);
    }
    sound.then_some(hosts)
}

/// Also what makes it safe as the name of a file.
fn is_dns_name(host: &str) -> bool {
    let is_label = |label: &str| {
        let plain = label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        (1..=63).contains(&label.len()) && plain && !label.starts_with('-') && !label.ends_with('-')
    };
    // An address: the last label of a name is never a number.
    let number = |label: &str| label.bytes().all(|byte| byte.is_ascii_digit());
    host.len() <= 253 && host.split('.').all(is_label) && !host.rsplit('.').next().is_some_and(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_dns_name_and_a_safe_file_name() {
        for host in ["chat.example.com", "localhost", "xn--bcher-kva.example", "a1.b-2.c"] {
            assert!(is_dns_name(host), "{host}");
        }
        let long = format!("{}.example", "a".repeat(64));
        for host in ["", ".", "a..b", "../x", "a/b", "a_b.c", "-a.b", "a-.b", "127.0.0.1", "::1", "a.b.", &long] {
            assert!(!is_dns_name(host), "{host}");
        }
    }
}
