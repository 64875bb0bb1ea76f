//! The tower stack: every request passes these layers from the outside in. Start reading at [`build`].

mod admit;
mod answer_challenge;
mod bound_exchanges;
mod chance;
mod check;
mod check_handshake;
mod check_origin;
mod check_request;
mod detect_upgrade;
mod error;
mod facts;
mod forward;
mod identify_client;
mod limit;
mod match_route;
mod observe;
mod pace;
mod redirect;
mod respond;
mod rewrite;
mod shown;
mod switch;
mod verify_accept;

use std::{
    convert::Infallible,
    sync::{Arc, atomic::AtomicU64},
};

use tower::{Service, ServiceBuilder};

use crate::{
    admission::{Admission, ExchangeLimits},
    config::model::Model,
    drain::Tracker,
    net::{challenges::Challenges, foreign_host::HostListeners},
    protocol::{
        body::Body,
        forwarded,
        log_throttle::{LogThrottles, WarningKey},
    },
    registry::Registry,
    upstream::Exchanges,
};

type Request = http::Request<Body>;
type Response = http::Response<Body>;

/// What all stacks of a process share.
#[derive(Clone, Debug)]
pub struct LiveParts {
    /// Starts and counts tasks.
    pub tracker: Tracker,
    /// Where live WebSockets are listed.
    pub registry: Registry,
    /// The limits of the routes, and what is counted for them.
    pub admission: Admission,
    /// The limits on concurrent exchanges, and their counts.
    pub exchange_limits: ExchangeLimits,
    /// The id of the next request.
    pub next_id: Arc<AtomicU64>,
    /// Which warnings were logged lately.
    pub warnings: Arc<LogThrottles<WarningKey>>,
    /// What ACME servers may ask for.
    pub challenges: Arc<Challenges>,
    /// Which listener serves a host.
    pub listeners: HostListeners,
}

/// The finished stack, by what it does; its type would name every layer.
pub trait Stack:
    Service<Request, Response = Response, Error = Infallible, Future: Send> + Clone + Send + Sync + 'static
{
}

impl<S> Stack for S where
    S: Service<Request, Response = Response, Error = Infallible, Future: Send> + Clone + Send + Sync + 'static
{
}

/// Puts the stack together.
///
/// It cannot fail: every error has become a response.
pub fn build(model: &Model, exchanges: Exchanges, live: &LiveParts) -> impl Stack {
    let identify_client = identify_client::IdentifyClient::new(&model.trusted_proxies, model.trusted_fields);
    ServiceBuilder::new()
        // Outermost, so that every answer has an id and a line in the log.
        .layer(observe::ObserveLayer {
            options: model.log,
            next_id: Arc::clone(&live.next_id),
            warnings: Arc::clone(&live.warnings),
        })
        // Everything further in may fail; here it becomes a response.
        .layer(respond::RespondLayer)
        // Before the first refusal, which has a line in the log; the stand-in of what was malformed tells nothing.
        .layer(check::CheckLayer(identify_client))
        // What was malformed has a stand-in's head: nothing may look at the rest of it before this.
        .layer(check::CheckLayer(check_request::CheckRequest))
        // Before any route: a CA asks for hosts that may have none, and follows no rule of theirs.
        .layer(answer_challenge::AnswerChallengeLayer(Arc::clone(&live.challenges)))
        // Before any route: what such a listener takes is for no upstream.
        .layer(check::CheckLayer(redirect::Redirect))
        // Every policy hangs on the route.
        .layer(check::CheckLayer(match_route::MatchRoute {
            routes: Arc::new(model.routes.clone()),
            listeners: live.listeners.clone(),
        }))
        .layer(check::CheckLayer(detect_upgrade::DetectUpgrade))
        // A stop takes no new WebSocket, whatever else is right or wrong with it.
        .layer(check::CheckLayer(admit::Admit { tracker: live.tracker.clone(), spread: model.drain.spread }))
        // Both checks come before anything upstream is dialled.
        .layer(check::CheckLayer(check_handshake::CheckHandshake))
        .layer(check::CheckLayer(check_origin::CheckOrigin(Arc::clone(&live.warnings))))
        // Also after both, and before the limits of the route count a request that gets no socket.
        .layer(bound_exchanges::BoundExchangesLayer(live.exchange_limits.clone()))
        // After both: what they refuse costs no more than its answer, and takes nobody's place or turn. Counted before
        // them, a page of another site could use up its visitors' turns, and a crowd of bad handshakes a route's.
        .layer(check::CheckLayer(limit::Limit(live.admission.clone())))
        // Outside the verification: only a verified 101 may switch.
        .layer(switch::SwitchLayer { tracker: live.tracker.clone(), registry: live.registry.clone() })
        .layer(verify_accept::VerifyAcceptLayer)
        // Innermost but one: the checks above have seen the request as the client wrote it.
        .layer(rewrite::RewriteLayer { via: Arc::new(forwarded::Via::new(&model.via)) })
        .service(forward::Forward { exchanges })
}
