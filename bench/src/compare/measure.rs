//! One run: one scenario through one peer, each of its processes started for it alone.
//!
//! Fresh processes on fresh ports: no heap that an earlier scenario filled, no sockets in TIME_WAIT towards the same
//! address.

use std::{thread, time::Duration};

use super::{
    child::Child,
    peer::{Peer, Running},
    place::Place,
    proc::{self, CpuTimes},
};
use crate::{
    Result,
    load::plan::{Counted, Plan, Transport},
    scenario::{Metric, Scenario, Secured},
};

/// Time for what the proxy still does after the last answer, such as closing.
const AFTERWARDS: Duration = Duration::from_millis(20);

/// The figures of one run, one for each row of the scenario.
pub(super) fn run(place: &Place, peer: Peer, scenario: &Scenario) -> Result<Vec<f64>> {
    attempt(place, peer, scenario).map_err(|error| {
        let said = |name: &str| {
            let text = std::fs::read_to_string(place.file(&format!("{name}.log"))).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            let last = lines.get(lines.len().saturating_sub(5)..).unwrap_or_default();
            last.iter().map(|line| format!("\n  {name}: {line}")).collect::<String>()
        };
        let logs = [said("load"), said("backend"), said(peer.name())].concat();
        format!("{}, {}: {error}{logs}", scenario.name, peer.name()).into()
    })
}

fn attempt(place: &Place, peer: Peer, scenario: &Scenario) -> Result<Vec<f64>> {
    let mut backend = Child::start(&["backend".to_owned()], &place.file("backend.log"), &[])?;
    let backend_port: u16 = backend.line()?.parse()?;
    let proxy = peer.start(place, backend_port, scenario.is_bulk())?;
    let mut arguments = vec!["load".to_owned()];
    arguments.extend(plan(place, scenario, &proxy, backend_port).to_arguments());
    let mut load = Child::start(&arguments, &place.file("load.log"), &[])?;
    if load.line()? != "ready" {
        return Err("the load was not ready".into());
    }
    let before = Reading::take(&proxy, scenario.metric)?;
    load.go()?;
    let line = load.line()?;
    let counted = Counted::parse(&line).ok_or_else(|| format!("the load said `{line}`"))?;
    thread::sleep(AFTERWARDS);
    let after = Reading::take(&proxy, scenario.metric)?;
    load.go()?;
    if !load.end()?.success() {
        return Err("the load ended with an error".into());
    }
    Ok(figures(scenario.metric, &counted, &before, &after))
}

fn plan(place: &Place, scenario: &Scenario, proxy: &Running, backend: u16) -> Plan {
    let (address, transport) = match scenario.secured {
        Secured::No => (proxy.plain, Transport::Plain),
        // Without a proxy nobody speaks TLS.
        _ if proxy.process.is_none() => (proxy.plain, Transport::Plain),
        secured => {
            let certificate = place.file("certificate.pem");
            (
                proxy.tls,
                Transport::Tls { certificate, resume: secured == Secured::Resumed, http2: secured == Secured::Http2 },
            )
        }
    };
    Plan {
        kind: scenario.kind,
        transport,
        proxy: address,
        backend: ([127, 0, 0, 1], backend).into(),
        connections: scenario.connections,
        size: scenario.size,
        count: scenario.count,
        rate: scenario.rate,
        together: scenario.together,
    }
}

/// What the proxy had spent, or held, at one moment.
#[derive(Default)]
struct Reading {
    cpu: CpuTimes,
    memory: u64,
}

impl Reading {
    fn take(proxy: &Running, metric: Metric) -> Result<Self> {
        let Some(process) = proxy.process else { return Ok(Self::default()) };
        // Walking the page tables of a proxy costs it nothing, but takes time: only where it is asked for.
        let memory = if metric == Metric::MemoryEach { proc::memory(process)? } else { 0 };
        Ok(Self { cpu: CpuTimes::read(process)?, memory })
    }
}

fn figures(metric: Metric, counted: &Counted, before: &Reading, after: &Reading) -> Vec<f64> {
    let nanoseconds = after.cpu.since(&before.cpu) as f64;
    match metric {
        Metric::CpuEach => vec![nanoseconds / 1e3 / counted.messages as f64],
        // Nanoseconds a byte are seconds for 10^9 bytes.
        Metric::CpuPerGigabyte => vec![nanoseconds / counted.bytes as f64],
        Metric::MemoryEach => vec![(after.memory as f64 - before.memory as f64) / counted.messages as f64],
        Metric::AddedLatency => vec![counted.p50 as f64 / 1e3, counted.p99 as f64 / 1e3],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_per_message_per_gigabyte_and_per_connection() {
        let counted = Counted { messages: 4, bytes: 1_000, p50: 1_500, p99: 2_500 };
        let before = Reading { cpu: CpuTimes::of(1, 1_000), memory: 10 };
        let after = Reading { cpu: CpuTimes::of(1, 9_000), memory: 30 };
        let of = |metric| figures(metric, &counted, &before, &after);
        assert_eq!(of(Metric::CpuEach), [2.0]);
        assert_eq!(of(Metric::CpuPerGigabyte), [8.0]);
        assert_eq!(of(Metric::MemoryEach), [5.0]);
        assert_eq!(of(Metric::AddedLatency), [1.5, 2.5]);
    }
}
