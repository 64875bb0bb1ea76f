//! `proxy.toml` as the user wrote it. The comments here are the descriptions in `proxy.schema.json`.

use std::collections::BTreeMap;

use toml::{Spanned, de::DeValue};

use super::{
    error::{Problems, nearest},
    reader::{FromToml, Given, OneOrMany, Size, Span, Workers, given, mismatch, raw_choice, raw_table},
};

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
        /// From the first byte of a request head to its end. Default `10s`. Answered with 408.
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
        /// Most streams at a time on one HTTP/2 connection, WebSockets among them; 1 to 1000. Default 128. Each may make us
        /// hold 64KiB each way.
        max_streams: usize,
        /// Longest silence inside a request or response body. Default `60s`.
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
        /// The Close code they are told: 1001 (going away) or 1012 (service restart). Default 1001.
        code: usize,
    }
}

raw_table! {
    /// Addresses that share TLS material and a cap.
    ListenerTable {
        /// `address:port`, or several. IPv6 as `[::]:443`. `unix:/run/switchgate/gate.sock` is a Unix-domain socket,
        /// without TLS; a relative path is taken from this file's folder.
        listen: OneOrMany,
        /// Who may connect to its Unix-domain sockets, as for chmod: `"0660"` is the owner and the group. Default what
        /// the umask leaves, mostly the owner alone.
        unix_mode: String,
        /// Name in the log. Default the first address.
        name: String,
        /// Most connections at a time, WebSockets included. Default 10000. Further ones wait in the kernel.
        max_connections: usize,
        /// Most of them from one client network (`limits.client_prefix_v4`, `_v6`). Default no limit. Further ones are
        /// closed at once, before TLS. Peers in `trusted_proxies` are not limited: their connections carry many clients.
        max_connections_per_client: usize,
        /// TLS material. Without it the listener is plain.
        tls: TlsTable,
        /// Every connection begins with a PROXY header, version 1 or 2. Without this key one is an error, as is any
        /// other garbage.
        proxy_protocol: ProxyProtocolTable,
        /// Answer every request with 308 to the same host, path and query on `https`, and serve nothing. Default none.
        /// Browsers do not follow it for WebSockets: pages must say `wss://` themselves.
        redirect: RedirectWord,
        /// The port in that answer, in place of the one that the client has used. Default 443, which is left out.
        redirect_port: usize,
    }
}

raw_table! {
    /// The PROXY header that a balancer puts in front of each connection. The address in it counts as the peer's.
    ProxyProtocolTable {
        /// The balancers: addresses, networks, or `unix`. Nobody else may connect to this listener.
        from: OneOrMany,
        /// Longest wait for the header. Default `5s`.
        timeout: Span,
    }
}

raw_table! {
    /// TLS of a listener. Files that change are read again, within seconds and on SIGHUP.
    TlsTable {
        /// PEM file with the certificate chain, leaf first. Relative to this file.
        certificate: String,
        /// PEM file with its private key.
        key: String,
        /// Several pairs in place of `certificate` and `key`. A client gets the first that is good for the name it asks
        /// for (an exact name before a wildcard) and of a kind that it knows: put ECDSA before RSA.
        pairs: Vec<Given<PairTable>>,
        /// Certificates that are ordered and renewed from a CA by itself, in place of the others or beside `pairs`.
        acme: AcmeTable,
        /// What a client gets that asks for no name, or for one that no certificate is good for. Default `first`.
        unnamed: UnnamedWord,
        /// Versions of TLS. Default `intermediate`.
        versions: VersionsWord,
        /// Certificates of clients (mTLS). Default none are asked for. What upstreams are told of them, and what a
        /// listener that asks for them does without: see operations.md.
        client: ClientTable,
        /// Make a local CA and a certificate for localhost when the files are missing. Default false. Never in production.
        development: bool,
        /// Longest TLS handshake. Default `10s`.
        handshake_timeout: Span,
        /// Whether to speak HTTP/2 with clients that know it (ALPN `h2`), WebSockets included (RFC 8441). Default true.
        http2: bool,
    }
}

