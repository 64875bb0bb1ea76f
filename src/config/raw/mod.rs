//! `proxy.toml` as the user wrote it. The comments here are the descriptions in `proxy.schema.json`.

mod listener;
mod relay;
mod route;
mod tls;
mod upstream;

use std::collections::BTreeMap;

pub(super) use self::{
    listener::{ListenerTable, ProxyProtocolTable, RedirectWord},
    relay::{ExcessWord, FramesWord, PingTable, PingToWord, RateTable},
    route::{
        ApplyToWord, HandshakeWord, ModeWord, OriginTable, OtherUpgradesWord, RouteLimitsTable, RouteTable, VerdictWord,
    },
    tls::{
        AcmeTable, ChallengeWord, ClientModeWord, ClientTable, ForeignHostWord, TlsTable, UnnamedWord, VersionsWord,
    },
    upstream::{HostHeaderWord, PathsWord, ProtocolWord, ProxyProtocolWord, TrustWord, UpstreamTable},
};
use super::reader::{CloseCode, Given, OneOrMany, Size, Span, Workers, raw_choice, raw_table};

raw_table! {
    /// The config of switchgate.
    File {
        /// Our name in `Via`, sent upstream. Default `switchgate`. Change it where several gates stand in a row.
        via: String,
        /// Threads that carry the traffic: a number, or `auto` for one per core. Default `auto`.
        workers: Workers,
        /// Peers (addresses, networks, or `unix` for those that come over a Unix-domain socket) that are believed when
        /// they say who the client is. Default none: what anyone else says is replaced. List the load balancer in front
        /// of switchgate here; without it, `same-origin` behind a balancer that ends TLS means `http://…` and refuses
        /// `https` pages.
        trusted_proxies: OneOrMany,
        /// The fields in which they say it. Default `x-forwarded`. Choose those that your balancer sets: the others it
        /// may pass on from the client as they are, so they are not read.
        trusted_fields: TrustedFieldsWord,
        /// Bounds of every downstream connection.
        limits: LimitsTable,
        /// What may stand in the log beyond what always does.
        log: LogTable,
        /// How a stop goes.
        drain: DrainTable,
        /// Addresses to accept on; at least one.
        listener: Vec<Given<ListenerTable>>,
        /// What goes where; at least one.
        route: Vec<Given<RouteTable>>,
        /// Where requests can go, by name; at least one.
        upstream: BTreeMap<String, Given<UpstreamTable>>,
    }
}

raw_table! {
    /// Bounds of every downstream connection.
    LimitsTable {
        /// From the first byte of a request head to its end. Default `10s`. Answered with 408; over HTTP/2 the connection ends.
        head_timeout: Span,
        /// Longest wait for a further request on a connection. Default `75s`.
        keep_alive_timeout: Span,
        /// Largest request head, 1KiB to 64KiB. Default `16KiB`. Answered with 431, or 414 when the request line alone
        /// is longer.
        max_head_size: Size,
        /// Most fields in a request head, 8 to 1000. Default 100. Answered with 431.
        max_header_count: usize,
        /// Most bytes held that a client sends before its request is answered, at most 1MiB. Default `64KiB`. Beyond it
        /// nothing more is read until then.
        max_early_bytes: Size,
        /// Maximum concurrent streams of one HTTP/2 connection, WebSockets included; 1 to 1000. Default 256: all tabs of a
        /// browser share one connection, and Chromium opens up to 255 WebSockets to a host. A connection buffers up to
        /// 128KiB for each stream and 8MiB more: 40MiB with the default.
        max_streams: usize,
        /// Maximum concurrent exchanges in the process, over all listeners: plain requests until their response has
        /// ended, and opening handshakes until the 101. Live WebSockets are not counted. Default: what the limit of
        /// open files allows in addition to the connections of all listeners; the log shows it at start. Refused with
        /// 503 and `Retry-After`.
        max_exchanges: usize,
        /// Maximum concurrent exchanges of one client network. Default: a quarter of `max_exchanges`. Refused with 429
        /// and `Retry-After`. Peers in `trusted_proxies` are exempt; the clients that they name are counted.
        max_exchanges_per_client: usize,
        /// Maximum silence inside a request body. Default `60s`. Answered with 400 (`request-body`). For response bodies see
        /// `body_timeout` of the upstream.
        body_timeout: Span,
        /// Longest time in which a client takes not one byte of a response, or an upstream of a request. Default `60s`.
        write_timeout: Span,
        /// Bits of an IPv4 address that make one client wherever clients are limited, 1 to 32. Default 32.
        client_prefix_v4: usize,
        /// Bits of an IPv6 address that make one client, 1 to 128. Default 64, which is what one household or server has.
        client_prefix_v6: usize,
    }
}

raw_table! {
    /// What may stand in the log beyond what always does. All of these can hold secrets.
    LogTable {
        /// Query strings. Default false.
        query: bool,
        /// The `Cookie` field. Default false.
        cookies: bool,
        /// The `Authorization` field. Default false.
        authorization: bool,
    }
}

raw_table! {
    /// How a stop goes.
    DrainTable {
        /// How long requests and WebSockets may go on after SIGTERM. Default `30s`. Keep it below the patience of what
        /// sends the signal.
        grace: Span,
        /// WebSockets are told to close one after the other over this time, so that their clients do not all come back
        /// at once. Default `10s`, or half of a shorter `grace`.
        spread: Span,
        /// Close code for WebSockets: 1001 (going away), 1011, 1012 (service restart), 1013 or 4000 to 4999. Default
        /// 1001, which every client accepts. WebKitGTK, libsoup, Qt 5.15, Ruby (faye-websocket) and npm faye treat 1012
        /// as a protocol error, and applications there see 1006.
        code: CloseCode,
    }
}

raw_choice! {
    /// The fields in which trusted proxies say who the client is.
    TrustedFieldsWord {
        /// `X-Forwarded-For`, `-Proto` and `-Host`.
        XForwarded = "x-forwarded",
        /// `Forwarded` (RFC 7239).
        Forwarded = "forwarded",
    }
}
