//! The table, and beside it everything that somebody needs to repeat it.

use std::{fmt::Write, fs, time::Duration};

use super::{
    options::Options,
    peer::Peer,
    place::Place,
    statistics::{self, Round},
};
use crate::{bars, load::http2::SOCKETS_EACH, scenario::Scenario};

/// A row of the table, still with every round.
pub(super) struct Row {
    name: String,
    unit: &'static str,
    pub(super) rounds: Vec<Round>,
}

impl Row {
    /// The rows of a scenario, empty.
    pub(super) fn of(scenario: &Scenario) -> Vec<Self> {
        let rows = scenario.rows().into_iter();
        rows.map(|name| Self { name, unit: scenario.unit(), rounds: Vec::new() }).collect()
    }

    /// Each bar, and whether it is kept.
    fn verdicts(&self) -> Vec<(String, Option<bool>)> {
        let standing = statistics::standing(&statistics::less_direct(&self.rounds));
        bars::of(&self.name).map(|limit| (limit.to_text(self.unit), limit.is_kept(&standing))).collect()
    }

    fn to_line(&self) -> String {
        let rounds = statistics::less_direct(&self.rounds);
        let figure = |peer| statistics::figure(&rounds, peer).map_or("–".to_owned(), |value| format!("{value:.2}"));
        let [switchgate, nginx, haproxy, floor] = Peer::ALL.map(figure);
        let best = to_ratio(statistics::ratios(&rounds, statistics::best));
        let to = |peer| to_ratio(statistics::ratios(&rounds, |round| round.get(&peer).copied()));
        let [to_haproxy, to_floor, to_before] = [Peer::Haproxy, Peer::Floor, Peer::Before].map(to);
        let verdicts: Vec<String> = self
            .verdicts()
            .into_iter()
            .map(|(limit, kept)| match kept {
                Some(true) => format!("{limit}: pass"),
                Some(false) => format!("{limit}: **miss**"),
                None => format!("{limit}: not measured"),
            })
            .collect();
        format!(
            "| {} | {} | {switchgate} | {nginx} | {haproxy} | {floor} | {best} | {to_haproxy} | {to_floor} | {to_before} | {} |\n",
            self.name,
            self.unit,
            verdicts.join("; ")
        )
    }
}

/// The median, and between which values it lies.
fn to_ratio(ratios: Vec<f64>) -> String {
    let range = statistics::range(&ratios).filter(|(least, greatest)| least < greatest);
    let range = range.map_or(String::new(), |(least, greatest)| format!(" ({least:.2}–{greatest:.2})"));
    statistics::median(ratios).map_or("–".to_owned(), |median| format!("{median:.2}{range}"))
}

/// Everything that was found out.
pub(super) struct Report<'a> {
    pub(super) place: &'a Place,
    pub(super) options: &'a Options,
    pub(super) scenarios: &'a [Scenario],
    pub(super) rows: Vec<Row>,
    /// The load average of the last minute.
    pub(super) load_before: Option<String>,
    pub(super) took: Duration,
}

