//! How a stop goes: WebSockets are told to close one after the other, and what is left in the end is cut.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval},
};

use super::{Order, Outcome};
use crate::{
    config::{model::Drain, relay_policy::Frames},
    drain::Live,
    registry::Entry,
    relay::Cause,
    stack::LiveParts,
};

/// How often the next few WebSockets are told to close.
const TICK: Duration = Duration::from_millis(50);

/// How often the log says how far it is.
const PROGRESS: Duration = Duration::from_secs(1);

/// Drains, and cuts what is left at the end of the grace or when `orders` has another stop.
pub(super) async fn drain(drain: &Drain, live: &LiveParts, mut orders: mpsc::Receiver<Order>) -> Outcome {
    let (at_first, ended_before) = (live.tracker.live(), live.registry.ended());
    tracing::info!(
        connections = at_first.connections,
        websockets = at_first.relays,
        grace = ?drain.grace,
        spread = ?drain.spread,
        hint = "a second signal cuts what is left",
        "stopping"
    );
    live.tracker.start_draining();
    let hurry = async {
        loop {
            match orders.recv().await {
                Some(Order::Stop) => return,
                // No handshake would get new certificates.
                Some(Order::Reload) => {}
                None => std::future::pending().await,
            }
        }
    };
    let all_ended = tokio::select! {
        () = live.tracker.all_ended() => true,
        () = tell(drain, live, ended_before) => false,
        () = tokio::time::sleep(drain.grace) => false,
        () = hurry => {
            tracing::warn!("second signal: cutting what is left");
            false
        }
    };
    let cut = if all_ended { Live::default() } else { live.tracker.live() };
    live.registry.cut_all();
    live.tracker.finish().await;
    tracing::info!(
        websockets_ended = live.registry.ended().saturating_sub(ended_before + cut.relays),
        websockets_cut = cut.relays,
        connections_cut = cut.connections,
        "stopped"
    );
    Outcome { cut }
}

/// Closes the WebSockets evenly over the spread, the first one at once, and logs how many are left. Does not end.
async fn tell(drain: &Drain, live: &LiveParts, ended_before: usize) {
    let begun = Instant::now();
    let mut waiting = unasked(live);
    let (mut told, first) = (0, waiting.len());
    let mut said_at = begun;
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let due = due(first, begun.elapsed(), drain.spread);
        while told < due {
            told += 1;
            close(waiting.pop(), drain.code);
        }
        if told == first {
            // Some were opened after the count: their handshake was under way when the stop began.
            unasked(live).into_iter().for_each(|entry| close(Some(entry), drain.code));
        }
        if said_at.elapsed() >= PROGRESS {
            said_at = Instant::now();
            let left = live.registry.len();
            let total = left + live.registry.ended().saturating_sub(ended_before);
            let seconds = drain.grace.saturating_sub(begun.elapsed()).as_secs();
            tracing::info!("draining: {} of {} left, {seconds} s", grouped(left), grouped(total));
        }
    }
}

/// Those that can be told: where bytes are just bytes there is no Close, and they go on until the grace is over.
fn unasked(live: &LiveParts) -> Vec<Arc<Entry>> {
    let mut unasked = live.registry.unasked();
    unasked.retain(|entry| entry.route.relay.frames != Frames::Off);
    unasked
}

fn close(entry: Option<Arc<Entry>>, code: u16) {
    if let Some(entry) = entry {
        entry.close(code, Cause::Drain);
    }
}

/// How many of `total` are due by now. The first one is due at once, so that a single one does not wait.
fn due(total: usize, elapsed: Duration, spread: Duration) -> usize {
    if elapsed >= spread {
        return total;
    }
    let wide = |count: usize| u128::try_from(count).unwrap_or(u128::MAX);
    let before = wide(total).saturating_mul(elapsed.as_millis()) / spread.as_millis().max(1);
    usize::try_from(before).unwrap_or(total).saturating_add(1).min(total)
}

/// `5000` as `5,000`.
fn grouped(count: usize) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_even_over_the_spread() {
        let spread = Duration::from_secs(10);
        for (elapsed, expected) in [(0, 1), (1, 501), (5, 2501), (9, 4501), (10, 5000), (60, 5000)] {
            assert_eq!(due(5000, Duration::from_secs(elapsed), spread), expected, "{elapsed} s");
        }
        assert_eq!(due(7, Duration::ZERO, Duration::ZERO), 7);
        assert_eq!((due(1, Duration::ZERO, spread), due(0, Duration::ZERO, spread)), (1, 0));
        // Two are half of the spread apart.
        assert_eq!((due(2, Duration::from_millis(4999), spread), due(2, Duration::from_secs(5), spread)), (1, 2));
    }

    #[test]
    fn counts_are_grouped_by_thousands() {
        for (count, text) in [(0, "0"), (812, "812"), (5000, "5,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(count), text);
        }
    }
}
