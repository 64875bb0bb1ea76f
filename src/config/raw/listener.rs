//! `[[listener]]`: where callers come in.

use super::tls::TlsTable;
use crate::config::reader::{OneOrMany, Span, raw_choice, raw_table};

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
        /// Whether other processes of the same user that also set this key may listen on the same ports; the kernel
        /// distributes connections among them. Default false: a start fails when the port is in use.
        reuse_port: bool,
        /// TLS material. Without it the listener is plain.
        tls: TlsTable,
        /// Every connection begins with a PROXY header, version 1 or 2. Without this key one is an error, as is any
        /// other garbage.
        proxy_protocol: ProxyProtocolTable,
        /// Answer every request with 308 to the same host, path and query on `https`, and serve nothing. Default none.
        /// WebKitGTK follows it for WebSockets as well; Chromium and Firefox do not, so pages must open `wss://` themselves.
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

raw_choice! {
    /// Where a listener sends its requests on.
    RedirectWord {
        /// `https://` and the host that was asked for.
        Https = "https",
    }
}
