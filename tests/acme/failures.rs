//! What goes wrong between us and the CA, or on our disk.

use super::*;

#[tokio::test]
async fn a_failed_challenge_keeps_the_old_certificate_and_says_why() {
    let ca = Ca::start().await;
    let folder = folder(&ca);
    let place = place(folder.path(), &ca);
    std::fs::create_dir_all(&place).unwrap();
    std::fs::write(place.join("a.test.pem"), ca.sign("a.test", 61 * DAY, 29 * DAY)).unwrap();
    // The CA looks at the wrong door.
    ca.look_at(Look::Http("127.0.0.1:1".to_owned()));
    let mut process = Process::start_in(&text(&ca, "tls-alpn-01", ""), folder).await;
    let failed = process.event("certificate not renewed; the old one goes on serving").await;
    assert!(failed["error"].as_str().unwrap().contains("nothing answers tls-alpn-01"), "{failed}");
    assert!((300..=375).contains(&failed["retry_s"].as_u64().unwrap()), "{failed}");
    assert_eq!((&failed["days"], &failed["level"]), (&28.into(), &"WARN".into()));
    connect(&process.addresses[0], &ca.root(), &[]).await.unwrap();
    assert_eq!(ca.seen().orders.len(), 1);
}

#[tokio::test]
async fn a_rate_limit_is_kept_as_long_as_the_ca_says() {
    let ca = Ca::start_with(Rules { rate_limited: Some(7200), ..Rules::default() }).await;
    let mut process = Process::start_in(&text(&ca, "tls-alpn-01", ""), folder(&ca)).await;
    let failed = process.event("no certificate for this host; TLS handshakes for it fail").await;
    let error = failed["error"].as_str().unwrap();
    assert!(error.contains("rateLimited") && error.contains("too many\\r\\norders\\u{202e}"), "{failed}");
    assert!((7200..=9000).contains(&failed["retry_s"].as_u64().unwrap()), "{failed}");
    assert_eq!(ca.seen().orders.len(), 1);
}

#[tokio::test]
async fn a_bad_nonce_is_tried_again_at_once() {
    let ca = Ca::start_with(Rules { bad_nonces: 2, ..Rules::default() }).await;
    let mut process = Process::start_in(&text(&ca, "tls-alpn-01", ""), folder(&ca)).await;
    ca.look_at(Look::Tls(process.addresses[0].clone()));
    process.event("certificate issued").await;
    assert_eq!(process.count("no certificate for this host; TLS handshakes for it fail"), 0);
}

#[tokio::test]
async fn a_ca_that_keeps_refusing_nonces_has_counted_nothing() {
    let ca = Ca::start_with(Rules { bad_nonces: 3, ..Rules::default() }).await;
    let mut process = Process::start_in(&text(&ca, "tls-alpn-01", ""), folder(&ca)).await;
    let failed = process.event("no certificate for this host; TLS handshakes for it fail").await;
    assert!(failed["error"].as_str().unwrap().contains("badNonce"), "{failed}");
    assert!((10..=12).contains(&failed["retry_s"].as_u64().unwrap()), "{failed}");
}

#[tokio::test]
async fn a_certificate_that_cannot_serve_replaces_nothing() {
    let ca = Ca::start_with(Rules { wrong_key: true, ..Rules::default() }).await;
    let folder = folder(&ca);
    let place = place(folder.path(), &ca);
    std::fs::create_dir_all(&place).unwrap();
    let old = ca.sign("a.test", 61 * DAY, 29 * DAY);
    std::fs::write(place.join("a.test.pem"), &old).unwrap();
    let mut process = Process::start_in(&text(&ca, "tls-alpn-01", ""), folder).await;
    ca.look_at(Look::Tls(process.addresses[0].clone()));
    let failed = process.event("certificate not renewed; the old one goes on serving").await;
    assert!(failed["error"].as_str().unwrap().contains("does not belong"), "{failed}");
    assert_eq!(std::fs::read_to_string(place.join("a.test.pem")).unwrap(), old);
}

#[tokio::test]
async fn a_server_that_is_down_is_one_line_and_a_soon_retry() {
    let ca = Ca::start().await;
    let down = {
        TcpStream::connect("127.0.0.1:1").await.unwrap_err();
        "https://127.0.0.1:1/directory"
    };
    let text = text(&ca, "tls-alpn-01", "").replace(&ca.directory, down);
    let mut process = Process::start_in(&text, folder(&ca)).await;
    let failed = process.event("no certificate for this host; TLS handshakes for it fail").await;
    let error = failed["error"].as_str().unwrap();
    assert!(error.contains("cannot connect to 127.0.0.1:1") && error.contains("refused"), "{failed}");
    assert!((10..=12).contains(&failed["retry_s"].as_u64().unwrap()), "{failed}");
    process.terminate();
    assert_eq!(process.exit_code().await, Some(0));
}

