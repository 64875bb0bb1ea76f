//! TLS to upstreams: whom we trust, whom they trust, and what an operator reads when they do not.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine, engine::general_purpose::STANDARD};
use rcgen::{PublicKeyData, date_time_ymd};
use rustls::{
    ServerConfig, SupportedProtocolVersion,
    crypto::aws_lc_rs::{default_provider, sign::any_supported_type},
    pki_types::PrivateKeyDer,
    sign::{CertifiedKey, SingleCertAndKey},
    version::{TLS12, TLS13},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::server::TlsStream;

use crate::support::{
    Client,
    authority::{self, Authority, Issued, raw, serve, showing},
    handshake,
    process::{Process, shell},
};

/// One listener, and a route `/NAME` to each upstream.
fn config(upstreams: &[(&str, u16, &str)]) -> String {
    let mut text = "[[listener]]\nlisten = \"127.0.0.1:0\"\n".to_owned();
    for (name, port, keys) in upstreams {
        text.push_str(&format!(
            "[[route]]\npath = \"/{name}\"\nupstream = \"{name}\"\n\
             [upstream.{name}]\nurl = \"https://localhost:{port}\"\ndial_timeout = \"1s\"\n{keys}\n"
        ));
    }
    text
}

/// A plain request, and an opening handshake.
fn both(path: &str) -> [String; 2] {
    let plain = format!("GET /{path} HTTP/1.1\r\nHost: gate.test\r\n\r\n");
    [plain, handshake("").replace("/chat", &format!("/{path}"))]
}

/// Says a TLS alert instead of a ServerHello.
async fn alert(number: u8) -> u16 {
    raw(move |mut stream| async move {
        let _ = stream.read(&mut [0; 1024]).await;
        let _ = stream.write_all(&[21, 3, 3, 0, 2, 2, number]).await;
    })
    .await
}

#[tokio::test]
async fn each_reason_for_which_tls_fails_has_a_rule_and_a_cure() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, renewed, theirs) = (Authority::new("ours"), Authority::new("ours"), Authority::new("theirs"));
    ours.write(&folder.path().join("ca.pem"));
    let here = ["localhost"];
    let good = ours.issue(&here);
    let expired = ours.issue_with(&here, |params| params.not_after = date_time_ymd(2020, 1, 1));
    let future = ours.issue_with(&here, |params| params.not_before = date_time_ymd(4000, 1, 1));
    let other = ours.issue(&["other.test", "*.wild.test", "192.0.2.1"]);
    let mut h2 = showing(&good);
    h2.alpn_protocols = vec![b"h2".to_vec()];
    let cut = raw(|mut stream| async move {
        let _ = stream.read(&mut [0; 16]).await;
    });
    let plaintext = raw(|mut stream| async move {
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        let _ = stream.read(&mut [0; 1024]).await;
    });
    let silent =
        raw(|mut stream| async move { while stream.read(&mut [0; 1024]).await.is_ok_and(|count| count > 0) {} });
    let web = authority::web;
    #[rustfmt::skip]
    let cases = [
        ("expired", serve(showing(&expired), web).await, "upstream-tls-expired", " days ago; renew it"),
        ("future", serve(showing(&future), web).await, "upstream-tls-not-yet-valid", "set the clock"),
        ("name", serve(showing(&other), web).await, "upstream-tls-wrong-name", "not for `localhost` but for other.test, *.wild.test, 192.0.2.1; set `server_name`"),
        ("issuer", serve(showing(&theirs.issue(&here)), web).await, "upstream-tls-unknown-issuer", "name its CA as `ca`"),
        ("renewed", serve(showing(&renewed.issue(&here)), web).await, "upstream-tls-unknown-issuer", "name its CA as `ca`"),
        ("plaintext", plaintext.await, "upstream-tls-plaintext", "write `http://`"),
        ("cut", cut.await, "upstream-tls-cut-off", "cut the handshake off"),
        ("h2", serve(h2, web).await, "upstream-tls-incompatible", "NoApplicationProtocol"),
        ("versions", alert(70).await, "upstream-tls-incompatible", "ProtocolVersion"),
        ("unnamed", alert(112).await, "upstream-tls-unknown-name", "set `server_name`"),
        ("oddly", alert(80).await, "upstream-tls", "InternalError"),
        ("demand12", serve(ours.demanding(&good, &[&TLS12]), web).await, "upstream-tls-client-certificate", "demands a client certificate"),
        ("demand13", serve(ours.demanding(&good, &[&TLS13]), web).await, "upstream-tls-client-certificate", "demands a client certificate"),
        ("silent", silent.await, "upstream-dial", "no TLS handshake with localhost"),
    ];
    let upstreams: Vec<_> = cases.iter().map(|&(name, port, ..)| (name, port, "ca = \"ca.pem\"")).collect();
    let mut process = Process::start_in(&config(&upstreams), folder).await;
    for (name, _, rule, cure) in cases {
        for request in both(name) {
            let answer = process.connect().await.ask(request).await;
            assert_eq!(answer.status, if name == "silent" { 504 } else { 502 }, "{name}");
            let event = process.event("upstream failed").await;
            assert_eq!(event["rule"], rule, "{name}: {event}");
            assert!(event["why"].as_str().unwrap().contains(cure), "{name}: {event}");
            assert!(!answer.text().contains(cure), "not for clients: {}", answer.text());
        }
    }
}

