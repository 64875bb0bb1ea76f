//! What a route says of its relays: how closely frames are looked at, who may send how much, who is asked with a Ping.

use crate::config::reader::{Size, Span, raw_choice, raw_table};

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
        /// Idle time of a side before a Ping is sent to it. Default `30s`. None is sent while a Ping of the other side
        /// is unanswered; that Ping counts instead.
        every: Span,
        /// Maximum wait for any byte after the Ping. Default `10s`. Then the side counts as dead, and the other one gets
        /// Close 1001.
        timeout: Span,
        /// Who is asked. Default `client`.
        to: PingToWord,
    }
}

raw_choice! {
    /// How closely frames are looked at.
    FramesWord {
        /// A broken rule ends the connection with Close 1002 before its first byte has passed.
        Enforce = "enforce",
        /// A broken rule is logged, and from there on bytes pass as bytes.
        Observe = "observe",
        /// Bytes pass as bytes: no limits, no Ping, no Close of ours. A reset of one side is forwarded as a reset.
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
