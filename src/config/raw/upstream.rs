//! `[upstream.NAME]`: where requests can go.

use crate::config::reader::{OneOrMany, Span, raw_choice, raw_table};

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
        /// For https: `sha256/BASE64` of the public key that its own certificate must have, or several: name the next
        /// key before it changes. Checked in addition to its chain and name, unless `trust = "pin"`.
        pin: OneOrMany,
        /// For https: how its certificate is verified. Default: `chain`. Set it to `pin`, and set the key `pin`, for an
        /// upstream with a self-signed certificate.
        trust: TrustWord,
        /// For https: PEM file with the certificate chain that we show it when it asks, leaf first.
        certificate: String,
        /// For https: PEM file with the private key of that. The two are read again when they change.
        key: String,
        /// Longest dial: name resolution, TCP and TLS together. Default `5s`. Answered with 504.
        dial_timeout: Span,
        /// Maximum wait for the response head once the request is sent. Default `60s`; `off` is no limit, for long polls.
        /// Answered with 504.
        response_timeout: Span,
        /// Maximum silence inside a response body; then both connections are closed. Default no limit for event streams
        /// (`text/event-stream`), `60s` otherwise. Set it to `off` for responses with long pauses, such as a followed
        /// log. A value set here also applies to event streams.
        body_timeout: Span,
        /// What is spoken with it. Default `http/1.1`.
        protocol: ProtocolWord,
        /// What `Host` says: the client's, or the URL's (`localhost` for a Unix-domain socket). Default `preserve`.
        host_header: HostHeaderWord,
        /// How the backend interprets paths. Default `any`. Set `literal` where clients need paths such as
        /// `/ws;jsessionid=1` or `//ws/x` that `any` refuses, and the backend gives them no other meaning.
        paths: PathsWord,
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
    /// How an upstream's certificate is verified.
    TrustWord {
        /// By its chain to a root in `ca`, or to one that this system trusts, its dates and its name.
        Chain = "chain",
        /// By the key in `pin` only: issuer, names and dates are not checked. The upstream still proves in each
        /// handshake that it has the private key.
        Pin = "pin",
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
    /// How an upstream interprets paths.
    PathsWord {
        /// Unknown: a path is refused with 400 where one of its spellings belongs to another route.
        Any = "any",
        /// As written: `;parameters`, doubled slashes and encoded delimiters have no special meaning. Such a path
        /// takes the route that it matches as it is written: `/ws;jsessionid=1` is not below `/ws`, so the route that takes it,
        /// often `/`, needs a literal upstream.
        Literal = "literal",
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

raw_choice! {
    /// A version of the PROXY protocol.
    ProxyProtocolWord {
        /// One line of text: both addresses of the client's connection.
        V1 = "v1",
        /// Binary: the same, the host that its TLS named, and the request's id as in the log.
        V2 = "v2",
    }
}