#[tokio::test]
async fn without_a_ca_an_upstream_is_trusted_that_the_system_trusts() {
    let folder = tempfile::tempdir().unwrap();
    let (system, theirs) = (Authority::new("system"), Authority::new("theirs"));
    system.write(&folder.path().join("system.pem"));
    let known = serve(showing(&system.issue(&["localhost"])), authority::web).await;
    let unknown = serve(showing(&theirs.issue(&["localhost"])), authority::web).await;
    let text = config(&[("known", known, ""), ("unknown", unknown, "")]);
    let line = "SSL_CERT_FILE=system.pem exec \"$0\" --log-format json";
    let mut process = Process::launch(&text, folder, "info", line).await;
    let [plain, upgrade] = both("known");
    assert_eq!(process.connect().await.ask(plain).await.text(), "ok");
    assert_eq!(process.connect().await.ask(upgrade).await.status, 101);
    assert_eq!(process.connect().await.ask(&both("unknown")[0]).await.status, 502);
    assert_eq!(process.event("upstream failed").await["rule"], "upstream-tls-unknown-issuer");
    process.terminate();
    assert_eq!(process.exit_code().await, Some(0));
    let twice = process.seen.iter().filter(|event| event["level"] == "ERROR").count();
    assert_eq!(twice, 0, "told by others too: {:#?}", process.seen);
}

#[tokio::test]
async fn a_system_without_roots_is_told_before_the_start() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("proxy.toml"), config(&[("u", 1, "")])).unwrap();
    let output =
        shell("SSL_CERT_FILE=/dev/null SSL_CERT_DIR=. exec \"$0\" check", folder.path(), "info").output().await;
    let output = output.unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("upstream `u`: no root certificates found on this system"), "{text}");
}

/// Says whom it knows its client for.
async fn who(mut client: Client<TlsStream<TcpStream>>) {
    let leaf = client.stream.get_ref().1.peer_certificates().unwrap()[0].clone();
    while client.head_or_end().await.is_some() {
        let text = format!("{:?}", leaf.as_ref());
        client.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len())).await;
    }
}

