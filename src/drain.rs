//! Stopping: who is still working, and how to tell them that it is time to end.
//!
//! Every task of the proxy starts here, so that a stop can wait for it and count it. hyper's
//! connection future is finished the moment a connection is switched, so relays are counted apart.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Poll, Waker},
    time::Duration,
};

use tokio::time::timeout;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Starts tasks, counts them, and carries the two stop signals to them.
///
/// Clones share one; every request holds some, so that a clone is one count.
#[derive(Clone, Debug, Default)]
pub struct Tracker(Arc<Tasks>);

#[derive(Debug, Default)]
struct Tasks {
    connections: TaskTracker,
    relays: TaskTracker,
    background: TaskTracker,
    draining: Signal,
    cut: Signal,
    finished: CancellationToken,
}

/// Given once, and waited for by every connection.
#[derive(Debug, Default)]
struct Signal {
    token: CancellationToken,
    given: AtomicBool,
}

impl Signal {
    fn give(&self) {
        // First the flag: whoever the token wakes looks at that.
        self.given.store(true, Ordering::Release);
        self.token.cancel();
    }

    fn is_given(&self) -> bool {
        self.given.load(Ordering::Acquire)
    }

    /// Resolves when it is given.
    ///
    /// A connection waits for it beside its own work, and so polls it with every message. The token's future takes a
    /// lock each time; this one asks it once for each task.
    async fn wait(&self) {
        let mut given = pin!(self.token.cancelled());
        let mut task: Option<Waker> = None;
        poll_fn(|cx| {
            if self.is_given() {
                return Poll::Ready(());
            }
            if task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
                return Poll::Pending;
            }
            task = Some(cx.waker().clone());
            given.as_mut().poll(cx)
        })
        .await;
    }
}

/// What was still alive at a moment of the drain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Live {
    /// Downstream connections that still speak HTTP.
    pub connections: usize,
    /// Switched connections.
    pub relays: usize,
}

impl Tracker {
    /// Starts the task of one downstream HTTP connection.
    pub fn connection(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.0.connections.spawn(task);
    }

    /// Starts the task of one relay.
    pub fn relay(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.0.relays.spawn(task);
    }

    /// Starts a task that a drain does not wait for: an accept loop, an upstream connection.
    pub fn background(&self, task: impl Future<Output = ()> + Send + 'static) {
        let own = self.clone();
        self.0.background.spawn(async move {
            tokio::select! {
                () = task => {}
                () = own.cut() => {}
            }
        });
    }

    /// Resolves when no new work is to be taken and running work should end in its own time.
    pub async fn draining(&self) {
        self.0.draining.wait().await;
    }

    /// Whether a drain has begun.
    pub fn is_draining(&self) -> bool {
        self.0.draining.is_given()
    }

    /// Resolves when the grace is over and everything ends at once.
    pub async fn cut(&self) {
        self.0.cut.wait().await;
    }

    /// How much is alive now.
    pub fn live(&self) -> Live {
        Live { connections: self.0.connections.len(), relays: self.0.relays.len() }
    }

    /// Begins the drain: no new work, and running work is to end in its own time.
    pub fn start_draining(&self) {
        self.0.draining.give();
        self.0.connections.close();
        self.0.relays.close();
    }

    /// Resolves when a drain has begun and the last connection and the last relay have ended.
    pub async fn all_ended(&self) {
        // A connection that ends may still have started a relay: relays are waited for last.
        self.0.connections.wait().await;
        self.0.relays.wait().await;
    }

    /// Cuts what is left, and lets the threads go.
    ///
    /// A cut task is dropped at its next await; two seconds bound the wait for that.
    pub async fn finish(&self) {
        self.0.cut.give();
        self.0.background.close();
        let settled = async {
            self.all_ended().await;
            self.0.background.wait().await;
        };
        // Nothing is lost when this runs out: the process is about to end.
        let _settled_in_time = timeout(CUT_LIMIT, settled).await.is_ok();
        self.0.finished.cancel();
    }

    /// Cuts everything and lets the threads go, without waiting.
    pub fn abandon(&self) {
        self.0.cut.give();
        self.0.finished.cancel();
    }

    /// Resolves when all is over and the threads may end.
    pub async fn finished(&self) {
        self.0.finished.cancelled().await;
    }
}

/// How long cut tasks have to be dropped; they only have to reach an await.
const CUT_LIMIT: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_drain_waits_for_connections_and_then_for_relays() {
        let tracker = Tracker::default();
        let (own, relayed) = (tracker.clone(), tracker.clone());
        tracker.connection(async move {
            own.draining().await;
            relayed.relay(tokio::time::sleep(Duration::from_secs(5)));
        });
        let before = tokio::time::Instant::now();
        tracker.start_draining();
        tracker.all_ended().await;
        assert_eq!(before.elapsed(), Duration::from_secs(5));
        assert_eq!(tracker.live(), Live::default());
    }

    #[tokio::test(start_paused = true)]
    async fn a_signal_reaches_a_waiter_that_changed_its_task() {
        let tracker = Tracker::default();
        let own = tracker.clone();
        let (woken, mut told) = tokio::sync::oneshot::channel();
        let mut waiting = Box::pin(async move { own.cut().await });
        assert!(futures_util::poll!(&mut waiting).is_pending());
        tracker.connection(async move {
            waiting.await;
            woken.send(()).unwrap();
        });
        tokio::task::yield_now().await;
        tracker.abandon();
        timeout(Duration::from_secs(1), &mut told).await.expect("not woken").unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_ignores_the_cut_is_not_waited_for_for_ever() {
        let tracker = Tracker::default();
        tracker.relay(std::future::pending());
        let before = tokio::time::Instant::now();
        tracker.start_draining();
        tracker.finish().await;
        assert_eq!(before.elapsed(), CUT_LIMIT);
    }
}
