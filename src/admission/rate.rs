//! Rates of opening handshakes, of a whole route and of each client network.

use std::{
    collections::HashMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use governor::{
    Quota, RateLimiter,
    clock::Clock,
    middleware::NoOpMiddleware,
    nanos::Nanos,
    state::{InMemoryState, NotKeyed, StateStore, keyed::ShrinkableKeyedStateStore},
};
use tokio::time::Instant;

use super::{counts, seldom::Seldom};
use crate::{config::route_limits::Rate, protocol::network::Network};

/// Most client networks whose rate is followed at a time, for each route: about 4 MiB. One that comes once is forgotten
/// within three seconds, so that it takes more than twenty thousand new ones a second to fill this.
///
/// When an attacker has more networks than that, newcomers pass this limit, and the route's own still holds.
/// Refusing them would shut out everybody else, and forgetting others would let the attacker choose whom.
const MOST_FOLLOWED: usize = 1 << 16;

/// How often the networks are gone through, and those forgotten that have all of their burst again.
const SWEEP: Duration = Duration::from_secs(1);

/// The clock of the runtime, counted from when a limit was made.
#[derive(Clone, Copy, Debug)]
struct RuntimeClock(Instant);

impl RuntimeClock {
    fn start() -> Self {
        Self(Instant::now())
    }
}

impl Clock for RuntimeClock {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        self.0.elapsed().into()
    }
}

type Limiter<K, S> = RateLimiter<K, S, RuntimeClock, NoOpMiddleware<Nanos>>;

fn quota(rate: Rate) -> Quota {
    Quota::per_second(rate.per_second).allow_burst(rate.burst)
}

/// The rate of a whole route.
#[derive(Debug)]
pub(super) struct RouteRate(Limiter<NotKeyed, InMemoryState>);

impl RouteRate {
    pub(super) fn new(rate: Rate) -> Self {
        Self(RateLimiter::direct_with_clock(quota(rate), RuntimeClock::start()))
    }

    /// Whether one more may come now.
    pub(super) fn admits(&self) -> bool {
        self.0.check().is_ok()
    }
}

/// The rate of each client network of a route.
#[derive(Debug)]
pub(super) struct ClientRate {
    limiter: Limiter<Network, Followed>,
    /// When the networks are to be gone through next, in nanoseconds of the clock.
    sweep_at: AtomicU64,
    overflowed: Seldom,
}

impl ClientRate {
    pub(super) fn new(rate: Rate) -> Self {
        let limiter = RateLimiter::new(quota(rate), Followed::default(), RuntimeClock::start());
        Self { limiter, sweep_at: AtomicU64::new(0), overflowed: Seldom::default() }
    }

    /// Lets one more handshake of this client pass, or says how long it is until then.
    pub(super) fn check(&self, client: Network) -> Result<(), Duration> {
        let now = self.limiter.clock().now();
        self.sweep(now.as_u64());
        self.limiter.check_key(&client).map_err(|until| until.wait_time_from(now))
    }

    fn sweep(&self, now: u64) {
        let due = self.sweep_at.load(Ordering::Relaxed);
        let next = now.saturating_add(u64::try_from(SWEEP.as_nanos()).unwrap_or(u64::MAX));
        // Of the threads that find it due, one does it.
        let ours =
            now >= due && self.sweep_at.compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if !ours {
            return;
        }
        self.limiter.retain_recent();
        if self.limiter.len() >= MOST_FOLLOWED && self.overflowed.note().is_some() {
            tracing::warn!(
                networks = MOST_FOLLOWED,
                "handshakes come from more client networks than are followed; newcomers have the route's limits only"
            );
        }
    }
}

/// When each network will have all of its burst again. Bounded.
#[derive(Debug, Default)]
struct Followed(Mutex<HashMap<Network, Nanos>>);

impl Followed {
    fn lock(&self) -> MutexGuard<'_, HashMap<Network, Nanos>> {
        // Nothing under the lock can leave the map half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StateStore for Followed {
    type Key = Network;

