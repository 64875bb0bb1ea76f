//! The two buffers that all TLS streams of a thread share; an idle stream owns none.

use std::cell::RefCell;

use super::{MAX_HELD, records::MAX_RECORD};

/// Room for the longest unfinished input and one more record; a bulk read needs less.
pub(super) const INBOUND: usize = MAX_HELD + MAX_RECORD;

thread_local! {
    static CIPHERTEXT_IN: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static CIPHERTEXT_OUT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Lends the buffer that ciphertext is read into, for the time of one poll. A nested borrow gets a buffer of its own.
pub(super) fn inbound<R>(body: impl FnOnce(&mut [u8]) -> R) -> R {
    CIPHERTEXT_IN.with(|cell| match cell.try_borrow_mut() {
        Ok(mut buffer) => {
            buffer.resize(INBOUND, 0);
            body(&mut buffer)
        }
        Err(_) => body(&mut vec![0; INBOUND]),
    })
}

/// Lends the buffer that records are encrypted into; it grows to what they need. A nested borrow gets one of its own.
pub(super) fn outbound<R>(body: impl FnOnce(&mut Vec<u8>) -> R) -> R {
    CIPHERTEXT_OUT.with(|cell| match cell.try_borrow_mut() {
        Ok(mut buffer) => body(&mut buffer),
        Err(_) => body(&mut Vec::new()),
    })
}
