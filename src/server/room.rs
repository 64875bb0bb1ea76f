//! How many connections and exchanges the limit of open files has room for.

use crate::{
    admission::ExchangeBounds,
    config::model::{Endpoint, Listener, Model, Protocol},
    net::open_files,
    protocol::address::ListenAddress,
};

/// Default of `limits.max_exchanges` where the system sets no limit of open files.
const UNLIMITED: u64 = 1_000_000;

/// Descriptors of a worker's runtime (epoll, its wake-up, signals).
const PER_WORKER: u64 = 4;

/// The descriptors of a process, and what the config may take of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Room {
    /// The limit of open files.
    files: u64,
    /// Kept for idle connections to upstreams.
    pooled: u64,
    /// Sum of `max_connections` over all listeners.
    max_connections: u64,
    /// Whether some listener sets its own.
    connections_set: bool,
    /// Connections that find room if each has a socket to an upstream.
    connections: u64,
    /// Sockets to upstreams beside the connections of all listeners.
    sockets: u64,
    max_exchanges: u64,
    per_client: u64,
    /// Whether `limits.max_exchanges` was set.
    set: bool,
}

impl Room {
    /// Of this process; raises its soft limit of open files to the hard one.
    pub(super) fn of_process(model: &Model, workers: usize) -> Self {
        Self::new(model, workers, open_files::raise_files().unwrap_or(u64::MAX))
    }

    /// A quarter of the limit at most is kept for other files and for pools, so that a small limit still serves.
    ///
    /// Of the rest each connection of the listeners keeps one descriptor, or half of them all where `max_connections`
    /// promises more. What is left is for sockets to upstreams: exchanges and live WebSockets share it, so that streams
    /// over HTTP/2 cannot take the descriptors that the next accept needs.
    fn new(model: &Model, workers: usize, files: u64) -> Self {
        let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        let workers = count(workers);
        let sum = |counts: &mut dyn Iterator<Item = usize>| counts.map(count).fold(0, u64::saturating_add);
        let tcp = |address: &&ListenAddress| matches!(address, ListenAddress::Socket(_));
        let listening = sum(&mut model.listeners.iter().map(|listener| listener.addresses.iter().filter(tcp).count()));
        let own = workers.saturating_mul(listening.saturating_add(PER_WORKER)).saturating_add(open_files::OTHERS);
        let pools = model
            .upstreams
            .iter()
            .filter(|upstream| upstream.endpoint != Endpoint::BuiltinEcho && upstream.protocol == Protocol::Http1);
        let pooled = sum(&mut pools.map(|upstream| upstream.pool_max_idle)).saturating_mul(workers).min(files / 8);
        let rest = files.saturating_sub(own.min(files / 8)).saturating_sub(pooled);
        let max_connections = sum(&mut model.listeners.iter().map(|listener| listener.max_connections));
        let connections_set =
            model.listeners.iter().any(|listener| listener.max_connections != Listener::DEFAULT_MAX_CONNECTIONS);
        let sockets = rest.saturating_sub(max_connections.min(rest / 2)).max(1);
        let set = model.limits.max_exchanges;
        let max_exchanges = set.map_or(sockets.min(UNLIMITED), count);
        // One client of several cannot take all of it, and a browser's requests at once always fit.
        let per_client = model.limits.max_exchanges_per_client.map_or((max_exchanges / 4).max(16), count);
        Self {
            files,
            pooled,
            max_connections,
            connections_set,
            connections: rest / 2,
            sockets,
            max_exchanges,
            per_client,
            set: set.is_some(),
        }
    }

    pub(super) fn bounds(&self) -> ExchangeBounds {
        let count = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
        ExchangeBounds {
            exchanges: count(self.max_exchanges),
            per_client: count(self.per_client),
            sockets: count(self.sockets),
        }
    }

