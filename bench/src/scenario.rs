//! What is measured: the shape of the traffic, how much of it, and which figure comes of it.

use crate::load::plan::Kind;

/// Names that `--only` knows.
pub(crate) const GROUPS: [&str; 9] =
    ["echo-64", "echo-4k", "echo-h2", "push-256", "big-1m", "handshake", "get", "idle", "latency"];

/// How the client speaks to the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Secured {
    /// ws.
    No,
    /// wss, every TLS handshake in full.
    Full,
    /// wss, every TLS session resumed.
    Resumed,
    /// wss, several WebSockets on each HTTP/2 connection (RFC 8441).
    Http2,
}

/// The figure that a scenario ends in; less is better in each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Metric {
    /// CPU of the proxy for one relayed message, or one request, or one handshake.
    CpuEach,
    /// CPU of the proxy for 10^9 bytes relayed.
    CpuPerGigabyte,
    /// User-space memory of the proxy for one connection.
    MemoryEach,
    /// What the proxy adds to the time that a message takes; two figures, the median and the 99th percentile.
    AddedLatency,
}

/// One row of the table, or two.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) group: &'static str,
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) secured: Secured,
    pub(crate) metric: Metric,
    /// WebSockets, where several share a connection.
    pub(crate) connections: usize,
    /// Payload bytes of a message.
    pub(crate) size: usize,
    /// Messages, handshakes or requests in all: the same for each proxy.
    pub(crate) count: usize,
    /// Messages a second and how many at the same moment, where the backend sends.
    pub(crate) rate: u64,
    pub(crate) together: u64,
}

impl Scenario {
    /// Messages so large that the proxies get larger buffers, and may splice.
    pub(crate) fn is_bulk(&self) -> bool {
        self.metric == Metric::CpuPerGigabyte
    }

    /// Names of its rows.
    pub(crate) fn rows(&self) -> Vec<String> {
        match self.metric {
            Metric::AddedLatency => vec![format!("{}, p50", self.name), format!("{}, p99", self.name)],
            _ => vec![self.name.to_owned()],
        }
    }

    /// The unit of its figures.
    pub(crate) fn unit(&self) -> &'static str {
        match self.metric {
            Metric::CpuEach => "CPU µs",
            Metric::CpuPerGigabyte => "CPU s/GB",
            Metric::MemoryEach => "KiB",
            Metric::AddedLatency => "added µs",
        }
    }

    /// In how many of `rounds` rounds it runs. Memory does not jitter, and takes the longest.
    pub(crate) fn rounds(&self, rounds: usize) -> usize {
        if self.metric == Metric::MemoryEach { rounds.div_ceil(4) } else { rounds }
    }
}

/// All scenarios. `quick` does less of each; `most` is how many idle connections the limit of open files allows.
pub(crate) fn all(quick: bool, most: usize) -> Vec<Scenario> {
    use Secured::{Full, Http2, No, Resumed};
    let amount = |quick_one: usize, full: usize| if quick { quick_one } else { full };
    let base = Scenario {
        group: "",
        name: "",
        kind: Kind::Echo,
        secured: No,
        metric: Metric::CpuEach,
        connections: 100,
        size: 0,
        count: 0,
        rate: 0,
        together: 1,
    };
    let mut found = Vec::new();
    for (secured, [echo64, echo4k, push, big, get, idle, ping, even]) in [(No, WS), (Full, WSS)] {
        let base = Scenario { secured, ..base.clone() };
        let tls = secured == Full;
        let (count, size) = (amount(40_000, 200_000), 64);
        found.push(Scenario { group: "echo-64", name: echo64, size, count, ..base.clone() });
        let (count, size) = (amount(if tls { 20_000 } else { 30_000 }, 120_000), 4096);
        found.push(Scenario { group: "echo-4k", name: echo4k, size, count, ..base.clone() });
        // To 500 clients at once, 40 times a second.
        let of_500 = Scenario { kind: Kind::Push, connections: 500, rate: 20_000, together: 500, ..base.clone() };
        found.push(Scenario { group: "push-256", name: push, size: 256, count: amount(20_000, 100_000), ..of_500 });
        let (count, size) = (amount(if tls { 160 } else { 400 }, if tls { 600 } else { 2_000 }), 1 << 20);
        let big = Scenario { group: "big-1m", name: big, size, count, metric: Metric::CpuPerGigabyte, ..base.clone() };
        found.push(Scenario { connections: 4, ..big });
        let count = amount(15_000, 60_000);
        found.push(Scenario { group: "get", name: get, kind: Kind::Get, connections: 32, count, ..base.clone() });
        let connections = amount(2_000, 5_000).min(most);
        let (kind, metric) = (Kind::Idle, Metric::MemoryEach);
        found.push(Scenario { group: "idle", name: idle, kind, metric, connections, ..base.clone() });
        let latency = Scenario { group: "latency", metric: Metric::AddedLatency, ..base };
        let count = amount(6_000, 30_000);
        found.push(Scenario { name: ping, connections: 1, size: 64, count, ..latency.clone() });
        let (kind, count) = (Kind::Push, amount(8_000, 40_000));
        found.push(Scenario { name: even, kind, size: 256, count, rate: 8_000, ..latency });
    }
    for (name, size, count) in
        [("echo 64 B, h2", 64, amount(40_000, 200_000)), ("echo 4 KiB, h2", 4096, amount(20_000, 120_000))]
    {
        found.push(Scenario { group: "echo-h2", name, secured: Http2, size, count, ..base.clone() });
    }
    for (name, secured, count) in [
        ("handshake, ws", No, amount(3_000, 10_000)),
        ("handshake, wss full", Full, amount(1_000, 5_000)),
        ("handshake, wss resumed", Resumed, amount(1_500, 5_000)),
    ] {
        let (group, kind) = ("handshake", Kind::Handshake);
        found.push(Scenario { group, name, kind, secured, connections: 16, count, ..base.clone() });
    }
    found.sort_by_key(|scenario| GROUPS.iter().position(|group| *group == scenario.group));
    found
}

const WS: [&str; 8] = [
    "echo 64 B, ws",
    "echo 4 KiB, ws",
    "push 256 B, ws",
    "1 MiB, ws",
    "GET, ws port",
    "idle connection, ws",
    "ping-pong, ws",
    "push 8,000/s, ws",
];

const WSS: [&str; 8] = [
    "echo 64 B, wss",
    "echo 4 KiB, wss",
    "push 256 B, wss",
    "1 MiB, wss",
    "GET, wss port",
    "idle connection, wss",
    "ping-pong, wss",
    "push 8,000/s, wss",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_group_has_scenarios_and_every_row_a_name_of_its_own() {
        let all = all(true, 5_000);
        assert!(GROUPS.iter().all(|group| all.iter().any(|scenario| scenario.group == *group)));
        let mut rows: Vec<String> = all.iter().flat_map(Scenario::rows).collect();
        let count = rows.len();
        rows.sort();
        rows.dedup();
        assert_eq!(rows.len(), count);
    }
}
