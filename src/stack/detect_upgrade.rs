//! Detects what is asked for: plain HTTP, WebSocket, or another protocol (RFC 9110 §7.8). Never refuses.
//!
//! Writes `Intent`.

use super::{Request, check::Check, error::ProxyError};
use crate::protocol::upgrade;

#[derive(Clone, Debug)]
pub(super) struct DetectUpgrade;

impl Check for DetectUpgrade {
    fn check(&self, request: &mut Request) -> Result<(), ProxyError> {
        let intent = upgrade::intent(request.headers());
        request.extensions_mut().insert(intent);
        Ok(())
    }
}
