//! Whether a TLS connection may carry requests for a host other than its SNI.

use std::sync::Arc;

use super::{server_tls::ServerTls, tls::TlsFacts};
use crate::config::model::ForeignHost;

/// The TLS of all listeners of the process.
#[derive(Clone, Debug, Default)]
pub struct HostListeners(Arc<[Arc<ServerTls>]>);

impl HostListeners {
    /// Of all listeners that have TLS.
    pub fn new(all: impl Iterator<Item = Arc<ServerTls>>) -> Self {
        Self(all.collect())
    }

    /// Whether a connection to the listener `own` is authoritative for `host` (RFC 9110 §7.4, RFC 9113 §9.1.1).
    ///
    /// Its certificate must cover the host, and no client certificate check may be bypassed: neither that of `own`, nor
    /// that of a listener whose certificates match the host better than those of `own`. Between equal matches the
    /// connection's own listener serves the host.
    pub fn covers(&self, own: &Arc<ServerTls>, facts: &TlsFacts, host: &str) -> bool {
        if own.foreign_host() == ForeignHost::Any {
            return true;
        }
        let Some(rank) = facts.certificate.as_ref().and_then(|names| names.rank(host)) else { return false };
        let shown = facts.client.is_some();
        if own.clients().is_some() && !shown {
            return false;
        }
        self.0.iter().all(|other| match other.clients() {
            // A client certificate counts for another listener only if both have the same settings.
            Some(asked) if !(shown && own.clients() == Some(asked)) => {
                other.rank(host) <= own.rank(host).max(Some(rank))
            }
            _ => true,
        })
    }
}
