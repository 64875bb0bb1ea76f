//! Limits on concurrent exchanges: plain requests and opening handshakes, each of which uses a socket to an upstream.
//!
//! One HTTP/2 connection carries many of them, so limits on connections do not limit the descriptors that they use.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
};

use super::{Refusal, counts::give_back, seldom::Seldom};
use crate::{
    config::model::Model,
    protocol::{
        address::PeerAddress,
        client_address::TrustedPeer,
        network::{ClientPrefixes, Network},
    },
};

/// The numbers behind [`ExchangeLimits`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExchangeBounds {
    /// Maximum concurrent exchanges in the process.
    pub exchanges: usize,
    /// Maximum concurrent exchanges of one client network.
    pub per_client: usize,
    /// Maximum sockets to upstreams that exchanges and live WebSockets take together.
    pub sockets: usize,
}

/// Counts the concurrent exchanges in the process. Clones share the counts.
///
/// Without contention an exchange costs no lock: a client's count is looked up once per connection.
#[derive(Clone, Debug)]
pub struct ExchangeLimits(Arc<Handle>);

/// One for each worker thread: its reference count changes with every exchange and stays in that core's cache.
#[derive(Debug)]
struct Handle(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    bounds: ExchangeBounds,
    under_way: AtomicUsize,
    /// Live WebSockets that hold a socket to an upstream of their own.
    websockets: AtomicUsize,
    clients: Arc<Clients>,
    prefixes: ClientPrefixes,
    trusted: Vec<TrustedPeer>,
    refused: Seldom,
}

type Map = HashMap<Network, Weak<ClientCount>>;

/// The counts of all client networks that have a connection or an exchange, which bounds their number.
#[derive(Debug, Default)]
struct Clients(Mutex<Map>);

impl Clients {
    fn lock(&self) -> MutexGuard<'_, Map> {
        // Nothing under the lock can leave the map half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct ClientCount {
    under_way: AtomicUsize,
    network: Network,
    clients: Arc<Clients>,
}

impl Drop for ClientCount {
    fn drop(&mut self) {
        let mut clients = self.clients.lock();
        // A new count may have taken the place of this one since its last user left.
        if clients.get(&self.network).is_some_and(|count| count.strong_count() == 0) {
            clients.remove(&self.network);
        }
        give_back(&mut clients);
    }
}

/// The exchanges of one client network. Clones share the count. The default counts nothing.
#[derive(Clone, Debug, Default)]
pub struct ClientExchanges(Option<Arc<ClientCount>>);

impl ExchangeLimits {
    /// Limits with nothing counted yet.
    pub fn new(bounds: ExchangeBounds, model: &Model) -> Self {
        Self(Arc::new(Handle(Arc::new(Shared {
            bounds,
            under_way: AtomicUsize::new(0),
            websockets: AtomicUsize::new(0),
            clients: Arc::default(),
            prefixes: model.limits.client_prefixes,
            trusted: model.trusted_proxies.clone(),
            refused: Seldom::default(),
        }))))
    }

    /// The same counts, for another thread.
    #[must_use]
    pub fn for_worker(&self) -> Self {
        Self(Arc::new(Handle(Arc::clone(&self.0.0))))
    }

    /// The count of a client's network.
    ///
    /// Peers in `trusted_proxies` are exempt, because they carry many clients, and so are peers over a Unix-domain
    /// socket. The clients that a trusted proxy names are not.
    pub fn client(&self, client: PeerAddress) -> ClientExchanges {
        let shared = &self.0.0;
        let Some(address) = client.ip() else { return ClientExchanges(None) };
        if TrustedPeer::any(&shared.trusted, client) {
            return ClientExchanges(None);
        }
        let network = shared.prefixes.network(address);
        let mut clients = shared.clients.lock();
        if let Some(count) = clients.get(&network).and_then(Weak::upgrade) {
            return ClientExchanges(Some(count));
        }
        let under_way = AtomicUsize::new(0);
        let count = Arc::new(ClientCount { under_way, network, clients: Arc::clone(&shared.clients) });
        clients.insert(network, Arc::downgrade(&count));
        ClientExchanges(Some(count))
    }

    /// Takes a place for one more exchange of `client`.
    ///
    /// # Errors
    /// The client's limit before that of all: a client at its own limit is not told that the server is full.
    pub fn enter(&self, client: &ClientExchanges) -> Result<ExchangePlace, Refusal> {
        let ExchangeBounds { exchanges, per_client, sockets } = self.0.0.bounds;
        // Each place that was counted is given back by its drop, also when the next limit refuses.
        let mut place =
            ExchangePlace { limits: self.clone(), client: None, counted: false, switched: AtomicBool::new(false) };
        if let Some(count) = &client.0 {
            if count.under_way.fetch_add(1, Relaxed) >= per_client {
                count.under_way.fetch_sub(1, Relaxed);
                return Err(self.refuse(Refusal::ClientExchanges));
            }
            place.client = Some(Arc::clone(count));
        }
        let before = self.0.0.under_way.fetch_add(1, Relaxed);
        place.counted = true;
        if before >= exchanges {
            return Err(self.refuse(Refusal::Exchanges));
        }
        if before.saturating_add(self.0.0.websockets.load(Relaxed)) >= sockets {
            return Err(self.refuse(Refusal::OpenFiles));
        }
        Ok(place)
    }

