//! The live WebSockets: who they are, what passed, and a way to end one or many.
//!
//! Cheap on purpose: one small allocation for each of them, and a lock that is held for a map's insert or remove.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::SystemTime,
};

use crate::{
    config::model::Route,
    protocol::address::PeerAddress,
    relay::{Cause, Control, Passed, Side},
};

/// One live WebSocket.
#[derive(Debug)]
pub struct Entry {
    /// The id of its opening handshake, as in the log.
    pub id: u64,
    /// The route that took it, and through that its upstream.
    pub route: Arc<Route>,
    /// The client's address.
    pub client: PeerAddress,
    /// The `Origin` as the log shows it; `None` where it was absent.
    pub origin: Option<Box<str>>,
    /// The subprotocol that was agreed on.
    pub subprotocol: Option<Box<str>>,
    /// When it was opened.
    pub since: SystemTime,
    control: Control,
    asked: AtomicBool,
}

impl Entry {
    /// What passed from `from` to the other side.
    pub fn passed(&self, from: Side) -> Passed {
        self.control.passed(from)
    }

    /// Milliseconds from its opening to the last byte that came from either side.
    pub fn last_byte_ms(&self) -> u64 {
        self.control.last_byte_ms()
    }

    /// Tells both sides to close with this code; what was asked first stands.
    pub fn close(&self, code: u16, cause: Cause) {
        self.asked.store(true, Ordering::Relaxed);
        self.control.close(code, cause);
    }
}

/// What is known of a WebSocket when it is opened.
#[derive(Debug)]
pub struct Opening {
    /// See [`Entry::id`].
    pub id: u64,
    /// See [`Entry::route`].
    pub route: Arc<Route>,
    /// See [`Entry::client`].
    pub client: PeerAddress,
    /// See [`Entry::origin`].
    pub origin: Option<Box<str>>,
    /// See [`Entry::subprotocol`].
    pub subprotocol: Option<Box<str>>,
}

/// All of them. Clones share one list.
#[derive(Clone, Debug, Default)]
pub struct Registry(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    live: Mutex<HashMap<u64, Arc<Entry>>>,
    ended: AtomicUsize,
    /// How often each code came from each side.
    codes: Mutex<BTreeMap<(Side, u16), u64>>,
}

/// From here on codes belong to libraries, and from the second on to applications (RFC 6455 §7.4.2): too many to count
/// each, so all of a range count as its first.
const RANGES: [u16; 2] = [3000, 4000];

fn counted_as(code: u16) -> u16 {
    RANGES.into_iter().rev().find(|&first| code >= first).unwrap_or(code)
}

impl Registry {
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Arc<Entry>>> {
        // Nothing under the lock can leave the map half changed.
        self.0.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters one; it leaves when the guard is dropped, however it ends.
    pub fn open(&self, opening: Opening) -> Listed {
        let Opening { id, route, client, origin, subprotocol } = opening;
        let entry = Arc::new(Entry {
            id,
            route,
            client,
            origin,
            subprotocol,
            since: SystemTime::now(),
            control: Control::default(),
            asked: AtomicBool::new(false),
        });
        self.lock().insert(id, Arc::clone(&entry));
        Listed { registry: self.clone(), entry }
    }

    /// How many have ended since the start.
    pub fn ended(&self) -> usize {
        self.0.ended.load(Ordering::Relaxed)
    }

    /// How many have ended with each Close code of each side; 1005 is a Close without one, 1006 a side that sent none.
    /// 3000 and 4000 stand for all codes from there on.
    pub fn close_codes(&self) -> BTreeMap<(Side, u16), u64> {
        self.0.codes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The one with this id.
    pub fn get(&self, id: u64) -> Option<Arc<Entry>> {
        self.lock().get(&id).cloned()
    }

    /// All of them now, in no order.
    pub fn list(&self) -> Vec<Arc<Entry>> {
        self.lock().values().cloned().collect()
    }

    /// Those that nobody asked to close yet, in no order.
    pub fn unasked(&self) -> Vec<Arc<Entry>> {
        self.lock().values().filter(|entry| !entry.asked.load(Ordering::Relaxed)).cloned().collect()
    }

    /// How many there are of each kind, such as per route: `count_by(|entry| entry.route.name.clone())`.
    pub fn count_by<K: Eq + std::hash::Hash>(&self, kind: impl Fn(&Entry) -> K) -> HashMap<K, usize> {
        let mut counts = HashMap::new();
        for entry in self.lock().values() {
            *counts.entry(kind(entry)).or_insert(0) += 1;
        }
        counts
    }

    /// Ends all at once.
    pub fn cut_all(&self) {
        for entry in self.list() {
            entry.control.cut();
        }
    }
}

/// A place in the registry.
#[derive(Debug)]
pub struct Listed {
    registry: Registry,
    entry: Arc<Entry>,
}

impl Listed {
    /// What is entered.
    pub fn entry(&self) -> &Entry {
        &self.entry
    }

    /// Counts the code that a side has closed with.
    pub fn closed_with(&self, side: Side, code: u16) {
        let mut codes = self.registry.0.codes.lock().unwrap_or_else(PoisonError::into_inner);
        *codes.entry((side, counted_as(code))).or_insert(0) += 1;
    }
}

impl AsRef<Control> for Listed {
    fn as_ref(&self) -> &Control {
        &self.entry.control
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        let mut entries = self.registry.lock();
        entries.remove(&self.entry.id);
        self.registry.0.ended.fetch_add(1, Ordering::Relaxed);
        // A crowd that has left leaves its room behind; give back what is far more than the rest needs.
        if entries.capacity() > 1024 && entries.len() < entries.capacity() / 8 {
            entries.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn opening(id: u64) -> Opening {
        let text = "[[listener]]\nlisten = \"127.0.0.1:0\"\n[[route]]\nupstream = \"u\"\n[upstream.u]\nurl = \"builtin:echo\"\n";
        let model = crate::config::parse(text, Path::new("proxy.toml")).unwrap();
        let client = PeerAddress::Local;
        Opening { id, route: Arc::clone(&model.routes.all()[0]), client, origin: None, subprotocol: None }
    }

    #[test]
    fn close_codes_are_counted_by_side_and_private_ones_by_their_range() {
        let registry = Registry::default();
        let listed = registry.open(opening(1));
        for code in [1000, 1000, 1006, 3001, 3999, 4000, u16::MAX] {
            listed.closed_with(Side::Downstream, code);
        }
        listed.closed_with(Side::Upstream, 1000);
        let down = |code| (Side::Downstream, code);
        let expected =
            [(down(1000), 2), (down(1006), 1), (down(3000), 2), (down(4000), 2), ((Side::Upstream, 1000), 1)];
        assert_eq!(registry.close_codes(), BTreeMap::from(expected));
    }
}
