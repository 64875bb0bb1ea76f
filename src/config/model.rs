//! The config as understood: immutable values that were checked.

use std::{num::NonZeroUsize, path::PathBuf, sync::Arc, time::Duration};

pub use super::{
    acme::{Acme, Challenge, ExternalAccount, Pace},
    routes::{HostPattern, Routes},
};
use super::{relay_policy::Policy, route_limits::RouteLimits};
use crate::protocol::{
    address::ListenAddress,
    client_address::{TrustedFields, TrustedPeer},
    network::ClientPrefixes,
    origin::OriginPolicy,
    pin::Pin,
    websocket::Waivers,
};

/// All of it.
#[derive(Clone, Debug)]
pub struct Model {
    /// Addresses we accept on; at least one.
    pub listeners: Vec<Listener>,
    /// What goes where.
    pub routes: Routes,
    /// Every upstream, used or not.
    pub upstreams: Vec<Arc<Upstream>>,
    /// Bounds of every downstream connection.
    pub limits: Limits,
    /// Our name in `Via`.
    pub via: String,
    /// Peers that may say who called them.
    pub trusted_proxies: Vec<TrustedPeer>,
    /// The fields in which they say it.
    pub trusted_fields: TrustedFields,
    /// How a stop goes.
    pub drain: Drain,
    /// Threads that carry the traffic; `None` is one per core.
    pub workers: Option<NonZeroUsize>,
    /// What may stand in the log.
    pub log: LogOptions,
}

/// Sockets that share TLS material and a cap.
#[derive(Clone, Debug)]
pub struct Listener {
    /// Its name in the log; the first address unless given.
    pub name: String,
    /// Where it listens; at least one.
    pub addresses: Vec<ListenAddress>,
    /// Permission bits of its files; `None` leaves them to the umask.
    pub unix_mode: Option<u32>,
    /// Most connections at a time, relays included.
    pub max_connections: usize,
    /// Most of them from one client network; `None` is no limit.
    pub max_connections_per_client: Option<usize>,
    /// Whether other processes may listen on its ports.
    pub reuse_port: bool,
    /// TLS material; `None` is plain.
    pub tls: Option<ListenerTls>,
    /// Whether connections begin with a PROXY header, and whose.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// The port of https to which all its requests are sent on; `None` is served here.
    pub redirect: Option<u16>,
}

impl Listener {
    /// Of a listener that sets none.
    pub const DEFAULT_MAX_CONNECTIONS: usize = 10_000;
}

/// PROXY headers of a listener.
#[derive(Clone, Debug)]
pub struct ProxyProtocol {
    /// Who may connect, and is believed; at least one.
    pub from: Vec<TrustedPeer>,
    /// Longest wait for the header.
    pub timeout: Duration,
}

/// TLS of a listener.
#[derive(Clone, Debug)]
pub struct ListenerTls {
    /// Certificate chains and their keys; at least one where there is no `acme`.
    pub pairs: Vec<PairFiles>,
    /// Certificates that are ordered; their files serve after `pairs`.
    pub acme: Option<Acme>,
    /// What a client gets that names no host, or one that none of them is good for.
    pub unnamed: Unnamed,
    /// Which versions are spoken.
    pub versions: Versions,
    /// Whether clients are asked for certificates of their own; `None` is not.
    pub clients: Option<ClientAuth>,
    /// Whether the first pair is made at start when it is missing.
    pub development: bool,
    /// Longest TLS handshake.
    pub handshake_timeout: Duration,
    /// Whether HTTP/2 is spoken with clients that know it.
    pub http2: bool,
    /// Largest record that is sent, in bytes, with its header and protection.
    pub max_record_size: usize,
    /// Which hosts its connections may carry requests for.
    pub foreign_host: ForeignHost,
}

impl ListenerTls {
    /// The largest records that TLS has: no limit of ours. They carry 16 KiB beside their header and protection.
    pub const FULL_RECORDS: usize = 16 * 1024;

    /// Every file that may serve, those that are still to be ordered among them.
    pub fn files(&self) -> Vec<PairFiles> {
        self.pairs.iter().cloned().chain(self.awaited()).collect()
    }

    /// Files that ACME writes: one that is not there yet is no fault.
    pub fn awaited(&self) -> Vec<PairFiles> {
        self.acme.as_ref().map(Acme::pairs).unwrap_or_default()
    }
}

/// A certificate chain and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairFiles {
    /// Certificate chain, leaf first.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// How clients show who they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientAuth {
    /// Whether one without a certificate is refused.
    pub required: bool,
    /// Who may have issued them.
    pub ca: PathBuf,
    /// Lists of those that are good no longer; without any, none is looked for.
    pub crls: Vec<PathBuf>,
}

impl ClientAuth {
    /// All its files.
    pub fn files(&self) -> impl Iterator<Item = &PathBuf> {
        std::iter::once(&self.ca).chain(&self.crls)
    }
}

/// What a client gets that names no host, or one that no certificate is good for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unnamed {
    /// The first certificate: some clients send no name, and an address is none.
    #[default]
    First,
    /// No TLS.
    Refuse,
}

/// Hosts of other routes than the one that the TLS handshake named, which a connection may carry requests for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ForeignHost {
    /// Those that its certificate covers; see `net::foreign_host`.
    #[default]
    Certificate,
    /// All.
    Any,
}

