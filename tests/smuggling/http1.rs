//! Attacks in the bytes of HTTP/1.1. Each is sent whole, byte by byte, and over TLS, before a request that ends the
//! connection.

mod chunks;
mod heads;
mod hops;
mod lengths;
mod targets;

use std::collections::HashSet;

use super::driver::{Pace, Recorder, Seen, arrived_next, exchange};
use crate::support::{Client, Proxy, doors::Gate, within};

/// One attack.
#[derive(Clone, Debug)]
struct Attack {
    name: &'static str,
    /// RFC section, CVE or advisory.
    source: &'static str,
    sent: Vec<u8>,
    /// The statuses of all responses until the gate ends the connection.
    statuses: &'static [u16],
    seen: Seen,
}

/// An attack that is refused with 400, and ends the connection.
fn refused(name: &'static str, source: &'static str, sent: impl AsRef<[u8]>) -> Attack {
    Attack { name, source, sent: sent.as_ref().to_vec(), statuses: &[400], seen: Seen::Nothing }
}

/// A message that is refused with 400; where it ends is certain, and the next one is served.
fn answered(name: &'static str, source: &'static str, sent: impl AsRef<[u8]>) -> Attack {
    refused(name, source, sent).with(&[400, 200], Seen::Exactly(arrived_next()))
}

/// A message that is served as `arrived`, which nobody can read in another way, and the next one after it.
fn served(name: &'static str, source: &'static str, sent: impl AsRef<[u8]>, arrived: String) -> Attack {
    let seen = Seen::Exactly(arrived + &arrived_next());
    Attack { name, source, sent: sent.as_ref().to_vec(), statuses: &[200, 200], seen }
}

/// A body that breaks off within `arrived`.
fn broken(name: &'static str, source: &'static str, sent: impl AsRef<[u8]>, arrived: String) -> Attack {
    Attack { name, source, sent: sent.as_ref().to_vec(), statuses: &[400], seen: Seen::CutShort(arrived) }
}

impl Attack {
    fn with(self, statuses: &'static [u16], seen: Seen) -> Self {
        Self { statuses, seen, ..self }
    }

    fn with_statuses(self, statuses: &'static [u16]) -> Self {
        Self { statuses, ..self }
    }
}

const STRICT: &str = "[[route]]\npath = \"/strict\"\nupstream = \"u\"";

/// What is wrong with how the gate takes this attack in clear.
async fn fault(attack: &Attack, pace: Pace) -> Option<String> {
    let recorder = Recorder::start(None).await;
    let proxy = Proxy::before(&recorder.url, "", STRICT).await;
    let mut client = proxy.connect().await;
    client.stream.set_nodelay(true).unwrap();
    let (statuses, text) = exchange(&mut client, &attack.sent, pace).await;
    // A gate that has refused a request waits for its client to end.
    drop(client);
    within("stop", proxy.stop()).await.unwrap();
    let seen = recorder.seen().await;
    let Attack { name, source, sent, .. } = attack;
    let fault = format!(
        "{name} ({source}), {pace:?}: {:?}\n  statuses {statuses:?}, not {:?}\n  upstream {seen:?}\n  not {:?}\n  client {text:?}",
        String::from_utf8_lossy(sent),
        attack.statuses,
        attack.seen,
    );
    (statuses != attack.statuses || !attack.seen.is(seen.as_deref())).then_some(fault)
}

async fn all_hold(attacks: Vec<Attack>) {
    let mut faults = Vec::new();
    for attack in &attacks {
        for pace in Pace::ALL {
            faults.extend(fault(attack, pace).await);
        }
    }
    assert!(faults.is_empty(), "{} of {}:\n{}", faults.len(), attacks.len() * 2, faults.join("\n\n"));
}

/// Through one gate, one after the other: a certificate for each attack would take longer than all of them.
async fn all_hold_over_tls(mut attacks: Vec<Attack>) {
    // How much of a body arrives before it breaks off is chance.
    attacks.retain(|attack| !matches!(attack.seen, Seen::CutShort(_)));
    let recorder = Recorder::start(None).await;
    let gate = Gate::before(&recorder.url, "", STRICT).await;
    let mut expected = String::new();
    for Attack { name, source, sent, statuses, seen } in attacks {
        let mut client = Client::new(gate.secure(&[]).await);
        let (told, text) = exchange(&mut client, &sent, Pace::Whole).await;
        assert_eq!(told, statuses, "{name} ({source}): {text}");
        if let Seen::Exactly(seen) = seen {
            expected.push_str(&seen.replace("Proto: http\r\n", "Proto: https\r\n").replace("=http\r\n", "=https\r\n"));
        }
    }
    within("stop", gate.proxy.stop()).await.unwrap();
    let (seen, expected) = (recorder.seen().await, Seen::Exactly(expected));
    assert!(expected.is(seen.as_deref()), "{seen:?}, not {expected:?}");
}

#[tokio::test]
async fn lengths_are_read_in_one_way() {
    all_hold(lengths::attacks()).await;
}

#[tokio::test]
async fn chunks_end_where_they_say() {
    all_hold(chunks::attacks()).await;
}

#[tokio::test]
async fn heads_are_read_in_one_way() {
    all_hold(heads::attacks()).await;
}

#[tokio::test]
async fn targets_are_read_in_one_way() {
    all_hold(targets::attacks()).await;
}

#[tokio::test]
async fn fields_of_one_hop_stay_there() {
    all_hold(hops::attacks()).await;
}

#[tokio::test]
async fn all_of_it_holds_over_tls() {
    let all = [lengths::attacks(), heads::attacks(), targets::attacks(), hops::attacks()];
    all_hold_over_tls(all.concat()).await;
    all_hold_over_tls(chunks::attacks()).await;
}

#[test]
fn the_table_has_at_least_80_attacks_and_names_each_once() {
    let all = [lengths::attacks(), chunks::attacks(), heads::attacks(), targets::attacks(), hops::attacks()].concat();
    let names: HashSet<_> = all.iter().map(|attack| attack.name).collect();
    let bytes: HashSet<_> = all.iter().map(|attack| &attack.sent).collect();
    assert_eq!((names.len(), bytes.len()), (all.len(), all.len()));
    assert!(all.len() >= 80, "{}", all.len());
    for Attack { name, source, .. } in all {
        let known = ["RFC ", "CVE-", "PortSwigger, ", "Bishop Fox, ", "Egorov, ", "Weikop, "];
        assert!(known.iter().any(|beginning| source.starts_with(beginning)), "{name}: {source}");
    }
}