#[tokio::test]
async fn a_client_certificate_is_shown_and_read_again_when_it_changes() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    ours.write(&folder.path().join("ca.pem"));
    let server = ours.issue(&["localhost"]);
    let (first, second) = (ours.issue(&["gate.test"]), ours.issue(&["gate.test"]));
    first.write(folder.path(), "gate");
    theirs.issue(&["gate.test"]).write(folder.path(), "stranger");
    let (port12, port13) =
        (serve(ours.demanding(&server, &[&TLS12]), who).await, serve(ours.demanding(&server, &[&TLS13]), who).await);
    let trusted = "ca = \"ca.pem\"\npool_max_idle = 0\ncertificate = \"gate.pem\"\nkey = \"gate.key\"";
    let strange = "ca = \"ca.pem\"\ncertificate = \"stranger.pem\"\nkey = \"stranger.key\"";
    let text =
        config(&[("12", port12, trusted), ("13", port13, trusted), ("s12", port12, strange), ("s13", port13, strange)]);
    let mut process = Process::start_in(&text, folder).await;
    for name in ["12", "13"] {
        let answer = process.connect().await.ask(&both(name)[0]).await;
        assert_eq!(answer.text(), format!("{:?}", first.certificate.der().as_ref()), "{name}");
    }
    for name in ["s12", "s13"] {
        for request in both(name) {
            assert_eq!(process.connect().await.ask(request).await.status, 502, "{name}");
            let event = process.event("upstream failed").await;
            assert_eq!(event["rule"], "upstream-tls-client-certificate-refused", "{event}");
            assert!(event["why"].as_str().unwrap().contains("UnknownCA"), "{event}");
        }
    }
    // A half-written pair is refused and the old one goes on; the whole one is shown from then on.
    second.write(process.folder.path(), "gate");
    std::fs::write(process.folder.path().join("gate.pem"), "").unwrap();
    process.hang_up();
    let refused = process.event("new certificates refused; the old ones go on serving").await;
    assert!(refused["upstream"].is_string(), "{refused}");
    second.write(process.folder.path(), "gate");
    process.hang_up();
    let read = "certificates read again; the next TLS handshake gets them";
    while process.event(read).await["upstream"] != "13" {}
    let answer = process.connect().await.ask(&both("13")[0]).await;
    assert_eq!(
        answer.text(),
        format!("{:?}", second.certificate.der().as_ref()),
        "a resumed session shows the old one"
    );
}

#[tokio::test]
async fn an_address_is_checked_as_an_address() {
    let folder = tempfile::tempdir().unwrap();
    let ours = Authority::new("ours");
    ours.write(&folder.path().join("ca.pem"));
    let port = serve(showing(&ours.issue(&["127.0.0.1", "::1", "named.test"])), authority::web).await;
    let other = serve(showing(&ours.issue(&["localhost"])), authority::web).await;
    let keys = |name: &str| format!("ca = \"ca.pem\"\nserver_name = \"{name}\"");
    let (v4, v6, bracketed, named) = (keys("127.0.0.1"), keys("::1"), keys("[::1]"), keys("named.test"));
    let by_url = config(&[("url", port, "ca = \"ca.pem\"")]).replace("localhost", "127.0.0.1");
    let others = config(&[
        ("v4", port, &v4),
        ("v6", port, &v6),
        ("bracketed", port, &bracketed),
        ("named", port, &named),
        ("wrong", other, &v4),
    ]);
    let text = format!("{by_url}{}", others.split_once("0\"\n").unwrap().1);
    let mut process = Process::start_in(&text, folder).await;
    for name in ["url", "v4", "v6", "bracketed", "named"] {
        assert_eq!(process.connect().await.ask(&both(name)[0]).await.status, 200, "{name}");
    }
    assert_eq!(process.connect().await.ask(&both("wrong")[0]).await.status, 502);
    let event = process.event("upstream failed").await;
    assert!(event["why"].as_str().unwrap().contains("not for `127.0.0.1` but for localhost"), "{event}");
}

