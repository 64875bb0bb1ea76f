//! Every scenario through each proxy in turn, round after round, and a Markdown table of it.

pub(crate) mod child;
mod measure;
pub(crate) mod options;
mod peer;
pub(crate) mod place;
pub(crate) mod proc;
mod report;
mod statistics;

use std::{fs, process::ExitCode, time::Instant};

pub(crate) use self::{options::Options, peer::Peer};
use self::{
    place::Place,
    report::{Report, Row},
    statistics::Round,
};
use crate::{
    Result,
    scenario::{self, Metric, Scenario, Secured},
};

/// Files that a proxy needs for one idle connection.
const FILES_EACH: u64 = 2;

/// Compares. The exit code is a failure where a bar is missed and `--strict` was asked for.
///
/// # Errors
/// A sentence about the first run that failed. Every process started here is gone then.
pub(crate) fn run(options: &Options) -> Result<ExitCode> {
    let began = Instant::now();
    let load_before = report::load_average();
    let place = Place::prepare(options)?;
    let present = |peer: &Peer| *peer == Peer::Floor || place.program(*peer).is_some();
    let peers: Vec<Peer> = options.peers.iter().copied().filter(present).collect();
    // Some are for the connections that were opened before the first reading.
    let most = usize::try_from(place.connections() / FILES_EACH)?.saturating_sub(300);
    let scenarios: Vec<Scenario> = scenario::all(options.quick, most)
        .into_iter()
        .filter(|scenario| options.only.is_empty() || options.only.iter().any(|name| name == scenario.group))
        .collect();
    let mut rows: Vec<Vec<Row>> = scenarios.iter().map(Row::of).collect();
    for round in 0..options.rounds {
        let order = order(&peers, round);
        for (scenario, rows) in scenarios.iter().zip(&mut rows) {
            if round < scenario.rounds(options.rounds) {
                eprint!("round {} of {}, {}:", round + 1, options.rounds, scenario.name);
                let done = one_round(&place, scenario, &order, rows);
                eprintln!();
                done?;
            }
        }
    }
    let rows = rows.into_iter().flatten().collect();
    let report = Report { place: &place, options, scenarios: &scenarios, rows, load_before, took: began.elapsed() };
    let text = report.to_markdown();
    print!("{text}");
    if let Some(path) = &options.out {
        fs::write(path, &text).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }
    Ok(if options.strict && report.misses() > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Another order in every round, so that nobody always comes after the same neighbour.
fn order(peers: &[Peer], round: usize) -> Vec<Peer> {
    let mut order = peers.to_vec();
    if !order.is_empty() {
        order.rotate_left(round % peers.len());
    }
    if round % 2 == 1 {
        order.reverse();
    }
    order
}

fn one_round(place: &Place, scenario: &Scenario, order: &[Peer], rows: &mut [Row]) -> Result<()> {
    let takes_part = |peer: &Peer| match peer {
        // It speaks no TLS.
        Peer::Floor => scenario.secured == Secured::No,
        // It answers no extended CONNECT.
        Peer::Nginx => scenario.secured != Secured::Http2,
        _ => true,
    };
    let base = (scenario.metric == Metric::AddedLatency).then_some(Peer::Direct);
    let mut found = vec![Round::new(); rows.len()];
    for peer in base.into_iter().chain(order.iter().copied().filter(takes_part)) {
        eprint!(" {}", peer.name());
        for (round, figure) in found.iter_mut().zip(measure::run(place, peer, scenario)?) {
            eprint!(" {figure:.2}");
            round.insert(peer, figure);
        }
    }
    for (row, round) in rows.iter_mut().zip(found) {
        row.rounds.push(round);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_round_has_another_order() {
        let orders: Vec<Vec<Peer>> = (0..4).map(|round| order(&Peer::ALL, round)).collect();
        for (at, order) in orders.iter().enumerate() {
            assert!(Peer::ALL.iter().all(|peer| order.contains(peer)));
            assert!(orders[..at].iter().all(|earlier| earlier != order));
        }
    }
}
