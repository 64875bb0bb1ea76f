//! One exchange with an upstream. Over HTTP/1.1 an upgrade has a fresh connection and the rest the keep-alive pool; over
//! HTTP/2 all share connections.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, uri::Scheme};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use rustls::pki_types::ServerName;
use thiserror::Error;

use super::{
    echo,
    error::{UpstreamError, in_time},
    http2::Sessions,
    opening,
    pool::{Answer as PooledAnswer, Pool},
};
use crate::{
    config::model::{Endpoint, Model, Protocol, Upstream},
    drain::Tracker,
    http2::body::Inbound,
    interim::Interims,
    net::{
        Wire,
        dial::{DialError, Dialer},
        proxy_header::OnBehalfOf,
        tls::TlsError,
        tls_client::{ClientTls, Identity},
    },
    protocol::body::{Body, BodyError},
};

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

/// Ways to every upstream of the config.
#[derive(Clone)]
pub struct Exchanges {
    /// Ordered by [`address`]: every request looks here, and an address is found sooner than a name.
    all: Arc<[Exchange]>,
}

/// Where an upstream of the config lies in memory; its exchange keeps it there.
fn address(upstream: &Upstream) -> usize {
    std::ptr::from_ref(upstream).addr()
}

impl Exchanges {
    /// Sets up all upstreams; nothing is dialled yet.
    ///
    /// # Errors
    /// See [`SetupError`].
    pub fn new(model: &Model, tracker: &Tracker) -> Result<Self, SetupError> {
        let each = |upstream| Exchange::new(Arc::clone(upstream), model.limits.write_timeout, tracker);
        let mut all = model.upstreams.iter().map(each).collect::<Result<Vec<_>, _>>()?;
        all.sort_unstable_by_key(|exchange| address(&exchange.upstream));
        Ok(Self { all: all.into() })
    }

    /// The certificates that upstreams are shown, by the upstream's name.
    pub fn identities(&self) -> impl Iterator<Item = (&str, &Identity)> {
        self.all.iter().filter_map(|exchange| match &*exchange.connector.reach {
            Reach::Dial(dialer) => Some((exchange.upstream.name.as_str(), dialer.identity()?)),
            Reach::BuiltinEcho(_) => None,
        })
    }

    /// The same ways with connection pools of their own, for another thread.
    #[must_use]
    pub fn with_own_pools(&self) -> Self {
        Self { all: self.all.iter().map(Exchange::with_own_pool).collect() }
    }

    /// Sends an upgrade request over a connection of its own. An upstream that asks for it is told of `whom` first.
    ///
    /// # Errors
    /// See [`UpstreamError`].
    pub async fn upgrade(
        &self,
        upstream: &Upstream,
        request: Request<Body>,
        whom: Option<&OnBehalfOf>,
    ) -> Result<Response<Body>, UpstreamError> {
        self.of(upstream)?.fresh(request, whom).await
    }

    /// Sends a plain request over a pooled connection, or one of its own to an upstream that is told of `whom` first.
    /// Interim responses go to `interims`.
    ///
    /// An idempotent request without a body is tried once more when a reused connection dies before it answers.
    ///
    /// # Errors
    /// See [`UpstreamError`].
    pub async fn plain(
        &self,
        upstream: &Upstream,
        request: Request<Body>,
        whom: Option<&OnBehalfOf>,
        interims: Option<&Interims>,
    ) -> Result<Response<Answer>, UpstreamError> {
        self.of(upstream)?.pooled(request, whom, interims).await
    }

    fn of(&self, upstream: &Upstream) -> Result<&Exchange, UpstreamError> {
        let at = self.all.binary_search_by_key(&address(upstream), |exchange| address(&exchange.upstream));
        // Both come from one model; a miss would be a fault of ours and is answered, not panicked over.
        at.ok().and_then(|at| self.all.get(at)).ok_or_else(|| UpstreamError::Closed("no such upstream".into()))
    }
}

/// The body of an answer.
pub enum Answer {
    /// It has a connection of the pool to itself.
    Pooled(PooledAnswer),
    /// Others share its connection.
    Shared(Inbound),
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Pooled(answer) => Pin::new(answer).poll_frame(cx),
            Self::Shared(answer) => Pin::new(answer).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Pooled(answer) => answer.is_end_stream(),
            Self::Shared(answer) => answer.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Pooled(answer) => answer.size_hint(),
            Self::Shared(answer) => answer.size_hint(),
        }
    }
}

struct Exchange {
    upstream: Arc<Upstream>,
    connector: Connector,
    ways: Ways,
    tracker: Tracker,
}

/// What is kept between exchanges.
enum Ways {
    Http1(Pool),
    Http2(Sessions),
}

