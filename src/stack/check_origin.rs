//! Refuses requests whose `Origin` the route does not list (RFC 6455 §10.2).
//!
//! Reads `MatchedRoute`, `Intent`, `Opening`, `Target`, `Connection`, `Client`. Writes nothing. Refuses with 403.

use std::sync::Arc;

use tokio::time::Instant;

use super::{
    Request,
    check::Check,
    error::ProxyError,
    facts::{self, Client, MatchedRoute},
    shown,
};
use crate::{
    downstream::Connection,
    protocol::{
        log_text::Escaped,
        log_throttle::{LogThrottles, WarningKey},
        origin::{ApplyTo, Mode, Origin, OriginRefusal},
        request_target::Target,
        upgrade::Intent,
    },
};

#[derive(Clone, Debug)]
pub(super) struct CheckOrigin(pub(super) Arc<LogThrottles<WarningKey>>);

impl Check for CheckOrigin {
    fn check(&self, request: &mut Request) -> Result<(), ProxyError> {
        let MatchedRoute(route) = facts::expect(request.extensions())?;
        let intent: Intent = facts::expect(request.extensions())?;
        if intent != Intent::WebSocket && route.origin.apply_to != ApplyTo::All {
            return Ok(());
        }
        let own = client_facing(request)?;
        let fields = facts::origin_fields(request.extensions());
        match route.origin.check(request.headers(), &own, fields) {
            Err(refusal) if route.origin.mode == Mode::Report => {
                self.report(&route.name, refusal, &shown::origin(request.headers(), fields));
                Ok(())
            }
            Err(refusal) => {
                // The refusal's one event is written further out and shows this.
                tracing::Span::current()
                    .record("origin", tracing::field::display(shown::origin(request.headers(), fields)))
                    .record("own_origin", tracing::field::display(Escaped(&own)));
                Err(refusal.into())
            }
            Ok(()) => Ok(()),
        }
    }
}

impl CheckOrigin {
    /// Any web page can cause this event: it is a warning at most once per interval, and info in between.
    fn report(&self, route: &str, refusal: OriginRefusal, origin: &str) {
        const MESSAGE: &str = "origin would be refused (mode = report)";
        let rule = refusal.rule();
        match self.0.note((rule, Box::from(route)), Instant::now().into_std()) {
            Some(suppressed) => tracing::warn!(%route, rule, %origin, suppressed, "{MESSAGE}"),
            None => tracing::info!(%route, rule, %origin, "{MESSAGE}"),
        }
    }
}

/// The origin under which the client reached us, as far as a trusted proxy in front tells.
///
/// A balancer that sets no such field passes on the client's. No page can make a browser send one with its WebSocket,
/// and whoever is no browser can write any `Origin` too.
fn client_facing(request: &Request) -> Result<Origin, ProxyError> {
    let connection: Arc<Connection> = facts::expect(request.extensions())?;
    let target: Arc<Target> = facts::expect(request.extensions())?;
    let Client { told, .. } = facts::expect(request.extensions())?;
    let scheme = told.scheme.unwrap_or(connection.scheme());
    let authority = told.host.as_ref().unwrap_or(&target.authority);
    Ok(Origin::of(scheme, authority.host(), authority.port()))
}
