//! Why an exchange with an upstream failed.

use std::{error::Error as StdError, time::Duration};

use thiserror::Error;
use tokio::time::timeout;

use crate::{
    net::dial::DialError,
    protocol::{
        body::{BodyError, BoxError},
        interim::TooManyInterim,
    },
};

/// The downstream's request body broke while it was sent on.
#[derive(Debug, Error)]
#[error("the request body ended early")]
pub struct DownstreamBodyError(#[source] pub BodyError);

/// The upstream took nothing of a request for too long.
#[derive(Clone, Copy, Debug, Error)]
#[error("the upstream took no byte of the request for {0:?} (limits.write_timeout)")]
pub struct WriteTimeout(pub Duration);

/// Why there is no answer of the upstream.
#[derive(Debug, Error)]
pub enum UpstreamError {
    /// It could not be reached.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// No response head within the deadline.
    #[error("no response head within {0:?} (response_timeout)")]
    ResponseTimeout(Duration),
    /// It stopped taking the request.
    #[error(transparent)]
    WriteTimeout(#[from] WriteTimeout),
    /// It sent too many interim responses before the final one.
    #[error(transparent)]
    Interim(#[from] TooManyInterim),
    /// The answer's length can be read in two ways.
    #[error("the answer's framing is not sound: {0}")]
    Framing(&'static str),
    /// It speaks HTTP/2 and does not say that it takes WebSockets there.
    #[error(
        "the upstream does not offer WebSockets over HTTP/2 (RFC 8441 section 3); leave out `protocol = \"h2\"`, or turn \
         extended CONNECT on there"
    )]
    NoExtendedConnect,
    /// It has not looked at the request: too many streams, or it goes away (RFC 9113 §8.7).
    #[error("the upstream refused the request unseen")]
    Refused(#[source] h2::Error),
    /// What came is not HTTP.
    #[error("the answer is not HTTP")]
    Garbage(#[source] BoxError),
    /// The connection ended before the response head did.
    #[error("the connection ended before the response head")]
    Closed(#[source] BoxError),
    /// The request body failed on the downstream's side.
    #[error(transparent)]
    RequestBody(DownstreamBodyError),
    /// The body of the response stopped for too long.
    #[error("upstream sent no response body data for {0:?} (body_timeout)")]
    BodyTimeout(Duration),
}

/// Waits for the head of a response, where `limit` is set no longer than that.
///
/// # Errors
/// `ResponseTimeout`.
pub(super) async fn in_time<T>(limit: Option<Duration>, head: impl Future<Output = T>) -> Result<T, UpstreamError> {
    match limit {
        Some(limit) => timeout(limit, head).await.map_err(|_| UpstreamError::ResponseTimeout(limit)),
        None => Ok(head.await),
    }
}

/// Sorts what hyper says by whose fault it is.
pub(super) fn failed(error: impl StdError + Send + Sync + 'static) -> UpstreamError {
    let error: BoxError = Box::new(error);
    let mut garbage = false;
    let mut cause: Option<&(dyn StdError + 'static)> = Some(&*error);
    let mut downstream = None;
    let mut stalled = None;
    let mut too_many = None;
    while let Some(current) = cause {
        if let Some(body) = current.downcast_ref::<DownstreamBodyError>() {
            downstream = Some(body.0.to_string());
        }
        if let Some(hyper) = current.downcast_ref::<hyper::Error>() {
            garbage |= hyper.is_parse() || hyper.is_parse_too_large();
        }
        if let Some(io) = current.downcast_ref::<std::io::Error>() {
            too_many = io.get_ref().and_then(|inner| inner.downcast_ref::<TooManyInterim>()).copied().or(too_many);
            stalled = io.get_ref().and_then(|inner| inner.downcast_ref::<WriteTimeout>()).copied().or(stalled);
        }
        cause = current.source();
    }
    if let Some(stalled) = stalled {
        return stalled.into();
    }
    if let Some(too_many) = too_many {
        return too_many.into();
    }
    if let Some(text) = downstream {
        return UpstreamError::RequestBody(DownstreamBodyError(BodyError::new(text)));
    }
    if garbage { UpstreamError::Garbage(error) } else { UpstreamError::Closed(error) }
}
