//! The live WebSockets: who they are, what passed, and a way to end one or many.
//!
//! Cheap on purpose: one small allocation for each of them, and a lock that is held for a map's insert or remove.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::SystemTime,
};

use crate::{
    config::model::Route,
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
    pub client: SocketAddr,
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
    pub client: SocketAddr,
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
