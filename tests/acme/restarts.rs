//! What a process that is started again knows of the one before it.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::*;

const RESTS: &str = "earlier attempts failed; their pause goes on";
const UNFINISHED: &str = "an attempt was begun and did not come to its end";
const FAILED: &str = "no certificate for this host; TLS handshakes for it fail";

/// Stops it and starts another in its folder, in which `meanwhile` is done.
async fn restart(mut process: Process, config: &str, meanwhile: impl FnOnce(&Process)) -> Process {
    process.terminate();
    process.exit_code().await;
    meanwhile(&process);
    let folder = std::mem::replace(&mut process.folder, tempfile::tempdir().unwrap());
    Process::start_in(config, folder).await
}

fn pause_file(process: &Process) -> std::path::PathBuf {
    kept(process.folder.path()).join("a.test.rest.json")
}

/// Changes what the file of the pause says.
fn change(process: &Process, changes: &[(&str, u64)]) {
    let file = pause_file(process);
    let mut value: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    for (name, number) in changes {
        assert!(value[name].is_u64(), "{value}");
        value[name] = json!(number);
    }
    std::fs::write(&file, value.to_string()).unwrap();
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// One that has just failed, and its config.
async fn failed(ca: &Ca) -> (Process, String) {
    let config = text(ca, "tls-alpn-01", "");
    let mut process = Process::start_in(&config, folder(ca)).await;
    process.event(FAILED).await;
    (process, config)
}

#[tokio::test]
async fn who_is_killed_while_it_asks_does_not_ask_anew_at_every_start() {
    let ca = Ca::start().await;
    // Takes connections, and says nothing.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let directory = format!("https://127.0.0.1:{}/directory", silent.local_addr().unwrap().port());
    let config = text(&ca, "tls-alpn-01", "").replace(&ca.directory, &directory);
    let mut process = Process::start_in(&config, folder(&ca)).await;
    let mut pauses = Vec::new();
    for failures in 1..=3 {
        process.event("ordering a certificate").await;
        process.kill();
        process.exit_code().await;
        let folder = std::mem::replace(&mut process.folder, tempfile::tempdir().unwrap());
        process = Process::start_in(&config, folder).await;
        let rests = process.event(RESTS).await;
        assert_eq!((&rests["failures"], &rests["error"]), (&failures.into(), &UNFINISHED.into()), "{rests}");
        pauses.push(rests["retry_s"].as_u64().unwrap());
        // So long is waited for nobody here.
        process = restart(process, &config, |process| change(process, &[("until_s", now())])).await;
    }
    assert!((9..=11).contains(&pauses[0]) && (18..=21).contains(&pauses[1]) && pauses[2] > 37, "{pauses:?}");
    assert_eq!(process.count("another process orders with this storage; waiting for it"), 0);
}

#[tokio::test]
async fn a_restart_waits_out_the_pause_and_says_why() {
    let ca = Ca::start().await;
    // The wrong door.
    ca.look_at(Look::Http("127.0.0.1:1".to_owned()));
    let (process, config) = failed(&ca).await;
    assert_eq!(std::fs::metadata(pause_file(&process)).unwrap().permissions().mode() & 0o777, 0o600);
    let mut process = restart(process, &config, |_| {}).await;
    let rests = process.event(RESTS).await;
    assert!((280..=377).contains(&rests["retry_s"].as_u64().unwrap()), "{rests}");
    assert!(rests["error"].as_str().unwrap().contains("nothing answers tls-alpn-01"), "{rests}");
    assert!(rests["file"].as_str().unwrap().ends_with("a.test.rest.json"), "{rests}");
    assert_eq!((&rests["failures"], &rests["level"]), (&1.into(), &"WARN".into()));

    // Nothing before its end, and then the second attempt, not the first of another row.
    let until = now() + 3;
    process = restart(process, &config, |process| change(process, &[("until_s", until)])).await;
    assert!(process.event(RESTS).await["retry_s"].as_u64().unwrap() <= 3);
    assert_eq!(ca.seen().orders.len(), 1);
    assert_eq!(process.event("ordering a certificate").await["attempt"], 2);
    assert!(now() >= until);
    let failed = process.event(FAILED).await;
    assert!((600..=750).contains(&failed["retry_s"].as_u64().unwrap()), "{failed}");

    // The file removed, as an operator would who cannot wait: it is tried at once, and success leaves nothing behind.
    process = restart(process, &config, |process| std::fs::remove_file(pause_file(process)).unwrap()).await;
    assert_eq!(process.event("ordering a certificate").await["attempt"], 1);
    process.event(FAILED).await;
    process = restart(process, &config, |process| change(process, &[("until_s", now())])).await;
    ca.look_at(Look::Tls(process.addresses[0].clone()));
    process.event("certificate issued").await;
    process.event(READ_AGAIN).await;
    assert!(!pause_file(&process).exists());
}

#[tokio::test]
async fn mended_settings_are_tried_at_once() {
    let ca = Ca::start_with(Rules { rate_limited: Some(7200), ..Rules::default() }).await;
    let (mut process, config) = failed(&ca).await;
    std::fs::write(process.folder.path().join("eab.key"), "YSBzZWNyZXQ").unwrap();
    let contact = config.replace("ops@", "mended@");
    let challenge = contact.replace("tls-alpn-01", "http-01");
    let external = challenge.replace("ca = ", "external_account = \"kid\"\nexternal_account_key = \"eab.key\"\nca = ");
    for (tried, (config, file)) in
        [(&contact, ""), (&challenge, ""), (&external, ""), (&external, "eab.key"), (&external, "root.pem")]
            .into_iter()
            .enumerate()
    {
        let append = |process: &Process| {
            let file = process.folder.path().join(file);
            if file.is_file() {
                std::fs::write(&file, std::fs::read_to_string(&file).unwrap() + "\n").unwrap();
            }
        };
        process = restart(process, config, append).await;
        process.event("the settings were changed since an attempt failed; trying at once").await;
        assert_eq!(process.event("ordering a certificate").await["attempt"], 1);
        process.event(FAILED).await;
        assert_eq!(ca.seen().orders.len(), tried + 2, "{file}");
        process = restart(process, config, |_| {}).await;
        process.event(RESTS).await;
        assert_eq!(ca.seen().orders.len(), tried + 2, "the same settings");
    }
}

#[tokio::test]
async fn a_broken_file_of_a_pause_is_told_and_holds_nothing_up() {
    let ca = Ca::start_with(Rules { rate_limited: Some(7200), ..Rules::default() }).await;
    let (mut process, config) = failed(&ca).await;
    let sound = std::fs::read_to_string(pause_file(&process)).unwrap();
    let cases = [
        String::new(),
        sound[..sound.len() / 2].to_owned(),
        "[]".to_owned(),
        sound.replace("\"until_s\": ", "\"until_s\": -"),
        sound.replace("\"failures\": 1", "\"failures\": 4294967296"),
    ];
    for (tried, broken) in cases.iter().enumerate() {
        process = restart(process, &config, |process| std::fs::write(pause_file(process), broken).unwrap()).await;
        let told = process.event("the file of an earlier pause is broken; trying without it").await;
        assert!(told["file"].as_str().unwrap().ends_with("a.test.rest.json"), "{told}");
        process.event(FAILED).await;
        assert_eq!(ca.seen().orders.len(), tried + 2, "{broken}");
    }
    // One that can be neither read nor replaced.
    let in_the_way = |process: &Process| {
        std::fs::remove_file(pause_file(process)).unwrap();
        std::fs::create_dir_all(pause_file(process).join("in the way")).unwrap();
    };
    process = restart(process, &config, in_the_way).await;
    process.event("an earlier pause cannot be read; trying without it").await;
    let told = process.event("the pause is known to this process alone; a restart will try at once").await;
    assert!(told["error"].as_str().unwrap().contains("a.test.rest.json"), "{told}");
    let failed = process.event(FAILED).await;
    assert!(failed["retry_s"].as_u64().unwrap() >= 7200, "{failed}");
}

#[tokio::test]
async fn an_end_that_cannot_be_true_is_cut() {
    let ca = Ca::start().await;
    ca.look_at(Look::Http("127.0.0.1:1".to_owned()));
    let (mut process, config) = failed(&ca).await;
    const YEARS: u64 = 10 * 365 * 86_400;
    // No more than the pause was, as after a clock that was set back; and no more than any may be.
    for (changes, most) in [
        (&[("until_s", now() + YEARS)][..], 377),
        (&[("until_s", u64::MAX), ("pause_s", u64::MAX), ("failures", 4_294_967_295)][..], 7 * 86_400 * 5 / 4),
    ] {
        process = restart(process, &config, |process| change(process, changes)).await;
        process
            .event("an earlier pause ends too late to be true, as if the clock had been set back; it is shortened")
            .await;
        let rests = process.event(RESTS).await;
        assert!((1..=most).contains(&rests["retry_s"].as_u64().unwrap()), "{rests}");
    }
    assert_eq!(ca.seen().orders.len(), 1);
}
