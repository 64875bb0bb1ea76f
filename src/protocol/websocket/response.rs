//! The upstream's side of the opening handshake (RFC 6455 §4.1, the server's response).

use http::{
    HeaderMap, HeaderValue, StatusCode, Version,
    header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_PROTOCOL, UPGRADE},
    response,
};
use thiserror::Error;

use super::{OpeningHandshake, Waiver, extensions, key::accept_value};
use crate::protocol::token_list::{all_known, contains, is_blank, members};

/// Which rule an upstream's 101 breaks.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum AcceptError {
    /// Not 101.
    #[error("the status is not 101 (RFC 6455 section 4.1, item 1)")]
    Status,
    /// Not HTTP/1.1.
    #[error("the 101 is not HTTP/1.1 (RFC 9110 section 15.2.2)")]
    HttpVersion,
    /// No `Upgrade: websocket`, or something beside it.
    #[error("the 101 has no `Upgrade: websocket` (RFC 6455 section 4.1, item 2)")]
    Upgrade,
    /// No `Connection: upgrade`.
    #[error("the 101 has no `Connection: upgrade` (RFC 6455 section 4.1, item 3)")]
    Connection,
    /// No accept value.
    #[error("the 101 has no Sec-WebSocket-Accept (RFC 6455 section 4.1, item 4)")]
    AcceptMissing,
    /// Several.
    #[error("the 101 has more than one Sec-WebSocket-Accept (RFC 6455 section 11.3.3)")]
    AcceptRepeated,
    /// One that belongs to another key.
    #[error("Sec-WebSocket-Accept does not answer this key (RFC 6455 section 4.1, item 4)")]
    AcceptMismatch,
    /// An extension nobody offered, or a malformed list.
    #[error("the 101 uses an extension that was not offered (RFC 6455 section 4.1, item 5)")]
    Extension,
    /// Several subprotocols, or one nobody offered.
    #[error("the 101 selects a subprotocol that was not offered (RFC 6455 section 4.1, item 6)")]
    Subprotocol,
}

impl AcceptError {
    /// A fixed word for logs and counters.
    pub fn rule(self) -> &'static str {
        match self {
            Self::Status => "accept-status",
            Self::HttpVersion => "accept-http-version",
            Self::Upgrade => "accept-upgrade",
            Self::Connection => "accept-connection",
            Self::AcceptMissing => "accept-missing",
            Self::AcceptRepeated => "accept-repeated",
            Self::AcceptMismatch => "accept-mismatch",
            Self::Extension => "accept-extension",
            Self::Subprotocol => "accept-subprotocol",
        }
    }
}

/// What both sides agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agreed {
    /// The selected subprotocol. Under a waiver it may hold any byte of a field value.
    pub subprotocol: Option<HeaderValue>,
    /// The extensions in use.
    pub extensions: Vec<String>,
    /// The waivers without which the 101 would have been refused.
    pub used: Vec<Waiver>,
}

impl OpeningHandshake {
    /// Checks that an upstream's 101 answers *this* handshake.
    ///
    /// # Errors
    /// See [`AcceptError`]; each one means that the upstream is at fault.
    pub fn verify(&self, response: &response::Parts) -> Result<Agreed, AcceptError> {
        let headers = &response.headers;
        if response.status != StatusCode::SWITCHING_PROTOCOLS {
            return Err(AcceptError::Status);
        }
        if response.version != Version::HTTP_11 {
            return Err(AcceptError::HttpVersion);
        }
        let mut used = Vec::new();
        let mut waive = |waiver: Waiver, error| {
            if self.waivers.contains(waiver) {
                used.push(waiver);
                Ok(())
            } else {
                Err(error)
            }
        };
        let mut upgrades = members(headers.get_all(UPGRADE));
        match (upgrades.next(), upgrades.next()) {
            (Some(protocol), None) if protocol.eq_ignore_ascii_case("websocket") => {}
            (None, _) => waive(Waiver::ResponseUpgrade, AcceptError::Upgrade)?,
            _ => return Err(AcceptError::Upgrade),
        }
        if !contains(headers, &CONNECTION, "upgrade") {
            waive(Waiver::ResponseConnection, AcceptError::Connection)?;
        }
        self.verify_accept(headers)?;
        let extensions = extensions::names(headers).map_err(|_| AcceptError::Extension)?;
        if !all_known(extensions.iter().map(String::as_bytes), self.extensions.iter().map(String::as_bytes)) {
            return Err(AcceptError::Extension);
        }
        // A line without a value selects nothing.
        let mut selected = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter(|line| !is_blank(line));
        let subprotocol = match (selected.next(), selected.next()) {
            (None, _) => None,
            (Some(_), Some(_)) => return Err(AcceptError::Subprotocol),
            (Some(one), None) => {
                let bytes = one.as_bytes().trim_ascii();
                if !self.subprotocols.iter().any(|offered| **offered == *bytes) {
                    waive(Waiver::ResponseSubprotocol, AcceptError::Subprotocol)?;
                }
                Some(one.clone())
            }
        };
        Ok(Agreed { subprotocol, extensions, used })
    }