raw_table! {
    /// Certificates of clients. Files that change are read again, within seconds and on SIGHUP.
    ClientTable {
        /// Whether clients are asked for one. Default `required`. One that was not issued by `ca`, or has ended, or was
        /// revoked, is refused in the TLS handshake, by `optional` too.
        mode: ClientModeWord,
        /// PEM file with the CAs that issue them. Relative to this file. No other certificate is trusted here.
        ca: String,
        /// PEM file with CRLs, or several. Default none: nothing counts as revoked. With any, each CA that issued a
        /// certificate of the chain needs one that has not ended: without it, nobody of that CA is let in.
        crl: OneOrMany,
    }
}

raw_table! {
    /// A certificate and its key.
    PairTable {
        /// PEM file with the certificate chain, leaf first. Relative to this file.
        certificate: String,
        /// PEM file with its private key.
        key: String,
    }
}

raw_table! {
    /// Certificates from a CA that speaks ACME (RFC 8555), one for each host. To use it is to agree to the CA's terms.
    AcmeTable {
        /// `https` URL of the CA's directory. Begin with one for tests: real ones limit how often one may try.
        directory: String,
        /// Whom the CA writes to, such as `mailto:ops@example.com`. Default nobody.
        contact: OneOrMany,
        /// Hosts to have a certificate for, at most 100. No wildcards: those need DNS.
        hosts: OneOrMany,
        /// How the CA sees that the hosts are ours. Default `tls-alpn-01`.
        challenge: ChallengeWord,
        /// Folder for the account's key and the certificates, made where it is missing. Relative to this file.
        storage: String,
        /// PEM file with the root to trust when talking to the CA. Default the system's roots.
        ca: String,
        /// For CAs that want to know whom the account belongs to: the key id they gave (RFC 8555 §7.3.4).
        external_account: String,
        /// File with the key that came with it, in base64url.
        external_account_key: String,
    }
}

raw_table! {
    /// A host and path rule. The most specific one wins, whatever their order.
    RouteTable {
        /// Name in the log. Default host and path.
        name: String,
        /// `example.com`, `*.example.com` (any depth, not the parent) or `*`, or several. Default `*`.
        host: OneOrMany,
        /// Path prefix on segment borders: `/a` takes `/a` and `/a/b`, not `/ab`. Default `/`.
        path: String,
        /// Name of the upstream.
        upstream: String,
        /// Whether WebSockets are allowed. Default true. Refused with 403.
        websocket: bool,
        /// What becomes of upgrade offers for other protocols. Default `drop`.
        other_upgrades: OtherUpgradesWord,
        /// Whether the checks named in `waive` are done without. Default `strict`.
        handshake: HandshakeWord,
        /// With `handshake = "lenient"`: the checks to do without. Default all that can be.
        waive: OneOrMany,
        /// Longest silence of a WebSocket, in both directions together. Default `10m`; `off` is never.
        idle_timeout: Span,
        /// How long one direction of a WebSocket may go on after the other has ended. Default `30s`; `off` is for ever.
        half_close_timeout: Span,
        /// How long a Close frame may wait for its answer, and both sides for the end. Default `5s`.
        close_timeout: Span,
        /// Longest life of a WebSocket. Default `off`. Ends with Close 1001.
        max_lifetime: Span,
        /// How much of `max_lifetime` chance may take away, so that not all end at once. Default none.
        max_lifetime_jitter: Span,
        /// How closely frames are looked at (RFC 6455 §5). Default `enforce`.
        frames: FramesWord,
        /// Largest payload of one frame, both ways. Default no limit. Ends with Close 1009.
        max_frame_size: Size,
        /// Largest message on the wire, both ways: compressed ones count as compressed. Default no limit. Ends with
        /// Close 1009.
        max_message_size: Size,
        /// How much each client may send. Default no limit.
        rate: RateTable,
        /// Heartbeats of our own. Default none.
        ping: PingTable,
        /// The Close code a client is told when its upstream is lost: 1011 or 1012. Default 1012.
        upstream_lost_code: usize,
        /// Who may connect.
        origin: OriginTable,
        /// How many WebSockets may live, and how fast new ones may come. Default no limits.
        limits: RouteLimitsTable,
    }
}