impl Exchange {
    fn new(upstream: Arc<Upstream>, write_limit: Duration, tracker: &Tracker) -> Result<Self, SetupError> {
        let (limit, proxy) = (upstream.dial_timeout, upstream.proxy_protocol);
        let reach = match &upstream.endpoint {
            Endpoint::BuiltinEcho => Reach::BuiltinEcho(tracker.clone()),
            Endpoint::Tcp { host, port } => Reach::Dial(Dialer::plain(host.clone(), *port, limit).announcing(proxy)),
            Endpoint::Unix { path } => Reach::Dial(Dialer::unix(path.clone(), limit).announcing(proxy)),
            Endpoint::Tls { host, port, tls } => {
                let config = ClientTls::load(tls, upstream.protocol)
                    .map_err(|source| SetupError::Tls { upstream: upstream.name.clone(), source: Box::new(source) })?;
                let name = ServerName::try_from(tls.server_name.clone()).map_err(|_| SetupError::ServerName {
                    upstream: upstream.name.clone(),
                    name: tls.server_name.clone(),
                })?;
                Reach::Dial(Dialer::tls(host.clone(), *port, limit, Arc::new(config), name).announcing(proxy))
            }
        };
        let connector = Connector { reach: Arc::new(reach) };
        let ways = match upstream.protocol {
            Protocol::Http1 => Ways::Http1(Pool::new(Arc::clone(&upstream), write_limit, tracker.clone())),
            Protocol::Http2 => Ways::Http2(Sessions::new(Arc::clone(&upstream), write_limit, tracker.clone())),
        };
        Ok(Self { upstream, connector, ways, tracker: tracker.clone() })
    }

    fn with_own_pool(&self) -> Self {
        let (upstream, connector, tracker) = (Arc::clone(&self.upstream), self.connector.clone(), self.tracker.clone());
        let ways = match &self.ways {
            Ways::Http1(pool) => Ways::Http1(pool.another()),
            Ways::Http2(sessions) => Ways::Http2(sessions.another()),
        };
        Self { upstream, connector, ways, tracker }
    }

    async fn fresh(&self, request: Request<Body>, whom: Option<&OnBehalfOf>) -> Result<Response<Body>, UpstreamError> {
        if let Ways::Http2(sessions) = &self.ways {
            let response = Box::pin(self.shared(sessions, request, None)).await?;
            return Ok(response.map(|body| body.boxed_unsync()));
        }
        let wire = self.connector.connect(whom).await?;
        let opened = opening::open(wire, request, &self.tracker, &self.upstream.name);
        let answer = in_time(self.upstream.response_timeout, opened).await?;
        answer.map_err(|error| self.connector.explained(error))
    }

    async fn pooled(
        &self,
        request: Request<Body>,
        whom: Option<&OnBehalfOf>,
        interims: Option<&Interims>,
    ) -> Result<Response<Answer>, UpstreamError> {
        let pool = match &self.ways {
            Ways::Http1(pool) => pool,
            Ways::Http2(sessions) => {
                return Ok(Box::pin(self.shared(sessions, request, interims)).await?.map(Answer::Shared));
            }
        };
        let answer = pool.exchange(|| self.connector.connect(whom), request, interims).await;
        answer.map(|answer| answer.map(Answer::Pooled)).map_err(|error| self.connector.explained(error))
    }

    async fn shared(
        &self,
        sessions: &Sessions,
        request: Request<Body>,
        interims: Option<&Interims>,
    ) -> Result<Response<Inbound>, UpstreamError> {
        let scheme = match self.upstream.endpoint {
            Endpoint::Tls { .. } => Scheme::HTTPS,
            Endpoint::Tcp { .. } | Endpoint::Unix { .. } | Endpoint::BuiltinEcho => Scheme::HTTP,
        };
        let answer = sessions.exchange(|| self.connector.connect(None), request, scheme, interims).await;
        answer.map_err(|error| self.connector.explained(error))
    }
}

enum Reach {
    Dial(Dialer),
    BuiltinEcho(Tracker),
}

#[derive(Clone)]
struct Connector {
    reach: Arc<Reach>,
}

impl Connector {
    async fn connect(&self, whom: Option<&OnBehalfOf>) -> Result<Wire, DialError> {
        match &*self.reach {
            Reach::Dial(dialer) => dialer.dial(whom).await,
            Reach::BuiltinEcho(tracker) => {
                let (ours, theirs) = tokio::io::duplex(BUILTIN_PIPE);
                tracker.background(echo::serve(theirs));
                Ok(Wire::boxed(ours))
            }
        }
    }

    /// A connection that ended because TLS failed late says so.
    fn explained(&self, error: UpstreamError) -> UpstreamError {
        match (&*self.reach, &error) {
            (Reach::Dial(dialer), UpstreamError::Closed(cause)) => {
                dialer.late_failure(cause.as_ref()).map_or(error, UpstreamError::Dial)
            }
            _ => error,
        }
    }
}
