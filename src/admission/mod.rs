//! Limits that hold before work is done: how many connections and WebSockets may live, and how fast new ones may come.
//!
//! Shared by all worker threads; no lock is held for longer than one look into a map.

mod connections;
mod counts;
mod exchanges;
mod rate;
mod seldom;

use std::{
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use http::HeaderValue;
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    config::{
        model::{Model, Route},
        route_limits::RouteLimits,
    },
    protocol::{
        network::{ClientPrefixes, Network},
        origin::Origin,
    },
};
pub use connections::{ClientConnections, ClientPlace};
use counts::{Counted, Counts};
pub use exchanges::{ClientExchanges, ExchangeBounds, ExchangeLimits, ExchangePlace};
use rate::{ClientRate, RouteRate};
pub use seldom::Seldom;

/// Why one more WebSocket or request is refused.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Refusal {
    /// Its client network asks too often.
    #[error("too many WebSocket handshakes from this client network")]
    ClientRate {
        /// How long it is until the next one may come.
        wait: Duration,
    },
    /// Its client network has as many as it may have.
    #[error("this client network has as many WebSockets here as it may have")]
    ClientFull,
    /// Its origin has as many as it may have.
    #[error("this origin has as many WebSockets here as it may have")]
    OriginFull,
    /// The route has as many as it may have.
    #[error("no room for another WebSocket here")]
    RouteFull,
    /// More come to the route than it takes.
    #[error("too many WebSocket handshakes here at the moment")]
    RouteRate,
    /// Its client network has `limits.max_exchanges_per_client` concurrent requests.
    #[error("too many concurrent requests from this client network")]
    ClientExchanges,
    /// The process has `limits.max_exchanges` concurrent requests.
    #[error("too many concurrent requests")]
    Exchanges,
    /// Exchanges and live WebSockets use all sockets to upstreams that the limit of open files allows.
    #[error("too many upstream connections: the limit of open files is reached")]
    OpenFiles,
}

/// The limits of all routes that have some, and what is counted for them. Clones share one.
#[derive(Clone, Debug)]
pub struct Admission {
    /// Ordered by [`address`].
    gates: Arc<[Gate]>,
    prefixes: ClientPrefixes,
}

/// Where a route of the config lies in memory; its gate keeps it there.
fn address(route: &Route) -> usize {
    std::ptr::from_ref(route).addr()
}

/// A place among the live WebSockets of a route; free again when this is dropped.
#[derive(Debug)]
pub struct Slot {
    _route: Option<OwnedSemaphorePermit>,
    _client: Option<Counted<Network>>,
    _origin: Option<Counted<u64>>,
}

impl Admission {
    /// With nothing counted yet.
    pub fn new(model: &Model) -> Self {
        let limited = model.routes.all().iter().filter(|route| route.limits != RouteLimits::default());
        let mut gates: Vec<Gate> = limited.map(Gate::new).collect();
        gates.sort_unstable_by_key(|gate| address(&gate.route));
        Self { gates: gates.into(), prefixes: model.limits.client_prefixes }
    }

    /// Whether no route has limits.
    pub fn is_unlimited(&self) -> bool {
        self.gates.is_empty()
    }

    /// Lets one more WebSocket in, and gives it its place where places are counted.
    ///
    /// `client` is `None` for who came over a Unix socket: its limits per client network do not apply there. Whoever
    /// can open that socket was let in by its permissions, and stands for many clients when it does not name them.
    /// Without an origin, it is counted with all others that have none, so that leaving it out gains nothing.
    ///
    /// # Errors
    /// The narrowest limit that is reached: the client's before the origin's before the route's. The route's rate is
    /// asked last, so that nobody uses it up who is not let in.
    pub fn admit(
        &self,
        route: &Route,
        client: Option<IpAddr>,
        origin: Option<&HeaderValue>,
    ) -> Result<Option<Slot>, Refusal> {
        let at = self.gates.binary_search_by_key(&address(route), |gate| address(&gate.route));
        let Some(gate) = at.ok().and_then(|at| self.gates.get(at)) else { return Ok(None) };
        let client = client.map(|client| self.prefixes.network(client));
        gate.admit(client, origin).map(Some)
    }
}

/// The limits of one route.
#[derive(Debug)]
struct Gate {
    route: Arc<Route>,
    client_rate: Option<ClientRate>,
    clients: Option<Share<Network>>,
    origins: Option<Share<u64>>,
    places: Option<Arc<Semaphore>>,
    route_rate: Option<RouteRate>,
    /// What makes an origin a number: it may be as long as a request head, and is kept as long as the WebSocket lives.
    /// Nobody outside can tell which two would come to the same one.
    hasher: RandomState,
}

/// The most that one of many may have, and how many each has.
#[derive(Debug)]
struct Share<K> {
    most: usize,
    counts: Counts<K>,
}

impl<K> Share<K> {
    fn new(most: usize) -> Self {
        Self { most, counts: Counts::default() }
    }
}

impl Gate {
    fn new(route: &Arc<Route>) -> Self {
        let limits = &route.limits;
        Self {
            route: Arc::clone(route),
            client_rate: limits.client_rate.map(ClientRate::new),
            clients: limits.websockets_per_client.map(Share::new),
            origins: limits.websockets_per_origin.map(Share::new),
            places: limits.websockets.map(|most| Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS)))),
            route_rate: limits.rate.map(RouteRate::new),
            hasher: RandomState::new(),
        }
    }

    fn admit(&self, client: Option<Network>, origin: Option<&HeaderValue>) -> Result<Slot, Refusal> {
        if let (Some(rate), Some(client)) = (&self.client_rate, client) {
            rate.check(client).map_err(|wait| Refusal::ClientRate { wait })?;
        }
        let enter_client = |share: &Share<Network>| {
            let entered = client.map(|client| share.counts.enter(client, share.most).ok_or(Refusal::ClientFull));
            entered.transpose()
        };
        let enter_origin =
            |share: &Share<u64>| share.counts.enter(self.origin(origin), share.most).ok_or(Refusal::OriginFull);
        let slot = Slot {
            _client: self.clients.as_ref().map(enter_client).transpose()?.flatten(),
            _origin: self.origins.as_ref().map(enter_origin).transpose()?,
            _route: self
                .places
                .as_ref()
                .map(|places| Arc::clone(places).try_acquire_owned().map_err(|_| Refusal::RouteFull))
                .transpose()?,
        };
        match &self.route_rate {
            Some(rate) if !rate.admits() => Err(Refusal::RouteRate),
            _ => Ok(slot),
        }
    }

    /// The same number for every spelling of an origin.
    fn origin(&self, origin: Option<&HeaderValue>) -> u64 {
        let parsed = origin.and_then(|origin| origin.to_str().ok()).and_then(|text| Origin::parse(text).ok());
        match parsed {
            Some(parsed) => self.hasher.hash_one(parsed),
            None => self.hasher.hash_one(origin.map(HeaderValue::as_bytes)),
        }
    }
}

#[cfg(test)]
mod tests;
