//! What the strict reader and the service of one connection tell each other.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Poll, Waker},
    time::Duration,
};

use hyper::{body::Incoming, upgrade::OnUpgrade};
use thiserror::Error;

use crate::protocol::{interim::Interim, request_framing::FramingError};

/// A request that was not handed on as it came; a stand-in took its place and must be refused.
#[derive(Clone, Debug, Error)]
pub enum Malformed {
    /// Its head could be read in two ways, or is over a limit.
    #[error("{0}")]
    Framing(FramingError),
    /// Its head did not end in time.
    #[error("the request head did not end within {0:?} (limits.head_timeout)")]
    Slow(Duration),
}

#[derive(Debug, Default)]
struct Inner {
    answered: bool,
    switched: bool,
    malformed: Option<Malformed>,
    reader: Option<Waker>,
    /// Part of a head has come and its end has not.
    mid_head: bool,
    /// Waits for that to be over.
    stopper: Option<Waker>,
    /// A graceful shutdown has begun.
    stopping: bool,
    /// Receives the stream when hyper ends the connection as upgraded.
    upgrade: Option<OnUpgrade>,
    /// In this turn the stream was read until it had no more data, so it wakes the connection.
    reads: bool,
    /// The stream was not read for a while; check whether the client has disconnected.
    look: bool,
    /// Interim responses to write.
    interim: Vec<u8>,
    /// Whether some are not written yet.
    interim_unsent: bool,
    /// Waits until they are.
    interim_waiter: Option<Waker>,
    /// A request body that is no longer read, kept until the response is written.
    unread: Option<Incoming>,
    /// A response was given up before its end.
    broken: bool,
}

/// Held by a response's body: when hyper lets go of it, the request is answered.
pub(super) struct AnswerOnDrop(pub(super) State);

impl Drop for AnswerOnDrop {
    fn drop(&mut self) {
        self.0.answer();
    }
}

/// Shared by the reader and the service of one connection; never held over an await.
#[derive(Clone, Debug, Default)]
pub(super) struct State(Arc<Mutex<Inner>>);

impl State {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every critical section is a handful of assignments: a poisoned lock still holds sound values.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reader: the head of a further request begins.
    pub(super) fn begin(&self) {
        self.lock().answered = false;
    }

    /// Reader: whether part of a head has come and its end has not.
    pub(super) fn set_mid_head(&self, mid_head: bool) {
        let mut inner = self.lock();
        inner.mid_head = mid_head;
        if let Some(stopper) = inner.stopper.take_if(|_| !mid_head) {
            stopper.wake();
        }
    }

