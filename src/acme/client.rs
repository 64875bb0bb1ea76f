//! HTTPS to an ACME server: one connection a request, bounded in time and size.

use std::{
    future::Future,
    pin::{Pin, pin},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use instant_acme::{BodyWrapper, BytesResponse, HttpClient};
use rustls::pki_types::ServerName;
use thiserror::Error;
use tokio::time::timeout;

use crate::{
    net::{
        dial::{DialError, Dialer},
        tls_client::ClientTls,
    },
    protocol::body::BoxError,
};

/// Longest dial: name resolution, TCP and TLS together.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest exchange, the dial not counted.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(30);

/// Largest answer: chains have a few kilobytes.
const MAX_ANSWER: usize = 1024 * 1024;

/// Why there was no answer.
#[derive(Debug, Error)]
pub(super) enum ClientError {
    #[error("the ACME server named `{0}`, which is no https URL")]
    Url(http::Uri),
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("no answer from the ACME server within {EXCHANGE_TIMEOUT:?}")]
    Timeout,
    #[error("the connection to the ACME server broke: {0}")]
    Broke(#[from] hyper::Error),
    #[error("the answer of the ACME server broke off or is larger than {MAX_ANSWER} bytes: {0}")]
    Body(BoxError),
}

/// A client for one server; clones share what it was told.
#[derive(Clone)]
pub(super) struct Client {
    tls: Arc<ClientTls>,
    told: Arc<Mutex<Option<Duration>>>,
}

impl Client {
    pub(super) fn new(tls: Arc<ClientTls>) -> Self {
        Self { tls, told: Arc::default() }
    }

    /// How long the server asked us to stay away with its last refusal.
    pub(super) fn told_to_wait(&self) -> Option<Duration> {
        *self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn exchange(self, request: Request<BodyWrapper<Bytes>>) -> Result<Response<Full<Bytes>>, ClientError> {
        let request = prepared(request)?;
        let uri = request.uri();
        let (Some("https"), Some(host)) = (uri.scheme_str(), uri.host().map(str::to_owned)) else {
            return Err(ClientError::Url(uri.clone()));
        };
        let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(bare).map_err(|_| ClientError::Url(uri.clone()))?;
        let dialer = Dialer::tls(host, uri.port_u16().unwrap_or(443), DIAL_TIMEOUT, self.tls.clone(), name);
        let io = dialer.dial(None).await?;
        let answered = timeout(EXCHANGE_TIMEOUT, async {
            let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(io)).await?;
            let mut answered = pin!(async {
                let (parts, body) = sender.send_request(in_origin_form(request)).await?.into_parts();
                let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(ClientError::Body)?;
                Ok::<_, ClientError>(Response::from_parts(parts, Full::new(body.to_bytes())))
            });
            tokio::select! {
                answered = &mut answered => answered,
                // Whatever ended it, what had come before is still there to be read.
                _ended = connection => answered.await,
            }
        });
        let response = answered.await.map_err(|_| ClientError::Timeout)??;
        let refused = response.status().is_client_error() || response.status().is_server_error();
        let asked = response.headers().get(header::RETRY_AFTER).filter(|_| refused);
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = asked.and_then(retry_after);
        Ok(response)
    }
}

/// With the fields that this crate's own layers would have added.
fn prepared(mut request: Request<BodyWrapper<Bytes>>) -> Result<Request<BodyWrapper<Bytes>>, ClientError> {
    let uri = request.uri().clone();
    let host = uri.authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
    let host = host.ok_or(ClientError::Url(uri))?;
    request.headers_mut().insert(header::HOST, host);
    let agent = concat!("switchgate/", env!("CARGO_PKG_VERSION"), " instant-acme");
    request.headers_mut().insert(header::USER_AGENT, HeaderValue::from_static(agent));
    Ok(request)
}

/// hyper's connection sends the target as it is.
fn in_origin_form(mut request: Request<BodyWrapper<Bytes>>) -> Request<BodyWrapper<Bytes>> {
    let path = request.uri().path_and_query().cloned();
    *request.uri_mut() = path.map_or_else(http::Uri::default, http::Uri::from);
    request
}

/// Both forms of RFC 9110 §10.2.3.
fn retry_after(value: &HeaderValue) -> Option<Duration> {
    let text = value.to_str().ok()?.trim();
    match text.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => httpdate::parse_http_date(text).ok()?.duration_since(SystemTime::now()).ok(),
    }
}

impl HttpClient for Client {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, instant_acme::Error>> + Send>> {
        let exchange = self.clone().exchange(request);
        Box::pin(async move {
            let response = exchange.await.map_err(|error| instant_acme::Error::Other(Box::new(error)))?;
            Ok(BytesResponse::from(response))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_retry_after_are_read() {
        let told = |text: &str| retry_after(&HeaderValue::from_str(text).unwrap());
        assert_eq!(told("120"), Some(Duration::from_secs(120)));
        let at = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(3600));
        assert!(told(&at).is_some_and(|wait| wait > Duration::from_secs(3500) && wait <= Duration::from_secs(3600)));
        for odd in ["", "soon", "-1", "Thu, 01 Jan 1970 00:00:00 GMT"] {
            assert_eq!(told(odd), None, "{odd}");
        }
    }
}
