//! The bars: how dear switchgate may be, one line each. A figure above its bar is a regression.

/// What a figure is held against.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Limit {
    /// So many times the cheaper of nginx and HAProxy.
    Best(f64),
    /// So many times HAProxy.
    Haproxy(f64),
    /// So many times the floor.
    Floor(f64),
    /// So much, in the row's own unit.
    Absolute(f64),
}

/// Row and limit.
pub(crate) const BARS: [(&str, Limit); 28] = [
    ("echo 64 B, ws", Limit::Best(1.0)),
    ("echo 64 B, ws", Limit::Floor(1.1)),
    ("echo 64 B, wss", Limit::Best(0.95)),
    ("echo 4 KiB, ws", Limit::Best(1.0)),
    ("echo 4 KiB, ws", Limit::Floor(1.1)),
    ("echo 4 KiB, wss", Limit::Best(0.95)),
    // nginx has no WebSockets over HTTP/2.
    ("echo 64 B, h2", Limit::Haproxy(1.0)),
    ("echo 4 KiB, h2", Limit::Haproxy(1.0)),
    ("push 256 B, ws", Limit::Best(1.0)),
    ("push 256 B, ws", Limit::Floor(1.1)),
    ("push 256 B, wss", Limit::Best(0.95)),
    ("1 MiB, ws", Limit::Haproxy(1.1)),
    ("1 MiB, wss", Limit::Best(1.0)),
    ("handshake, ws", Limit::Best(1.2)),
    ("handshake, wss full", Limit::Best(1.0)),
    ("handshake, wss resumed", Limit::Best(1.0)),
    ("GET, ws port", Limit::Best(1.5)),
    ("GET, wss port", Limit::Best(1.5)),
    ("idle connection, ws", Limit::Absolute(2.0)),
    ("idle connection, wss", Limit::Absolute(8.0)),
    ("ping-pong, ws, p50", Limit::Best(1.0)),
    ("ping-pong, ws, p99", Limit::Best(1.0)),
    ("ping-pong, wss, p50", Limit::Best(1.0)),
    ("ping-pong, wss, p99", Limit::Best(1.0)),
    ("push 8,000/s, ws, p50", Limit::Best(1.0)),
    ("push 8,000/s, ws, p99", Limit::Best(1.0)),
    ("push 8,000/s, wss, p50", Limit::Best(1.0)),
    ("push 8,000/s, wss, p99", Limit::Best(1.0)),
];

/// What one row knows of switchgate: its figure, and how many times that of the others it is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Standing {
    pub(crate) figure: Option<f64>,
    pub(crate) to_best: Option<f64>,
    pub(crate) to_haproxy: Option<f64>,
    pub(crate) to_floor: Option<f64>,
}

impl Limit {
    /// Whether the limit is kept; `None` where what it takes was not measured.
    pub(crate) fn is_kept(self, standing: &Standing) -> Option<bool> {
        let (measured, limit) = match self {
            Self::Best(limit) => (standing.to_best, limit),
            Self::Haproxy(limit) => (standing.to_haproxy, limit),
            Self::Floor(limit) => (standing.to_floor, limit),
            Self::Absolute(limit) => (standing.figure, limit),
        };
        measured.map(|measured| measured <= limit)
    }

    /// As the table says it.
    pub(crate) fn to_text(self, unit: &str) -> String {
        match self {
            Self::Best(limit) => format!("≤ {limit:.2}× best"),
            Self::Haproxy(limit) => format!("≤ {limit:.2}× HAProxy"),
            Self::Floor(limit) => format!("≤ {limit:.2}× floor"),
            Self::Absolute(limit) => format!("≤ {limit:.1} {unit}"),
        }
    }
}

/// The bars of a row.
pub(crate) fn of(row: &str) -> impl Iterator<Item = Limit> {
    BARS.iter().filter(move |(name, _)| *name == row).map(|(_, limit)| *limit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::{self, Scenario};

    #[test]
    fn every_row_has_a_bar_and_every_bar_a_row() {
        let rows: Vec<String> = scenario::all(true, 100).iter().flat_map(Scenario::rows).collect();
        assert!(rows.iter().all(|row| of(row).next().is_some()));
        assert!(BARS.iter().all(|(name, _)| rows.iter().any(|row| row == name)));
    }

    #[test]
    fn a_bar_is_judged_only_by_what_was_measured() {
        let standing = Standing { figure: Some(2.0), to_best: Some(1.0), ..Standing::default() };
        assert_eq!(Limit::Best(1.0).is_kept(&standing), Some(true));
        assert_eq!(Limit::Absolute(1.9).is_kept(&standing), Some(false));
        assert_eq!(Limit::Floor(1.1).is_kept(&standing), None);
    }
}
