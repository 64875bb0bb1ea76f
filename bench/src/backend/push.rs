//! A push: messages nobody asked for, to one connection after the other, at an even rate.
//!
//! A broadcast is a push of which as many messages as there are members fall due at the same moment.
//!
//! Clients open `/push?group=G`. When all are there, the load asks with `GET /go?...` on a connection of its own.

use crate::{clock, wire};

/// Everything a `GET /go?group=G&clients=N&count=C&rate=R&together=T&size=S` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Order {
    /// Which connections.
    pub(crate) group: u64,
    /// How many of them there must be.
    pub(crate) clients: usize,
    /// Messages in all.
    pub(crate) count: u64,
    /// Messages a second.
    pub(crate) rate: u64,
    /// How many of them fall due at the same moment.
    pub(crate) together: u64,
    /// Payload bytes of each, 126 to 65,535.
    pub(crate) size: usize,
}

impl Order {
    /// The target that asks for it.
    pub(crate) fn target(&self) -> String {
        let Self { group, clients, count, rate, together, size } = self;
        format!("/go?group={group}&clients={clients}&count={count}&rate={rate}&together={together}&size={size}")
    }

    /// How many messages are due so many nanoseconds after the beginning.
    fn due_after(&self, passed: u64) -> u64 {
        let even = u128::from(passed) * u128::from(self.rate) / 1_000_000_000;
        let together = self.together.max(1);
        u64::try_from(even).unwrap_or(u64::MAX) / together * together
    }

    pub(super) fn parse(target: &str) -> Option<Self> {
        let query = target.strip_prefix("/go?")?;
        Some(Self {
            group: parameter(query, "group")?,
            clients: parameter(query, "clients")?,
            count: parameter(query, "count")?,
            rate: parameter(query, "rate")?,
            together: parameter(query, "together")?,
            size: parameter(query, "size")?,
        })
    }
}

/// The target under which a client joins a group.
pub(crate) fn join(group: u64) -> String {
    format!("/push?group={group}")
}

/// The group that a target joins.
pub(super) fn group_of(target: &str) -> Option<u64> {
    parameter(target.strip_prefix("/push?")?, "group")
}

fn parameter<T: std::str::FromStr>(query: &str, name: &str) -> Option<T> {
    query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
}

/// An order under way.
pub(super) struct Push {
    pub(super) order: Order,
    members: Vec<usize>,
    began: u64,
    sent: u64,
    frame: Vec<u8>,
}

impl Push {
    pub(super) fn new(order: Order, members: Vec<usize>) -> Self {
        let mut frame = wire::frame_header(0x82, order.size as u64, false);
        frame.resize(wire::PUSH_HEADER + order.size, b'p');
        Self { order, members, began: clock::now(), sent: 0, frame }
    }

    pub(super) fn is_done(&self) -> bool {
        self.sent >= self.order.count
    }

    /// The next message that is due and the connection it goes to. Its payload begins with the moment it was made.
    pub(super) fn next_due(&mut self) -> Option<(usize, &[u8])> {
        let now = clock::now();
        if self.is_done() || self.sent >= self.order.due_after(now.saturating_sub(self.began)) {
            return None;
        }
        let turn = usize::try_from(self.sent).unwrap_or_default() % self.members.len().max(1);
        let member = *self.members.get(turn)?;
        self.sent += 1;
        if let Some(stamp) = self.frame.get_mut(wire::PUSH_HEADER..wire::PUSH_HEADER + 8) {
            stamp.copy_from_slice(&now.to_le_bytes());
        }
        Some((member, &self.frame))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_survives_its_target() {
        let order = Order { group: 7, clients: 500, count: 8_000, rate: 8_000, together: 500, size: 256 };
        assert_eq!(Order::parse(&order.target()), Some(order));
        assert_eq!(Order::parse("/go?group=7"), None);
        assert_eq!(group_of(&join(7)), Some(7));
        assert_eq!(group_of("/"), None);
    }

    #[test]
    fn a_broadcast_falls_due_at_once_and_an_even_push_does_not() {
        let even = Order { group: 7, clients: 4, count: 100, rate: 1_000, together: 1, size: 256 };
        let broadcast = Order { together: 4, ..even };
        let due = |order: Order| [0, 1, 3, 4, 7, 8].map(|ms| order.due_after(ms * 1_000_000));
        assert_eq!(due(even), [0, 1, 3, 4, 7, 8]);
        assert_eq!(due(broadcast), [0, 0, 0, 4, 4, 8]);
    }
}