    fn verify_accept(&self, headers: &HeaderMap) -> Result<(), AcceptError> {
        let mut lines = headers.get_all(SEC_WEBSOCKET_ACCEPT).iter();
        let line = lines.next().ok_or(AcceptError::AcceptMissing)?;
        if lines.next().is_some() {
            return Err(AcceptError::AcceptRepeated);
        }
        if line == accept_value(&self.key).as_str() { Ok(()) } else { Err(AcceptError::AcceptMismatch) }
    }
}

#[cfg(test)]
mod tests {
    use http::{Method, Response};

    use super::{super::Waivers, *};
    use crate::protocol::token_list::COMPARISONS;

    fn opening(waivers: Waivers) -> OpeningHandshake {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("sec-websocket-version", "13"),
            ("sec-websocket-protocol", "chat, soap"),
            ("sec-websocket-extensions", "permessage-deflate"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        OpeningHandshake::check(&Method::GET, Version::HTTP_11, &headers, false, waivers).unwrap()
    }

    fn verify(drop: &str, add: &[(&'static str, &'static str)], waivers: Waivers) -> Result<Agreed, AcceptError> {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let right = [
            ("upgrade", "WebSocket"),
            ("connection", "keep-alive, Upgrade"),
            ("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
        ];
        for (name, value) in right.iter().filter(|(name, _)| *name != drop).chain(add) {
            response.headers_mut().append(*name, HeaderValue::from_static(value));
        }
        opening(waivers).verify(&response.into_parts().0)
    }

    #[test]
    fn a_right_101_is_accepted() {
        let agreed = verify(
            "",
            &[("sec-websocket-protocol", "soap"), ("sec-websocket-extensions", "permessage-deflate; x=1")],
            Waivers::default(),
        );
        let agreed = agreed.unwrap();
        let nothing = [("sec-websocket-protocol", ""), ("sec-websocket-extensions", " ")];
        assert_eq!(verify("", &nothing, Waivers::default()).unwrap().subprotocol, None);
        assert_eq!(agreed.subprotocol.unwrap(), "soap");
        assert_eq!(agreed.extensions, ["permessage-deflate"]);
    }

    #[test]
    fn what_a_waiver_let_in_may_be_selected_byte_for_byte() {
        let strange = b"SPDY/3.1+portforward.k8s.io, a b, \"c\", \xff, d;e=1, chat, chat";
        let mut headers = HeaderMap::new();
        headers.append("sec-websocket-key", HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ=="));
        headers.append("sec-websocket-version", HeaderValue::from_static("13"));
        headers.append("sec-websocket-protocol", HeaderValue::from_bytes(strange).unwrap());
        headers.append("sec-websocket-extensions", HeaderValue::from_static("permessage-deflate; x=, a b, y"));
        let waivers = Waivers::from_iter([Waiver::SubprotocolSyntax, Waiver::ExtensionsSyntax]);
        let opening = OpeningHandshake::check(&Method::GET, Version::HTTP_11, &headers, false, waivers).unwrap();
        let verify = |field: &str, value: &[u8]| {
            let response = Response::builder()
                .status(101)
                .header("upgrade", "websocket")
                .header("connection", "upgrade")
                .header("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
                .header(field, value);
            opening.verify(&response.body(()).unwrap().into_parts().0)
        };
        for selected in [&b"SPDY/3.1+portforward.k8s.io"[..], b"a b", b"\"c\"", b"\xff", b"d;e=1", b"chat"] {
            let agreed = verify("sec-websocket-protocol", selected).unwrap();
            assert_eq!(agreed.subprotocol.unwrap().as_bytes(), selected);
        }
        for other in [&b"spdy/3.1+portforward.k8s.io"[..], b"a", b"a  b", b"c", b"\xfe", b"d", b"a b, chat", b","] {
            let refused = verify("sec-websocket-protocol", other);
            assert_eq!(refused, Err(AcceptError::Subprotocol), "{}", other.escape_ascii());
        }
        for name in ["permessage-deflate", "y"] {
            assert_eq!(verify("sec-websocket-extensions", name.as_bytes()).unwrap().extensions, [name]);
        }
        assert_eq!(verify("sec-websocket-extensions", b"a"), Err(AcceptError::Extension));
    }

    #[test]
    fn a_101_that_repeats_many_extensions_is_checked_in_linear_time() {
        let compared = |count: usize| {
            let list: Vec<String> = (0..count).map(|number| format!("x-{number}")).collect();
            let list = HeaderValue::try_from(list.join(",")).unwrap();
            let mut headers = HeaderMap::new();
            headers.append("sec-websocket-key", HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ=="));
            headers.append("sec-websocket-version", HeaderValue::from_static("13"));
            headers.append("sec-websocket-extensions", list.clone());
            let opening =
                OpeningHandshake::check(&Method::GET, Version::HTTP_11, &headers, false, Waivers::default()).unwrap();
            let response = Response::builder()
                .status(101)
                .header("upgrade", "websocket")
                .header("connection", "upgrade")
                .header("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
                .header("sec-websocket-extensions", list);
            COMPARISONS.set(0);
            assert_eq!(opening.verify(&response.body(()).unwrap().into_parts().0).unwrap().extensions.len(), count);
            COMPARISONS.get()
        };
        let (some, twice) = (compared(32), compared(64));
        assert!(twice <= 3 * some && twice < 4 * 64, "{some} comparisons for 32 extensions, {twice} for 64");
    }

    #[test]
    fn each_wrong_101_is_named() {
        use AcceptError as E;
        let accept = "sec-websocket-accept";
        type Fields<'a> = &'a [(&'static str, &'static str)];
        let cases: [(&str, Fields, E, bool); 14] = [
            ("upgrade", &[], E::Upgrade, true),
            ("upgrade", &[("upgrade", "h2c")], E::Upgrade, false),
            ("", &[("upgrade", "h2c")], E::Upgrade, false),
            ("connection", &[], E::Connection, true),
            ("connection", &[("connection", "keep-alive")], E::Connection, true),
            (accept, &[], E::AcceptMissing, false),
            ("", &[(accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")], E::AcceptRepeated, false),
            (accept, &[(accept, "S3PPLMBITXAQ9KYGZZHZRBK+XOO=")], E::AcceptMismatch, false),
            (accept, &[(accept, "")], E::AcceptMismatch, false),
            ("", &[("sec-websocket-extensions", "x-other")], E::Extension, false),
            ("", &[("sec-websocket-extensions", "a b")], E::Extension, false),
            ("", &[("sec-websocket-protocol", "other")], E::Subprotocol, true),
            ("", &[("sec-websocket-protocol", "Chat")], E::Subprotocol, true),
            ("", &[("sec-websocket-protocol", "chat"), ("sec-websocket-protocol", "soap")], E::Subprotocol, false),
        ];
        for (drop, add, error, waivable) in cases {
            assert_eq!(verify(drop, add, Waivers::default()), Err(error), "-{drop} +{add:?}");
            assert_eq!(verify(drop, add, Waivers::all()).is_ok(), waivable, "-{drop} +{add:?}");
        }
    }
}
