//! Interim responses on their way from an upstream to the client of one exchange.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use crate::protocol::interim::Interim;

/// Queue of the interim responses of one exchange that are not yet sent to the client. Clones share it.
///
/// A request extension, absent for HTTP/1.0 clients. The limits on what an upstream may send
/// ([`crate::protocol::interim`]) bound the queue; none is dropped for a slow client.
#[derive(Clone, Debug, Default)]
pub struct Interims(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    waiting: VecDeque<Interim>,
    client: Option<Waker>,
}

impl Interims {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing panics while it is held, and the queue is whole after every step.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds one and wakes the sending task.
    pub fn push(&self, interim: Interim) {
        let mut inner = self.lock();
        inner.waiting.push_back(interim);
        if let Some(client) = inner.client.take() {
            client.wake();
        }
    }

    /// Returns the next one, or wakes the task when there is one.
    pub fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Interim> {
        let mut inner = self.lock();
        if let Some(interim) = inner.waiting.pop_front() {
            return Poll::Ready(interim);
        }
        if !inner.client.as_ref().is_some_and(|client| client.will_wake(cx.waker())) {
            inner.client = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}
