//! Tells who the client is. Never refuses.
//!
//! Reads `Connection`. Writes `Client`.

use std::sync::Arc;

use super::{
    Request,
    check::Check,
    error::ProxyError,
    facts::{self, Client},
};
use crate::downstream::Connection;

#[derive(Clone, Debug)]
pub(super) struct IdentifyClient;

impl Check for IdentifyClient {
    fn check(&self, request: &mut Request) -> Result<(), ProxyError> {
        let connection: Arc<Connection> = facts::expect(request.extensions())?;
        request.extensions_mut().insert(Client(connection.remote));
        Ok(())
    }
}
