//! Finds the route for a host and path.
//!
//! Reads `Target`, `Connection`. Writes `MatchedRoute`. Refuses with 404, with 400 where a lenient reader of the path
//! would have come to another route, and with 421 where the TLS handshake was for another one.

use std::sync::Arc;

use tracing::Span;

use super::{
    Request,
    check::Check,
    error::ProxyError,
    facts::{self, MatchedRoute},
};
use crate::{
    config::model::{PathReading, Route, Routes},
    downstream::Connection,
    protocol::request_target::Target,
};

#[derive(Clone, Debug)]
pub(super) struct MatchRoute(pub(super) Arc<Routes>);

impl Check for MatchRoute {
    fn check(&self, request: &mut Request) -> Result<(), ProxyError> {
        let target: Arc<Target> = facts::expect(request.extensions())?;
        let route = find(&self.0, &target)?;
        let connection: Arc<Connection> = facts::expect(request.extensions())?;
        let server_name = connection.tls.as_ref().and_then(|tls| tls.server_name.as_deref());
        if is_misdirected(&self.0, route, &target, server_name) {
            return Err(ProxyError::Misdirected);
        }
        Span::current().record("route", route.name.as_str()).record("upstream", route.upstream.name.as_str());
        request.extensions_mut().insert(MatchedRoute(Arc::clone(route)));
        Ok(())
    }
}

/// Whether the TLS handshake named a host of another route (RFC 9110 §7.4).
///
/// Whoever stands between may have looked at that name alone, and let pass what it would not have let pass for this one.
fn is_misdirected(routes: &Routes, route: &Arc<Route>, target: &Target, server_name: Option<&str>) -> bool {
    let Some(name) = server_name else { return false };
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    routes.find(&name, target.path.matched()).is_some_and(|other| !Arc::ptr_eq(other, route))
}

/// Compares the routes of all spellings of the path, unless its upstream reads paths as they are written.
///
/// A path without a route of its own goes nowhere. It is ambiguous where a spelling has a route, so that its sender learns
/// why that route was not taken.
fn find<'a>(routes: &'a Routes, target: &Target) -> Result<&'a Arc<Route>, ProxyError> {
    let host = target.route_host();
    let literal = |route: &Arc<Route>| route.upstream.paths == PathReading::Literal;
    let route = routes.find(host, target.path.matched());
    if route.is_some_and(literal) {
        return route.ok_or(ProxyError::NoRoute);
    }
    for reading in target.path.readings() {
        let same = match (routes.find(host, reading), route) {
            (Some(other), Some(route)) => Arc::ptr_eq(other, route),
            (None, None) => true,
            (Some(other), None) => literal(other),
            (None, Some(_)) => false,
        };
        if !same {
            return Err(ProxyError::AmbiguousPath);
        }
    }
    route.ok_or(ProxyError::NoRoute)
}

#[cfg(test)]
#[path = "match_route_tests.rs"]
mod tests;