raw_table! {
    /// How many WebSockets of a route may live, and how fast new ones may come. Checked after handshake and origin, and
    /// before anything upstream is dialled.
    RouteLimitsTable {
        /// Most WebSockets of the route at a time, handshakes under way included. Default no limit. Refused with 503.
        websockets: usize,
        /// Most of each client network (`limits.client_prefix_v4`, `_v6`). Default no limit. Refused with 429.
        websockets_per_client: usize,
        /// Most of each `Origin`; clients that send none count as one. Default no limit. Refused with 503.
        websockets_per_origin: usize,
        /// Opening handshakes a second. Default no limit. Refused with 503 and a `Retry-After` that differs from client
        /// to client.
        handshakes_per_second: usize,
        /// How many handshakes may come at once. Default one second's worth.
        handshakes_burst: usize,
        /// Opening handshakes a second from each client network. Default no limit. Refused with 429, and the time until
        /// the next may come as `Retry-After`.
        handshakes_per_second_per_client: usize,
        /// How many handshakes of one client network may come at once. Default one second's worth.
        handshakes_burst_per_client: usize,
    }
}

raw_table! {
    /// How much each client may send; a second's worth may come at once.
    RateTable {
        /// Bytes a second, such as `"64KiB"`.
        bytes: Size,
        /// Messages a second.
        messages: usize,
        /// What happens beyond it. Default `hold`.
        excess: ExcessWord,
    }
}

raw_table! {
    /// Heartbeats: a Ping of ours to a side that has been silent. Its Pong is taken out again.
    PingTable {
        /// Silence of a side after which it is asked. Default `30s`.
        every: Span,
        /// How long it may stay silent after that; then it is dead, and the other side is told Close 1001. Default `10s`.
        timeout: Span,
        /// Who is asked. Default `client`.
        to: PingToWord,
    }
}

raw_table! {
    /// The origin policy of a route.
    OriginTable {
        /// Origins that may connect: `https://app.example.com`, `https://*.example.com`, `same-origin`, `*`. Default
        /// `same-origin`.
        allow: OneOrMany,
        /// A request without `Origin`. Default `allow`: no browser leaves it out on a WebSocket.
        absent: VerdictWord,
        /// `Origin: null`, from a sandboxed frame or a file. Default `refuse`.
        null: VerdictWord,
        /// Refuse with 403, or only log what would be refused. Default `enforce`.
        mode: ModeWord,
        /// Which requests are checked. Default `websocket`.
        apply_to: ApplyToWord,
    }
}