/// Which versions of TLS a listener speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Versions {
    /// 1.2 and 1.3.
    #[default]
    Intermediate,
    /// 1.3 alone.
    Modern,
}

/// Bounds of one downstream connection.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Longest request head.
    pub head_timeout: Duration,
    /// Longest wait for a further request.
    pub keep_alive_timeout: Duration,
    /// Largest request head in bytes.
    pub max_head_size: usize,
    /// Most fields in a request head.
    pub max_header_count: usize,
    /// Most bytes held that came before their turn.
    pub max_early_bytes: usize,
    /// Most streams at a time on one HTTP/2 connection.
    pub max_streams: u32,
    /// Maximum concurrent exchanges in the process; `None` is what the limit of open files allows.
    pub max_exchanges: Option<usize>,
    /// Maximum concurrent exchanges of one client network; `None` is a quarter of all.
    pub max_exchanges_per_client: Option<usize>,
    /// Longest silence inside a body.
    pub body_timeout: Duration,
    /// Longest time in which a client takes no byte.
    pub write_timeout: Duration,
    /// What counts as one client wherever clients are limited.
    pub client_prefixes: ClientPrefixes,
}

/// How a stop goes.
#[derive(Clone, Copy, Debug)]
pub struct Drain {
    /// How long it waits for requests and relays.
    pub grace: Duration,
    /// The time over which relays are told to close.
    pub spread: Duration,
    /// The close code they are told.
    pub code: u16,
}

/// What may stand in the log beyond what always does.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogOptions {
    /// Query strings.
    pub query: bool,
    /// `Cookie`.
    pub cookies: bool,
    /// `Authorization`.
    pub authorization: bool,
}

/// A host and path rule.
#[derive(Clone, Debug)]
pub struct Route {
    /// Its name in the log.
    pub name: String,
    /// Hosts it takes.
    pub hosts: Vec<HostPattern>,
    /// Path prefix, on segment borders.
    pub path: String,
    /// Whether the letters of `path` match in either case.
    pub ignore_case: bool,
    /// Where its requests go.
    pub upstream: Arc<Upstream>,
    /// Whether WebSockets are allowed.
    pub websocket: bool,
    /// What becomes of other upgrade offers.
    pub other_upgrades: OtherUpgrades,
    /// Handshake checks it does without.
    pub waivers: Waivers,
    /// Who may connect.
    pub origin: OriginPolicy,
    /// How many WebSockets it lets in.
    pub limits: RouteLimits,
    /// What it asks of its relays.
    pub relay: Arc<Policy>,
}

/// What becomes of an offer of another protocol than WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtherUpgrades {
    /// It is dropped, and the request goes on as plain HTTP.
    Drop,
    /// 400.
    Refuse,
}

/// A named upstream.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// Its name.
    pub name: String,
    /// How to reach it.
    pub endpoint: Endpoint,
    /// Longest dial: name resolution, TCP and TLS together.
    pub dial_timeout: Duration,
    /// Longest wait for a response head after the request was sent.
    ///
    /// `None` is no limit, here and below.
    pub response_timeout: Option<Duration>,
    /// Longest silence inside a response body.
    pub body_timeout: Option<Duration>,
    /// The same for an event stream, which is silent while nothing happens.
    pub event_stream_timeout: Option<Duration>,
    /// What it is told in `Host`.
    pub host_header: HostHeader,
    /// How it reads paths.
    pub paths: PathReading,
    /// What it speaks.
    pub protocol: Protocol,
    /// What it is told of the client before anything else.
    pub proxy_protocol: Option<ProxyVersion>,
    /// How long an idle connection is kept.
    pub pool_idle_timeout: Duration,
    /// Most idle connections kept.
    pub pool_max_idle: usize,
}

/// How to reach an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `http://`
    Tcp {
        /// Name or address; IPv6 in brackets.
        host: String,
        /// Port.
        port: u16,
    },
    /// `https://`
    Tls {
        /// Name or address; IPv6 in brackets.
        host: String,
        /// Port.
        port: u16,
        /// Whom we trust there, and who we are.
        tls: UpstreamTls,
    },
    /// `unix:`
    Unix {
        /// The socket's file.
        path: PathBuf,
    },
    /// `builtin:echo`
    BuiltinEcho,
}

/// TLS with an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamTls {
    /// The name its certificate must be for; a bare address has no brackets.
    pub server_name: String,
    /// The only roots; what the system trusts when `None`.
    pub ca: Option<PathBuf>,
    /// Its certificate has one of these keys, if there are any.
    pub pins: Vec<Pin>,
    /// What makes its certificate a trusted one.
    pub trust: Trust,
    /// What we show when we are asked who we are.
    pub pair: Option<PairFiles>,
}

/// What makes an upstream's certificate a trusted one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Trust {
    /// Its chain, name and dates; a pin comes on top.
    #[default]
    Chain,
    /// Its pin alone.
    Pin,
}

/// What is spoken with an upstream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2, with WebSockets in it where the upstream says that it takes them (RFC 8441).
    Http2,
}

/// A version of the PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyVersion {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// How an upstream reads paths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PathReading {
    /// Unknown: all spellings of a path must lead to the same route.
    #[default]
    Any,
    /// As they are written: parameters, doubled slashes and encoded delimiters have no meaning.
    Literal,
}

/// What an upstream is told in `Host`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostHeader {
    /// What the client asked for.
    Preserve,
    /// The authority of its own URL.
    Upstream,
}
