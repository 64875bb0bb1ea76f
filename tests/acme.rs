//! Certificates from an ACME server: how they come, how they are renewed, and what happens when they do not.

mod crashes;
mod failures;
mod restarts;

use std::{os::unix::fs::PermissionsExt, path::Path, time::Duration};

use rustls::pki_types::CertificateDer;
use switchgate::{config, server};
use tempfile::TempDir;
use tokio::{net::TcpStream, sync::mpsc};
use tokio_rustls::client::TlsStream;

use crate::support::{
    Client,
    acme::{Ca, Look, Rules, look},
    process::Process,
    tls_client::{self, leaf, trusting},
    within,
};

const DAY: Duration = Duration::from_secs(86_400);

/// A listener with TLS by ACME, a plain one, and one route. `more` is further keys of `acme`.
fn text(ca: &Ca, challenge: &str, more: &str) -> String {
    format!(
        "[[listener]]\nname = \"tls\"\nlisten = \"127.0.0.1:0\"\n[listener.tls.acme]\ndirectory = \"{}\"\n\
         contact = [\"mailto:ops@example.com\"]\nhosts = [\"a.test\"]\nchallenge = \"{challenge}\"\n\
         storage = \"acme\"\nca = \"root.pem\"\n{more}\n\
         [[listener]]\nname = \"plain\"\nlisten = \"127.0.0.1:0\"\n\
         [[route]]\nupstream = \"u\"\n[upstream.u]\nurl = \"builtin:echo\"\n",
        ca.directory
    )
}

fn folder(ca: &Ca) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    ca.write_root(&folder.path().join("root.pem"));
    folder
}

/// The one folder below `acme`, which is named after the directory.
fn kept(folder: &Path) -> std::path::PathBuf {
    let mut all = std::fs::read_dir(folder.join("acme")).unwrap();
    let only = all.next().unwrap().unwrap().path();
    assert!(all.next().is_none());
    only
}

/// Where the CA's certificates would be kept.
fn place(folder: &Path, ca: &Ca) -> std::path::PathBuf {
    let model = config::parse(&text(ca, "tls-alpn-01", ""), &folder.join("proxy.toml")).unwrap();
    model.listeners[0].tls.as_ref().unwrap().acme.as_ref().unwrap().storage.clone()
}

async fn connect(
    address: &str,
    root: &CertificateDer<'static>,
    alpn: &[&str],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut config = trusting(std::slice::from_ref(root), rustls::ALL_VERSIONS).with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    tls_client::connect(address, "a.test", config).await
}

#[test]
fn what_cannot_be_ordered_is_a_config_error() {
    let rest = "[[route]]\nupstream = \"u\"\n[upstream.u]\nurl = \"builtin:echo\"\n";
    let one = r#"[[listener]]
listen = "127.0.0.1:1"
[listener.tls.acme]
directory = "http://ca.test/dir"
contact = ["ops@example.com"]
hosts = ["*.example.com", "127.0.0.1", "a.test", "A.test"]
challenge = "dns-01"
storage = "acme"
external_account = "kid"
[[listener]]
listen = "127.0.0.1:2"
[listener.tls]
certificate = "a.pem"
acme = { hosts = [] }
"#;
    let other = r#"[[listener]]
listen = "127.0.0.1:3"
[listener.tls.acme]
directory = "https://ca.test/dir"
hosts = "a.test"
challenge = "http-01"
storage = "acme"
[[listener]]
listen = "127.0.0.1:4"
[listener.tls]
pairs = [{ certificate = "a.pem", key = "a.key" }]
acme = { hosts = [], contact = "ops@example.com" }
"#;
    let expected = "\
p.toml:4:13: `http://ca.test/dir` is no ACME directory; expected `https://host/path` (RFC 8555 section 6.1)
p.toml:5:12: `ops@example.com` is no contact; expected `mailto:ops@example.com`
p.toml:6:10: no certificate can be ordered for `*.example.com`: a wildcard can be proven by DNS only; name each host, or order it elsewhere and use `pairs`
p.toml:6:27: no certificate can be ordered for `127.0.0.1`: it is no DNS name; expected `chat.example.com`, international ones in their `xn--` form
p.toml:6:50: no certificate can be ordered for `A.test`: it is named twice; keep one
p.toml:7:13: unknown value `dns-01`; expected one of: tls-alpn-01, http-01
p.toml:9:20: `external_account` and `external_account_key` belong together; write both or none
p.toml:12:1: `tls` has `acme` beside `certificate`, `key` or `development`; keep `acme` alone, or beside `pairs`
p.toml:3:11: `challenge = \"http-01\"` needs a listener without `tls`, which port 80 leads to; add one
p.toml:12:8: `acme` has no `storage`; name a folder that only this user may read, such as \"acme\"
p.toml:12:8: `acme` has no `hosts`; name those that clients ask for
p.toml:12:8: `acme` has no `directory`; begin with a CA's own for tests, such as \"https://acme-staging-v02.api.letsencrypt.org/directory\"
p.toml:12:32: `ops@example.com` is no contact; expected `mailto:ops@example.com`";
    let errors = |text: &str| config::parse(&format!("{text}{rest}"), Path::new("p.toml")).unwrap_err().to_string();
    let found = format!("{}\n{}", errors(one), errors(other));
    assert_eq!(found, expected, "\n{found}");
}

