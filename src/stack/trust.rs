//! Which peers may say who called them.

use std::sync::Arc;

use crate::protocol::{
    address::PeerAddress,
    forwarded::{Cidr, Trust},
};

/// The networks of `trusted_proxies`.
#[derive(Clone, Debug)]
pub(super) struct TrustedProxies(pub(super) Arc<[Cidr]>);

impl TrustedProxies {
    pub(super) fn trust(&self, peer: PeerAddress) -> Trust {
        if peer.ip().is_some_and(|peer| self.0.iter().any(|network| network.contains(peer))) {
            Trust::Trusted
        } else {
            Trust::Untrusted
        }
    }
}
