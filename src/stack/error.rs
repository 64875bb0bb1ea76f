//! What can go wrong with a request, and whose fault it is.

use http::HeaderValue;
use thiserror::Error;

use crate::{
    admission::Refusal,
    downstream::Malformed,
    protocol::{
        origin::OriginRefusal,
        request_target::TargetError,
        websocket::{AcceptError, HandshakeError},
    },
    relay::Side,
    upstream::UpstreamError,
};

/// Everything that ends a request in an answer of our own.
#[derive(Debug, Error)]
pub(super) enum ProxyError {
    #[error("malformed request: {0}")]
    Malformed(Malformed),
    #[error("CONNECT is not served here (RFC 9110 section 9.3.6)")]
    Connect,
    #[error("TRACE is not implemented (RFC 9110 section 9.3.8)")]
    Trace,
    #[error(transparent)]
    Target(#[from] TargetError),
    #[error("this listener is for redirects only; use https or wss")]
    Redirect { location: Option<HeaderValue> },
    #[error("no route for this host and path")]
    NoRoute,
    #[error("the TLS handshake was for a host of another route (RFC 9110 section 7.4)")]
    Misdirected,
    #[error("the path can be read in ways that belong to different routes (RFC 3986 section 6)")]
    AmbiguousPath,
    #[error("this route takes no upgrade to another protocol (RFC 9110 section 7.8)")]
    OtherUpgrade,
    #[error("WebSocket is not allowed on this route")]
    WebSocketNotAllowed,
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    #[error(transparent)]
    Origin(#[from] OriginRefusal),
    #[error("this process stops and takes no new WebSocket; come back in {retry_after} s")]
    Draining { retry_after: u64 },
    #[error("{refusal}; come back in {retry_after} s")]
    Limit { refusal: Refusal, retry_after: u64 },
    #[error("the request has passed through here too often: an upstream leads back to this proxy")]
    Loop,
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    #[error(transparent)]
    Accept(#[from] AcceptError),
    #[error("the upstream switched protocols although it was not asked to (RFC 9110 section 15.2.2)")]
    UnaskedSwitch,
    #[error("the stack lacks the fact {0}")]
    MissingFact(&'static str),
    #[error("the upstream's connection was lost at the switch")]
    SwitchLost,
}

impl ProxyError {
    /// Who caused it; `None` is ourselves.
    pub(super) fn side(&self) -> Option<Side> {
        match self {
            Self::Malformed(_)
            | Self::Connect
            | Self::Trace
            | Self::Target(_)
            | Self::Redirect { .. }
            | Self::NoRoute
            | Self::Misdirected
            | Self::AmbiguousPath
            | Self::OtherUpgrade
            | Self::WebSocketNotAllowed
            | Self::Handshake(_)
            | Self::Origin(_)
            | Self::Limit {
                refusal: Refusal::ClientRate { .. } | Refusal::ClientFull | Refusal::ClientExchanges,
                ..
            }
            | Self::Upstream(UpstreamError::RequestBody(_)) => Some(Side::Downstream),
            Self::Upstream(_) | Self::Accept(_) | Self::UnaskedSwitch | Self::SwitchLost => Some(Side::Upstream),
            Self::Draining { .. } | Self::Limit { .. } | Self::Loop | Self::MissingFact(_) => None,
        }
    }

    /// A fixed word for logs and counters.
    pub(super) fn rule(&self) -> &'static str {
        match self {
            Self::Malformed(Malformed::Framing(error)) => error.rule(),
            Self::Malformed(Malformed::Slow(_)) => "head-timeout",
            Self::Connect => "connect",
            Self::Trace => "trace",
            Self::Target(error) => error.rule(),
            Self::Redirect { .. } => "redirect",
            Self::NoRoute => "no-route",
            Self::Misdirected => "misdirected",
            Self::AmbiguousPath => "ambiguous-path",
            Self::OtherUpgrade => "other-upgrade",
            Self::WebSocketNotAllowed => "websocket-not-allowed",
            Self::Handshake(error) => error.rule(),
            Self::Origin(error) => error.rule(),
            Self::Draining { .. } => "draining",
            Self::Limit { refusal, .. } => match refusal {
                Refusal::ClientRate { .. } => "client-rate",
                Refusal::ClientFull => "client-full",
                Refusal::OriginFull => "origin-full",
                Refusal::RouteFull => "route-full",
                Refusal::RouteRate => "route-rate",
                Refusal::ClientExchanges => "client-exchanges",
                Refusal::Exchanges => "exchanges",
                Refusal::OpenFiles => "open-files",
            },
            Self::Loop => "loop",
            Self::Upstream(error) => match error {
                UpstreamError::Dial(error) => error.rule(),
                UpstreamError::ResponseTimeout(_) => "upstream-response-timeout",
                UpstreamError::WriteTimeout(_) => "upstream-write-timeout",
                UpstreamError::Interim(_) => "upstream-interim",
                UpstreamError::Framing(_) => "upstream-framing",
                UpstreamError::NoExtendedConnect => "upstream-no-websocket",
                UpstreamError::Refused(_) => "upstream-refused",
                UpstreamError::Garbage(_) => "upstream-garbage",
                UpstreamError::Closed(_) => "upstream-closed",
                UpstreamError::RequestBody(_) => "request-body",
                UpstreamError::BodyTimeout(_) => "upstream-body-timeout",
            },
            Self::Accept(error) => error.rule(),
            Self::UnaskedSwitch => "upstream-unasked-switch",
            Self::MissingFact(_) => "internal",
            Self::SwitchLost => "switch-lost",
        }
    }

    /// The message with all its causes, for the log.
    pub(super) fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            let more = error.to_string();
            if !text.ends_with(&more) {
                text.push_str(": ");
                text.push_str(&more);
            }
            cause = error.source();
        }
        text
    }
}
