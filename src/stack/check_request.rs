//! Refuses what no route could mend: malformed messages, CONNECT, TRACE, a bad target or Host.
//!
//! Also drops fields that a backend may take for those of the gateway. Reads `Malformed`. Writes `Target`. Refuses with 400, 405, 408, 414, 431, 501.

use std::sync::Arc;

use http::Method;

use super::{Request, check::Check, error::ProxyError};
use crate::{
    downstream::Malformed,
    protocol::{field_names, request_target},
};

#[derive(Clone, Debug)]
pub(super) struct CheckRequest;

impl Check for CheckRequest {
    fn check(&self, request: &mut Request) -> Result<(), ProxyError> {
        if let Some(malformed) = request.extensions_mut().remove::<Malformed>() {
            return Err(ProxyError::Malformed(malformed));
        }
        field_names::screen(request.headers_mut()).map_err(|error| ProxyError::Malformed(Malformed::Framing(error)))?;
        match *request.method() {
            Method::CONNECT => return Err(ProxyError::Connect),
            Method::TRACE => return Err(ProxyError::Trace),
            _ => {}
        }
        let target = request_target::check(request.method(), request.uri(), request.headers())?;
        request.extensions_mut().insert(Arc::new(target));
        Ok(())
    }
}