#[tokio::test]
async fn a_check_reads_what_a_start_reads_and_orders_nothing() {
    let ca = Ca::start().await;
    let folder = folder(&ca);
    let check = |more: &str| {
        let model = config::parse(&text(&ca, "tls-alpn-01", more), &folder.path().join("proxy.toml")).unwrap();
        server::check(&model).map_err(|error| error.to_string())
    };
    check("").unwrap();
    assert!(!folder.path().join("acme").exists());
    let error = check("external_account = \"kid\"\nexternal_account_key = \"eab.key\"").unwrap_err();
    assert!(error.contains("listener `tls`") && error.contains("eab.key"), "{error}");
    std::fs::write(folder.path().join("root.pem"), "no root").unwrap();
    let error = check("").unwrap_err();
    assert!(error.contains("root.pem"), "{error}");
    assert_eq!((ca.seen().accounts, ca.seen().orders.len()), (0, 0));
}

const READ_AGAIN: &str = "certificates read again; the next TLS handshake gets them";

#[tokio::test]
async fn the_first_certificate_comes_by_itself_and_outlives_the_process() {
    let ca = Ca::start().await;
    let folder = folder(&ca);
    let config = text(&ca, "tls-alpn-01", "");
    let mut process = Process::start_in(&config, folder).await;
    // Before it is there, a handshake fails; nothing stands in for it.
    connect(&process.addresses[0], &ca.root(), &[]).await.unwrap_err();
    ca.look_at(Look::Tls(process.addresses[0].clone()));
    let ordering = process.event("ordering a certificate").await;
    assert_eq!((&ordering["host"], &ordering["listener"]), (&"a.test".into(), &"tls".into()));
    let issued = process.event("certificate issued").await;
    assert!(issued["days"].as_i64().unwrap() >= 89, "{issued}");
    process.event(READ_AGAIN).await;
    let told = process.event("certificate").await;
    assert!(told["names"].as_str().unwrap().contains("a.test"), "{told}");
    let stream = connect(&process.addresses[0], &ca.root(), &["http/1.1"]).await.unwrap();
    let first = leaf(&stream);
    assert_eq!(Client::new(stream).ask("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await.status, 200);
    assert_eq!(process.count("ACME validation over TLS answered"), 1);

    let kept = kept(process.folder.path());
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&kept), mode(kept.parent().unwrap())), (0o700, 0o700));
    let mut names: Vec<_> = std::fs::read_dir(&kept).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["a.test.pem", "account.json", "lock"]);
    assert!(names.iter().all(|name| mode(&kept.join(name)) == 0o600));

    // A restart uses what is there.
    process.terminate();
    process.exit_code().await;
    let folder = std::mem::replace(&mut process.folder, tempfile::tempdir().unwrap());
    let process = Process::start_in(&config, folder).await;
    assert_eq!(leaf(&connect(&process.addresses[0], &ca.root(), &[]).await.unwrap()), first);
    let seen = ca.seen();
    assert_eq!((seen.orders.len(), seen.accounts, seen.issued), (1, 1, 1));
    assert_eq!(seen.contacts, ["mailto:ops@example.com"]);
}

#[tokio::test]
async fn http_01_is_answered_on_the_plain_listener_for_what_is_pending_alone() {
    let ca = Ca::start().await;
    let mut process = Process::start_in(&text(&ca, "http-01", ""), folder(&ca)).await;
    process.event("ordering a certificate").await;
    let pending = async {
        loop {
            if let Some(token) = ca.seen().tokens.first().cloned() {
                let at = Look::Http(process.addresses[1].clone());
                // Between the order and the answer there is a message or two.
                if look(&at, "http-01", "a.test", &token.0, &token.1).await.is_ok() {
                    return token;
                }
            }
            tokio::task::yield_now().await;
        }
    };
    let (token, thumbprint) = within("a pending token", pending).await;
    let plain = process.addresses[1].clone();
    let ask = async |path: &str, method: &str| {
        let stream = TcpStream::connect(&plain).await.unwrap();
        Client::new(stream).ask(format!("{method} {path} HTTP/1.1\r\nHost: any.test\r\n\r\n")).await
    };
    let path = format!("/.well-known/acme-challenge/{token}");
    let answer = ask(&path, "GET").await;
    assert_eq!((answer.status, answer.text()), (200, format!("{token}.{thumbprint}")));
    for (path, method) in [
        ("/.well-known/acme-challenge/another", "GET"),
        ("/.well-known/acme-challenge/", "GET"),
        (&format!("{path}/x"), "GET"),
        (&path, "POST"),
    ] {
        let answer = ask(path, method).await;
        assert!(!answer.text().contains(&thumbprint), "{method} {path}: {}", answer.text());
    }
    ca.look_at(Look::Http(process.addresses[1].clone()));
    process.event("certificate issued").await;
    assert!(!ask(&path, "GET").await.text().contains(&thumbprint), "the order is over, and so is the token");
    process.event(READ_AGAIN).await;
    connect(&process.addresses[0], &ca.root(), &[]).await.unwrap();
}

