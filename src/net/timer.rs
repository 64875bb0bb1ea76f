//! A wait inside a polled stream.

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

/// One wait with a limit, of a stream that is polled.
///
/// Waits begin and end with every message, and hardly one runs out. So the runtime's timer stays where it is when the
/// wait moves on; when it goes off early it is moved then, once.
#[derive(Debug, Default)]
pub struct Timer {
    until: Option<Instant>,
    armed: Option<Pin<Box<Sleep>>>,
}

impl Timer {
    /// (Re)starts: `limit` from now on.
    pub fn start(&mut self, limit: Duration) {
        self.until = Some(Instant::now() + limit);
    }

    /// The same, or no wait where there is no limit.
    pub fn start_within(&mut self, limit: Option<Duration>) {
        self.until = limit.map(|limit| Instant::now() + limit);
    }

    /// Starts unless it is running already; answers whether it was not.
    pub fn start_if_idle(&mut self, limit: Duration) -> bool {
        let idle = self.until.is_none();
        if idle {
            self.start(limit);
        }
        idle
    }

    /// Forgets the wait.
    pub fn stop(&mut self) {
        self.until = None;
    }

    /// Whether the wait is over; if it is still running, the task is woken then.
    pub fn poll_elapsed(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(until) = self.until else { return false };
        let armed = self.armed.get_or_insert_with(|| Box::pin(sleep_until(until)));
        if armed.deadline() > until {
            armed.as_mut().reset(until);
        }
        while armed.as_mut().poll(cx).is_ready() {
            if armed.deadline() >= until {
                return true;
            }
            armed.as_mut().reset(until);
        }
        false
    }

    /// Passes on what a write came to; once the peer has taken nothing for `limit`, it fails with `late`.
    pub fn watch_write<T>(
        &mut self,
        cx: &mut Context<'_>,
        polled: Poll<io::Result<T>>,
        limit: Duration,
        late: impl FnOnce() -> io::Error,
    ) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.stop();
            return polled;
        }
        self.start_if_idle(limit);
        if self.poll_elapsed(cx) { Poll::Ready(Err(late())) } else { Poll::Pending }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    async fn elapsed(timer: &mut Timer) {
        poll_fn(|cx| if timer.poll_elapsed(cx) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_that_moves_on_ends_when_it_should() {
        let (begun, mut timer) = (Instant::now(), Timer::default());
        timer.start(Duration::from_secs(10));
        assert!(futures_util::poll!(std::pin::pin!(elapsed(&mut timer))).is_pending());
        tokio::time::advance(Duration::from_secs(8)).await;
        timer.start(Duration::from_secs(10));
        elapsed(&mut timer).await;
        assert_eq!(begun.elapsed().as_secs(), 18);
        // A shorter one is not kept waiting by the longer one before it.
        timer.start(Duration::from_secs(100));
        assert!(futures_util::poll!(std::pin::pin!(elapsed(&mut timer))).is_pending());
        timer.start(Duration::from_secs(1));
        elapsed(&mut timer).await;
        assert_eq!(begun.elapsed().as_secs(), 19);
        timer.stop();
        assert!(futures_util::poll!(std::pin::pin!(elapsed(&mut timer))).is_pending());
    }
}
