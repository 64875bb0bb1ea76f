//! Which origins a route accepts (RFC 6455 §10.2).

use http::{HeaderMap, HeaderName, HeaderValue, header::ORIGIN};
use thiserror::Error;

use super::{MAX_HOST, Origin, OriginError, default_port, is_numeric, is_web};

/// The name that the drafts 4 to 10 of RFC 6455 gave the field `Origin` of an opening handshake.
const SEC_WEBSOCKET_ORIGIN: HeaderName = HeaderName::from_static("sec-websocket-origin");

/// Which fields of a request carry its origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OriginFields {
    /// `Origin` alone.
    Standard,
    /// Also `Sec-WebSocket-Origin`: the handshake is of a draft whose browsers send that in place of `Origin`.
    WithDraft,
}

impl OriginFields {
    /// The names, `Origin` first.
    pub fn names(self) -> impl Iterator<Item = HeaderName> {
        [ORIGIN].into_iter().chain((self == Self::WithDraft).then_some(SEC_WEBSOCKET_ORIGIN))
    }

    /// The first line of the first of these fields that is there.
    pub fn first(self, headers: &HeaderMap) -> Option<&HeaderValue> {
        self.names().find_map(|name| headers.get(name))
    }
}

/// One entry of `allow`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowEntry {
    /// Exactly this origin.
    Exact(Origin),
    /// Any subdomain, at any depth, of the host; never the host itself.
    Subdomains(Origin),
    /// The origin under which the client reached us.
    SameOrigin,
    /// Every well-formed origin, those of apps among them.
    Any,
}

/// Why an entry of `allow` can never match.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum AllowEntryError {
    /// Not an origin.
    #[error("{0}")]
    Origin(OriginError),
    /// `*` anywhere but as the first label.
    #[error("`*` may only stand for the first label; write `https://*.example.com`, or `*` alone for every origin")]
    Wildcard,
    /// `null`.
    #[error("`null` is not listed here; set `null = \"allow\"`")]
    Null,
    /// The default port is never sent.
    #[error("no client sends the default port of its scheme; leave it out")]
    DefaultPort,
    /// A parent with no room for a subdomain.
    #[error("its host is too long: no subdomain of it fits into 253 characters")]
    NoRoom,
}

impl AllowEntry {
    /// Reads an entry.
    ///
    /// # Errors
    /// See [`AllowEntryError`]: an entry that cannot match is a mistake, not a wish.
    pub fn parse(text: &str) -> Result<Self, AllowEntryError> {
        match text {
            "*" => return Ok(Self::Any),
            "same-origin" => return Ok(Self::SameOrigin),
            "null" => return Err(AllowEntryError::Null),
            _ => {}
        }
        let (bare, wild) = match text.split_once("://*.") {
            Some((scheme, rest)) => (format!("{scheme}://{rest}"), true),
            None => (text.to_owned(), false),
        };
        if bare.contains('*') {
            return Err(AllowEntryError::Wildcard);
        }
        let (origin, port) = Origin::parse_with_port(&bare).map_err(AllowEntryError::Origin)?;
        if port.is_some() && port == default_port(&origin.scheme) {
            return Err(AllowEntryError::DefaultPort);
        }
        // An app has no subdomains.
        if wild && !is_web(&origin.scheme) {
            return Err(AllowEntryError::Wildcard);
        }
        if wild && (origin.host.starts_with('[') || is_numeric(&origin.host)) {
            return Err(AllowEntryError::Wildcard);
        }
        // The shortest subdomain adds one character and a dot.
        if wild && origin.host.len() + 2 > MAX_HOST {
            return Err(AllowEntryError::NoRoom);
        }
        Ok(if wild { Self::Subdomains(origin) } else { Self::Exact(origin) })
    }

    fn matches(&self, origin: &Origin, own: &Origin) -> bool {
        match self {
            Self::Any => true,
            Self::SameOrigin => origin == own,
            Self::Exact(listed) => origin == listed,
            Self::Subdomains(parent) => {
                origin.scheme == parent.scheme
                    && origin.port == parent.port
                    && origin
                        .host
                        .strip_suffix(&parent.host)
                        .is_some_and(|labels| labels.len() > 1 && labels.ends_with('.'))
            }
        }
    }
}

