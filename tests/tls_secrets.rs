//! What TLS keeps beyond one connection: logged secrets and resumed sessions.

use std::{
    collections::BTreeSet,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::{Arc, Mutex},
};

use rustls::{
    ClientConfig, HandshakeKind, KeyLog, SupportedProtocolVersion,
    version::{TLS12, TLS13},
};

use crate::support::{
    Client, Proxy,
    authority::Authority,
    process::Process,
    tls_client::{self, development_root, trusting},
};

const LISTENER: &str = "[[listener]]\nlisten = \"127.0.0.1:0\"\n[listener.tls]\ncertificate = \"leaf.pem\"\n\
                        key = \"leaf.key\"\ndevelopment = true\n";
const ROUTE: &str = "[[route]]\nupstream = \"u\"\n[upstream.u]\nurl = \"builtin:echo\"\n";

fn client(folder: &Path, version: &'static SupportedProtocolVersion) -> ClientConfig {
    trusting(&[development_root(folder)], &[version]).with_no_client_auth()
}

/// One request on a connection of its own; how its handshake went.
async fn ask(address: &str, config: &Arc<ClientConfig>) -> HandshakeKind {
    let stream = tls_client::connect(address, "localhost", Arc::clone(config)).await.unwrap();
    let mut client = Client::new(stream);
    // Tickets of TLS 1.3 come after the handshake, and before the answer.
    assert_eq!(client.ask("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.status, 200);
    client.stream.get_ref().1.handshake_kind().unwrap()
}

/// What a client would have written into a key log of its own.
#[derive(Debug, Default)]
struct Secrets(Mutex<BTreeSet<String>>);

impl KeyLog for Secrets {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        self.0.lock().unwrap().insert(format!("{label} {} {}", hex(client_random), hex(secret)));
    }
}

#[tokio::test]
async fn secrets_are_logged_where_the_command_line_says_and_nowhere_else() {
    const RUN: &str = "export SSLKEYLOGFILE=environment.log; exec \"$0\" --log-format json run";
    for asked in [true, false] {
        let line = if asked { format!("{RUN} --tls-key-log keys.log") } else { RUN.to_owned() };
        let mut process = Process::start_with(&format!("{LISTENER}{ROUTE}"), "info", &line).await;
        let folder = process.folder.path().to_owned();
        let mut expected = BTreeSet::new();
        for version in [&TLS12, &TLS13] {
            let secrets = Arc::new(Secrets::default());
            let mut config = client(&folder, version);
            config.key_log = Arc::clone(&secrets) as Arc<dyn KeyLog>;
            ask(&process.addresses[0], &Arc::new(config)).await;
            expected.append(&mut secrets.0.lock().unwrap());
        }
        process.terminate();
        assert_eq!(process.exit_code().await, Some(0));
        assert!(!folder.join("environment.log").exists());
        let warnings = process.seen.iter().filter(|event| event["message"].as_str().unwrap().contains("SECRETS"));
        assert_eq!(warnings.filter(|event| event["level"] == "WARN").count(), usize::from(asked));
        assert_eq!(folder.join("keys.log").exists(), asked);
        if asked {
            let text = std::fs::read_to_string(folder.join("keys.log")).unwrap();
            assert_eq!(text.lines().map(str::to_owned).collect::<BTreeSet<_>>(), expected);
            let mode = std::fs::metadata(folder.join("keys.log")).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }
}

#[tokio::test]
async fn a_listener_that_reads_its_client_ca_again_goes_on_logging() {
    let text = format!("{LISTENER}[listener.tls.client]\nca = \"clients.pem\"\nmode = \"optional\"\n{ROUTE}");
    let folder = tempfile::tempdir().unwrap();
    Authority::new("clients").write(&folder.path().join("clients.pem"));
    let line = "exec \"$0\" --log-format json run --tls-key-log keys.log";
    let mut process = Process::launch(&text, folder, "info", line).await;
    let folder = process.folder.path().to_owned();
    Authority::new("others").write(&folder.join("clients.pem"));
    process.hang_up();
    process.event("certificates read again; the next TLS handshake gets them").await;
    let secrets = Arc::new(Secrets::default());
    let mut config = client(&folder, &TLS13);
    config.key_log = Arc::clone(&secrets) as Arc<dyn KeyLog>;
    ask(&process.addresses[0], &Arc::new(config)).await;
    let (expected, logged) = (secrets.0.lock().unwrap(), std::fs::read_to_string(folder.join("keys.log")).unwrap());
    assert!(!expected.is_empty() && expected.iter().all(|line| logged.contains(line)), "{logged}");
}

#[tokio::test]
async fn a_ticket_is_good_for_its_own_listener_until_it_restarts() {
    let folder = tempfile::tempdir().unwrap();
    let text = format!("{LISTENER}{LISTENER}{ROUTE}");
    let first = Proxy::start_in(&text, folder.path()).await;
    let again = Proxy::start_in(&text, folder.path()).await;
    let [one, other, restarted] = [first.addresses[0], first.addresses[1], again.addresses[0]].map(|a| a.to_string());
    for version in [&TLS12, &TLS13] {
        let config = Arc::new(client(folder.path(), version));
        for (address, expected) in [
            (&one, HandshakeKind::Full),
            (&one, HandshakeKind::Resumed),
            (&other, HandshakeKind::Full),
            (&other, HandshakeKind::Resumed),
            (&restarted, HandshakeKind::Full),
            (&restarted, HandshakeKind::Resumed),
        ] {
            // The client shows the last ticket that it was given for this name, whoever gave it.
            assert_eq!(ask(address, &config).await, expected, "{version:?} at {address}");
        }
    }
}

#[test]
fn ticket_keys_are_known_for_twelve_hours() {
    // What operations.md promises; the keys themselves are rustls's.
    let ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().unwrap();
    assert!(ticketer.enabled());
    assert_eq!(ticketer.lifetime(), 12 * 60 * 60);
}
