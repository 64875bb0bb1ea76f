//! Certificates from an ACME server that nobody here wrote: Let's Encrypt's Pebble, which refuses a good part of all nonces.

use std::{net::TcpListener, path::PathBuf, process::Stdio, time::Duration};

use rustls::pki_types::{CertificateDer, pem::PemObject};
use tempfile::TempDir;
use tokio::{
    net::TcpStream,
    process::{Child, Command},
};
use tokio_rustls::client::TlsStream;

use crate::support::{
    Client,
    authority::Issued,
    process::Process,
    tls_client::{self, trusting},
    within,
};

/// A program on the search path; where peers are required, a missing one fails the test.
fn program(name: &str) -> Option<PathBuf> {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&folders).map(|folder| folder.join(name)).find(|path| path.exists());
    if found.is_none() {
        let why = format!("skipped: {name} is not installed (run .ci/run)");
        assert!(std::env::var_os("SWITCHGATE_REQUIRE_PEERS").is_none(), "{why}");
        eprintln!("{why}");
    }
    found
}

/// Ports that were free a moment ago: Pebble has to be told where everything will be.
fn free_ports<const N: usize>() -> [u16; N] {
    let held = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    held.map(|socket| socket.local_addr().unwrap().port())
}

/// Pebble, and a DNS server for which every name is this machine.
struct Pebble {
    _running: [Child; 2],
    directory: String,
    management: u16,
    tls: u16,
    http: u16,
    folder: TempDir,
}

fn quiet(command: &mut Command) -> Child {
    command.stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true).spawn().unwrap()
}

impl Pebble {
    /// `refused` is how many of a hundred nonces it refuses.
    async fn start(refused: &str) -> Option<Self> {
        let (pebble, dns) = (program("pebble")?, program("pebble-challtestsrv")?);
        let [listen, management, tls, http, names, names_management] = free_ports();
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        Issued::by_itself(&["localhost"]).write(folder.path(), "own");
        let config = serde_json::json!({ "pebble": {
            "listenAddress": format!("127.0.0.1:{listen}"), "managementListenAddress": format!("127.0.0.1:{management}"),
            "certificate": at("own.pem"), "privateKey": at("own.key"), "httpPort": http, "tlsPort": tls,
        }});
        std::fs::write(at("pebble.json"), config.to_string()).unwrap();
        let nobody = ["-http01", "", "-https01", "", "-tlsalpn01", "", "-defaultIPv6", ""];
        let dns = quiet(Command::new(dns).args(nobody).args([
            "-dns01".to_owned(),
            format!("127.0.0.1:{names}"),
            "-management".to_owned(),
            format!("127.0.0.1:{names_management}"),
        ]));
        let mut command = Command::new(pebble);
        command.arg("-config").arg(at("pebble.json")).arg("-dnsserver").arg(format!("127.0.0.1:{names}"));
        let pebble = quiet(command.env("PEBBLE_VA_NOSLEEP", "1").env("PEBBLE_WFE_NONCEREJECT", refused));
        within("Pebble", async {
            for port in [listen, management, names_management] {
                while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        })
        .await;
        let directory = format!("https://localhost:{listen}/dir");
        Some(Self { _running: [dns, pebble], directory, management, tls, http, folder })
    }

    /// The root under which its certificates are; another with each start.
    async fn root(&self) -> CertificateDer<'static> {
        let own = CertificateDer::from_pem_file(self.folder.path().join("own.pem")).unwrap();
        let stream = connect(self.management, "localhost", &own).await.unwrap();
        let answer = Client::new(stream).ask("GET /roots/0 HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        CertificateDer::from_pem_slice(&answer.body).unwrap()
    }

    async fn proxy(&self, challenge: &str) -> Process {
        self.proxy_in(challenge, tempfile::tempdir().unwrap()).await
    }

    async fn proxy_in(&self, challenge: &str, folder: TempDir) -> Process {
        std::fs::copy(self.folder.path().join("own.pem"), folder.path().join("root.pem")).unwrap();
        let (tls, http, directory) = (self.tls, self.http, &self.directory);
        let text = format!(
            "[[listener]]\nlisten = \"127.0.0.1:{tls}\"\n[listener.tls.acme]\ndirectory = \"{directory}\"\n\
             contact = [\"mailto:ops@example.com\"]\nhosts = [\"one.switchgate.test\", \"two.switchgate.test\"]\n\
             challenge = \"{challenge}\"\nstorage = \"acme\"\nca = \"root.pem\"\n\
             [[listener]]\nlisten = \"127.0.0.1:{http}\"\n\
             [[route]]\nupstream = \"u\"\n[upstream.u]\nurl = \"builtin:echo\"\n"
        );
        Process::start_in(&text, folder).await
    }
}

async fn connect(
    port: u16,
    name: &'static str,
    root: &CertificateDer<'static>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let config = trusting(std::slice::from_ref(root), rustls::ALL_VERSIONS).with_no_client_auth();
    tls_client::connect(("127.0.0.1", port), name, config).await
}

async fn two_certificates(challenge: &str) {
    let Some(pebble) = Pebble::start("15").await else { return };
    let root = pebble.root().await;
    let _process = pebble.proxy(challenge).await;
    // Three refused nonces in a row can happen; the next attempt comes after ten seconds.
    let issued = tokio::time::timeout(Duration::from_secs(60), async {
        for name in ["one.switchgate.test", "two.switchgate.test"] {
            while connect(pebble.tls, name, &root).await.is_err() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    });
    issued.await.expect("a certificate for each host");
}

#[tokio::test]
async fn pebble_issues_after_a_validation_over_tls() {
    two_certificates("tls-alpn-01").await;
}

#[tokio::test]
async fn pebble_issues_after_a_validation_over_http() {
    two_certificates("http-01").await;
}

#[tokio::test]
async fn pebble_gives_an_order_to_the_process_after_the_one_that_made_it() {
    let Some(pebble) = Pebble::start("0").await else { return };
    let mut process = pebble.proxy("tls-alpn-01").await;
    let kept = process.folder.path().join("acme");
    within("an order about to be finalized", async {
        let is_there = |entry: std::fs::DirEntry| entry.path().join("one.switchgate.test.order.json").exists();
        while !std::fs::read_dir(&kept).is_ok_and(|mut entries| entries.any(|entry| is_there(entry.unwrap()))) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    process.kill();
    process.exit_code().await;
    let folder = std::mem::replace(&mut process.folder, tempfile::tempdir().unwrap());
    let mut process = pebble.proxy_in("tls-alpn-01", folder).await;
    let order = process.event("taking up the order of an earlier attempt").await;
    assert_eq!(order["host"], "one.switchgate.test");
    assert_eq!(process.event("certificate issued").await["host"], "one.switchgate.test");
    assert_eq!(process.count("the order of an earlier attempt cannot be taken up; another is made"), 0);
}
