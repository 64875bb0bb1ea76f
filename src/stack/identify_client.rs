//! Tells who the client is. Never refuses.
//!
//! Reads `Connection`. Writes `Client`.

use std::sync::Arc;

use tracing::{Span, field};

use super::{
    Request,
    check::Check,
    error::ProxyError,
    facts::{self, Client},
};
use crate::{
    downstream::Connection,
    protocol::{
        client_address::{Told, TrustedFields, TrustedPeer},
        log_text,
    },
};

#[derive(Clone, Debug)]
pub(super) struct IdentifyClient {
    trusted: Arc<[TrustedPeer]>,
    fields: TrustedFields,
    /// For the many that are not asked.
    nothing: Arc<Told>,
}

impl IdentifyClient {
    pub(super) fn new(trusted: &[TrustedPeer], fields: TrustedFields) -> Self {
        Self { trusted: trusted.into(), fields, nothing: Arc::new(Told::NOTHING) }
    }
}

impl Check for IdentifyClient {
    fn check(&self, request: &mut Request) -> Result<(), ProxyError> {
        let connection: Arc<Connection> = facts::expect(request.extensions())?;
        let peer = connection.remote;
        let told = if TrustedPeer::any(&self.trusted, peer) {
            Arc::new(Told::read(request.headers(), self.fields, &self.trusted))
        } else {
            Arc::clone(&self.nothing)
        };
        let client = told.client(peer);
        let span = Span::current();
        span.record("client", field::display(client));
        if client != peer {
            span.record("peer", field::display(peer));
        }
        if let Some(subject) = connection.client_subject() {
            span.record("client_subject", log_text::cut(subject));
        }
        request.extensions_mut().insert(Client { address: client, told });
        Ok(())
    }
}
