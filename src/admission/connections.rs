//! How many connections of one client network a listener holds.

use std::sync::Arc;

use super::{
    counts::{Counted, Counts},
    seldom::Seldom,
};
use crate::{
    config::model::{Listener, Model},
    protocol::{
        address::PeerAddress,
        client_address::TrustedPeer,
        network::{ClientPrefixes, Network},
    },
};

/// The connections of each client network at one listener. Clones share one.
#[derive(Clone, Debug)]
pub struct ClientConnections(Option<Arc<Limited>>);

#[derive(Debug)]
struct Limited {
    listener: String,
    most: usize,
    counts: Counts<Network>,
    prefixes: ClientPrefixes,
    trusted: Vec<TrustedPeer>,
    refused: Seldom,
}

/// A connection's place among those of its client network; free again when the last clone is dropped.
#[derive(Clone, Debug, Default)]
pub struct ClientPlace {
    _counted: Option<Arc<Counted<Network>>>,
}

impl ClientConnections {
    /// As `listener` says; without a limit nothing is counted.
    pub fn new(listener: &Listener, model: &Model) -> Self {
        Self(listener.max_connections_per_client.map(|most| {
            Arc::new(Limited {
                listener: listener.name.clone(),
                most,
                counts: Counts::default(),
                prefixes: model.limits.client_prefixes,
                trusted: model.trusted_proxies.clone(),
                refused: Seldom::default(),
            })
        }))
    }

    /// Takes a place for one more connection of `client`; `None` when its network has as many as it may have.
    ///
    /// A trusted proxy has as many as it likes, since it brings many clients, and so has this machine over a Unix
    /// socket. Of many refusals one is logged, with their number.
    pub fn enter(&self, client: PeerAddress) -> Option<ClientPlace> {
        let (Some(limited), Some(address)) = (&self.0, client.ip()) else { return Some(ClientPlace::default()) };
        if TrustedPeer::any(&limited.trusted, client) {
            return Some(ClientPlace::default());
        }
        let network = limited.prefixes.network(address);
        let counted = limited.counts.enter(network, limited.most);
        if counted.is_none()
            && let Some(refused) = limited.refused.note()
        {
            tracing::warn!(
                listener = %limited.listener,
                client = %network.first(),
                refused,
                "max_connections_per_client reached; closing what this client opens beyond it"
            );
        }
        counted.map(|counted| ClientPlace { _counted: Some(Arc::new(counted)) })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn limited(keys: &str, top: &str) -> ClientConnections {
        let text = format!(
            "{top}\n[[listener]]\nlisten = \"127.0.0.1:0\"\n{keys}\n[[route]]\nupstream = \"u\"\n\
             [upstream.u]\nurl = \"builtin:echo\"\n"
        );
        let model = crate::config::parse(&text, Path::new("proxy.toml")).unwrap();
        ClientConnections::new(&model.listeners[0], &model)
    }

    fn peer(text: &str) -> PeerAddress {
        PeerAddress::Ip(text.parse().unwrap())
    }

    #[test]
    fn a_network_has_so_many_and_its_clones_are_one() {
        let connections = limited("max_connections_per_client = 2", "");
        let place = connections.enter(peer("2001:db8::1")).unwrap();
        let of_its_relay = place.clone();
        let _second = connections.enter(peer("2001:db8::2")).unwrap();
        assert!(connections.enter(peer("2001:db8::3")).is_none());
        drop(place);
        assert!(connections.enter(peer("2001:db8::3")).is_none(), "the relay lives on");
        drop(of_its_relay);
        assert!(connections.enter(peer("2001:db8::3")).is_some());
    }

    #[test]
    fn who_brings_many_clients_is_not_limited() {
        let connections = limited("max_connections_per_client = 1", "trusted_proxies = [\"10.0.0.0/8\"]");
        let unlimited = [peer("10.1.2.3"), peer("::ffff:10.1.2.3"), PeerAddress::Local];
        let _held: Vec<_> =
            unlimited.iter().flat_map(|peer| [*peer; 5]).map(|peer| connections.enter(peer).unwrap()).collect();
        let _limited = connections.enter(peer("192.0.2.1")).unwrap();
        assert!(connections.enter(peer("192.0.2.1")).is_none());
    }

    #[test]
    fn without_a_limit_nothing_is_counted() {
        let connections = limited("", "");
        assert!((0..1000).all(|_| connections.enter(peer("192.0.2.1")).is_some()) && connections.0.is_none());
    }
}
