//! One HTTP/1.1 exchange with an upstream: a fresh connection for an upgrade, the keep-alive pool for the rest.

use std::{
    collections::HashMap,
    error::Error,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response, Uri, uri::PathAndQuery};
use http_body_util::BodyExt;
use hyper::{body::Incoming, rt::Executor};
use hyper_util::{
    client::legacy::{
        Client,
        connect::{Connected, capture_connection},
    },
    rt::{TokioIo, TokioTimer},
};
use rustls::pki_types::ServerName;
use thiserror::Error;
use tokio::{sync::oneshot, time::timeout};
use tower::Service;

use super::{
    echo,
    error::{DownstreamBodyError, UpstreamError, WriteTimeout},
    opening,
    pooled_io::{PooledIo, Turns},
};
use crate::{
    config::model::{Endpoint, Model, Upstream},
    drain::Tracker,
    net::{
        Wire,
        dial::{DialError, Dialer},
        tls::{self, TlsError},
    },
    protocol::{
        body::{self, Body, BodyError, BoxError},
        response_framing, trailers,
    },
};

/// hyper's read buffer for one upstream connection, and so the largest response head.
pub(super) const MAX_BUFFER: usize = 64 * 1024;

/// In-memory pipe to the embedded upstream, each way.
const BUILTIN_PIPE: usize = 64 * 1024;

/// Why an upstream cannot be set up at all.
#[derive(Debug, Error)]
pub enum SetupError {
    /// Its TLS material is not usable.
    #[error("upstream `{upstream}`: {source}")]
    Tls {
        /// Its name.
        upstream: String,
        /// What is wrong.
        source: Box<TlsError>,
    },
    /// Its certificate cannot be checked against this name.
    #[error("upstream `{upstream}`: `{name}` is neither a DNS name nor an IP address; set `server_name`")]
    ServerName {
        /// Its name.
        upstream: String,
        /// What was tried.
        name: String,
    },
}

/// Ways to every upstream of the config, by name.
#[derive(Clone)]
pub struct Exchanges {
    by_name: Arc<HashMap<String, Exchange>>,
}

impl Exchanges {
    /// Sets up all upstreams; nothing is dialled yet.
    ///
    /// # Errors
    /// See [`SetupError`].
    pub fn new(model: &Model, tracker: &Tracker) -> Result<Self, SetupError> {
        let mut by_name = HashMap::new();
        for upstream in &model.upstreams {
            let exchange = Exchange::new(Arc::clone(upstream), model.limits.write_timeout, tracker)?;
            by_name.insert(upstream.name.clone(), exchange);
        }
        Ok(Self { by_name: Arc::new(by_name) })
    }

    /// The same ways with connection pools of their own, for another thread.
    #[must_use]
    pub fn with_own_pools(&self) -> Self {
        let by_name = self.by_name.iter().map(|(name, exchange)| (name.clone(), exchange.with_own_pool())).collect();
        Self { by_name: Arc::new(by_name) }
    }

    /// Sends an upgrade request over a connection of its own.
    ///
    /// # Errors
    /// See [`UpstreamError`].
    pub async fn upgrade(&self, upstream: &Upstream, request: Request<Body>) -> Result<Response<Body>, UpstreamError> {
        self.of(upstream)?.fresh(request).await
    }

    /// Sends a plain request over a pooled connection.
    ///
    /// An idempotent request without a body is tried once more when a reused connection dies before it answers.
    ///
    /// # Errors
    /// See [`UpstreamError`].
    pub async fn plain(&self, upstream: &Upstream, request: Request<Body>) -> Result<Response<Body>, UpstreamError> {
        self.of(upstream)?.pooled(request).await
    }

    fn of(&self, upstream: &Upstream) -> Result<&Exchange, UpstreamError> {
        // Both come from one model; a miss would be a fault of ours and is answered, not panicked over.
        self.by_name.get(&upstream.name).ok_or_else(|| UpstreamError::Closed("no such upstream".into()))
    }
}

struct Exchange {
    upstream: Arc<Upstream>,
    connector: Connector,
    pool: Client<Connector, Body>,
    tracker: Tracker,
}