/// What to do with a special value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Let it pass.
    Allow,
    /// Refuse it.
    Refuse,
}

/// What a refusal leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// 403.
    Enforce,
    /// A log event, and the request goes on.
    Report,
}

/// Which requests are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApplyTo {
    /// Opening handshakes.
    WebSocket,
    /// Plain requests too.
    All,
}

/// The origin policy of a route.
#[derive(Clone, Debug)]
pub struct OriginPolicy {
    /// Origins that may connect.
    pub allow: Vec<AllowEntry>,
    /// For a request without `Origin`: no browser leaves it out on a WebSocket.
    pub absent: Verdict,
    /// For `Origin: null`: a sandboxed frame, a file, a redirect across origins.
    pub null: Verdict,
    /// What a refusal leads to.
    pub mode: Mode,
    /// Which requests are checked.
    pub apply_to: ApplyTo,
}

impl Default for OriginPolicy {
    /// Same-origin browsers and clients that are no browsers: no other site's page can use a visitor's cookies.
    fn default() -> Self {
        Self {
            allow: vec![AllowEntry::SameOrigin],
            absent: Verdict::Allow,
            null: Verdict::Refuse,
            mode: Mode::Enforce,
            apply_to: ApplyTo::WebSocket,
        }
    }
}

/// Why an origin is refused.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum OriginRefusal {
    /// There is none.
    #[error("the request has no Origin (RFC 6455 section 10.2)")]
    Absent,
    /// It is `null`.
    #[error("the origin `null` is not allowed (RFC 6454 section 7.3)")]
    Null,
    /// Two lines, or two origins in one.
    #[error("the request has more than one Origin (RFC 6454 section 7.3)")]
    Repeated,
    /// Not a serialised origin.
    #[error("the Origin is malformed (RFC 6454 section 6.2)")]
    Malformed,
    /// Not listed.
    #[error("this origin is not allowed (RFC 6455 section 10.2)")]
    NotAllowed,
}

impl OriginRefusal {
    /// A fixed word for logs and counters.
    pub fn rule(self) -> &'static str {
        match self {
            Self::Absent => "origin-absent",
            Self::Null => "origin-null",
            Self::Repeated => "origin-repeated",
            Self::Malformed => "origin-malformed",
            Self::NotAllowed => "origin-not-allowed",
        }
    }
}

impl OriginPolicy {
    /// Judges the origin of a request; `own` is the origin under which the client reached us. Where several `fields` are
    /// there, each must pass.
    ///
    /// # Errors
    /// See [`OriginRefusal`].
    pub fn check(&self, headers: &HeaderMap, own: &Origin, fields: OriginFields) -> Result<(), OriginRefusal> {
        let mut absent = true;
        for name in fields.names() {
            let mut lines = headers.get_all(name).iter();
            let Some(line) = lines.next() else { continue };
            if lines.next().is_some() {
                return Err(OriginRefusal::Repeated);
            }
            self.check_line(line, own)?;
            absent = false;
        }
        if absent { allowed(self.absent, OriginRefusal::Absent) } else { Ok(()) }
    }

    fn check_line(&self, line: &HeaderValue, own: &Origin) -> Result<(), OriginRefusal> {
        let text = line.to_str().map_err(|_| OriginRefusal::Malformed)?;
        if text == "null" {
            return allowed(self.null, OriginRefusal::Null);
        }
        let origin = Origin::parse(text).map_err(|_| OriginRefusal::Malformed)?;
        if self.allow.iter().any(|entry| entry.matches(&origin, own)) { Ok(()) } else { Err(OriginRefusal::NotAllowed) }
    }
}