    fn refuse(&self, refusal: Refusal) -> Refusal {
        let shared = &self.0.0;
        if let Some(refused) = shared.refused.note() {
            let ExchangeBounds { exchanges, per_client, sockets } = shared.bounds;
            let (under_way, websockets) = (shared.under_way.load(Relaxed), shared.websockets.load(Relaxed));
            let limit = match refusal {
                Refusal::ClientExchanges => per_client,
                Refusal::OpenFiles => sockets,
                _ => exchanges,
            };
            tracing::warn!(
                limit,
                in_flight = under_way,
                websockets,
                refused,
                "concurrent request limit reached: {refusal}"
            );
        }
        refusal
    }
}

/// The place of an exchange, and from its switch on that of a live WebSocket. Given back when it is dropped.
#[derive(Debug)]
pub struct ExchangePlace {
    limits: ExchangeLimits,
    client: Option<Arc<ClientCount>>,
    counted: bool,
    switched: AtomicBool,
}

impl ExchangePlace {
    /// Ends the exchange of an opening handshake; its socket stays counted as that of a live WebSocket.
    pub fn switch(&self) {
        if !self.switched.swap(true, Relaxed) {
            // In this order, so that the socket is counted at every moment.
            self.limits.0.0.websockets.fetch_add(1, Relaxed);
            self.end();
        }
    }

    fn end(&self) {
        if let Some(count) = &self.client {
            count.under_way.fetch_sub(1, Relaxed);
        }
        if self.counted {
            self.limits.0.0.under_way.fetch_sub(1, Relaxed);
        }
    }
}

impl Drop for ExchangePlace {
    fn drop(&mut self) {
        if *self.switched.get_mut() {
            self.limits.0.0.websockets.fetch_sub(1, Relaxed);
        } else {
            self.end();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn limits(exchanges: usize, per_client: usize, sockets: usize) -> ExchangeLimits {
        let text = "trusted_proxies = [\"10.0.0.0/8\"]\n[[listener]]\nlisten = \"127.0.0.1:0\"\n[[route]]\n\
                    upstream = \"u\"\n[upstream.u]\nurl = \"builtin:echo\"\n";
        let model = crate::config::parse(text, Path::new("proxy.toml")).unwrap();
        ExchangeLimits::new(ExchangeBounds { exchanges, per_client, sockets }, &model)
    }

    fn peer(text: &str) -> PeerAddress {
        PeerAddress::Ip(text.parse().unwrap())
    }

    fn counts(limits: &ExchangeLimits) -> (usize, usize, usize) {
        let shared = &limits.0.0;
        (shared.under_way.load(Relaxed), shared.websockets.load(Relaxed), shared.clients.lock().len())
    }

    #[test]
    fn a_client_network_has_its_own_limit_below_that_of_all() {
        let limits = limits(3, 2, 100);
        let one = limits.client(peer("2001:db8::1"));
        let same = limits.for_worker().client(peer("2001:db8::2"));
        let held = [limits.enter(&one).unwrap(), limits.enter(&same).unwrap()];
        assert_eq!(limits.enter(&one).unwrap_err(), Refusal::ClientExchanges);
        let other = limits.client(peer("192.0.2.1"));
        let _held = limits.enter(&other).unwrap();
        assert_eq!(limits.enter(&other).unwrap_err(), Refusal::Exchanges);
        drop(held);
        let _free = limits.enter(&one).unwrap();
        assert_eq!(counts(&limits).0, 2);
    }

    #[test]
    fn a_refusal_keeps_no_place() {
        let limits = limits(1, 1, 100);
        let client = limits.client(peer("192.0.2.1"));
        let held = limits.enter(&client).unwrap();
        for last in 0..10 {
            let other = limits.client(peer(&format!("192.0.2.{last}")));
            assert!(limits.enter(&client).is_err() && limits.enter(&other).is_err());
        }
        assert_eq!(counts(&limits).0, 1);
        drop(held);
        drop(limits.enter(&client).unwrap());
        drop(client);
        assert_eq!(counts(&limits), (0, 0, 0));
    }

    #[test]
    fn trusted_proxies_and_unix_peers_are_exempt_but_not_from_the_limit_of_all() {
        let limits = limits(6, 1, 100);
        let exempt = [peer("10.1.2.3"), peer("::ffff:10.1.2.3"), PeerAddress::Local];
        let each = exempt.iter().flat_map(|peer| [*peer; 2]);
        let _held: Vec<_> = each.map(|peer| limits.enter(&limits.client(peer)).unwrap()).collect();
        assert_eq!(limits.enter(&limits.client(exempt[0])).unwrap_err(), Refusal::Exchanges);
    }

    #[test]
    fn a_live_websocket_is_no_exchange_but_keeps_its_socket() {
        let limits = limits(2, 1, 2);
        let client = limits.client(peer("192.0.2.1"));
        let live = limits.enter(&client).unwrap();
        live.switch();
        live.switch();
        assert_eq!(counts(&limits), (0, 1, 1));
        let _second = limits.enter(&client).unwrap();
        let other = limits.client(peer("192.0.2.2"));
        assert_eq!(limits.enter(&other).unwrap_err(), Refusal::OpenFiles);
        drop(live);
        assert!(limits.enter(&other).is_ok());
    }

    #[test]
    fn threads_do_not_lose_count() {
        let limits = limits(4, 3, 4);
        std::thread::scope(|scope| {
            for worker in 0..4 {
                let limits = limits.for_worker();
                scope.spawn(move || {
                    for _ in 0..5_000 {
                        let client = limits.client(peer(&format!("192.0.2.{}", worker % 2)));
                        let held: Vec<_> = (0..3).filter_map(|_| limits.enter(&client).ok()).collect();
                        held.iter().step_by(2).for_each(ExchangePlace::switch);
                    }
                });
            }
        });
        assert_eq!(counts(&limits), (0, 0, 0));
    }
}
