//! What RFC 6455 asks of the answer to an opening handshake: one check a rule, all of them reported.

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{
        CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, LOCATION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS,
        SEC_WEBSOCKET_PROTOCOL, TRANSFER_ENCODING, UPGRADE,
    },
};

use super::{ProbeOptions, exchange::Answer, printable};
use crate::protocol::{token_list, websocket::key};

/// More fields than any server sends.
pub(super) const MAX_FIELDS: usize = 128;

/// How one rule fared. The text may be empty.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Kept(String),
    Broken(String),
    NotJudged(String),
}

/// One rule, where it stands, and how it fared.
#[derive(Debug)]
pub(super) struct Check {
    pub(super) rule: &'static str,
    pub(super) section: &'static str,
    pub(super) outcome: Outcome,
}

/// A response head that could be read.
pub(super) struct Head {
    version: u8,
    pub(super) status: u16,
    fields: HeaderMap,
}

impl Head {
    /// How long the body says it is. A chunked one counts as empty: nobody wants to read chunk sizes.
    pub(super) fn body_length(&self) -> Option<usize> {
        if self.fields.contains_key(TRANSFER_ENCODING) {
            return Some(0);
        }
        self.fields.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
    }

    /// Whether the body can be shown as it came.
    fn body_is_plain(&self) -> bool {
        !self.fields.contains_key(TRANSFER_ENCODING) && !self.fields.contains_key(CONTENT_ENCODING)
    }
}

type Judgement = fn(&Head, &ProbeOptions, &Answer) -> Result<String, String>;

/// The rules that an answer with status 101 has to keep, in the order of the RFC.
const RULES: [(&str, &str, Judgement); 9] = [
    ("HTTP/1.1", "RFC 6455 section 4.2.2, item 5.1", version),
    ("Upgrade is websocket", "RFC 6455 section 4.1, response item 2", upgrade),
    ("Connection has upgrade", "RFC 6455 section 4.1, response item 3", connection),
    ("one Sec-WebSocket-Accept", "RFC 6455 section 11.3.3", one_accept),
    ("Sec-WebSocket-Accept answers our key", "RFC 6455 section 4.1, response item 4", accept_value),
    ("extensions: only what was offered", "RFC 6455 section 4.1, response item 5", extensions),
    ("subprotocol: at most one, and offered", "RFC 6455 section 4.1, response item 6", subprotocol),
    ("no message body announced", "RFC 9110 section 8.6, RFC 9112 section 6.1", no_body),
    ("only WebSocket frames follow", "RFC 6455 sections 5.1 and 5.2", frames),
];

pub(super) fn checks(options: &ProbeOptions, answer: &Answer) -> Vec<Check> {
    let head = answer.head.as_ref().map_err(Clone::clone).and_then(|bytes| parse(bytes));
    let well_formed = Check {
        rule: "an HTTP response head",
        section: "RFC 9112 section 4",
        outcome: head.as_ref().map_or_else(|wrong| Outcome::Broken(wrong.clone()), |_| Outcome::Kept(String::new())),
    };
    let mut checks = vec![well_formed];
    let Ok(head) = head else { return checks };
    let switched = head.status == 101;
    checks.push(Check {
        rule: "status 101",
        section: "RFC 6455 section 4.1, response item 1",
        outcome: if switched { Outcome::Kept(String::new()) } else { Outcome::Broken(refused(&head, &answer.rest)) },
    });
    checks.extend(RULES.into_iter().map(|(rule, section, judge)| {
        let outcome = if switched {
            judge(&head, options, answer).map_or_else(Outcome::Broken, Outcome::Kept)
        } else {
            Outcome::NotJudged("the status is not 101".to_owned())
        };
        Check { rule, section, outcome }
    }));
    checks
}

pub(super) fn parse(bytes: &[u8]) -> Result<Head, String> {
    let mut slots = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut response = httparse::Response::new(&mut slots);
    response.parse(bytes).map_err(|error| error.to_string())?;
    // The parser forgives a line that ends in LF alone; a sender may not (RFC 9112 §2.2).
    let ends = bytes.iter().filter(|&&byte| byte == b'\n').count();
    if bytes.windows(2).filter(|pair| pair == b"\r\n").count() != ends {
        return Err("a line ends in LF without CR (RFC 9112 section 2.2)".to_owned());
    }
    let mut fields = HeaderMap::new();
    for field in response.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes());
        let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(field.value)) else {
            return Err(format!(
                "field `{}` cannot be read: {}",
                printable(field.name.as_bytes()),
                printable(field.value)
            ));
        };
        fields.append(name, value);
    }
    match (response.version, response.code) {
        (Some(version), Some(status)) => Ok(Head { version, status, fields }),
        _ => Err("no status line".to_owned()),
    }
}

fn refused(head: &Head, body: &[u8]) -> String {
    let mut text = format!("got {}", head.status);
    if let Some(place) = head.fields.get(LOCATION) {
        text.push_str(&format!(", redirected to {}", printable(place.as_bytes())));
    }
    if !body.is_empty() && head.body_is_plain() {
        text.push_str(&format!("; the server says: {}", printable(body.trim_ascii())));
    }
    text
}

