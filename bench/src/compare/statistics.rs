//! Medians, and ratios round by round.

use std::collections::BTreeMap;

use super::peer::Peer;
use crate::bars::Standing;

/// What one round of one row measured.
pub(super) type Round = BTreeMap<Peer, f64>;

/// Of an even number, the mean of the two in the middle.
pub(super) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    if values.len() % 2 == 1 { Some(upper) } else { Some((values.get(middle - 1)? + upper) / 2.0) }
}

/// The median of a peer's figures.
pub(super) fn figure(rounds: &[Round], peer: Peer) -> Option<f64> {
    median(rounds.iter().filter_map(|round| round.get(&peer).copied()).collect())
}

/// Takes from every figure what it comes to without a proxy, where that was measured.
///
/// The least of all rounds: a round in which something disturbed the direct run must not flatter the proxies.
pub(super) fn less_direct(rounds: &[Round]) -> Vec<Round> {
    let direct = rounds.iter().filter_map(|round| round.get(&Peer::Direct).copied());
    let Some(base) = direct.min_by(f64::total_cmp) else { return rounds.to_vec() };
    let less = |round: &Round| round.iter().map(|(peer, figure)| (*peer, figure - base)).collect();
    rounds.iter().map(less).collect()
}

/// How switchgate stands. A ratio is taken inside each round, where both sides met the same machine, and only then the
/// median of all.
pub(super) fn standing(rounds: &[Round]) -> Standing {
    Standing {
        figure: figure(rounds, Peer::Switchgate),
        to_best: median(ratios(rounds, best)),
        to_haproxy: median(ratios(rounds, |round| round.get(&Peer::Haproxy).copied())),
        to_floor: median(ratios(rounds, |round| round.get(&Peer::Floor).copied())),
    }
}

/// The cheaper of nginx and HAProxy.
pub(super) fn best(round: &Round) -> Option<f64> {
    Some(round.get(&Peer::Nginx)?.min(*round.get(&Peer::Haproxy)?))
}

/// How many times `other` switchgate was, in each round.
pub(super) fn ratios(rounds: &[Round], other: impl Fn(&Round) -> Option<f64>) -> Vec<f64> {
    let ratio = |round: &Round| {
        let (own, other) = (*round.get(&Peer::Switchgate)?, other(round)?);
        // Added latency may come out as nothing at all.
        Some(own.max(SMALLEST) / other.max(SMALLEST))
    };
    rounds.iter().filter_map(ratio).collect()
}

/// The least and the greatest.
pub(super) fn range(values: &[f64]) -> Option<(f64, f64)> {
    let least = values.iter().copied().min_by(f64::total_cmp)?;
    let greatest = values.iter().copied().max_by(f64::total_cmp)?;
    Some((least, greatest))
}

/// A tenth of a microsecond, or of a KiB: below it a figure is noise.
const SMALLEST: f64 = 0.1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(Vec::new()), None);
    }

    #[test]
    fn ratios_are_taken_round_by_round() {
        // The machine was three times slower in the last round: no ratio moves.
        let rounds: Vec<Round> = [1.0, 1.0, 3.0]
            .map(|slow| {
                let figures = [(Peer::Switchgate, 2.0), (Peer::Nginx, 4.0), (Peer::Haproxy, 8.0), (Peer::Floor, 1.0)];
                figures.map(|(peer, figure)| (peer, slow * figure)).into()
            })
            .into();
        let standing = standing(&rounds);
        assert_eq!((standing.to_best, standing.to_haproxy), (Some(0.5), Some(0.25)));
        assert_eq!((standing.to_floor, standing.figure), (Some(2.0), Some(2.0)));
    }

    #[test]
    fn no_best_peer_without_both() {
        let rounds = [Round::from([(Peer::Switchgate, 2.0), (Peer::Nginx, 4.0)])];
        assert_eq!(super::standing(&rounds).to_best, None);
    }

    #[test]
    fn what_a_direct_connection_takes_is_taken_off() {
        let rounds = [
            Round::from([(Peer::Direct, 20.0), (Peer::Nginx, 50.0)]),
            Round::from([(Peer::Direct, 90.0), (Peer::Nginx, 60.0)]),
        ];
        let added: Vec<f64> = less_direct(&rounds).iter().map(|round| round[&Peer::Nginx]).collect();
        assert_eq!(added, [30.0, 40.0]);
        assert_eq!(range(&added), Some((30.0, 40.0)));
        let plain = [Round::from([(Peer::Nginx, 4.0)])];
        assert_eq!(less_direct(&plain), plain);
    }
}
