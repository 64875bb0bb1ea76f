//! What one layer learns of a request and another reads: typed request extensions.
//!
//! | fact | written by | read by |
//! |---|---|---|
//! | `Arc<Connection>`, `Malformed` | `downstream` | `check_request`, `redirect`, `check_origin`, `bound_exchanges`, `switch`, `rewrite`, `observe`, `forward` |
//! | [`RequestId`] | `observe` | `respond`, `switch`, `forward` |
//! | [`Client`] | `identify_client` | `check_origin`, `bound_exchanges`, `limit`, `switch`, `rewrite`, `forward` |
//! | `Arc<Target>` | `check_request` | `redirect`, `match_route`, `check_origin`, `rewrite` |
//! | [`MatchedRoute`] | `match_route` | every layer further in |
//! | `Intent` | `detect_upgrade` | `check_handshake`, `check_origin`, `bound_exchanges`, `limit`, `switch`, `verify_accept`, `rewrite`, `forward` |
//! | [`Opening`] | `check_handshake` | `check_origin`, `limit`, `verify_accept`, `switch` |
//! | [`Admitted`] | `limit` | `switch` |
//! | [`UpstreamSocket`] | `bound_exchanges` | `switch` |

use std::{fmt, sync::Arc};

use http::Extensions;

use super::error::ProxyError;
use crate::{
    admission::{ExchangePlace, Slot},
    config::model::Route,
    protocol::{
        address::PeerAddress,
        client_address::Told,
        origin::OriginFields,
        websocket::{OpeningHandshake, Waiver},
    },
};

/// Names one request in logs and in refusals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RequestId(pub(super) u64);

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Who the client is. One fact: with an eighth of their own, the extensions of a plain request would grow once more.
#[derive(Clone, Debug)]
pub(super) struct Client {
    /// The peer, or the client that a trusted peer names.
    pub(super) address: PeerAddress,
    /// What a trusted peer says about it.
    pub(super) told: Arc<Told>,
}

/// The route that takes the request.
#[derive(Clone, Debug)]
pub(super) struct MatchedRoute(pub(super) Arc<Route>);

/// The proof that the opening handshake was checked.
#[derive(Clone, Debug)]
pub(super) struct Opening(pub(super) Arc<OpeningHandshake>);

/// Returns the fields that carry the origin of a request. On a route with the waiver `version` an opening handshake may
/// carry it in the field of the drafts, whatever version it has.
pub(super) fn origin_fields(extensions: &Extensions) -> OriginFields {
    let is_opening = extensions.get::<Opening>().is_some();
    match extensions.get::<MatchedRoute>() {
        Some(MatchedRoute(route)) if is_opening && route.waivers.contains(Waiver::Version) => OriginFields::WithDraft,
        _ => OriginFields::Standard,
    }
}

/// The place among the live WebSockets of its route; free again when its last holder lets go.
#[derive(Clone, Debug)]
pub(super) struct Admitted(#[expect(dead_code, reason = "held, never read")] pub(super) Arc<Slot>);

/// Counts an opening handshake among the concurrent exchanges, and after its 101 the socket to the upstream.
#[derive(Clone, Debug)]
pub(super) struct UpstreamSocket(#[expect(dead_code, reason = "held, never read")] pub(super) Arc<ExchangePlace>);

/// Reads a fact that an outer layer must have written.
///
/// # Errors
/// `ProxyError::MissingFact`: the stack is put together wrongly.
pub(super) fn expect<T: Clone + Send + Sync + 'static>(extensions: &Extensions) -> Result<T, ProxyError> {
    extensions.get::<T>().cloned().ok_or(ProxyError::MissingFact(std::any::type_name::<T>()))
}