#[tokio::test]
async fn a_storage_that_cannot_be_written_is_told_before_anything_is_ordered() {
    let ca = Ca::start().await;
    let folder = folder(&ca);
    std::fs::write(folder.path().join("acme"), "a file where a folder should be").unwrap();
    let mut process = Process::start_in(&text(&ca, "tls-alpn-01", ""), folder).await;
    let failed = process.event("no certificate for this host; TLS handshakes for it fail").await;
    let error = failed["error"].as_str().unwrap();
    assert!(error.contains("acme/") && error.contains("may write there"), "{error}");
    assert_eq!((ca.seen().accounts, ca.seen().orders.len()), (0, 0));
}

#[tokio::test]
async fn a_broken_file_of_ours_is_ordered_anew() {
    let ca = Ca::start().await;
    let folder = folder(&ca);
    let place = place(folder.path(), &ca);
    std::fs::create_dir_all(&place).unwrap();
    std::fs::write(place.join("a.test.pem"), "half a certif").unwrap();
    let mut process = Process::start_in(&text(&ca, "tls-alpn-01", ""), folder).await;
    assert_eq!(process.all("a certificate from ACME cannot be used; it is ordered anew").len(), 1);
    ca.look_at(Look::Tls(process.addresses[0].clone()));
    process.event("certificate issued").await;
    process.event(READ_AGAIN).await;
    connect(&process.addresses[0], &ca.root(), &[]).await.unwrap();
}

#[tokio::test]
async fn a_certificate_that_could_not_be_written_is_not_ordered_twice() {
    let ca = Ca::start().await;
    let folder = folder(&ca);
    let mut model = config::parse(&text(&ca, "tls-alpn-01", ""), &folder.path().join("proxy.toml")).unwrap();
    model.listeners[0].tls.as_mut().unwrap().acme.as_mut().unwrap().pace.after_fault = Duration::from_millis(100);
    // What cannot be written is this one file; the storage as such is sound.
    let in_the_way = place(folder.path(), &ca).join(".a.test.pem.new");
    std::fs::create_dir_all(&in_the_way).unwrap();
    let bound = server::bind(&model).unwrap();
    let address = bound.addresses()[0].1.to_string();
    ca.look_at(Look::Tls(address.clone()));
    let (_stop, stops) = mpsc::channel(2);
    let running = tokio::spawn(async move { server::run(model, bound, stops).await });
    within("a certificate", async {
        while ca.seen().issued == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // Twice at least it has been tried by then.
        tokio::time::sleep(Duration::from_millis(500)).await;
        std::fs::remove_dir(&in_the_way).unwrap();
        while connect(&address, &ca.root(), &[]).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    assert_eq!(ca.seen().orders.len(), 1);
    running.abort();
}

#[tokio::test]
async fn failures_are_tried_again_ever_more_slowly_until_one_succeeds() {
    let ca = Ca::start().await;
    let folder = folder(&ca);
    let mut model = config::parse(&text(&ca, "tls-alpn-01", ""), &folder.path().join("proxy.toml")).unwrap();
    let pace = &mut model.listeners[0].tls.as_mut().unwrap().acme.as_mut().unwrap().pace;
    // Longer than an attempt takes, so that pauses and attempts cannot be mistaken for each other.
    (pace.after_refusal, pace.longest) = (Duration::from_millis(800), Duration::from_millis(1600));
    pace.after_fault = Duration::from_millis(50);
    // However often it looks, it tries no sooner.
    pace.look = Duration::from_millis(20);
    let bound = server::bind(&model).unwrap();
    let address = bound.addresses()[0].1.to_string();
    ca.look_at(Look::Http("127.0.0.1:1".to_owned()));
    let (_stop, stops) = mpsc::channel(2);
    let running = tokio::spawn(async move { server::run(model, bound, stops).await });
    let orders = async |count: usize| {
        within("orders", async {
            while ca.seen().orders.len() < count {
                tokio::task::yield_now().await;
            }
        })
        .await;
    };
    orders(3).await;
    let times = ca.seen().orders;
    let (first, second) = (times[1] - times[0], times[2] - times[1]);
    assert!(first >= Duration::from_millis(800) && second >= Duration::from_millis(1600), "{first:?} {second:?}");
    // An account that is gone is made anew, too.
    ca.forget();
    ca.look_at(Look::Tls(address.clone()));
    within("a certificate", async {
        while connect(&address, &ca.root(), &[]).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    let seen = ca.seen();
    assert_eq!((seen.issued, seen.accounts), (1, 2));
    running.abort();
}
