//! Finds the route for a host and path.
//!
//! Reads `Target`. Writes `MatchedRoute`. Refuses with 404, or 400 where a lenient reader of the path would have
//! come to another route.

use std::sync::Arc;

use tracing::Span;

use super::{
    Request,
    check::Check,
    error::ProxyError,
    facts::{self, MatchedRoute},
};
use crate::{
    config::model::{Route, Routes},
    protocol::request_target::Target,
};

#[derive(Clone, Debug)]
pub(super) struct MatchRoute(pub(super) Arc<Routes>);

impl Check for MatchRoute {
    fn check(&self, request: &mut Request) -> Result<(), ProxyError> {
        let target: Arc<Target> = facts::expect(request.extensions())?;
        let route = find(&self.0, &target)?;
        Span::current().record("route", route.name.as_str()).record("upstream", route.upstream.name.as_str());
        request.extensions_mut().insert(MatchedRoute(Arc::clone(route)));
        Ok(())
    }
}

fn find<'a>(routes: &'a Routes, target: &Target) -> Result<&'a Arc<Route>, ProxyError> {
    let host = target.route_host();
    let route = routes.find(host, target.path.matched());
    for reading in target.path.readings() {
        let same = match (routes.find(host, reading), route) {
            (Some(other), Some(route)) => Arc::ptr_eq(other, route),
            (None, None) => true,
            _ => false,
        };
        if !same {
            return Err(ProxyError::AmbiguousPath);
        }
    }
    route.ok_or(ProxyError::NoRoute)
}
