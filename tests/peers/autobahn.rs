//! Autobahn's verdict on a server, with and without the gate before it.

use std::{collections::BTreeMap, path::Path, time::Duration};

use tokio::{process::Command, task::JoinSet, time::timeout};

use super::{backend, installed, node, present};
use crate::support::Proxy;

/// What Autobahn says of behaviour and close, by case.
type Verdicts = BTreeMap<String, (String, String)>;

/// How often the cases that are worse behind the gate are asked for again, with nothing else of Autobahn beside them.
/// It gives most answers half a second or one, which beside this suite on two cores is too short now and then, with the
/// gate and without. What the gate does wrong is wrong each time.
const REPEATS: usize = 3;

/// With more cases than these, load is no excuse.
const MAX_REPEATED: usize = 25;

const DIRECT: &str = "direct";
const GATED: [&str; 3] = ["off", "observe", "enforce"];

#[tokio::test]
async fn says_the_same_with_and_without_the_gate() {
    let python = installed().join("python2.7");
    if !python.exists() {
        // The suite is Python 2 source, and not every machine has one.
        eprintln!("skipped: Autobahn needs a Python 2.7, and {} is missing (run .ci/run)", python.display());
        return;
    }
    if !present("Node's ws", &installed().join("node_modules/ws")) {
        return;
    }
    let (_child, url) = backend(&mut node("ws_server.mjs")).await;
    let mut agents = vec![(DIRECT, url.replace("http", "ws"))];
    let mut gates = Vec::new();
    for frames in GATED {
        let gate = gate_that_frames(&url, frames).await;
        agents.push((frames, format!("ws://{}", gate.addresses[0])));
        gates.push(gate);
    }
    let mut runs = JoinSet::new();
    for (agent, url) in agents.clone() {
        runs.spawn(async move { (agent, suite(agent, &url, &["*".to_owned()]).await) });
    }
    let verdicts: BTreeMap<_, _> = runs.join_all().await.into_iter().collect();
    let cases = verdicts[DIRECT].len();
    assert!(cases > 200, "only {cases} cases ran");

    let mut worse = worse_behind_the_gate(&verdicts);
    assert!(worse.len() <= MAX_REPEATED, "{worse:#?}");
    let repeated = worse.len();
    for _ in 0..REPEATS {
        if worse.is_empty() {
            break;
        }
        let again: Vec<_> = worse.keys().cloned().collect();
        let mut verdicts = BTreeMap::new();
        for (agent, url) in &agents {
            verdicts.insert(*agent, suite(agent, url, &again).await);
        }
        // Each mode of each case has to be as good once, not all of them in one run.
        let still = worse_behind_the_gate(&verdicts);
        worse.retain(|case, modes| {
            modes.retain(|mode, _| still.get(case).is_some_and(|modes| modes.contains_key(mode)));
            !modes.is_empty()
        });
    }
    assert!(worse.is_empty(), "{worse:#?}");
    let failed = verdicts[DIRECT].values().filter(|(behavior, _)| behavior == "FAILED").count();
    eprintln!(
        "autobahn: {cases} cases, {repeated} asked for again, {failed} failed without the gate, none is worse behind it"
    );
}

/// The cases whose verdict is worse behind the gate: by case and mode, what was said.
///
/// A gate that only passes bytes has to get the very same verdict; one that enforces the rules may get a better one.
fn worse_behind_the_gate(verdicts: &BTreeMap<&str, Verdicts>) -> BTreeMap<String, BTreeMap<&'static str, String>> {
    let mut worse = BTreeMap::<_, BTreeMap<_, _>>::new();
    for (case, direct) in &verdicts[DIRECT] {
        for frames in GATED {
            let gated = verdicts[frames].get(case).unwrap_or_else(|| panic!("no verdict on case {case}, {frames}"));
            let may_be_better = frames == "enforce";
            let as_good = rank(&gated.0) <= rank(&direct.0) && rank(&gated.1) <= rank(&direct.1);
            if gated != direct && !(may_be_better && as_good) {
                let said = format!("{gated:?}, without the gate {direct:?}");
                worse.entry(case.clone()).or_default().insert(frames, said);
            }
        }
    }
    worse
}

/// How bad a verdict is.
fn rank(verdict: &str) -> u8 {
    match verdict {
        "OK" => 0,
        "NON-STRICT" => 1,
        "INFORMATIONAL" => 2,
        "UNCLEAN" | "UNIMPLEMENTED" => 3,
        _ => 4,
    }
}

async fn gate_that_frames(url: &str, frames: &str) -> Proxy {
    let front = "[[listener]]\nlisten = \"127.0.0.1:0\"\n[[route]]\nupstream = \"u\"\n";
    Proxy::start(&format!("{front}frames = \"{frames}\"\n[upstream.u]\nurl = \"{url}\"\n")).await
}

/// Runs some of Autobahn's cases against one server.
async fn suite(agent: &str, url: &str, cases: &[String]) -> Verdicts {
    let folder = tempfile::tempdir().unwrap();
    let spec = serde_json::json!({
        "outdir": folder.path().join("reports"),
        "servers": [{ "agent": agent, "url": url }],
        "cases": cases,
        // Long runs of large and compressed messages: they time the echo server, and the gate passes bytes.
        "exclude-cases": ["9.7.*", "9.8.*", "12.2.*", "12.3.*", "12.4.*", "12.5.*", "13.2.*", "13.3.*", "13.4.*", "13.5.*", "13.6.*", "13.7.*"],
        "exclude-agent-cases": {},
    });
    let spec_path = folder.path().join("spec.json");
    std::fs::write(&spec_path, spec.to_string()).unwrap();
    let log = std::fs::File::create(folder.path().join("log")).unwrap();
    let mut suite = Command::new(installed().join("python2.7"));
    suite.arg(installed().join("py27/bin/wstest")).args(["-m", "fuzzingclient", "-s"]).arg(&spec_path);
    suite.env("PYTHONPATH", installed().join("py27")).current_dir(folder.path()).kill_on_drop(true);
    suite.stdout(log.try_clone().unwrap()).stderr(log);
    let status = timeout(Duration::from_secs(900), suite.status()).await.expect("an end of the suite").unwrap();
    let log = std::fs::read_to_string(folder.path().join("log")).unwrap();
    assert!(status.success(), "{}", log.chars().rev().take(2000).collect::<String>().chars().rev().collect::<String>());
    read_verdicts(&folder.path().join("reports/index.json"), agent)
}

fn read_verdicts(report: &Path, agent: &str) -> Verdicts {
    let text = std::fs::read_to_string(report).unwrap();
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    let word = |case: &serde_json::Value, key: &str| case[key].as_str().unwrap_or_default().to_owned();
    let cases = report[agent].as_object().unwrap().iter();
    cases.map(|(id, case)| (id.clone(), (word(case, "behavior"), word(case, "behaviorClose")))).collect()
}