impl Exchange {
    fn new(upstream: Arc<Upstream>, write_limit: Duration, tracker: &Tracker) -> Result<Self, SetupError> {
        let limit = upstream.dial_timeout;
        let reach = match &upstream.endpoint {
            Endpoint::BuiltinEcho => Reach::BuiltinEcho(tracker.clone()),
            Endpoint::Tcp { host, port } => Reach::Dial(Dialer::plain(host.clone(), *port, limit)),
            Endpoint::Tls { host, port, server_name, ca } => {
                let config = tls::client_config(ca.as_deref())
                    .map_err(|source| SetupError::Tls { upstream: upstream.name.clone(), source: Box::new(source) })?;
                let name = ServerName::try_from(server_name.clone()).map_err(|_| SetupError::ServerName {
                    upstream: upstream.name.clone(),
                    name: server_name.clone(),
                })?;
                Reach::Dial(Dialer::tls(host.clone(), *port, limit, config, name))
            }
        };
        let connector = Connector { reach: Arc::new(reach), write_limit };
        let pool = pool(&upstream, &connector, tracker);
        Ok(Self { upstream, connector, pool, tracker: tracker.clone() })
    }

    fn with_own_pool(&self) -> Self {
        let (upstream, connector, tracker) = (Arc::clone(&self.upstream), self.connector.clone(), self.tracker.clone());
        let pool = pool(&upstream, &connector, &tracker);
        Self { upstream, connector, pool, tracker }
    }

    async fn fresh(&self, request: Request<Body>) -> Result<Response<Body>, UpstreamError> {
        let wire = self.connector.connect().await?;
        let limit = self.upstream.response_timeout;
        match timeout(limit, opening::open(wire, request, &self.tracker, &self.upstream.name)).await {
            Ok(answer) => answer,
            Err(_) => Err(UpstreamError::ResponseTimeout(limit)),
        }
    }

    async fn pooled(&self, request: Request<Body>) -> Result<Response<Body>, UpstreamError> {
        let (mut parts, body) = request.into_parts();
        parts.uri = absolute(&parts.uri);
        let repeatable = parts.method.is_idempotent() && http_body::Body::is_end_stream(&body);
        let again = repeatable.then(|| parts.clone());
        let error = match self.send(Request::from_parts(parts, body)).await {
            Err(Attempt::Failed(error)) => error,
            Err(Attempt::Final(error)) => return Err(error),
            Ok(response) => return Ok(response),
        };
        match again.filter(|_| died_before_it_answered(&error)) {
            Some(parts) => {
                tracing::debug!(upstream = %self.upstream.name, "reused connection died unanswered; trying another");
                match self.send(Request::from_parts(parts, body::empty())).await {
                    Ok(response) => Ok(response),
                    Err(Attempt::Failed(error)) => Err(failed(error)),
                    Err(Attempt::Final(error)) => Err(error),
                }
            }
            None => Err(failed(error)),
        }
    }

    /// The deadline of the response head counts from the end of the request body: an upload may take its time.
    async fn send(&self, request: Request<Body>) -> Result<Response<Body>, Attempt> {
        let (sent, all_sent) = oneshot::channel();
        let mut request = request.map(|inner| SignalEnd { inner, signal: Some(sent) }.boxed_unsync());
        let connection = capture_connection(&mut request);
        let limit = self.upstream.response_timeout;
        let deadline = async {
            // Resolves when the sender is dropped: at the body's end, or when the body is given up. A request that has
            // to dial first keeps its body until it is connected.
            let _dropped = all_sent.await;
            tokio::time::sleep(limit).await;
        };
        tokio::select! {
            answer = self.pool.request(request) => {
                // Where such an answer ends is in doubt, and so is where the next one on its connection would begin.
                let retire = || connection.connection_metadata().iter().for_each(Connected::poison);
                sound(answer.map_err(Attempt::Failed)?, retire).map_err(Attempt::Final)
            }
            () = deadline => Err(Attempt::Final(UpstreamError::ResponseTimeout(limit))),
        }
    }
}

fn pool(upstream: &Upstream, connector: &Connector, tracker: &Tracker) -> Client<Connector, Body> {
    Client::builder(Background(tracker.clone()))
        .pool_timer(TokioTimer::new())
        .timer(TokioTimer::new())
        .pool_idle_timeout(upstream.pool_idle_timeout)
        .pool_max_idle_per_host(upstream.pool_max_idle)
        .http1_max_buf_size(MAX_BUFFER)
        .http1_title_case_headers(true)
        .set_host(false)
        .build(connector.clone())
}

enum Attempt {
    Failed(hyper_util::client::legacy::Error),
    Final(UpstreamError),
}

