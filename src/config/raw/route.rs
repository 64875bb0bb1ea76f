//! `[[route]]`: what goes where, and who may.

use super::relay::{FramesWord, PingTable, RateTable};
use crate::config::reader::{CloseCode, OneOrMany, Size, Span, raw_choice, raw_table};

raw_table! {
    /// A host and path rule. The most specific one wins, whatever their order.
    RouteTable {
        /// Name in the log. Default host and path.
        name: String,
        /// `example.com`, `*.example.com` (any depth, not the parent) or `*`, or several. Default `*`.
        host: OneOrMany,
        /// Path prefix on segment borders: `/a` takes `/a` and `/a/b`, not `/ab`. Default `/`.
        path: String,
        /// Whether the letters of `path` match in either case. Default false. Set it where the backend ignores case
        /// (Express, ASP.NET Core, IIS): otherwise `/API` takes another route than `/api` but reaches the same handler.
        /// Also applies to the routes below it on the same upstream.
        ignore_case: bool,
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
        /// How long one direction of a WebSocket may stay open after the other has ended. Default `30s`; `off` is for
        /// ever. Where frames are followed, the remaining side gets a Close and has `close_timeout` to answer it.
        half_close_timeout: Span,
        /// Maximum wait for the answer to a Close frame, and for the end of both streams after it. Default `5s`. Also
        /// the maximum time for which the end of a stream is delayed while the Close before it is unanswered.
        close_timeout: Span,
        /// Longest life of a WebSocket. Default `off`. Ends with Close 1001.
        max_lifetime: Span,
        /// How much of `max_lifetime` chance may take away, so that not all end at once. Default none.
        max_lifetime_jitter: Span,
        /// Validation of WebSocket frames (RFC 6455 §5). Default `enforce`.
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
        /// Close code for the client when its upstream is lost: 1011, 1012, 1013 or 4000 to 4999. Default 1012 (service
        /// restart). WebKitGTK, libsoup, Qt 5.15, Ruby (faye-websocket) and npm faye treat 1012 as a protocol error,
        /// and applications there see 1006; set 1011, which nearly all clients accept, where such clients connect.
        upstream_lost_code: CloseCode,
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
    /// The origin policy of a route.
    OriginTable {
        /// Origins that may connect: `https://app.example.com`, `https://*.example.com`, `same-origin`, `*`, and those of
        /// apps, such as `capacitor://localhost` or `file://`. Default `same-origin`.
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
