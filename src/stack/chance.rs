//! Random numbers that spread clients over time. Nothing is protected by them.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

/// Range over which refused clients retry. Clients that are refused again are spread again; a longer range would leave
/// free capacity unused.
const WINDOW: Duration = Duration::from_secs(5);

/// From 0 up to, but not, 1.
pub(super) fn fraction() -> f64 {
    let bits = u32::try_from(RandomState::new().hash_one(0u8) >> 32).unwrap_or(0);
    f64::from(bits) / (f64::from(u32::MAX) + 1.0)
}

/// Returns seconds for `Retry-After`, from 1 to 5.
pub(super) fn retry_after() -> u64 {
    WINDOW.mul_f64(fraction()).as_secs() + 1
}
