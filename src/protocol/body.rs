//! The one body type of the crate, boxed at the first layer.

use std::{error::Error, fmt};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Full, combinators::UnsyncBoxBody};

/// Whatever some other crate's error is.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// Whatever a body's source says when it breaks.
///
/// A type of its own, not the boxed trait object: inside generic futures the compiler cannot prove the latter `Send`.
#[derive(Debug)]
pub struct BodyError(BoxError);

impl BodyError {
    /// Wraps any error.
    pub fn new(error: impl Into<BoxError>) -> Self {
        Self(error.into())
    }
}

impl fmt::Display for BodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for BodyError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        // What is shown is the wrapped error itself; it stays reachable for whoever looks for its type.
        Some(&*self.0)
    }
}

/// A streamed body, in either direction.
pub type Body = UnsyncBoxBody<Bytes, BodyError>;

/// A body of no bytes.
pub fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// A body that is known whole.
pub fn full(content: impl Into<Bytes>) -> Body {
    Full::new(content.into()).map_err(|never| match never {}).boxed_unsync()
}