fn allowed(verdict: Verdict, refusal: OriginRefusal) -> Result<(), OriginRefusal> {
    match verdict {
        Verdict::Allow => Ok(()),
        Verdict::Refuse => Err(refusal),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::{super::tests::APPS, *};

    fn judge(allow: &[&str], lines: &[&str]) -> Result<(), OriginRefusal> {
        let policy = OriginPolicy {
            allow: allow.iter().map(|entry| AllowEntry::parse(entry).unwrap()).collect(),
            ..OriginPolicy::default()
        };
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(ORIGIN, HeaderValue::from_str(line).unwrap());
        }
        policy.check(&headers, &Origin::of("https", "gate.example", Some(8443)), OriginFields::Standard)
    }

    #[test]
    fn the_field_of_the_drafts_is_judged_like_origin_and_beside_it() {
        use OriginRefusal as R;
        const A: (&str, &str) = ("origin", "https://app.example.com");
        const EVIL: (&str, &str) = ("origin", "https://evil.example");
        const DRAFT_A: (&str, &str) = ("sec-websocket-origin", "https://app.example.com");
        const DRAFT_EVIL: (&str, &str) = ("sec-websocket-origin", "https://evil.example");
        const DRAFT_NULL: (&str, &str) = ("sec-websocket-origin", "null");
        type Fields<'a> = &'a [(&'static str, &'static str)];
        let policy = OriginPolicy {
            allow: vec![AllowEntry::parse(A.1).unwrap()],
            absent: Verdict::Refuse,
            ..OriginPolicy::default()
        };
        let cases: [(Fields<'_>, Option<R>, Option<R>); 10] = [
            (&[], Some(R::Absent), Some(R::Absent)),
            (&[A], None, None),
            (&[EVIL], Some(R::NotAllowed), Some(R::NotAllowed)),
            (&[DRAFT_A], Some(R::Absent), None),
            (&[DRAFT_EVIL], Some(R::Absent), Some(R::NotAllowed)),
            (&[DRAFT_NULL], Some(R::Absent), Some(R::Null)),
            (&[A, DRAFT_A], None, None),
            (&[A, DRAFT_EVIL], None, Some(R::NotAllowed)),
            (&[EVIL, DRAFT_A], Some(R::NotAllowed), Some(R::NotAllowed)),
            (&[DRAFT_A, DRAFT_A], Some(R::Absent), Some(R::Repeated)),
        ];
        for (fields, standard, with_draft) in cases {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                headers.append(*name, HeaderValue::from_static(value));
            }
            let own = Origin::of("https", "gate.example", None);
            assert_eq!(policy.check(&headers, &own, OriginFields::Standard).err(), standard, "{fields:?}");
            assert_eq!(policy.check(&headers, &own, OriginFields::WithDraft).err(), with_draft, "{fields:?}");
        }
    }

    #[test]
    fn origins_against_allowlists() {
        use OriginRefusal as R;
        let app = "https://app.example.com";
        let wild = "https://*.example.com";
        for (allow, lines, expected) in [
            (app, &["https://app.example.com"][..], Ok(())),
            (app, &["HTTPS://App.Example.COM"], Ok(())),
            (app, &["https://app.example.com:443"], Ok(())),
            (app, &["http://app.example.com"], Err(R::NotAllowed)),
            (app, &["https://app.example.com:8443"], Err(R::NotAllowed)),
            (app, &["https://app.example.com.evil.test"], Err(R::NotAllowed)),
            (app, &["https://evil-app.example.com"], Err(R::NotAllowed)),
            (app, &["https://app.example.com/"], Err(R::Malformed)),
            (app, &["https://app.example.com/path"], Err(R::Malformed)),
            (app, &["https://app.example.com."], Err(R::Malformed)),
            (app, &["https://user@app.example.com"], Err(R::Malformed)),
            (app, &["https://app.example.com https://evil.test"], Err(R::Malformed)),
            (app, &["https://app.example.com", "https://app.example.com"], Err(R::Repeated)),
            (app, &["app.example.com"], Err(R::Malformed)),
            (app, &[""], Err(R::Malformed)),
            (app, &["null"], Err(R::Null)),
            (app, &[], Ok(())),
            (wild, &["https://a.example.com"], Ok(())),
            (wild, &["https://b.a.example.com"], Ok(())),
            (wild, &["https://example.com"], Err(R::NotAllowed)),
            (wild, &["https://.example.com"], Err(R::Malformed)),
            (wild, &["https://evilexample.com"], Err(R::NotAllowed)),
            (wild, &["https://a.example.com.evil.test"], Err(R::NotAllowed)),
            (wild, &["https://a.example.com:444"], Err(R::NotAllowed)),
            ("same-origin", &["https://gate.example:8443"], Ok(())),
            ("same-origin", &["https://gate.example"], Err(R::NotAllowed)),
            ("same-origin", &["http://gate.example:8443"], Err(R::NotAllowed)),
            ("*", &["https://anyone.test"], Ok(())),
            ("*", &["null"], Err(R::Null)),
            ("https://[::1]:9443", &["https://[::1]:9443"], Ok(())),
        ] {
            assert_eq!(judge(&[allow], lines), expected, "{allow} {lines:?}");
        }
    }

    #[test]
    fn an_app_is_listed_exactly_or_matched_by_the_asterisk() {
        for app in APPS {
            assert_eq!(judge(&[app], &[app]), Ok(()), "{app}");
            assert_eq!(judge(&["*"], &[app]), Ok(()), "{app}");
            for entry in ["same-origin", "https://*.localhost", "https://localhost", "app://other"] {
                assert_eq!(judge(&[entry], &[app]), Err(OriginRefusal::NotAllowed), "{entry} {app}");
            }
            let longer = format!("{app}x");
            assert_eq!(judge(&[app], &[&longer]), Err(OriginRefusal::NotAllowed), "{longer}");
            assert_eq!(judge(&[app], &[&format!("{app}/")]), Err(OriginRefusal::Malformed), "{app}");
        }
        assert_eq!(judge(&["http://tauri.localhost"], &["http://tauri.localhost"]), Ok(()));
        assert_eq!(judge(&["app://a:80"], &["app://a:80"]), Ok(()));
        for entry in ["chrome-extension://*", "app://*.a", "app://a/", "file:///", "app://a b"] {
            assert!(AllowEntry::parse(entry).is_err(), "{entry}");
        }
    }

    #[test]
    fn entries_that_can_never_match_are_errors() {
        for entry in [
            "https://127.1",
            "https://010.0.0.1",
            "https://256.1.1.1",
            "https://0x7f.1",
            "https://*.1",
            "https://[0:0:0:0:0:0:0:1]",
            "https://a.example/",
            "https://a.example/x",
            "https://a.example:443",
            "http://a.example:80",
            "https://u@a.example",
            "https://a.example.",
            "a.example",
            "https://",
            "https://b\u{fc}cher.example",
            "https://a.*.example",
            "https://*",
            "*.example.com",
            "null",
            "https://a.example:0",
            "https://*.127.0.0.1",
            "https://a.example:0443",
            "https://a.example:080",
            "https://a.example:65536",
            "https://[::ffff:1.2.3.4]",
            "https://[2001:0db8::1]",
            "https://1.2.3.4.5",
            "https://a..example",
            "https://a%2ee.example",
            "https://xn--.example",
            &format!("https://{}.example", "a".repeat(64)),
            &format!("https://*.{}.example", "a".repeat(64)),
            &format!("https://{}example.com", "a.".repeat(122)),
            &format!("https://*.{}b.com", "a.".repeat(124)),
        ] {
            assert!(AllowEntry::parse(entry).is_err(), "{entry}");
        }
    }

    proptest! {
        #[test]
        fn the_wildcard_agrees_with_a_slow_model(labels in prop::collection::vec("[a-z]{1,3}", 1..5), parent in "[a-z]{1,3}\\.[a-z]{1,3}") {
            let host = labels.join(".");
            let entry = AllowEntry::parse(&format!("https://*.{parent}")).unwrap();
            let origin = Origin::parse(&format!("https://{host}")).unwrap();
            let parent: Vec<&str> = parent.split('.').collect();
            let tail = labels.len().checked_sub(parent.len()).map(|at| &labels[at..]);
            let model = labels.len() > parent.len() && tail.is_some_and(|tail| tail == parent);
            prop_assert_eq!(entry.matches(&origin, &origin), model);
        }
    }
}