fn sound(response: Response<Incoming>, retire: impl FnOnce()) -> Result<Response<Body>, UpstreamError> {
    if let Err(why) = response_framing::check(response.headers()) {
        retire();
        return Err(UpstreamError::Framing(why));
    }
    Ok(response.map(|body| body.map_err(BodyError::new).boxed_unsync()))
}

fn died_before_it_answered(error: &hyper_util::client::legacy::Error) -> bool {
    let mut extras = http::Extensions::new();
    if let Some(info) = error.connect_info() {
        Connected::get_extras(info, &mut extras);
    }
    extras.get::<Turns>().is_some_and(Turns::died_unanswered_after_use)
}

/// The pool wants to know where to; there is one endpoint behind it, so any constant authority serves.
fn absolute(uri: &Uri) -> Uri {
    let path = uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    Uri::builder().scheme("http").authority("upstream").path_and_query(path).build().unwrap_or_default()
}

/// Sorts what hyper says by whose fault it is.
fn failed(error: impl Error + Send + Sync + 'static) -> UpstreamError {
    let error: BoxError = Box::new(error);
    let mut garbage = false;
    let mut cause: Option<&(dyn Error + 'static)> = Some(&*error);
    let mut downstream = None;
    let mut stalled = None;
    while let Some(current) = cause {
        if let Some(body) = current.downcast_ref::<DownstreamBodyError>() {
            downstream = Some(body.0.to_string());
        }
        if let Some(hyper) = current.downcast_ref::<hyper::Error>() {
            garbage |= hyper.is_parse() || hyper.is_parse_too_large();
        }
        if let Some(io) = current.downcast_ref::<std::io::Error>() {
            stalled = io.get_ref().and_then(|inner| inner.downcast_ref::<WriteTimeout>()).copied().or(stalled);
        }
        cause = current.source();
    }
    if let Some(stalled) = stalled {
        return stalled.into();
    }
    if let Some(text) = downstream {
        return UpstreamError::RequestBody(DownstreamBodyError(BodyError::new(text)));
    }
    match dial_error(error) {
        Ok(dial) => UpstreamError::Dial(dial),
        Err(error) if garbage => UpstreamError::Garbage(error),
        Err(error) => UpstreamError::Closed(error),
    }
}

/// The pool hides our own dial error inside its error, behind a shared reference; this takes it out again.
fn dial_error(error: BoxError) -> Result<DialError, BoxError> {
    let mut cause: Option<&(dyn Error + 'static)> = Some(&*error);
    while let Some(current) = cause {
        let shared = current.downcast_ref::<SharedDialError>();
        if let Some(dial) = shared.and_then(|SharedDialError(slot)| slot.lock().ok()?.take()) {
            return Ok(dial);
        }
        cause = current.source();
    }
    Err(error)
}

#[derive(Debug, Error)]
#[error("cannot connect")]
struct SharedDialError(std::sync::Mutex<Option<DialError>>);

enum Reach {
    Dial(Dialer),
    BuiltinEcho(Tracker),
}

#[derive(Clone)]
struct Connector {
    reach: Arc<Reach>,
    write_limit: Duration,
}

impl Connector {
    async fn connect(&self) -> Result<Wire, DialError> {
        match &*self.reach {
            Reach::Dial(dialer) => dialer.dial().await,
            Reach::BuiltinEcho(tracker) => {
                let (ours, theirs) = tokio::io::duplex(BUILTIN_PIPE);
                tracker.background(echo::serve(theirs));
                Ok(Wire::boxed(ours))
            }
        }
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<PooledIo>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move {
            match connector.connect().await {
                Ok(io) => Ok(TokioIo::new(PooledIo::new(io, connector.write_limit))),
                Err(error) => Err(SharedDialError(std::sync::Mutex::new(Some(error))).into()),
            }
        })
    }
}

/// Lets the pool start its connection tasks where they are counted.
#[derive(Clone)]
struct Background(Tracker);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Background {
    fn execute(&self, task: F) {
        self.0.background(task);
    }
}

/// Drops its signal when the body has ended or is dropped.
struct SignalEnd {
    inner: Body,
    signal: Option<oneshot::Sender<Duration>>,
}

impl http_body::Body for SignalEnd {
    type Data = bytes::Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Self::Data>, Self::Error>>> {
        let mut polled = Pin::new(&mut self.inner).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &mut polled {
            trailers::trim(frame);
        }
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) || self.inner.is_end_stream() {
            self.signal = None;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.inner.size_hint()
    }
}
