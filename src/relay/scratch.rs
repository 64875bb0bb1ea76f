//! The one buffer that all relays of a thread share; an idle relay owns none.

use std::cell::RefCell;

/// Largest read at once. A TLS record is at most 16 KiB; four of them pay for a system call well enough.
const SIZE: usize = 64 * 1024;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Lends the thread's scratch buffer for the time of one poll.
///
/// A nested borrow (a stream that relays inside its own `poll_read`) gets a buffer of its own.
pub(super) fn with<R>(body: impl FnOnce(&mut [u8]) -> R) -> R {
    SCRATCH.with(|cell| match cell.try_borrow_mut() {
        Ok(mut buffer) => {
            buffer.resize(SIZE, 0);
            body(&mut buffer)
        }
        Err(_) => body(&mut vec![0; SIZE]),
    })
}