#[tokio::test]
async fn a_pinned_key_counts_besides_the_chain_and_the_log_says_which_was_seen() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    ours.write(&folder.path().join("ca.pem"));
    let good = serve(showing(&ours.issue(&["localhost"])), authority::web).await;
    let strange = serve(showing(&theirs.issue(&["localhost"])), authority::web).await;
    let none = "sha256/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let wrong = config(&[("wrong", good, &format!("ca = \"ca.pem\"\npin = \"{none}\""))]);
    let mut process = Process::start_in(&wrong, folder).await;
    for request in both("wrong") {
        assert_eq!(process.connect().await.ask(request).await.status, 502);
    }
    let event = process.event("upstream failed").await;
    assert_eq!(event["rule"], "upstream-tls-pin", "{event}");
    let why = event["why"].as_str().unwrap();
    let seen = &why[why.find("sha256/").unwrap()..][..none.len()];

    // As an operator does it: what the log says goes into the config, beside the next key.
    let folder = tempfile::tempdir().unwrap();
    ours.write(&folder.path().join("ca.pem"));
    let keys = format!("ca = \"ca.pem\"\npin = [\"{none}\", \"{seen}\"]");
    let mut process = Process::start_in(&config(&[("good", good, &keys), ("strange", strange, &keys)]), folder).await;
    let [plain, upgrade] = both("good");
    assert_eq!(process.connect().await.ask(plain).await.text(), "ok");
    assert_eq!(process.connect().await.ask(upgrade).await.status, 101);
    assert_eq!(process.connect().await.ask(&both("strange")[0]).await.status, 502);
    assert_eq!(process.event("upstream failed").await["rule"], "upstream-tls-unknown-issuer", "a pin is no root");
}

/// Shows these certificates, and signs with the key of `signer`.
fn pretending(chain: &[&Issued], signer: &Issued, version: &'static SupportedProtocolVersion) -> ServerConfig {
    let chain = chain.iter().map(|issued| issued.certificate.der().clone()).collect();
    let key = PrivateKeyDer::try_from(signer.key.serialize_der()).unwrap();
    let pair = CertifiedKey::new(chain, any_supported_type(&key).unwrap());
    let builder = ServerConfig::builder_with_provider(Arc::new(default_provider()));
    let builder = builder.with_protocol_versions(&[version]).unwrap().with_no_client_auth();
    builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(pair)))
}

#[tokio::test]
async fn a_pinned_certificate_is_of_no_use_to_whoever_lacks_its_key() {
    let folder = tempfile::tempdir().unwrap();
    let ours = Authority::new("ours");
    ours.write(&folder.path().join("ca.pem"));
    let (pinned, other) = (ours.issue(&["localhost"]), ours.issue(&["localhost"]));
    let hash = digest(&SHA256, &pinned.key.subject_public_key_info());
    let keys = format!("ca = \"ca.pem\"\npin = \"sha256/{}\"", STANDARD.encode(hash));
    let unpinned = "ca = \"ca.pem\"".to_owned();
    let mut upstreams = Vec::new();
    for (name, version) in [("12", &TLS12), ("13", &TLS13)] {
        for (who, chain, signer, keys, status) in [
            ("honest", vec![&pinned], &pinned, &keys, 200),
            // It shows the one that is pinned too, behind its own.
            ("behind", vec![&other, &pinned], &other, &keys, 502),
            ("thief", vec![&pinned], &other, &keys, 502),
            ("unpinned", vec![&pinned], &other, &unpinned, 502),
        ] {
            let port = serve(pretending(&chain, signer, version), authority::web).await;
            upstreams.push((format!("{who}{name}"), port, keys, status));
        }
    }
    let text: Vec<_> = upstreams.iter().map(|(name, port, keys, _)| (name.as_str(), *port, keys.as_str())).collect();
    let process = Process::start_in(&config(&text), folder).await;
    for (name, _, _, status) in &upstreams {
        assert_eq!(process.connect().await.ask(&both(name)[0]).await.status, *status, "{name}");
    }
}
