//! What one run of the load does, as compare hands it over on the command line.

use std::{net::SocketAddr, path::PathBuf};

use crate::{Error, Result};

/// The shape of the traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Messages go to the backend and come back, one under way per connection.
    Echo,
    /// The backend sends, evenly, to all connections in turn.
    Push,
    /// Connections are opened, switched, and closed.
    Handshake,
    /// Plain requests on connections that stay.
    Get,
    /// Connections are opened, used once, and left in peace.
    Idle,
}

impl Kind {
    const ALL: [(&'static str, Self); 5] = [
        ("echo", Self::Echo),
        ("push", Self::Push),
        ("handshake", Self::Handshake),
        ("get", Self::Get),
        ("idle", Self::Idle),
    ];
}

/// How the client speaks to the proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Plain,
    /// TLS 1.3, trusting this certificate alone.
    Tls {
        certificate: PathBuf,
        /// Whether sessions are resumed.
        resume: bool,
        /// Whether WebSockets share connections (RFC 8441).
        http2: bool,
    },
}

/// One run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) kind: Kind,
    pub(crate) transport: Transport,
    /// The proxy.
    pub(crate) proxy: SocketAddr,
    /// The backend itself, which is told when to push.
    pub(crate) backend: SocketAddr,
    /// WebSockets, where several share a connection.
    pub(crate) connections: usize,
    /// Payload bytes of a message.
    pub(crate) size: usize,
    /// Messages, handshakes or requests in all.
    pub(crate) count: usize,
    /// Messages a second, where the backend sends.
    pub(crate) rate: u64,
    /// How many of them fall due at the same moment.
    pub(crate) together: u64,
}

impl Plan {
    /// As arguments.
    pub(crate) fn to_arguments(&self) -> Vec<String> {
        let Self { kind, transport, proxy, backend, connections, size, count, rate, together } = self;
        let kind = Kind::ALL.iter().find(|(_, known)| known == kind).map_or("", |(name, _)| *name);
        let mut arguments = vec![
            format!("kind={kind}"),
            format!("proxy={proxy}"),
            format!("backend={backend}"),
            format!("connections={connections}"),
            format!("size={size}"),
            format!("count={count}"),
            format!("rate={rate}"),
            format!("together={together}"),
        ];
        if let Transport::Tls { certificate, resume, http2 } = transport {
            arguments.push(format!("certificate={}", certificate.display()));
            arguments.push(format!("resume={resume}"));
            arguments.push(format!("http2={http2}"));
        }
        arguments
    }

    /// From arguments.
    pub(crate) fn parse(arguments: &[String]) -> Result<Self> {
        let optional = |name: &str| arguments.iter().find_map(|text| text.strip_prefix(name)?.strip_prefix('='));
        let needed = |name: &str| optional(name).ok_or_else(|| Error::from(format!("load needs {name}=")));
        let kind = needed("kind")?;
        let known = Kind::ALL.iter().find(|(name, _)| *name == kind);
        let transport = match optional("certificate") {
            None => Transport::Plain,
            Some(path) => Transport::Tls {
                certificate: path.into(),
                resume: optional("resume") == Some("true"),
                http2: optional("http2") == Some("true"),
            },
        };
        Ok(Self {
            kind: known.ok_or_else(|| format!("load knows no kind `{kind}`"))?.1,
            transport,
            proxy: needed("proxy")?.parse()?,
            backend: needed("backend")?.parse()?,
            connections: needed("connections")?.parse()?,
            size: needed("size")?.parse()?,
            count: needed("count")?.parse()?,
            rate: needed("rate")?.parse()?,
            together: needed("together")?.parse()?,
        })
    }
}

/// What a run counted: the line with which it ends.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Counted {
    /// Messages that the proxy relayed, both ways; or handshakes, or requests.
    pub(crate) messages: u64,
    /// Bytes of frames that it relayed, both ways.
    pub(crate) bytes: u64,
    /// Half of the messages took no longer, in nanoseconds.
    pub(crate) p50: u64,
    /// And of a hundred, 99.
    pub(crate) p99: u64,
}

impl Counted {
    pub(crate) fn to_line(self) -> String {
        let Self { messages, bytes, p50, p99 } = self;
        format!("done {messages} {bytes} {p50} {p99}")
    }

    pub(crate) fn parse(line: &str) -> Option<Self> {
        let mut numbers = line.strip_prefix("done ")?.split(' ').map(|text| text.parse().ok());
        let mut next = || numbers.next().flatten();
        Some(Self { messages: next()?, bytes: next()?, p50: next()?, p99: next()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_survives_the_command_line() {
        let plain = Plan {
            kind: Kind::Push,
            transport: Transport::Plain,
            proxy: ([127, 0, 0, 1], 1).into(),
            backend: ([127, 0, 0, 1], 2).into(),
            connections: 3,
            size: 4,
            count: 5,
            rate: 6,
            together: 7,
        };
        let tls = Transport::Tls { certificate: "/tmp/a b.pem".into(), resume: true, http2: true };
        for plan in [Plan { transport: tls, kind: Kind::Idle, ..plain.clone() }, plain] {
            assert_eq!(Plan::parse(&plan.to_arguments()).unwrap(), plan);
        }
        assert!(Plan::parse(&["kind=echo".to_owned()]).is_err());
    }

    #[test]
    fn a_count_survives_its_line() {
        let counted = Counted { messages: 1, bytes: 2, p50: 3, p99: 4 };
        assert_eq!(Counted::parse(&counted.to_line()), Some(counted));
        assert_eq!(Counted::parse("done 1 2 3"), None);
    }
}