fn version(head: &Head, _: &ProbeOptions, _: &Answer) -> Result<String, String> {
    match head.version {
        1 => Ok(String::new()),
        other => Err(format!("got HTTP/1.{other}")),
    }
}

fn upgrade(head: &Head, _: &ProbeOptions, _: &Answer) -> Result<String, String> {
    let values = values(head, &UPGRADE);
    match values.as_slice() {
        [one] if one.eq_ignore_ascii_case("websocket") => Ok(String::new()),
        _ => Err(expected("websocket", &values)),
    }
}

fn connection(head: &Head, _: &ProbeOptions, _: &Answer) -> Result<String, String> {
    if token_list::contains(&head.fields, &CONNECTION, "upgrade") {
        Ok(String::new())
    } else {
        Err(expected("Upgrade", &values(head, &CONNECTION)))
    }
}

fn one_accept(head: &Head, _: &ProbeOptions, _: &Answer) -> Result<String, String> {
    match head.fields.get_all(SEC_WEBSOCKET_ACCEPT).iter().count() {
        1 => Ok(String::new()),
        count => Err(format!("found {count}")),
    }
}

fn accept_value(head: &Head, _: &ProbeOptions, answer: &Answer) -> Result<String, String> {
    let right = key::accept_value(&answer.key);
    let values = values(head, &SEC_WEBSOCKET_ACCEPT);
    if !values.is_empty() && values.iter().all(|value| *value == right) {
        Ok(format!("{} answers {}", right, answer.key))
    } else {
        Err(expected(&right, &values))
    }
}

fn extensions(head: &Head, options: &ProbeOptions, _: &Answer) -> Result<String, String> {
    let name = |member: &str| member.split(';').next().unwrap_or_default().trim().to_owned();
    // None are offered, unless the user wrote the field.
    let offered: Vec<String> = options
        .fields
        .iter()
        .filter(|field| field.is(SEC_WEBSOCKET_EXTENSIONS.as_str()))
        .flat_map(|field| field.value.split(','))
        .map(name)
        .collect();
    let mut agreed = Vec::new();
    for member in token_list::members(head.fields.get_all(SEC_WEBSOCKET_EXTENSIONS)) {
        let name = name(member);
        if !token_list::is_token(&name) {
            return Err(format!("`{}` is no extension", printable(member.as_bytes())));
        }
        if !offered.contains(&name) {
            return Err(format!("`{name}` was not offered"));
        }
        agreed.push(name);
    }
    Ok(agreed.join(", "))
}

fn subprotocol(head: &Head, options: &ProbeOptions, _: &Answer) -> Result<String, String> {
    let values = values(head, &SEC_WEBSOCKET_PROTOCOL);
    match values.as_slice() {
        [] if options.subprotocols.is_empty() => Ok(String::new()),
        [] => Ok("none of those offered was taken".to_owned()),
        [one] if options.subprotocols.iter().any(|offered| offered.as_str() == one) => Ok(one.clone()),
        [one] => Err(format!("`{one}` was not offered")),
        several => Err(format!("found {}: {}", several.len(), several.join(" | "))),
    }
}

fn no_body(head: &Head, _: &ProbeOptions, _: &Answer) -> Result<String, String> {
    for name in [CONTENT_LENGTH, TRANSFER_ENCODING] {
        if head.fields.contains_key(&name) {
            return Err(format!("a 101 has no {name}"));
        }
    }
    Ok(String::new())
}

/// What follows the head, up to the first frame header: enough to notice a server that goes on in HTTP.
fn frames(head: &Head, _: &ProbeOptions, answer: &Answer) -> Result<String, String> {
    let [first, second, ..] = answer.rest.as_slice() else {
        return Ok("nothing came within the time".to_owned());
    };
    let no_frame = || format!("no frame begins like this: {}", printable(&answer.rest));
    // Only an extension gives the reserved bits a meaning.
    if first & 0x70 != 0 && !head.fields.contains_key(SEC_WEBSOCKET_EXTENSIONS) {
        return Err(no_frame());
    }
    let (last, opcode, masked, length) = (first & 0x80 != 0, first & 0x0f, second & 0x80 != 0, second & 0x7f);
    let name = match opcode {
        1 => "text",
        2 => "binary",
        8 => "Close",
        9 => "Ping",
        10 => "Pong",
        _ => return Err(no_frame()),
    };
    if masked {
        return Err(format!("a server's frames are not masked: {}", printable(&answer.rest)));
    }
    if opcode >= 8 && (!last || length > 125) {
        return Err(format!("{name} is fragmented or too long (RFC 6455 section 5.5)"));
    }
    Ok(format!("the first is {name}"))
}

fn values(head: &Head, name: &HeaderName) -> Vec<String> {
    head.fields.get_all(name).iter().map(|value| printable(value.as_bytes())).collect()
}

fn expected(right: &str, got: &[String]) -> String {
    let got = if got.is_empty() { "nothing".to_owned() } else { got.join(" | ") };
    format!("expected {right}, got {got}")
}