#[tokio::test]
async fn the_challenges_certificate_is_given_to_a_validation_and_to_nobody_else() {
    let ca = Ca::start().await;
    let mut process = Process::start_in(&text(&ca, "tls-alpn-01", ""), folder(&ca)).await;
    process.event("ordering a certificate").await;
    let at = Look::Tls(process.addresses[0].clone());
    let pending = async {
        loop {
            if let Some((token, thumbprint)) = ca.seen().tokens.first().cloned()
                && look(&at, "tls-alpn-01", "a.test", &token, &thumbprint).await.is_ok()
            {
                return (token, thumbprint);
            }
            tokio::task::yield_now().await;
        }
    };
    let (token, thumbprint) = within("a pending challenge", pending).await;
    look(&at, "tls-alpn-01", "b.test", &token, &thumbprint).await.unwrap_err();
    look(&at, "tls-alpn-01", "a.test", &token, "another").await.unwrap_err();
    // No certificate of ours is there yet: whoever gets a handshake done has got the challenge's.
    for alpn in [&[][..], &["http/1.1"], &["acme-tls/1", "http/1.1"], &["http/1.1", "acme-tls/1"], &["h2"]] {
        let error = connect(&process.addresses[0], &ca.root(), alpn).await.unwrap_err();
        assert!(!error.to_string().contains("certificate"), "{alpn:?} was shown one: {error}");
    }
    ca.look_at(at.clone());
    process.event("certificate issued").await;
    process.event(READ_AGAIN).await;
    connect(&process.addresses[0], &ca.root(), &["http/1.1", "acme-tls/1"]).await.unwrap();
    connect(&process.addresses[0], &ca.root(), &["acme-tls/1"]).await.unwrap_err();
    look(&at, "tls-alpn-01", "a.test", &token, &thumbprint).await.unwrap_err();
}

#[tokio::test]
async fn a_certificate_past_two_thirds_of_its_life_is_renewed_under_live_connections() {
    let ca = Ca::start().await;
    let folder = folder(&ca);
    let place = place(folder.path(), &ca);
    std::fs::create_dir_all(&place).unwrap();
    std::fs::write(place.join("a.test.pem"), ca.sign("a.test", 61 * DAY, 29 * DAY)).unwrap();
    let mut process = Process::start_in(&text(&ca, "tls-alpn-01", ""), folder).await;
    let stream = connect(&process.addresses[0], &ca.root(), &[]).await.unwrap();
    let old = leaf(&stream);
    let mut live = Client::new(stream);
    ca.look_at(Look::Tls(process.addresses[0].clone()));
    assert_eq!(process.event("ordering a certificate").await["days_left"], 28);
    process.event(READ_AGAIN).await;
    assert_ne!(leaf(&connect(&process.addresses[0], &ca.root(), &[]).await.unwrap()), old);
    assert_eq!(live.ask("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await.status, 200);
    assert_eq!(ca.seen().issued, 1);
}

#[tokio::test]
async fn of_two_processes_with_one_storage_one_orders() {
    let ca = Ca::start().await;
    let shared = folder(&ca);
    let config = text(&ca, "tls-alpn-01", "")
        .replace("storage = \"acme\"", &format!("storage = \"{}\"", shared.path().join("acme").display()));
    let mut one = Process::start_in(&config, folder(&ca)).await;
    one.event("ordering a certificate").await;
    let mut two = Process::start_in(&config, folder(&ca)).await;
    two.event("another process orders with this storage; waiting for it").await;
    ca.look_at(Look::Tls(one.addresses[0].clone()));
    one.event("certificate issued").await;
    two.event(READ_AGAIN).await;
    connect(&two.addresses[0], &ca.root(), &[]).await.unwrap();
    assert_eq!((ca.seen().orders.len(), ca.seen().accounts), (1, 1));
}

#[tokio::test]
async fn an_account_of_somebody_else_is_bound_with_their_key() {
    let secret = b"a secret of thirty-two bytes ...".to_vec();
    let ca = Ca::start_with(Rules { external: Some(("kid-1".to_owned(), secret)), ..Rules::default() }).await;
    let folder = folder(&ca);
    std::fs::write(folder.path().join("eab.key"), "YSBzZWNyZXQgb2YgdGhpcnR5LXR3byBieXRlcyAuLi4\n").unwrap();
    let more = "external_account = \"kid-1\"\nexternal_account_key = \"eab.key\"";
    let mut process = Process::start_in(&text(&ca, "tls-alpn-01", more), folder).await;
    ca.look_at(Look::Tls(process.addresses[0].clone()));
    process.event("certificate issued").await;
    ca.seen();
}