    /// Returns which configured limit exceeds the limit of open files, for `switchgate check`.
    pub(super) fn shortage(&self) -> Option<String> {
        let &Self { files, connections, max_connections, max_exchanges, sockets, pooled, .. } = self;
        let allows = format!("the limit of {files} open files (of this process; see LimitNOFILE, ulimit -Hn) allows");
        // A default that nearly fits is logged at start; it is not worth a warning in each check.
        if max_connections > connections && (self.connections_set || connections < max_connections / 2) {
            return Some(format!(
                "{allows} {connections} connections with one upstream socket each; `max_connections` of all listeners is {max_connections}"
            ));
        }
        (self.set && max_exchanges > sockets).then(|| {
            format!(
                "{allows} {sockets} exchanges in addition to {max_connections} connections and {pooled} idle upstream connections; \
                 `max_exchanges` is {max_exchanges}"
            )
        })
    }

    pub(super) fn log(&self) {
        let &Self { files, pooled, max_connections, connections: room, sockets, max_exchanges, per_client, .. } = self;
        let limited = files < u64::MAX;
        if !limited {
            return;
        }
        if max_connections > room {
            tracing::warn!(
                room,
                max_connections,
                open_files = files,
                pooled,
                max_exchanges,
                max_exchanges_per_client = per_client,
                upstream_sockets = sockets,
                "the limit of open files allows fewer connections than max_connections; raise it (LimitNOFILE, ulimit -n)"
            );
        } else if self.set && max_exchanges > sockets {
            tracing::warn!(
                room = sockets,
                max_connections,
                open_files = files,
                pooled,
                max_exchanges,
                max_exchanges_per_client = per_client,
                "the limit of open files allows fewer exchanges than max_exchanges; raise it (LimitNOFILE, ulimit -n)"
            );
        } else {
            tracing::info!(
                room,
                max_connections,
                open_files = files,
                pooled,
                max_exchanges,
                max_exchanges_per_client = per_client,
                upstream_sockets = sockets,
                "the limit of open files allows that many connections"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn room(keys: &str, limits: &str, files: u64) -> Room {
        let text = format!(
            "[limits]\n{limits}\n[[listener]]\nlisten = [\"127.0.0.1:0\", \"[::1]:0\"]\n{keys}\n[[route]]\nupstream = \"u\"\n\
             [upstream.u]\nurl = \"http://127.0.0.1:9\"\n"
        );
        Room::new(&crate::config::parse(&text, Path::new("proxy.toml")).unwrap(), 2, files)
    }

    #[test]
    fn the_defaults_leave_a_descriptor_for_every_connection() {
        for (keys, files) in [
            ("", 1024),
            ("", 4096),
            ("", 20_000),
            ("", 524_288),
            ("max_connections = 100", 4096),
            ("max_connections = 9600", 20_000),
        ] {
            let room = room(keys, "", files);
            let accepted = room.max_connections.min(room.connections);
            assert!(accepted + room.max_exchanges + room.pooled < files, "{room:?}");
            assert!(room.max_exchanges >= files / 4 && room.max_exchanges <= room.sockets, "{room:?}");
            assert!(room.per_client >= 16 && room.per_client <= room.max_exchanges / 4, "{room:?}");
        }
    }

    #[test]
    fn what_is_set_is_taken_and_a_shortage_named() {
        let none = |room: Room| assert_eq!(room.shortage(), None, "{room:?}");
        none(room("max_connections = 1000", "", 20_000));
        none(room("max_connections = 1000", "max_exchanges = 18000", 20_000));
        none(room("", "", u64::MAX));
        let exchanges = room("max_connections = 1000", "max_exchanges = 20000\nmax_exchanges_per_client = 7", 20_000);
        assert_eq!((exchanges.max_exchanges, exchanges.per_client), (20_000, 7));
        assert!(exchanges.shortage().unwrap().ends_with("`max_exchanges` is 20000"), "{exchanges:?}");
        assert!(room("max_connections = 9900", "", 20_000).shortage().unwrap().contains("`max_connections`"));
    }

    #[test]
    fn no_limit_and_a_tiny_one_both_serve() {
        let unlimited = room("", "", u64::MAX);
        assert_eq!((unlimited.max_exchanges, unlimited.per_client), (1_000_000, 250_000));
        let tiny = room("", "", 8);
        assert!(tiny.max_exchanges > 0 && tiny.per_client > 0 && tiny.sockets > 0, "{tiny:?}");
    }
}