raw_table! {
    /// Where requests can go.
    UpstreamTable {
        /// `http://host:port`, `https://host:port`, `unix:/path/of.sock` (plain HTTP over a Unix-domain socket; a relative
        /// path is taken from the folder of this file), or `builtin:echo`.
        url: String,
        /// For https: PEM file with the CAs to trust, and no others. Default what this system trusts.
        ca: String,
        /// For https: the name its certificate must be for. Default the host of the URL.
        server_name: String,
        /// For https: `sha256/BASE64` of the public key that its own certificate must have, or several: name the next key
        /// before it changes. Besides the check of its chain and name, not in place of it.
        pin: OneOrMany,
        /// For https: PEM file with the certificate chain that we show it when it asks, leaf first.
        certificate: String,
        /// For https: PEM file with the private key of that. The two are read again when they change.
        key: String,
        /// Longest dial: name resolution, TCP and TLS together. Default `5s`. Answered with 504.
        dial_timeout: Span,
        /// Longest wait for a response head once the request is sent. Default `60s`. Answered with 504.
        response_timeout: Span,
        /// What is spoken with it. Default `http/1.1`.
        protocol: ProtocolWord,
        /// What `Host` says: the client's, or the URL's (`localhost` for a Unix-domain socket). Default `preserve`.
        host_header: HostHeaderWord,
        /// Whether each connection begins with a PROXY header that tells the client's address, before TLS. Default none.
        /// Such a connection is its client's alone: none is kept for another request, and plain requests pay for a dial
        /// (and TLS) each.
        proxy_protocol: ProxyProtocolWord,
        /// How long an idle connection is kept. Default `30s`. Keep it below the upstream's own.
        pool_idle_timeout: Span,
        /// Most idle connections kept. Default 64.
        pool_max_idle: usize,
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

raw_choice! {
    /// Where a listener sends its requests on.
    RedirectWord {
        /// `https://` and the host that was asked for.
        Https = "https",
    }
}

raw_choice! {
    /// What a client gets whose name has no certificate.
    UnnamedWord {
        /// The first certificate.
        First = "first",
        /// No TLS: the handshake fails.
        Refuse = "refuse",
    }
}

raw_choice! {
    /// How a CA sees that a host is ours.
    ChallengeWord {
        /// By a TLS handshake on port 443 of the host (RFC 8737), which this listener answers.
        TlsAlpn01 = "tls-alpn-01",
        /// By a request on port 80 of the host (RFC 8555 §8.3), which every plain listener answers.
        Http01 = "http-01",
    }
}

raw_choice! {
    /// Versions of TLS.
    VersionsWord {
        /// 1.2 and 1.3, with forward secrecy and authenticated encryption only.
        Intermediate = "intermediate",
        /// 1.3 alone.
        Modern = "modern",
    }
}

raw_choice! {
    /// Whether clients are asked for certificates.
    ClientModeWord {
        /// They are not, whatever else stands here.
        Off = "off",
        /// A client may have none; upstreams are then told nothing of one.
        Optional = "optional",
        /// A client without one is refused in the TLS handshake.
        Required = "required",
    }
}

raw_choice! {
    /// What becomes of upgrade offers for other protocols.
    OtherUpgradesWord {
        /// The offer is dropped and the request goes on as plain HTTP.
        Drop = "drop",
        /// The request is refused with 400.
        Refuse = "refuse",
    }
}

raw_choice! {
    /// How the opening handshake is checked.
    HandshakeWord {
        /// Every rule of RFC 6455.
        Strict = "strict",
        /// Without those in `waive`.
        Lenient = "lenient",
    }
}

raw_choice! {
    /// How closely frames are looked at.
    FramesWord {
        /// A broken rule ends the connection with Close 1002 before its first byte has passed.
        Enforce = "enforce",
        /// A broken rule is logged, and from there on bytes pass as bytes.
        Observe = "observe",
        /// Bytes pass as bytes: no limits, no Ping, no Close of ours.
        Off = "off",
    }
}

raw_choice! {
    /// What happens to a client beyond its rate.
    ExcessWord {
        /// Nothing more is read from it until it is within its rate again.
        Hold = "hold",
        /// Close 1008.
        Close = "close",
    }
}

raw_choice! {
    /// Who is asked with a Ping.
    PingToWord {
        /// The client.
        Client = "client",
        /// The upstream.
        Upstream = "upstream",
        /// Both.
        Both = "both",
    }
}

raw_choice! {
    /// What to do with a special origin.
    VerdictWord {
        /// Let it pass.
        Allow = "allow",
        /// Refuse it.
        Refuse = "refuse",
    }
}

raw_choice! {
    /// What a refused origin leads to.
    ModeWord {
        /// 403.
        Enforce = "enforce",
        /// A log event.
        Report = "report",
    }
}

raw_choice! {
    /// Which requests have their origin checked.
    ApplyToWord {
        /// Opening handshakes.
        WebSocket = "websocket",
        /// Plain requests too.
        All = "all",
    }
}

raw_choice! {
    /// A version of the PROXY protocol.
    ProxyProtocolWord {
        /// One line of text: both addresses of the client's connection.
        V1 = "v1",
        /// Binary: the same, the host that its TLS named, and the request's id as in the log.
        V2 = "v2",
    }
}

raw_choice! {
    /// What is spoken with an upstream.
    ProtocolWord {
        /// HTTP/1.1: a connection for each WebSocket, and a pool for the rest.
        Http1 = "http/1.1",
        /// HTTP/2: up to 100 requests and WebSockets share a connection. Over https it is asked for in the TLS handshake;
        /// over http and Unix-domain sockets the upstream must know it beforehand. WebSockets are asked for only where its
        /// settings offer them (RFC 8441).
        Http2 = "h2",
    }
}

raw_choice! {
    /// What an upstream is told in `Host`.
    HostHeaderWord {
        /// What the client asked for.
        Preserve = "preserve",
        /// The authority of its own URL.
        Upstream = "upstream",
    }
}
