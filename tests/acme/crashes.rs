//! What becomes of an order whose process did not live to see the certificate.

use serde_json::{Value, json};

use super::*;

const TAKES_UP: &str = "taking up the order of an earlier attempt";
const RESTS: &str = "earlier attempts failed; their pause goes on";
const GIVES_UP: &str = "the order of an earlier attempt cannot be taken up; another is made";

fn order_file(process: &Process) -> std::path::PathBuf {
    kept(process.folder.path()).join("a.test.order.json")
}

/// One that was killed with its order finalized and no certificate there, and its config.
async fn killed(ca: &Ca) -> (Process, String) {
    ca.slow(true);
    let config = text(ca, "tls-alpn-01", "");
    let issued = ca.seen().issued;
    let mut process = Process::start_in(&config, folder(ca)).await;
    ca.look_at(Look::Tls(process.addresses[0].clone()));
    within("a finalized order", async {
        while ca.seen().issued == issued {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    process.kill();
    process.exit_code().await;
    (process, config)
}

/// As an operator does who cannot wait.
fn without_pause(process: &Process) {
    std::fs::remove_file(kept(process.folder.path()).join("a.test.rest.json")).unwrap();
}

/// Another process in the folder of one that has ended.
async fn again(mut process: Process, ca: &Ca, config: &str) -> Process {
    let folder = std::mem::replace(&mut process.folder, tempfile::tempdir().unwrap());
    let process = Process::start_in(config, folder).await;
    ca.look_at(Look::Tls(process.addresses[0].clone()));
    process
}

#[tokio::test]
async fn a_process_that_is_killed_leaves_its_order_to_the_next() {
    let ca = Ca::start().await;
    let (process, config) = killed(&ca).await;
    let file = order_file(&process);
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    // While it is still processed, and once more when it is done.
    let mut process = again(process, &ca, &config).await;
    process.event(TAKES_UP).await;
    process.kill();
    process.exit_code().await;
    // Once without a pause; whatever ends the process may do so each time.
    let mut process = again(process, &ca, &config).await;
    let rests = process.event(RESTS).await;
    assert!((18..=21).contains(&rests["retry_s"].as_u64().unwrap()), "{rests}");
    process.kill();
    process.exit_code().await;
    without_pause(&process);
    ca.slow(false);
    let mut process = again(process, &ca, &config).await;
    process.event(TAKES_UP).await;
    process.event("certificate issued").await;
    process.event(READ_AGAIN).await;
    connect(&process.addresses[0], &ca.root(), &[]).await.unwrap();
    let seen = ca.seen();
    assert_eq!((seen.orders.len(), seen.finalized, seen.issued, seen.accounts), (1, 1, 1, 1));
    let names = std::fs::read_dir(kept(process.folder.path())).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<_> = names.collect();
    names.sort();
    assert_eq!(names, ["a.test.pem", "account.json", "lock"]);
}

#[tokio::test]
async fn an_order_that_cannot_be_taken_up_is_made_anew() {
    let set = |process: &Process, name: &str, other: Value| {
        let file = order_file(process);
        let mut value: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        assert!(!value[name].is_null(), "{value}");
        value[name] = other;
        std::fs::write(&file, value.to_string()).unwrap();
    };
    type Meanwhile<'a> = &'a dyn Fn(&Process, &Ca);
    let cases: [(&str, Meanwhile<'_>); 6] = [
        ("no order of this number", &|_, ca| ca.lose_orders()),
        ("another account", &|process, _| {
            std::fs::remove_file(kept(process.folder.path()).join("account.json")).unwrap();
        }),
        ("another host", &|process, _| set(process, "host", json!("b.test"))),
        ("often enough", &|process, _| set(process, "taken_up", json!(8))),
        ("older than a day", &|process, _| set(process, "since_s", json!(1_000_000_000))),
        ("broken", &|process, _| std::fs::write(order_file(process), "{\"host\": \"a.t").unwrap()),
    ];
    for (why, meanwhile) in cases {
        let ca = Ca::start().await;
        let (process, config) = killed(&ca).await;
        meanwhile(&process, &ca);
        without_pause(&process);
        ca.slow(false);
        let mut process = again(process, &ca, &config).await;
        let told = process.event(GIVES_UP).await;
        assert!(told["error"].as_str().unwrap().contains(why), "{why}: {told}");
        process.event("certificate issued").await;
        assert_eq!(ca.seen().orders.len(), 2, "{why}");
        assert_eq!(process.count(GIVES_UP), 1, "{why}");
        assert!(!order_file(&process).exists(), "{why}");
    }
}

#[tokio::test]
async fn the_order_of_a_certificate_that_was_put_in_place_is_over() {
    // Due as soon as it is there.
    let ca = Ca::start_with(Rules { age: 61 * DAY, left: 29 * DAY, ..Rules::default() }).await;
    let (process, config) = killed(&ca).await;
    let order = std::fs::read(order_file(&process)).unwrap();
    ca.slow(false);
    let mut process = again(process, &ca, &config).await;
    process.event("certificate issued").await;
    process.kill();
    process.exit_code().await;
    // As a crash leaves it between the two.
    std::fs::write(order_file(&process), order).unwrap();
    let mut process = again(process, &ca, &config).await;
    process.event("certificate issued").await;
    assert_eq!((ca.seen().orders.len(), process.count(TAKES_UP), process.count(GIVES_UP)), (2, 0, 0));
}

#[tokio::test]
async fn an_order_that_cannot_be_kept_goes_on_all_the_same() {
    let ca = Ca::start().await;
    let folder = folder(&ca);
    std::fs::create_dir_all(place(folder.path(), &ca).join(".a.test.order.json.new")).unwrap();
    let mut process = Process::start_in(&text(&ca, "tls-alpn-01", ""), folder).await;
    ca.look_at(Look::Tls(process.addresses[0].clone()));
    let told = process.event("the order cannot be kept; after a crash another would be made").await;
    assert!(told["error"].as_str().unwrap().contains(".a.test.order.json.new"), "{told}");
    process.event("certificate issued").await;
}

/// A proxy in this process, which comes back almost at once when nothing was counted against it.
async fn hasty(ca: &Ca) -> (TempDir, tokio::task::JoinHandle<()>) {
    let folder = folder(ca);
    let mut model = config::parse(&text(ca, "tls-alpn-01", ""), &folder.path().join("proxy.toml")).unwrap();
    let pace = &mut model.listeners[0].tls.as_mut().unwrap().acme.as_mut().unwrap().pace;
    (pace.after_fault, pace.longest) = (Duration::from_millis(20), Duration::from_millis(40));
    let bound = server::bind(&model).unwrap();
    ca.look_at(Look::Tls(bound.addresses()[0].1.to_string()));
    let running = tokio::spawn(async move {
        let (_stop, stops) = mpsc::channel(2);
        let _ = server::run(model, bound, stops).await;
    });
    (folder, running)
}

async fn seen(ca: &Ca, what: &str, enough: impl Fn(&crate::support::acme::Seen) -> bool) {
    within(what, async {
        while !enough(&ca.seen()) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn an_order_that_is_ready_is_finalized_by_the_next_attempt() {
    let ca = Ca::start_with(Rules { finalize_faults: 3, ..Rules::default() }).await;
    let (_folder, running) = hasty(&ca).await;
    seen(&ca, "a certificate", |seen| seen.issued == 1).await;
    assert_eq!((ca.seen().orders.len(), ca.seen().finalized), (1, 4));
    running.abort();
}

#[tokio::test]
async fn no_order_is_taken_up_for_ever() {
    let ca = Ca::start_with(Rules { finalize_faults: usize::MAX, ..Rules::default() }).await;
    let (_folder, running) = hasty(&ca).await;
    seen(&ca, "another order", |seen| seen.orders.len() == 2).await;
    assert_eq!(ca.seen().finalized, 1 + 8);
    running.abort();
}
