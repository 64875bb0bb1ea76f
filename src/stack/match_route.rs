//! Finds the route for a host and path.
//!
//! Reads `Target`, `Connection`. Writes `MatchedRoute`. Refuses with 404, with 400 where a lenient reader of the path
//! would have come to another route, and with 421 where the TLS handshake was for another one and its certificate does not
//! cover the host.

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
    net::foreign_host::HostListeners,
    protocol::request_target::Target,
};

#[derive(Clone, Debug)]
pub(super) struct MatchRoute {
    pub(super) routes: Arc<Routes>,
    pub(super) listeners: HostListeners,
}

impl Check for MatchRoute {
    fn check(&self, request: &mut Request) -> Result<(), ProxyError> {
        let target: Arc<Target> = facts::expect(request.extensions())?;
        let route = find(&self.routes, &target)?;
        let connection: Arc<Connection> = facts::expect(request.extensions())?;
        let tls = connection.tls.as_ref();
        if is_foreign(&self.routes, route, &target, tls.and_then(|tls| tls.server_name.as_deref()))
            && !tls
                .zip(connection.offer.as_ref())
                .is_some_and(|(tls, own)| self.listeners.covers(own, tls, target.route_host()))
        {
            return Err(ProxyError::Misdirected);
        }
        Span::current().record("route", route.name.as_str()).record("upstream", route.upstream.name.as_str());
        request.extensions_mut().insert(MatchedRoute(Arc::clone(route)));
        Ok(())
    }
}

/// Whether the TLS handshake named a host of another route (RFC 9110 §7.4).
///
/// A filter in front may have checked the SNI only. Browsers send such requests on an HTTP/2 connection whose
/// certificate covers both hosts (RFC 9113 §9.1.1), and do not retry a WebSocket after a 421.
fn is_foreign(routes: &Routes, route: &Arc<Route>, target: &Target, server_name: Option<&str>) -> bool {
    let Some(name) = server_name else { return false };
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    routes.find(&name, target.path.matched()).is_some_and(|other| !Arc::ptr_eq(other, route))
}

/// Compares the routes of all spellings of the path, unless its upstream reads paths as they are written.
///
/// A path without a route is ambiguous if one of its spellings has a route, so that the response explains why that
/// route was not used.
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
