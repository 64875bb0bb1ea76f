//! How many WebSockets a route lets in, and what counts as one client.

use std::num::NonZeroU32;

use super::number;
use crate::{
    config::{
        error::Problems,
        raw,
        reader::Given,
        route_limits::{Rate, RouteLimits},
    },
    protocol::network::ClientPrefixes,
};

/// More than fit into one machine's memory, and than it can answer in a second; a larger number is a typing mistake.
const MOST: (usize, u32) = (10_000_000, 1_000_000);

/// Reads `limits` of a route that takes WebSockets or does not.
pub(super) fn route(
    given: Option<Given<raw::RouteLimitsTable>>,
    websocket: bool,
    problems: &mut Problems<'_>,
) -> RouteLimits {
    let Some(Given { value: raw, span }) = given else { return RouteLimits::default() };
    if !websocket {
        problems.at(&span, "`limits` does nothing with `websocket = false`; leave one of them out");
    }
    RouteLimits {
        websockets: count(raw.websockets, problems),
        websockets_per_client: count(raw.websockets_per_client, problems),
        websockets_per_origin: count(raw.websockets_per_origin, problems),
        rate: rate(
            ("handshakes_per_second", raw.handshakes_per_second),
            ("handshakes_burst", raw.handshakes_burst),
            problems,
        ),
        client_rate: rate(
            ("handshakes_per_second_per_client", raw.handshakes_per_second_per_client),
            ("handshakes_burst_per_client", raw.handshakes_burst_per_client),
            problems,
        ),
    }
}

/// Reads how much of an address makes a client.
pub(super) fn client_prefixes(
    v4: Option<Given<usize>>,
    v6: Option<Given<usize>>,
    problems: &mut Problems<'_>,
) -> ClientPrefixes {
    let ClientPrefixes { v4: usual_v4, v6: usual_v6 } = ClientPrefixes::default();
    let mut bits = |given, most: u8, usual: u8| {
        let bits = number(given, 1..=usize::from(most), usize::from(usual), problems);
        u8::try_from(bits).unwrap_or(usual)
    };
    ClientPrefixes { v4: bits(v4, 32, usual_v4), v6: bits(v6, 128, usual_v6) }
}

/// A limit on how many there are; 0 lets nothing pass, which is written in another way.
pub(super) fn count(given: Option<Given<usize>>, problems: &mut Problems<'_>) -> Option<usize> {
    let span = given.as_ref().map(|given| given.span.clone())?;
    if given.as_ref().is_some_and(|given| given.value == 0) {
        problems.at(&span, "nothing would ever pass; leave it out for no limit");
        return None;
    }
    Some(number(given, 1..=MOST.0, 1, problems))
}

/// A limit whose default is another limit.
pub(super) fn count_or_default(given: Option<Given<usize>>, problems: &mut Problems<'_>) -> Option<usize> {
    let given = given?;
    if given.value == 0 {
        problems.at(&given.span, "0 would refuse every request; omit the key for the default");
        return None;
    }
    Some(number(Some(given), 1..=MOST.0, 1, problems))
}

/// A limit on how often something happens, and how often at once.
fn rate(
    (key, per_second): (&str, Option<Given<usize>>),
    (burst_key, burst): (&str, Option<Given<usize>>),
    problems: &mut Problems<'_>,
) -> Option<Rate> {
    let mut often = |given: Option<Given<usize>>| {
        let given = given?;
        let often = u32::try_from(given.value).ok().filter(|often| *often <= MOST.1);
        if given.value == 0 {
            problems.at(&given.span, "nothing would ever pass; leave it out for no limit");
        } else if often.is_none() {
            problems.at(&given.span, format!("{} is out of range; expected 1 to {}", given.value, MOST.1));
        }
        often.and_then(NonZeroU32::new)
    };
    let place = burst.as_ref().filter(|_| per_second.is_none()).map(|burst| burst.span.clone());
    let (per_second, burst) = (often(per_second), often(burst));
    if let Some(span) = place {
        problems.at(&span, format!("`{burst_key}` does nothing without `{key}`; add that or leave this out"));
    }
    let per_second = per_second?;
    Some(Rate { per_second, burst: burst.unwrap_or(per_second) })
}