impl Report<'_> {
    /// Bars that are missed.
    pub(super) fn misses(&self) -> usize {
        self.rows.iter().flat_map(Row::verdicts).filter(|(_, kept)| *kept == Some(false)).count()
    }

    pub(super) fn to_markdown(&self) -> String {
        let mut text = "\
| scenario | unit | switchgate | nginx | HAProxy | floor | ÷ best | ÷ HAProxy | ÷ floor | ÷ before | bars |
|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---|
"
        .to_owned();
        for row in &self.rows {
            text += &row.to_line();
        }
        let judged = self.rows.iter().flat_map(Row::verdicts).filter(|(_, kept)| kept.is_some()).count();
        let missed = self.misses();
        // Writing to a string cannot fail.
        let _ = writeln!(text, "\n{missed} of {judged} bars missed. Less is better in every row.\n");
        for note in self.notes() {
            text += &format!("- {note}\n");
        }
        text
    }

    fn notes(&self) -> Vec<String> {
        let Self { place, options, scenarios, took, .. } = self;
        let mut notes: Vec<String> =
            place.programs.iter().map(|program| format!("{}: {}", program.peer.name(), program.version)).collect();
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        notes.push(format!("Linux {}, {}, {cores} cores, nothing pinned", kernel(), processor()));
        let threads = match place.knows_workers {
            true => "by the key `workers`",
            false => "by TOKIO_WORKER_THREADS: this build has no key `workers`",
        };
        notes.push(format!("{} thread(s) in each proxy; switchgate's {threads}", options.workers));
        if let Some(load) = &self.load_before {
            notes.push(format!("load average when it began: {load}; above 0.5 somebody else was at work"));
        }
        if scenarios.iter().any(Scenario::is_bulk) {
            notes.push(
                match place.splice_always {
                    true => "1 MiB: HAProxy with `option splice-request` and `splice-response`, the floor splices too",
                    false => {
                        "1 MiB: HAProxy with `option splice-auto`, which may decide not to splice (see \
                         --splice-always); the floor always splices"
                    }
                }
                .to_owned(),
            );
        }
        let count = |group: &str| scenarios.iter().find(|it| it.group == group).map(|it| it.connections);
        let mut method = format!(
            "{} rounds, each in another order of the proxies, each run with fresh processes and a warm-up of a tenth; \
             figures are medians, ratios are taken inside each round and then the median (least–greatest); ÷ best is against the \
             cheaper of nginx and HAProxy",
            options.rounds
        );
        if let Some(connections) = count("echo-64") {
            method += &format!("; echoes run on {connections} connections with one message under way on each");
        }
        if let Some(sockets) = count("echo-h2") {
            method += &format!("; echoes over h2 run on {sockets} WebSockets, {SOCKETS_EACH} on a connection");
        }
        if let Some(connections) = count("idle") {
            method += &format!(
                "; idle memory is that of {connections} connections, each of which has carried 1 KiB and 16 KiB both \
                 ways, in {} round(s)",
                scenarios.iter().find(|it| it.group == "idle").map_or(0, |it| it.rounds(options.rounds))
            );
        }
        notes.push(method);
        notes.push(
            "CPU is that of all threads of the proxy's process tree (/proc/PID/task/TID/schedstat), for a message \
             relayed one way: an echo is two. Memory is Private_Clean + Private_Dirty of smaps_rollup. Added latency \
             is that through the proxy less the least that a plain connection to the backend took in any round. One ECDSA P-256 certificate, \
             TLS 1.3, X25519, AES-128-GCM for all; no access logs; all checks of switchgate are on."
                .to_owned(),
        );
        notes.push(format!(
            "took {} s; again: `cargo build --release && cargo run -p bench --release -- compare {}`",
            took.as_secs(),
            options.words.join(" ")
        ));
        notes
    }
}

/// The load average of the last minute.
pub(super) fn load_average() -> Option<String> {
    fs::read_to_string("/proc/loadavg").ok()?.split(' ').next().map(str::to_owned)
}

fn kernel() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease").map_or("unknown".to_owned(), |text| text.trim().to_owned())
}

fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    name.map_or("unknown processor".to_owned(), |(_, name)| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_shows_figures_ratios_and_verdicts() {
        let rounds =
            vec![Round::from([(Peer::Switchgate, 3.0), (Peer::Nginx, 4.0), (Peer::Haproxy, 2.0), (Peer::Before, 4.0)])];
        let row = Row { name: "handshake, ws".to_owned(), unit: "CPU µs", rounds };
        let line = row.to_line();
        assert!(
            line.starts_with("| handshake, ws | CPU µs | 3.00 | 4.00 | 2.00 | – | 1.50 | 1.50 | – | 0.75 |"),
            "{line}"
        );
        assert!(line.ends_with("| ≤ 1.20× best: **miss** |\n"), "{line}");
    }
}
