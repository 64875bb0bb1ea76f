//! What a route lets in.

use std::num::NonZeroU32;

/// How many WebSockets of a route may live, and how fast new ones may come. `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RouteLimits {
    /// Most of them, handshakes under way included.
    pub websockets: Option<usize>,
    /// The same for each client network.
    pub websockets_per_client: Option<usize>,
    /// The same for each origin.
    pub websockets_per_origin: Option<usize>,
    /// How fast they may come.
    pub rate: Option<Rate>,
    /// The same for each client network.
    pub client_rate: Option<Rate>,
}

/// How fast something may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// As often over time.
    pub per_second: NonZeroU32,
    /// As often at once.
    pub burst: NonZeroU32,
}
