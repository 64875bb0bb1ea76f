//! Which peers may say who called them.

use std::{net::IpAddr, sync::Arc};

use crate::protocol::forwarded::{Cidr, Trust};

/// The networks of `trusted_proxies`.
#[derive(Clone, Debug)]
pub(super) struct TrustedProxies(pub(super) Arc<[Cidr]>);

impl TrustedProxies {
    pub(super) fn trust(&self, peer: IpAddr) -> Trust {
        if self.0.iter().any(|network| network.contains(peer)) { Trust::Trusted } else { Trust::Untrusted }
    }
}