    /// Resolves when no head is half read: a client that has begun to ask is still answered.
    pub(super) async fn between_heads(&self) {
        std::future::poll_fn(|cx| {
            let mut inner = self.lock();
            if !inner.mid_head {
                return Poll::Ready(());
            }
            inner.stopper = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Connection: a graceful shutdown has begun.
    pub(super) fn stop(&self) {
        self.lock().stopping = true;
    }

    /// Writer: whether a graceful shutdown has begun.
    pub(super) fn is_stopping(&self) -> bool {
        self.lock().stopping
    }

    /// Reader: the request at hand is replaced by a stand-in.
    pub(super) fn replace(&self, malformed: Malformed) {
        self.lock().malformed = Some(malformed);
    }

    /// Service: what is wrong with the request at hand.
    pub(super) fn take_malformed(&self) -> Option<Malformed> {
        self.lock().malformed.take()
    }

    /// Service: the response is a 101, so what follows the request is no longer HTTP.
    pub(super) fn switch(&self) {
        self.lock().switched = true;
    }

    /// Service: hyper will end the connection as upgraded and leave the stream here. The latest one counts.
    pub(super) fn keep_upgrade(&self, upgrade: OnUpgrade) {
        self.lock().upgrade = Some(upgrade);
    }

    /// Connection: where the stream is, unless it was switched and belongs to a relay.
    pub(super) fn take_upgrade(&self) -> Option<OnUpgrade> {
        let mut inner = self.lock();
        let upgrade = inner.upgrade.take();
        upgrade.filter(|_| !inner.switched)
    }

    /// Service: an interim response, which the writer takes as soon as everything before it is out.
    pub(super) fn send_interim(&self, interim: &Interim) {
        let mut inner = self.lock();
        interim.write(&mut inner.interim);
        inner.interim_unsent = true;
    }

    /// Service: resolves when no interim response is left to be written.
    pub(super) async fn interims_sent(&self) {
        std::future::poll_fn(|cx| {
            let mut inner = self.lock();
            if !inner.interim_unsent {
                return Poll::Ready(());
            }
            inner.interim_waiter = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Writer: takes the interim responses that are to be written.
    pub(super) fn take_interims(&self) -> Option<Vec<u8>> {
        let mut inner = self.lock();
        (!inner.interim.is_empty()).then(|| std::mem::take(&mut inner.interim))
    }

    /// Writer: those that were taken are written.
    pub(super) fn interims_written(&self) {
        let mut inner = self.lock();
        inner.interim_unsent = !inner.interim.is_empty();
        if !inner.interim_unsent
            && let Some(waiter) = inner.interim_waiter.take()
        {
            waiter.wake();
        }
    }

    /// Connection: it is about to be polled.
    pub(super) fn begin_turn(&self) {
        self.lock().reads = false;
    }

    /// Reader: the stream has nothing more for now, and wakes the connection when it has.
    pub(super) fn wait_for_more(&self) {
        self.lock().reads = true;
    }

    /// Connection: whether a disconnect of the client would be noticed in this turn.
    pub(super) fn is_read(&self) -> bool {
        self.lock().reads
    }

    /// Connection: check for a disconnect of the client in the next turn.
    pub(super) fn look(&self) {
        self.lock().look = true;
    }

    /// Request body: the rest of it is not read.
    ///
    /// hyper stops reading when it is dropped. If it will end the connection as upgraded, it then also discards the
    /// unwritten part of the response. So the body is kept until the response is written.
    pub(super) fn keep_unread(&self, body: Incoming) {
        let mut inner = self.lock();
        if inner.upgrade.is_some() {
            inner.unread = Some(body);
        }
    }

    /// Writer: everything that hyper has written is flushed. Returns whether to check for a disconnect.
    pub(super) fn flushed(&self) -> bool {
        let mut inner = self.lock();
        let unread = if inner.answered { inner.unread.take() } else { None };
        let look = std::mem::take(&mut inner.look);
        drop(inner);
        // Outside the lock: the drop wakes the connection.
        drop(unread);
        look
    }

    /// Service: the response is complete, so what follows the request may be read as a further one.
    pub(super) fn answer(&self) {
        let mut inner = self.lock();
        inner.answered = true;
        if let Some(reader) = inner.reader.take() {
            reader.wake();
        }
    }

    /// Response: it was dropped before its end. The connection ends with a reset, so that the response does not look
    /// complete.
    pub(super) fn break_off(&self) {
        self.lock().broken = true;
    }

    /// Connection: a graceful shutdown cuts it, together with a response in progress.
    pub(super) fn cut(&self) {
        let mut inner = self.lock();
        inner.broken |= !inner.answered;
    }

    /// Stream: whether it ends with a reset.
    pub(super) fn is_broken(&self) -> bool {
        self.lock().broken
    }

    /// Reader: whether the request at hand was answered and the connection still speaks HTTP.
    ///
    /// If not, `waker` is called when that changes.
    pub(super) fn may_read_on(&self, waker: &Waker) -> bool {
        let mut inner = self.lock();
        let free = inner.answered && !inner.switched;
        if !free {
            inner.reader = Some(waker.clone());
        }
        free
    }

    /// Writer: whether the response that goes out now is the 101.
    pub(super) fn is_switched(&self) -> bool {
        self.lock().switched
    }
}
