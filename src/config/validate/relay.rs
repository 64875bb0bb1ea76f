//! The part of a route that concerns its relays, and how a stop goes.

use std::time::Duration;

use super::{optional, span};
use crate::{
    config::{
        error::Problems,
        model::Drain,
        raw,
        reader::{CloseCode, Given, Size, Span},
        relay_policy::{Excess, Frames, Lifetime, Ping, Policy, Rate},
    },
    protocol::websocket::close,
};

/// Takes the relay's keys out of a route's table.
pub(super) fn policy(raw: &mut raw::RouteTable, problems: &mut Problems<'_>) -> Policy {
    let default = Policy::default();
    let frames = match raw.frames.take().map(|given| given.value) {
        Some(raw::FramesWord::Observe) => Frames::Observe,
        Some(raw::FramesWord::Off) => Frames::Off,
        Some(raw::FramesWord::Enforce) | None => Frames::Enforce,
    };
    if frames == Frames::Off {
        let by_frames: [(&str, Option<&std::ops::Range<usize>>); 3] = [
            ("max_frame_size", raw.max_frame_size.as_ref().map(|given| &given.span)),
            ("max_message_size", raw.max_message_size.as_ref().map(|given| &given.span)),
            ("ping", raw.ping.as_ref().map(|given| &given.span)),
        ];
        for (key, given) in by_frames {
            if let Some(span) = given {
                problems.at(span, format!("`{key}` needs to know frames; leave out `frames = \"off\"` or this"));
            }
        }
    }
    Policy {
        frames,
        max_frame_size: limit(raw.max_frame_size.take(), problems),
        max_message_size: limit(raw.max_message_size.take(), problems),
        idle_timeout: optional(raw.idle_timeout.take(), default.idle_timeout),
        half_close_timeout: optional(raw.half_close_timeout.take(), default.half_close_timeout),
        close_timeout: span(raw.close_timeout.take(), "5s", default.close_timeout, problems),
        ping: raw.ping.take().map(|given| ping(given.value, problems)),
        rate: raw.rate.take().map(|given| rate(given, problems)),
        max_lifetime: lifetime(raw.max_lifetime.take(), raw.max_lifetime_jitter.take(), problems),
        upstream_lost_code: upstream_lost_code(raw.upstream_lost_code.take(), default.upstream_lost_code, problems),
    }
}

fn limit(given: Option<Given<Size>>, problems: &mut Problems<'_>) -> u64 {
    let Some(Given { value: Size(bytes), span }) = given else { return u64::MAX };
    if bytes == 0 {
        problems.at(&span, "no message would pass; leave it out for no limit");
    }
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

fn ping(raw: raw::PingTable, problems: &mut Problems<'_>) -> Ping {
    let to = raw.to.map_or(raw::PingToWord::Client, |given| given.value);
    Ping {
        every: span(raw.every, "30s", Duration::from_secs(30), problems),
        timeout: span(raw.timeout, "10s", Duration::from_secs(10), problems),
        client: to != raw::PingToWord::Upstream,
        upstream: to != raw::PingToWord::Client,
    }
}

fn rate(given: Given<raw::RateTable>, problems: &mut Problems<'_>) -> Rate {
    let Given { value: raw, span } = given;
    let positive = |given: Option<Given<u64>>, problems: &mut Problems<'_>| {
        given.and_then(|given| {
            if given.value == 0 {
                problems.at(&given.span, "nothing would ever pass; leave it out for no limit");
            }
            (given.value > 0).then_some(given.value)
        })
    };
    let wide = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    if raw.bytes.is_none() && raw.messages.is_none() {
        problems.at(&span, "`rate` limits nothing; give it `bytes`, `messages` or both");
    }
    let bytes = raw.bytes.map(|given| Given { value: wide(given.value.0), span: given.span });
    let messages = raw.messages.map(|given| Given { value: wide(given.value), span: given.span });
    Rate {
        bytes: positive(bytes, problems),
        messages: positive(messages, problems),
        excess: match raw.excess.map(|given| given.value) {
            Some(raw::ExcessWord::Close) => Excess::Close,
            Some(raw::ExcessWord::Hold) | None => Excess::Hold,
        },
    }
}

fn lifetime(limit: Option<Given<Span>>, jitter: Option<Given<Span>>, problems: &mut Problems<'_>) -> Option<Lifetime> {
    let limit = optional(limit, None);
    let Some(Given { value: Span(jitter), span }) = jitter else {
        return limit.map(|limit| Lifetime { limit, jitter: Duration::ZERO });
    };
    let jitter = jitter.unwrap_or_default();
    match limit {
        Some(limit) if jitter < limit => Some(Lifetime { limit, jitter }),
        Some(_) => {
            problems.at(&span, "the jitter must be shorter than `max_lifetime`");
            None
        }
        None => {
            problems.at(&span, "the jitter does nothing without `max_lifetime`; add that or leave this out");
            None
        }
    }
}

fn upstream_lost_code(given: Option<Given<CloseCode>>, default: u16, problems: &mut Problems<'_>) -> u16 {
    let Some(Given { value: CloseCode(code), span }) = given else { return default };
    if code == close::GOING_AWAY {
        problems
            .at(&span, "Close code 1001 is not allowed for a lost upstream; expected 1011, 1012, 1013 or 4000 to 4999");
    }
    code
}

pub(super) fn drain(raw: raw::DrainTable, problems: &mut Problems<'_>) -> Drain {
    let grace = span(raw.grace, "30s of grace", Duration::from_secs(30), problems);
    let spread_at = raw.spread.as_ref().map(|given| given.span.clone());
    let spread = match raw.spread {
        None => Duration::from_secs(10).min(grace / 2),
        Some(Given { value: Span(spread), .. }) => spread.unwrap_or_default(),
    };
    if let Some(at) = spread_at.filter(|_| spread > grace) {
        problems.at(&at, "the spread is longer than `grace`: the last clients would be cut unasked; make it shorter");
    }
    let code = raw.code.map_or(close::GOING_AWAY, |Given { value: CloseCode(code), .. }| code);
    Drain { grace, spread, code }
}