    fn measure_and_replace<T, F, E>(&self, network: &Network, measure: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let mut followed = self.lock();
        if let Some(state) = followed.get_mut(network) {
            let (outcome, next) = measure(Some(*state))?;
            *state = next;
            return Ok(outcome);
        }
        let (outcome, next) = measure(None)?;
        if followed.len() < MOST_FOLLOWED {
            followed.insert(*network, next);
        }
        Ok(outcome)
    }
}

impl ShrinkableKeyedStateStore<Network> for Followed {
    fn retain_recent(&self, drop_below: Nanos) {
        let mut followed = self.lock();
        followed.retain(|_, state| *state > drop_below);
        counts::give_back(&mut followed);
    }

    fn len(&self) -> usize {
        self.lock().len()
    }

    fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv6Addr, num::NonZeroU32};

    use tokio::time::advance;

    use super::*;
    use crate::protocol::network::ClientPrefixes;

    fn rate(per_second: u32, burst: u32) -> Rate {
        Rate { per_second: NonZeroU32::new(per_second).unwrap(), burst: NonZeroU32::new(burst).unwrap() }
    }

    /// The client of the `index`th /64 of 2001:db8::/32.
    fn client(index: u32) -> Network {
        let address = Ipv6Addr::from((0x2001_0db8_u128 << 96) | (u128::from(index) << 64) | 1);
        ClientPrefixes::default().network(address.into())
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_has_its_burst_then_its_rate_and_is_told_how_long_to_wait() {
        let limit = ClientRate::new(rate(2, 3));
        for _ in 0..3 {
            assert_eq!(limit.check(client(1)), Ok(()));
        }
        assert_eq!(limit.check(client(1)), Err(Duration::from_millis(500)));
        assert_eq!(limit.check(client(2)), Ok(()), "another client has a burst of its own");
        advance(Duration::from_millis(499)).await;
        // Who asks too early does not have to wait longer for it.
        assert_eq!(limit.check(client(1)), Err(Duration::from_millis(1)));
        advance(Duration::from_millis(1)).await;
        assert_eq!(limit.check(client(1)), Ok(()));
        assert!(limit.check(client(1)).is_err());
        advance(Duration::from_secs(60)).await;
        let admitted = (0..10).filter(|_| limit.check(client(1)).is_ok()).count();
        assert_eq!(admitted, 3, "a long silence saves up one burst and no more");
    }

    #[tokio::test(start_paused = true)]
    async fn a_route_has_its_burst_then_its_rate() {
        let limit = RouteRate::new(rate(100, 20));
        let admitted = |limit: &RouteRate| (0..1000).filter(|_| limit.admits()).count();
        assert_eq!(admitted(&limit), 20);
        for _ in 0..10 {
            advance(Duration::from_millis(50)).await;
            assert_eq!(admitted(&limit), 5);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn clients_that_went_quiet_are_forgotten() {
        let limit = ClientRate::new(rate(5, 5));
        (0..10_000).for_each(|index| assert_eq!(limit.check(client(index)), Ok(())));
        assert_eq!(limit.limiter.len(), 10_000);
        advance(SWEEP).await;
        assert_eq!(limit.check(client(0)), Ok(()));
        assert_eq!(limit.limiter.len(), 1);
        assert!(limit.limiter.into_state_store().lock().capacity() <= 1024, "their room is given back");
    }

    #[tokio::test(start_paused = true)]
    async fn more_networks_than_are_followed_take_no_more_room() {
        let limit = ClientRate::new(rate(1, 1));
        let many = u32::try_from(MOST_FOLLOWED).unwrap();
        (0..many + 10_000).for_each(|index| assert_eq!(limit.check(client(index)), Ok(())));
        assert_eq!(limit.limiter.len(), MOST_FOLLOWED);
        assert!(limit.check(client(0)).is_err(), "those that are followed are still limited");
        assert_eq!(limit.check(client(many)), Ok(()), "newcomers are not shut out");
        advance(SWEEP * 2).await;
        assert_eq!(limit.check(client(many)), Ok(()));
        assert!(limit.check(client(many)).is_err(), "there is room for them again");
    }
}
